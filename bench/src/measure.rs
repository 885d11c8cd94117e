//! Works, their contenders, and measuring these in interleaved rounds.
//!
//! Round 1 runs each contender once, then round 2 does, and so on, so that whatever slows
//! the machine for a while slows all of them. A figure is the median over the rounds. A run
//! beside which other programs worked is repeated.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::process::{Cores, Placement, Watchdog, unpin};
use crate::quiet::{DISTURBING, ProcessorTime};

/// How long other programs get to finish before a disturbed run is repeated.
const RECOVERY: Duration = Duration::from_secs(2);

/// What one run of a contender found: a number for each column of its work.
pub type Reading = Vec<f64>;

/// A task, and all who contend in it.
pub struct Work {
    /// The first part of its rows' names.
    pub name: &'static str,
    /// The headline of its table.
    pub title: &'static str,
    /// What each number of a [`Reading`] is, with its unit.
    pub columns: &'static [&'static str],
    /// The contender that the ratios are taken to, by the first column.
    pub reference: Option<&'static str>,
    /// Who contends, in the order of the rounds.
    pub contenders: Vec<Contender>,
}

impl Work {
    /// The name of a contender's row, as `--only` and the targets use it.
    pub fn row(&self, contender: &Contender) -> String {
        format!("{}/{}", self.name, contender.name)
    }
}

/// One way to do a work.
pub struct Contender {
    /// The second part of its row's name.
    pub name: &'static str,
    /// How many records a full run moves, and how far apart.
    pub records: u64,
    /// The pause between two records; zero for as fast as possible.
    pub gap: Duration,
    /// Which cores its two sides use.
    pub placement: Placement,
    /// One run; the calling process is the consumer.
    pub measure: fn(&Setting) -> Result<Reading>,
    /// The other side of that run, in the producer process, given the link.
    pub produce: fn(&str, &Load) -> Result<()>,
}

/// What one run of a contender is told.
pub struct Setting {
    /// The contender's row.
    pub row: String,
    /// What to move, and where.
    pub load: Load,
}

/// What both sides are told. Its text form travels on the producer's command line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// How many records to send.
    pub records: u64,
    /// The pause between two of them.
    pub gap: Duration,
    /// Where the two sides run.
    pub cores: Cores,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cores { producer, consumer } = self.cores;
        write!(f, "{},{},{producer},{consumer}", self.records, self.gap.as_nanos())
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers: Vec<u64> = text.split(',').filter_map(|number| number.parse().ok()).collect();
        let [records, gap_ns, producer, consumer] = numbers[..] else {
            return Err(format!("`{text}` is no load"));
        };
        let cores = Cores { producer: producer as usize, consumer: consumer as usize };
        Ok(Self { records, gap: Duration::from_nanos(gap_ns), cores })
    }
}

/// How much to measure.
pub struct Plan {
    /// How often each contender runs.
    pub rounds: usize,
    /// How often a contender runs in one round, at most, until nobody disturbs it.
    pub tries: usize,
    /// A full run moves this many times as many records.
    pub divisor: u64,
    /// Only rows that contain this.
    pub only: Option<String>,
}

impl Plan {
    fn includes(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|part| row.contains(part.as_str()))
    }
}

/// All runs of one contender.
pub struct Outcome {
    /// The contender's row.
    pub row: String,
    /// The contender's name.
    pub name: &'static str,
    /// Its readings, one a round, or what went wrong.
    pub readings: Result<Vec<Reading>>,
    /// How many of the readings other programs disturbed.
    pub disturbed: usize,
}

impl Outcome {
    /// The median over the rounds of column `column`, if every round went well.
    pub fn median(&self, column: usize) -> Option<f64> {
        self.sorted(column).map(|values| values[values.len() / 2])
    }

    /// The least and the greatest value of column `column` over the rounds.
    pub fn range(&self, column: usize) -> Option<(f64, f64)> {
        self.sorted(column).map(|values| (values[0], values[values.len() - 1]))
    }

    fn sorted(&self, column: usize) -> Option<Vec<f64>> {
        let readings = self.readings.as_ref().ok()?;
        let mut values: Vec<f64> = readings.iter().map(|reading| reading[column]).collect();
        values.sort_unstable_by(f64::total_cmp);
        (!values.is_empty()).then_some(values)
    }
}

/// Measures the contenders of `work` that `plan` includes.
pub fn run(work: &Work, plan: &Plan, cores: Cores) -> Vec<Outcome> {
    let included = |contender: &&Contender| plan.includes(&work.row(contender));
    let contenders: Vec<&Contender> = work.contenders.iter().filter(included).collect();
    let mut outcomes: Vec<Outcome> = contenders
        .iter()
        .map(|contender| Outcome {
            row: work.row(contender),
            name: contender.name,
            readings: Ok(Vec::new()),
            disturbed: 0,
        })
        .collect();
    for round in 1..=plan.rounds {
        for (contender, outcome) in contenders.iter().zip(&mut outcomes) {
            eprintln!("round {round} of {}: {}", plan.rounds, outcome.row);
            take_part(contender, outcome, plan, cores);
        }
    }
    outcomes
}

/// One round of one contender. One that has failed takes no further part.
fn take_part(contender: &Contender, outcome: &mut Outcome, plan: &Plan, cores: Cores) {
    let Ok(readings) = &mut outcome.readings else { return };
    let load = Load {
        records: contender.records / plan.divisor,
        gap: contender.gap,
        cores: cores.place(contender.placement),
    };
    let setting = Setting { row: outcome.row.clone(), load };
    match measure_quietly(contender, &setting, plan.tries) {
        Ok((reading, disturbance)) => {
            readings.push(reading);
            outcome.disturbed += usize::from(disturbance > DISTURBING);
        }
        Err(error) => outcome.readings = Err(error),
    }
}

/// Runs a contender until no other program disturbs it, at most `tries` times. Returns the
/// reading that was disturbed least, and how much it was.
fn measure_quietly(
    contender: &Contender,
    setting: &Setting,
    tries: usize,
) -> Result<(Reading, f64)> {
    let mut best = measure_once(contender, setting)?;
    for _ in 1..tries {
        if best.1 <= DISTURBING {
            break;
        }
        thread::sleep(RECOVERY);
        let next = measure_once(contender, setting)?;
        if next.1 < best.1 {
            best = next;
        }
    }
    Ok(best)
}

/// One run: its reading, and the share of the machine's time that others used meanwhile.
fn measure_once(contender: &Contender, setting: &Setting) -> Result<(Reading, f64)> {
    let _watchdog = Watchdog::set(&setting.row);
    unpin()?;
    let start = ProcessorTime::now()?;
    let reading = (contender.measure)(setting)?;
    Ok((reading, ProcessorTime::now()?.used_by_others_since(&start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_survives_the_command_line() {
        let load = Load {
            records: 7,
            gap: Duration::from_micros(5),
            cores: Cores { producer: 2, consumer: 3 },
        };
        assert_eq!(load.to_string().parse(), Ok(load));
    }

    #[test]
    fn an_outcome_tells_its_median_and_range() {
        let readings = Ok([3.0, 1.0, 9.0].map(|value| vec![value]).to_vec());
        let outcome =
            Outcome { row: "ring/limit".to_owned(), name: "limit", readings, disturbed: 0 };
        assert_eq!(outcome.median(0), Some(3.0));
        assert_eq!(outcome.range(0), Some((1.0, 9.0)));
    }
}
