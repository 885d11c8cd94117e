//! The manager's process: deploy, pump, end.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eventpy_engine::{DispatcherId, DispatcherSpec, Engine, Launch, Pump, Selection, Sleep, Woken};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::{ReentrantError, raise};
use crate::gil::{GilLock, Held};
use crate::intake::{Arrival, INTERNAL_TYPES, Inbox, Intake, Maker};
use crate::options::{self, Options};
use crate::report;
use crate::route::Routes;

/// So often a deployment looks for signals.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// Of several threads that wait, each looks so often: one takes away what wakes the others.
const SHARED_SLEEP: Duration = Duration::from_millis(10);

/// Managers that may have dispatchers, for the end of the interpreter.
static DEPLOYED: GilLock<Vec<Weak<GilLock<Engine>>>> = GilLock::new(Vec::new());

/// The native part of `eventpy.EventDispatchManager`.
#[pyclass(frozen)]
pub(crate) struct Manager {
    engine: Arc<GilLock<Engine>>,
    ids: GilLock<Vec<DispatcherId>>,
    intake: GilLock<Intake>,
    /// Who has the intake to make an event.
    maker: Maker,
    routes: GilLock<Routes>,
    sleepers: GilLock<Sleepers>,
    postponed: GilLock<Vec<PostponedEnd>>,
}

/// An end that was asked for while an event was being made. The end command is sent; the rest waits
/// until the maker is through, so that order is kept.
struct PostponedEnd {
    which: Selection,
    /// Has been handed out, and is completed when all is over.
    report: Py<PyAny>,
}

/// Threads that sleep at this moment.
#[derive(Default)]
struct Sleepers {
    count: usize,
    /// One of them began alone, and sleeps until something wakes it.
    one_is_deep: bool,
    /// That one is being woken, to share its sleep.
    roused: bool,
}

/// What a pump came to.
#[derive(Default)]
struct Outcome<'py> {
    /// Events that were delivered.
    delivered: usize,
    /// Whether anything befell a dispatcher.
    told: bool,
    errors: Vec<PyErr>,
    /// Failures that nobody listened to.
    failures: Vec<Bound<'py, PyAny>>,
}

#[pymethods]
impl Manager {
    #[new]
    fn new() -> Manager {
        Manager {
            engine: Arc::default(),
            ids: GilLock::default(),
            intake: GilLock::default(),
            maker: Maker::default(),
            routes: GilLock::default(),
            sleepers: GilLock::default(),
            postponed: GilLock::default(),
        }
    }

    /// Raises if a dispatcher with these options could not be added.
    #[staticmethod]
    fn check(name: String, event_types: Vec<String>, options: Options) -> PyResult<()> {
        let launch = Launch { program: "".into(), args: Vec::new(), hint: String::new() };
        let spec = spec(name, event_types, Vec::new(), launch, &options);
        Engine::new().add(spec).map(drop).map_err(raise)
    }

    /// Forgets the dispatchers of an earlier deployment; true if there is none that still runs.
    fn begin_deployment(&self, py: Python<'_>) -> PyResult<bool> {
        self.check_not_making("deployed")?;
        let mut engine = self.engine(py);
        if engine.is_deployed() {
            return Ok(false);
        }
        *engine = Engine::new();
        drop(engine);
        self.ids.lock(py).clear();
        let forgotten = mem::take(&mut *self.intake.lock(py));
        drop(forgotten);
        Ok(true)
    }

    /// Adds a dispatcher: its name, its event types and their names, what its process needs, the
    /// command that starts it, and its options.
    #[expect(clippy::too_many_arguments, reason = "they are what makes a dispatcher")]
    fn add(
        &self,
        py: Python<'_>,
        name: String,
        event_types: Vec<Py<PyType>>,
        type_names: Vec<String>,
        payload: Vec<u8>,
        command: Vec<String>,
        options: Options,
    ) -> PyResult<()> {
        let mut command = command.into_iter();
        let launch = Launch {
            program: command.next().unwrap_or_default().into(),
            args: command.map(Into::into).collect(),
            hint: "put the program's start under `if __name__ == \"__main__\":`".to_owned(),
        };
        let inbox = Inbox::new(py, event_types, options.copy_large, options.may_drop)?;
        let id = self.engine(py).add(spec(name, type_names, payload, launch, &options));
        self.ids.lock(py).push(id.map_err(raise)?);
        self.intake.lock(py).add(inbox);
        Ok(())
    }

