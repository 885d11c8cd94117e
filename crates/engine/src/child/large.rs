//! The segments of a dispatcher process: memory for events that are too large for the ring.
//!
//! A segment is made when none that is free fits, goes to the manager once, and is filled again
//! when the manager has given it back. What all segments take together stays within the budget.
//!
//! Once the budget is used up, a segment is only given up for a larger one. So a dispatcher whose
//! events are dropped makes few of them while nobody pumps: the manager would not take any.

use std::os::fd::OwnedFd;

use eventpy_ring::{CreateError, MAX_SEGMENTS, SegmentWriter};

use crate::link::slot_of;

/// Sizes are multiples of this, in bytes.
const GRAIN_BYTES: usize = 64 * 1024;
/// A free segment is not used for an event so much smaller that this many would fit.
const LARGEST_WASTE: usize = 4;

pub(super) struct Pool {
    segments: Vec<Option<Segment>>,
    /// How many segments each slot has held: it makes ids unique.
    generations: Vec<u32>,
    budget: usize,
}

pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) memory: SegmentWriter,
    in_flight: bool,
}

/// What [`Pool::find`] came to.
pub(super) enum Place {
    /// This slot holds a free segment that fits.
    Ready(usize),
    /// This slot holds a new segment, which the manager must be sent.
    New(usize, OwnedFd),
    /// Budget or slots are used up by events on their way.
    Wait,
}

impl Pool {
    pub(super) fn new(budget: usize) -> Pool {
        Pool {
            segments: (0..MAX_SEGMENTS).map(|_| None).collect(),
            generations: vec![0; MAX_SEGMENTS],
            budget,
        }
    }

    /// The largest event, in bytes.
    pub(super) fn budget(&self) -> usize {
        self.budget
    }

    /// Takes note of segments that came back, one bit each.
    pub(super) fn take_back(&mut self, slots: u64) {
        for (slot, segment) in self.segments.iter_mut().enumerate() {
            if slots & 1 << slot != 0
                && let Some(segment) = segment
            {
                segment.in_flight = false;
            }
        }
    }

    /// Takes note that the segment of a record came back that was taken out of the ring unread.
    pub(super) fn take_back_id(&mut self, id: u32) {
        self.take_back(1 << slot_of(id));
    }

    /// A segment for `len` bytes, within the budget.
    pub(super) fn find(&mut self, len: usize) -> Result<Place, CreateError> {
        if let Some(slot) = self.best_free(len, LARGEST_WASTE) {
            return Ok(Place::Ready(slot));
        }
        // An eighth more, so that events of slightly different sizes share segments.
        let bytes = (len + len / 8).next_multiple_of(GRAIN_BYTES).min(self.budget).max(len);
        let mut place = self.empty_place(bytes);
        if place.is_none() {
            if let Some(slot) = self.best_free(len, usize::MAX) {
                return Ok(Place::Ready(slot));
            }
            place = self.make_place(bytes);
        }
        let Some(slot) = place else { return Ok(Place::Wait) };
        let (memory, fd) = SegmentWriter::create(bytes)?;
        let id = self.generations[slot] * MAX_SEGMENTS as u32 + slot as u32;
        self.generations[slot] =
            self.generations[slot].wrapping_add(1) % (u32::MAX / MAX_SEGMENTS as u32);
        self.segments[slot] = Some(Segment { id, memory, in_flight: false });
        Ok(Place::New(slot, fd))
    }

    pub(super) fn segment(&mut self, slot: usize) -> &mut Segment {
        self.segments[slot].as_mut().expect("a slot that was found holds a segment")
    }

    /// A bit for each slot that holds a segment.
    pub(super) fn slots(&self) -> u64 {
        let held = self.segments.iter().enumerate().filter(|(_, segment)| segment.is_some());
        held.fold(0, |slots, (slot, _)| slots | 1 << slot)
    }

    /// Gives up a segment that could not be sent.
    pub(super) fn give_up(&mut self, slot: usize) {
        self.segments[slot] = None;
    }

    /// The smallest free segment that fits and is at most so many times too large.
    fn best_free(&self, len: usize, waste: usize) -> Option<usize> {
        let fits = |segment: &Segment| {
            let bytes = segment.bytes();
            !segment.in_flight && bytes >= len && bytes / waste <= len.max(GRAIN_BYTES)
        };
        let free = self
            .segments
            .iter()
            .enumerate()
            .filter_map(|(slot, segment)| Some((slot, segment.as_ref()?)));
        free.filter(|(_, segment)| fits(segment))
            .min_by_key(|(_, segment)| segment.bytes())
            .map(|(slot, _)| slot)
    }

    /// A slot for a new segment of `bytes`, if slots and budget allow.
    fn empty_place(&self, bytes: usize) -> Option<usize> {
        let used: usize = self.segments.iter().flatten().map(Segment::bytes).sum();
        if used + bytes > self.budget {
            return None;
        }
        self.segments.iter().position(Option::is_none)
    }

    /// The same after giving up free ones as far as needed, or none if that is not enough.
    fn make_place(&mut self, bytes: usize) -> Option<usize> {
        let in_flight = self.segments.iter().flatten().filter(|segment| segment.in_flight);
        if in_flight.map(Segment::bytes).sum::<usize>() + bytes > self.budget {
            return None;
        }
        loop {
            if let Some(empty) = self.empty_place(bytes) {
                return Some(empty);
            }
            let free = self
                .segments
                .iter()
                .position(|segment| segment.as_ref().is_some_and(|segment| !segment.in_flight))?;
            self.segments[free] = None;
        }
    }
}

impl Segment {
    fn bytes(&self) -> usize {
        self.memory.capacity()
    }

    pub(super) fn send_off(&mut self) {
        self.in_flight = true;
    }
}
