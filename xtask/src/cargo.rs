//! One call of cargo: what every command of this program comes down to.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// A call of cargo from the root of the repository.
pub struct Cargo {
    command: Command,
}

/// The root of the repository.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask is a folder of the repository").to_owned()
}

impl Cargo {
    /// A subcommand of the cargo that runs this program.
    pub fn new(subcommand: &str) -> Cargo {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(root()).arg(subcommand);
        Cargo { command }
    }

    /// A subcommand of the nightly toolchain's cargo.
    pub fn nightly(subcommand: &str) -> Cargo {
        let mut command = Command::new("cargo");
        command.current_dir(root()).args(["+nightly", subcommand]);
        Cargo { command }
    }

    pub fn arg(self, argument: &str) -> Cargo {
        self.args([argument])
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Cargo {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Cargo {
        self.command.env(name, value);
        self
    }

    /// Runs in a folder of the repository.
    pub fn folder(mut self, folder: &str) -> Cargo {
        self.command.current_dir(root().join(folder));
        self
    }

    /// Builds beside the ordinary builds, so that other flags do not rebuild those.
    pub fn target_dir(self, name: &str) -> Cargo {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), Into::into);
        self.env("CARGO_TARGET_DIR", root().join(target).join(name))
    }

    /// Whether the call succeeds; what it prints is discarded.
    pub fn succeeds(mut self) -> bool {
        let quiet = self.command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
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

/// As one would type it.
impl fmt::Display for Cargo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.command.get_envs() {
            if let Some(value) = value {
                write!(f, "{}={value:?} ", name.display())?;
            }
        }
        f.write_str("cargo")?;
        for argument in self.command.get_args() {
            write!(f, " {}", argument.display())?;
        }
        Ok(())
    }
}
