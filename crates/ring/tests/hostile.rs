//! Memory that a hostile producer writes: the reader says so, or reads within bounds.

#![cfg(not(any(loom, miri)))]

#[path = "hostile/driver.rs"]
mod driver;
mod numbered;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::{Scribbler, Tally, drive, drive_either_way, drive_racing};
use eventpy_ring::{Broken, Consumer, EventBell, create, max_inline_bytes};
use numbered::mixed;

const CAPACITY: u64 = 4096;

fn ring(displaceable: bool) -> (Consumer<EventBell>, Scribbler) {
    let bell = EventBell::new().expect("there are descriptors left");
    let (consumer, fd): (_, OwnedFd) =
        create(CAPACITY as usize, displaceable, Arc::new(bell)).expect("there is memory");
    (consumer, Scribbler::new(&fd))
}

#[test]
fn a_tail_past_the_capacity_is_broken() {
    for displaceable in [false, true] {
        for tail in [CAPACITY + 8, 1 << 40, !7] {
            let (mut consumer, scribbler) = ring(displaceable);
            scribbler.set_tail(tail);
            let broken = Broken::Tail { tail, position: 0, capacity: CAPACITY };
            assert_eq!(consumer.begin(), Err(broken), "displaceable: {displaceable}");
            assert_eq!(
                broken.to_string(),
                format!("its tail is {tail} while the reader is at 0 of a ring of 4096 bytes")
            );
        }
    }
}

#[test]
fn a_tail_off_a_record_is_broken() {
    for displaceable in [false, true] {
        for tail in [1, 7, 12] {
            let (mut consumer, scribbler) = ring(displaceable);
            scribbler.set_tail(tail);
            assert!(matches!(consumer.begin(), Err(Broken::Tail { .. })), "{tail}");
        }
    }
}

#[test]
fn a_tail_that_moves_back_is_broken() {
    for displaceable in [false, true] {
        let (mut consumer, scribbler) = ring(displaceable);
        scribbler.set_tail(64);
        assert!(consumer.begin().unwrap());
        scribbler.set_tail(56);
        assert!(matches!(consumer.begin(), Err(Broken::Tail { tail: 56, .. })));
    }
}

#[test]
fn a_record_past_the_tail_is_broken() {
    for displaceable in [false, true] {
        for len in [57, 4096, u32::MAX] {
            let (mut consumer, scribbler) = ring(displaceable);
            scribbler.set_record(0, len, 1, 0);
            scribbler.set_tail(64);
            assert!(consumer.begin().unwrap());
            let broken = consumer.read().err();
            assert_eq!(broken, Some(Broken::Record { position: 0, len, room: 64 }));
        }
    }
}

#[test]
fn a_record_past_the_end_of_the_ring_is_broken() {
    for displaceable in [false, true] {
        let (mut consumer, scribbler) = ring(displaceable);
        // Records up to the last word; the last one claims what lies behind the mapping.
        (0..CAPACITY - 8).step_by(8).for_each(|at| scribbler.set_record(at, 0, 1, 0));
        scribbler.set_tail(CAPACITY - 8);
        assert!(consumer.begin().unwrap());
        while consumer.read().unwrap().is_some() {}
        consumer.release();
        scribbler.set_record(CAPACITY - 8, 64, 1, 0);
        scribbler.set_tail(CAPACITY + 1024);
        assert!(consumer.begin().unwrap());
        let broken = consumer.read().err();
        assert_eq!(broken, Some(Broken::Record { position: CAPACITY - 8, len: 64, room: 8 }));
    }
}

#[test]
fn a_record_larger_than_any_is_broken() {
    for displaceable in [false, true] {
        for flags in [0, 1] {
            let largest = max_inline_bytes(CAPACITY as usize) as u32;
            let (mut consumer, scribbler) = ring(displaceable);
            scribbler.set_record(0, largest, 1, flags);
            scribbler.set_record(u64::from(largest) + 8, largest + 1, 1, flags);
            scribbler.set_tail(2048);
            assert!(consumer.begin().unwrap());
            if flags == 0 {
                assert_eq!(consumer.read().unwrap().map(|record| record.word().len()), Some(512));
            }
            assert!(matches!(consumer.read(), Err(Broken::Record { len: 513, .. })));
        }
    }
}

