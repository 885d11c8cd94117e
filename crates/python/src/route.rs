//! From an event to the callbacks for its type.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;

/// The callbacks for one class of events, in the order of their registration.
pub(crate) type Callbacks = Arc<[Py<PyAny>]>;

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
    pub(crate) fn subscribe(&mut self, event_type: Py<PyType>, callback: Py<PyAny>) {
        self.subscriptions.push((event_type, callback));
        self.known.clear();
        self.last = None;
    }

    /// The callbacks for an event. Runs no Python code.
    #[inline]
    pub(crate) fn of(&mut self, event: &Bound<'_, PyAny>) -> Callbacks {
        let address = event.get_type_ptr() as usize;
        if let Some((last, callbacks)) = &self.last
            && *last == address
        {
            return Arc::clone(callbacks);
        }
        let callbacks = self.look_up(address, &event.get_type());
        self.last = Some((address, Arc::clone(&callbacks)));
        callbacks
    }

    fn look_up(&mut self, address: usize, class: &Bound<'_, PyType>) -> Callbacks {
        if let Some((_, callbacks)) = self.known.get(&address) {
            return Arc::clone(callbacks);
        }
        if self.known.len() >= MOST_ROUTES {
            self.known.clear();
        }
        let bases = class.mro();
        let is_base = |of: &Py<PyType>| bases.iter_borrowed().any(|base| base.is(of));
        let callbacks: Callbacks = self
            .subscriptions
            .iter()
            .filter(|(event_type, _)| is_base(event_type))
            .map(|(_, callback)| callback.clone_ref(class.py()))
            .collect();
        self.known.insert(address, (class.clone().unbind(), Arc::clone(&callbacks)));
        callbacks
    }
}
