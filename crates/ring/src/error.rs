//! What can go wrong, one small enum per operation.

use std::io;

use crate::layout::{MAX_CAPACITY, MIN_CAPACITY, VERSION};

/// A ring could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The capacity is not a power of two within the bounds.
    #[error(
        "a ring of {capacity} bytes can't be made: the size must be a power of two from \
         {MIN_CAPACITY} to {MAX_CAPACITY}; the next one is {suggestion}"
    )]
    Capacity {
        /// What was asked for, in bytes.
        capacity: usize,
        /// The nearest size that would do, in bytes.
        suggestion: usize,
    },
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
}

/// Memory that another process sent could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The memory does not begin as a ring does.
    #[error("the memory is not a ring: it begins with {found:#018x}")]
    NotARing {
        /// The first eight bytes.
        found: u64,
    },
    /// The other side was built with another layout.
    #[error(
        "the ring has format {found}, this side speaks {VERSION}: both sides must be built from one version"
    )]
    Version {
        /// The version in the header.
        found: u64,
    },
    /// The size of the memory and the size in the header differ, or it can still change.
    #[error(
        "the memory has {found} bytes and seals {seals:#x}, where {expected} sealed bytes were announced"
    )]
    Size {
        /// The size of the memory, in bytes.
        found: u64,
        /// The size that was announced, in bytes.
        expected: u64,
        /// The seals that are set (`F_SEAL_*`).
        seals: u32,
    },
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Os {
        /// What was tried.
        action: &'static str,
        /// Why it was refused.
        source: io::Error,
    },
}

/// The producer wrote something that no sound producer writes; the ring is not to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The tail moved backwards, past the capacity or off a record's alignment.
    #[error("its tail is {tail} while the reader is at {position} of a ring of {capacity} bytes")]
    Tail {
        /// The tail that was found.
        tail: u64,
        /// Where the consumer reads.
        position: u64,
        /// Bytes in the ring.
        capacity: u64,
    },
    /// The head, which a producer may move in a displaceable ring, left the committed range.
    #[error("its head is {head} while the reader is at {position} and the tail at {tail}")]
    Head {
        /// The head that was found.
        head: u64,
        /// Where the consumer reads.
        position: u64,
        /// The last tail that was accepted.
        tail: u64,
    },
    /// A record claims more bytes than were committed.
    #[error("the record at {position} claims {len} bytes where {room} are left")]
    Record {
        /// Where the record begins.
        position: u64,
        /// Its claimed payload, in bytes.
        len: u32,
        /// Bytes that it may take at the most, header included.
        room: u64,
    },
}

/// There is no room for a record now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ring is full until the reader has passed position {wanted}")]
pub struct Full {
    /// The head at which the record fits.
    pub wanted: u64,
}
