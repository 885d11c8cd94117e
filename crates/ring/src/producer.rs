//! The side that writes records: one per ring, in the dispatcher's process.

use std::sync::Arc;

use crate::error::Full;
use crate::layout::{MAX_EVENT_TYPES, RecordWord, max_inline_bytes, span_of};
use crate::memory::Memory;
use crate::sync::{Ordering, fence};
use crate::wake::{self, Bell, ColdFence, HotFence};

/// How far ahead of the writing cache lines are asked for. A line that the other side has read is
/// written only when it has come back, and a processor asks for few of them by itself: its stores
/// leave it in order.
const PREFETCH_BYTES: u64 = 2048;

/// Writes records into a ring.
///
/// A record is written past the tail ([`reserve`](Self::reserve), [`Reservation::commit`]) and
/// belongs to the reader from [`publish`](Self::publish) on: killed before, the records were never
/// there; killed after, they are whole.
pub struct Producer<B: Bell> {
    memory: Arc<Memory>,
    /// Where the next record will begin.
    position: u64,
    /// Where the last record begins.
    last: u64,
    /// The consumer's head when last looked at: never beyond the true one.
    head: u64,
    max_record: usize,
    displaceable: bool,
    hot: HotFence,
    bell: B,
}

/// Room for one record. Dropped without a commit, it leaves no trace.
pub struct Reservation<'a, B: Bell> {
    producer: &'a mut Producer<B>,
    room: usize,
}

/// The oldest record, taken out of the ring by its own producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Displaced {
    /// Its type and size.
    pub word: RecordWord,
    /// The first payload word: it names the segment of a large record.
    pub first_word: u64,
}

/// What an attempt to make room came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Displacement {
    /// The oldest record is gone; try again to reserve.
    Displaced(Displaced),
    /// The consumer was faster; try again to reserve.
    Moved,
    /// The oldest record must stay.
    Refused,
}

impl<B: Bell> Producer<B> {
    pub(crate) fn new(memory: Arc<Memory>, displaceable: bool, bell: B) -> Producer<B> {
        let capacity = memory.capacity() as usize;
        Producer {
            memory,
            position: 0,
            last: 0,
            head: 0,
            max_record: max_inline_bytes(capacity),
            displaceable,
            hot: HotFence::Full,
            bell,
        }
    }

    /// Sets the fence of each commit; [`HotFence::Full`] unless both sides agreed on another.
    pub fn set_hot_fence(&mut self, hot: HotFence) {
        self.hot = hot;
    }

    /// The largest payload of a record, in bytes.
    #[inline]
    pub fn max_record_bytes(&self) -> usize {
        self.max_record
    }

