//! What every contender carries, and the checks that nothing of it got lost.
//!
//! The limits and the peers all move the same 64 bytes and all do the same work on
//! arrival, so that a ratio compares the way between the processes and nothing else.

use eventpy::Event;
use iceoryx2::prelude::ZeroCopySend;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;

/// 64-bit words in a record.
const WORDS: usize = 8;

/// One 64-byte record.
#[derive(
    Debug,
    Clone,
    Copy,
    Serialize,
    Deserialize,
    Event,
    ZeroCopySend,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[event(plain)]
#[repr(C)]
pub struct Record {
    /// The sequence number, then the stamp, then filling.
    words: [u64; WORDS],
}

impl Record {
    /// The `sequence`-th record of a throughput run: every word holds its number.
    #[inline]
    pub fn numbered(sequence: u64) -> Self {
        Self { words: [sequence; WORDS] }
    }

    /// The `sequence`-th record of a latency run, sent at `now_ns`.
    #[inline]
    pub fn stamped(sequence: u64, now_ns: u64) -> Self {
        let mut words = [sequence; WORDS];
        words[1] = now_ns;
        Self { words }
    }

    fn sequence(&self) -> u64 {
        self.words[0]
    }

    fn stamp_ns(&self) -> u64 {
        self.words[1]
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, which is one clock for all processes.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The callback of the throughput works: counts records and proves that each came once,
/// whole and in order, without a branch for each.
#[derive(Default)]
pub struct Tally {
    count: u64,
    disorder: u64,
    sums: [u64; WORDS],
}

impl Tally {
    /// Takes the next record in.
    #[inline]
    pub fn take(&mut self, record: &Record) {
        self.disorder |= record.sequence() ^ self.count;
        self.count += 1;
        for (sum, word) in self.sums.iter_mut().zip(&record.words) {
            *sum = sum.wrapping_add(*word);
        }
    }

    /// Records taken so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Fails unless exactly the numbered records 0 to `count` - 1 were taken, in order.
    pub fn verify(&self, count: u64) -> Result<()> {
        let sum = (0..count).fold(0, u64::wrapping_add);
        if self.count != count || self.disorder != 0 || self.sums != [sum; WORDS] {
            return Err(format!(
                "of {count} records {} arrived, and some were lost, torn or out of order",
                self.count
            )
            .into());
        }
        Ok(())
    }
}

/// The callback of the latency works: how long each record was on its way.
pub struct Latencies {
    nanoseconds: Vec<u64>,
    disorder: u64,
}

impl Latencies {
    /// Room for `count` records, so that taking one allocates nothing.
    pub fn with_capacity(count: u64) -> Self {
        Self { nanoseconds: Vec::with_capacity(count as usize), disorder: 0 }
    }

    /// Takes the next record in, at this instant.
    #[inline]
    pub fn take(&mut self, record: &Record) {
        let now = now_ns();
        self.disorder |= record.sequence() ^ self.count();
        self.nanoseconds.push(now.saturating_sub(record.stamp_ns()));
    }

    /// Records taken so far.
    #[inline]
    pub fn count(&self) -> u64 {
        self.nanoseconds.len() as u64
    }

    /// The median and the 99th percentile in nanoseconds, without the first tenth, in
    /// which both sides warm up. Fails when a record was lost.
    pub fn percentiles(&self) -> Result<[f64; 2]> {
        if self.disorder != 0 {
            return Err("records were lost or out of order".into());
        }
        let warm_up = self.nanoseconds.len() / 10;
        let mut steady = self.nanoseconds[warm_up..].to_vec();
        steady.sort_unstable();
        Ok([percentile(&steady, 50), percentile(&steady, 99)])
    }
}

fn percentile(sorted: &[u64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100] as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(sequences: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for sequence in sequences {
            tally.take(&Record::numbered(*sequence));
        }
        tally
    }

    #[test]
    fn a_tally_accepts_every_record_once_in_order() {
        assert!(tally_of(&[0, 1, 2]).verify(3).is_ok());
    }

    #[test]
    fn a_tally_refuses_lost_repeated_reordered_and_torn_records() {
        assert!(tally_of(&[0, 1]).verify(3).is_err());
        assert!(tally_of(&[0, 1, 1]).verify(3).is_err());
        assert!(tally_of(&[0, 2, 1]).verify(3).is_err());
        let mut torn = tally_of(&[0, 1]);
        torn.take(&Record::stamped(2, 0));
        assert!(torn.verify(3).is_err());
    }
}
