//! Events to bytes: the dispatcher's side.

use pyo3::prelude::*;

use super::classes::Classes;
use super::error::Error;
use super::memo::Memo;
use super::pickled::{Pickle, Pickled};
use super::unsendable;
use super::write::Values;

/// Turns the events of one dispatcher process into records.
pub struct Encoder {
    classes: Classes,
    pickle: Pickle,
    memo: Memo,
    out_of_band_bytes: usize,
}

/// What became of an event.
#[must_use]
pub enum Encoded {
    /// Its record stands in the first `len` bytes of the room.
    Written {
        /// Bytes of the record.
        len: usize,
    },
    /// The room is too small. Encode it again, with that much room.
    TooLarge {
        /// Bytes that the record needs as the event is now.
        len: usize,
    },
    /// First send this definition, so that it arrives whatever happens to other records; then
    /// encode the event again. The encoder takes it as sent.
    Define(Vec<u8>),
    /// It was pickled and does not stand in the room, which is too small or no place for its
    /// out-of-band buffers. Find room for [`Pickled::len`] bytes and let it
    /// [write](Pickled::write) itself.
    Pickled(Pickled),
}

impl Encoder {
    /// Makes an encoder. Pickle leaves out contiguous buffers of at least `out_of_band_bytes`.
    ///
    /// # Errors
    /// When the modules of pickling can't be imported.
    pub fn new(py: Python<'_>, out_of_band_bytes: usize) -> PyResult<Encoder> {
        Ok(Encoder {
            classes: Classes::new(py)?,
            pickle: Pickle::new(py)?,
            memo: Memo::new(),
            out_of_band_bytes,
        })
    }

    /// Writes the record of an event at the beginning of `room`, or says what has to come first.
    ///
    /// # Errors
    /// [`Error::Unsendable`] when the event can't be pickled either.
    pub fn encode(&mut self, event: &Bound<'_, PyAny>, room: &mut [u8]) -> Result<Encoded, Error> {
        match self.encode_typed(event, room)? {
            Some(encoded) => Ok(encoded),
            None => self.encode_pickled(event, room),
        }
    }

    /// Takes the typed path; none when it does not lead to what pickle would bring.
    #[inline]
    fn encode_typed(
        &mut self,
        event: &Bound<'_, PyAny>,
        room: &mut [u8],
    ) -> PyResult<Option<Encoded>> {
        let Some((shape, attributes)) = self.classes.shape_of(event, &self.pickle)? else {
            return Ok(None);
        };
        if let Some(definition) = shape.definition.take() {
            return Ok(Some(Encoded::Define(definition)));
        }
        let mut values = Values::new(room, &mut self.memo, shape.id);
        Ok(values.write_attributes(event.py(), &attributes).ok().map(|()| values.finish()))
    }

    #[cold]
    fn encode_pickled(
        &mut self,
        event: &Bound<'_, PyAny>,
        room: &mut [u8],
    ) -> Result<Encoded, Error> {
        let pickled = self
            .pickle
            .dump_event(event, self.out_of_band_bytes)
            .map_err(|cause| unsendable::explain(event, &self.pickle, cause))?;
        if pickled.has_buffers() || pickled.len() > room.len() {
            return Ok(Encoded::Pickled(pickled));
        }
        pickled.write(event.py(), room)?;
        Ok(Encoded::Written { len: pickled.len() })
    }
}
