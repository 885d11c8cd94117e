//! The dispatcher's process: a Python object behind the engine's three calls.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use eventpy_engine::child::{self, Assignment, Emitter, Face, Failure, Interrupter, Source};
use pyo3::exceptions::PySystemExit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use crate::error::{Interruption, StateError, raise};
use crate::options;
use crate::outbox;

/// The end of this dispatcher process, once its dispatcher is loaded.
static ENDING: OnceLock<Interrupter> = OnceLock::new();
/// Whether an update was interrupted by an exception already.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// A Python dispatcher.
struct PythonSource {
    dispatcher: Py<PyAny>,
    update: Py<PyAny>,
    arguments: Py<PyTuple>,
    keywords: Option<Py<PyDict>>,
    /// Whether there are no arguments.
    takes_nothing: bool,
}

/// Becomes a dispatcher process: `load` makes from the payload the dispatcher, its event types, and
/// whether events may be dropped; `locate` tells where the main thread is. Returns only in a process that is none.
#[pyfunction]
pub(crate) fn run_dispatcher(load: Py<PyAny>, locate: Py<PyAny>) {
    let locate = move || {
        let place = Python::attach(|py| locate.call0(py)?.extract::<String>(py));
        place.unwrap_or_default()
    };
    let face = Face { handle_sigterm: true, locate: Some(Box::new(locate)) };
    child::run_if_dispatcher(face, |assignment, interrupter| {
        Python::attach(|py| {
            let source = PythonSource::load(load.bind(py), assignment, interrupter);
            source.map(|source| Box::new(source) as Box<dyn Source>).map_err(|error| {
                let failure = failure(py, &error, "");
                clean_up(py, "run_exit_functions");
                clean_up(py, "flush_files");
                format!("{}\n{}", failure.reason, failure.traceback)
            })
        })
    });
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

impl PythonSource {
    fn load(
        load: &Bound<'_, PyAny>,
        assignment: &Assignment,
        interrupter: &Interrupter,
    ) -> PyResult<PythonSource> {
        let py = load.py();
        let payload = PyBytes::new(py, &assignment.payload);
        let (dispatcher, event_types, may_drop): (Bound<'_, PyAny>, Vec<Py<PyType>>, bool) =
            load.call1((payload,))?.extract()?;
        outbox::open(py, assignment.name.clone(), event_types, may_drop)?;
        let _ = ENDING.set(interrupter.clone());
        Ok(PythonSource {
            update: dispatcher.getattr(intern!(py, "update"))?.unbind(),
            dispatcher: dispatcher.unbind(),
            arguments: PyTuple::empty(py).unbind(),
            keywords: None,
            takes_nothing: true,
        })
    }

    /// Calls `init` and takes the arguments for `update` and `finish` from what it returns.
    fn call_init(&mut self, py: Python<'_>) -> PyResult<()> {
        outbox::greet(py)?;
        send_pending_logs(py)?;
        let returned = self.dispatcher.bind(py).call_method0(intern!(py, "init"))?;
        let arguments = py
            .import(intern!(py, "eventpy._process"))?
            .call_method1(intern!(py, "arguments_from"), (&self.dispatcher, returned))?;
        let (arguments, keywords): (Bound<'_, PyTuple>, Bound<'_, PyDict>) = arguments.extract()?;
        self.keywords = (!keywords.is_empty()).then(|| keywords.unbind());
        self.takes_nothing = self.keywords.is_none() && arguments.is_empty();
        self.arguments = arguments.unbind();
        Ok(())
    }

    #[inline]
    fn call_update(&self, py: Python<'_>) -> PyResult<()> {
        let update = self.update.bind(py);
        let returned = match &self.keywords {
            _ if self.takes_nothing => update.call0(),
            keywords => {
                let keywords = keywords.as_ref().map(|keywords| keywords.bind(py));
                update.call(self.arguments.bind(py), keywords)
            }
        };
        outbox::send_returned(&returned?)
    }

    fn call_finish(&self, py: Python<'_>) -> PyResult<()> {
        outbox::begin_finish(py);
        let keywords = self.keywords.as_ref().map(|keywords| keywords.bind(py));
        let finish = self.dispatcher.bind(py).getattr(intern!(py, "finish"))?;
        let finished = finish.call(self.arguments.bind(py), keywords).map(drop);
        finished.and(send_pending_logs(py))
    }
}

impl Source for PythonSource {
    fn init(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        emitter.set_pause(|sleep| Python::attach(|py| py.detach(sleep)));
        Python::attach(|py| {
            outbox::lending(py, emitter, || self.call_init(py))
                .map_err(|error| failure(py, &error, "init raised "))
        })
    }

    #[inline]
    fn update(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        Python::attach(|py| {
            outbox::lending(py, emitter, || self.call_update(py))
                .map_err(|error| failure(py, &error, "update raised "))
        })
    }

    fn finish(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        Python::attach(|py| {
            outbox::lending(py, emitter, || self.call_finish(py))
                .map_err(|error| failure(py, &error, "finish raised "))
        })
    }
}

impl Drop for PythonSource {
    /// What the interpreter would do at its end, which the process does not wait for.
    fn drop(&mut self) {
        Python::attach(|py| {
            clean_up(py, "run_exit_functions");
            self.dispatcher = py.None();
            self.update = py.None();
            self.arguments = PyTuple::empty(py).unbind();
            self.keywords = None;
            clean_up(py, "flush_files");
        });
    }
}

fn clean_up(py: Python<'_>, step: &str) {
    let cleaned =
        py.import("eventpy._process").and_then(|process| process.call_method0(step).map(drop));
    if let Err(error) = cleaned {
        error.print(py);
    }
}

fn send_pending_logs(py: Python<'_>) -> PyResult<()> {
    let process = py.import(intern!(py, "eventpy._process"))?;
    process.call_method0(intern!(py, "send_pending_logs")).map(drop)
}

/// An exception in words: a sentence and the traceback.
#[cold]
fn failure(py: Python<'_>, error: &PyErr, doing: &str) -> Failure {
    if is_forked_copy() && error.is_instance_of::<PySystemExit>(py) {
        // Ends this process.
        error.print(py);
    }
    let is_ending = error.is_instance_of::<Interruption>(py);
    // With its traceback, which a bare value does not have before CPython 3.12.
    let value = error.clone_ref(py).into_value(py);
    let described = py
        .import("eventpy._process")
        .and_then(|process| process.call_method1("describe", (value,))?.extract());
    let (sentence, traceback): (String, String) =
        described.unwrap_or_else(|_| (error.to_string(), String::new()));
    Failure { reason: format!("{doing}{sentence}"), traceback, is_ending }
}
