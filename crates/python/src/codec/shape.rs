//! Shapes: what a record need not say about its event.
//!
//! A **shape** is a class with the names of its instances' attributes in their order. It is
//! described once to the decoder, in a definition; records then name it by a number. Most classes
//! have one shape, a class that sets attributes now and then has some.
//!
//! | offset in a definition | holds |
//! |---|---|
//! | 0 | kind, a zero byte, shape id `u16` |
//! | 4 | length of the pickle `u32` |
//! | 8 | the class, pickled: so it is found by the rules of pickle and of nobody else |
//! | then | count of names, per name its length and UTF-8 |

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::instance::{Inline, items_of};
use super::wire::{self, Writer};

/// The attribute names of a class's instances.
pub(super) struct Shape {
    pub(super) id: u16,
    /// What the decoder has not been told yet.
    pub(super) definition: Option<Vec<u8>>,
    names: Vec<Py<PyString>>,
    /// The indices that an instance of this shape has in its array of values.
    pub(super) places: Option<Box<[u8]>>,
}

impl Shape {
    /// A shape with its definition; none when that would be too long.
    pub(super) fn new(id: u16, class: &[u8], names: Vec<Bound<'_, PyString>>) -> Option<Shape> {
        let definition = define(id, class, &names)?;
        let names = names.into_iter().map(Bound::unbind).collect();
        Some(Shape { id, definition: Some(definition), names, places: None })
    }

    #[inline]
    pub(super) fn has_places_of(&self, inline: &Inline<'_>) -> bool {
        self.places.as_deref() == Some(inline.places)
    }

    #[inline]
    pub(super) fn has_names_of(&self, dict: &Bound<'_, PyDict>) -> bool {
        // SAFETY: comparing exact strings runs no Python code and makes no object.
        let items = unsafe { items_of(dict.as_borrowed()) };
        self.names.len() == dict.len()
            && items.zip(&self.names).all(|((key, _), name)| {
                key.as_ptr() == name.as_ptr()
                    || (key.is_exact_instance_of::<PyString>()
                        && same_text(key.as_ptr(), name.as_ptr()))
            })
    }
}

/// The array of values as it was before the dictionary was made, which empties it.
pub(super) struct Snapshot {
    pub(super) places: Box<[u8]>,
    values: Vec<usize>,
}

impl Snapshot {
    pub(super) fn of(inline: Inline<'_>) -> Snapshot {
        Snapshot {
            places: inline.places.into(),
            values: inline.values().map(|value| value as usize).collect(),
        }
    }

    /// Whether CPython sees the same values in the same order.
    pub(super) fn agrees_with(&self, dict: &Bound<'_, PyDict>) -> bool {
        // SAFETY: nothing is done with the items but to compare their addresses.
        let items = unsafe { items_of(dict.as_borrowed()) };
        items.map(|(_, value)| value.as_ptr() as usize).eq(self.values.iter().copied())
    }
}

/// The attribute names, if they are what the typed path can send: text, and none that pickle would
/// look up on the instance as a hook.
pub(super) fn names_of<'py>(dict: &Bound<'py, PyDict>) -> Option<Vec<Bound<'py, PyString>>> {
    let name = |key: Bound<'py, PyAny>| key.cast_into_exact::<PyString>().ok();
    let names: Vec<_> = dict.keys().iter().map(name).collect::<Option<_>>()?;
    let is_ordinary = |name: &Bound<'_, PyString>| name.to_str().is_ok_and(wire::is_attribute_name);
    names.iter().all(is_ordinary).then_some(names)
}

fn define(id: u16, class: &[u8], names: &[Bound<'_, PyString>]) -> Option<Vec<u8>> {
    let names: Vec<&str> = names.iter().map(|name| name.to_str().ok()).collect::<Option<_>>()?;
    // An id, two lengths, and a length per name, of at most five bytes each.
    let most = class.len() + 16 + names.iter().map(|name| name.len() + 5).sum::<usize>();
    let mut definition = vec![0; most];
    let mut writer = Writer::new(&mut definition);
    writer.put(&[wire::DEFINITION, 0]);
    writer.put(&id.to_le_bytes());
    writer.put(&u32::try_from(class.len()).ok()?.to_le_bytes());
    writer.put(class);
    writer.put_varint(u32::try_from(names.len()).ok()?);
    for name in names {
        writer.put_varint(u32::try_from(name.len()).ok()?);
        writer.put(name.as_bytes());
    }
    let len = writer.len();
    definition.truncate(len);
    Some(definition)
}

/// Compares two exact strings.
fn same_text(a: *mut ffi::PyObject, b: *mut ffi::PyObject) -> bool {
    // SAFETY: both are alive and exact strings, for which there is no error.
    unsafe { ffi::PyUnicode_Compare(a, b) == 0 }
}
