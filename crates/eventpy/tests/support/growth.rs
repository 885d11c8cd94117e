//! Whether a program that runs for long keeps its size.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// What this process takes at a moment at which no dispatcher is there.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    at: Instant,
    /// Bytes of memory that are in use.
    memory: f64,
    descriptors: f64,
    mappings: f64,
}

impl Sample {
    pub fn now() -> Sample {
        let status = fs::read_to_string("/proc/self/status").expect("our status can be read");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
        let count = |path: &str| fs::read_dir(path).expect("it can be read").count() as f64;
        let map = fs::read_to_string("/proc/self/maps").expect("our memory map can be read");
        Sample {
            at: Instant::now(),
            memory: kilobytes.map_or(0.0, |kilobytes: f64| kilobytes * 1024.0),
            descriptors: count("/proc/self/fd"),
            mappings: map.lines().count() as f64,
        }
    }
}

/// Samples over a time.
pub struct Growth(Vec<Sample>);

/// Memory that an allocator may take more at the end than at the beginning, in bytes.
const ALLOCATOR_BYTES: f64 = 8e6;
/// Mappings that an allocator makes and removes on its own account.
const ALLOCATOR_MAPPINGS: f64 = 8.0;

impl Growth {
    pub fn begin() -> Growth {
        Growth(vec![Sample::now()])
    }

    pub fn add(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Asserts that the last quarter takes what the first does.
    #[track_caller]
    pub fn assert_flat(&self) {
        assert!(self.rise(|sample| sample.memory) < ALLOCATOR_BYTES, "memory grows: {self}");
        assert!(self.rise(|sample| sample.descriptors) < 1.0, "descriptors grow: {self}");
        assert!(self.rise(|sample| sample.mappings) < ALLOCATOR_MAPPINGS, "mappings grow: {self}");
    }

    /// How much more the median of the last quarter is than that of the first.
    fn rise(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let quarter = self.0.len().div_ceil(4);
        let median = |samples: &[Sample]| {
            let mut values: Vec<f64> = samples.iter().map(&of).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        median(&self.0[self.0.len() - quarter..]) - median(&self.0[..quarter])
    }

    /// The slope of the line that fits best, per hour.
    fn slope(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let begin = self.0[0].at;
        let hours = |sample: &Sample| (sample.at - begin).as_secs_f64() / 3600.0;
        let count = self.0.len() as f64;
        let mean = |value: &dyn Fn(&Sample) -> f64| self.0.iter().map(value).sum::<f64>() / count;
        let (middle, level) = (mean(&hours), mean(&of));
        let (mut above, mut below) = (0.0, 0.0);
        for sample in &self.0 {
            above += (hours(sample) - middle) * (of(sample) - level);
            below += (hours(sample) - middle).powi(2);
        }
        if below == 0.0 { 0.0 } else { above / below }
    }

    fn time(&self) -> Duration {
        self.0[self.0.len() - 1].at - self.0[0].at
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0[0], self.0[self.0.len() - 1]);
        writeln!(
            f,
            "{} samples over {:.0?}: first, last, slope per hour",
            self.0.len(),
            self.time()
        )?;
        writeln!(
            f,
            "  memory       {:6.1} MB  {:6.1} MB  {:+.2} MB",
            first.memory / 1e6,
            last.memory / 1e6,
            self.slope(|sample| sample.memory) / 1e6
        )?;
        writeln!(
            f,
            "  descriptors  {:6}     {:6}     {:+.2}",
            first.descriptors,
            last.descriptors,
            self.slope(|sample| sample.descriptors)
        )?;
        write!(
            f,
            "  mappings     {:6}     {:6}     {:+.2}",
            first.mappings,
            last.mappings,
            self.slope(|sample| sample.mappings)
        )
    }
}
