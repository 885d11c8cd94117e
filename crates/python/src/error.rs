//! Errors of the engine and the codec as Python exceptions.

use eventpy_engine::{Error, ErrorKind};
use pyo3::prelude::*;

use crate::codec;

mod python {
    pyo3::import_exception!(eventpy._errors, DeployError);
    pyo3::import_exception!(eventpy._errors, EventAPIException);
    pyo3::import_exception!(eventpy._errors, EventError);
    pyo3::import_exception!(eventpy._errors, EventTypeError);
    pyo3::import_exception!(eventpy._errors, Interruption);
    pyo3::import_exception!(eventpy._errors, OptionError);
    pyo3::import_exception!(eventpy._errors, ReentrantError);
    pyo3::import_exception!(eventpy._errors, ResourceError);
    pyo3::import_exception!(eventpy._errors, StateError);
}

pub(crate) use python::{EventTypeError, Interruption, ReentrantError, StateError};

/// The exception for an error of the engine.
pub(crate) fn raise(error: Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Options => python::OptionError::new_err(message),
        ErrorKind::State => python::StateError::new_err(message),
        ErrorKind::Reentrant => python::ReentrantError::new_err(message),
        ErrorKind::System => python::ResourceError::new_err(message),
        ErrorKind::Start | ErrorKind::Load => python::DeployError::new_err(message),
        ErrorKind::Event => python::EventError::new_err(message),
        ErrorKind::Ended | ErrorKind::ManagerGone => python::Interruption::new_err(message),
        _ => python::EventAPIException::new_err(message),
    }
}

/// The exception for an event that can't be encoded or decoded.
pub(crate) fn raise_codec(py: Python<'_>, error: codec::Error) -> PyErr {
    let message = error.to_string();
    match error {
        codec::Error::Unsendable { cause, .. } => {
            let error = python::EventError::new_err(message);
            error.set_cause(py, Some(cause));
            error
        }
        codec::Error::Raised(error) => error,
        _ => python::EventError::new_err(message),
    }
}
