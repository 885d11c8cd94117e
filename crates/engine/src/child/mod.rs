//! The dispatcher's process: how a program becomes one, and what it runs.
//!
//! A face calls [`run_if_dispatcher`] first thing in its program. In the manager's process that
//! returns at once. In a dispatcher process it never returns: it takes the assignment from its
//! standard input, which is the command socket, loads the dispatcher, runs it to its end and
//! exits.

mod emitter;
mod large;
mod life;
mod status;
mod watch;

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventpy_ring::{ColdFence, EventBell, HotFence};
use rustix::fs::{Mode, OFlags};
use rustix::net::SocketType;
use rustix::process::Signal;

use crate::aside::Aside;
use crate::control::{Control, Received};
use crate::error::{Error, ErrorKind};
use crate::os;
use crate::protocol::{ENVIRONMENT, FromChild, Setup, ToChild, VERSION, cut};

pub use emitter::{Emitter, Pause, Slot};
pub use life::{Failure, Source};

/// What the manager sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The dispatcher's name.
    pub name: String,
    /// What it is made from.
    pub payload: Vec<u8>,
}

/// The setup's descriptors.
struct Descriptors {
    ring: OwnedFd,
    data: OwnedFd,
    space: OwnedFd,
    manager: OwnedFd,
    payload: OwnedFd,
}

/// How a face takes part in the end of its dispatcher process.
pub struct Face {
    /// SIGTERM cuts an update short. The engine's own handler makes `emit` fail; a face that can
    /// do better, because its language can be interrupted, installs a handler itself, calls
    /// [`Interrupter::interrupt`] in it, and sets this to false.
    pub handle_sigterm: bool,
    /// Tells where the dispatcher's code is, for an update that hangs. Called in another thread
    /// than the dispatcher's; what takes longer than a second is not waited for.
    pub locate: Option<Box<dyn Fn() -> String + Send>>,
}

impl Default for Face {
    fn default() -> Face {
        Face { handle_sigterm: true, locate: None }
    }
}

/// This dispatcher process's end: to ask for it, to wait for it, from any thread or signal handler.
#[derive(Clone)]
pub struct Interrupter(Arc<status::Status>);

impl Interrupter {
    /// As SIGTERM does: the current update need not get its events through.
    pub fn interrupt(&self) {
        self.0.interrupt();
    }

    /// Ends the dispatcher after the current update; `finish` runs.
    pub fn end(&self) {
        self.0.end();
    }

    /// Whether the dispatcher is to end.
    pub fn is_ending(&self) -> bool {
        self.0.is_ending()
    }

    /// Sleeps as [`Emitter::wait`] does, without an emitter; false when the dispatcher is to end,
    /// which cuts the sleep short. Events of a batch that has not ended are not sent before it.
    ///
    /// # Errors
    /// Those of `on_signal`, which is called for each signal that wakes it.
    pub fn wait<E>(
        &self,
        time: Duration,
        on_signal: impl FnMut() -> Result<(), E>,
    ) -> Result<bool, E> {
        self.0.waiting(|| self.0.sleep(time, on_signal))
    }

    /// Whether the dispatcher's code forked this process off. Such a copy can't end the dispatcher.
    #[inline]
    pub fn is_forked_copy(&self) -> bool {
        self.0.is_forked_copy()
    }

    /// # Errors
    /// [`ErrorKind::State`] in a copy that the dispatcher's code forked off: it can't send.
    #[inline]
    pub fn check_is_no_copy(&self) -> Result<(), Error> {
        self.0.check_is_no_copy()
    }

    /// Whether the dispatcher is in `update`, where an interruption may reach the user's code.
    pub fn is_updating(&self) -> bool {
        self.0.is_updating()
    }
}

static TAKEN: AtomicBool = AtomicBool::new(false);
static LOADING: AtomicBool = AtomicBool::new(false);
/// The program came to `deploy` instead of becoming a dispatcher process. It may try again.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Whether this process was started as a dispatcher process and has not become one yet.
pub fn is_dispatcher_process() -> bool {
    // A program that a dispatcher starts inherits the variable, but not the socket.
    std::env::var_os(ENVIRONMENT).is_some()
        && !TAKEN.load(Ordering::Relaxed)
        && stdin_is_command_socket()
}

fn stdin_is_command_socket() -> bool {
    rustix::net::sockopt::socket_type(io::stdin()).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// In a dispatcher process: becomes the dispatcher that the manager wants, made by `load`, runs it
/// to its end and exits. In any other process: returns at once.
///
/// An error of `load` is the error of the manager's `deploy`.
pub fn run_if_dispatcher<L>(face: Face, load: L)
where
    L: FnOnce(&Assignment, &Interrupter) -> Result<Box<dyn Source>, String>,
{
    if !is_dispatcher_process() {
        return;
    }
    let code =
        match take_command_socket().and_then(|control| become_dispatcher(control, face, load)) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("eventpy: this dispatcher process could not start: {error}");
                1
            }
        };
    std::process::exit(code);
}

