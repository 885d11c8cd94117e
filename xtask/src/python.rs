//! The Python package: its environments, its checks, its example, its benchmark.
//!
//! Each environment is a folder under `target/`, in which the package is built and installed as a
//! user would do it, with a cargo target folder of its own: cargo keeps one interpreter's build.
//! Where there is no Python, one line says so, and all else goes on.

use std::env;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::call::{Call, target};
use crate::report::Report;

/// The package of the native module, which can't be built where there is no interpreter.
pub const NATIVE_PACKAGE: &str = "eventpy-python";

/// The versions of CPython 3 that the package is for.
const MINORS: std::ops::RangeInclusive<u32> = 9..=13;

/// Where Python code is.
const SOURCES: [&str; 3] = ["python", "examples/python", "bench/python"];

/// What the benchmark compares with.
const PEERS: [&str; 3] = ["pyzmq", "faster-fifo", "iceoryx2"];

/// Prints the version of an interpreter; fails if it is too old or can't make environments.
const IDENTIFY: &str = "\
import ensurepip, platform, sys, venv
assert sys.version_info >= (3, 9)
print(platform.python_version())";

/// Something that is not there; why, as the end of a sentence.
pub type Missing = String;

/// An interpreter that can make environments.
pub struct Interpreter {
    program: PathBuf,
    version: String,
}

impl Interpreter {
    /// The one that is called `python3`.
    pub fn find() -> Result<Interpreter, Missing> {
        Interpreter::of("python3".into())
            .ok_or("there is no python3 of version 3.9 or newer with venv and pip".into())
    }

    /// CPython 3.`minor`, on the path or under pyenv.
    fn find_minor(minor: u32) -> Result<Interpreter, Missing> {
        let name = format!("python3.{minor}");
        let under_pyenv =
            pyenv_versions().into_iter().map(|version| version.join("bin").join(&name));
        std::iter::once(PathBuf::from(&name))
            .chain(under_pyenv)
            .find_map(Interpreter::of)
            .ok_or_else(|| format!("there is no {name} with venv and pip"))
    }

    fn of(program: PathBuf) -> Option<Interpreter> {
        let version = Call::new(&program).args(["-c", IDENTIFY]).output()?;
        Some(Interpreter { program, version })
    }
}

/// The folders of the interpreters that pyenv has installed.
fn pyenv_versions() -> Vec<PathBuf> {
    let under_home = || Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv"));
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from).or_else(under_home);
    let entries = pyenv.and_then(|pyenv| pyenv.join("versions").read_dir().ok());
    let mut versions: Vec<_> = entries.into_iter().flatten().flatten().map(|e| e.path()).collect();
    versions.sort();
    versions
}

/// A virtual environment.
pub struct Environment {
    name: String,
    folder: PathBuf,
}

impl Environment {
    /// `target/<name>`, and the call that makes it unless it is there already.
    fn new(name: &str, interpreter: &Interpreter) -> (Environment, Option<Call>) {
        let folder = target(name);
        let environment = Environment { name: name.to_owned(), folder };
        let is_there = environment.python().args(["-c", IDENTIFY]).output();
        let make = || {
            let make = Call::new(&interpreter.program).args(["-m", "venv", "--clear"]);
            make.arg(&environment.folder)
        };
        let make = (is_there.as_ref() != Some(&interpreter.version)).then(make);
        (environment, make)
    }

    /// Its interpreter.
    pub fn python(&self) -> Call {
        Call::new(self.folder.join("bin/python"))
    }

    /// A module, run as a program.
    fn module(&self, module: &str) -> Call {
        self.python().args(["-m", module])
    }

    /// Installs packages; `.` is this one.
    fn install(&self, packages: &[&str]) -> Call {
        self.module("pip")
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(packages)
            .target_dir(&format!("python/{}", self.name))
    }

    /// Makes it and installs packages, as steps of a command.
    fn set_up(
        name: &str,
        interpreter: &Interpreter,
        packages: &[&str],
        report: &mut Report,
    ) -> Option<Environment> {
        let (environment, make) = Environment::new(name, interpreter);
        let made = make.is_none_or(|make| report.step(format!("make {name}"), make));
        let install = environment.install(packages);
        (made && report.step(format!("install into {name}"), install)).then_some(environment)
    }

    /// The same for a command that is about something else: without a word unless it fails.
    pub fn provide(
        name: &str,
        interpreter: &Interpreter,
        packages: &[&str],
    ) -> Result<Environment, Missing> {
        let (environment, make) = Environment::new(name, interpreter);
        for call in make.into_iter().chain([environment.install(packages)]) {
            let shown = call.to_string();
            if !call.into_command().status().is_ok_and(|status| status.success()) {
                return Err(format!("`{shown}` failed"));
            }
        }
        Ok(environment)
    }
}

