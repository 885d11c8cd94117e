//! Which classes Rust may take apart and put together in pickle's stead.
//!
//! Pickle asks an object how to be pickled through a dozen hooks. A class is **plain** when none
//! of them is there: `object.__new__` makes its instances, and their state is their `__dict__`.
//! Encoder and decoder ask the same question, each of the class in its own process.
//!
//! A class can be altered at any time. CPython gives a class a new version number whenever it or
//! one of its bases is altered, for its own method cache; [`version_of`] reads that number, and
//! whoever kept the answer asks again when the number has changed. From CPython 3.13 on, a new
//! qualified name and a new metaclass leave the number alone: the encoder compares these too.

use std::num::NonZeroU32;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use pyo3::{Borrowed, ffi};

/// Hooks of pickling that are found in a class's namespace. `__new__`, `__getattribute__` and
/// `__getattr__` are missing: they show in the slots of the type.
const HOOKS: [&str; 7] = [
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__class__",
];

/// Tells plain classes from others.
pub(super) struct Rules {
    hooks: [Py<PyString>; HOOKS.len()],
    /// The one metaclass besides `type` that is known to leave pickling alone.
    abc_meta: Py<PyAny>,
}

impl Rules {
    pub(super) fn new(py: Python<'_>) -> PyResult<Rules> {
        Ok(Rules {
            hooks: HOOKS.map(|hook| PyString::intern(py, hook).unbind()),
            abc_meta: py.import("abc")?.getattr("ABCMeta")?.unbind(),
        })
    }

    /// Whether the class is plain as it stands now. Runs no Python code.
    pub(super) fn is_plain(&self, class: &Bound<'_, PyType>) -> bool {
        self.has_ordinary_metaclass(class)
            && has_ordinary_slots(class)
            && class.mro().iter_borrowed().all(|base| self.leaves_pickling_alone(base))
    }

    fn has_ordinary_metaclass(&self, class: &Bound<'_, PyType>) -> bool {
        let metaclass = class.get_type();
        metaclass.is(class.py().get_type::<PyType>()) || metaclass.is(&self.abc_meta)
    }

    /// Whether a class among the bases, or the class itself, brings no hook along.
    fn leaves_pickling_alone(&self, base: Borrowed<'_, '_, PyAny>) -> bool {
        let py = base.py();
        if base.as_ptr() == (&raw mut ffi::PyBaseObject_Type).cast() {
            return true;
        }
        let Ok(base) = base.cast::<PyType>() else { return false };
        let Some(namespace) = namespace_of(&base) else { return false };
        let hooked = self.hooks.iter().any(|hook| get(namespace, hook.bind(py)).is_some());
        !hooked && has_ordinary_dict(namespace)
    }
}

/// A number that no other state of any class has, if the class has one.
#[inline]
pub(super) fn version_of(class: *mut ffi::PyTypeObject) -> Option<NonZeroU32> {
    // Before CPython 3.13, an outdated number stayed where it was, and a flag was cleared.
    #[cfg(not(Py_3_13))]
    // SAFETY: the caller holds a reference to the class.
    if unsafe { (*class).tp_flags } & ffi::Py_TPFLAGS_VALID_VERSION_TAG == 0 {
        return None;
    }
    // SAFETY: the caller holds a reference to the class.
    NonZeroU32::new(unsafe { (*class).tp_version_tag })
}

/// The same, after a lookup on the class, upon which CPython numbers a class that has no number.
pub(super) fn new_version_of(class: &Bound<'_, PyType>) -> PyResult<Option<NonZeroU32>> {
    if version_of(class.as_type_ptr()).is_none() {
        class.getattr(intern!(class.py(), "__reduce_ex__"))?;
    }
    Ok(version_of(class.as_type_ptr()))
}

/// Where the qualified name of a class is, without a new reference to it.
#[inline]
pub(super) fn qualname_of(class: *mut ffi::PyTypeObject) -> *mut ffi::PyObject {
    // SAFETY: the caller holds a reference to the class, and plain classes are heap types.
    unsafe { (*class.cast::<ffi::PyHeapTypeObject>()).ht_qualname }
}

/// The namespace of a class that a `class` statement made.
pub(super) fn namespace_of<'a, 'py>(
    class: &'a Bound<'py, PyType>,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    let raw = class.as_type_ptr();
    // SAFETY: `class` holds a reference to the class.
    if unsafe { (*raw).tp_flags } & ffi::Py_TPFLAGS_HEAPTYPE == 0 {
        return None;
    }
    // SAFETY: as above.
    let namespace = unsafe { (*raw).tp_dict };
    // SAFETY: the dictionary of a heap type lives as long as the type, which `'a` borrows.
    unsafe { Borrowed::from_ptr_or_opt(class.py(), namespace) }
}

/// The value of an exact string in a namespace, without a new reference.
pub(super) fn get<'a, 'py>(
    namespace: Borrowed<'a, 'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: both are alive, the first is a dictionary, and hashing and comparing strings runs no
    // Python code, so that there is no error either.
    let value = unsafe { ffi::PyDict_GetItemWithError(namespace.as_ptr(), name.as_ptr()) };
    // SAFETY: the namespace holds the value; callers look at it before anything else can run.
    unsafe { Borrowed::from_ptr_or_opt(namespace.py(), value) }
}

/// Whether instances are made by `object.__new__`, have attributes found the ordinary way, and
/// have no elements of their own.
fn has_ordinary_slots(class: &Bound<'_, PyType>) -> bool {
    let raw = class.as_type_ptr();
    let object = &raw mut ffi::PyBaseObject_Type;
    // SAFETY: `class` holds a reference to the class.
    let class = unsafe { &*raw };
    // SAFETY: the type of `object` is never freed.
    let object = unsafe { &*object };
    let slot = |function: Option<ffi::newfunc>| function.map(|function| function as usize);
    let getter = |function: Option<ffi::getattrofunc>| function.map(|function| function as usize);
    slot(class.tp_new) == slot(object.tp_new)
        && getter(class.tp_getattro) == getter(object.tp_getattro)
        && class.tp_itemsize == 0
}

/// Whether `__dict__` of an instance is what it is everywhere.
fn has_ordinary_dict(namespace: Borrowed<'_, '_, PyAny>) -> bool {
    get(namespace, intern!(namespace.py(), "__dict__"))
        .is_none_or(|found| found.get_type_ptr() == &raw mut ffi::PyGetSetDescr_Type)
}