/// For a program that reached `deploy` in a process that was started to run a dispatcher: tells
/// the manager, so that it need not wait, and returns the error for here.
pub(crate) fn refuse_to_deploy() -> Option<Error> {
    if is_dispatcher_process() {
        REFUSED.store(true, Ordering::Relaxed);
        if let Ok(control) = take_command_socket() {
            let _ = control.send(&FromChild::NotADispatcher, &[], false);
        }
    } else if !LOADING.load(Ordering::Relaxed) && !REFUSED.load(Ordering::Relaxed) {
        return None;
    }
    Some(Error::new(
        ErrorKind::State,
        "this process was started to run a dispatcher, but came to deploy_dispatchers of the program itself; \
         mark `fn main` with #[eventpy::main] (Rust), or put the program's start under \
         `if __name__ == \"__main__\":` (Python)",
    ))
}

/// Takes the socket from standard input, which becomes empty: neither the dispatcher nor a program
/// that it starts can read commands by mistake.
fn take_command_socket() -> io::Result<Control> {
    TAKEN.store(true, Ordering::Relaxed);
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null)?;
    Ok(Control::from_inherited(socket))
}

fn become_dispatcher<L>(control: Control, face: Face, load: L) -> io::Result<i32>
where
    L: FnOnce(&Assignment, &Interrupter) -> Result<Box<dyn Source>, String>,
{
    let Some((setup, descriptors)) = receive_setup(&control)? else {
        // The manager is gone before it began.
        return Ok(0);
    };
    name_this_process(&setup.name);
    // Stopped, it would not see that its manager is gone.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::CONT));
    let payload = eventpy_ring::unpack(descriptors.payload, setup.payload_bytes as usize)?;
    let assignment = Assignment { name: setup.name.clone(), payload };
    let barriers = eventpy_ring::register_for_barriers() == ColdFence::Everywhere && setup.barriers;
    let mut producer = eventpy_ring::attach(descriptors.ring, EventBell::from(descriptors.data))
        .map_err(io::Error::other)?;
    if barriers {
        producer.set_hot_fence(HotFence::Compiler);
    }
    let control = Arc::new(control);
    let status = Arc::new(status::Status::new(descriptors.manager)?);
    if face.handle_sigterm {
        watch::ignore_the_terminal()?;
    }
    watch::start(&status, &control, face, setup.update_timeout, setup.end_timeout)?;
    os::let_signals_through();
    LOADING.store(true, Ordering::Relaxed);
    let interrupter = Interrupter(Arc::clone(&status));
    let loaded = panic::catch_unwind(AssertUnwindSafe(|| load(&assignment, &interrupter)))
        .unwrap_or_else(|payload| Err(format!("it panicked: {}", life::message_of(&*payload))));
    LOADING.store(false, Ordering::Relaxed);
    let source = match loaded {
        Ok(source) => source,
        Err(reason) => {
            let _ = control.send(&FromChild::LoadFailed { reason: cut(reason) }, &[], true);
            return Ok(1);
        }
    };
    if control.send(&FromChild::Loaded { barriers }, &[], true).is_err() {
        // The manager is gone before it began.
        return Ok(0);
    }
    let cold = if barriers { ColdFence::Everywhere } else { ColdFence::Full };
    let emitter = Emitter::new(
        producer,
        setup,
        descriptors.space,
        cold,
        Arc::clone(&control),
        Arc::clone(&status),
    );
    Ok(life::run(source, emitter, &control, &status))
}

/// Shows the dispatcher's name in the process list, cut to what the kernel keeps of it.
fn name_this_process(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

fn receive_setup(control: &Control) -> io::Result<Option<(Setup, Descriptors)>> {
    let version = std::env::var(ENVIRONMENT).unwrap_or_default();
    if version != VERSION.to_string() {
        return Err(io::Error::other(format!(
            "the manager speaks protocol {version}, this program {VERSION}: both must be built with one version of eventpy"
        )));
    }
    // The setup was sent before this process was started.
    match control.receive()? {
        Received::Message(ToChild::Setup(setup), descriptors) => {
            let descriptors = descriptors.map(Aside::into_inner).unwrap_or_default();
            Ok(Some((setup, descriptors_of(descriptors)?)))
        }
        Received::Closed => Ok(None),
        _ => Err(io::Error::other("the manager's first message is not a setup")),
    }
}

fn descriptors_of(descriptors: Vec<OwnedFd>) -> io::Result<Descriptors> {
    let found = descriptors.len();
    let [ring, data, space, manager, payload] =
        <[OwnedFd; 5]>::try_from(descriptors).map_err(|_| {
            io::Error::other(format!("the setup came with {found} descriptors instead of 5"))
        })?;
    Ok(Descriptors { ring, data, space, manager, payload })
}
