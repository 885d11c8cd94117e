//! The dispatcher's process: a Python object behind the engine's three calls.

use eventpy_engine::child::{self, Assignment, Emitter, Face, Failure, Interrupter, Source};
use pyo3::exceptions::PySystemExit;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};

use crate::ending;
use crate::error::Interruption;
use crate::outbox;

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
        ending::provide(interrupter);
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
    if ending::is_forked_copy() && error.is_instance_of::<PySystemExit>(py) {
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