#[test]
fn a_head_that_leaves_the_committed_range_is_broken() {
    for (head, tail) in [(72, 64), (12, 64), (u64::MAX, 64), (!7, 64)] {
        let (mut consumer, scribbler) = ring(true);
        scribbler.set_tail(tail);
        assert!(consumer.begin().unwrap());
        scribbler.set_head(head);
        assert_eq!(consumer.read().err(), Some(Broken::Head { head, position: 0, tail }));
    }
}

#[test]
fn a_head_that_moves_back_is_broken() {
    let (mut consumer, scribbler) = ring(true);
    scribbler.set_tail(64);
    assert!(consumer.begin().unwrap());
    assert!(consumer.read().unwrap().is_some());
    scribbler.set_head(0);
    assert_eq!(consumer.read().err(), Some(Broken::Head { head: 0, position: 8, tail: 64 }));
}

#[test]
fn the_head_of_an_ordinary_ring_is_not_looked_at() {
    let (mut consumer, scribbler) = ring(false);
    scribbler.set_tail(16);
    scribbler.set_head(u64::MAX);
    assert!(consumer.begin().unwrap());
    assert!(consumer.read().unwrap().is_some());
    assert!(consumer.read().unwrap().is_some());
    assert!(consumer.read().unwrap().is_none());
}

#[test]
fn the_short_cut_does_not_yield_what_reaches_too_far() {
    for (len, tail) in [(8, 8), (64, 64), (u32::MAX, CAPACITY), (CAPACITY as u32, CAPACITY)] {
        let (mut consumer, scribbler) = ring(false);
        scribbler.set_record(0, len, 1, 0);
        scribbler.set_tail(tail);
        assert!(consumer.begin().unwrap());
        assert!(consumer.read_of(1).is_none(), "{len} bytes before {tail}");
        assert!(matches!(consumer.read(), Err(Broken::Record { position: 0, .. })));
    }
}

/// Whatever was scribbled, the reader ends after as many records as the ring has room for.
#[test]
fn a_ring_of_nothing_but_pads_ends() {
    for displaceable in [false, true] {
        let (mut consumer, scribbler) = ring(displaceable);
        (0..CAPACITY).step_by(8).for_each(|at| scribbler.set_record(at, 0, 0, 1));
        scribbler.set_tail(CAPACITY);
        assert!(consumer.begin().unwrap());
        assert!(consumer.read().unwrap().is_none());
    }
}

/// Small ones that together do most of what an hour of fuzzing has found to do.
#[test]
fn what_the_fuzzer_begins_with_is_read_within_bounds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/hostile_ring");
    let files = fs::read_dir(folder).expect("the repository has it").flatten();
    // What a fuzzer on this machine has added is its own affair.
    let seeds: Vec<_> = files
        .map(|file| file.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"seed-"))
        })
        .collect();
    assert!(seeds.len() >= 50, "only {} are left", seeds.len());
    let mut sum = Tally::default();
    for seed in seeds {
        let tally = drive_either_way(&fs::read(seed).expect("a file can be read"));
        sum.records += tally.records;
        sum.broken += tally.broken;
    }
    assert!(sum.records > 0 && sum.broken > 0, "{sum:?}");
}

/// Random inputs for the driver that the fuzz target shares, with fixed seeds.
fn inputs(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..).map(move |number| {
        let start = mixed(seed ^ mixed(number));
        let words = 4 + start % 60;
        (0..words).flat_map(|at| mixed(start ^ mixed(at)).to_le_bytes()).collect()
    })
}

fn run_for(time: Duration, seed: u64, drive: impl Fn(&[u8]) -> Tally) -> Tally {
    let end = Instant::now() + time;
    let mut sum = Tally::default();
    // At least some, on a machine that has no time.
    for (number, input) in inputs(seed).enumerate() {
        if number >= 50 && Instant::now() >= end {
            break;
        }
        let tally = drive(&input);
        sum.records += tally.records;
        sum.broken += tally.broken;
    }
    sum
}

#[test]
fn scribbled_memory_is_read_within_bounds() {
    let tally = run_for(Duration::from_secs(2), 1, drive);
    assert!(tally.records > 0 && tally.broken > 0, "{tally:?}");
}

#[test]
fn memory_that_is_scribbled_meanwhile_is_read_within_bounds() {
    let tally = run_for(Duration::from_secs(1), 2, |input| drive_racing(input, 200));
    assert!(tally.records > 0 && tally.broken > 0, "{tally:?}");
}
