//! Memory and pressure, from `/proc/meminfo` and `/proc/pressure`.

use std::time::Duration;
use std::{fmt, fs};

use eventpy::{Emitter, Event, EventDispatcher};
use serde::{Deserialize, Serialize};

/// How much memory the machine has, and how much of it a program could still get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Event, Serialize, Deserialize)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// How much of the last ten seconds some program stood still for want of a resource.
#[derive(Debug, Event, Serialize, Deserialize)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: String,
    /// From 0 to 1.
    pub stalled: f32,
}

/// Reads `/proc/meminfo` and `/proc/pressure` in a process of its own.
#[derive(Serialize, Deserialize)]
pub struct MemoryWatch {
    pub every: Duration,
}

#[eventpy::dispatcher]
impl EventDispatcher for MemoryWatch {
    type Events = (Memory, Pressure);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, (): &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        if let Some(memory) = parse_memory(&fs::read_to_string("/proc/meminfo")?) {
            emitter.emit(memory)?;
        }
        for resource in ["cpu", "memory", "io"] {
            // Not every kernel measures it, and some that do refuse to tell.
            let Ok(text) = fs::read_to_string(format!("/proc/pressure/{resource}")) else {
                continue;
            };
            if let Some(stalled) = parse_pressure(&text) {
                emitter.emit(Pressure { resource: resource.to_owned(), stalled })?;
            }
        }
        emitter.wait(self.every);
        Ok(())
    }
}

impl Memory {
    /// The share of the memory that no program could still get.
    pub fn used(&self) -> f64 {
        1.0 - self.available_bytes as f64 / self.total_bytes.max(1) as f64
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let used = self.total_bytes.saturating_sub(self.available_bytes);
        write!(f, "{:.1} of {:.1} GiB", gibibytes(used), gibibytes(self.total_bytes))
    }
}

/// Lines like `MemTotal:  24684084 kB`.
fn parse_memory(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes * 1024)
    };
    Some(Memory { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
}

/// The line `some avg10=4.50 avg60=0.91 avg300=0.00 total=681245`, in percent.
fn parse_pressure(text: &str) -> Option<f32> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f32 =
        some.split(' ').find_map(|field| field.strip_prefix("avg10="))?.parse().ok()?;
    Some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::{Memory, parse_memory, parse_pressure};

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       2048 kB\nMemFree:         100 kB\nMemAvailable:   1024 kB\n";
        let memory = Memory { total_bytes: 2 << 20, available_bytes: 1 << 20 };
        assert_eq!(parse_memory(text), Some(memory));
        assert_eq!(parse_memory("MemTotal: 2048 kB\n"), None);
    }

    #[test]
    fn pressure_is_a_share() {
        let text = "some avg10=12.50 avg60=0.91 avg300=0.00 total=681245\n";
        assert_eq!(parse_pressure(text), Some(0.125));
        assert_eq!(parse_pressure(""), None);
    }
}
