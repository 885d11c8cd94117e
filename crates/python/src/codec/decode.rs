//! Bytes to events: the manager's side.
//!
//! Nobody vouches for the bytes: an error is all that they can bring about. Only what stands
//! inside a pickle is trusted, as pickle itself demands.

use std::num::NonZeroU32;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit, ffi, intern};

use super::error::{Broken, Error};
use super::pickled::Pickle;
use super::plain::{self, Rules};
use super::read::{Values, check};
use super::wire::{self, Reader};

/// Turns the records of one dispatcher process into events.
pub struct Decoder {
    rules: Rules,
    pickle: Pickle,
    shapes: Vec<Shape>,
    values: Values,
    no_arguments: Py<PyTuple>,
}

/// What a definition told about a shape.
struct Shape {
    /// The class as it was sent; it is looked up when the first event needs it.
    pickled_class: Box<[u8]>,
    names: Vec<Py<PyString>>,
    class: Option<Class>,
}

/// The class of a shape in this process.
struct Class {
    class: Py<PyType>,
    /// The version for which the next field holds.
    version: Option<NonZeroU32>,
    /// Whether attributes may be set as if the event's `__init__` did so.
    plain: bool,
}

impl Decoder {
    /// Makes a decoder.
    ///
    /// # Errors
    /// When the modules of pickling can't be imported.
    pub fn new(py: Python<'_>) -> PyResult<Decoder> {
        Ok(Decoder {
            rules: Rules::new(py)?,
            pickle: Pickle::new(py)?,
            shapes: Vec::new(),
            values: Values::default(),
            no_arguments: PyTuple::empty(py).unbind(),
        })
    }

    /// Shows the garbage collector the classes that are held, which may lead back to the holder.
    /// There are no values of events to show between two events.
    ///
    /// # Errors
    /// When the collector has seen enough.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let mut classes = self.shapes.iter().filter_map(|shape| shape.class.as_ref());
        classes.try_for_each(|class| visit.call(&class.class))
    }

    /// Takes in a definition ([`Encoded::Define`](super::Encoded::Define)). Nothing is imported yet.
    ///
    /// # Errors
    /// [`Error::Broken`] when no encoder wrote it, or not as the next one.
    pub fn define(&mut self, py: Python<'_>, definition: &[u8]) -> Result<(), Error> {
        let mut reader = Reader::new(definition);
        let [kind, _] = reader.take_array()?;
        if kind != wire::DEFINITION {
            return Err(Broken::Kind(kind).into());
        }
        let (found, expected) = (u16::from_le_bytes(reader.take_array()?), self.shapes.len());
        if usize::from(found) != expected {
            return Err(Broken::ShapeOrder { found, expected }.into());
        }
        let class_len = u32::from_le_bytes(reader.take_array()?);
        let pickled_class = reader.take(class_len as usize)?.into();
        let names = read_names(py, &mut reader)?;
        reader.finish()?;
        self.shapes.push(Shape { pickled_class, names, class: None });
        Ok(())
    }

    /// Makes the event of a record.
    ///
    /// `bytes` is the record, or its [leading bytes](super::leading_bytes) when `owner` is given: an
    /// object that exports the whole record, of which out-of-band buffers become views. They are
    /// as writable as `owner` is, and keep it alive. Without an owner they are copied.
    ///
    /// # Errors
    /// [`Error::Broken`] when no encoder wrote the record; [`Error::Raised`] when the class can't
    /// be imported or its hooks raise.
    pub fn decode<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        owner: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>, Error> {
        match bytes.first() {
            Some(&kind @ (wire::TYPED | wire::TYPED_SHARED)) => {
                self.decode_typed(py, &bytes[1..], kind == wire::TYPED_SHARED)
            }
            Some(&wire::PICKLED) => Ok(self.pickle.load(py, &bytes[1..])?),
            Some(&wire::PICKLED_WITH_BUFFERS) => self.pickle.load_event(py, bytes, owner),
            Some(&kind) => Err(Broken::Kind(kind).into()),
            None => Err(Broken::Truncated.into()),
        }
    }

    #[inline]
    fn decode_typed<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        shared: bool,
    ) -> Result<Bound<'py, PyAny>, Error> {
        let mut reader = Reader::new(bytes);
        let id = u16::from_le_bytes(reader.take_array()?);
        let shape = self.shapes.get_mut(usize::from(id)).ok_or(Broken::UnknownShape(id))?;
        let values = self.values.read(py, reader, shape.names.len(), shared)?;
        let class = match &mut shape.class {
            Some(class) => class,
            none => none.insert(Class::find(py, &self.pickle, &shape.pickled_class, id)?),
        };
        let plain = class.is_plain(py, &self.rules, &shape.names)?;
        let event = new_instance(class.class.bind(py), self.no_arguments.bind(py))?;
        if plain {
            fill(&event, &shape.names, values)?;
        } else {
            fill_as_pickle_does(&event, &shape.names, values)?;
        }
        Ok(event)
    }
}