    /// Starts dispatchers and waits until each is loaded. After an error, none of these is left.
    fn deploy(&self, py: Python<'_>, which: Option<Vec<usize>>) -> PyResult<()> {
        let which = self.selection(py, which)?;
        self.note_deployment(py)?;
        self.detached(py, |engine| engine.begin_deploy(&which)).map_err(raise)?;
        loop {
            let polled = self.detached(py, |engine| engine.poll_deploy(Some(SIGNALS_EVERY)));
            if polled.map_err(raise)? {
                return Ok(());
            }
            if let Err(interrupt) = py.check_signals() {
                self.detached(py, Engine::give_up_deploy);
                return Err(interrupt);
            }
        }
    }

    fn subscribe(&self, py: Python<'_>, event_type: Py<PyType>, callback: Py<PyAny>) {
        let forgotten = self.routes.lock(py).subscribe(event_type, callback);
        drop(forgotten);
    }

    /// Delivers what is there, waiting for the first of it at most `timeout` seconds.
    fn pump(
        &self,
        py: Python<'_>,
        which: Option<Vec<usize>>,
        timeout: Option<f64>,
        max_events: Option<usize>,
    ) -> PyResult<usize> {
        self.check_not_making("pumped")?;
        let which = self.selection(py, which)?;
        let until = options::until(timeout);
        let most = max_events.unwrap_or(usize::MAX);
        loop {
            self.engine(py).begin_pump(&which, Pump::Now).map_err(raise)?;
            let mut outcome = Outcome::default();
            self.deliver(py, &which, &mut outcome, |outcome| {
                outcome.delivered >= most || !outcome.errors.is_empty()
            });
            self.carry_out_postponed(py, &mut outcome);
            raise_first(py, &mut outcome.errors, &outcome.failures)?;
            let is_over = until.is_some_and(|until| Instant::now() >= until);
            if outcome.delivered > 0 || outcome.told || is_over {
                return Ok(outcome.delivered);
            }
            if until.is_none() && self.is_over(py, &which) {
                return Ok(0);
            }
            self.sleep(py, &which, until)?;
            if !self.is_deployed(py) {
                // A signal handler or another thread has ended them meanwhile.
                return Ok(0);
            }
        }
    }

    /// Pumps all dispatchers. It is no error if they have ended since the caller looked, as they may
    /// in a signal handler.
    fn pump_if_deployed(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<usize> {
        match self.is_deployed(py) {
            true => self.pump(py, None, timeout, None),
            false => Ok(0),
        }
    }

    /// Ends all dispatchers, if they have not ended since the caller looked.
    fn end_if_deployed(&self, py: Python<'_>) -> PyResult<()> {
        match self.is_deployed(py) {
            true => self.end(py, None, None).map(drop),
            false => Ok(()),
        }
    }

    /// Ends dispatchers, delivers what they send until then, and reports. While this thread makes an
    /// event, it only begins to; the report is completed later.
    fn end<'py>(
        &self,
        py: Python<'py>,
        which: Option<Vec<usize>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let which = self.selection(py, which)?;
        let timeout = timeout.map(options::seconds);
        self.engine(py).begin_end(&which, timeout).map_err(raise)?;
        if self.maker.is_here() {
            let report = self.end_report(py)?;
            let end = PostponedEnd { which, report: report.clone().unbind() };
            self.postponed.lock(py).push(end);
            return Ok(report);
        }
        let mut outcome = Outcome::default();
        self.carry_out_end(py, &which, &mut outcome)
            .unwrap_or_else(|error| outcome.errors.push(error));
        self.carry_out_postponed(py, &mut outcome);
        raise_first(py, &mut outcome.errors, &[])?;
        self.end_report(py)
    }

    fn is_deployed(&self, py: Python<'_>) -> bool {
        self.engine(py).is_deployed()
    }

    fn has_ended(&self, py: Python<'_>) -> bool {
        self.is_over(py, &Selection::All)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.engine(py).stats();
        report::stats(py, &stats)
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        use std::os::fd::AsRawFd;
        Ok(self.engine(py).descriptor().map_err(raise)?.as_raw_fd())
    }

    /// Callbacks and event types lead back to the manager more often than not.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(routes) = self.routes.while_visited(&visit) {
            routes.traverse(&visit)?;
        }
        if let Some(intake) = self.intake.while_visited(&visit) {
            intake.traverse(&visit)?;
        }
        Ok(())
    }

    /// Forgets the callbacks. The inboxes stay, as what the dispatchers sent needs them: a cycle
    /// through them goes through a class, which the collector can clear.
    fn __clear__(&self, py: Python<'_>) {
        // Dropped when the lock is given back: Python code may run then.
        drop(self.routes.take_if_free(py));
    }
}

impl Manager {
    #[inline]
    fn engine<'a>(&'a self, py: Python<'a>) -> Held<'a, Engine> {
        self.engine.lock(py)
    }

