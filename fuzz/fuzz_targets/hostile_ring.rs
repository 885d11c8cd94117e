//! A ring's consumer over memory that the input scribbles into. The driver is the one that the
//! ring's own tests run with fixed seeds.

#![no_main]

#[path = "../../crates/ring/tests/hostile/driver.rs"]
mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // One input in sixteen is scribbled by a second thread while the consumer reads.
    match bytes.split_first() {
        Some((0..16, rest)) => driver::drive_racing(rest, 20),
        Some((_, rest)) => driver::drive(rest),
        None => driver::Tally::default(),
    };
});
