//! Which part of an event pickle can't write, in words that say what to do.

use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use super::error::Error;
use super::pickled::Pickle;

/// Turns the failure to pickle an event into an error that names what is to blame.
///
/// The parts are tried one by one: this may run the hooks of the event's class once more.
pub(super) fn explain(event: &Bound<'_, PyAny>, pickle: &Pickle, cause: PyErr) -> Error {
    let py = event.py();
    if !cause.is_instance_of::<PyException>(py) || cause.is_instance_of::<PyMemoryError>(py) {
        return Error::Raised(cause);
    }
    let class = event.get_type();
    let reason = culprit(event, pickle)
        .map(|(name, kind)| {
            format!("attribute `{name}` (a `{kind}`) can't be pickled; send its contents instead")
        })
        .or_else(|| unimportable(&class, pickle))
        .unwrap_or_else(|| format!("pickle says: {}", cause.value(py)));
    let message = format!("cannot send event `{}`: {reason}", short_name(&class));
    Error::Unsendable { message, cause }
}

/// The first attribute in the event's state that can't be pickled, and the name of its type.
fn culprit(event: &Bound<'_, PyAny>, pickle: &Pickle) -> Option<(String, String)> {
    let reduced = event.call_method1("__reduce_ex__", (5,)).ok()?.cast_into::<PyTuple>().ok()?;
    let state = reduced.get_item(2).ok()?;
    // With slots, the state is a pair: the dictionary, if there is one, and the slots.
    let parts = match state.cast_into::<PyTuple>() {
        Ok(pair) => pair.iter().collect(),
        Err(state) => vec![state.into_inner()],
    };
    let attributes = parts.into_iter().filter_map(|part| part.cast_into::<PyDict>().ok());
    let (name, value) =
        attributes.flat_map(|part| part.iter()).find(|(_, value)| pickle.dump(value).is_err())?;
    Some((name.str().ok()?.to_string(), long_name(&value.get_type())))
}

/// Says where the class should be found, if that is what fails.
fn unimportable(class: &Bound<'_, PyType>, pickle: &Pickle) -> Option<String> {
    pickle.dump(class).err()?;
    let name = long_name(class);
    Some(format!("its class can't be imported as `{name}`; define it at the top level of a module"))
}

fn short_name(class: &Bound<'_, PyType>) -> String {
    class.qualname().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}

/// The name of a type with its module, unless that is `builtins`.
fn long_name(class: &Bound<'_, PyType>) -> String {
    class.fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string())
}
