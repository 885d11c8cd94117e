//! The values of an event, read from its record.
//!
//! Each tag, length and reference is checked. A container is made only when all its values are
//! there: so no length leads to more memory than the record has bytes for, and the garbage
//! collector never sees a container half filled.

use std::vec::Drain;

use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use super::error::{Broken, Error};
use super::int;
use super::wire::{MAX_DEPTH, Reader, tag};

/// Reads the values of one event after the other.
#[derive(Default)]
pub(super) struct Values {
    /// The values of containers that are not complete yet, and of the event itself.
    stack: Vec<Py<PyAny>>,
    /// Texts, bytes and containers that were read so far, if the record refers to some of them.
    parts: Vec<Py<PyAny>>,
    shared: bool,
}

/// Room for more values than this is given back after the event that needed it.
const MOST_IDLE: usize = 1 << 16;

impl Values {
    /// Reads all values of a record, of which there must be `count`.
    #[inline]
    pub(super) fn read<'py>(
        &mut self,
        py: Python<'py>,
        mut reader: Reader<'_>,
        count: usize,
        shared: bool,
    ) -> Result<impl Iterator<Item = Bound<'py, PyAny>>, Error> {
        self.stack.shrink_to(MOST_IDLE);
        self.parts.shrink_to(MOST_IDLE);
        self.shared = shared;
        let read = (0..count)
            .try_for_each(|_| self.push_value(py, &mut reader, MAX_DEPTH))
            .and_then(|()| Ok(reader.finish()?));
        self.parts.clear();
        if let Err(error) = read {
            self.stack.clear();
            return Err(error);
        }
        Ok(self.pop(py, count))
    }

    #[inline]
    fn push_value(
        &mut self,
        py: Python<'_>,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<(), Error> {
        let value = self.value(py, reader, depth)?;
        self.stack.push(value.unbind());
        Ok(())
    }

    /// The last `count` values of the stack, which are taken off it.
    #[inline]
    fn pop<'py>(&mut self, py: Python<'py>, count: usize) -> Popped<'_, 'py> {
        let first = self.stack.len() - count;
        Popped { py, values: self.stack.drain(first..) }
    }

    #[inline]
    fn value<'py>(
        &mut self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<Bound<'py, PyAny>, Error> {
        match reader.take_byte()? {
            small if small & tag::SMALL_INT != 0 => {
                Ok(int::from_i64(py, i64::from(small & !tag::SMALL_INT))?)
            }
            tag::INT32 => {
                Ok(int::from_i64(py, i64::from(i32::from_le_bytes(reader.take_array()?)))?)
            }
            tag::TEXT => {
                let text = text(py, reader.take_sized()?)?;
                Ok(self.remember(text))
            }
            tag::FLOAT => float(py, f64::from_le_bytes(reader.take_array()?)),
            other => self.other_value(py, reader, other, depth),
        }
    }

    fn other_value<'py>(
        &mut self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        tag: u8,
        depth: u32,
    ) -> Result<Bound<'py, PyAny>, Error> {
        let part = match tag {
            tag::NONE => return Ok(py.None().into_bound(py)),
            tag::FALSE => return Ok(PyBool::new(py, false).to_owned().into_any()),
            tag::TRUE => return Ok(PyBool::new(py, true).to_owned().into_any()),
            tag::INT64 => return Ok(int::from_i64(py, i64::from_le_bytes(reader.take_array()?))?),
            tag::INT => return Ok(int::from_bytes(py, reader.take_sized()?)?),
            tag::REFERENCE => return self.recall(py, reader.take_varint()?),
            tag::BYTES => bytes(py, reader.take_sized()?)?,
            _ => self.container(py, reader, tag, depth.checked_sub(1).ok_or(Broken::Depth)?)?,
        };
        Ok(self.remember(part))
    }

    /// Keeps a part for references to it.
    #[inline]
    fn remember<'py>(&mut self, part: Bound<'py, PyAny>) -> Bound<'py, PyAny> {
        if self.shared {
            self.parts.push(part.clone().unbind());
        }
        part
    }

    fn recall<'py>(&self, py: Python<'py>, index: u32) -> Result<Bound<'py, PyAny>, Error> {
        let part = self.parts.get(index as usize).ok_or(Broken::Reference(index))?;
        Ok(part.bind(py).clone())
    }

    fn container<'py>(
        &mut self,
        py: Python<'py>,
        reader: &mut Reader<'_>,
        tag: u8,
        depth: u32,
    ) -> Result<Bound<'py, PyAny>, Error> {
        if !(tag::TUPLE..=tag::DICT).contains(&tag) {
            return Err(Broken::Tag(tag).into());
        }
        let count = reader.take_varint()? as usize;
        let values = if tag == tag::DICT { count.saturating_mul(2) } else { count };
        for _ in 0..values {
            self.push_value(py, reader, depth)?;
        }
        let values = self.pop(py, values);
        Ok(match tag {
            tag::TUPLE => tuple(values),
            tag::LIST => list(values),
            tag::DICT => dict(values),
            _ => set(values, tag),
        }?)
    }
}

/// Values that leave the stack.
struct Popped<'a, 'py> {
    py: Python<'py>,
    values: Drain<'a, Py<PyAny>>,
}