    /// Lets the engine work that takes its time, without the interpreter's lock.
    fn detached<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Engine) -> R + Send) -> R {
        let mut engine = self.engine(py);
        let engine = &mut *engine;
        py.detach(|| work(engine))
    }

    fn selection(&self, py: Python<'_>, which: Option<Vec<usize>>) -> PyResult<Selection> {
        options::selection(which, &self.ids.lock(py))
    }

    /// Refuses what needs the intake while this thread has it.
    fn check_not_making(&self, what: &str) -> PyResult<()> {
        if self.maker.is_here() {
            return Err(ReentrantError::new_err(format!(
                "the manager was {what} while an event was being made for it; do that in a callback",
            )));
        }
        Ok(())
    }

    /// Whether nothing is left of these dispatchers, also no event that was interrupted.
    fn is_over(&self, py: Python<'_>, which: &Selection) -> bool {
        self.engine(py).has_ended(which)
            && (self.maker.is_here() || !self.intake.lock(py).keeps(which))
    }

    fn end_report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let ended = self.engine(py).end_report();
        report::end_report(py, &ended)
    }

    /// Delivers until dispatchers that were told to end have ended.
    fn carry_out_end<'py>(
        &self,
        py: Python<'py>,
        which: &Selection,
        outcome: &mut Outcome<'py>,
    ) -> PyResult<()> {
        while !self.is_over(py, which) {
            self.begin_ending_pump(py, which)?;
            self.deliver(py, which, outcome, |_| false);
            if !self.is_over(py, which) {
                self.sleep(py, which, None)?;
            }
        }
        Ok(())
    }

    /// Carries out what ends were asked for while events were being made. As with any end, failures
    /// are in the report alone.
    #[inline]
    fn carry_out_postponed<'py>(&self, py: Python<'py>, outcome: &mut Outcome<'py>) {
        loop {
            let Some(end) = self.postponed.lock(py).pop() else { return };
            let mut ending = Outcome::default();
            let ended = self.carry_out_end(py, &end.which, &mut ending).and_then(|()| {
                let report = self.end_report(py)?;
                end.report.call_method1(py, intern!(py, "_become"), (report,))
            });
            outcome.delivered += ending.delivered;
            outcome.errors.append(&mut ending.errors);
            outcome.errors.extend(ended.err());
        }
    }

    /// Sees to it that the dispatchers are ended with the interpreter at the latest.
    fn note_deployment(&self, py: Python<'_>) -> PyResult<()> {
        let mut deployed = DEPLOYED.lock(py);
        deployed.retain(|engine| engine.strong_count() > 0);
        let this = Arc::downgrade(&self.engine);
        if !deployed.iter().any(|engine| engine.ptr_eq(&this)) {
            deployed.push(this);
        }
        drop(deployed);
        py.import(intern!(py, "eventpy._manager"))?
            .call_method0(intern!(py, "end_with_interpreter"))?;
        Ok(())
    }

    /// Begins a pump, also within a callback of another one, which is over then.
    fn begin_ending_pump(&self, py: Python<'_>, which: &Selection) -> PyResult<()> {
        let mut engine = self.engine(py);
        engine.stop_pump();
        if engine.has_ended(which) {
            return Ok(());
        }
        engine.begin_pump(which, Pump::Now).map_err(raise)
    }

    /// Delivers what the pump that was begun yields, until it is over or `enough`.
    fn deliver<'py>(
        &self,
        py: Python<'py>,
        which: &Selection,
        outcome: &mut Outcome<'py>,
        enough: impl Fn(&Outcome<'py>) -> bool,
    ) {
        loop {
            if enough(outcome) {
                self.engine(py).stop_pump();
                return;
            }
            let Some(arrival) = self.next_arrival(py, which) else { return };
            match arrival {
                Arrival::Event(event) => {
                    outcome.delivered += 1;
                    self.call_back(py, event, &mut outcome.errors);
                }
                Arrival::Internal => {}
                other => self.tell(py, other, outcome).unwrap_or_else(|error| {
                    outcome.errors.push(error);
                }),
            }
        }
    }

    #[inline]
    fn next_arrival<'py>(&self, py: Python<'py>, which: &Selection) -> Option<Arrival<'py>> {
        let mut intake = self.intake.lock(py);
        let _making = self.maker.begin();
        intake.next(py, &self.engine, which)
    }

    /// Calls every callback for an event; true if there is any.
    #[inline]
    fn call_back<'py>(
        &self,
        py: Python<'py>,
        event: Bound<'py, PyAny>,
        errors: &mut Vec<PyErr>,
    ) -> bool {
        let callbacks = match self.routes.lock(py).of(&event) {
            Ok(callbacks) => callbacks,
            Err(error) => {
                errors.push(error);
                return true;
            }
        };
        for callback in callbacks.iter_borrowed() {
            if let Err(error) = callback.call1((&event,)) {
                errors.push(error);
            }
        }
        !callbacks.is_empty()
    }

    /// Delivers what is no event of a dispatcher.
    #[cold]
    fn tell<'py>(
        &self,
        py: Python<'py>,
        arrival: Arrival<'py>,
        outcome: &mut Outcome<'py>,
    ) -> PyResult<()> {
        let (event, is_failure) = match arrival {
            Arrival::Log(record) => return handle_log(py, &record),
            Arrival::Unmade(error) => return Err(error),
            Arrival::Failed(failed) => (report::failed(py, &failed)?, true),
            Arrival::Restarted(restarted) => (report::restarted(py, &restarted)?, false),
            Arrival::Ended(ended) => (report::ended(py, &ended)?, false),
            Arrival::Event(_) | Arrival::Internal => return Ok(()),
        };
        outcome.told = true;
        if self.call_back(py, event.clone(), &mut outcome.errors) {
            outcome.delivered += 1;
        } else if is_failure {
            outcome.failures.push(event);
        }
        Ok(())
    }

    /// Sleeps until there may be something, without holding anything.
    fn sleep(&self, py: Python<'_>, which: &Selection, until: Option<Instant>) -> PyResult<()> {
        py.check_signals()?;
        let Some((sleep, is_deep)) = self.begin_sleep(py, which, until)? else { return Ok(()) };
        let woken = py.detach(|| Sleep::wait(&sleep));
        self.end_sleep(py, is_deep, *woken.as_ref().unwrap_or(&Woken::Other));
        woken.map_err(raise)?;
        py.check_signals()
    }

    /// Prepares a sleep, and tells whether it is a deep one. `None`: there is something already, or
    /// nothing to wait for any more.
    fn begin_sleep(
        &self,
        py: Python<'_>,
        which: &Selection,
        until: Option<Instant>,
    ) -> PyResult<Option<(Sleep, bool)>> {
        let mut engine = self.engine(py);
        if !engine.is_deployed() {
            return Ok(None);
        }
        let mut sleepers = self.sleepers.lock(py);
        let is_deep = sleepers.count == 0;
        let soon = (!is_deep).then(|| Instant::now() + SHARED_SLEEP);
        let until = [until, soon].into_iter().flatten().min();
        if sleepers.one_is_deep && !sleepers.roused {
            engine.rouse();
            sleepers.roused = true;
        }
        let Some(sleep) = engine.begin_sleep(which, until).map_err(raise)? else {
            return Ok(None);
        };
        sleepers.count += 1;
        sleepers.one_is_deep |= is_deep;
        Ok(Some((sleep, is_deep)))
    }

    fn end_sleep(&self, py: Python<'_>, is_deep: bool, woken: Woken) {
        let mut engine = self.engine(py);
        let mut sleepers = self.sleepers.lock(py);
        sleepers.count -= 1;
        if is_deep {
            sleepers.one_is_deep = false;
            if mem::take(&mut sleepers.roused) {
                engine.calm();
            }
        }
        engine.end_sleep(woken);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let engine = mem::take(&mut self.engine);
        // Ending takes as long as `finish` does; other threads go on meanwhile.
        Python::try_attach(|py| py.detach(|| drop(engine)));
    }
}

