//! The dispatcher process's watcher: a thread that hears the end command, SIGTERM and the
//! manager's death while the loop is busy in the user's code, and notices an update that hangs.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Face;
use super::status::Status;
use crate::control::{Control, Received};
use crate::os;
use crate::protocol::{FromChild, ToChild, cut};
use crate::waiter::timespec;

const LOCATE_TIMEOUT: Duration = Duration::from_secs(1);

/// The terminal's Ctrl-C and its hang-up reach every process of its group; only the manager decides.
/// If it dies of the hang-up, the watcher hears that. A handler that does nothing, unlike ignoring
/// the signal, is not passed on to programs that are started; they ignore the hang-up if this
/// program was started so, as by `nohup`.
pub(crate) fn ignore_the_terminal() -> io::Result<()> {
    os::handle_signal(SIGINT, None)?;
    if !os::is_ignored(SIGHUP) {
        os::handle_signal(SIGHUP, None)?;
    }
    Ok(())
}

/// Starts the watcher. It lives as long as the process.
pub(crate) fn start(
    status: &Arc<Status>,
    control: &Arc<Control>,
    face: Face,
    update_timeout: Option<Duration>,
    end_timeout: Duration,
) -> io::Result<()> {
    let (signalled, handler) = UnixStream::pair()?;
    let handler = if face.handle_sigterm {
        os::handle_signal(SIGTERM, Some(handler))?;
        None
    } else {
        Some(handler)
    };
    let watcher = Watcher {
        status: Arc::clone(status),
        control: Arc::clone(control),
        signalled,
        _handler: handler,
        locate: face.locate,
        update_timeout,
        end_timeout,
        reported: 0,
        unreported: None,
    };
    os::spawn_without_signals("eventpy-watch", move || watcher.run())?;
    Ok(())
}

struct Watcher {
    status: Arc<Status>,
    control: Arc<Control>,
    signalled: UnixStream,
    /// Keeps `signalled` silent where the face handles SIGTERM.
    _handler: Option<UnixStream>,
    locate: Option<Box<dyn Fn() -> String + Send>>,
    update_timeout: Option<Duration>,
    end_timeout: Duration,
    /// The update that was reported as hanging last.
    reported: u64,
    /// An update that is yet to be reported, and where it hangs.
    unreported: Option<(u64, String)>,
}

impl Watcher {
    fn run(mut self) {
        loop {
            let (control, manager) = (self.control.as_fd(), self.status.manager());
            let mut descriptors = [
                PollFd::new(&self.signalled, PollFlags::IN),
                PollFd::from_borrowed_fd(manager, PollFlags::IN),
                PollFd::from_borrowed_fd(control, PollFlags::IN),
            ];
            // Half the limit finds a hang after at most one and a half times the limit.
            let period = self
                .update_timeout
                .map(|limit| timespec((limit / 2).max(Duration::from_millis(1))));
            if rustix::event::poll(&mut descriptors, period.as_ref()).is_err() {
                continue;
            }
            let [signalled, manager, control] =
                descriptors.map(|descriptor| !descriptor.revents().is_empty());
            if manager || control && !self.listen() {
                return self.end_without_manager();
            }
            if signalled {
                self.drain_signals();
                self.status.interrupt();
            }
            self.look_for_hang();
        }
    }

    /// The manager's steps of an ending, for want of a manager. The process exits by itself as
    /// soon as `finish` is through.
    fn end_without_manager(&self) {
        self.status.orphan();
        std::thread::sleep(self.end_timeout);
        for signal in [Signal::TERM, Signal::KILL] {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
            std::thread::sleep(self.end_timeout);
        }
    }

    fn drain_signals(&self) {
        let mut bytes = [0; 64];
        let _ = rustix::net::recv(&self.signalled, &mut bytes, rustix::net::RecvFlags::DONTWAIT);
    }

    /// Hears the manager; false once it has closed its end. It does so when it has given this
    /// process up, or when its process became another program.
    fn listen(&self) -> bool {
        match self.control.receive() {
            Ok(Received::Message(ToChild::End, _)) => {
                self.status.end();
                true
            }
            Ok(Received::Message(ToChild::Setup(_), _) | Received::Nothing) => true,
            Ok(Received::Closed) | Err(_) => false,
        }
    }

    /// Where the dispatcher's code is, unless finding out takes too long: it may need a lock that
    /// the code holds.
    fn locate(&mut self) -> String {
        let Some(locate) = self.locate.take() else { return String::new() };
        let (send, receive) = mpsc::channel();
        let located = os::spawn_without_signals("eventpy-locate", move || {
            let _ = send.send((locate(), locate));
        });
        match located.ok().and_then(|_| receive.recv_timeout(LOCATE_TIMEOUT).ok()) {
            Some((place, locate)) => {
                self.locate = Some(locate);
                place
            }
            None => "(where it hangs is not known: telling takes a lock that it holds)".to_owned(),
        }
    }

    fn look_for_hang(&mut self) {
        let Some(limit) = self.update_timeout else { return };
        let (updates, elapsed) = self.status.work_in_progress();
        if elapsed <= limit || updates == self.reported {
            return;
        }
        let place = match self.unreported.take() {
            Some((update, place)) if update == updates => place,
            _ => cut(self.locate()),
        };
        let hung = FromChild::Hung { updates, elapsed, traceback: place.clone() };
        match self.control.send(&hung, &[], false) {
            Ok(()) => self.reported = updates,
            // The socket may be full of what the manager has not received yet.
            Err(_) => self.unreported = Some((updates, place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(1);

    fn watcher(control: Control) -> Watcher {
        let manager = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty());
        let status = Status::new(manager.expect("it can be made")).expect("it can be made");
        Watcher {
            status: Arc::new(status),
            control: Arc::new(control),
            signalled: UnixStream::pair().expect("it can be made").0,
            _handler: None,
            locate: Some(Box::new(|| "here".to_owned())),
            update_timeout: Some(LIMIT),
            end_timeout: Duration::ZERO,
            reported: 0,
            unreported: None,
        }
    }

    /// The places of the hangs that a manager is told of.
    fn hangs(manager: &Control) -> Vec<String> {
        let mut places = Vec::new();
        while let Received::Message(message, _) = manager.receive().expect("it is a message") {
            if let FromChild::Hung { traceback, .. } = message {
                places.push(traceback);
            }
        }
        places
    }

    #[test]
    fn a_hang_is_told_once_the_socket_has_room() {
        let (manager, socket) = Control::pair().expect("it can be made");
        let mut watcher = watcher(Control::from_inherited(socket));
        watcher.status.begin_update();
        std::thread::sleep(2 * LIMIT);
        while watcher.control.send(&FromChild::Initialised, &[], false).is_ok() {}
        watcher.look_for_hang();
        assert!(hangs(&manager).is_empty());
        watcher.look_for_hang();
        watcher.look_for_hang();
        assert_eq!(hangs(&manager), ["here"]);
    }
}
