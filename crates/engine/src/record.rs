//! One event's bytes, on the way from a ring to whoever decodes them.

use std::sync::Arc;

pub use eventpy_ring::Record as RingRecord;
use eventpy_ring::{SegmentReader, Segments};

use crate::engine::DispatcherId;
use crate::link::slot_of;
use crate::os;
use crate::space::SpaceBell;

/// One event's bytes. It counts as delivered from the moment that it is yielded.
pub struct Record<'a> {
    dispatcher: DispatcherId,
    type_id: u16,
    body: Body<'a>,
}

enum Body<'a> {
    Inline(RingRecord<'a>),
    Queued(Vec<u8>),
    Large(LargePayload),
}

/// The payload of a large event, in memory that the dispatcher shares with us. It goes back to the
/// dispatcher when this is dropped, which may happen in any thread.
pub struct LargePayload {
    pub(crate) segment: Arc<SegmentReader>,
    pub(crate) segments: Segments<SpaceBell>,
    pub(crate) id: u32,
    pub(crate) len: usize,
    /// To notice that this process is a forked copy, which has nothing to give back.
    pub(crate) forks: u32,
}

impl<'a> Record<'a> {
    pub(crate) fn inline(dispatcher: DispatcherId, record: RingRecord<'a>) -> Record<'a> {
        Record { dispatcher, type_id: record.word().type_id(), body: Body::Inline(record) }
    }

    pub(crate) fn queued(dispatcher: DispatcherId, type_id: u16, payload: Vec<u8>) -> Record<'a> {
        Record { dispatcher, type_id, body: Body::Queued(payload) }
    }

    pub(crate) fn large(
        dispatcher: DispatcherId,
        type_id: u16,
        payload: LargePayload,
    ) -> Record<'a> {
        Record { dispatcher, type_id, body: Body::Large(payload) }
    }

    /// Who sent it.
    #[inline]
    pub fn dispatcher(&self) -> DispatcherId {
        self.dispatcher
    }

    /// The place of its type in [`DispatcherSpec::event_types`](crate::DispatcherSpec), from 1.
    #[inline]
    pub fn type_id(&self) -> u16 {
        self.type_id
    }

    /// The payload as shared memory, if the event was too large for the ring.
    ///
    /// # Errors
    /// The record itself when its payload is not large.
    pub fn into_large(self) -> Result<LargePayload, Record<'a>> {
        match self {
            Record { body: Body::Large(payload), .. } => Ok(payload),
            other => Err(other),
        }
    }
}

/// An event's bytes, wherever they are.
#[expect(clippy::len_without_is_empty, reason = "a payload is no collection")]
pub trait Payload {
    /// Bytes of payload.
    fn len(&self) -> usize;

    /// Copies the first `into.len()` bytes of the payload.
    ///
    /// # Panics
    /// When the payload is shorter.
    fn copy_to(&self, into: &mut [u8]);

    /// Replaces the content of `into` with the whole payload.
    #[inline]
    fn read(&self, into: &mut Vec<u8>) {
        into.resize(self.len(), 0);
        self.copy_to(into);
    }
}

impl Payload for Record<'_> {
    fn len(&self) -> usize {
        match &self.body {
            Body::Inline(record) => record.word().len(),
            Body::Queued(payload) => payload.len(),
            Body::Large(payload) => payload.len,
        }
    }

    fn copy_to(&self, into: &mut [u8]) {
        match &self.body {
            Body::Inline(record) => record.copy_to(into),
            Body::Queued(payload) => into.copy_from_slice(&payload[..into.len()]),
            Body::Large(payload) => payload.copy_to(into),
        }
    }
}

/// A record that lies in a ring as it is.
impl Payload for RingRecord<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.word().len()
    }

    #[inline(always)]
    fn copy_to(&self, into: &mut [u8]) {
        self.copy_to(into);
    }
}

impl LargePayload {
    /// Bytes of payload.
    #[expect(clippy::len_without_is_empty, reason = "a large payload is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first byte. The dispatcher could still write there: no Rust slice may be made of it.
    pub fn as_ptr(&self) -> *const u8 {
        self.segment.as_ptr()
    }

    /// Copies the first `into.len()` bytes of the payload.
    ///
    /// # Panics
    /// When the payload is shorter.
    pub fn copy_to(&self, into: &mut [u8]) {
        assert!(into.len() <= self.len, "the payload has {} bytes, not {}", self.len, into.len());
        self.segment.copy_to(into);
    }
}

impl Drop for LargePayload {
    fn drop(&mut self) {
        if self.forks == os::fork_count_again() {
            self.segments.give_back(slot_of(self.id) as u32);
        }
    }
}
