//! Two threads, one ring, heap memory: numbered and checksummed records in the order of sending.

#![cfg(not(loom))]

mod numbered;

use std::thread;

use eventpy_ring::{Consumer, Reservation, Silent, heap};
use numbered::{mixed, number_of, payload};

/// How many records; Miri takes about a millisecond for each.
const RECORDS: u64 = if cfg!(miri) { 80 } else { 60_000 };
const CAPACITY: usize = if cfg!(miri) { 4096 } else { 16384 };
/// Large enough that some payloads are copied as blocks.
const MOST: usize = if cfg!(miri) { 60 } else { 800 };

fn receive(
    consumer: &mut Consumer<Silent>,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(u64),
) -> bool {
    let any = consumer.begin().expect("the producer is sound");
    while let Some(record) = consumer.read().expect("the producer is sound") {
        buffer.resize(record.word().len(), 0);
        record.copy_to(buffer);
        let type_id = record.word().type_id();
        let number = number_of(buffer, MOST);
        assert_eq!(u64::from(type_id), number % 128 + 1, "the type belongs to the payload");
        each(number);
    }
    consumer.release();
    any
}

/// How a producer writes a payload into its reservation.
type Write = fn(&mut Reservation<'_, Silent>, &[u8]);

fn every_record_arrives_once_and_in_order(write: Write) {
    let (mut producer, mut consumer) = heap(CAPACITY, false).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..RECORDS {
                let bytes = payload(number, MOST);
                let type_id = (number % 128 + 1) as u16;
                loop {
                    if let Ok(mut reservation) = producer.reserve(bytes.len(), MOST) {
                        write(&mut reservation, &bytes);
                        reservation.commit(type_id, bytes.len());
                        break;
                    }
                    producer.publish();
                    thread::yield_now();
                }
                if mixed(number).is_multiple_of(4) {
                    producer.publish();
                }
            }
            producer.publish();
        });
        let mut next = 0;
        let mut buffer = Vec::new();
        while next < RECORDS {
            let any = receive(&mut consumer, &mut buffer, |number| {
                assert_eq!(number, next);
                next += 1;
            });
            if !any {
                thread::yield_now();
            }
        }
        assert!(!consumer.has_records());
    });
}

#[test]
fn copied_records_arrive_once_and_in_order() {
    every_record_arrives_once_and_in_order(|reservation, bytes| reservation.write(bytes));
}

#[test]
fn records_written_in_place_arrive_once_and_in_order() {
    every_record_arrives_once_and_in_order(|reservation, bytes| {
        reservation.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    });
}

/// ThreadSanitizer sees most in this one: plain stores, which only the tail's release orders, and so
/// little between a store and its load that it still knows of the store.
#[test]
fn a_record_written_in_place_is_read_whole() {
    let records = if cfg!(miri) { 80 } else { 1000 };
    let (mut producer, mut consumer) = heap(4096, false).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..records {
                let mut reservation = loop {
                    match producer.fits(8) {
                        Ok(()) => break producer.reserve(8, 8).expect("it fits"),
                        Err(_) => thread::yield_now(),
                    }
                };
                reservation.bytes_mut().copy_from_slice(&u64::to_le_bytes(number));
                reservation.commit(1, 8).publish();
            }
        });
        for number in 0..records {
            while !consumer.begin().expect("the producer is sound") {
                thread::yield_now();
            }
            let mut bytes = [0; 8];
            let record = consumer.read().expect("the producer is sound");
            record.expect("the reading has begun").copy_to(&mut bytes);
            assert_eq!(u64::from_le_bytes(bytes), number);
            consumer.release();
        }
    });
}

#[test]
fn segments_go_round_between_threads() {
    let rounds = if cfg!(miri) { 5 } else { 2000 };
    let (mut producer, consumer) = heap(CAPACITY, false).unwrap();
    let segments = consumer.segments();
    thread::scope(|scope| {
        for half in [0..32, 32..64] {
            let segments = segments.clone();
            scope.spawn(move || half.for_each(|index| segments.give_back(index)));
        }
        let mut back = 0_u64;
        let mut returns = vec![0; 64];
        let mut left = 64 * rounds;
        while left > 0 {
            let returned = producer.take_returned_segments();
            assert_eq!(back & returned, 0, "a segment came back twice");
            back |= returned;
            for index in (0..64).filter(|index| returned >> index & 1 == 1) {
                returns[index as usize] += 1;
                left -= 1;
                if returns[index as usize] < rounds {
                    back &= !(1 << index);
                    segments.give_back(index);
                }
            }
            thread::yield_now();
        }
        assert_eq!(back, u64::MAX);
    });
}
