//! The development commands of EventPy: `cargo xtask --help` lists them.
//!
//! A command that only hands over to one program (`demo`, `bench`, `fuzz`) becomes that program,
//! so that Ctrl-C and exit codes are the program's own. A command of several steps (`test`,
//! `lint`) runs all of them, also after a failed one, and closes with a count.

#![forbid(unsafe_code)]

mod cargo;
mod report;
#[cfg(test)]
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cargo::Cargo;
use report::Report;

/// What `cargo xtask test` kills, unless told otherwise.
const STORM_KILLS: u32 = 2000;

/// The development commands of EventPy.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this machine with three dispatcher processes.
    Demo {
        /// How long to watch; Ctrl-C ends it earlier.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Run every check: lint, tests, kill storm, models, Miri.
    Test,
    /// Check format, clippy and documentation; a warning is an error.
    Lint,
    /// Measure against the limits of this machine and against other libraries.
    Bench {
        /// Measure tachyon-ipc too; needs GCC 12 or newer and libclang.
        #[arg(long)]
        tachyon: bool,
        /// What the benchmark is given, like `--quick` or `--only ring/`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check the ring's protocol in every order of its memory accesses.
    Loom,
    /// Run the ring's tests in Miri; needs a nightly toolchain with miri.
    Miri,
    /// Feed a fuzz target until it fails or the time is over; needs nightly and cargo-fuzz.
    Fuzz {
        /// The target, a file in fuzz/fuzz_targets.
        #[arg(default_value = "hostile_ring")]
        target: String,
        /// How long to run.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Kill dispatcher processes at random instants and check what arrived.
    Storm {
        /// How many to kill.
        #[arg(long, default_value_t = STORM_KILLS)]
        kills: u32,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo { seconds } => demo(seconds).become_it(),
        Command::Bench { tachyon, arguments } => bench(tachyon, &arguments).become_it(),
        Command::Fuzz { target, seconds } => fuzz(&target, seconds).become_it(),
        Command::Lint => run(lint),
        Command::Loom => run(|report| report.step("loom models", loom())),
        Command::Miri => run(miri),
        Command::Storm { kills } => run(|report| report.step("kill storm", storm(kills))),
        Command::Test => run(test),
    }
}

/// Runs the steps of a command and closes with their count.
fn run(steps: impl FnOnce(&mut Report)) -> ExitCode {
    let mut report = Report::default();
    steps(&mut report);
    report.close()
}

fn test(report: &mut Report) {
    lint(report);
    report.step("tests", Cargo::new("test").args(["--workspace", "--no-fail-fast"]));
    report.step("kill storm", storm(STORM_KILLS));
    report.step("loom models", loom());
    miri(report);
}

fn lint(report: &mut Report) {
    report.step("format", Cargo::new("fmt").args(["--all", "--check"]));
    // Workspaces of their own; to build them takes more than a user has.
    report.step("format of bench", Cargo::new("fmt").arg("--check").folder("bench"));
    report.step("format of fuzz", Cargo::new("fmt").arg("--check").folder("fuzz"));
    let warnings = ["--workspace", "--all-targets", "--", "-D", "warnings"];
    report.step("clippy", Cargo::new("clippy").args(warnings));
    let docs = Cargo::new("doc").args(["--workspace", "--no-deps"]);
    report.step("documentation", docs.env("RUSTDOCFLAGS", "-D warnings"));
}

fn storm(kills: u32) -> Cargo {
    Cargo::new("test")
        .args(["--release", "-p", "eventpy", "--test", "kill_storm", "--", "--nocapture"])
        .env("EVENTPY_STORM_KILLS", kills.to_string())
}

fn loom() -> Cargo {
    Cargo::new("test")
        .args(["--release", "-p", "eventpy-ring", "--test", "loom"])
        .env("RUSTFLAGS", "--cfg loom")
        .target_dir("loom")
}

fn miri(report: &mut Report) {
    if Cargo::nightly("miri").arg("--version").succeeds() {
        report.step("Miri", Cargo::nightly("miri").args(["test", "-p", "eventpy-ring"]));
    } else {
        report.not_run("Miri", "there is no nightly toolchain with the miri component");
    }
}

fn fuzz(target: &str, seconds: u32) -> Cargo {
    Cargo::nightly("fuzz")
        .args(["run", target, "--", &format!("-max_total_time={seconds}")])
        .target_dir("fuzz")
}

fn demo(seconds: u32) -> Cargo {
    Cargo::new("run")
        .args(["--release", "-p", "eventpy-examples", "--bin", "machine_watch", "--"])
        .args(["--seconds", &seconds.to_string()])
}

fn bench(tachyon: bool, arguments: &[String]) -> Cargo {
    let features = if tachyon { "tachyon" } else { "" };
    Cargo::new("run")
        // The benchmark is a workspace of its own, with cargo settings of its own.
        .folder("bench")
        .args(["--release", "--features", features, "--"])
        .args(arguments)
        .target_dir("bench")
}
