//! The dispatcher process's watcher: a thread that hears the end command, SIGTERM and the
//! manager's death while the loop is busy in the user's code, and notices an update that hangs.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::status::Status;
use crate::control::{Control, Received};
use crate::os;
use crate::protocol::{FromChild, ToChild};
use crate::waiter::timespec;

/// The terminal's Ctrl-C reaches every process of its group; only the manager decides. A handler
/// that does nothing, unlike ignoring the signal, is not passed on to programs that are started.
pub(crate) fn ignore_terminal_interrupt() -> io::Result<()> {
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false))).map(|_| ())
}

/// Starts the watcher. It lives as long as the process.
pub(crate) fn start(
    status: &Arc<Status>,
    control: &Arc<Control>,
    update_timeout: Option<Duration>,
) -> io::Result<()> {
    let (signalled, handler) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGTERM, handler)?;
    let (status, control) = (Arc::clone(status), Arc::clone(control));
    os::spawn_without_signals("eventpy-watch", move || {
        Watcher { status, control, signalled, update_timeout, reported: 0 }.run()
    })?;
    Ok(())
}

struct Watcher {
    status: Arc<Status>,
    control: Arc<Control>,
    signalled: UnixStream,
    update_timeout: Option<Duration>,
    /// The update that was reported as hanging last.
    reported: u64,
}

impl Watcher {
    fn run(mut self) {
        let mut listening = true;
        loop {
            let (control, manager) = (self.control.as_fd(), self.status.manager());
            let mut descriptors = [
                PollFd::new(&self.signalled, PollFlags::IN),
                PollFd::from_borrowed_fd(manager, PollFlags::IN),
                PollFd::from_borrowed_fd(control, PollFlags::IN),
            ];
            let watched = if listening { 3 } else { 2 };
            // Half the limit finds a hang after at most one and a half times the limit.
            let period = self
                .update_timeout
                .map(|limit| timespec((limit / 2).max(Duration::from_millis(1))));
            if rustix::event::poll(&mut descriptors[..watched], period.as_ref()).is_err() {
                continue;
            }
            let [signalled, manager, control] =
                descriptors.map(|descriptor| !descriptor.revents().is_empty());
            if manager {
                return self.status.orphan();
            }
            if signalled {
                self.drain_signals();
                self.status.interrupt();
            }
            if control {
                listening = self.listen();
            }
            self.look_for_hang();
        }
    }

    fn drain_signals(&self) {
        let mut bytes = [0; 64];
        let _ = rustix::net::recv(&self.signalled, &mut bytes, rustix::net::RecvFlags::DONTWAIT);
    }

    /// Hears the manager; false once it has closed its end. It closes it when it has given this
    /// process up, so that is an end command too.
    fn listen(&self) -> bool {
        match self.control.receive() {
            Ok(Received::Message(ToChild::End, _)) => {
                self.status.end();
                true
            }
            Ok(Received::Message(ToChild::Setup(_), _) | Received::Nothing) => true,
            Ok(Received::Closed) | Err(_) => {
                self.status.end();
                false
            }
        }
    }

    fn look_for_hang(&mut self) {
        let (Some(limit), Some((updates, elapsed))) =
            (self.update_timeout, self.status.update_in_progress())
        else {
            return;
        };
        if elapsed > limit && updates != self.reported {
            self.reported = updates;
            let hung = FromChild::Hung { updates, elapsed, traceback: String::new() };
            let _ = self.control.send(&hung, &[], false);
        }
    }
}
