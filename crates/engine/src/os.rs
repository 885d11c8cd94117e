//! The operating-system calls of the engine that need more than a safe wrapper.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::SendFlags;

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How often this process has been forked off since the first call, counted in the forked child
/// without a system call: a value that differs from an earlier one means that this process is a
/// copy of the one that asked then.
pub(crate) fn fork_count() -> u32 {
    static REGISTERED: Once = Once::new();
    extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    REGISTERED.call_once(|| {
        // SAFETY: the handler only touches an atomic, which is allowed after fork.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// The same, for whoever has asked before.
#[inline]
pub(crate) fn fork_count_again() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Starts a thread that no signal is ever delivered to, so that the program's own threads keep
/// theirs.
pub(crate) fn spawn_without_signals<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<std::thread::JoinHandle<T>> {
    const STACK_BYTES: usize = 128 * 1024;
    let before = block_all_signals();
    let thread =
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work);
    restore_signals(&before);
    thread
}

/// Starts something that inherits the mask of this thread, with SIGTERM and the terminal's Ctrl-C and
/// hang-up held back: a process that has just begun would die of them. It lets them through by
/// [`let_signals_through`] once it has handlers.
pub(crate) fn holding_signals_back<T>(start: impl FnOnce() -> T) -> T {
    let before = mask_endings(libc::SIG_BLOCK);
    let started = start();
    restore_signals(&before);
    started
}

/// Lets SIGTERM and the terminal's signals through to this thread, whatever it has inherited.
pub(crate) fn let_signals_through() {
    mask_endings(libc::SIG_UNBLOCK);
}

/// Handles a signal: all it does is to write to `wake`, if that is given. In a copy that is forked off
/// this process, the signal does what it does by default: the copy shares the other end of `wake`.
pub(crate) fn handle_signal(signal: libc::c_int, wake: Option<UnixStream>) -> io::Result<()> {
    // Not the count of forks, which the copy raises a moment after it has begun.
    let process = std::process::id();
    let handler = move || {
        if std::process::id() != process {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        } else if let Some(wake) = &wake {
            let _ = rustix::net::send(wake, &[0], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    };
    // SAFETY: the handler makes system calls alone, and a function made for signal handlers.
    unsafe { signal_hook::low_level::register(signal, handler) }.map(drop)
}

/// Whether this process ignores a signal.
pub(crate) fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: a signal's action is plain data, valid when zeroed.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no action is given, and the pointer is to a live one that takes the present one.
    let known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    known == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn mask_endings(how: libc::c_int) -> libc::sigset_t {
    // SAFETY: a signal set is plain data, valid when zeroed.
    let mut endings: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the pointer is to a live signal set, and the signal exists.
        unsafe { libc::sigaddset(&raw mut endings, signal) };
    }
    // SAFETY: both pointers are to live signal sets.
    unsafe { libc::pthread_sigmask(how, &raw const endings, &raw mut before) };
    before
}

fn block_all_signals() -> libc::sigset_t {
    // SAFETY: a signal set is plain data, valid when zeroed.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live signal set.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: both pointers are to live signal sets.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    before
}

fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the pointer is to a live signal set; the previous one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}
