//! A dispatcher's process, as its parent sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};

use crate::options::Launch;
use crate::os;
use crate::protocol::{ENVIRONMENT, VERSION};
use crate::report::Exit;

/// A process that this one started. Dropping it neither ends nor reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
    pid: u32,
}

impl Process {
    /// Starts a fresh program that inherits one descriptor, the command socket, as its standard
    /// input; standard output and error stay where they are.
    pub(crate) fn start(launch: &Launch, socket: OwnedFd) -> io::Result<Process> {
        let mut command = Command::new(&launch.program);
        command.args(&launch.args).env(ENVIRONMENT, VERSION.to_string()).stdin(Stdio::from(socket));
        let child = os::holding_signals_back(|| command.spawn())?;
        let pid = child.id();
        // A child is reaped only by `try_wait`, so its number can't have passed to another.
        let pidfd =
            rustix::process::pidfd_open(pid_of(pid), PidfdFlags::empty()).inspect_err(|_| {
                end_without_pidfd(child);
            })?;
        Ok(Process { pidfd, pid })
    }

    /// None at all: a descriptor that is no process's can be neither signalled nor waited for.
    pub(crate) fn none(descriptor: OwnedFd) -> Process {
        Process { pidfd: descriptor, pid: 0 }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; a process that is gone already needs none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Kills the process and waits until it is gone.
    pub(crate) fn end_at_once(&self) {
        self.signal(Signal::KILL);
        reap(self.pidfd.as_fd());
    }

    /// Reaps the process whenever it can be, in a thread of its own.
    pub(crate) fn reap_later(&self) {
        // Without a descriptor or a thread, it is left to whoever comes after this process.
        if let Ok(pidfd) = self.pidfd.try_clone() {
            let _ = os::spawn_without_signals("eventpy-reap", move || reap(pidfd.as_fd()));
        }
    }

    fn has_exited(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Where it can't be asked, the wait that follows tells.
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
    }

    /// Reaps the process if it has exited. One that another process traces is hidden from its parent
    /// even then, and of its exit no more is known than that.
    pub(crate) fn try_wait(&self) -> Option<Exit> {
        if !self.has_exited() {
            return None;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Err(Errno::INTR) => None,
            Ok(None) => {
                self.reap_later();
                Some(Exit::Unknown)
            }
            // Whoever traces its children is told of their stops whatever it asks for.
            Ok(Some(status)) if status.trapped() => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => Exit::Unknown,
            }),
            // Somebody else reaped it: a program that ignores SIGCHLD, or waits for all children.
            Err(_) => Some(Exit::Unknown),
        }
    }
}

/// Waits until a process is gone, and reaps it.
fn reap(pidfd: BorrowedFd<'_>) {
    let exited = || waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    while exited().is_err_and(|errno| errno == Errno::INTR) {}
}

/// This process, for the children to see when it ends.
pub(crate) fn this_process() -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?)
}

fn pid_of(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id is a positive int")
}

fn end_without_pidfd(mut child: std::process::Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
