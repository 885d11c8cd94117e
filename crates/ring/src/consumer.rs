//! The side that reads records: one per ring, in the manager's process. It trusts nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Broken;
use crate::layout::{MAX_SEGMENTS, RecordWord, max_inline_bytes, span_of};
use crate::memory::Memory;
use crate::sync::{Ordering, fence};
use crate::wake::{self, Bell, HotFence};

/// Reads records out of a ring.
///
/// A read begins with [`begin`](Self::begin), which fixes the end: what is committed later waits
/// for the next time. [`read`](Self::read) then yields one record after the other.
pub struct Consumer<B: Bell> {
    memory: Arc<Memory>,
    /// Where the next record begins. Private, and the only truth about it.
    position: u64,
    /// The tail that was accepted last: `position <= limit <= position + capacity`.
    limit: u64,
    /// The head that the producer knows.
    published: u64,
    /// The position up to which records lie side by side, and behind which none reaches: the
    /// limit, or the end of the ring before it.
    bound: u64,
    /// The position up to which nothing but the next record needs a look: the bound, or where
    /// room is to be given back before it.
    look_up_at: u64,
    /// Bytes that the largest record takes.
    max_span: u64,
    displaceable: bool,
    hot: HotFence,
    bell: Arc<B>,
    /// The range behind which the producer of a displaceable ring has moved the head last.
    displaced: Range<u64>,
    /// A record out of a displaceable ring: it is ours only once it has been copied.
    copy: Vec<u8>,
    /// The record that was yielded last: its word, and where its payload begins.
    last: (RecordWord, u64),
}

/// How far ahead of the reading cache lines are asked for: where a record begins is known only when
/// the one before it has arrived, so that the processor can't look ahead by itself.
const PREFETCH_BYTES: u64 = 2048;

/// What was yielded before the first record.
const NO_RECORD: (RecordWord, u64) = (RecordWord::NOTHING, 0);

/// One record. It has left the ring already: dropping it without a look discards it.
pub struct Record<'a> {
    word: RecordWord,
    payload: Payload<'a>,
}

