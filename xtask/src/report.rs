//! What the steps of a command came to: their output passes through, their tests are counted.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use crate::call::Call;

/// The steps so far.
#[derive(Default)]
pub struct Report {
    tests: Tests,
    failed_steps: Vec<String>,
    notes: Vec<String>,
}

/// How many tests passed, failed and were left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Report {
    /// Runs one step, waits for it, counts its tests, and tells whether it succeeded.
    pub fn step(&mut self, title: impl Into<String>, call: Call) -> bool {
        let title = title.into();
        announce(format_args!("{title}: {call}"));
        let begin = Instant::now();
        let failed_before = self.tests.failed;
        let success = self.pass_through(call).unwrap_or_else(|error| {
            eprintln!("{title} could not be run: {error}");
            false
        });
        let outcome = if success { "done" } else { "FAILED" };
        announce(format_args!("{title}: {outcome} in {:.1} s", begin.elapsed().as_secs_f64()));
        if !success {
            self.failed_steps.push(title);
            // A step can fail without a test that did: clippy, a build, a crash.
            self.tests.failed = self.tests.failed.max(failed_before + 1);
        }
        success
    }

    /// Runs steps at the same time; their output mixes line by line.
    pub fn steps_side_by_side(&mut self, steps: impl IntoIterator<Item = (&'static str, Call)>) {
        let reports: Vec<Report> = thread::scope(|scope| {
            let start = |(title, call)| {
                scope.spawn(move || {
                    let mut report = Report::default();
                    report.step(title, call);
                    report
                })
            };
            let running: Vec<_> = steps.into_iter().map(start).collect();
            running.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        for Report { tests, failed_steps, notes } in reports {
            self.tests.passed += tests.passed;
            self.tests.failed += tests.failed;
            self.tests.skipped += tests.skipped;
            self.failed_steps.extend(failed_steps);
            self.notes.extend(notes);
        }
    }

    /// Notes that a step can't be run on this machine.
    pub fn not_run(&mut self, title: &str, reason: &str) {
        self.note(format!("{title} was not run: {reason}"));
    }

    /// Something to be said at the end.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Says what failed and what was not run. The last line is the count.
    pub fn close(self) -> ExitCode {
        for note in &self.notes {
            println!("{note}");
        }
        for title in &self.failed_steps {
            println!("failed: {title}");
        }
        let Tests { passed, failed, skipped } = self.tests;
        match (passed + failed, skipped) {
            (0, _) => println!("no step failed"),
            (_, 0) => println!("{passed} passed, {failed} failed"),
            (_, _) => println!("{passed} passed, {failed} failed, {skipped} skipped"),
        }
        if self.failed_steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn pass_through(&mut self, call: Call) -> io::Result<bool> {
        let mut child = call.into_command().stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? != 0 {
            io::stdout().write_all(&line)?;
            self.tests.count(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(child.wait()?.success())
    }
}

impl Tests {
    /// Adds what a test runner's closing line says.
    fn count(&mut self, line: &str) {
        for count in counts_of_cargo(line).or(counts_of_pytest(line)).into_iter().flatten() {
            let Some((number, what)) = count.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" | "xpassed" => self.passed += number,
                "failed" | "error" | "errors" => self.failed += number,
                "ignored" | "skipped" | "xfailed" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// The counts in `test result: ok. 3 passed; 0 failed; 1 ignored; ..`.
fn counts_of_cargo(line: &str) -> Option<Vec<&str>> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(counts.split("; ").collect())
}

/// The counts in `===== 1 failed, 3 passed, 2 skipped in 0.51s =====`.
fn counts_of_pytest(line: &str) -> Option<Vec<&str>> {
    let line = line.trim_end().strip_prefix("==")?.strip_suffix("==")?;
    let (counts, time) = line.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let is_time = time.starts_with(|c: char| c.is_ascii_digit());
    is_time.then(|| counts.split(", ").collect())
}

fn announce(what: impl Display) {
    println!("\n== {what}");
}

#[cfg(test)]
mod tests {
    use super::Tests;

    fn tests_in(lines: &[&str]) -> Tests {
        let mut tests = Tests::default();
        lines.iter().for_each(|line| tests.count(line));
        tests
    }

    #[test]
    fn only_closing_lines_of_cargo_count() {
        let tests = tests_in(&[
            "test ring::wraps ... ok\n",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s\n",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
        ]);
        assert_eq!(tests, Tests { passed: 15, failed: 2, skipped: 1 });
    }

    #[test]
    fn only_closing_lines_of_pytest_count() {
        let tests = tests_in(&[
            "============================= test session starts ==============================\n",
            "collected 12 items\n",
            "python/tests/test_pump.py ....... 7 passed in this file\n",
            "=========================== short test summary info ============================\n",
            "============= 1 failed, 9 passed, 2 skipped, 1 error in 61.20s (0:01:01) =============\n",
            "================== 4 passed, 1 xfailed, 3 warnings in 0.51s ===================\n",
        ]);
        assert_eq!(tests, Tests { passed: 13, failed: 2, skipped: 3 });
    }
}
