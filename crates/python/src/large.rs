//! Shared memory of a large event as a Python buffer.

use std::ffi::c_int;

use eventpy_engine::LargePayload;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// The memory of a large event, to be read only. It goes back to its dispatcher when the last view
/// of it is gone.
#[pyclass(frozen, name = "_SharedMemory")]
pub(crate) struct SharedMemory(LargePayload);

impl SharedMemory {
    pub(crate) fn new(payload: LargePayload) -> SharedMemory {
        SharedMemory(payload)
    }
}

#[pymethods]
impl SharedMemory {
    /// # Safety
    /// CPython calls it with a view to fill.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("there is no view to fill"));
        }
        let payload = &slf.get().0;
        let len = ffi::Py_ssize_t::try_from(payload.len())?;
        let start = payload.as_ptr().cast_mut().cast();
        // SAFETY: the view is CPython's to be filled; the memory is mapped as long as this object
        // lives, to which the view gets a reference; it is declared read-only.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
