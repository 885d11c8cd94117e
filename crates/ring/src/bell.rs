//! The bell between processes: an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::os;
use crate::wake::Bell;

/// An eventfd: one side rings it, the other waits for it with poll or epoll.
#[derive(Debug)]
pub struct EventBell(OwnedFd);

impl EventBell {
    /// A bell that is silent.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<EventBell> {
        os::eventfd().map(EventBell)
    }

    /// Another handle of the same bell, to send to the other process.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Makes the descriptor unreadable until the bell rings again.
    pub fn silence(&self) {
        os::lower(&self.0);
    }
}

impl Bell for EventBell {
    fn ring(&self) {
        os::raise(&self.0);
    }
}

impl From<OwnedFd> for EventBell {
    fn from(fd: OwnedFd) -> EventBell {
        EventBell(fd)
    }
}

impl AsFd for EventBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
