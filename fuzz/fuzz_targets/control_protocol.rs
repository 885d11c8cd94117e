//! A manager whose dispatcher process is the input: what it says, writes and sends. The driver is
//! the one that the engine's own tests run with fixed seeds.

#![no_main]

#[path = "../../crates/engine/tests/hostile/driver.rs"]
mod driver;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    driver::drive(bytes);
});
