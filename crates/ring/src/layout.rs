//! Every shared byte: the header and the record word. `docs/ring-format.md` says the same in prose.

use crate::sync::AtomicU64;

/// `EVPYRING`, the first eight bytes of a ring.
#[cfg(not(loom))]
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"EVPYRING");
/// The layout that this crate reads and writes.
pub const VERSION: u64 = 1;
/// The smallest ring, in bytes.
pub const MIN_CAPACITY: usize = 4096;
/// The largest ring, in bytes.
pub const MAX_CAPACITY: usize = 1 << 30;
/// Bytes before the first record.
#[cfg(not(loom))]
pub(crate) const HEADER_BYTES: usize = 4096;
/// Counters exist for this many type ids: 1 to `MAX_EVENT_TYPES`.
pub const MAX_EVENT_TYPES: usize = if cfg!(loom) { 2 } else { 128 };
/// Large payloads that can be on their way at one time, one bit of `segments_free` each.
pub const MAX_SEGMENTS: usize = 64;
/// No record of a ring holds more payload than this, in bytes.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

const RECORD_ALIGN: u64 = 8;
const FLAG_PAD: u16 = 1;
const FLAG_LARGE: u16 = 2;

/// A value alone on its pair of cache lines, so that the two sides do not slow each other down.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

impl<T> core::ops::Deref for Line<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The shared header. Atomics only: the other side may write any byte of it at any time.
#[repr(C)]
pub(crate) struct Header {
    pub(crate) identity: Line<Identity>,
    /// Where the next record will begin. Written by the producer.
    pub(crate) tail: Line<AtomicU64>,
    /// Everything before it may be overwritten. Written by the consumer; in a displaceable ring
    /// by whichever side wins the compare-and-swap.
    pub(crate) head: Line<AtomicU64>,
    /// 1 while the consumer sleeps or is about to.
    pub(crate) consumer_asleep: Line<AtomicU64>,
    /// While the producer sleeps: the head at which it wants to be woken. 0 when it is awake.
    pub(crate) space_wanted: Line<AtomicU64>,
    /// One bit per large payload that the consumer has given back.
    pub(crate) segments_free: Line<AtomicU64>,
    pub(crate) counters: Line<[Counters; MAX_EVENT_TYPES]>,
    /// What the producer of a displaceable ring is about to drop.
    pub(crate) displacing: Line<Displacing>,
}

/// What a producer checks before it trusts the size of the ring.
#[repr(C)]
pub(crate) struct Identity {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU64,
    pub(crate) capacity: AtomicU64,
    pub(crate) displaceable: AtomicU64,
}

/// What the producer has counted for one event type. Written by the producer, read for statistics.
#[repr(C)]
pub(crate) struct Counters {
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Lets the consumer count a drop that the producer was killed before it could count. Written by
/// the producer.
#[repr(C)]
pub(crate) struct Displacing {
    /// The position of the record, plus 1; 0 if there is none.
    pub(crate) record: AtomicU64,
    /// What `dropped` of its type is until the drop is counted.
    pub(crate) dropped_before: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() <= HEADER_BYTES);
    assert!(core::mem::offset_of!(Header, tail) == 128);
    assert!(core::mem::offset_of!(Header, head) == 256);
    assert!(core::mem::offset_of!(Header, consumer_asleep) == 384);
    assert!(core::mem::offset_of!(Header, space_wanted) == 512);
    assert!(core::mem::offset_of!(Header, segments_free) == 640);
    assert!(core::mem::offset_of!(Header, counters) == 768);
    assert!(core::mem::offset_of!(Header, displacing) == 2816);
};

/// The first word of a record: `len u32, type id u16, flags u16`, little end first.
///
/// It is kept as one word: fields that are stored one by one and loaded together make a processor
/// wait, for every record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecordWord(u64);

impl RecordWord {
    /// No record.
    pub(crate) const NOTHING: RecordWord = RecordWord(0);

    #[inline]
    pub(crate) fn new(type_id: u16, len: usize, large: bool) -> RecordWord {
        let flags = if large { FLAG_LARGE } else { 0 };
        RecordWord(len as u32 as u64 | u64::from(type_id) << 32 | u64::from(flags) << 48)
    }

    /// A record that fills `span` bytes up to the end of the ring and carries nothing.
    pub(crate) fn pad(span: u64) -> RecordWord {
        RecordWord((span - RECORD_ALIGN) as u32 as u64 | u64::from(FLAG_PAD) << 48)
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> RecordWord {
        RecordWord(bits)
    }

    #[inline]
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    #[inline]
    fn flags(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Whether it is an event of this type that travels in the ring itself.
    #[inline]
    pub(crate) fn is_of(self, type_id: u16) -> bool {
        self.0 >> 32 == u64::from(type_id)
    }

    #[inline]
    pub(crate) fn is_pad(self) -> bool {
        self.flags() & FLAG_PAD != 0
    }

    /// Bytes that the record takes in the ring, word and padding included.
    #[inline]
    pub(crate) fn span(self) -> u64 {
        span_of(self.len())
    }

    /// The event type's number.
    #[inline]
    pub fn type_id(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Bytes of payload.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a word is no collection")]
    pub fn len(self) -> usize {
        self.0 as u32 as usize
    }

    /// Whether the payload is a reference to a segment instead of the event itself.
    #[inline]
    pub fn is_large(self) -> bool {
        self.flags() & FLAG_LARGE != 0
    }
}

impl core::fmt::Debug for RecordWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RecordWord")
            .field("len", &self.len())
            .field("type_id", &self.type_id())
            .field("flags", &self.flags())
            .finish()
    }
}

/// Bytes that a record with `len` bytes of payload takes in the ring.
#[inline]
pub(crate) fn span_of(len: usize) -> u64 {
    // Always rounded up by a mask: `next_multiple_of` looks first whether it has to.
    RECORD_ALIGN + ((len as u64 + (RECORD_ALIGN - 1)) & !(RECORD_ALIGN - 1))
}

/// The largest payload that travels in a ring of `capacity` bytes; a larger one needs a segment.
pub fn max_inline_bytes(capacity: usize) -> usize {
    // A model has room for a few words only.
    if cfg!(loom) { capacity } else { MAX_RECORD_BYTES.min(capacity / 8) }
}

/// Whether a ring can have `capacity` bytes, and if not, the nearest size that it can have.
pub fn check_capacity(capacity: usize) -> Result<(), usize> {
    let suggestion =
        capacity.clamp(MIN_CAPACITY, MAX_CAPACITY).next_power_of_two().min(MAX_CAPACITY);
    if suggestion == capacity { Ok(()) } else { Err(suggestion) }
}
