//! The one error of the engine: opaque, with a kind to match on and a sentence to read.

use std::fmt;
use std::io;

use crate::report::DispatcherFailed;

/// What a manager's operation failed on.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    failed: Vec<DispatcherFailed>,
}

/// The kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A dispatcher's options can't be met: buffer size, delivery, durations.
    Options,
    /// The operation does not fit the state: deployed already, not deployed, ended.
    State,
    /// Called within a callback, where it would call itself.
    Reentrant,
    /// The operating system refused memory, a descriptor or a process.
    System,
    /// A dispatcher's process could not be started or did not get through its start.
    Start,
    /// A dispatcher can't be taken to its process, or is not known there.
    Load,
    /// An event can't be encoded, decoded, or is larger than the budget.
    Event,
    /// The dispatcher was told to end at once; what was to be emitted was not.
    Ended,
    /// The manager's process is gone; nobody receives what is emitted.
    ManagerGone,
    /// A dispatcher failed and no listener took the failure.
    Dispatcher,
    /// A callback failed.
    Callback,
}

impl Error {
    /// An error of a kind, with a sentence that names the thing and the way out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None, failed: Vec::new() }
    }

    /// The same with the error beneath it.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error { kind, message: message.into(), source: Some(source.into()), failed: Vec::new() }
    }

    /// The error of dispatchers that failed and whose failure no callback took.
    pub fn of_failed(failed: Vec<DispatcherFailed>) -> Error {
        let lines: Vec<String> = failed.iter().map(DispatcherFailed::to_string).collect();
        Error { kind: ErrorKind::Dispatcher, message: lines.join("\n"), source: None, failed }
    }

    /// The failures that it tells of, if its kind is [`ErrorKind::Dispatcher`].
    pub fn dispatchers_failed(&self) -> &[DispatcherFailed] {
        &self.failed
    }

    /// The operating system has refused what `what` says, and why it may have.
    pub(crate) fn refused(what: &str, source: io::Error) -> Error {
        let hint = match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                "; raise the limit of open files (`ulimit -n`) or deploy fewer dispatchers"
            }
            Some(libc::EAGAIN) => {
                "; raise the limit of processes (`ulimit -u`) or deploy fewer dispatchers"
            }
            Some(libc::ENOMEM) => {
                "; raise the limit of memory (`ulimit -v`) or choose a smaller buffer_bytes"
            }
            Some(libc::EFBIG) => {
                "; raise the limit of file sizes (`ulimit -f`) or choose a smaller buffer_bytes"
            }
            Some(libc::EPERM | libc::EACCES) => "; is it forbidden by a sandbox or seccomp filter?",
            Some(libc::ENOSYS) => "; is this kernel older than Linux 5.4?",
            None if source.kind() == io::ErrorKind::OutOfMemory => {
                "; raise that limit or choose a smaller buffer_bytes"
            }
            _ => "",
        };
        Error::with_source(ErrorKind::System, format!("{what}: {source}{hint}"), source)
    }

    /// What it failed on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The sentence, since a `main` that returns an error prints it so.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
