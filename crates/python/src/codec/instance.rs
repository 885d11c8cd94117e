//! The attributes of a plain instance, in the order in which they were set.
//!
//! From CPython 3.11 on, an instance has no dictionary until somebody asks for one: its values
//! stand in a small array, and the class knows the names. Asking costs 30 to 70 ns and makes the
//! instance slower to free, so [`Inline`] reads that array where it stands. Its layout is private
//! to CPython and known here for the versions named below; elsewhere, and whenever an instance has
//! its dictionary already, the dictionary is read. The encoder compares both views once per shape
//! before it relies on the array (see `classes`).

use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{Borrowed, ffi};

/// Where the attributes of an instance are.
pub(super) enum Attributes<'a, 'py> {
    /// In its array of values.
    Inline(Inline<'a>),
    /// In its dictionary.
    Dict(Bound<'py, PyDict>),
}

/// The array of values of an instance that has no dictionary.
///
/// It borrows memory that the instance's next change of an attribute overwrites: no Python code
/// may run while it is used.
pub(super) struct Inline<'a> {
    /// For each value in turn its index in the array. It stands for the attribute's name: a class
    /// gives an index to a name once and for all.
    pub(super) places: &'a [u8],
    values: *const *mut ffi::PyObject,
}

impl<'a> Inline<'a> {
    /// The values of an instance, if it has no dictionary and the layout is known.
    #[inline]
    pub(super) fn of(instance: &'a Bound<'_, PyAny>) -> Option<Inline<'a>> {
        layout::inline_of(instance)
    }

    /// The values in the order in which they were set; null where one is missing.
    #[inline]
    pub(super) fn values(&self) -> impl Iterator<Item = *mut ffi::PyObject> {
        let last = self.places.len().wrapping_sub(1);
        (0..self.places.len()).map(move |turn| {
            let place = self.places[if layout::BACKWARD { last - turn } else { turn }];
            let value = self.values.wrapping_add(usize::from(place));
            // SAFETY: CPython put the index down for this array.
            unsafe { *value }
        })
    }
}

