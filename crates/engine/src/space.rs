//! The bell that wakes a dispatcher process which waits for room.
//!
//! It is not an eventfd, as all others are: whether a write to one waits is a flag that both
//! processes share, and its count too, so that a hostile process could make the manager wait. To
//! a socket it is the sender who says, with each call, that it does not wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use eventpy_ring::Bell;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType};

/// The manager's end.
#[derive(Debug)]
pub(crate) struct SpaceBell(OwnedFd);

impl SpaceBell {
    /// A bell that is silent, and the end at which it is heard.
    pub(crate) fn pair() -> io::Result<(SpaceBell, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Nothing comes back: neither bytes nor descriptors that we would have to keep.
        rustix::net::shutdown(&ours, Shutdown::Read)?;
        Ok((SpaceBell(ours), theirs))
    }
}

impl Bell for SpaceBell {
    fn ring(&self) {
        // A full socket is as good as a rung bell, and a closed one has no reader.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.0, &[1], flags);
    }
}

/// Takes note of what has rung at the other end. What is left over rings once more.
pub(crate) fn silence(heard: impl AsFd) {
    let mut rings = [0; 64];
    let _ = rustix::io::read(heard, &mut rings);
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::OFlags;

    use super::*;

    fn is_heard(heard: &OwnedFd) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(heard, PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn a_ring_is_heard_until_it_is_silenced() {
        let (bell, heard) = SpaceBell::pair().unwrap();
        assert!(!is_heard(&heard));
        bell.ring();
        bell.ring();
        assert!(is_heard(&heard));
        silence(&heard);
        assert!(!is_heard(&heard));
    }

    #[test]
    fn whoever_rings_never_waits() {
        let (bell, heard) = SpaceBell::pair().unwrap();
        rustix::fs::fcntl_setfl(&heard, OFlags::empty()).unwrap();
        (0..10_000).for_each(|_| bell.ring());
        assert!(is_heard(&heard));
        drop(heard);
        bell.ring();
    }
}
