//! A lock for what only threads that hold the interpreter's lock may touch.
//!
//! A mutex takes and gives itself back with instructions that wait until all stores before them have
//! left the core, and the last store before is that of a ring's tail, whose cache line the manager
//! is just reading. Whoever holds the interpreter's lock is alone anyway: for them a flag will do.

#[cfg(Py_GIL_DISABLED)]
compile_error!("without the interpreter's lock, GilLock does not keep threads apart");

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use pyo3::PyVisit;
use pyo3::prelude::*;

/// Keeps a value for one thread at a time. The holder may let go of the interpreter's lock.
pub(crate) struct GilLock<T> {
    /// Whether somebody has it. Written only under the interpreter's lock, which also orders what
    /// the holders do.
    taken: AtomicBool,
    /// Threads that wait for it, each with a ticket: they have it in the order in which they came,
    /// and before whoever comes. Else a holder that lets go of the interpreter's lock only while it
    /// holds this would have it for ever.
    waiting: AtomicUsize,
    next_ticket: AtomicU64,
    serving: AtomicU64,
    turn: Mutex<()>,
    given_back: Condvar,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time has the value, and whoever comes next has got the interpreter's lock
// from it.
unsafe impl<T: Send> Sync for GilLock<T> {}

/// The value, until this is dropped.
pub(crate) struct Held<'a, T> {
    lock: &'a GilLock<T>,
    /// It is given back where it was taken: in a thread that holds the interpreter's lock.
    _py: Python<'a>,
}

impl<T> GilLock<T> {
    pub(crate) const fn new(value: T) -> GilLock<T> {
        GilLock {
            taken: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            next_ticket: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            turn: Mutex::new(()),
            given_back: Condvar::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value. A thread that has to wait for it lets go of the interpreter's lock.
    #[inline]
    pub(crate) fn lock<'a>(&'a self, py: Python<'a>) -> Held<'a, T> {
        if !self.is_free(py) {
            self.wait(py);
        }
        // No Python code runs and nothing is let go of since the load, so nobody came between.
        self.taken.store(true, Ordering::Relaxed);
        Held { lock: self, _py: py }
    }

    /// Whether nobody has it, nor waits for it.
    #[inline]
    pub(crate) fn is_free(&self, _: Python<'_>) -> bool {
        !self.taken.load(Ordering::Relaxed) && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// The value, if nobody has it, for the garbage collector, which must not wait. It collects under
    /// the interpreter's lock and runs no Python code while it visits.
    pub(crate) fn while_visited<'a>(&'a self, _: &'a PyVisit<'_>) -> Option<&'a T> {
        let is_taken = self.taken.load(Ordering::Relaxed);
        // SAFETY: nobody has it, and nobody takes it without the interpreter's lock, which the
        // collector has as long as the visit lasts.
        (!is_taken).then(|| unsafe { &*self.value.get() })
    }

    /// Takes the value out and leaves an empty one, if nobody has it.
    pub(crate) fn take_if_free(&self, py: Python<'_>) -> Option<T>
    where
        T: Default,
    {
        self.is_free(py).then(|| std::mem::take(&mut *self.lock(py)))
    }

    /// Waits until it is this thread's turn. It is nobody else's then, until this one has taken it.
    #[cold]
    fn wait(&self, py: Python<'_>) {
        let GilLock { taken, waiting, next_ticket, serving, turn, given_back, .. } = self;
        let ticket = next_ticket.fetch_add(1, Ordering::Relaxed);
        waiting.fetch_add(1, Ordering::Relaxed);
        let is_ours =
            || !taken.load(Ordering::Relaxed) && serving.load(Ordering::Relaxed) == ticket;
        py.detach(|| {
            let mut turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            while !is_ours() {
                turn = given_back.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
        });
        serving.store(ticket + 1, Ordering::Relaxed);
        waiting.fetch_sub(1, Ordering::Relaxed);
    }

    #[cold]
    fn wake(&self) {
        // Under the mutex: a waiter has either not looked yet, or waits already.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.given_back.notify_all();
    }
}

impl<T: Default> Default for GilLock<T> {
    fn default() -> GilLock<T> {
        GilLock::new(T::default())
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `taken` is set by this holder alone until it is dropped.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Relaxed);
        if self.lock.waiting.load(Ordering::Relaxed) > 0 {
            self.lock.wake();
        }
    }
}
