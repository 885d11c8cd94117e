//! The limit of any ring: fixed 64-byte slots in shared memory and two positions, without
//! framing, checks or waking.
//!
//! As many bytes as EventPy's default ring, positions on cache lines apart, and each side
//! keeps the other's position until that is used up. Two of these make the two limits: one
//! publishes every record, as `emit` must, the other every 32, as a batch may.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::Result;
use crate::record::Record;
use crate::transport::{self, Transport};

/// Slots in the ring, a power of two: 1 MiB of records.
const SLOTS: u32 = 16 * 1024;

/// The consumer gives slots back after at most this many, so that the producer never
/// waits for a whole ring to be read.
const BATCH: u32 = SLOTS / 16;

/// A ring whose producer publishes after every `EVERY` records.
pub struct BareRing<const EVERY: u32>;

impl<const EVERY: u32> Transport for BareRing<EVERY> {
    type Listener = Receiver;
    type Receiver = Receiver;
    type Sender = Sender<EVERY>;

    fn listen() -> Result<(Receiver, String)> {
        let ring = Ring::create()?;
        let link = ring.fd.as_raw_fd().to_string();
        Ok((Receiver { ring, head: 0, tail: 0 }, link))
    }

    fn accept(receiver: Receiver) -> Result<Receiver> {
        Ok(receiver)
    }

    fn connect(link: &str) -> Result<Sender<EVERY>> {
        Ok(Sender { ring: Ring::inherit(link.parse()?)?, tail: 0, head: 0, published: 0 })
    }
}

/// The producer's end.
pub struct Sender<const EVERY: u32> {
    ring: Ring,
    /// The slot to write next.
    tail: u32,
    /// The last `head` seen: slots up to `head + SLOTS` are free.
    head: u32,
    /// The last `tail` the consumer was told.
    published: u32,
}

impl<const EVERY: u32> Sender<EVERY> {
    /// The position that the consumer reads, to wake it by.
    pub fn tail(&self) -> &AtomicU32 {
        &self.ring.shared().tail.0
    }

    #[inline]
    fn publish(&mut self) {
        // Pairs with the Acquire in `Receiver::await_records`: the slots come first.
        self.tail().store(self.tail, Release);
        self.published = self.tail;
    }

    #[cold]
    fn await_room(&mut self) {
        self.publish();
        while self.tail.wrapping_sub(self.head) == SLOTS {
            spin_loop();
            // Pairs with the Release in `Receiver::take_ready`: the slots were read.
            self.head = self.ring.shared().head.0.load(Acquire);
        }
    }
}

impl<const EVERY: u32> transport::Sender for Sender<EVERY> {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        if self.tail.wrapping_sub(self.head) == SLOTS {
            self.await_room();
        }
        let slot = self.ring.slot(self.tail);
        // SAFETY: the slot is free by the check above, so only this sender uses it.
        unsafe { slot.write(record) };
        self.tail = self.tail.wrapping_add(1);
        if self.tail.wrapping_sub(self.published) >= EVERY {
            self.publish();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.publish();
        Ok(())
    }
}

/// The consumer's end.
pub struct Receiver {
    ring: Ring,
    /// The slot to read next.
    head: u32,
    /// The last `tail` seen: slots before it are written.
    tail: u32,
}

impl Receiver {
    /// The position that the producer moves, to sleep on.
    pub fn tail(&self) -> &AtomicU32 {
        &self.ring.shared().tail.0
    }

    /// Looks for records, and tells the position to sleep on when there are none.
    #[inline]
    pub fn find_records(&mut self) -> std::result::Result<(), u32> {
        // Pairs with the Release in `Sender::publish`.
        self.tail = self.tail().load(Acquire);
        if self.tail == self.head { Err(self.tail) } else { Ok(()) }
    }

    /// Hands the records that were found to `take`, and gives their slots back.
    #[inline]
    pub fn take_ready(&mut self, take: &mut impl FnMut(&Record)) {
        let end = self.head.wrapping_add(BATCH.min(self.tail.wrapping_sub(self.head)));
        while self.head != end {
            let slot = self.ring.slot(self.head);
            // SAFETY: the slot is before `tail`, so it is written, and the producer
            // leaves it alone until `head` has passed it.
            take(unsafe { &*slot });
            self.head = self.head.wrapping_add(1);
        }
        // Pairs with the Acquire in `Sender::await_room`.
        self.ring.shared().head.0.store(self.head, Release);
    }
}

impl transport::Receiver for Receiver {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        while self.tail == self.head && self.find_records().is_err() {
            spin_loop();
        }
        self.take_ready(take);
        Ok(())
    }
}

/// The memory that both sides see.
#[repr(C)]
struct Shared {
    tail: Position,
    head: Position,
    slots: [UnsafeCell<Record>; SLOTS as usize],
}

/// A position alone on its cache lines: the hardware fetches these in pairs.
#[repr(align(128))]
struct Position(AtomicU32);

/// A mapping of [`Shared`], which stays until the process ends.
struct Ring {
    /// Kept open for the producer to inherit.
    fd: OwnedFd,
    shared: NonNull<Shared>,
}

impl Ring {
    /// A new, empty ring. Its memfd is not closed on exec: the producer inherits it.
    fn create() -> Result<Self> {
        let fd = memfd_create("bare-ring", MemfdFlags::empty())?;
        ftruncate(&fd, size_of::<Shared>() as u64)?;
        Self::map(fd)
    }

    /// The ring that the consumer made, in the producer.
    fn inherit(fd: RawFd) -> Result<Self> {
        // SAFETY: the consumer's link names the memfd that this process inherited from
        // it, and nothing else here uses it.
        Self::map(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn map(fd: OwnedFd) -> Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let address = unsafe { mmap(null_mut(), size_of::<Shared>(), protection, flags, &fd, 0)? };
        let shared = NonNull::new(address.cast()).ok_or("a ring can't be mapped at address 0")?;
        Ok(Self { fd, shared })
    }

    #[inline]
    fn shared(&self) -> &Shared {
        // SAFETY: the mapping is page-aligned, as long as `Shared`, zeroed at first, which
        // is a valid `Shared`, and stays; all of it is atomic or in an `UnsafeCell`.
        unsafe { self.shared.as_ref() }
    }

    #[inline]
    fn slot(&self, position: u32) -> *mut Record {
        self.shared().slots[(position % SLOTS) as usize].get()
    }
}
