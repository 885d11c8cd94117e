//! EventPy's ring alone: framed and checked records, published every 32, between two sides that
//! never sleep but could.
//!
//! As the engine does, both sides leave out the fence after each publish where the kernel has
//! `membarrier`.

use std::hint::spin_loop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use eventpy_ring::{ColdFence, Consumer, EventBell, HotFence, Producer};
use rustix::io::{FdFlags, fcntl_setfd};
use zerocopy::{FromZeros, IntoBytes};

use crate::Result;
use crate::record::Record;
use crate::transport::{self, Transport};

/// EventPy's default ring.
const CAPACITY_BYTES: usize = 1 << 20;

/// Records that are published together.
const BATCH: u32 = 32;

/// Any type id will do.
const TYPE_ID: u16 = 1;

/// A ring with its bells.
pub struct EventPyRing;

impl Transport for EventPyRing {
    type Listener = Receiver;
    type Receiver = Receiver;
    type Sender = Sender;

    fn listen() -> Result<(Receiver, String)> {
        let space = Arc::new(EventBell::new()?);
        let (mut consumer, memory) = eventpy_ring::create(CAPACITY_BYTES, false, space)?;
        consumer.set_hot_fence(hot_fence());
        let data = EventBell::new()?.try_clone()?;
        let link = format!("{},{}", inheritable(&memory)?, inheritable(&data)?);
        Ok((Receiver { consumer, record: Record::new_zeroed(), _inherited: [memory, data] }, link))
    }

    fn accept(receiver: Receiver) -> Result<Receiver> {
        Ok(receiver)
    }

    fn connect(link: &str) -> Result<Sender> {
        let (memory, data) = link.split_once(',').ok_or("a link names two descriptors")?;
        let data = EventBell::from(inherited(data.parse()?));
        let mut producer = eventpy_ring::attach(inherited(memory.parse()?), data)?;
        producer.set_hot_fence(hot_fence());
        Ok(Sender { producer, unpublished: 0 })
    }
}

/// The producer's end.
pub struct Sender {
    producer: Producer<EventBell>,
    unpublished: u32,
}

impl Sender {
    #[inline]
    fn publish(&mut self) {
        self.producer.publish();
        self.unpublished = 0;
    }
}

impl transport::Sender for Sender {
    #[inline]
    fn send(&mut self, record: Record) -> Result<()> {
        // As the engine does with a plain event.
        while self.producer.push(TYPE_ID, record.as_bytes()).is_err() {
            self.publish();
            spin_loop();
        }
        self.unpublished += 1;
        if self.unpublished == BATCH {
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
    consumer: Consumer<EventBell>,
    /// Where each record is copied to.
    record: Record,
    /// Kept open for the producer to inherit.
    _inherited: [OwnedFd; 2],
}

impl transport::Receiver for Receiver {
    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()> {
        while !self.consumer.begin()? {
            spin_loop();
        }
        // As the engine does: a run of records of one type, then whatever ended the run.
        loop {
            while let Some(record) = self.consumer.read_of(TYPE_ID) {
                record.copy_to(self.record.as_mut_bytes());
                take(&self.record);
            }
            let Some(record) = self.consumer.read()? else { break };
            record.copy_to(self.record.as_mut_bytes());
            take(&self.record);
        }
        self.consumer.release();
        Ok(())
    }
}

/// The fence that is enough for a side whose peer sleeps as the engine's do.
fn hot_fence() -> HotFence {
    match eventpy_ring::register_for_barriers() {
        ColdFence::Everywhere => HotFence::Compiler,
        ColdFence::Full => HotFence::Full,
    }
}

/// Lets the producer inherit a descriptor, and tells its number.
fn inheritable(fd: &impl AsFd) -> Result<RawFd> {
    fcntl_setfd(fd, FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd())
}

/// A descriptor that the consumer's link names, in the producer.
fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: this process inherited it from the consumer, and nothing else here uses it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
