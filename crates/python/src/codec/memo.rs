//! Which objects of one event were met before, by address.
//!
//! An open-addressing table that is never cleared: each event has its own epoch, and a slot of an
//! older epoch counts as empty. The addresses are only compared, and no object of an event dies
//! while it is encoded.

/// What the memo knows about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// Never met in this event; from now on it counts as open.
    Never,
    /// Its contents are being written: it contains itself.
    Open,
    /// It stands in the record under this index.
    Written(u32),
}

/// The objects that were met in the current event.
pub(super) struct Memo {
    slots: Box<[Slot]>,
    epoch: u32,
    used: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    address: usize,
    epoch: u32,
    index: u32,
}

/// The index of an object whose contents are being written.
const OPEN: u32 = u32::MAX;
const FIRST_SLOTS: usize = 64;
/// A table beyond this size is given back after the event that needed it.
const MOST_IDLE_SLOTS: usize = 1 << 16;

impl Memo {
    pub(super) fn new() -> Memo {
        Memo { slots: empty(FIRST_SLOTS), epoch: 1, used: 0 }
    }

    /// Forgets everything, for the next event.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.used = 0;
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 || self.slots.len() > MOST_IDLE_SLOTS {
            *self = Memo::new();
        }
    }

    /// Looks an object up, and remembers it as open when it was never met.
    #[inline]
    pub(super) fn meet(&mut self, address: usize) -> Met {
        let slot = self.slot_of(address);
        let found = &mut self.slots[slot];
        if found.epoch != self.epoch {
            *found = Slot { address, epoch: self.epoch, index: OPEN };
            self.used += 1;
            if self.used * 2 > self.slots.len() {
                self.grow();
            }
            Met::Never
        } else if found.index == OPEN {
            Met::Open
        } else {
            Met::Written(found.index)
        }
    }

    /// Remembers under which index an open object now stands in the record.
    #[inline]
    pub(super) fn close(&mut self, address: usize, index: u32) {
        let slot = self.slot_of(address);
        self.slots[slot] = Slot { address, epoch: self.epoch, index };
    }

    /// The slot that holds the address, or the empty one where it belongs.
    #[inline]
    fn slot_of(&self, address: usize) -> usize {
        let mask = self.slots.len() - 1;
        // Objects are 16-byte aligned; the multiplication spreads what is left over the high bits.
        let hash = (address as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut slot = (hash >> 32) as usize & mask;
        while self.slots[slot].epoch == self.epoch && self.slots[slot].address != address {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let larger = empty(self.slots.len() * 2);
        let old = std::mem::replace(&mut self.slots, larger);
        for slot in old.iter().filter(|slot| slot.epoch == self.epoch) {
            let place = self.slot_of(slot.address);
            self.slots[place] = *slot;
        }
    }
}

fn empty(slots: usize) -> Box<[Slot]> {
    vec![Slot::default(); slots].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_new_then_open_then_written() {
        let mut memo = Memo::new();
        memo.begin();
        assert_eq!(memo.meet(0x1000), Met::Never);
        assert_eq!(memo.meet(0x1000), Met::Open);
        memo.close(0x1000, 7);
        assert_eq!(memo.meet(0x1000), Met::Written(7));
        memo.begin();
        assert_eq!(memo.meet(0x1000), Met::Never);
    }

    #[test]
    fn it_holds_more_objects_than_it_began_with() {
        let mut memo = Memo::new();
        memo.begin();
        for index in 0..100_000_u32 {
            let address = 0x7f00_0000_0000 + index as usize * 48;
            assert_eq!(memo.meet(address), Met::Never);
            memo.close(address, index);
        }
        for index in 0..100_000_u32 {
            assert_eq!(memo.meet(0x7f00_0000_0000 + index as usize * 48), Met::Written(index));
        }
    }

    #[test]
    fn a_large_table_is_given_back() {
        let mut memo = Memo::new();
        for index in 0..100_000_usize {
            memo.meet(index * 16);
        }
        assert!(memo.slots.len() > MOST_IDLE_SLOTS);
        memo.begin();
        assert_eq!(memo.slots.len(), FIRST_SLOTS);
    }
}