/// Where the bytes of a record are.
enum Payload<'a> {
    /// In the ring, from a position on.
    Ring(&'a Memory, u64),
    /// In a copy that was made before the record could be had.
    Copy(&'a [u8]),
}

impl<B: Bell> Consumer<B> {
    pub(crate) fn new(memory: Arc<Memory>, displaceable: bool, bell: Arc<B>) -> Consumer<B> {
        let max_span = span_of(max_inline_bytes(memory.capacity() as usize));
        Consumer {
            memory,
            position: 0,
            limit: 0,
            published: 0,
            bound: 0,
            look_up_at: 0,
            max_span,
            displaceable,
            hot: HotFence::Full,
            bell,
            displaced: 0..0,
            copy: Vec::new(),
            last: NO_RECORD,
        }
    }

    /// Sets the fence of each release; [`HotFence::Full`] unless both sides agreed on another.
    pub fn set_hot_fence(&mut self, hot: HotFence) {
        self.hot = hot;
    }

    /// Fixes what [`read`](Self::read) will yield to what is committed now; true if that is
    /// anything.
    ///
    /// # Errors
    /// [`Broken`] when the tail is not one that a sound producer writes.
    #[inline]
    pub fn begin(&mut self) -> Result<bool, Broken> {
        // Acquire: pairs with the producer's release; the records up to the tail are whole.
        let tail = self.memory.header().tail.load(Ordering::Acquire);
        if tail == self.limit {
            return Ok(self.limit != self.position);
        }
        let capacity = self.memory.capacity();
        let broken = Broken::Tail { tail, position: self.position, capacity };
        if tail < self.limit || !tail.is_multiple_of(8) {
            return Err(broken);
        }
        if tail - self.position > capacity {
            // In a displaceable ring the producer may have moved the head too. It is looked at
            // after the tail, so it is at least the one that made room for what ends there.
            if !self.adopt_head()? || tail.saturating_sub(self.position) > capacity {
                return Err(broken);
            }
        }
        // The head may have passed that tail since.
        self.limit = self.limit.max(tail);
        Ok(self.limit != self.position)
    }

    /// Whether anything is committed that was not read. Costs one load of a line that only
    /// changes with a commit.
    #[inline]
    pub fn has_records(&self) -> bool {
        self.memory.header().tail.load(Ordering::Acquire) != self.position
    }

    /// The next record within the limit, or `None` at its end.
    ///
    /// # Errors
    /// [`Broken`] when the record is not one that a sound producer writes.
    #[inline]
    pub fn read(&mut self) -> Result<Option<Record<'_>>, Broken> {
        if self.displaceable {
            return self.read_displaceable();
        }
        while self.look_ahead() {
            let at = self.position;
            self.prefetch(at);
            let word = self.read_word(at, self.bound)?;
            self.position = at + word.span();
            if !word.is_pad() {
                self.last = (word, at + 8);
                return Ok(Some(self.current()));
            }
        }
        Ok(None)
    }

    /// The type of the next record, if [`read_of`](Self::read_of) may yield it.
    #[inline]
    pub fn next_type(&mut self) -> Option<u16> {
        if !self.look_ahead() {
            return None;
        }
        let word = RecordWord::from_bits(self.memory.word(self.position).load(Ordering::Relaxed));
        word.is_of(word.type_id()).then(|| word.type_id())
    }

    /// The next record, if it is of this type: a short cut past [`read`](Self::read) for the many
    /// that hold nothing special. What it does not yield, because it is of another type, refers to
    /// a segment, lies in a displaceable ring or is broken, is left to that.
    #[inline(always)]
    pub fn read_of(&mut self, type_id: u16) -> Option<Record<'_>> {
        if !self.look_ahead() {
            return None;
        }
        let at = self.position;
        self.prefetch(at);
        let word = RecordWord::from_bits(self.memory.word(at).load(Ordering::Relaxed));
        let span = word.span();
        if !word.is_of(type_id) || span > self.max_span || span > self.bound - at {
            return None;
        }
        self.position = at + span;
        Some(Record { word, payload: Payload::Ring(&self.memory, at + 8) })
    }

    /// Whether there is a record at the position, in a ring that is not displaceable.
    #[inline]
    fn look_ahead(&mut self) -> bool {
        self.position < self.look_up_at || self.look_up()
    }

    /// Asks for what will be read soon. Not beyond the limit, where the producer is writing.
    #[inline(always)]
    fn prefetch(&self, at: u64) {
        if at + PREFETCH_BYTES < self.limit {
            self.memory.prefetch_read(at + PREFETCH_BYTES);
        }
    }

    /// Finds out how far the records lie side by side, and gives room back if it is time for that:
    /// a quarter of the ring at a time keeps the producer supplied without a store per record.
    #[cold]
    fn look_up(&mut self) -> bool {
        if self.displaceable || self.position == self.limit {
            return false;
        }
        let quarter = self.memory.capacity() / 4;
        if self.position - self.published >= quarter {
            self.release();
        }
        self.bound = self.limit.min(self.position + self.memory.contiguous(self.position));
        self.look_up_at = self.bound.min(self.published + quarter);
        true
    }

    #[cold]
    fn read_displaceable(&mut self) -> Result<Option<Record<'_>>, Broken> {
        self.adopt_head()?;
        // Every turn moves the position, so that a head that moves on and on can't hold us.
        while self.position < self.limit {
            let at = self.position;
            let word = match self.read_word(at, self.limit) {
                Ok(word) => word,
                // The producer may have reused the place under our eyes; then the head has moved.
                Err(broken) => match self.adopt_head()? {
                    true => continue,
                    false => return Err(broken),
                },
            };
            self.last = NO_RECORD;
            if !word.is_pad() {
                self.copy.resize(word.len(), 0);
                self.memory.read(at + 8, &mut self.copy);
            }
            if self.claim(at, at + word.span())? && !word.is_pad() {
                self.last = (word, at + 8);
                return Ok(Some(self.current()));
            }
        }
        Ok(None)
    }

    /// The record that [`read`](Self::read) has yielded last, once more. It is readable until the
    /// next call that reads or of [`release`](Self::release).
    #[inline]
    pub fn current(&self) -> Record<'_> {
        let (word, position) = self.last;
        let payload = match self.displaceable {
            true => Payload::Copy(&self.copy),
            false => Payload::Ring(&self.memory, position),
        };
        Record { word, payload }
    }

    /// Tells the producer how far we are, and wakes it if it waits for that room.
    #[inline]
    pub fn release(&mut self) {
        let header = self.memory.header();
        if !self.displaceable && self.published != self.position {
            // Release: pairs with the producer's acquire; our reads come before it.
            header.head.store(self.position, Ordering::Release);
        }
        self.published = self.position;
        let head = self.position;
        wake::wake(&header.space_wanted, self.hot, &*self.bell, |wanted| head >= wanted);
    }

    /// Bytes that are committed and were not read.
    pub fn queued_bytes(&self) -> u64 {
        let tail = self.memory.header().tail.load(Ordering::Relaxed);
        tail.saturating_sub(self.position).min(self.memory.capacity())
    }

    /// Announces that this side is about to sleep. Execute a [`ColdFence`](crate::ColdFence) next,
    /// then look at [`has_records`](Self::has_records) once more.
    pub fn announce_sleep(&self) {
        wake::announce(&self.memory.header().consumer_asleep, 1);
    }

    /// Takes the announcement back; true if the producer saw it first, and rings the bell.
    pub fn stay_awake(&self) -> bool {
        !wake::retract(&self.memory.header().consumer_asleep)
    }

    /// What the producer has counted for a type so far: events sent and dropped by it. The
    /// producer writes these numbers: they are a report, not a fact.
    pub fn reported_counts(&self, type_id: u16) -> (u64, u64) {
        self.memory.counters(type_id).map_or((0, 0), |counters| {
            (counters.sent.load(Ordering::Relaxed), counters.dropped.load(Ordering::Relaxed))
        })
    }

    /// The type of the event that the producer dropped when it was killed, if it has not counted it.
    /// Asked when its process is gone.
    ///
    /// It notes the record in the header before it moves the head, counts, and takes the note back.
    /// A note is left, then, from one of three: a drop without its count; one that was counted, as
    /// the counter shows; or none, because the record was read first or the head was not moved,
    /// and then the record is not in the range that was displaced last.
    pub fn uncounted_drop(&mut self) -> Option<u16> {
        // A head that is no sound producer's says nothing.
        self.adopt_head().ok()?;
        let displacing = &self.memory.header().displacing;
        // Acquire: pairs with the producer's release; what it had counted before is seen.
        let position = displacing.record.load(Ordering::Acquire).checked_sub(1)?;
        if !self.displaced.contains(&position) {
            return None;
        }
        // Nothing was written over it since: the producer takes its note back first.
        let word = RecordWord::from_bits(self.memory.word(position).load(Ordering::Relaxed));
        let dropped = self.memory.counters(word.type_id())?.dropped.load(Ordering::Relaxed);
        let before = displacing.dropped_before.load(Ordering::Relaxed);
        (dropped == before).then_some(word.type_id())
    }

    /// Where the last read ended or will end: the tail that was accepted last.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether anything before the limit was not read.
    #[inline]
    pub fn has_limit_ahead(&self) -> bool {
        self.position < self.limit
    }

    /// An eye on the tail alone, for a reader of many rings that are mostly idle.
    #[cfg(not(loom))]
    pub fn tail_watch(&self) -> TailWatch {
        TailWatch::new(Arc::clone(&self.memory))
    }

    /// The way for segments back to the producer, usable from any thread.
    pub fn segments(&self) -> Segments<B> {
        Segments { memory: Arc::clone(&self.memory), bell: Arc::clone(&self.bell) }
    }

    #[inline]
    fn read_word(&self, at: u64, bound: u64) -> Result<RecordWord, Broken> {
        // Relaxed: ordered by the acquire of the tail.
        let word = RecordWord::from_bits(self.memory.word(at).load(Ordering::Relaxed));
        let room = self.memory.contiguous(at).min(bound - at).min(self.max_span);
        if word.span() > room {
            return Err(Broken::Record { position: at, len: word.len() as u32, room });
        }
        Ok(word)
    }

    /// In a displaceable ring the producer may have moved the head over records that it dropped:
    /// goes there; true if it has. If not, nothing that was read from the position on was written
    /// over: a word that was read before would have shown it.
    fn adopt_head(&mut self) -> Result<bool, Broken> {
        if !self.displaceable {
            return Ok(false);
        }
        // Acquire: pairs with the producer's release fence after its exchange. Whoever has read
        // what was written behind that fence finds the head moved.
        fence(Ordering::Acquire);
        // Acquire: pairs with the producer's exchange.
        let head = self.memory.header().head.load(Ordering::Acquire);
        if head == self.position {
            return Ok(false);
        }
        self.go_to(head)?;
        Ok(true)
    }

    /// Goes on where the producer has moved the head to.
    fn go_to(&mut self, head: u64) -> Result<(), Broken> {
        // Displacing never passes the published tail, but that may be newer than our limit.
        let tail = self.memory.header().tail.load(Ordering::Acquire);
        if head < self.position || head > tail || !head.is_multiple_of(8) || tail < self.limit {
            return Err(Broken::Head { head, position: self.position, tail });
        }
        self.displaced = self.position..head;
        self.position = head;
        self.limit = self.limit.max(head);
        Ok(())
    }

    /// Takes the range for this side, if the producer has not displaced its beginning: goes behind
    /// it or, if it was too late, where the producer has moved the head to.
    fn claim(&mut self, from: u64, to: u64) -> Result<bool, Broken> {
        let head = &self.memory.header().head;
        // AcqRel: our copy comes before it; whoever wins owns the range.
        match head.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.position = to;
                Ok(true)
            }
            Err(head) => {
                self.go_to(head)?;
                Ok(false)
            }
        }
    }
}

