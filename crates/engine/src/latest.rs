//! Delivery `latest`: of each type only the newest record that was there, in the ring's order.

use std::collections::VecDeque;

use crate::options::Delivery;

/// Records that were taken out of a ring and are still to be delivered.
///
/// A ring that has a `latest` type is emptied at the beginning of a pump, before any callback
/// runs: its producer displaces old records while callbacks run, and could take the newest of a
/// type away that the pump was coming to. What an interrupted pump leaves here stays queued.
#[derive(Debug)]
pub(crate) struct LatestQueue {
    records: VecDeque<Queued>,
    /// The number of the first record; records are numbered on.
    first: u64,
    /// Per type: whether it is `latest`, and the number of its newest record.
    types: Vec<(bool, Option<u64>)>,
    spare: Vec<Vec<u8>>,
    /// Bytes of payload of the records that were not made obsolete.
    bytes: usize,
    /// Records among them that wait for nothing newer: of other types, or large.
    urgent: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Queued {
    pub(crate) type_id: u16,
    pub(crate) is_large: bool,
    pub(crate) payload: Vec<u8>,
    superseded: bool,
}

/// Payload buffers that are kept for reuse.
const SPARE_BUFFERS: usize = 64;

impl LatestQueue {
    /// A queue for these types, or none if no type is `latest`.
    pub(crate) fn new(deliveries: &[Delivery]) -> Option<LatestQueue> {
        let types: Vec<_> =
            deliveries.iter().map(|delivery| (*delivery == Delivery::Latest, None)).collect();
        types.iter().any(|(is_latest, _)| *is_latest).then(|| LatestQueue {
            records: VecDeque::new(),
            first: 0,
            types,
            spare: Vec::new(),
            bytes: 0,
            urgent: 0,
        })
    }

    /// A buffer for the payload of the next record.
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Appends a record; returns the one that it makes obsolete. `type_id` is one of the types.
    pub(crate) fn push(
        &mut self,
        type_id: u16,
        is_large: bool,
        payload: Vec<u8>,
    ) -> Option<Queued> {
        let number = self.first + self.records.len() as u64;
        self.bytes += payload.len();
        self.urgent += usize::from(self.is_urgent(type_id, is_large));
        self.records.push_back(Queued { type_id, is_large, payload, superseded: false });
        let (is_latest, newest) = &mut self.types[usize::from(type_id) - 1];
        if !*is_latest {
            return None;
        }
        let older = newest.replace(number)?;
        let obsolete = self.records.get_mut(older.checked_sub(self.first)? as usize)?;
        obsolete.superseded = true;
        let obsolete = Queued { payload: std::mem::take(&mut obsolete.payload), ..*obsolete };
        self.forget(&obsolete);
        while self.records.front().is_some_and(|queued| queued.superseded) {
            self.records.pop_front();
            self.first += 1;
        }
        Some(obsolete)
    }

    /// The oldest record that is still worth delivering.
    pub(crate) fn pop(&mut self) -> Option<Queued> {
        loop {
            let queued = self.records.pop_front()?;
            self.first += 1;
            if !queued.superseded {
                self.forget(&queued);
                return Some(queued);
            }
        }
    }

    /// Bytes that it holds, counted as a ring counts: a record without payload takes room too, and
    /// one that was made obsolete until those before it are gone.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.records.len() * size_of::<u64>()
    }

    /// Whether it holds anything that must not wait until there can be no newer record: a record
    /// whose type is not `latest`, or one that keeps a segment from its dispatcher.
    pub(crate) fn has_urgent(&self) -> bool {
        self.urgent > 0
    }

    fn is_urgent(&self, type_id: u16, is_large: bool) -> bool {
        is_large || !self.types[usize::from(type_id) - 1].0
    }

    fn forget(&mut self, queued: &Queued) {
        self.bytes -= queued.payload.len();
        self.urgent -= usize::from(self.is_urgent(queued.type_id, queued.is_large));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes a payload buffer back.
    pub(crate) fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_every_record_of_one_type_and_the_newest_of_the_other_in_order() {
        let mut queue = LatestQueue::new(&[Delivery::Latest, Delivery::Every]).unwrap();
        let mut obsolete = Vec::new();
        for (type_id, byte) in [(1, 1), (2, 2), (1, 3), (2, 4), (1, 5), (2, 6)] {
            obsolete.extend(queue.push(type_id, false, vec![byte]).map(|queued| queued.payload[0]));
        }
        assert_eq!(obsolete, [1, 3]);
        let delivered: Vec<u8> =
            std::iter::from_fn(|| queue.pop()).map(|queued| queued.payload[0]).collect();
        assert_eq!(delivered, [2, 4, 5, 6]);
        assert!(queue.push(1, false, vec![7]).is_none(), "a delivered record is not obsolete");
    }

    #[test]
    fn counts_records_that_hold_nothing() {
        let mut queue = LatestQueue::new(&[Delivery::Latest, Delivery::Every]).unwrap();
        for _ in 0..100 {
            queue.push(2, false, Vec::new());
            queue.push(1, false, Vec::new());
        }
        assert_eq!(queue.bytes(), 1600);
        while queue.pop().is_some() {}
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn exists_only_where_a_type_is_latest() {
        assert!(LatestQueue::new(&[Delivery::Every, Delivery::DropOldest]).is_none());
    }
}
