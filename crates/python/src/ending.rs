//! The end of a dispatcher's process: asking for it, waiting for it. A forked copy has none of its own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use eventpy_engine::child::Interrupter;
use pyo3::prelude::*;

use crate::error::{StateError, raise};
use crate::options;

/// The end of this dispatcher process, once its dispatcher is loaded.
static ENDING: OnceLock<Interrupter> = OnceLock::new();
/// Whether an update was interrupted by an exception already.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on the process can be ended.
pub(crate) fn provide(interrupter: &Interrupter) {
    let _ = ENDING.set(interrupter.clone());
}

/// SIGTERM came: true if the dispatcher's `update` is to be interrupted by an exception.
#[pyfunction]
pub(crate) fn interrupt() -> bool {
    let Some(ending) = ENDING.get() else { return false };
    ending.interrupt();
    ending.is_updating() && !INTERRUPTED.swap(true, Ordering::Relaxed)
}

/// Ends this dispatcher after the current `update`; `finish` runs.
///
///     if self.device.is_gone():
///         self.end()
#[pyfunction]
pub(crate) fn end() -> PyResult<()> {
    ending().map(Interrupter::end)
}

/// Whether the dispatcher is to end.
#[pyfunction]
pub(crate) fn is_ending() -> PyResult<bool> {
    ending().map(Interrupter::is_ending)
}

/// Sleeps for seconds; returns False when the dispatcher is to end, which cuts the sleep short.
///
///     while self.wait(0.5):
///         self.emit(self.sample())
#[pyfunction]
pub(crate) fn wait(py: Python<'_>, seconds: f64) -> PyResult<bool> {
    let ending = ending()?;
    let time = options::seconds(seconds);
    let handle_signals = || Python::attach(|py| py.check_signals());
    let slept = py.detach(|| ending.wait(time, handle_signals))?;
    py.check_signals()?;
    Ok(slept)
}

/// Refuses a process that the dispatcher's code forked off.
#[inline]
pub(crate) fn check_is_no_copy() -> PyResult<()> {
    ENDING.get().map_or(Ok(()), |ending| ending.check_is_no_copy().map_err(raise))
}

/// Whether the dispatcher's code forked this process off.
pub(crate) fn is_forked_copy() -> bool {
    ENDING.get().is_some_and(Interrupter::is_forked_copy)
}

fn ending() -> PyResult<&'static Interrupter> {
    ENDING.get().ok_or_else(|| {
        StateError::new_err(
            "this works only in the dispatcher's own process, from `init` to `finish`",
        )
    })
}
