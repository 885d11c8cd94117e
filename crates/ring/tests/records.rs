//! Records go in and come out: order, wrap, room, batches, limits. One thread, heap memory.

#![cfg(not(loom))]

use std::collections::VecDeque;

use eventpy_ring::{
    Bell, Consumer, Full, MAX_CAPACITY, MAX_EVENT_TYPES, MAX_RECORD_BYTES, MIN_CAPACITY, Producer,
    Silent, check_capacity, heap, max_inline_bytes,
};
use proptest::prelude::*;

fn ring(capacity: usize) -> (Producer<Silent>, Consumer<Silent>) {
    heap(capacity, false).expect("the capacity is a valid one")
}

/// Type and payload of the next record within the limit.
fn read<B: Bell>(consumer: &mut Consumer<B>) -> Option<(u16, Vec<u8>)> {
    let record = consumer.read().expect("the producer is sound")?;
    let mut bytes = vec![0; record.word().len()];
    record.copy_to(&mut bytes);
    Some((record.word().type_id(), bytes))
}

fn read_all<B: Bell>(consumer: &mut Consumer<B>) -> Vec<(u16, Vec<u8>)> {
    let mut records = Vec::new();
    while consumer.begin().expect("the producer is sound") {
        while let Some(record) = read(consumer) {
            records.push(record);
        }
    }
    consumer.release();
    records
}

/// Moves both sides of an empty ring to a position from its beginning.
fn go_to(producer: &mut Producer<Silent>, consumer: &mut Consumer<Silent>, position: u64) {
    while producer.position() < position {
        let span = (position - producer.position()).min(512) as usize;
        producer.push(1, &vec![0; span - 8]).expect("the reader keeps up");
        producer.publish();
        assert!(consumer.begin().unwrap());
        assert!(consumer.read().unwrap().is_some());
        consumer.release();
    }
    assert_eq!(producer.position(), position);
}

/// Large enough that some payloads are copied as blocks.
const QUEUE_CAPACITY: usize = if cfg!(miri) { 4096 } else { 8192 };

#[derive(Debug, Clone)]
enum Operation {
    /// Reserve for `least` to `most` bytes, commit `used` of the room, in per cent.
    Write {
        least: usize,
        most: usize,
        used: usize,
    },
    Push {
        len: usize,
    },
    DropReservation {
        least: usize,
    },
    Publish,
    Begin,
    Read {
        records: usize,
    },
    Release,
}

fn operation() -> impl Strategy<Value = Operation> {
    let largest = max_inline_bytes(QUEUE_CAPACITY);
    prop_oneof![
        2 => (0..=largest, 0..=2 * largest, 0..=100_usize)
            .prop_map(|(least, most, used)| Operation::Write { least, most, used }),
        2 => (0..=largest).prop_map(|len| Operation::Push { len }),
        2 => (0..=64_usize).prop_map(|len| Operation::Push { len }),
        1 => (0..=largest).prop_map(|least| Operation::DropReservation { least }),
        3 => Just(Operation::Publish),
        2 => Just(Operation::Begin),
        4 => (0..8_usize).prop_map(|records| Operation::Read { records }),
        2 => Just(Operation::Release),
    ]
}

/// What the ring must do, with a queue for each stage of a record's life.
#[derive(Default)]
struct Model {
    committed: VecDeque<(u16, Vec<u8>)>,
    published: VecDeque<(u16, Vec<u8>)>,
    readable: usize,
    next: u16,
}

impl Model {
    /// Some bytes for the next record, none like those of its neighbours.
    fn payload(&mut self, len: usize) -> (u16, Vec<u8>) {
        self.next = self.next.wrapping_add(1);
        let number = self.next;
        (
            number,
            (0..len).map(|at| (at as u16).wrapping_mul(31).wrapping_add(number) as u8).collect(),
        )
    }
}

fn full_is_right(producer: &Producer<Silent>, full: Full) {
    assert!(producer.head() < full.wanted, "there was room");
    assert!(full.wanted <= producer.position(), "the reader could never make that room");
    assert_eq!(full.wanted % 8, 0, "a record never begins there");
}

