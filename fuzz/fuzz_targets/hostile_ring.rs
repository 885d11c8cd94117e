//! A ring's consumer over memory that the input scribbles into. The driver is the one that the
//! ring's own tests run with fixed seeds and with the inputs that are kept in `fuzz/corpus`.

#![no_main]

#[path = "../../crates/ring/tests/hostile/driver.rs"]
mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    driver::drive_either_way(bytes);
});
