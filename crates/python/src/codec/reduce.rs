//! How pickle reduces an object, asked of those who decide: `copyreg` and `object`.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// The parts of `copyreg` and `object` that pickle goes by.
pub(super) struct Reduction {
    dispatch_table: Py<PyDict>,
    slot_names: Py<PyAny>,
    new_object: Py<PyAny>,
    reduce_ex: Py<PyAny>,
}

impl Reduction {
    pub(super) fn new(py: Python<'_>) -> PyResult<Reduction> {
        let copyreg = py.import("copyreg")?;
        Ok(Reduction {
            dispatch_table: copyreg.getattr("dispatch_table")?.cast_into::<PyDict>()?.unbind(),
            slot_names: copyreg.getattr("_slotnames")?.unbind(),
            new_object: copyreg.getattr("__newobj__")?.unbind(),
            reduce_ex: py.get_type::<PyAny>().getattr("__reduce_ex__")?.unbind(),
        })
    }

    /// Whether instances of the class keep nothing in slots.
    pub(super) fn has_no_slots(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let py = class.py();
        let names = ordinary(py, self.slot_names.bind(py).call1((class,)))?;
        Ok(names.is_some_and(|names| names.len().is_ok_and(|len| len == 0)))
    }

    /// Whether somebody registered a reducer for the class.
    #[inline]
    pub(super) fn is_registered(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        self.dispatch_table.bind(class.py()).contains(class)
    }

    /// Whether `object` itself reduces the event to its class and its dictionary. The rules for
    /// plain classes say that it does; this holds them against the truth, once per shape.
    pub(super) fn reduces_plainly(
        &self,
        event: &Bound<'_, PyAny>,
        dict: &Bound<'_, PyDict>,
    ) -> PyResult<bool> {
        let py = event.py();
        let reduced = ordinary(py, self.reduce_ex.bind(py).call1((event, 5)))?;
        let Some(Ok(parts)) = reduced.map(Bound::cast_into::<PyTuple>) else { return Ok(false) };
        type Parts<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>, Bound<'py, PyAny>);
        let Ok((function, arguments, state)) = parts.get_slice(0, 3).extract::<Parts<'_>>() else {
            return Ok(false);
        };
        let rest_is_none = parts.iter().skip(3).all(|part| part.is_none());
        let state_is_dict = if dict.is_empty() { state.is_none() } else { state.is(dict) };
        let is_for_class = arguments.len() == 1 && arguments.get_item(0)?.is(event.get_type());
        Ok(function.is(&self.new_object) && is_for_class && state_is_dict && rest_is_none)
    }
}

/// What Python code returned, or none when it raised: then pickle will raise the same, with the
/// event to blame. What is no error of the program (a signal, the end of it) passes through.
pub(super) fn ordinary<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(error) => Err(error),
    }
}