impl<'py> Iterator for Popped<'_, 'py> {
    type Item = Bound<'py, PyAny>;

    #[inline]
    fn next(&mut self) -> Option<Bound<'py, PyAny>> {
        self.values.next().map(|value| value.into_bound(self.py))
    }
}

impl Popped<'_, '_> {
    fn len(&self) -> ffi::Py_ssize_t {
        self.values.len() as ffi::Py_ssize_t
    }
}

/// A text. One character is left to the decoder, which has an object for each of the first 256;
/// pickle asks the same decoder.
#[inline]
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>, Error> {
    if bytes.len() < 2 || !bytes.is_ascii() {
        return wide_text(py, bytes);
    }
    // SAFETY: asks for a string of so many ASCII characters.
    let text = unsafe { ffi::PyUnicode_New(bytes.len() as ffi::Py_ssize_t, 0x7f) };
    // SAFETY: that was a new reference, or null with an error set.
    let text = unsafe { Bound::from_owned_ptr_or_err(py, text) }?;
    // SAFETY: the string is in its compact form.
    let data = unsafe { ffi::PyUnicode_DATA(text.as_ptr()) };
    // SAFETY: so much memory is there, and nobody else has seen the string yet.
    unsafe { data.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(text)
}

fn wide_text<'py>(py: Python<'py>, bytes: &[u8]) -> Result<Bound<'py, PyAny>, Error> {
    let (start, len) = (bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t);
    // SAFETY: so many bytes are there.
    let text = unsafe { ffi::PyUnicode_DecodeUTF8(start, len, c"surrogatepass".as_ptr()) };
    // SAFETY: that was a new reference, or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, text) }.map_err(|error| {
        let is_broken = error.is_instance_of::<PyUnicodeDecodeError>(py);
        if is_broken { Broken::Text.into() } else { Error::Raised(error) }
    })
}

/// Bytes, also a single one, in an object of their own, as pickle makes them.
fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let len = bytes.len() as ffi::Py_ssize_t;
    // SAFETY: asks for so many bytes.
    let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), len) };
    // SAFETY: that was a new reference, or null with an error set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    // SAFETY: it is a bytes object.
    let data = unsafe { ffi::PyBytes_AS_STRING(object.as_ptr()) };
    // SAFETY: so much memory is there, and nobody else has seen the object yet; the object of
    // length zero, which many have seen, is not written to.
    unsafe { data.cast_mut().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(object)
}

#[inline]
fn float(py: Python<'_>, number: f64) -> Result<Bound<'_, PyAny>, Error> {
    // SAFETY: asks for a float.
    let float = unsafe { ffi::PyFloat_FromDouble(number) };
    // SAFETY: that was a new reference, or null with an error set.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, float) }?)
}

fn tuple<'py>(values: Popped<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: asks for a tuple of so many items.
    let tuple = unsafe { ffi::PyTuple_New(values.len()) };
    // SAFETY: that was a new reference, or null with an error set.
    let tuple = unsafe { Bound::from_owned_ptr_or_err(values.py, tuple) }?;
    for (index, value) in (0..).zip(values) {
        // SAFETY: the tuple is new and has an item of that index.
        unsafe { ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index, value.into_ptr()) };
    }
    Ok(tuple)
}

fn list<'py>(values: Popped<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: asks for a list of so many items.
    let list = unsafe { ffi::PyList_New(values.len()) };
    // SAFETY: that was a new reference, or null with an error set.
    let list = unsafe { Bound::from_owned_ptr_or_err(values.py, list) }?;
    for (index, value) in (0..).zip(values) {
        // SAFETY: the list is new and has an item of that index.
        unsafe { ffi::PyList_SET_ITEM(list.as_ptr(), index, value.into_ptr()) };
    }
    Ok(list)
}

fn dict<'py>(mut values: Popped<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: asks for a dictionary.
    let dict = unsafe { ffi::PyDict_New() };
    // SAFETY: that was a new reference, or null with an error set.
    let dict = unsafe { Bound::from_owned_ptr_or_err(values.py, dict) }?;
    while let (Some(key), Some(value)) = (values.next(), values.next()) {
        // SAFETY: all three are alive, and the first is a dictionary.
        let failed = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) };
        check(values.py, failed)?;
    }
    Ok(dict)
}

fn set<'py>(values: Popped<'_, 'py>, tag: u8) -> PyResult<Bound<'py, PyAny>> {
    let new = if tag == tag::FROZEN_SET { ffi::PyFrozenSet_New } else { ffi::PySet_New };
    // SAFETY: asks for a set, empty at first.
    let set = unsafe { new(std::ptr::null_mut()) };
    let py = values.py;
    // SAFETY: that was a new reference, or null with an error set.
    let set = unsafe { Bound::from_owned_ptr_or_err(py, set) }?;
    for value in values {
        // SAFETY: both are alive, and the set, if frozen, was seen by nobody else yet.
        let failed = unsafe { ffi::PySet_Add(set.as_ptr(), value.as_ptr()) };
        check(py, failed)?;
    }
    Ok(set)
}

/// Turns a status of the C API into a result.
#[inline]
pub(super) fn check(py: Python<'_>, failed: std::ffi::c_int) -> PyResult<()> {
    if failed == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}