    /// Finds contiguous room for a payload of at least `least` bytes, and offers as much as there
    /// is without waiting or wrapping, up to `most`.
    ///
    /// # Errors
    /// [`Full`] when the reader must first make room.
    ///
    /// # Panics
    /// When `least` exceeds [`max_record_bytes`](Self::max_record_bytes).
    #[inline]
    pub fn reserve(&mut self, least: usize, most: usize) -> Result<Reservation<'_, B>, Full> {
        self.fits(least)?;
        self.leave_end(span_of(least));
        let contiguous = self.memory.contiguous(self.position);
        let free = self.memory.capacity() - (self.position - self.head);
        let room = (contiguous.min(free) - 8) as usize;
        let room = room.min(most.max(least)).min(self.max_record);
        Ok(Reservation { producer: self, room })
    }

    /// Whether [`reserve`](Self::reserve) would find room for `least` bytes. Once it has, it
    /// will until something is committed.
    ///
    /// # Errors
    /// [`Full`] when the reader must first make room.
    ///
    /// # Panics
    /// When `least` exceeds [`max_record_bytes`](Self::max_record_bytes).
    #[inline(always)]
    pub fn fits(&mut self, least: usize) -> Result<(), Full> {
        assert!(least <= self.max_record, "a record of {least} bytes does not fit in this ring");
        let span = span_of(least);
        let contiguous = self.memory.contiguous(self.position);
        self.make_room(if contiguous < span { contiguous + span } else { span })
    }

    /// Writes one record with a copy of `payload`, without publishing it.
    ///
    /// # Errors
    /// [`Full`] when the reader must first make room.
    #[inline(always)]
    pub fn push(&mut self, type_id: u16, payload: &[u8]) -> Result<(), Full> {
        self.fits(payload.len())?;
        self.leave_end(span_of(payload.len()));
        self.memory.prefetch_write(self.position + PREFETCH_BYTES);
        self.memory.write(self.position + 8, payload);
        self.finish(RecordWord::new(type_id, payload.len(), false));
        Ok(())
    }

    /// Gives all that was committed to the reader with one release store, and wakes it if it
    /// sleeps.
    #[inline(always)]
    pub fn publish(&mut self) {
        let header = self.memory.header();
        // Release: pairs with the consumer's acquire of the tail; the records come before it.
        header.tail.store(self.position, Ordering::Release);
        wake::wake(&header.consumer_asleep, self.hot, &self.bell, |_| true);
    }

    /// Whether records are committed that the reader doesn't know of yet.
    #[inline]
    pub fn has_unpublished(&self) -> bool {
        self.published() != self.position
    }

    /// Takes the oldest published record out of a displaceable ring if `may_displace` agrees,
    /// given its word and where it begins. Its event is counted as dropped, by the consumer if this
    /// process is killed before it has done so.
    pub fn displace(&mut self, may_displace: impl FnOnce(RecordWord, u64) -> bool) -> Displacement {
        let shared = &self.memory.header().head;
        // Acquire: pairs with the consumer's exchange; its copy out of that range is done.
        let head = shared.load(Ordering::Acquire);
        if head != self.head {
            self.head = head;
            return Displacement::Moved;
        }
        if !self.displaceable || head == self.published() {
            return Displacement::Refused;
        }
        let word = RecordWord::from_bits(self.memory.word(head).load(Ordering::Relaxed));
        let first_word = self.memory.word(head + 8).load(Ordering::Relaxed);
        if !word.is_pad() && !may_displace(word, head) {
            return Displacement::Refused;
        }
        self.note_displacing(word, head);
        // AcqRel: whoever wins owns the range; the loser takes its copy as void.
        let won =
            shared.compare_exchange(head, head + word.span(), Ordering::AcqRel, Ordering::Acquire);
        self.head = won.map_or_else(|moved| moved, |_| head + word.span());
        if won.is_ok() && !word.is_pad() {
            self.count_dropped(word.type_id());
        }
        // Release: after the count. A process that is killed has done what it did in this order.
        self.memory.header().displacing.record.store(0, Ordering::Release);
        // Release: pairs with the consumer's acquire fence in `adopt_head`. Whoever reads what is
        // written over the displaced record finds that the head has moved.
        fence(Ordering::Release);
        match won {
            Ok(_) if !word.is_pad() => Displacement::Displaced(Displaced { word, first_word }),
            _ => Displacement::Moved,
        }
    }

    /// Notes what the consumer needs to count a drop if this process is killed in the middle of it.
    fn note_displacing(&self, word: RecordWord, position: u64) {
        if word.is_pad() {
            return;
        }
        let Some(counters) = self.memory.counters(word.type_id()) else { return };
        let displacing = &self.memory.header().displacing;
        // Relaxed: this producer alone writes both; the next store orders them for the consumer.
        let before = counters.dropped.load(Ordering::Relaxed);
        displacing.dropped_before.store(before, Ordering::Relaxed);
        // Release: pairs with the consumer's acquire in `uncounted_drop`.
        displacing.record.store(position + 1, Ordering::Release);
    }

    /// Announces that this side will sleep until the head has reached `wanted`, executes the cold
    /// fence and looks once more. True: sleep, the bell will ring. False: there is room now.
    pub fn sleep_until(&mut self, wanted: u64, cold: ColdFence) -> bool {
        wake::announce(&self.memory.header().space_wanted, wanted);
        cold.execute();
        // Acquire: pairs with the consumer's release of the head.
        self.head = self.memory.header().head.load(Ordering::Acquire);
        if self.head < wanted {
            return true;
        }
        wake::retract(&self.memory.header().space_wanted);
        false
    }

    /// Announces a wait for any segment to come back. True: sleep. False: one is back already.
    pub fn sleep_until_segment(&mut self, cold: ColdFence) -> bool {
        let header = self.memory.header();
        wake::announce(&header.space_wanted, 1);
        cold.execute();
        if header.segments_free.load(Ordering::Relaxed) == 0 {
            return true;
        }
        wake::retract(&header.space_wanted);
        false
    }

    /// Takes the announcement of a sleep back, after it was cut short.
    pub fn stay_awake(&mut self) {
        wake::retract(&self.memory.header().space_wanted);
    }

    /// The segments that the reader has given back since the last call, one bit each.
    #[inline]
    pub fn take_returned_segments(&mut self) -> u64 {
        let free = &self.memory.header().segments_free;
        if free.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        // Acquire: pairs with the release in `Segments::give_back`; its reads are done.
        free.swap(0, Ordering::Acquire)
    }

    /// Bytes of the ring.
    #[inline]
    pub fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    /// Where the record begins that was committed last.
    #[inline]
    pub fn last_record(&self) -> u64 {
        self.last
    }

    /// Where the next record will begin, in bytes since the ring was made.
    #[inline]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Where the oldest record begins that the reader, as far as known, has not taken.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Counts an event of a type as sent.
    #[inline]
    pub fn count_sent(&mut self, type_id: u16) {
        self.count(type_id, |counters| &counters.sent);
    }

    /// Counts an event of a type as dropped.
    pub fn count_dropped(&mut self, type_id: u16) {
        self.count(type_id, |counters| &counters.dropped);
    }

    #[inline]
    fn count(
        &mut self,
        type_id: u16,
        which: impl Fn(&crate::layout::Counters) -> &crate::sync::AtomicU64,
    ) {
        debug_assert!(cfg!(loom) || (1..=MAX_EVENT_TYPES).contains(&usize::from(type_id)));
        if let Some(counters) = self.memory.counters(type_id) {
            let counter = which(counters);
            // Relaxed, and no read-modify-write: this producer is the only writer.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn make_room(&mut self, bytes: u64) -> Result<(), Full> {
        let wanted = (self.position + bytes).saturating_sub(self.memory.capacity());
        if self.head >= wanted {
            return Ok(());
        }
        // Acquire: pairs with the consumer's release of the head; its reads are done.
        self.head = self.memory.header().head.load(Ordering::Acquire);
        if self.head >= wanted { Ok(()) } else { Err(Full { wanted }) }
    }

    /// Goes to the beginning of the ring if a record would not fit before its end.
    #[inline(always)]
    fn leave_end(&mut self, span: u64) {
        let contiguous = self.memory.contiguous(self.position);
        if contiguous < span {
            self.pad(contiguous);
        }
    }

    /// The tail that the consumer knows; `position` runs ahead of it within a batch.
    #[inline]
    fn published(&self) -> u64 {
        // Relaxed: this side alone writes it.
        self.memory.header().tail.load(Ordering::Relaxed)
    }

    /// Ends the record whose payload is written.
    #[inline(always)]
    fn finish(&mut self, word: RecordWord) {
        // Relaxed: published by the release store of the tail.
        self.memory.word(self.position).store(word.to_bits(), Ordering::Relaxed);
        self.last = self.position;
        self.position += word.span();
    }

    /// Fills the rest of the ring; the reader skips it. It is published with the next record.
    #[cold]
    fn pad(&mut self, span: u64) {
        self.memory.word(self.position).store(RecordWord::pad(span).to_bits(), Ordering::Relaxed);
        self.position += span;
    }
}

