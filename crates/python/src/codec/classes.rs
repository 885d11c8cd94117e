//! What an encoder knows about the classes of its events.
//!
//! **Altered classes.** What was found out about a class holds while its version number, its
//! name and its metaclass are those of then, which is checked for each event. When one has
//! changed, the class is looked at again; a class that is no longer plain, or was renamed, is left
//! to pickle for good. Reducers registered with `copyreg` are looked up for each event. Whether the
//! class can still be imported under its name is not asked again after the definition.

use std::collections::HashMap;
use std::num::NonZeroU32;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use pyo3::{ffi, intern};

use super::instance::{Attributes, Inline, dict_of};
use super::pickled::Pickle;
use super::plain::{self, Rules};
use super::reduce::{Reduction, ordinary};
use super::shape::{Shape, Snapshot, names_of};

/// Classes that an encoder remembers. The events of others are pickled.
const MOST_CLASSES: usize = 1024;
/// Shapes of one class that have a number. Instances of another shape are pickled.
const MOST_SHAPES: usize = 64;
const RECENT: usize = 64;

/// The classes whose events an encoder has met.
pub(super) struct Classes {
    rules: Rules,
    reduction: Reduction,
    plain: Vec<Class>,
    /// By address: the place in `plain`, or none for a class whose events are pickled. A class in
    /// `plain` is kept alive; if another dies and a new class gets its address, that is pickled
    /// too, which is always right.
    known: HashMap<usize, Option<usize>>,
    /// The same for the classes met last.
    recent: [(usize, usize); RECENT],
    shapes: usize,
    /// Cleared when the array of values is not what we think it is.
    trust_inline: bool,
}

/// A class whose events take the typed path.
struct Class {
    class: Py<PyType>,
    qualname: Py<PyAny>,
    module: Py<PyAny>,
    /// Its address.
    metaclass: usize,
    version: Option<NonZeroU32>,
    shapes: Vec<Shape>,
}

impl Classes {
    pub(super) fn new(py: Python<'_>) -> PyResult<Classes> {
        Ok(Classes {
            rules: Rules::new(py)?,
            reduction: Reduction::new(py)?,
            plain: Vec::new(),
            known: HashMap::new(),
            recent: [(0, 0); RECENT],
            shapes: 0,
            trust_inline: true,
        })
    }

    /// The shape of an event and its attributes, or none when the event has to be pickled.
    #[inline]
    pub(super) fn shape_of<'a, 'py>(
        &mut self,
        event: &'a Bound<'py, PyAny>,
        pickle: &Pickle,
    ) -> PyResult<Option<(&mut Shape, Attributes<'a, 'py>)>> {
        let Some(class) = self.plain_class_of(event)? else { return Ok(None) };
        if self.trust_inline
            && let Some(inline) = Inline::of(event)
            && let Some(shape) = self.plain[class].shape_of_inline(&inline)
        {
            return Ok(Some((&mut self.plain[class].shapes[shape], Attributes::Inline(inline))));
        }
        self.shape_of_dict(class, event, pickle)
    }

    fn shape_of_dict<'a, 'py>(
        &mut self,
        class: usize,
        event: &'a Bound<'py, PyAny>,
        pickle: &Pickle,
    ) -> PyResult<Option<(&mut Shape, Attributes<'a, 'py>)>> {
        let inline = if self.trust_inline { Inline::of(event).map(Snapshot::of) } else { None };
        let Some(dict) = dict_of(event)? else { return Ok(None) };
        self.trust_inline &= inline.as_ref().is_none_or(|inline| inline.agrees_with(&dict));
        let found = match self.plain[class].shape_of_dict(&dict) {
            Some(shape) => Some(shape),
            None => self.new_shape(class, event, &dict, pickle)?,
        };
        let Some(shape) = found else { return Ok(None) };
        let shape = &mut self.plain[class].shapes[shape];
        if let Some(inline) = inline
            && self.trust_inline
        {
            shape.places = Some(inline.places);
        }
        Ok(Some((shape, Attributes::Dict(dict))))
    }

    /// The place of the event's class in `plain`, if nothing speaks against the typed path.
    #[inline]
    fn plain_class_of(&mut self, event: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let class = event.get_type_ptr();
        let address = class as usize;
        let (recent, place) = self.recent[(address >> 4) % RECENT];
        let place = if recent == address {
            place
        } else {
            match self.look_up(event)? {
                Some(place) => place,
                None => return Ok(None),
            }
        };
        if !self.plain[place].is_unaltered(class) && !self.check_again(place, event.py())? {
            return Ok(None);
        }
        let registered = self.reduction.is_registered(&event.get_type())?;
        Ok((!registered).then_some(place))
    }

