//! The figures that EventPy promises to reach, held against what was measured.

use crate::measure::Outcome;

/// A promised figure.
pub struct Target {
    /// The row that must reach it, by its first column unless [`Target::column`] says else.
    pub row: &'static str,
    /// Which number of that row.
    pub column: usize,
    /// What it is compared with.
    pub against: Against,
    /// What it must reach.
    pub bound: Bound,
}

/// What a figure is compared with.
#[derive(Clone, Copy)]
pub enum Against {
    /// The same column of another row.
    Row(&'static str),
    /// Nothing: the figure counts in this unit.
    Unit(&'static str),
}

/// How large a figure must be.
#[derive(Clone, Copy)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

/// How a target came out.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// The figure that was reached, and whether that is enough.
    Reached(f64, bool),
    /// One of the rows was not measured.
    NotMeasured,
}

impl Target {
    /// Holds the target against the measured rows.
    pub fn judge(&self, outcomes: &[Outcome]) -> Verdict {
        let Some(figure) = self.figure(outcomes) else {
            return Verdict::NotMeasured;
        };
        let enough = match self.bound {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        };
        Verdict::Reached(figure, enough)
    }

    fn figure(&self, outcomes: &[Outcome]) -> Option<f64> {
        let median = |row| outcomes.iter().find(|outcome| outcome.row == row)?.median(self.column);
        let own = median(self.row)?;
        match self.against {
            Against::Row(reference) => Some(own / median(reference)?),
            Against::Unit(_) => Some(own),
        }
    }
}

/// Every promised figure of the Rust side.
pub const TARGETS: &[Target] = &[
    ratio("ring/eventpy-ring", Bound::AtLeast(0.9), "ring/limit"),
    ratio("ring/eventpy-ring", Bound::AtLeast(1.0), "ring/tachyon-ipc"),
    ratio("events/eventpy emit", Bound::AtLeast(0.8), "events/limit per record"),
    ratio("events/eventpy emit", Bound::AtLeast(15.0), "events/iceoryx2"),
    ratio("events/eventpy emit_all", Bound::AtLeast(0.7), "events/limit every 32"),
    ratio("polling/eventpy", Bound::AtMost(1.3), "polling/limit"),
    ratio("sleeping/eventpy", Bound::AtMost(1.25), "sleeping/bare futex"),
    ratio("sleeping/eventpy", Bound::AtMost(0.5), "sleeping/iceoryx2"),
    absolute("idle/eventpy", 0, Bound::AtMost(5.0), "us"),
    // 0 % to the nearest tenth: waiting itself begins and ends within the measured time.
    absolute("idle/eventpy", 1, Bound::AtMost(0.05), "%"),
    absolute("memory/eventpy", 0, Bound::AtMost(1.5), "MB"),
];

const fn ratio(row: &'static str, bound: Bound, reference: &'static str) -> Target {
    Target { row, column: 0, against: Against::Row(reference), bound }
}

const fn absolute(row: &'static str, column: usize, bound: Bound, unit: &'static str) -> Target {
    Target { row, column, against: Against::Unit(unit), bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(row: &str, value: f64) -> Outcome {
        Outcome { row: row.to_owned(), name: "", readings: Ok(vec![vec![value]]), disturbed: 0 }
    }

    #[test]
    fn a_ratio_is_judged_against_its_reference() {
        let target = ratio("ring/ours", Bound::AtLeast(0.9), "ring/limit");
        let outcomes = [outcome("ring/limit", 200.0), outcome("ring/ours", 150.0)];
        assert_eq!(target.judge(&outcomes), Verdict::Reached(0.75, false));
        assert_eq!(target.judge(&outcomes[..1]), Verdict::NotMeasured);
    }

    #[test]
    fn an_absolute_figure_is_judged_by_itself() {
        let target = absolute("memory/ours", 0, Bound::AtMost(1.5), "MB");
        assert_eq!(target.judge(&[outcome("memory/ours", 1.2)]), Verdict::Reached(1.2, true));
    }
}
