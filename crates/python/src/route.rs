//! From an event to the callbacks for its type.

use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};
use std::collections::HashMap;

/// The callbacks for one class of events, in the order of their registration.
pub(crate) type Callbacks = Py<PyTuple>;

/// Routes of classes that are remembered, so that a program that makes classes does not grow.
const MOST_ROUTES: usize = 4096;

/// Who listens to which classes.
///
/// An event goes to the listeners of its class and of all bases of it. That is worked out once per
/// class.
#[derive(Default)]
pub(crate) struct Routes {
    subscriptions: Vec<(Py<PyType>, Py<PyAny>)>,
    /// By the address of the class, which is kept alive.
    known: HashMap<usize, (Py<PyType>, Callbacks)>,
    last: Option<(usize, Callbacks)>,
}

impl Routes {
    /// Adds a callback. What it returns is to be dropped without the lock: a class may die with it,
    /// which runs Python code.
    pub(crate) fn subscribe(
        &mut self,
        event_type: Py<PyType>,
        callback: Py<PyAny>,
    ) -> impl Sized + use<> {
        self.subscriptions.push((event_type, callback));
        (std::mem::take(&mut self.known), self.last.take())
    }

    /// Shows the garbage collector what is held here.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        for (event_type, callback) in &self.subscriptions {
            visit.call(event_type)?;
            visit.call(callback)?;
        }
        for (class, callbacks) in self.known.values() {
            visit.call(class)?;
            visit.call(callbacks)?;
        }
        visit.call(self.last.as_ref().map(|(_, callbacks)| callbacks))
    }

    /// The callbacks for an event. Runs no Python code.
    #[inline]
    pub(crate) fn of<'py>(&mut self, event: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        let address = event.get_type_ptr() as usize;
        if let Some((last, callbacks)) = &self.last
            && *last == address
        {
            return Ok(callbacks.bind(event.py()).clone());
        }
        let callbacks = self.look_up(address, &event.get_type())?;
        self.last = Some((address, callbacks.clone().unbind()));
        Ok(callbacks)
    }

    #[cold]
    fn look_up<'py>(
        &mut self,
        address: usize,
        class: &Bound<'py, PyType>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        if let Some((_, callbacks)) = self.known.get(&address) {
            return Ok(callbacks.bind(class.py()).clone());
        }
        if self.known.len() >= MOST_ROUTES {
            self.known.clear();
        }
        let bases = class.mro();
        let is_base = |of: &Py<PyType>| bases.iter_borrowed().any(|base| base.is(of));
        let theirs = self.subscriptions.iter().filter(|(event_type, _)| is_base(event_type));
        let callbacks: Vec<_> = theirs.map(|(_, callback)| callback.bind(class.py())).collect();
        let callbacks = PyTuple::new(class.py(), callbacks)?;
        let known = (class.clone().unbind(), callbacks.clone().unbind());
        self.known.insert(address, known);
        Ok(callbacks)
    }
}
