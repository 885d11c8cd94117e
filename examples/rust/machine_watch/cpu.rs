//! How busy each core is, from `/proc/stat`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use eventpy::{Emitter, Event, EventDispatcher};
use serde::{Deserialize, Serialize};

/// How busy a core was since the sample before.
#[derive(Debug, Event, Serialize, Deserialize)]
pub struct CpuLoad {
    /// The core's number.
    pub core: u32,
    /// From 0, idle, to 1.
    pub busy: f32,
}

/// A core was switched off.
#[derive(Debug, Event, Serialize, Deserialize)]
pub struct CoreGone {
    /// The core's number.
    pub core: u32,
}

/// Samples `/proc/stat` in a process of its own.
#[derive(Serialize, Deserialize)]
pub struct CpuWatch {
    pub every: Duration,
}

#[eventpy::dispatcher]
impl EventDispatcher for CpuWatch {
    type Events = (CpuLoad, CoreGone);
    type State = Sample;

    fn init(&mut self) -> eventpy::Result<Sample> {
        Ok(sample()?)
    }

    fn update(
        &mut self,
        before: &mut Sample,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        emitter.wait(self.every);
        let now = sample()?;
        emitter.emit_all(now.iter().filter_map(|(&core, ticks)| {
            let busy = ticks.busy_since(before.get(&core)?)?;
            Some(CpuLoad { core, busy })
        }))?;
        let gone = before.keys().filter(|core| !now.contains_key(core));
        emitter.emit_all(gone.map(|&core| CoreGone { core }))?;
        *before = now;
        Ok(())
    }
}

/// The time that each core has spent, by its number: a core that is switched off has no line.
type Sample = BTreeMap<u32, Ticks>;

/// Time since the machine started, in the kernel's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    total: u64,
}

impl Ticks {
    /// The busy share of the time in between; `None` if no tick has passed.
    fn busy_since(&self, before: &Ticks) -> Option<f32> {
        let busy = self.busy.saturating_sub(before.busy);
        let total = self.total.saturating_sub(before.total);
        (total != 0).then(|| (busy as f32 / total as f32).min(1.0))
    }
}

fn sample() -> std::io::Result<Sample> {
    Ok(fs::read_to_string("/proc/stat")?.lines().filter_map(parse_core).collect())
}

/// `cpu7 user nice system idle iowait irq softirq steal ..`; the line `cpu` sums all cores up.
fn parse_core(line: &str) -> Option<(u32, Ticks)> {
    let mut fields = line.strip_prefix("cpu")?.split_ascii_whitespace();
    let core = fields.next().filter(|_| !line.starts_with("cpu "))?.parse().ok()?;
    // What follows `steal` is counted in `user` and `nice` already.
    let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
    let idle: u64 = ticks.get(3..)?.iter().take(2).sum();
    let total = ticks.iter().sum();
    Some((core, Ticks { busy: total - idle, total }))
}

#[cfg(test)]
mod tests {
    use super::{Ticks, parse_core};

    #[test]
    fn a_line_of_a_core_is_read_and_others_are_not() {
        let ticks = Ticks { busy: 150, total: 1150 };
        assert_eq!(parse_core("cpu12 100 20 10 900 100 5 5 10 70 0"), Some((12, ticks)));
        assert_eq!(parse_core("cpu  100 20 10 900 100 5 5 10 0 0"), None);
        assert_eq!(parse_core("intr 12 0 0"), None);
        assert_eq!(parse_core("cpu3"), None);
    }

    #[test]
    fn a_share_needs_time_to_have_passed() {
        let before = Ticks { busy: 10, total: 100 };
        assert_eq!(Ticks { busy: 30, total: 180 }.busy_since(&before), Some(0.25));
        assert_eq!(before.busy_since(&before), None);
    }
}
