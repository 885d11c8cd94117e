//! What the steps of a command came to: their output passes through, their tests are counted.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use crate::cargo::Cargo;

/// The steps so far.
#[derive(Default)]
pub struct Report {
    tests: Tests,
    failed_steps: Vec<&'static str>,
    not_run: Vec<String>,
}

/// How many tests passed, failed and were left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Report {
    /// Runs one step, waits for it, and counts its tests.
    pub fn step(&mut self, title: &'static str, cargo: Cargo) {
        announce(format_args!("{title}: {cargo}"));
        let begin = Instant::now();
        let failed_before = self.tests.failed;
        let success = self.pass_through(cargo).unwrap_or_else(|error| {
            eprintln!("{title} could not be run: {error}");
            false
        });
        if !success {
            self.failed_steps.push(title);
            // A step can fail without a test that did: clippy, a build, a crash.
            self.tests.failed = self.tests.failed.max(failed_before + 1);
        }
        let outcome = if success { "done" } else { "FAILED" };
        announce(format_args!("{title}: {outcome} in {:.1} s", begin.elapsed().as_secs_f64()));
    }

    /// Notes that a step can't be run on this machine.
    pub fn not_run(&mut self, title: &str, reason: &str) {
        self.not_run.push(format!("{title} was not run: {reason}"));
    }

    /// Says what failed and what was not run. The last line is the count.
    pub fn close(self) -> ExitCode {
        for note in &self.not_run {
            println!("{note}");
        }
        for title in &self.failed_steps {
            println!("failed: {title}");
        }
        let Tests { passed, failed, ignored } = self.tests;
        match (passed + failed, ignored) {
            (0, _) => println!("no step failed"),
            (_, 0) => println!("{passed} passed, {failed} failed"),
            (_, _) => println!("{passed} passed, {failed} failed, {ignored} skipped"),
        }
        if self.failed_steps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn pass_through(&mut self, cargo: Cargo) -> io::Result<bool> {
        let mut child = cargo.into_command().stdout(Stdio::piped()).spawn()?;
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
    /// Adds what a test runner's closing line says: `test result: ok. 3 passed; 0 failed; ..`.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count.trim().split_once(' ') {
                Some((n, "passed")) => self.passed += n.parse().unwrap_or(0),
                Some((n, "failed")) => self.failed += n.parse().unwrap_or(0),
                Some((n, "ignored")) => self.ignored += n.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

fn announce(what: impl Display) {
    println!("\n== {what}");
}

#[cfg(test)]
mod tests {
    use super::Tests;

    #[test]
    fn only_closing_lines_of_runners_count() {
        let mut tests = Tests::default();
        tests.count("test ring::wraps ... ok\n");
        tests.count("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s\n");
        tests.count(
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!(tests, Tests { passed: 15, failed: 2, ignored: 1 });
    }
}