impl Record<'_> {
    /// Type, size and kind.
    #[inline]
    pub fn word(&self) -> RecordWord {
        self.word
    }

    /// Copies the first `into.len()` bytes of the payload.
    ///
    /// # Panics
    /// When the payload is shorter.
    #[inline(always)]
    pub fn copy_to(&self, into: &mut [u8]) {
        assert!(
            into.len() <= self.word.len(),
            "the record has {} bytes, not {}",
            self.word.len(),
            into.len()
        );
        match self.payload {
            Payload::Ring(memory, position) => memory.read(position, into),
            Payload::Copy(copy) => into.copy_from_slice(&copy[..into.len()]),
        }
    }
}

/// Sees how far a producer has come, by one load.
#[cfg(not(loom))]
pub struct TailWatch {
    tail: std::ptr::NonNull<crate::sync::AtomicU64>,
    _memory: Arc<Memory>,
}

#[cfg(not(loom))]
// SAFETY: the tail is atomic, and the memory that it lies in is kept alive and may be shared.
unsafe impl Send for TailWatch {}
#[cfg(not(loom))]
// SAFETY: as above.
unsafe impl Sync for TailWatch {}

#[cfg(not(loom))]
impl TailWatch {
    fn new(memory: Arc<Memory>) -> TailWatch {
        TailWatch { tail: std::ptr::NonNull::from(&*memory.header().tail), _memory: memory }
    }