/// Ends the dispatchers of all managers; for the end of the interpreter.
#[pyfunction]
pub(crate) fn end_all(py: Python<'_>) {
    let deployed = mem::take(&mut *DEPLOYED.lock(py));
    for engine in deployed.iter().filter_map(Weak::upgrade) {
        let engine = mem::take(&mut *engine.lock(py));
        py.detach(|| drop(engine));
    }
}

fn spec(
    name: String,
    event_types: Vec<String>,
    payload: Vec<u8>,
    launch: Launch,
    options: &Options,
) -> DispatcherSpec {
    DispatcherSpec {
        name,
        event_types,
        internal_types: INTERNAL_TYPES,
        payload,
        launch,
        options: options.to_engine(),
    }
}

fn handle_log(py: Python<'_>, record: &Bound<'_, PyBytes>) -> PyResult<()> {
    py.import(intern!(py, "eventpy._logging"))?.call_method1(intern!(py, "handle"), (record,))?;
    Ok(())
}

/// Raises what went wrong, if anything did: errors of callbacks before failures of dispatchers.
fn raise_first(
    py: Python<'_>,
    errors: &mut Vec<PyErr>,
    failures: &[Bound<'_, PyAny>],
) -> PyResult<()> {
    if errors.is_empty() && failures.is_empty() {
        return Ok(());
    }
    let errors = PyList::new(py, errors.drain(..))?;
    let failures = PyList::new(py, failures)?;
    let module = py.import(intern!(py, "eventpy._errors"))?;
    let error = module.call_method1(intern!(py, "combined"), (errors, failures))?;
    Err(PyErr::from_value(error))
}
