//! Ints beyond 64 bits to two's complement, little end first, and back.

use pyo3::prelude::*;
use pyo3::types::PyInt;
use pyo3::{Borrowed, ffi, intern};

/// The bytes of an exact int, if there is memory for them.
pub(super) fn to_bytes(int: Borrowed<'_, '_, PyInt>) -> Option<Vec<u8>> {
    let bits: usize = int.call_method0(intern!(int.py(), "bit_length")).ok()?.extract().ok()?;
    let mut bytes = vec![0; bits / 8 + 1];
    fill(int, &mut bytes).then_some(bytes)
}

#[cfg(not(Py_3_13))]
fn fill(int: Borrowed<'_, '_, PyInt>, bytes: &mut [u8]) -> bool {
    let (start, len) = (bytes.as_mut_ptr(), bytes.len());
    // SAFETY: the object is an int, and there is room for so many bytes.
    unsafe { ffi::_PyLong_AsByteArray(int.as_ptr().cast(), start, len, 1, 1) == 0 }
}

#[cfg(Py_3_13)]
fn fill(int: Borrowed<'_, '_, PyInt>, bytes: &mut [u8]) -> bool {
    let (start, len) = (bytes.as_mut_ptr().cast(), bytes.len() as ffi::Py_ssize_t);
    // SAFETY: the object is an int, and there is room for so many bytes.
    let needed = unsafe { ffi::PyLong_AsNativeBytes(int.as_ptr(), start, len, LITTLE_ENDIAN) };
    (0..=len).contains(&needed)
}

/// The int of some bytes.
pub(super) fn from_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    #[cfg(not(Py_3_13))]
    // SAFETY: so many bytes are there.
    let int = unsafe { ffi::_PyLong_FromByteArray(bytes.as_ptr(), bytes.len(), 1, 1) };
    #[cfg(Py_3_13)]
    // SAFETY: so many bytes are there.
    let int =
        unsafe { ffi::PyLong_FromNativeBytes(bytes.as_ptr().cast(), bytes.len(), LITTLE_ENDIAN) };
    // SAFETY: that was a new reference, or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}

#[cfg(Py_3_13)]
const LITTLE_ENDIAN: std::ffi::c_int = ffi::Py_ASNATIVEBYTES_LITTLE_ENDIAN;

/// The int of a number that fits a machine word.
#[inline]
pub(super) fn from_i64(py: Python<'_>, number: i64) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: asks for an int.
    let int = unsafe { ffi::PyLong_FromLongLong(number) };
    // SAFETY: that was a new reference, or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, int) }
}
