//! Commands that do the same in Rust and in Python, one after the other.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use signal_hook::consts::SIGINT;

use crate::call::Call;
use crate::python::Missing;

/// What a shell returns for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Which of the two; both unless one is chosen.
#[derive(Args)]
pub struct Faces {
    /// Only in Rust.
    #[arg(long, conflicts_with = "python")]
    rust: bool,
    /// Only in Python.
    #[arg(long)]
    python: bool,
}

impl Faces {
    /// Runs what was chosen. Where there is no Python it says so, which is a failure only for
    /// those who asked for nothing else.
    pub fn run(&self, rust: Call, python: impl FnOnce() -> Result<Call, Missing>) -> ExitCode {
        if self.rust {
            return rust.become_it();
        }
        let rust = if self.python { ExitCode::SUCCESS } else { run_to_its_end(rust) };
        if rust == ExitCode::from(INTERRUPTED) {
            return rust;
        }
        match python() {
            Ok(python) if rust == ExitCode::SUCCESS => python.become_it(),
            Ok(python) => {
                run_to_its_end(python);
                rust
            }
            Err(missing) => {
                println!("nothing was run in Python: {missing}");
                if self.python { ExitCode::FAILURE } else { rust }
            }
        }
    }
}

/// Waits also after Ctrl-C, which the program has got too, so that nobody writes into what it says
/// at its end.
fn run_to_its_end(call: Call) -> ExitCode {
    let is_interrupted = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(SIGINT, Arc::clone(&is_interrupted)) {
        eprintln!("cannot watch for Ctrl-C: {error}");
    }
    let shown = call.to_string();
    let success = call.into_command().status().map(|status| status.success());
    if let Err(error) = &success {
        eprintln!("cannot run `{shown}`: {error}");
    }
    if is_interrupted.load(Ordering::Relaxed) {
        ExitCode::from(INTERRUPTED)
    } else if matches!(success, Ok(true)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