/// The environment of the tests, with the package as it is now.
pub fn test_environment(report: &mut Report) -> Option<Environment> {
    match Interpreter::find() {
        Ok(interpreter) => Environment::set_up("venv", &interpreter, &[".[test]"], report),
        Err(missing) => {
            report.not_run("everything in Python", &missing);
            None
        }
    }
}

/// Checks style and types, and the stub of the native module against the module.
pub fn lint(environment: &Environment, report: &mut Report) {
    let ruff = |arguments: &[&str]| environment.module("ruff").args(arguments).args(SOURCES);
    report.step("ruff", ruff(&["check"]));
    report.step("Python format", ruff(&["format", "--check"]));
    report.step("mypy", environment.module("mypy"));
    let of_bench = ["--config-file", "bench/python/mypy.ini", "bench/python"];
    report.step("mypy of bench", environment.module("mypy").args(of_bench));
    let stub = environment.module("mypy.stubtest").arg("eventpy._eventpy");
    report.step("stub check", stub);
}

/// Runs the Python tests.
pub fn test(environment: &Environment, report: &mut Report) {
    report.step("Python tests", environment.module("pytest").arg("python/tests"));
}

/// Runs the property tests of the codec with ever new examples until the time is over.
pub fn fuzz_codec(seconds: u32, report: &mut Report) {
    let Some(environment) = test_environment(report) else { return };
    let end = Instant::now() + Duration::from_secs(seconds.into());
    let tests = ["equals_pickle", "out_of_band", "hostile"];
    let files = tests.map(|test| format!("python/tests/test_codec_{test}.py"));
    let pass = || environment.module("pytest").args(&files);
    while report.step("codec against pickle", pass().env("EVENTPY_EXAMPLES_FACTOR", "5"))
        && Instant::now() < end
    {}
}

/// Kills a tenth as many as the storm in Rust: to start an interpreter takes so much longer.
pub fn storm(kills: u32, report: &mut Report) {
    let Some(environment) = test_environment(report) else { return };
    let storm = environment.module("pytest").args(["-s", "python/tests/test_kill_storm.py"]);
    let kills = kills.div_ceil(10).to_string();
    report.step("kill storm in Python", storm.env("EVENTPY_STORM_KILLS", kills));
}

/// The test that runs for long.
pub fn soak(environment: &Environment) -> Call {
    environment.module("pytest").args(["-s", "python/tests/test_soak.py"])
}

/// Runs the Python tests with every interpreter that the package is for.
pub fn test_everywhere(report: &mut Report) {
    for minor in MINORS {
        match Interpreter::find_minor(minor) {
            Ok(interpreter) => test_with(&interpreter, minor, report),
            Err(missing) => report.not_run(&format!("CPython 3.{minor}"), &missing),
        }
    }
}

fn test_with(interpreter: &Interpreter, minor: u32, report: &mut Report) {
    let name = format!("venv-3.{minor}");
    let set_up = Environment::set_up(&name, interpreter, &[".[test]"], report);
    if let Some(environment) = set_up {
        let title = format!("Python tests on {}", interpreter.version);
        let pytest = environment.module("pytest").arg("python/tests");
        let passed = if report.step(title, pytest) { "passed" } else { "failed" };
        report
            .note(format!("the Python tests ran on CPython {} and {passed}", interpreter.version));
    }
}

/// The example.
pub fn demo(seconds: u32) -> Result<Call, Missing> {
    let interpreter = Interpreter::find()?;
    println!("building the Python package; the first time takes a minute or two");
    let environment = Environment::provide("venv", &interpreter, &[".[examples]"])?;
    let example = environment.python().arg("examples/python/machine_watch.py");
    Ok(example.args(["--seconds", &seconds.to_string()]))
}

/// The benchmark. A peer that can't be installed is left out.
pub fn bench(arguments: &[String]) -> Result<Call, Missing> {
    let interpreter = Interpreter::find()?;
    println!("building the Python package and its peers; the first time takes some minutes");
    let environment = Environment::provide("venv-bench", &interpreter, &[".", "numpy"])?;
    for peer in PEERS {
        if !environment.install(&[peer]).succeeds() {
            println!("{peer} is left out: it can't be installed here");
        }
    }
    Ok(environment.python().arg("bench/python/main.py").args(arguments))
}
