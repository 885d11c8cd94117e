//! What the manager tells: how each dispatcher ended, what it is doing, what befell it.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// How a dispatcher's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It was never started, or its exit could not be read.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "{name}"),
                None => write!(f, "signal {signal}"),
            },
            Exit::Unknown => f.write_str("unknown"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    signal_hook::low_level::signal_name(signal)
}

/// Event counts; always `sent == delivered + dropped + lost` once a dispatcher has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events whose `emit` returned.
    pub sent: u64,
    /// Events handed to the callbacks.
    pub delivered: u64,
    /// Events dropped by the delivery of their type.
    pub dropped: u64,
    /// Events that were sent and can't be delivered, because their memory was destroyed.
    pub lost: u64,
}

/// How one dispatcher ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DispatcherReport {
    /// The dispatcher's name.
    pub dispatcher: String,
    /// Whether `finish` ran to its end, in the last process.
    pub finished: bool,
    /// How long `finish` took.
    pub finish_time: Option<Duration>,
    /// How the last process ended.
    pub exit: Exit,
    /// Why the dispatcher failed, if it did.
    pub failure: Option<String>,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its events, over all its processes.
    pub counts: Counts,
}

/// How all dispatchers ended, in the order in which they were added. It prints as a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndReport {
    /// One report for each dispatcher.
    pub dispatchers: Vec<DispatcherReport>,
}

impl EndReport {
    /// The report of a dispatcher, by name.
    pub fn get(&self, dispatcher: &str) -> Option<&DispatcherReport> {
        self.dispatchers.iter().find(|report| report.dispatcher == dispatcher)
    }

    /// Whether every `finish` ran and nothing was lost.
    pub fn is_clean(&self) -> bool {
        self.dispatchers.iter().all(|report| report.finished && report.counts.lost == 0)
    }
}

impl fmt::Display for EndReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "dispatcher",
            "finish",
            "end",
            "sent",
            "delivered",
            "dropped",
            "lost",
        ]);
        for report in &self.dispatchers {
            table.add_row([
                report.dispatcher.clone(),
                finish_cell(report),
                report.exit.to_string(),
                report.counts.sent.to_string(),
                report.counts.delivered.to_string(),
                report.counts.dropped.to_string(),
                report.counts.lost.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        write!(f, "{}", table.trim_fmt())?;
        for report in &self.dispatchers {
            if let Some(failure) = &report.failure {
                write!(f, "\n{} failed: {failure}", report.dispatcher)?;
            }
        }
        Ok(())
    }
}

fn finish_cell(report: &DispatcherReport) -> String {
    match (report.finished, report.finish_time) {
        (true, Some(time)) => format!("ran, {time:.1?}"),
        (true, None) => "ran".to_owned(),
        (false, _) => "did not run".to_owned(),
    }
}

/// What a dispatcher is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DispatcherState {
    /// Not deployed.
    Idle,
    /// Its process is starting, or is in `init`.
    Starting,
    /// It updates.
    Running,
    /// It was told to end.
    Ending,
    /// It has failed and waits for its restart.
    Waiting,
    /// It has ended.
    Ended,
    /// It has failed for good.
    Failed,
}

/// What a dispatcher is doing and has done so far.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DispatcherStats {
    /// The dispatcher's name.
    pub dispatcher: String,
    /// What it is doing.
    pub state: DispatcherState,
    /// Its process, while there is one.
    pub pid: Option<u32>,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its events so far. `sent` and `dropped` are as the dispatcher last reported them.
    pub counts: Counts,
    /// Bytes that wait in its ring.
    pub queued_bytes: u64,
    /// The same per event type: name and counts.
    pub event_types: Vec<(String, Counts)>,
}

/// What all dispatchers are doing.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// One entry for each dispatcher, in the order in which they were added.
    pub dispatchers: Vec<DispatcherStats>,
}

/// Where in a dispatcher's life it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// Its process started and was to load the dispatcher.
    Start,
    /// `init`.
    Init,
    /// `update`.
    Update,
    /// `finish`.
    Finish,
}

/// A dispatcher failed: its code returned an error or panicked, it hung, or its process died.
/// All that it had sent before was delivered before this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DispatcherFailed {
    /// The dispatcher's name.
    pub dispatcher: String,
    /// Where in its life it failed.
    pub phase: Phase,
    /// Why, in one sentence.
    pub reason: String,
    /// How its process ended.
    pub exit: Exit,
    /// What the process told about the place: a backtrace, a Python traceback, or nothing.
    pub traceback: String,
    /// Whether it will be started anew.
    pub will_restart: bool,
}

impl fmt::Display for DispatcherFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dispatcher `{}` failed: {}", self.dispatcher, self.reason)?;
        if !self.traceback.is_empty() {
            write!(f, "\n{}", self.traceback.trim_end())?;
        }
        Ok(())
    }
}

/// A dispatcher's process was started anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DispatcherRestarted {
    /// The dispatcher's name.
    pub dispatcher: String,
    /// How often it was restarted, this time included.
    pub restarts: u32,
    /// How long it waited before.
    pub backoff: Duration,
}

/// A dispatcher has ended, by itself or because it was told to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DispatcherEnded {
    /// How it ended.
    pub report: DispatcherReport,
}
