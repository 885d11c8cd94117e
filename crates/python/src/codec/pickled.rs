//! Events that pickle writes, and the large buffers that it leaves out.
//!
//! Protocol 5 offers each large buffer to a callback before it copies it into the pickle. Those of
//! at least the threshold are taken: the caller copies them once, from the object into the record.
//! A record with such buffers is laid out so that its reader can use them where they are:
//!
//! | offset | holds |
//! |---|---|
//! | 0 | kind, three zero bytes, count of buffers `u32` |
//! | 8 | length of the pickle `u64` |
//! | 16 | per buffer: offset `u64`, length `u64` |
//! | then | the pickle |
//! | then | the buffers, each at a multiple of [`ALIGNMENT`] |

use std::sync::{Mutex, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView, PySlice};

use super::error::{Broken, Error};
use super::wire::{self, Reader, Writer};

/// Every out-of-band buffer begins at a multiple of this, counted from the record's first byte.
pub const ALIGNMENT: usize = 64;
/// So many bytes of a record say how much of it is private to the reader ([`leading_bytes`]).
pub const HEAD_BYTES: usize = 16;

const ENTRY_BYTES: usize = 16;

/// The functions `dumps` and `loads` of the module `pickle`.
pub(super) struct Pickle {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
}

/// A pickled event that waits for room in a record.
///
/// It keeps the event's large buffers alive and locked until it is dropped.
pub struct Pickled {
    stream: Py<PyBytes>,
    stream_len: usize,
    buffers: Vec<PyBuffer<u8>>,
}

/// Where the parts of a record with buffers are.
struct Layout<'a> {
    stream: &'a [u8],
    entries: &'a [[u8; ENTRY_BYTES]],
}

/// Takes the buffers that pickle leaves out.
#[pyclass(frozen, name = "_BufferCollector")]
struct Collector {
    least_bytes: usize,
    taken: Mutex<Vec<PyBuffer<u8>>>,
}

impl Pickle {
    pub(super) fn new(py: Python<'_>) -> PyResult<Pickle> {
        // The module `pickle` takes its functions from here, and takes longer to import.
        let pickle = py.import("_pickle")?;
        Ok(Pickle {
            dumps: pickle.getattr("dumps")?.unbind(),
            loads: pickle.getattr("loads")?.unbind(),
        })
    }

    /// Pickles anything, with all its buffers in the pickle.
    pub(super) fn dump<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let pickle = self.dumps.bind(object.py()).call1((object, 5))?;
        Ok(pickle.cast_into::<PyBytes>()?)
    }

    /// Pickles an event, with its buffers of `least_bytes` and more left out.
    pub(super) fn dump_event(
        &self,
        event: &Bound<'_, PyAny>,
        least_bytes: usize,
    ) -> PyResult<Pickled> {
        let py = event.py();
        let collector = Bound::new(py, Collector { least_bytes, taken: Mutex::default() })?;
        let options = PyDict::new(py);
        options.set_item(intern!(py, "buffer_callback"), &collector)?;
        let stream =
            self.dumps.bind(py).call((event, 5), Some(&options))?.cast_into::<PyBytes>()?;
        let taken =
            collector.get().taken.lock().unwrap_or_else(PoisonError::into_inner).split_off(0);
        Ok(Pickled { stream_len: stream.as_bytes().len(), stream: stream.unbind(), buffers: taken })
    }

    /// Unpickles what [`dump`](Self::dump) wrote.
    pub(super) fn load<'py>(&self, py: Python<'py>, stream: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.loads.bind(py).call1((PyBytes::new(py, stream),))
    }

    /// Unpickles a record with buffers.
    ///
    /// `bytes` holds at least the leading bytes of the record. The buffers are taken from `owner`,
    /// which exports the whole record, without a copy; or they are copied from `bytes`.
    pub(super) fn load_event<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        owner: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>, Error> {
        let layout = Layout::read(bytes)?;
        let buffers = match owner {
            Some(owner) => layout.mapped_buffers(owner)?,
            None => layout.copied_buffers(py, bytes)?,
        };
        let options = PyDict::new(py);
        options.set_item(intern!(py, "buffers"), buffers)?;
        let stream = PyBytes::new(py, layout.stream);
        Ok(self.loads.bind(py).call((stream,), Some(&options))?)
    }
}

impl Pickled {
    /// Bytes of the record.
    pub fn len(&self) -> usize {
        if self.buffers.is_empty() {
            return 1 + self.stream_len;
        }
        self.places().last().map_or(0, |(offset, len)| offset + len)
    }