/// The dictionary of an instance, unless it is of a class derived from `dict`. CPython makes it if
/// there is none yet.
pub(super) fn dict_of<'py>(instance: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    // SAFETY: `instance` holds a reference to the instance.
    let dict = unsafe { ffi::PyObject_GenericGetDict(instance.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: that was a new reference, or null with an error set.
    let dict = unsafe { Bound::from_owned_ptr_or_err(instance.py(), dict) }?;
    Ok(dict.cast_into_exact::<PyDict>().ok())
}

/// The items of a dictionary, borrowed.
///
/// # Safety
/// While the iterator and what it yields are used, nothing may change the dictionary: no Python
/// code may run, and no object may be made that the garbage collector tracks.
#[inline]
pub(super) unsafe fn items_of<'a, 'py>(
    dict: Borrowed<'a, 'py, PyDict>,
) -> impl Iterator<Item = (Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>)> {
    let py = dict.py();
    let mut position = 0;
    std::iter::from_fn(move || {
        let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the dictionary is alive and does not change.
        let found = unsafe { ffi::PyDict_Next(dict.as_ptr(), &mut position, &mut key, &mut value) };
        if found == 0 {
            return None;
        }
        // SAFETY: the dictionary holds the key.
        let key = unsafe { Borrowed::from_ptr(py, key) };
        // SAFETY: and the value.
        let value = unsafe { Borrowed::from_ptr(py, value) };
        Some((key, value))
    })
}

#[cfg(all(Py_3_13, not(Py_3_14)))]
mod layout {
    //! CPython 3.13: the array follows the head of the object, and the indices follow the array.

    use super::{Bound, Inline, PyAny, ffi, flags_of, word_before};

    pub(super) const BACKWARD: bool = false;

    /// `Py_TPFLAGS_INLINE_VALUES`.
    const INLINE_VALUES: std::ffi::c_ulong = 1 << 2;

    /// `struct _dictvalues`.
    #[repr(C)]
    struct Values {
        capacity: u8,
        size: u8,
        embedded: u8,
        valid: u8,
        values: [*mut ffi::PyObject; 0],
    }

    #[inline]
    pub(super) fn inline_of<'a>(instance: &'a Bound<'_, PyAny>) -> Option<Inline<'a>> {
        if flags_of(instance) & INLINE_VALUES == 0 {
            return None;
        }
        let dict = word_before::<ffi::PyObject>(instance, 3);
        // SAFETY: the flag says that this word points to the instance's dictionary, if it has one.
        if !unsafe { *dict }.is_null() {
            return None;
        }
        let held = instance.as_ptr().wrapping_add(1).cast::<Values>();
        // SAFETY: the flag says that this follows the head of the object.
        let held = unsafe { &*held };
        if held.valid == 0 {
            return None;
        }
        let values = held.values.as_ptr();
        let places = values.wrapping_add(usize::from(held.capacity)).cast();
        // SAFETY: behind an array of that capacity there are so many indices or more.
        let places = unsafe { std::slice::from_raw_parts(places, usize::from(held.size)) };
        Some(Inline { places, values })
    }
}

#[cfg(all(Py_3_11, not(Py_3_13)))]
mod layout {
    //! CPython 3.11 and 3.12: the array is elsewhere; before it stand its size in bytes, the
    //! number of values and, backward, the indices.

    use super::{Bound, Inline, PyAny, ffi, flags_of, word_before};

    pub(super) const BACKWARD: bool = true;

    #[inline]
    pub(super) fn inline_of<'a>(instance: &'a Bound<'_, PyAny>) -> Option<Inline<'a>> {
        if flags_of(instance) & ffi::Py_TPFLAGS_MANAGED_DICT == 0 {
            return None;
        }
        let values = values_of(instance)?;
        let size = values.cast::<u8>().wrapping_sub(2);
        // SAFETY: the second byte before an array is the number of its values.
        let size = usize::from(unsafe { *size });
        let places = values.cast::<u8>().wrapping_sub(2 + size);
        // SAFETY: so many indices are before it.
        let places = unsafe { std::slice::from_raw_parts(places, size) };
        Some(Inline { places, values })
    }

    /// The fourth word before the object points to its array, if it has one.
    #[cfg(not(Py_3_12))]
    #[inline]
    fn values_of(instance: &Bound<'_, PyAny>) -> Option<*const *mut ffi::PyObject> {
        let values = word_before::<*mut ffi::PyObject>(instance, 4);
        // SAFETY: the flag of the class, which was checked, says that the word is there.
        let values = unsafe { *values };
        (!values.is_null()).then_some(values.cast_const())
    }

    /// The third word before the object points to its array less one, or to its dictionary.
    #[cfg(Py_3_12)]
    #[inline]
    fn values_of(instance: &Bound<'_, PyAny>) -> Option<*const *mut ffi::PyObject> {
        let either = word_before::<u8>(instance, 3);
        // SAFETY: the flag of the class, which was checked, says that the word is there.
        let either = unsafe { *either };
        (either.addr() & 1 == 1).then(|| either.wrapping_add(1).cast_const().cast())
    }
}

#[cfg(any(not(Py_3_11), Py_3_14))]
mod layout {
    //! Other versions: an instance has a dictionary, or its layout is not known here.

    use super::{Bound, Inline, PyAny};

    pub(super) const BACKWARD: bool = false;

    #[inline]
    pub(super) fn inline_of<'a>(_: &'a Bound<'_, PyAny>) -> Option<Inline<'a>> {
        None
    }
}

#[cfg(all(Py_3_11, not(Py_3_14)))]
#[inline]
fn flags_of(instance: &Bound<'_, PyAny>) -> std::ffi::c_ulong {
    // SAFETY: the class of a live instance is alive.
    unsafe { (*instance.get_type_ptr()).tp_flags }
}

/// Where CPython keeps a pointer before some objects. It depends on the class whether it does.
#[cfg(all(Py_3_11, not(Py_3_14)))]
#[inline]
fn word_before<T>(instance: &Bound<'_, PyAny>, words: usize) -> *const *mut T {
    instance.as_ptr().cast::<*mut T>().wrapping_sub(words)
}
