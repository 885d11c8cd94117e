//! The two processes of a measurement: this one, which consumes, and a producer, which is
//! this program run again; where each runs; and a limit on how long they may take.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::measure::Load;

/// No contender takes nearly as long for one round, so it hangs: a record was lost, or
/// its producer died.
const LIMIT: Duration = Duration::from_secs(90);

/// Which cores the two sides of a measurement use.
#[derive(Debug, Clone, Copy)]
pub enum Placement {
    /// Each side has a core to itself.
    Apart,
    /// Both sides share one, so that waking the consumer takes neither an interrupt to
    /// another core nor getting that core out of its idle state, which can cost many times
    /// as much as all the software does, most of all in a virtual machine.
    Together,
}

/// The cores that a measurement uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// Where the producer runs.
    pub producer: usize,
    /// Where the consumer, this process, runs.
    pub consumer: usize,
}

impl Cores {
    /// The first two cores that this program may use.
    pub fn choose() -> Result<Self> {
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| original_affinity().is_set(*core));
        match (allowed.next(), allowed.next()) {
            (Some(producer), Some(consumer)) => Ok(Self { producer, consumer }),
            _ => Err("a measurement needs two processor cores".into()),
        }
    }

    /// These cores, used as `placement` says.
    pub fn place(self, placement: Placement) -> Self {
        match placement {
            Placement::Apart => self,
            Placement::Together => Self { consumer: self.producer, ..self },
        }
    }
}

/// Keeps the calling process on `core`. Both sides of every measurement are pinned:
/// a move to another core in mid-run, or both on one, would measure the scheduler.
pub fn pin(core: usize) -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)
}

/// Takes back every [`pin`] of this process.
pub fn unpin() -> rustix::io::Result<()> {
    sched_setaffinity(None, original_affinity())
}

/// The cores that this program was allowed before it pinned itself.
fn original_affinity() -> &'static CpuSet {
    static ORIGINAL: OnceLock<CpuSet> = OnceLock::new();
    ORIGINAL.get_or_init(|| sched_getaffinity(None).expect("a process can read its own affinity"))
}

/// The first argument of a producer process; its row, link and load follow.
pub const PRODUCE: &str = "produce";

/// A producer process.
pub struct Producer {
    child: Child,
}

impl Producer {
    /// Starts the producer of the contender `row`, which reaches this process by `link`.
    pub fn start(row: &str, link: &str, load: &Load) -> Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg(PRODUCE)
            .args([row, link, &load.to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// The producer's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the producer go, when it's through, and fails if it failed.
    pub fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the producer ended with {status}").into());
        }
        Ok(())
    }
}

impl Drop for Producer {
    /// After a failure nobody waits for the producer any more. One that has ended already
    /// is past both calls.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the producer: die with the consumer, and run on `core`.
pub fn enter_producer(core: usize) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(pin(core)?)
}

/// In the producer: stay, with all that the consumer may still read, until it has read it.
pub fn await_end() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// What all threads of a process have used of a processor so far.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds = schedstat.split(' ').next().unwrap_or_default();
        total += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(total)
}

/// The memory that a process shares with no other.
pub fn private_bytes(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let mut kilobytes = 0;
    for line in rollup.lines().filter(|line| line.starts_with("Private_")) {
        let number = line.split_whitespace().nth(1).ok_or("smaps_rollup has lines of three")?;
        kilobytes += number.parse::<u64>()?;
    }
    Ok(kilobytes * 1024)
}

/// Ends the whole program when a measurement takes longer than [`LIMIT`]; dropping it
/// disarms it. Its thread sleeps all the time.
pub struct Watchdog {
    _disarm: Sender<()>,
}

impl Watchdog {
    /// Watches over the measurement of `row`.
    pub fn set(row: &str) -> Self {
        let (disarm, disarmed) = mpsc::channel::<()>();
        let row = row.to_owned();
        thread::spawn(move || {
            if disarmed.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "`{row}` did not end within {LIMIT:?}: a record was lost or its producer died"
                );
                std::process::exit(1);
            }
        });
        Self { _disarm: disarm }
    }
}
