//! One call of a program: what every command of this program comes down to.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// A call of a program from the root of the repository.
pub struct Call {
    command: Command,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the repository").to_owned()
}

/// A folder for what is built.
pub fn target(name: &str) -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    root().join(target).join(name)
}

impl Call {
    /// A program, by its name or its path.
    pub fn new(program: impl AsRef<OsStr>) -> Call {
        let mut command = Command::new(program);
        command.current_dir(root());
        Call { command }
    }

    /// A subcommand of the cargo that runs this program.
    pub fn cargo(subcommand: &str) -> Call {
        Call::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).arg(subcommand)
    }

    /// A subcommand of the nightly toolchain's cargo.
    pub fn nightly(subcommand: &str) -> Call {
        Call::new("cargo").args(["+nightly", subcommand])
    }

    pub fn arg(self, argument: impl AsRef<OsStr>) -> Call {
        self.args([argument])
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Call {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Call {
        self.command.env(name, value);
        self
    }

    /// Runs in a folder of the repository.
    pub fn folder(mut self, folder: &str) -> Call {
        self.command.current_dir(root().join(folder));
        self
    }

    /// Builds beside the ordinary builds, so that other flags do not rebuild those.
    pub fn target_dir(self, name: &str) -> Call {
        self.env("CARGO_TARGET_DIR", target(name))
    }

    /// What the program writes, if it succeeds.
    pub fn output(mut self) -> Option<String> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }

    /// Whether the call succeeds; what it writes is discarded.
    pub fn succeeds(self) -> bool {
        self.output().is_some()
    }

    /// Replaces this process. It returns only when that failed.
    pub fn become_it(mut self) -> ExitCode {
        let error = self.command.exec();
        eprintln!("cannot run `{self}`: {error}");
        ExitCode::FAILURE
    }

    /// The call, to be started by the caller.
    pub fn into_command(self) -> Command {
        self.command
    }
}

/// As one would type it in the root of the repository.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                write!(f, "{}={} ", name.display(), typed(value))?;
            }
        }
        let program = Path::new(self.command.get_program());
        match program.file_stem().filter(|stem| *stem == "cargo") {
            Some(cargo) => f.write_str(&cargo.to_string_lossy())?,
            None => f.write_str(&typed(program.as_os_str()))?,
        }
        self.command.get_args().try_for_each(|argument| write!(f, " {}", typed(argument)))
    }
}

/// One word: relative if it is a path in the repository, in quotes if it has a space.
fn typed(word: &OsStr) -> String {
    let word = Path::new(word).strip_prefix(root()).unwrap_or(Path::new(word)).to_string_lossy();
    if word.contains([' ', '[', ';']) { format!("'{word}'") } else { word.into_owned() }
}
