//! The command socket: whole messages with descriptors, between manager and dispatcher process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aside::Aside;
use crate::protocol::MAX_MESSAGE_BYTES;

/// Descriptors that one message can carry: as many as the kernel allows (`SCM_MAX_FD`). What there
/// is no room for, the kernel closes before a receive returns, however long that takes.
const MAX_DESCRIPTORS: usize = 253;

/// One end of a command socket.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
}

/// Descriptors that came with a message, if there are any.
pub(crate) type Descriptors = Option<Aside<Vec<OwnedFd>>>;

/// What a receive came to.
pub(crate) enum Received<M> {
    Message(M, Descriptors),
    /// Nothing for now.
    Nothing,
    /// The other end is closed, and all it sent has been received.
    Closed,
}

impl Control {
    /// Both ends of a new socket, closed on exec.
    pub(crate) fn pair() -> io::Result<(Control, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Control { socket: ours }, theirs))
    }

    /// The end that a process inherited.
    pub(crate) fn from_inherited(socket: OwnedFd) -> Control {
        Control { socket }
    }

    /// Sends a message; waits while the other end has not received earlier ones, unless
    /// `may_wait` is false: then that is an error.
    pub(crate) fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
        may_wait: bool,
    ) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            debug_assert!(fits, "a message carries at most {MAX_DESCRIPTORS} descriptors");
        }
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, !may_wait);
        loop {
            match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, flags)
            {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives one message without waiting.
    ///
    /// # Errors
    /// When what came is not a message of the protocol, or a descriptor could not be received.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Received<M>> {
        let mut bytes = [0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut into = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match rustix::net::recvmsg(&self.socket, &mut into, &mut ancillary, flags) {
                // The other end was closed with something unread. The kernel says so once and ahead
                // of all that was sent before, which is still to come.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(errno) => return Err(errno.into()),
                Ok(received) => break received,
            }
        };
        let descriptors: Vec<_> = ancillary.drain().filter_map(rights).flatten().collect();
        let descriptors = (!descriptors.is_empty()).then(|| Aside::new(descriptors));
        if received.bytes == 0 {
            return match self.is_closed() {
                true => Ok(Received::Closed),
                false => Err(io::Error::other("a message is empty")),
            };
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other(
                "a descriptor that was sent could not be received: is the limit of open files reached?",
            ));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::Error::other("a message is longer than the protocol allows"));
        }
        let message = postcard::from_bytes(&bytes[..received.bytes]).map_err(|error| {
            io::Error::other(format!("a message is not one of the protocol: {error}"))
        })?;
        Ok(Received::Message(message, descriptors))
    }

    /// Lets the other end send nothing more. What it has sent can still be received.
    pub(crate) fn hear_no_more(&self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
    }

    /// Whether the other end is closed: an empty message looks just like that.
    fn is_closed(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut hung_up = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut hung_up, Some(&now)) != Ok(0)
    }
}

fn rights(message: RecvAncillaryMessage<'_>) -> Option<rustix::net::AncillaryIter<'_, OwnedFd>> {
    match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
