//! The two ends of the codec as Python objects, for its tests.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyTraverseError, PyVisit};

use crate::codec::{self, Encoded, Pickled};
use crate::error::raise_codec;

/// Encodes into a room that grows as needed, and collects definitions on the way.
#[pyclass]
pub(crate) struct Encoder {
    codec: codec::Encoder,
    room: Vec<u8>,
    /// What has to be sent before the next record, also when the encoding of one failed.
    definitions: Vec<Py<PyBytes>>,
}

/// Decodes records and definitions.
#[pyclass]
pub(crate) struct Decoder {
    codec: codec::Decoder,
}

#[pymethods]
impl Encoder {
    #[new]
    #[pyo3(signature = (out_of_band_bytes = 65536, room_bytes = 4096))]
    fn new(py: Python<'_>, out_of_band_bytes: usize, room_bytes: usize) -> PyResult<Encoder> {
        let codec = codec::Encoder::new(py, out_of_band_bytes)?;
        Ok(Encoder { codec, room: vec![0; room_bytes], definitions: Vec::new() })
    }

    /// The definitions to send first, and the record.
    fn encode<'py>(
        &mut self,
        event: &Bound<'py, PyAny>,
    ) -> PyResult<(Vec<Py<PyBytes>>, Bound<'py, PyBytes>)> {
        let py = event.py();
        let record = loop {
            let encoded = self.codec.encode(event, &mut self.room);
            match encoded.map_err(|error| raise_codec(py, error))? {
                Encoded::Written { len } => break PyBytes::new(py, &self.room[..len]),
                Encoded::TooLarge { len } => self.room.resize(len, 0xaa),
                Encoded::Define(definition) => {
                    self.definitions.push(PyBytes::new(py, &definition).unbind());
                }
                Encoded::Pickled(pickled) => break write(py, &pickled)?,
            }
        };
        Ok((std::mem::take(&mut self.definitions), record))
    }
}

#[pymethods]
impl Decoder {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Decoder> {
        Ok(Decoder { codec: codec::Decoder::new(py)? })
    }

    /// Takes in a definition.
    fn define(&mut self, py: Python<'_>, definition: &[u8]) -> PyResult<()> {
        self.codec.define(py, definition).map_err(|error| raise_codec(py, error))
    }

    /// Makes the event of a record; of its out-of-band buffers, views of `owner` if there is one.
    #[pyo3(signature = (record, owner = None))]
    fn decode<'py>(
        &mut self,
        py: Python<'py>,
        record: &[u8],
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.codec.decode(py, record, owner).map_err(|error| raise_codec(py, error))
    }

    /// It holds classes alone, which the collector can clear.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.codec.traverse(&visit)
    }
}

/// Writes a pickled event over memory that was used before.
fn write<'py>(py: Python<'py>, pickled: &Pickled) -> PyResult<Bound<'py, PyBytes>> {
    let mut record = vec![0xaa; pickled.len()];
    pickled.write(py, &mut record)?;
    Ok(PyBytes::new(py, &record))
}

/// How many bytes of a record its reader has to copy.
#[pyfunction]
pub(crate) fn leading_bytes(py: Python<'_>, head: &[u8], len: usize) -> PyResult<usize> {
    codec::leading_bytes(head, len).map_err(|broken: codec::Broken| raise_codec(py, broken.into()))
}