impl Class {
    /// Looks a class up by unpickling it.
    #[cold]
    fn find(py: Python<'_>, pickle: &Pickle, pickled: &[u8], id: u16) -> Result<Class, Error> {
        let class = pickle.load(py, pickled)?;
        let class = class.cast_into::<PyType>().map_err(|_| Broken::NotAClass(id))?;
        Ok(Class { class: class.unbind(), version: None, plain: false })
    }

    /// Whether the class is plain in this process, as it stands now.
    #[inline]
    fn is_plain(
        &mut self,
        py: Python<'_>,
        rules: &Rules,
        names: &[Py<PyString>],
    ) -> PyResult<bool> {
        let class = self.class.bind(py);
        if self.version.is_none() || self.version != plain::version_of(class.as_type_ptr()) {
            self.version = plain::new_version_of(class)?;
            self.plain = rules.is_plain(self.class.bind(py)) && can_set(self.class.bind(py), names);
        }
        Ok(self.plain)
    }
}

fn read_names(py: Python<'_>, reader: &mut Reader<'_>) -> Result<Vec<Py<PyString>>, Broken> {
    let count = reader.take_varint()?;
    let mut names = Vec::new();
    for _ in 0..count {
        let name = std::str::from_utf8(reader.take_sized()?).map_err(|_| Broken::Text)?;
        if !wire::is_attribute_name(name) {
            return Err(Broken::Name);
        }
        names.push(PyString::intern(py, name).unbind());
    }
    Ok(names)
}

/// Makes an instance as unpickling does, without a call of `__init__`.
#[inline]
fn new_instance<'py>(
    class: &Bound<'py, PyType>,
    no_arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let raw = class.as_type_ptr();
    // SAFETY: `class` holds a reference to the class.
    let Some(new) = (unsafe { (*raw).tp_new }) else {
        return Err(PyTypeError::new_err(format!("cannot make an instance of {class}")));
    };
    // SAFETY: the class is one, and the arguments are an empty tuple and no keywords.
    let instance = unsafe { new(raw, no_arguments.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: that was a new reference, or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(class.py(), instance) }
}

/// Gives a new plain instance its attributes, without a dictionary if CPython can do without.
#[cfg(Py_3_11)]
#[inline]
fn fill<'py>(
    event: &Bound<'py, PyAny>,
    names: &[Py<PyString>],
    values: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<()> {
    for (name, value) in names.iter().zip(values) {
        // SAFETY: all three are alive, and no descriptor of the class is in the way.
        let failed =
            unsafe { ffi::PyObject_GenericSetAttr(event.as_ptr(), name.as_ptr(), value.as_ptr()) };
        check(event.py(), failed)?;
    }
    Ok(())
}

/// Gives a new plain instance its attributes.
#[cfg(not(Py_3_11))]
#[inline]
fn fill<'py>(
    event: &Bound<'py, PyAny>,
    names: &[Py<PyString>],
    values: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<()> {
    // SAFETY: the instance is alive.
    let dict = unsafe { ffi::PyObject_GenericGetDict(event.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: that was a new reference, or null with an error set.
    let dict = unsafe { Bound::from_owned_ptr_or_err(event.py(), dict) }?;
    for (name, value) in names.iter().zip(values) {
        // SAFETY: all three are alive, and the first is a dictionary.
        let failed = unsafe { ffi::PyDict_SetItem(dict.as_ptr(), name.as_ptr(), value.as_ptr()) };
        check(event.py(), failed)?;
    }
    Ok(())
}

/// Gives an instance its state by the rules of unpickling, for a class that has hooks here and had
/// none where the event comes from.
#[cold]
fn fill_as_pickle_does<'py>(
    event: &Bound<'py, PyAny>,
    names: &[Py<PyString>],
    values: impl Iterator<Item = Bound<'py, PyAny>>,
) -> PyResult<()> {
    let py = event.py();
    if names.is_empty() {
        return Ok(());
    }
    let set_state = event.getattr_opt(intern!(py, "__setstate__"))?;
    let target = match &set_state {
        Some(_) => PyDict::new(py).into_any(),
        None => event.getattr(intern!(py, "__dict__"))?,
    };
    for (name, value) in names.iter().zip(values) {
        target.set_item(name, value)?;
    }
    set_state.map_or(Ok(()), |set_state| set_state.call1((target,)).map(drop))
}

/// Whether setting these attributes leads into the instance's own memory and nowhere else.
fn can_set(class: &Bound<'_, PyType>, names: &[Py<PyString>]) -> bool {
    let py = class.py();
    let is_data_descriptor = |found: Borrowed<'_, '_, PyAny>| {
        // SAFETY: the type of a live object is alive.
        unsafe { (*found.get_type_ptr()).tp_descr_set }.is_some()
    };
    let has_none = |base: Borrowed<'_, '_, PyAny>| {
        let Ok(base) = base.cast::<PyType>() else { return false };
        // `object` alone has no such namespace, and no descriptor without underscores.
        let Some(namespace) = plain::namespace_of(&base) else { return true };
        let found = |name: &Py<PyString>| plain::get(namespace, name.bind(py));
        !names.iter().any(|name| found(name).is_some_and(is_data_descriptor))
    };
    class.mro().iter_borrowed().all(has_none)
}
