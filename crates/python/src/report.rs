//! Reports, statistics and failures as Python objects.

use eventpy_engine::{
    Counts, DispatcherEnded, DispatcherFailed, DispatcherReport, DispatcherRestarted,
    DispatcherState, DispatcherStats, EndReport, Exit, Phase, Stats,
};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;

/// A number of counts, as Python gets them: sent, delivered, dropped, lost.
type CountsTuple = (u64, u64, u64, u64);

fn counts(counts: Counts) -> CountsTuple {
    (counts.sent, counts.delivered, counts.dropped, counts.lost)
}

/// The exit code as Python's own modules tell it: a signal is a negative number.
fn exit_code(exit: Exit) -> Option<i32> {
    match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(signal) => Some(-signal),
        _ => None,
    }
}

fn make<'py>(
    py: Python<'py>,
    module: &str,
    class: &str,
    arguments: impl PyCallArgs<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    py.import(module)?.getattr(class)?.call1(arguments)
}

/// An `eventpy.EndReport`.
pub(crate) fn end_report<'py>(py: Python<'py>, report: &EndReport) -> PyResult<Bound<'py, PyAny>> {
    let reports = report.dispatchers.iter().map(|report| dispatcher_report(py, report));
    let reports = reports.collect::<PyResult<Vec<_>>>()?;
    make(py, "eventpy._report", "EndReport", (reports, report.to_string()))
}

fn dispatcher_report<'py>(
    py: Python<'py>,
    report: &DispatcherReport,
) -> PyResult<Bound<'py, PyAny>> {
    let finish_seconds = report.finish_time.map(|time| time.as_secs_f64());
    let arguments = (
        &report.dispatcher,
        report.finished,
        finish_seconds,
        exit_code(report.exit),
        report.failure.as_deref(),
        report.restarts,
        counts(report.counts),
    );
    make(py, "eventpy._report", "DispatcherReport", arguments)
}

/// An `eventpy.Stats`.
pub(crate) fn stats<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyAny>> {
    let stats = stats.dispatchers.iter().map(|stats| dispatcher_stats(py, stats));
    make(py, "eventpy._report", "Stats", (stats.collect::<PyResult<Vec<_>>>()?,))
}

fn dispatcher_stats<'py>(py: Python<'py>, stats: &DispatcherStats) -> PyResult<Bound<'py, PyAny>> {
    let event_types: Vec<(&str, CountsTuple)> =
        stats.event_types.iter().map(|(name, of)| (name.as_str(), counts(*of))).collect();
    let arguments = (
        &stats.dispatcher,
        state(stats.state),
        stats.pid,
        stats.restarts,
        counts(stats.counts),
        stats.queued_bytes,
        event_types,
    );
    make(py, "eventpy._report", "DispatcherStats", arguments)
}

/// An `eventpy.DispatcherFailed`.
pub(crate) fn failed<'py>(
    py: Python<'py>,
    failed: &DispatcherFailed,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = (
        &failed.dispatcher,
        phase(failed.phase),
        &failed.reason,
        exit_code(failed.exit),
        &failed.traceback,
        failed.will_restart,
    );
    make(py, "eventpy._event", "DispatcherFailed", arguments)
}

/// An `eventpy.DispatcherRestarted`.
pub(crate) fn restarted<'py>(
    py: Python<'py>,
    restarted: &DispatcherRestarted,
) -> PyResult<Bound<'py, PyAny>> {
    let backoff = restarted.backoff.as_secs_f64();
    let arguments = (&restarted.dispatcher, restarted.restarts, backoff);
    make(py, "eventpy._event", "DispatcherRestarted", arguments)
}

/// An `eventpy.DispatcherEnded`.
pub(crate) fn ended<'py>(py: Python<'py>, ended: &DispatcherEnded) -> PyResult<Bound<'py, PyAny>> {
    let report = dispatcher_report(py, &ended.report)?;
    make(py, "eventpy._event", "DispatcherEnded", (&ended.report.dispatcher, report))
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Start => "start",
        Phase::Init => "init",
        Phase::Finish => "finish",
        _ => "update",
    }
}

fn state(state: DispatcherState) -> &'static str {
    match state {
        DispatcherState::Idle => "idle",
        DispatcherState::Starting => "starting",
        DispatcherState::Running => "running",
        DispatcherState::Ending => "ending",
        DispatcherState::Waiting => "waiting",
        DispatcherState::Failed => "failed",
        _ => "ended",
    }
}