    #[cold]
    fn look_up(&mut self, event: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let address = event.get_type_ptr() as usize;
        let place = match self.known.get(&address) {
            Some(place) => *place,
            None => self.new_class(event)?,
        };
        if let Some(place) = place {
            self.recent[(address >> 4) % RECENT] = (address, place);
        }
        Ok(place)
    }

    /// Looks a class over for the first time.
    fn new_class(&mut self, event: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        if self.known.len() >= MOST_CLASSES {
            return Ok(None);
        }
        let class = event.get_type();
        let address = class.as_type_ptr() as usize;
        let found =
            if self.rules.is_plain(&class) { Class::new(&class, &self.reduction)? } else { None };
        let place = found.map(|class| {
            self.plain.push(class);
            self.plain.len() - 1
        });
        self.known.insert(address, place);
        Ok(place)
    }

    /// Looks a class over after its version or name has changed. False: it is pickled from now on.
    #[cold]
    fn check_again(&mut self, place: usize, py: Python<'_>) -> PyResult<bool> {
        let known = &mut self.plain[place];
        let class = known.class.bind(py).clone();
        if known.has_its_name(&class) && self.rules.is_plain(&class) {
            known.metaclass = class.get_type_ptr() as usize;
            known.version = plain::new_version_of(&class)?;
            return Ok(true);
        }
        let address = class.as_type_ptr() as usize;
        self.known.insert(address, None);
        self.recent[(address >> 4) % RECENT] = (0, 0);
        Ok(false)
    }

    /// Gives a number to a shape that was not met before, if pickle agrees that it is plain.
    fn new_shape(
        &mut self,
        class: usize,
        event: &Bound<'_, PyAny>,
        dict: &Bound<'_, PyDict>,
        pickle: &Pickle,
    ) -> PyResult<Option<usize>> {
        let known = &mut self.plain[class];
        let id = u16::try_from(self.shapes).ok().filter(|_| known.shapes.len() < MOST_SHAPES);
        let (Some(id), Some(names)) = (id, names_of(dict)) else { return Ok(None) };
        if !self.reduction.reduces_plainly(event, dict)? {
            return Ok(None);
        }
        let class = ordinary(event.py(), pickle.dump(event.get_type().as_any()))?;
        let shape = class.and_then(|class| Shape::new(id, class.as_bytes(), names));
        let Some(shape) = shape else { return Ok(None) };
        known.shapes.push(shape);
        self.shapes += 1;
        Ok(Some(known.shapes.len() - 1))
    }
}

impl Class {
    fn new(class: &Bound<'_, PyType>, reduction: &Reduction) -> PyResult<Option<Class>> {
        let py = class.py();
        if !reduction.has_no_slots(class)? {
            return Ok(None);
        }
        let module = plain::namespace_of(class)
            .and_then(|namespace| plain::get(namespace, intern!(py, "__module__")));
        let Some(module) = module.map(|module| module.to_owned().unbind()) else { return Ok(None) };
        let version = plain::new_version_of(class)?;
        Ok(Some(Class {
            qualname: class.getattr(intern!(py, "__qualname__"))?.unbind(),
            module,
            metaclass: class.get_type_ptr() as usize,
            version,
            class: class.clone().unbind(),
            shapes: Vec::new(),
        }))
    }

    /// Whether the class is what it was when its version was read.
    #[inline]
    fn is_unaltered(&self, class: *mut ffi::PyTypeObject) -> bool {
        // SAFETY: `self.class` is this class and keeps it alive.
        let metaclass = unsafe { ffi::Py_TYPE(class.cast()) };
        self.version.is_some()
            && plain::version_of(class) == self.version
            && plain::qualname_of(class) == self.qualname.as_ptr()
            && metaclass as usize == self.metaclass
    }

    /// Whether the class is still called what it was called in its definitions.
    fn has_its_name(&self, class: &Bound<'_, PyType>) -> bool {
        let module = plain::namespace_of(class)
            .and_then(|namespace| plain::get(namespace, intern!(class.py(), "__module__")));
        plain::qualname_of(class.as_type_ptr()) == self.qualname.as_ptr()
            && module.is_some_and(|module| module.as_ptr() == self.module.as_ptr())
    }

    #[inline]
    fn shape_of_inline(&self, inline: &Inline<'_>) -> Option<usize> {
        self.shapes.iter().position(|shape| shape.has_places_of(inline))
    }

    fn shape_of_dict(&self, dict: &Bound<'_, PyDict>) -> Option<usize> {
        self.shapes.iter().position(|shape| shape.has_names_of(dict))
    }
}