    /// The producer's tail, unchecked: only a change means anything.
    #[inline]
    pub fn tail(&self) -> u64 {
        // SAFETY: the tail lies in the memory that `_memory` keeps mapped.
        let tail = unsafe { self.tail.as_ref() };
        // Relaxed: whoever reads on because of it begins with an acquire.
        tail.load(Ordering::Relaxed)
    }
}

/// Gives segments back to the producer that made them.
pub struct Segments<B: Bell> {
    memory: Arc<Memory>,
    bell: Arc<B>,
}

impl<B: Bell> Segments<B> {
    /// Segment `index` may be written again. All reads of it must be done.
    pub fn give_back(&self, index: u32) {
        debug_assert!((index as usize) < MAX_SEGMENTS);
        let header = self.memory.header();
        // Release: pairs with the producer's acquire in `take_returned_segments`.
        header.segments_free.fetch_or(1 << (index % MAX_SEGMENTS as u32), Ordering::Release);
        wake::wake(&header.space_wanted, HotFence::Full, &*self.bell, |wanted| wanted == 1);
    }
}

impl<B: Bell> Clone for Segments<B> {
    fn clone(&self) -> Segments<B> {
        Segments { memory: Arc::clone(&self.memory), bell: Arc::clone(&self.bell) }
    }
}
