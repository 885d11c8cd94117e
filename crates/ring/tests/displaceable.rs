//! Rings whose producer may drop the oldest records: what is dropped, what is read, and both at
//! the same time. Heap memory.

#![cfg(not(loom))]

mod numbered;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use eventpy_ring::{Consumer, Displacement, Full, Producer, Silent, heap};
use numbered::{mixed, number_of, payload};

const CAPACITY: usize = 4096;

fn ring() -> (Producer<Silent>, Consumer<Silent>) {
    heap(CAPACITY, true).expect("the capacity is a valid one")
}

/// Pushes and publishes, and drops as many of the oldest records as that takes.
fn push(producer: &mut Producer<Silent>, type_id: u16, bytes: &[u8], mut dropped: impl FnMut(u64)) {
    while producer.push(type_id, bytes).is_err() {
        match producer.displace(|_, _| true) {
            Displacement::Displaced(record) => dropped(record.first_word),
            Displacement::Moved => {}
            Displacement::Refused => panic!("a full ring has something to displace"),
        }
    }
    producer.publish();
}

fn copied(record: &eventpy_ring::Record<'_>) -> Vec<u8> {
    let mut bytes = vec![0; record.word().len()];
    record.copy_to(&mut bytes);
    bytes
}

fn read_all(consumer: &mut Consumer<Silent>, most: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while consumer.begin().expect("the producer is sound") {
        while let Some(record) = consumer.read().expect("the producer is sound") {
            numbers.push(number_of(&copied(&record), most));
        }
    }
    consumer.release();
    numbers
}

#[test]
fn the_oldest_records_make_room_for_new_ones() {
    let (mut producer, mut consumer) = ring();
    let mut displaced = Vec::new();
    let numbers = if cfg!(miri) { 60 } else { 1000 };
    for number in 0..numbers {
        push(&mut producer, 1, &payload(number, 400), |number| displaced.push(number));
    }
    let read = read_all(&mut consumer, 400);
    assert!(!displaced.is_empty() && !read.is_empty());
    assert_eq!([displaced, read].concat(), (0..numbers).collect::<Vec<_>>());
}

#[test]
fn a_reader_that_began_reads_on_behind_what_was_displaced() {
    let (mut producer, mut consumer) = ring();
    push(&mut producer, 1, &payload(0, 8), |_| unreachable!("there is room"));
    push(&mut producer, 1, &payload(1, 8), |_| unreachable!("there is room"));
    assert!(consumer.begin().unwrap());
    assert!(matches!(producer.displace(|_, _| true), Displacement::Displaced(_)));
    let record = consumer.read().unwrap().expect("the second record is left");
    assert_eq!(number_of(&copied(&record), 8), 1);
    assert!(consumer.read().unwrap().is_none());
}

#[test]
fn a_reader_that_began_ends_where_everything_was_displaced() {
    let (mut producer, mut consumer) = ring();
    push(&mut producer, 1, &payload(0, 8), |_| unreachable!("there is room"));
    assert!(consumer.begin().unwrap());
    // More than a whole ring later, all that the reader began with is gone.
    for number in 1..=600 {
        push(&mut producer, 1, &payload(number, 8), |_| {});
    }
    assert!(consumer.read().unwrap().is_none());
    assert!(consumer.begin().unwrap());
    let record = consumer.read().unwrap().expect("the rest of the ring is left");
    assert_eq!(number_of(&copied(&record), 8), 601 - 256);
}

#[test]
fn a_refused_displacement_leaves_the_ring_as_it_is() {
    let (mut producer, mut consumer) = ring();
    assert_eq!(producer.displace(|_, _| true), Displacement::Refused, "nothing is there");
    producer.push(3, b"kept").unwrap();
    assert_eq!(producer.displace(|_, _| true), Displacement::Refused, "nothing is published");
    producer.publish();
    let refused = producer.displace(|word, position| {
        assert_eq!((word.type_id(), word.len(), position), (3, 4, 0));
        false
    });
    assert_eq!(refused, Displacement::Refused);
    assert!(consumer.begin().unwrap());
    assert_eq!(copied(&consumer.read().unwrap().unwrap()), b"kept");
    assert_eq!(producer.displace(|_, _| true), Displacement::Moved, "the reader was faster");
    assert_eq!(producer.displace(|_, _| true), Displacement::Refused, "nothing is left");
}

#[test]
fn an_ordinary_ring_displaces_nothing() {
    let (mut producer, mut consumer) = heap(CAPACITY, false).unwrap();
    producer.push(1, b"kept").unwrap();
    producer.publish();
    assert_eq!(producer.displace(|_, _| true), Displacement::Refused);
    assert!(consumer.begin().unwrap());
    assert_eq!(copied(&consumer.read().unwrap().unwrap()), b"kept");
}

#[test]
fn a_producer_of_a_displaceable_ring_may_wait_instead() {
    let (mut producer, mut consumer) = ring();
    while producer.push(1, &[0; 56]).is_ok() {}
    producer.publish();
    assert_eq!(producer.push(1, &[0; 56]), Err(Full { wanted: 64 }));
    assert!(consumer.begin().unwrap());
    assert!(consumer.read().unwrap().is_some());
    assert_eq!(producer.push(1, &[0; 56]), Ok(()));
}

/// Every record is either read or displaced, exactly once, in order, and whole.
fn race(records: u64, most: usize, reader: impl Fn(&mut Consumer<Silent>, &mut Vec<u64>) + Sync) {
    let (mut producer, mut consumer) = ring();
    let done = AtomicBool::new(false);
    let (displaced, read) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut displaced = Vec::new();
            for number in 0..records {
                push(&mut producer, 1, &payload(number, most), |number| displaced.push(number));
                if mixed(number).is_multiple_of(16) {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::Release);
            displaced
        });
        let mut read = Vec::new();
        while !done.load(Ordering::Acquire) {
            let before = read.len();
            reader(&mut consumer, &mut read);
            if read.len() == before {
                thread::yield_now();
            }
        }
        reader(&mut consumer, &mut read);
        (writer.join().expect("the writer does not panic"), read)
    });
    assert!(displaced.is_sorted() && read.is_sorted(), "a record arrived out of order");
    let mut all = [displaced, read].concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..records), "a record was lost or arrived twice");
}

const RACES: u64 = if cfg!(miri) { 120 } else { 60_000 };

#[test]
fn reading_races_with_displacing() {
    race(RACES, 200, |consumer, read| {
        if consumer.begin().expect("the producer is sound") {
            while let Some(record) = consumer.read().expect("the producer is sound") {
                read.push(number_of(&copied(&record), 200));
            }
        }
    });
}