fn apply(
    operation: &Operation,
    producer: &mut Producer<Silent>,
    consumer: &mut Consumer<Silent>,
    model: &mut Model,
) {
    match *operation {
        Operation::Write { least, most, used } => match producer.reserve(least, most) {
            Ok(mut reservation) => {
                let room = reservation.room();
                assert!((least..=most.max(least)).contains(&room), "{room} of {least} to {most}");
                let (number, bytes) = model.payload(room * used / 100);
                reservation.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
                assert_eq!(reservation.bytes_mut().len(), room);
                reservation.commit(number, bytes.len());
                model.committed.push_back((number, bytes));
            }
            Err(full) => full_is_right(producer, full),
        },
        Operation::Push { len } => {
            let (number, bytes) = model.payload(len);
            match producer.push(number, &bytes) {
                Ok(()) => model.committed.push_back((number, bytes)),
                Err(full) => full_is_right(producer, full),
            }
        }
        Operation::DropReservation { least } => {
            if let Ok(mut reservation) = producer.reserve(least, least) {
                reservation.bytes_mut().fill(0xee);
            }
        }
        Operation::Publish => {
            producer.publish();
            assert!(!producer.has_unpublished());
            model.published.append(&mut model.committed);
        }
        Operation::Begin => {
            let any = consumer.begin().expect("the producer is sound");
            model.readable = model.published.len();
            assert!(any || model.readable == 0, "{} records are there", model.readable);
            assert!(consumer.has_records() || model.readable == 0);
        }
        Operation::Read { records } => {
            for _ in 0..records {
                let expected = (model.readable > 0).then(|| {
                    model.readable -= 1;
                    model.published.pop_front().expect("what is readable is published")
                });
                assert_eq!(read(consumer), expected);
            }
        }
        Operation::Release => consumer.release(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 150 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_ring_is_a_queue(
        operations in prop::collection::vec(operation(), 1..if cfg!(miri) { 40 } else { 400 })
    ) {
        let (mut producer, mut consumer) = ring(QUEUE_CAPACITY);
        let mut model = Model::default();
        for operation in &operations {
            apply(operation, &mut producer, &mut consumer, &mut model);
        }
        producer.publish();
        model.published.append(&mut model.committed);
        prop_assert_eq!(read_all(&mut consumer), Vec::from(model.published));
        // Empty, it takes the largest record, wherever that begins.
        let largest = vec![7; producer.max_record_bytes()];
        prop_assert_eq!(producer.push(1, &largest), Ok(()));
    }
}

#[test]
fn a_record_of_any_size_begins_at_any_place() {
    let capacity = 4096;
    let starts = if cfg!(miri) { 4..6 } else { 1..67 };
    let sizes: &[usize] =
        if cfg!(miri) { &[0, 33, 512] } else { &[0, 1, 7, 8, 9, 63, 64, 500, 512] };
    for words_to_end in starts {
        for size in sizes {
            let (mut producer, mut consumer) = ring(capacity);
            go_to(&mut producer, &mut consumer, capacity as u64 - words_to_end * 8);
            let payload: Vec<u8> = (0..*size).map(|at| at as u8 ^ 0x5a).collect();
            for number in [3, 4] {
                producer.push(number, &payload).expect("the ring is empty");
            }
            producer.publish();
            let expected = [(3, payload.clone()), (4, payload)];
            assert_eq!(read_all(&mut consumer), expected, "{words_to_end} words from the end");
        }
    }
}

#[test]
fn a_reservation_offers_what_is_free_up_to_what_is_asked() {
    let (mut producer, mut consumer) = ring(8192);
    assert_eq!(producer.max_record_bytes(), 1024);
    assert_eq!(producer.reserve(10, 100).unwrap().room(), 100);
    assert_eq!(producer.reserve(10, usize::MAX).unwrap().room(), 1024);
    assert_eq!(producer.reserve(100, 10).unwrap().room(), 100);
    // 64 bytes to the end: a small record takes that place, a larger one the beginning.
    go_to(&mut producer, &mut consumer, 8192 - 64);
    assert_eq!(producer.reserve(10, usize::MAX).unwrap().room(), 56);
    assert_eq!(producer.reserve(57, usize::MAX).unwrap().room(), 1024);
}

#[test]
fn a_record_may_be_shorter_than_its_reservation() {
    let (mut producer, mut consumer) = ring(4096);
    let mut reservation = producer.reserve(300, 400).unwrap();
    reservation.bytes_mut()[..3].copy_from_slice(b"abc");
    reservation.commit(1, 3);
    assert_eq!(producer.position(), 16);
    producer.push(2, b"next").unwrap();
    producer.publish();
    assert_eq!(read_all(&mut consumer), [(1, b"abc".to_vec()), (2, b"next".to_vec())]);
}

#[test]
fn a_dropped_reservation_leaves_no_record() {
    let (mut producer, mut consumer) = ring(4096);
    assert!(producer.reserve(100, 100).is_ok());
    assert!(!producer.has_unpublished());
    // Even where it began with a pad.
    go_to(&mut producer, &mut consumer, 4096 - 8);
    assert!(producer.reserve(100, 100).is_ok());
    producer.publish();
    assert_eq!(read_all(&mut consumer), []);
    producer.push(1, b"after").unwrap();
    producer.publish();
    assert_eq!(read_all(&mut consumer), [(1, b"after".to_vec())]);
}

#[test]
fn a_full_ring_says_where_room_begins() {
    let (mut producer, mut consumer) = ring(4096);
    let full = loop {
        if let Err(full) = producer.push(1, &[0; 56]) {
            break full;
        }
    };
    assert_eq!((producer.position(), full.wanted), (4096, 64));
    assert_eq!(full.to_string(), "the ring is full until the reader has passed position 64");
    producer.publish();
    assert!(consumer.begin().unwrap());
    assert_eq!(producer.push(1, &[0; 56]), Err(full), "nothing was read");
    assert!(consumer.read().unwrap().is_some());
    assert_eq!(producer.push(1, &[0; 56]), Err(full), "nothing was released");
    consumer.release();
    assert_eq!(producer.push(1, &[0; 56]), Ok(()));
    assert_eq!(producer.push(1, &[]), Err(Full { wanted: 72 }));
}

#[test]
fn a_long_read_makes_room_without_a_release() {
    let (mut producer, mut consumer) = ring(4096);
    while producer.push(1, &[0; 56]).is_ok() {}
    producer.publish();
    assert!(consumer.begin().unwrap());
    for _ in 0..16 {
        assert!(consumer.read().unwrap().is_some());
    }
    assert!(producer.push(1, &[0; 56]).is_err(), "a quarter was read, and looks unread");
    assert!(consumer.read().unwrap().is_some());
    assert_eq!(producer.push(1, &[0; 56]), Ok(()));
}

#[test]
fn records_appear_when_they_are_published() {
    let (mut producer, mut consumer) = ring(4096);
    for number in 1..=3 {
        producer.push(number, b"batch").unwrap();
        assert!(producer.has_unpublished());
        assert!(!consumer.has_records());
        assert!(!consumer.begin().unwrap());
        assert!(consumer.read().unwrap().is_none());
    }
    producer.publish();
    assert!(consumer.has_records());
    assert_eq!(consumer.queued_bytes(), 3 * 16);
    assert_eq!(read_all(&mut consumer).len(), 3);
    assert_eq!(consumer.queued_bytes(), 0);
    assert!(!consumer.has_records());
}

#[test]
fn a_read_ends_where_it_began_to_end() {
    let (mut producer, mut consumer) = ring(4096);
    producer.push(1, b"first").unwrap();
    producer.publish();
    assert!(consumer.begin().unwrap());
    producer.push(2, b"late").unwrap();
    producer.publish();
    assert_eq!(read(&mut consumer), Some((1, b"first".to_vec())));
    assert_eq!(read(&mut consumer), None);
    assert!(consumer.begin().unwrap());
    assert_eq!(read(&mut consumer), Some((2, b"late".to_vec())));
}

#[test]
fn a_read_can_be_interrupted() {
    let (mut producer, mut consumer) = ring(4096);
    for number in 1..=2 {
        producer.push(number, &[]).unwrap();
    }
    producer.publish();
    assert!(consumer.begin().unwrap());
    assert_eq!(read(&mut consumer), Some((1, vec![])));
    assert!(consumer.begin().unwrap(), "one is left, and nothing was added");
    assert_eq!(read(&mut consumer), Some((2, vec![])));
    assert!(!consumer.begin().unwrap());
}

#[test]
fn the_record_that_was_yielded_last_can_be_read_again() {
    for displaceable in [false, true] {
        let (mut producer, mut consumer) = heap(4096, displaceable).unwrap();
        assert_eq!(consumer.current().word().len(), 0, "nothing was yielded");
        producer.push(5, b"again").unwrap();
        producer.publish();
        assert!(consumer.begin().unwrap());
        assert_eq!(read(&mut consumer), Some((5, b"again".to_vec())));
        let record = consumer.current();
        let mut bytes = [0; 5];
        record.copy_to(&mut bytes);
        assert_eq!((record.word().type_id(), &bytes), (5, b"again"));
    }
}

#[test]
fn the_short_cut_yields_records_of_one_type() {
    let (mut producer, mut consumer) = ring(4096);
    for (type_id, payload) in [(3, &b"one"[..]), (3, b"two"), (4, b"three")] {
        producer.push(type_id, payload).unwrap();
    }
    producer.publish();
    assert_eq!(consumer.next_type(), None, "no read has begun");
    assert!(consumer.begin().unwrap());
    assert_eq!(consumer.next_type(), Some(3));
    assert!(consumer.read_of(4).is_none());
    for payload in [b"one", b"two"] {
        let mut bytes = [0; 3];
        consumer.read_of(3).unwrap().copy_to(&mut bytes);
        assert_eq!(&bytes, payload);
    }
    assert!(consumer.read_of(3).is_none());
    assert_eq!(consumer.next_type(), Some(4));
    assert_eq!(read(&mut consumer), Some((4, b"three".to_vec())));
    assert_eq!(consumer.next_type(), None);
}

#[test]
fn the_short_cut_leaves_special_records_to_the_long_way() {
    let (mut producer, mut consumer) = ring(4096);
    let reservation = producer.reserve(16, 16).unwrap();
    reservation.write(&[1; 16]);
    reservation.commit_large(9, 16);
    producer.publish();
    assert!(consumer.begin().unwrap());
    assert_eq!(consumer.next_type(), None);
    assert!(consumer.read_of(9).is_none());
    assert!(consumer.read().unwrap().unwrap().word().is_large());

    let (mut producer, mut consumer) = heap(4096, true).unwrap();
    producer.push(1, b"may be dropped").unwrap();
    producer.publish();
    assert!(consumer.begin().unwrap());
    assert_eq!(consumer.next_type(), None);
    assert!(consumer.read_of(1).is_none());
    assert!(consumer.read().unwrap().is_some());
}

/// Round and round, over the end of the ring and past the places where room is given back.
#[test]
fn the_short_cut_and_the_long_way_yield_the_same() {
    let (mut producer, mut consumer) = ring(4096);
    let mut expected = 0_u64;
    for number in 0..4000_u64 {
        let len = 8 + (number * 37 % 100) as usize;
        let mut payload = vec![0; len];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        while producer.push(7, &payload).is_err() {
            producer.publish();
            assert!(consumer.begin().unwrap());
            loop {
                let mut bytes = [0; 8];
                match consumer.read_of(7) {
                    Some(record) => record.copy_to(&mut bytes),
                    None => match consumer.read().unwrap() {
                        Some(record) => record.copy_to(&mut bytes),
                        None => break,
                    },
                }
                assert_eq!(u64::from_le_bytes(bytes), expected);
                expected += 1;
            }
            consumer.release();
        }
    }
    assert!(expected > 3900);
}

#[test]
fn part_of_a_payload_can_be_read() {
    let (mut producer, mut consumer) = ring(4096);
    producer.push(1, b"0123456789").unwrap();
    producer.publish();
    assert!(consumer.begin().unwrap());
    let record = consumer.read().unwrap().unwrap();
    let mut bytes = [0; 4];
    record.copy_to(&mut bytes);
    assert_eq!(&bytes, b"0123");
}

#[test]
fn a_reference_to_a_segment_is_marked() {
    let (mut producer, mut consumer) = ring(4096);
    let reservation = producer.reserve(16, 16).unwrap();
    reservation.write(&[1; 16]);
    reservation.commit_large(9, 16);
    producer.push(9, &[2; 16]).unwrap();
    producer.publish();
    assert!(consumer.begin().unwrap());
    assert!(consumer.read().unwrap().unwrap().word().is_large());
    assert!(!consumer.read().unwrap().unwrap().word().is_large());
}

#[test]
fn segments_come_back_one_bit_each() {
    let (mut producer, consumer) = ring(4096);
    assert_eq!(producer.take_returned_segments(), 0);
    let segments = consumer.segments();
    segments.give_back(0);
    segments.clone().give_back(63);
    assert_eq!(producer.take_returned_segments(), 1 | 1 << 63);
    assert_eq!(producer.take_returned_segments(), 0);
}

#[test]
fn each_type_has_its_counters() {
    let (mut producer, consumer) = ring(4096);
    let last = MAX_EVENT_TYPES as u16;
    for _ in 0..3 {
        producer.count_sent(1);
    }
    producer.count_sent(last);
    producer.count_dropped(last);
    assert_eq!(consumer.reported_counts(1), (3, 0));
    assert_eq!(consumer.reported_counts(2), (0, 0));
    assert_eq!(consumer.reported_counts(last), (1, 1));
    assert_eq!(consumer.reported_counts(0), (0, 0));
    assert_eq!(consumer.reported_counts(last + 1), (0, 0));
    assert_eq!(consumer.reported_counts(u16::MAX), (0, 0));
}

#[test]
fn a_capacity_is_a_power_of_two_within_bounds() {
    let right = (12..=30).map(|bits| 1 << bits);
    assert!(right.clone().all(|capacity| check_capacity(capacity).is_ok()));
    assert_eq!((MIN_CAPACITY, MAX_CAPACITY), (1 << 12, 1 << 30));
    let suggestions = [
        (0, MIN_CAPACITY),
        (1, MIN_CAPACITY),
        (4095, MIN_CAPACITY),
        (4097, 8192),
        (1 << 20 | 1, 1 << 21),
        (MAX_CAPACITY - 1, MAX_CAPACITY),
        (MAX_CAPACITY + 1, MAX_CAPACITY),
        (usize::MAX, MAX_CAPACITY),
    ];
    for (capacity, suggestion) in suggestions {
        assert_eq!(check_capacity(capacity), Err(suggestion), "{capacity}");
    }
    let error = heap(5000, false).err().expect("5000 is no power of two");
    assert_eq!(
        error.to_string(),
        "a ring of 5000 bytes can't be made: the size must be a power of two from 4096 to \
         1073741824; the next one is 8192"
    );
}

#[test]
fn the_largest_record_is_an_eighth_of_the_ring_up_to_64_kib() {
    assert_eq!(max_inline_bytes(4096), 512);
    assert_eq!(max_inline_bytes(1 << 19), MAX_RECORD_BYTES);
    assert_eq!(max_inline_bytes(1 << 30), MAX_RECORD_BYTES);
}

#[test]
#[should_panic(expected = "a record of 513 bytes does not fit in this ring")]
fn a_record_past_the_largest_is_refused() {
    let _ = ring(4096).0.reserve(513, 513);
}

#[test]
#[should_panic(expected = "8 bytes were reserved, not 9")]
fn a_commit_past_the_reservation_is_refused() {
    ring(4096).0.reserve(8, 8).unwrap().commit(1, 9);
}

#[test]
#[should_panic(expected = "9 bytes do not fit in 8")]
fn a_write_past_the_reservation_is_refused() {
    ring(4096).0.reserve(8, 8).unwrap().write(&[0; 9]);
}

#[test]
#[should_panic(expected = "the record has 3 bytes, not 4")]
fn a_copy_past_the_record_is_refused() {
    let (mut producer, mut consumer) = ring(4096);
    producer.push(1, b"abc").unwrap();
    producer.publish();
    assert!(consumer.begin().unwrap());
    consumer.read().unwrap().unwrap().copy_to(&mut [0; 4]);
}
