//! What is known about the machine: the listener that all events lead to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use eventpy::{DispatcherFailed, EventListener, Subscriptions};

use crate::cpu::{CoreGone, CpuLoad};
use crate::folder::FileChange;
use crate::memory::{Memory, Pressure};

/// So many changes of files are remembered.
const CHANGES: usize = 32;

/// The machine as the events so far describe it.
#[derive(Default)]
pub struct Machine {
    /// How busy each core is, by its number.
    pub cores: BTreeMap<u32, f32>,
    pub memory: Option<Memory>,
    /// How much of the time programs wait for a resource, by its name.
    pub pressure: BTreeMap<String, f32>,
    /// The last changes of files, the newest first.
    pub changes: VecDeque<FileChange>,
    /// How many changes there were in all.
    pub change_count: u64,
    /// Dispatchers that failed, and why. What they told before stays as it is.
    pub failures: Vec<String>,
}

impl EventListener for Machine {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions
            .on(Self::on_cpu_load)
            .on(Self::on_core_gone)
            .on(Self::on_memory)
            .on(Self::on_pressure)
            .on(Self::on_file_change)
            .on(Self::on_failure);
    }
}

impl Machine {
    fn on_cpu_load(&mut self, load: &CpuLoad) {
        self.cores.insert(load.core, load.busy);
    }

    fn on_core_gone(&mut self, gone: &CoreGone) {
        self.cores.remove(&gone.core);
    }

    fn on_memory(&mut self, memory: &Memory) {
        self.memory = Some(*memory);
    }

    fn on_pressure(&mut self, pressure: &Pressure) {
        self.pressure.insert(pressure.resource.clone(), pressure.stalled);
    }

    fn on_file_change(&mut self, change: &FileChange) {
        self.changes.truncate(CHANGES - 1);
        self.changes.push_front(change.clone());
        self.change_count += 1;
    }

    fn on_failure(&mut self, failed: &DispatcherFailed) {
        self.failures.push(failed.to_string());
    }
}

/// One line, for an output that is no terminal.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cpu")?;
        for (core, busy) in &self.cores {
            write!(f, " {core}: {:.0} %", busy * 100.0)?;
        }
        if let Some(memory) = self.memory {
            write!(f, " | memory {memory}")?;
        }
        for (place, (resource, stalled)) in self.pressure.iter().enumerate() {
            let before = if place == 0 { " | waiting for" } else { "," };
            write!(f, "{before} {resource} {:.1} %", stalled * 100.0)?;
        }
        match self.changes.front() {
            Some(last) => write!(f, " | {} changes of files, last: {last}", self.change_count)?,
            None => write!(f, " | no changes of files")?,
        }
        self.failures.iter().try_for_each(|failure| write!(f, " | {failure}"))
    }
}
