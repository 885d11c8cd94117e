//! The development commands of EventPy: `cargo xtask --help` lists them.
//!
//! A command that only hands over to other programs (`demo`, `bench`, `fuzz`) becomes the last of
//! them, so that Ctrl-C and exit codes are the program's own. A command of several steps (`test`,
//! `lint`) runs all of them, also after a failed one, and closes with a count.

#![forbid(unsafe_code)]

mod call;
mod faces;
mod python;
mod report;
#[cfg(test)]
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use call::Call;
use faces::Faces;
use python::{Environment, Interpreter, NATIVE_PACKAGE};
use report::Report;

/// What `cargo xtask storm` kills, unless told otherwise.
const MANY_KILLS: u32 = 10_000;

/// What the storm of `cargo xtask test` kills.
const STORM_KILLS: u32 = 2000;

/// What the storm among the ordinary tests kills, which are built without optimisation.
const FEW_KILLS: u32 = 100;

/// The development commands of EventPy.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this machine with three dispatcher processes, first in Rust, then in Python.
    Demo {
        #[command(flatten)]
        faces: Faces,
        /// How long to watch; Ctrl-C ends it earlier.
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// Run every check: lint, tests, kill storm, models, Miri, ThreadSanitizer.
    Test {
        /// Run the Python tests with CPython 3.9 to 3.13 too, as far as this machine has them.
        #[arg(long)]
        all_interpreters: bool,
    },
    /// Check format, clippy, documentation, Python style and types; a warning is an error.
    Lint,
    /// Measure against the limits of this machine and against other libraries.
    Bench {
        #[command(flatten)]
        faces: Faces,
        /// Measure tachyon-ipc too; needs GCC 12 or newer and libclang.
        #[arg(long)]
        tachyon: bool,
        /// What the benchmarks are given, like `--quick` or `--only ring/`; after all the above.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check the ring's protocol in every order of its memory accesses.
    Loom,
    /// Run the ring's tests in Miri; needs a nightly toolchain with miri.
    Miri,
    /// Check licences, sources and known vulnerabilities of the dependencies; needs cargo-deny.
    Deny,
    /// Look for data races with ThreadSanitizer; needs a nightly toolchain with rust-src.
    Tsan,
    /// Feed a fuzz target until it fails or the time is over; needs nightly and cargo-fuzz.
    Fuzz {
        /// The target: a file in fuzz/fuzz_targets, or `codec`, which compares the Python codec with
        /// pickle on any toolchain.
        #[arg(default_value = "hostile_ring")]
        target: String,
        /// How long to run.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Run for long, in Rust and in Python at the same time: nothing may grow, every count is exact.
    Soak {
        /// How long to run.
        #[arg(long, default_value_t = 10.0)]
        minutes: f64,
    },
    /// Kill dispatcher processes and managers at random instants and check what arrived.
    Storm {
        /// How many dispatcher processes to kill.
        #[arg(long, default_value_t = MANY_KILLS)]
        kills: u32,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo { faces, seconds } => faces.run(demo(seconds), || python::demo(seconds)),
        Command::Bench { faces, tachyon, arguments } => {
            faces.run(bench(tachyon, &arguments), || python::bench(&arguments))
        }
        Command::Deny => run(deny),
        Command::Fuzz { target, seconds } if target == "codec" => {
            run(|report| python::fuzz_codec(seconds, report))
        }
        Command::Fuzz { target, seconds } => fuzz(&target, seconds).become_it(),
        Command::Lint => run(|report| {
            let environment = python::test_environment(report);
            lint(environment.as_ref(), report);
        }),
        Command::Loom => run_one("loom models", loom()),
        Command::Miri => run(miri),
        Command::Soak { minutes } => run(|report| soak(minutes, report)),
        Command::Tsan => run(tsan),
        Command::Storm { kills } => run(|report| {
            report.step("kill storm", storm(kills));
            python::storm(kills, report);
        }),
        Command::Test { all_interpreters } => run(|report| test(all_interpreters, report)),
    }
}

/// Runs the steps of a command and closes with their count.
fn run(steps: impl FnOnce(&mut Report)) -> ExitCode {
    let mut report = Report::default();
    steps(&mut report);
    report.close()
}

fn run_one(title: &str, call: Call) -> ExitCode {
    run(|report| {
        report.step(title, call);
    })
}

fn test(all_interpreters: bool, report: &mut Report) {
    let environment = python::test_environment(report);
    lint(environment.as_ref(), report);
    let tests = workspace("test").arg("--no-fail-fast");
    report.step("tests", tests.env("EVENTPY_STORM_KILLS", FEW_KILLS.to_string()));
    if let Some(environment) = &environment {
        python::test(environment, report);
    }
    if all_interpreters {
        python::test_everywhere(report);
    }
    deny(report);
    report.step("kill storm", storm(STORM_KILLS));
    report.step("loom models", loom());
    miri(report);
    tsan(report);
}

fn lint(environment: Option<&Environment>, report: &mut Report) {
    report.step("format", Call::cargo("fmt").args(["--all", "--check"]));
    // Workspaces of their own; to build them takes more than a user has.
    report.step("format of bench", Call::cargo("fmt").arg("--check").folder("bench"));
    report.step("format of fuzz", Call::cargo("fmt").arg("--check").folder("fuzz"));
    let warnings = ["--all-targets", "--", "-D", "warnings"];
    report.step("clippy", workspace("clippy").args(warnings));
    let docs = workspace("doc").arg("--no-deps");
    report.step("documentation", docs.env("RUSTDOCFLAGS", "-D warnings"));
    if let Some(environment) = environment {
        python::lint(environment, report);
    }
}

/// A subcommand of cargo for all packages that can be built here.
fn workspace(subcommand: &str) -> Call {
    let call = Call::cargo(subcommand).arg("--workspace");
    match Interpreter::find() {
        Ok(_) => call,
        Err(_) => call.args(["--exclude", NATIVE_PACKAGE]),
    }
}

fn deny(report: &mut Report) {
    if !Call::cargo("deny").arg("--version").succeeds() {
        return report.not_run("the check of the dependencies", "cargo-deny is not installed");
    }
    let check =
        |what: &[&str]| Call::cargo("deny").args(["check", "--hide-inclusion-graph"]).args(what);
    report.step("licences and sources", check(&["bans", "licenses", "sources"]));
    if Call::cargo("deny").args(["fetch", "db"]).succeeds() {
        report.step("advisories", check(&["advisories"]));
    } else {
        report.not_run("the check for advisories", "their database can't be reached");
    }
}

fn soak(minutes: f64, report: &mut Report) {
    let seconds = (minutes * 60.0).to_string();
    let rust = Call::cargo("test").args([
        "--release",
        "-p",
        "eventpy",
        "--test",
        "soak",
        "--",
        "--nocapture",
    ]);
    let python = python::test_environment(report);
    let python = python.map(|environment| ("soak in Python", python::soak(&environment)));
    let steps = [Some(("soak in Rust", rust)), python].into_iter().flatten();
    report.steps_side_by_side(
        steps.map(|(title, call)| (title, call.env("EVENTPY_SOAK_SECONDS", &seconds))),
    );
}

fn storm(kills: u32) -> Call {
    Call::cargo("test")
        .args(["--release", "-p", "eventpy", "--test", "kill_storm", "--", "--nocapture"])
        .env("EVENTPY_STORM_KILLS", kills.to_string())
}

fn loom() -> Call {
    Call::cargo("test")
        .args(["--release", "-p", "eventpy-ring", "--test", "loom"])
        .env("RUSTFLAGS", "--cfg loom")
        .target_dir("loom")
}

fn miri(report: &mut Report) {
    if Call::nightly("miri").arg("--version").succeeds() {
        report.step("Miri", Call::nightly("miri").args(["test", "-p", "eventpy-ring"]));
    } else {
        report.not_run("Miri", "there is no nightly toolchain with the miri component");
    }
}

/// Looks at threads that run side by side, where Miri runs one at a time, and at many more accesses.
/// It knows no fences: a ring that is built for it copies its payloads word by word, as for Miri, so
/// that nothing but atomics depends on one.
fn tsan(report: &mut Report) {
    let title = "ThreadSanitizer";
    let Some(host) = nightly_with_source() else {
        report.not_run(title, "there is no nightly toolchain with the rust-src component");
        return;
    };
    let ring = ["eventpy-ring", "--test", "threads", "--test", "records", "--test", "displaceable"];
    let engine = ["eventpy-engine", "--lib"];
    for tests in [&ring[..], &engine] {
        let call = Call::nightly("test")
            // The standard library too must be built for it, and what runs in the build must not.
            .args(["-Zbuild-std", "--target", &host, "-p"])
            .args(tests)
            .env("RUSTFLAGS", "-Zsanitizer=thread --cfg tsan")
            // It keeps a race to itself if it has forgotten where the earlier access was.
            .env("TSAN_OPTIONS", "history_size=7")
            .target_dir("tsan");
        report.step(format!("{title}: {}", tests[0]), call);
    }
}

/// The machine that the nightly toolchain builds for, if it can build the standard library.
fn nightly_with_source() -> Option<String> {
    let rustc = |argument: &[&str]| Call::new("rustc").arg("+nightly").args(argument).output();
    let library = Path::new(&rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    let version = rustc(&["-vV"]).filter(|_| library.exists())?;
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(String::from)
}

fn fuzz(target: &str, seconds: u32) -> Call {
    Call::nightly("fuzz")
        .args(["run", target, "--", &format!("-max_total_time={seconds}")])
        .target_dir("fuzz")
}

fn demo(seconds: u32) -> Call {
    Call::cargo("run")
        .args(["--release", "-p", "eventpy-examples", "--bin", "machine_watch", "--"])
        .args(["--seconds", &seconds.to_string()])
}

fn bench(tachyon: bool, arguments: &[String]) -> Call {
    let features = if tachyon { "tachyon" } else { "" };
    Call::cargo("run")
        // The benchmark is a workspace of its own, with cargo settings of its own.
        .folder("bench")
        .args(["--release", "--features", features, "--"])
        .args(arguments)
        .target_dir("bench")
}
