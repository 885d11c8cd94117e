//! A program whose `main` lacks `#[eventpy::main]`: its dispatchers' processes run that `main`. They
//! are told apart at once, and however often `main` deploys, no process starts another.
//!
//! This file is that program, and the tests of it.

#![forbid(unsafe_code)]

mod support;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use eventpy::{DispatcherOptions, Emitter, Event, EventDispatchManager, EventDispatcher};
use libtest_mimic::{Arguments, Failed, Trial};
use serde::{Deserialize, Serialize};
use support::{Companion, Diary, folder, stay, wait_for_end};

#[derive(Event, Serialize, Deserialize)]
struct Heard(u32);

#[derive(Serialize, Deserialize)]
struct Ear;

#[eventpy::dispatcher]
impl EventDispatcher for Ear {
    type Events = (Heard,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        wait_for_end(emitter);
        Ok(())
    }
}

/// More starts than any program here has, unless processes start each other.
const TOO_MANY: usize = 20;

fn main() -> ExitCode {
    match support::part().as_deref() {
        None => test(),
        Some(program) => {
            let starts = starts(&folder());
            starts.write("start").expect("the file can be written");
            let starts = starts.count("start");
            if starts > TOO_MANY {
                return ExitCode::from(99);
            }
            run(program, starts == 1)
        }
    }
}

/// Where the program notes each start of its `main`.
fn starts(folder: &Path) -> Diary {
    Diary::new(folder, "starts")
}

fn manager(start_timeout: Duration) -> EventDispatchManager {
    let options = DispatcherOptions::default().start_timeout(start_timeout);
    EventDispatchManager::new().dispatcher_with(Ear, options)
}

/// The rest of a `main` that lacks the attribute.
fn run(program: &str, is_first: bool) -> ExitCode {
    let deploy = || manager(support::WATCHDOG).deploy_dispatchers();
    match program {
        "deploys" => {}
        "deploys in vain and goes on" => {
            // A program that takes the error for a passing one.
            for _attempt in 0..3 {
                let _ = deploy();
            }
        }
        "waits after its error" if !is_first => {
            let _ = deploy();
            stay()
        }
        "waits after its error" => {}
        "exits before it deploys" if !is_first => return ExitCode::from(3),
        "exits before it deploys" => {}
        "never deploys" if !is_first => stay(),
        "never deploys" => {
            let error = manager(Duration::from_millis(100)).deploy_dispatchers().unwrap_err();
            println!("error: {error}");
            return ExitCode::FAILURE;
        }
        other => panic!("there is no program that {other}"),
    }
    let error = deploy().expect_err("its dispatchers run main instead");
    println!("error: {error}");
    ExitCode::FAILURE
}

fn test() -> ExitCode {
    let trials = vec![
        trial(
            "a_main_without_the_attribute_is_named_as_the_cause",
            "deploys",
            2,
            &["dispatcher `Ear`", "ran the program instead", "#[eventpy::main]"],
        ),
        trial(
            "a_main_that_deploys_again_and_again_starts_no_chain_of_processes",
            "deploys in vain and goes on",
            // One for each of its four deployments.
            5,
            &["dispatcher `Ear`", "ran the program instead", "#[eventpy::main]"],
        ),
        trial(
            "a_main_that_stays_after_the_error_is_ended",
            "waits after its error",
            2,
            &["dispatcher `Ear`", "ran the program instead", "#[eventpy::main]"],
        ),
        trial(
            "a_main_that_exits_before_it_deploys_is_told_with_its_exit_code",
            "exits before it deploys",
            2,
            &["dispatcher `Ear`", "exit code 3", "#[eventpy::main]"],
        ),
        trial(
            "a_main_that_never_deploys_is_ended_at_the_start_timeout",
            "never deploys",
            2,
            &["dispatcher `Ear`", "did not report within 100ms", "#[eventpy::main]"],
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that runs one of the programs. `starts` is how often `main` is begun, and `says` what its
/// error holds.
fn trial(name: &str, program: &'static str, starts: usize, says: &'static [&'static str]) -> Trial {
    Trial::test(name, move || check(program, starts, says).map_err(Failed::from))
}

fn check(program: &str, expected: usize, says: &[&str]) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.env(support::FOLDER, folder.path());
    let mut companion = Companion::run(command, program);
    let (status, output) = companion.wait();
    companion.wait_until_gone();
    assert_eq!(starts(folder.path()).count("start"), expected, "starts of main:\n{output}");
    assert_eq!(status.code(), Some(1), "{output}");
    let errors: Vec<&str> =
        output.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    let error = errors.last().ok_or_else(|| format!("no error:\n{output}"))?;
    for text in says {
        assert!(error.contains(text), "{text} is not in: {error}");
    }
    Ok(())
}