impl<'a, B: Bell> Reservation<'a, B> {
    /// Bytes of payload that fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.room
    }

    /// The payload to write into. It holds whatever was there before.
    #[cfg(not(loom))]
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let position = self.producer.position + 8;
        // SAFETY: `reserve` found the range free and contiguous, this is the only producer, and the
        // slice borrows the reservation.
        unsafe { self.producer.memory.owned_bytes(position, self.room) }
    }

    /// Copies `payload` to the beginning of the room.
    ///
    /// # Panics
    /// When it does not fit.
    #[inline]
    pub fn write(&self, payload: &[u8]) {
        assert!(payload.len() <= self.room, "{} bytes do not fit in {}", payload.len(), self.room);
        self.producer.memory.write(self.producer.position + 8, payload);
    }

    /// Ends the record after `len` bytes of payload. [`Producer::publish`] on what is returned
    /// gives it to the reader.
    #[inline]
    pub fn commit(self, type_id: u16, len: usize) -> &'a mut Producer<B> {
        self.finish(RecordWord::new(type_id, len, false))
    }

    /// Ends a record whose payload only refers to a segment.
    pub fn commit_large(self, type_id: u16, len: usize) -> &'a mut Producer<B> {
        self.finish(RecordWord::new(type_id, len, true))
    }

    #[inline]
    fn finish(self, word: RecordWord) -> &'a mut Producer<B> {
        assert!(word.len() <= self.room, "{} bytes were reserved, not {}", self.room, word.len());
        self.producer.finish(word);
        self.producer
    }
}
