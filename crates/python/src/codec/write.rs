//! The values of an event, written into its record.
//!
//! This is the typed path. It holds borrowed references all the way, which is sound because nothing
//! on that way runs Python code or makes an object that the garbage collector tracks; the first
//! value that would need either sends the whole event to pickle instead.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyTuple};
use pyo3::{Borrowed, ffi};

use super::encode::Encoded;
use super::instance::{Attributes, items_of};
use super::int;
use super::memo::{Memo, Met};
use super::wire::{self, MAX_DEPTH, Writer, tag};

/// The event has to be pickled.
pub(super) struct NotPlain;

/// Writes the values of one event.
pub(super) struct Values<'a> {
    writer: Writer<'a>,
    memo: &'a mut Memo,
    /// Texts, bytes and containers that were written so far.
    parts: u32,
    shared: bool,
}

impl<'a> Values<'a> {
    #[inline]
    pub(super) fn new(room: &'a mut [u8], memo: &'a mut Memo, shape: u16) -> Values<'a> {
        memo.begin();
        let mut writer = Writer::new(room);
        let [low, high] = shape.to_le_bytes();
        writer.put(&[wire::TYPED, low, high]);
        Values { writer, memo, parts: 0, shared: false }
    }

    #[inline]
    pub(super) fn finish(mut self) -> Encoded {
        if self.shared {
            self.writer.set_kind(wire::TYPED_SHARED);
        }
        let len = self.writer.len();
        if self.writer.fits() { Encoded::Written { len } } else { Encoded::TooLarge { len } }
    }

    #[inline]
    pub(super) fn write_attributes(
        &mut self,
        py: Python<'_>,
        attributes: &Attributes<'_, '_>,
    ) -> Result<(), NotPlain> {
        match attributes {
            Attributes::Inline(inline) => {
                for value in inline.values() {
                    // SAFETY: the instance holds its values, and nothing alters it meanwhile.
                    let value = unsafe { Borrowed::from_ptr_or_opt(py, value) };
                    self.write(value.ok_or(NotPlain)?, MAX_DEPTH)?;
                }
            }
            Attributes::Dict(dict) => {
                // SAFETY: see the head of the module.
                for (_, value) in unsafe { items_of(dict.as_borrowed()) } {
                    self.write(value, MAX_DEPTH)?;
                }
            }
        }
        Ok(())
    }

    /// Writes one value; containers may stand `depth` deep within each other.
    #[inline]
    fn write(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> Result<(), NotPlain> {
        let class = value.get_type_ptr();
        if class == &raw mut ffi::PyUnicode_Type {
            return self.write_part(value, Self::write_text);
        }
        if class == &raw mut ffi::PyLong_Type {
            return self.write_int(value);
        }
        if class == &raw mut ffi::PyFloat_Type {
            self.write_float(value);
            return Ok(());
        }
        self.write_other(value, class, depth)
    }

    fn write_other(
        &mut self,
        value: Borrowed<'_, '_, PyAny>,
        class: *mut ffi::PyTypeObject,
        depth: u32,
    ) -> Result<(), NotPlain> {
        if value.is_none() {
            self.writer.put(&[tag::NONE]);
            Ok(())
        } else if class == &raw mut ffi::PyBool_Type {
            self.write_bool(value);
            Ok(())
        } else if class == &raw mut ffi::PyBytes_Type {
            self.write_part(value, Self::write_bytes)
        } else {
            let deeper = depth.checked_sub(1).ok_or(NotPlain)?;
            self.write_part(value, |values, value| values.write_container(value, class, deeper))
        }
    }

    fn write_container(
        &mut self,
        value: Borrowed<'_, '_, PyAny>,
        class: *mut ffi::PyTypeObject,
        depth: u32,
    ) -> Result<(), NotPlain> {
        if class == &raw mut ffi::PyList_Type {
            self.write_list(value, depth)
        } else if class == &raw mut ffi::PyDict_Type {
            self.write_dict(value, depth)
        } else if class == &raw mut ffi::PyTuple_Type {
            self.write_tuple(value, depth)
        } else if class == &raw mut ffi::PySet_Type {
            self.write_set(value, tag::SET, depth)
        } else if class == &raw mut ffi::PyFrozenSet_Type {
            self.write_set(value, tag::FROZEN_SET, depth)
        } else {
            Err(NotPlain)
        }
    }

    /// Writes a value whose identity pickle keeps: once, then references to it.
    #[inline]
    fn write_part<'v, 'py>(
        &mut self,
        value: Borrowed<'v, 'py, PyAny>,
        write: impl FnOnce(&mut Self, Borrowed<'v, 'py, PyAny>) -> Result<(), NotPlain>,
    ) -> Result<(), NotPlain> {
        let address = value.as_ptr() as usize;
        // What has one reference is met once: that reference led here.
        // SAFETY: the value is alive.
        let met_once = unsafe { ffi::Py_REFCNT(value.as_ptr()) } == 1;
        if !met_once {
            match self.memo.meet(address) {
                Met::Never => {}
                Met::Open => return Err(NotPlain),
                Met::Written(index) => {
                    self.shared = true;
                    self.writer.put_size(tag::REFERENCE, index);
                    return Ok(());
                }
            }
        }
        write(self, value)?;
        if !met_once {
            self.memo.close(address, self.parts);
        }
        self.parts = self.parts.checked_add(1).ok_or(NotPlain)?;
        Ok(())
    }

    #[inline]
    fn write_text(&mut self, value: Borrowed<'_, '_, PyAny>) -> Result<(), NotPlain> {
        // SAFETY: the value is an exact string.
        if unsafe { ffi::PyUnicode_IS_COMPACT_ASCII(value.as_ptr()) } == 0 {
            return self.write_wide_text(value);
        }
        // SAFETY: as above.
        let len = unsafe { ffi::PyUnicode_GET_LENGTH(value.as_ptr()) };
        // SAFETY: as above, and in its compact form.
        let data = unsafe { ffi::PyUnicode_DATA(value.as_ptr()) };
        // SAFETY: an ASCII string has one byte for each of its characters, and never changes.
        let text = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len as usize) };
        self.write_sized(tag::TEXT, text)
    }

    fn write_wide_text(&mut self, value: Borrowed<'_, '_, PyAny>) -> Result<(), NotPlain> {
        let (encoding, errors) = (c"utf-8".as_ptr(), c"surrogatepass".as_ptr());
        // SAFETY: the value is an exact string. The codec is built in and runs no Python code.
        let text = unsafe { ffi::PyUnicode_AsEncodedString(value.as_ptr(), encoding, errors) };
        // SAFETY: that was a new reference, or null with an error set. Nothing is written after an
        // error, so that the exception object it makes does no harm.
        let text = unsafe { Bound::from_owned_ptr_or_err(value.py(), text) };
        let text = text.map_err(|_| NotPlain)?.cast_into::<PyBytes>().map_err(|_| NotPlain)?;
        self.write_sized(tag::TEXT, text.as_bytes())
    }

    fn write_bytes(&mut self, value: Borrowed<'_, '_, PyAny>) -> Result<(), NotPlain> {
        let bytes = value.cast_exact::<PyBytes>().map_err(|_| NotPlain)?;
        self.write_sized(tag::BYTES, bytes.as_bytes())
    }

    #[inline]
    fn write_sized(&mut self, tag: u8, bytes: &[u8]) -> Result<(), NotPlain> {
        self.writer.put_size(tag, u32::try_from(bytes.len()).map_err(|_| NotPlain)?);
        self.writer.put(bytes);
        Ok(())
    }

    #[inline]
    fn write_int(&mut self, value: Borrowed<'_, '_, PyAny>) -> Result<(), NotPlain> {
        let mut overflow = 0;
        // SAFETY: the value is an exact int, for which there is no error.
        let number =
            unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &raw mut overflow) };
        if overflow != 0 {
            return self.write_large_int(value);
        }
        if (0..0x80).contains(&number) {
            self.writer.put(&[tag::SMALL_INT | number as u8]);
        } else if let Ok(number) = i32::try_from(number) {
            self.writer.put_with_tag(tag::INT32, number.to_le_bytes());
        } else {
            self.writer.put_with_tag(tag::INT64, number.to_le_bytes());
        }
        Ok(())
    }

    fn write_large_int(&mut self, value: Borrowed<'_, '_, PyAny>) -> Result<(), NotPlain> {
        let value = value.cast_exact::<PyInt>().map_err(|_| NotPlain)?;
        self.write_sized(tag::INT, &int::to_bytes(value).ok_or(NotPlain)?)
    }

    #[inline]
    fn write_float(&mut self, value: Borrowed<'_, '_, PyAny>) {
        // SAFETY: the value is an exact float.
        let number = unsafe { ffi::PyFloat_AS_DOUBLE(value.as_ptr()) };
        self.writer.put_with_tag(tag::FLOAT, number.to_le_bytes());
    }

    fn write_bool(&mut self, value: Borrowed<'_, '_, PyAny>) {
        // SAFETY: reading the address of an immortal object.
        let is_true = value.as_ptr() == unsafe { ffi::Py_True() };
        self.writer.put(&[if is_true { tag::TRUE } else { tag::FALSE }]);
    }

    fn write_count(&mut self, tag: u8, count: usize) -> Result<(), NotPlain> {
        self.writer.put_size(tag, u32::try_from(count).map_err(|_| NotPlain)?);
        Ok(())
    }

    fn write_list(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> Result<(), NotPlain> {
        let list = value.cast_exact::<PyList>().map_err(|_| NotPlain)?;
        self.write_count(tag::LIST, list.len())?;
        for index in 0..list.len() {
            // SAFETY: the index is within the list, which does not change.
            let item = unsafe { ffi::PyList_GET_ITEM(list.as_ptr(), index as ffi::Py_ssize_t) };
            // SAFETY: the list holds the item.
            self.write(unsafe { Borrowed::from_ptr(value.py(), item) }, depth)?;
        }
        Ok(())
    }

    fn write_tuple(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> Result<(), NotPlain> {
        let tuple = value.cast_exact::<PyTuple>().map_err(|_| NotPlain)?;
        self.write_count(tag::TUPLE, tuple.len())?;
        tuple.iter_borrowed().try_for_each(|item| self.write(item, depth))
    }

    fn write_dict(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> Result<(), NotPlain> {
        let dict = value.cast_exact::<PyDict>().map_err(|_| NotPlain)?;
        self.write_count(tag::DICT, dict.len())?;
        // SAFETY: see the head of the module.
        for (key, value) in unsafe { items_of(dict) } {
            self.write(key, depth)?;
            self.write(value, depth)?;
        }
        Ok(())
    }

    fn write_set(
        &mut self,
        set: Borrowed<'_, '_, PyAny>,
        tag: u8,
        depth: u32,
    ) -> Result<(), NotPlain> {
        // SAFETY: the value is an exact set or frozenset.
        self.write_count(tag, unsafe { ffi::PySet_GET_SIZE(set.as_ptr()) } as usize)?;
        let (mut position, mut item, mut hash) = (0, std::ptr::null_mut(), 0);
        // SAFETY: the set is alive and does not change.
        while unsafe { _PySet_NextEntry(set.as_ptr(), &mut position, &mut item, &mut hash) } != 0 {
            // SAFETY: the set holds the item.
            self.write(unsafe { Borrowed::from_ptr(set.py(), item) }, depth)?;
        }
        Ok(())
    }
}

unsafe extern "C" {
    /// Steps through a set as pickle does: in its order, without an iterator object.
    fn _PySet_NextEntry(
        set: *mut ffi::PyObject,
        position: *mut ffi::Py_ssize_t,
        item: *mut *mut ffi::PyObject,
        hash: *mut ffi::Py_hash_t,
    ) -> std::ffi::c_int;
}
