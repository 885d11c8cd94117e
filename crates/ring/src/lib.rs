//! A byte ring in shared memory between two processes.
//!
//! One process writes records, another reads them. A record is a type number and bytes; what they
//! mean is the affair of the layer above. The ring promises:
//!
//! - **Order and wholeness.** Records arrive in the order of their commits, each whole or not at
//!   all, also when the writing process is killed at any instruction.
//! - **No trust.** The reader checks every position and length that it finds in shared memory; what
//!   no sound producer writes is reported as [`Broken`] rather than read wrongly. No reference to
//!   memory that the other side can write leaves this crate: bytes are copied first.
//! - **No system call while both sides run.** A side that sleeps says so in the ring, and only
//!   then the other side rings its bell (see [`Bell`] and the module `wake` for the argument).
//! - **Nothing to clean up.** The memory has no name; it goes with the last process that maps it.
//!
//! ```
//! let (mut producer, mut consumer) = eventpy_ring::heap(4096, false)?;
//! producer.push(7, b"hello")?;
//! producer.publish();
//!
//! assert!(consumer.begin()?);
//! let record = consumer.read()?.expect("one record was published");
//! let mut payload = vec![0; record.word().len()];
//! record.copy_to(&mut payload);
//! assert_eq!((record.word().type_id(), payload.as_slice()), (7, &b"hello"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | `layout` | every shared byte: header and record word |
//! | `memory` | the mapping, and the only accesses to it |
//! | `producer`, `consumer` | the two sides |
//! | `wake` | the sleep and wake handshake, and why no wake-up is lost |
//! | `bell` | the eventfd |
//! | `segment` | memory for payloads that are too large for the ring |
//! | `os` | the system calls |
//! | `room` | whether there is memory to be had |

#[cfg(not(loom))]
mod bell;
mod consumer;
mod error;
mod layout;
mod memory;
#[cfg(not(loom))]
mod os;
mod producer;
#[cfg(not(loom))]
mod room;
#[cfg(not(loom))]
mod segment;
mod sync;
mod wake;

#[cfg(not(loom))]
pub use bell::EventBell;
#[cfg(not(loom))]
pub use consumer::TailWatch;
pub use consumer::{Consumer, Record, Segments};
pub use error::{AttachError, Broken, CreateError, Full};
pub use layout::{
    MAX_CAPACITY, MAX_EVENT_TYPES, MAX_RECORD_BYTES, MAX_SEGMENTS, MIN_CAPACITY, RecordWord,
    VERSION, check_capacity, max_inline_bytes,
};
pub use producer::{Displaced, Displacement, Producer, Reservation};
#[cfg(not(loom))]
pub use segment::{SegmentReader, SegmentWriter, parcel, unpack};
#[cfg(not(loom))]
pub use wake::register_for_barriers;
pub use wake::{Bell, ColdFence, HotFence};

#[cfg(not(loom))]
pub use shared::{Silent, attach, create, heap};

#[cfg(loom)]
pub use modelled::modelled;

#[cfg(not(loom))]
mod shared {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use crate::memory::Memory;
    use crate::{AttachError, Bell, Consumer, CreateError, EventBell, Producer};

    /// Makes a ring for another process: the reader and the descriptor of the memory to send.
    ///
    /// In a `displaceable` ring the producer may drop the oldest records when there is no room.
    /// `space` is rung when a sleeping producer has room again.
    ///
    /// # Errors
    /// [`CreateError::Capacity`] for a size that is no power of two or out of bounds,
    /// [`CreateError::Os`] when memory or descriptors are used up.
    pub fn create<B: Bell>(
        capacity: usize,
        displaceable: bool,
        space: Arc<B>,
    ) -> Result<(Consumer<B>, OwnedFd), CreateError> {
        let (memory, fd) = Memory::create(capacity, displaceable)?;
        Ok((Consumer::new(memory, displaceable, space), fd))
    }

    /// Maps a ring that another process made, to write into it. `data` is rung when the reader
    /// sleeps.
    ///
    /// # Errors
    /// [`AttachError`] when the memory is not a ring of this version.
    pub fn attach(fd: OwnedFd, data: EventBell) -> Result<Producer<EventBell>, AttachError> {
        let (memory, displaceable) = Memory::attach(fd)?;
        Ok(Producer::new(memory, displaceable, data))
    }

    /// A bell that nobody hears, for a ring whose two sides never sleep.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct Silent;

    impl Bell for Silent {
        fn ring(&self) {}
    }

    /// A ring within one process: both sides, without bells. For tests, sanitizers and fuzzing.
    ///
    /// # Errors
    /// [`CreateError::Capacity`] for a size that is no power of two or out of bounds.
    pub fn heap(
        capacity: usize,
        displaceable: bool,
    ) -> Result<(Producer<Silent>, Consumer<Silent>), CreateError> {
        let memory = Memory::heap(capacity, displaceable)?;
        let producer = Producer::new(Arc::clone(&memory), displaceable, Silent);
        Ok((producer, Consumer::new(memory, displaceable, Arc::new(Silent))))
    }
}

#[cfg(loom)]
mod modelled {
    use std::sync::Arc;

    use crate::memory::Memory;
    use crate::{Bell, Consumer, Producer};

    /// A ring that loom watches, with the model's own bells.
    pub fn modelled<D: Bell, S: Bell>(
        capacity: usize,
        displaceable: bool,
        data: D,
        space: S,
    ) -> (Producer<D>, Consumer<S>) {
        let memory = Memory::heap(capacity);
        let producer = Producer::new(Arc::clone(&memory), displaceable, data);
        (producer, Consumer::new(memory, displaceable, Arc::new(space)))
    }
}
