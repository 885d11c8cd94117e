//! Tells the pump by one load whether a process has exited or sent a message.
//!
//! The kernel tells of both only through a system call, and a pump that finds the rings awake is
//! to make none. So a thread sleeps in the kernel on the pump's behalf and raises a flag. It does
//! nothing else: what happened is handled by the pump, in the manager's own thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use eventpy_ring::{Bell, EventBell};
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::os;

/// The flag and the thread that raises it.
#[derive(Debug)]
pub(crate) struct Attention {
    raised: Arc<AtomicBool>,
    watched: Arc<OwnedFd>,
    stop: EventBell,
    thread: Option<JoinHandle<()>>,
}

const STOP: u64 = 1;
const SOMETHING: u64 = 0;

impl Attention {
    pub(crate) fn start() -> io::Result<Attention> {
        let raised = Arc::new(AtomicBool::new(false));
        let watched = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let stop = EventBell::new()?;
        epoll::add(&*watched, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let thread = os::spawn_without_signals("eventpy-attention", {
            let (raised, watched) = (Arc::clone(&raised), Arc::clone(&watched));
            move || watch(&watched, &raised)
        })?;
        Ok(Attention { raised, watched, stop, thread: Some(thread) })
    }

    /// Watches a descriptor: every change of it raises the flag, until it is closed.
    pub(crate) fn watch(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&*self.watched, descriptor, EventData::new_u64(SOMETHING), flags)?)
    }

    pub(crate) fn unwatch(&self, descriptor: BorrowedFd<'_>) {
        let _ = epoll::delete(&*self.watched, descriptor);
    }

    #[inline]
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Lowers the flag; what is handled afterwards covers all that raised it before.
    pub(crate) fn lower(&self) {
        // SeqCst exchange: nothing that is handled next may be looked at before this.
        self.raised.swap(false, Ordering::SeqCst);
    }

    /// Raises the flag by hand.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Forgets the thread, which a forked copy of the process doesn't have.
    pub(crate) fn abandon(&mut self) {
        if let Some(thread) = self.thread.take() {
            std::mem::forget(thread);
        }
    }
}

fn watch(watched: &OwnedFd, raised: &AtomicBool) {
    let mut events = Vec::with_capacity(16);
    loop {
        events.clear();
        match epoll::wait(watched.as_fd(), rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if events.iter().any(|event| event.data.u64() == STOP) {
            return;
        }
        raised.store(true, Ordering::SeqCst);
    }
}

impl Drop for Attention {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.stop.ring();
            let _ = thread.join();
        }
    }
}