    /// Whether the record holds buffers out of band: it is worth memory of its own that the
    /// reader can map, which begins at a multiple of [`ALIGNMENT`].
    pub fn has_buffers(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// Writes the record at the beginning of `room`, copying each buffer once.
    ///
    /// # Errors
    /// When an exporter refuses to hand out its bytes.
    ///
    /// # Panics
    /// When `room` is smaller than [`len`](Self::len).
    pub fn write(&self, py: Python<'_>, room: &mut [u8]) -> PyResult<()> {
        let room = &mut room[..self.len()];
        let stream = self.stream.as_bytes(py);
        if self.buffers.is_empty() {
            room[0] = wire::PICKLED;
            room[1..].copy_from_slice(stream);
            return Ok(());
        }
        self.write_head(room, stream);
        self.write_buffers(py, room)
    }

    fn write_head(&self, room: &mut [u8], stream: &[u8]) {
        let mut writer = Writer::new(room);
        writer.put(&[wire::PICKLED_WITH_BUFFERS, 0, 0, 0]);
        writer.put(&(self.buffers.len() as u32).to_le_bytes());
        writer.put(&(stream.len() as u64).to_le_bytes());
        for (offset, len) in self.places() {
            writer.put(&(offset as u64).to_le_bytes());
            writer.put(&(len as u64).to_le_bytes());
        }
        writer.put(stream);
    }

    fn write_buffers(&self, py: Python<'_>, room: &mut [u8]) -> PyResult<()> {
        let mut written = HEAD_BYTES + ENTRY_BYTES * self.buffers.len() + self.stream_len;
        for (buffer, (offset, len)) in self.buffers.iter().zip(self.places()) {
            // What the room held before is nobody's business on the other side.
            room[written..offset].fill(0);
            buffer.copy_to_slice(py, &mut room[offset..offset + len])?;
            written = offset + len;
        }
        Ok(())
    }

    /// Offset and length of each buffer in the record.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut end = HEAD_BYTES + ENTRY_BYTES * self.buffers.len() + self.stream_len;
        self.buffers.iter().map(move |buffer| {
            let offset = end.next_multiple_of(ALIGNMENT);
            end = offset + buffer.len_bytes();
            (offset, buffer.len_bytes())
        })
    }
}

/// How many bytes at the beginning of a record of `len` bytes its reader has to copy out of shared
/// memory before it decodes them. The rest are out-of-band buffers, which can be used in place.
///
/// `head` is the record's first [`HEAD_BYTES`] bytes, or all of it when it is shorter.
///
/// # Errors
/// When the record can't be one that an encoder wrote.
pub fn leading_bytes(head: &[u8], len: usize) -> Result<usize, Broken> {
    if head.first() != Some(&wire::PICKLED_WITH_BUFFERS) {
        return Ok(len);
    }
    let (buffers, stream_len) = read_head(head)?;
    let leading = buffers
        .checked_mul(ENTRY_BYTES)
        .and_then(|entries| entries.checked_add(HEAD_BYTES))
        .and_then(|entries| entries.checked_add(stream_len))
        .ok_or(Broken::Truncated)?;
    if leading <= len { Ok(leading) } else { Err(Broken::Truncated) }
}

/// The count of buffers and the length of the pickle.
fn read_head(head: &[u8]) -> Result<(usize, usize), Broken> {
    let mut reader = Reader::new(head);
    reader.take(4)?;
    let buffers = u32::from_le_bytes(reader.take_array()?);
    let stream_len = u64::from_le_bytes(reader.take_array()?);
    let stream_len = usize::try_from(stream_len).map_err(|_| Broken::Truncated)?;
    Ok((buffers as usize, stream_len))
}

impl<'a> Layout<'a> {
    fn read(bytes: &'a [u8]) -> Result<Layout<'a>, Broken> {
        let (buffers, stream_len) = read_head(bytes)?;
        let mut reader = Reader::new(bytes);
        reader.take(HEAD_BYTES)?;
        let entry_bytes = buffers.checked_mul(ENTRY_BYTES).ok_or(Broken::Truncated)?;
        let (entries, _) = reader.take(entry_bytes)?.as_chunks();
        Ok(Layout { entries, stream: reader.take(stream_len)? })
    }

    /// Offset and length of each buffer within a record of `len` bytes.
    fn places(&self, len: usize) -> impl Iterator<Item = Result<(usize, usize), Broken>> {
        let leading = HEAD_BYTES + ENTRY_BYTES * self.entries.len() + self.stream.len();
        self.entries.iter().enumerate().map(move |(index, entry)| {
            let mut reader = Reader::new(entry);
            let offset = u64::from_le_bytes(reader.take_array()?);
            let bytes = u64::from_le_bytes(reader.take_array()?);
            let end = offset.checked_add(bytes).filter(|end| *end <= len as u64);
            let sound = offset >= leading as u64 && offset % ALIGNMENT as u64 == 0;
            match end {
                Some(_) if sound => Ok((offset as usize, bytes as usize)),
                _ => Err(Broken::Buffer(index)),
            }
        })
    }

    /// Views of the owner's memory; each keeps the owner alive.
    fn mapped_buffers<'py>(&self, owner: &Bound<'py, PyAny>) -> Result<Bound<'py, PyList>, Error> {
        let py = owner.py();
        let whole = PyMemoryView::from(owner)?;
        let whole = whole.call_method1(intern!(py, "cast"), (intern!(py, "B"),))?;
        let views = PyList::empty(py);
        for place in self.places(whole.len()?) {
            let (offset, len) = place?;
            // `PySlice::new` keeps a reference to each number for good.
            let part = py.get_type::<PySlice>().call1((offset, offset + len))?;
            views.append(whole.get_item(part)?)?;
        }
        Ok(views)
    }

    /// Writable copies, as pickle makes of writable buffers.
    fn copied_buffers<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
    ) -> Result<Bound<'py, PyList>, Error> {
        let copies = PyList::empty(py);
        for place in self.places(bytes.len()) {
            let (offset, len) = place?;
            copies.append(PyByteArray::new(py, &bytes[offset..offset + len]))?;
        }
        Ok(copies)
    }
}

#[pymethods]
impl Collector {
    /// Whether the buffer is to stay in the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        // A buffer that is not contiguous has no raw bytes: pickle says so better than we could.
        let Ok(raw) = buffer.call_method0(intern!(buffer.py(), "raw")) else { return Ok(true) };
        if raw.len()? < self.least_bytes {
            return Ok(true);
        }
        let raw = PyBuffer::get(&raw)?;
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(raw);
        Ok(false)
    }
}
