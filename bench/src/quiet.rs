//! Whether other programs ran beside a measurement, which then measured them too.

use std::fs;

use crate::Result;

/// Beyond this share of the machine's time, other programs have disturbed a measurement. Even a
/// benchmark with real-time priority has to leave them 5 % of each core.
pub const DISTURBING: f64 = 0.06;

/// The machine's processor time up to some instant, in the kernel's ticks.
pub struct ProcessorTime {
    /// Of all cores.
    total: u64,
    /// In which they worked.
    busy: u64,
    /// In which they worked for this process and for its children that have ended.
    own: u64,
}

impl ProcessorTime {
    /// Reads the time up to now.
    pub fn now() -> Result<Self> {
        let machine = fs::read_to_string("/proc/stat")?;
        let machine = ticks(machine.lines().next().unwrap_or_default());
        let [user, nice, system, idle, io_wait, irq, soft_irq, steal, ..] = machine[..] else {
            return Err("/proc/stat begins with a line of at least 8 numbers".into());
        };
        let busy = user + nice + system + irq + soft_irq + steal;
        Ok(Self { total: busy + idle + io_wait, busy, own: own_ticks()? })
    }

    /// The share of the machine's time, from 0 to 1, that others used between then and now.
    pub fn used_by_others_since(&self, then: &Self) -> f64 {
        let others = (self.busy - then.busy).saturating_sub(self.own - then.own);
        others as f64 / (self.total - then.total).max(1) as f64
    }
}

fn own_ticks() -> Result<u64> {
    let process = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold anything; numbers, but for the state, follow it.
    let (_, numbers) = process.rsplit_once(')').ok_or("/proc/self/stat has a name")?;
    let numbers = ticks(numbers);
    let times = numbers.get(10..14).ok_or("/proc/self/stat has four times")?;
    Ok(times.iter().sum())
}

/// The numbers in a line. A negative one, as /proc/self/stat may have, counts as 0.
fn ticks(line: &str) -> Vec<u64> {
    let words = line.split_whitespace().filter(|word| !word.starts_with(char::is_alphabetic));
    words.map(|word| word.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn own_work_is_not_that_of_others() -> Result<()> {
        let then = ProcessorTime::now()?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {}
        let now = ProcessorTime::now()?;
        assert!(now.own > then.own);
        assert!(now.used_by_others_since(&then) <= 1.0);
        Ok(())
    }
}
