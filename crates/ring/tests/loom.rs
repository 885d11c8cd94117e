//! The protocol of the ring under every order of its memory accesses. Run with
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p eventpy-ring --test loom
//! ```
//!
//! Loom treats `SeqCst` accesses as `AcqRel` and models `SeqCst` fences in full; the ring uses
//! fences. [`HotFence::Compiler`] is no fence at all for loom, since no kernel executes barriers
//! for it: the models that use it must lose a wake-up, which shows that the others could.
//!
//! Loom looks for another schedule only where the last access to an atomic was the other thread's;
//! an own access in between hides the place. So each model runs with either side as the thread
//! that starts, and [`Switch`] marks places where a switch is always tried. Nor does it let a load
//! see a store that comes later; that a place is not written while it is read is shown by a
//! [`Room`], whose accesses loom requires to be ordered.

#![cfg(loom)]

use std::rc::Rc;
use std::sync::Arc;

use eventpy_ring::{Bell, Broken, ColdFence, Consumer, Displacement, HotFence, Producer};
use loom::cell::Cell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// Checks a model with the producer in the thread that starts, and with the consumer in it.
fn model(check: impl Fn(First) + Clone + Send + Sync + 'static) {
    for first in [First::Producer, First::Consumer] {
        let check = check.clone();
        loom::model(move || check(first));
    }
}

/// Which side runs in the model's own thread; loom lets that one run first.
#[derive(Clone, Copy)]
enum First {
    Producer,
    Consumer,
}

impl First {
    /// Runs both sides to their end.
    fn race<P: 'static, C: 'static>(
        self,
        produce: impl FnOnce() -> P + 'static,
        consume: impl FnOnce() -> C + 'static,
    ) -> (P, C) {
        match self {
            First::Producer => {
                let other = thread::spawn(consume);
                let produced = produce();
                (produced, other.join().unwrap())
            }
            First::Consumer => {
                let other = thread::spawn(produce);
                let consumed = consume();
                (other.join().unwrap(), consumed)
            }
        }
    }
}

/// Both sides pass it between two operations. It orders nothing.
#[derive(Clone)]
struct Switch(Arc<AtomicUsize>);

impl Switch {
    fn new() -> Switch {
        Switch(Arc::new(AtomicUsize::new(0)))
    }

    fn here(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// An eventfd in the model: rings are remembered until somebody has waited for them.
#[derive(Clone)]
struct ModelBell(Arc<(Mutex<usize>, Condvar)>);

impl ModelBell {
    fn new() -> ModelBell {
        ModelBell(Arc::new((Mutex::new(0), Condvar::new())))
    }

    fn wait(&self) {
        let (rings, changed) = &*self.0;
        let mut rings = rings.lock().unwrap();
        while *rings == 0 {
            rings = changed.wait(rings).unwrap();
        }
        *rings = 0;
    }

    fn rings(&self) -> usize {
        *self.0.0.lock().unwrap()
    }
}

impl Bell for ModelBell {
    fn ring(&self) {
        let (rings, changed) = &*self.0;
        *rings.lock().unwrap() += 1;
        changed.notify_one();
    }
}

/// A bell for models in which nobody sleeps.
struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// A ring without hot fences, which would order more than the rest of the protocol does.
fn silent(capacity: usize, displaceable: bool) -> (Producer<Silent>, Consumer<Silent>) {
    let (mut producer, mut consumer) =
        eventpy_ring::modelled(capacity, displaceable, Silent, Silent);
    producer.set_hot_fence(HotFence::Compiler);
    consumer.set_hot_fence(HotFence::Compiler);
    (producer, consumer)
}

/// What the bytes of a record's place are for loom: it panics when they are read and written
/// without an order between the two. (Loom's threads are fibers of one thread.)
#[derive(Clone)]
struct Room(Rc<Cell<u8>>);

impl Room {
    /// A place that holds a record.
    fn of(number: u8) -> Room {
        Room(Rc::new(Cell::new(number)))
    }

    fn write(&self, number: u8) {
        self.0.set(number);
    }

    fn read(&self) -> u8 {
        self.0.get()
    }
}

/// A payload of two words that no torn or mixed copy can be taken for.
fn payload(number: u8) -> [u8; 16] {
    [number; 16]
}

/// The next record's payload, which must be whole.
fn read_one<B: Bell>(consumer: &mut Consumer<B>) -> Result<Option<Vec<u8>>, Broken> {
    let Some(record) = consumer.read()? else { return Ok(None) };
    let mut bytes = vec![0; record.word().len()];
    record.copy_to(&mut bytes);
    assert_eq!(record.word().type_id(), u16::from(bytes[0]), "the word belongs to the payload");
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn record: {bytes:?}");
    Ok(Some(bytes))
}

fn push_number<B: Bell>(producer: &mut Producer<B>, number: u8) -> bool {
    producer.push(u16::from(number), &payload(number)).is_ok()
}

/// The consumer's way to sleep: announce, fence, look again, wait.
fn wait_for_records<B: Bell>(consumer: &Consumer<B>, bell: &ModelBell) {
    while !consumer.has_records() {
        consumer.announce_sleep();
        ColdFence::Full.execute();
        if !consumer.has_records() {
            bell.wait();
        }
        consumer.stay_awake();
    }
}

/// All that can be read now.
fn read_now<B: Bell>(consumer: &mut Consumer<B>) -> Vec<u8> {
    let mut read = Vec::new();
    if consumer.begin().expect("the producer is sound") {
        while let Some(bytes) = read_one(consumer).expect("the producer is sound") {
            read.push(bytes[0]);
        }
    }
    read
}

#[test]
fn a_published_record_is_read_whole() {
    model(|first| {
        let (mut producer, mut consumer) = silent(64, false);
        let switch = Switch::new();
        let there = switch.clone();
        let produce = move || {
            for number in 1..=2 {
                assert!(push_number(&mut producer, number));
                producer.publish();
                there.here();
            }
        };
        let consume = move || {
            let mut read = read_now(&mut consumer);
            switch.here();
            read.extend(read_now(&mut consumer));
            (read, consumer)
        };
        let ((), (mut read, mut consumer)) = first.race(produce, consume);
        read.extend(read_now(&mut consumer));
        assert_eq!(read, [1, 2]);
    });
}

#[test]
fn a_batch_appears_at_once() {
    model(|first| {
        let (mut producer, mut consumer) = silent(64, false);
        let produce = move || {
            assert!(push_number(&mut producer, 1));
            assert!(push_number(&mut producer, 2));
            producer.publish();
        };
        let ((), read) = first.race(produce, move || read_now(&mut consumer));
        assert!(read.is_empty() || read == [1, 2], "{read:?}");
    });
}

#[test]
fn room_is_written_again_only_after_it_was_read() {
    model(|first| {
        // There is room for one record of 24 bytes. The second begins with a pad of 8 bytes and
        // takes the place of the first.
        let (mut producer, mut consumer) = silent(32, false);
        assert!(push_number(&mut producer, 1));
        producer.publish();
        let room = Room::of(1);
        let same_room = room.clone();
        let produce = move || {
            if push_number(&mut producer, 2) {
                same_room.write(2);
                producer.publish();
            }
        };
        let consume = move || {
            assert_eq!(read_now(&mut consumer), [1]);
            assert_eq!(room.read(), 1);
            consumer.release();
            let second = read_now(&mut consumer);
            assert!(second.is_empty() || (second == [2] && room.read() == 2));
        };
        first.race(produce, consume);
    });
}

fn consumer_sleeps(hot: HotFence) {
    model(move |first| {
        let data = ModelBell::new();
        let (mut producer, mut consumer) = eventpy_ring::modelled(64, false, data.clone(), Silent);
        producer.set_hot_fence(hot);
        let produce = move || {
            assert!(push_number(&mut producer, 1));
            producer.publish();
        };
        let consume = move || {
            wait_for_records(&consumer, &data);
            assert_eq!(read_now(&mut consumer), [1]);
        };
        first.race(produce, consume);
    });
}

#[test]
fn a_sleeping_consumer_is_woken() {
    consumer_sleeps(HotFence::Full);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_hot_fence_a_consumer_sleeps_on() {
    consumer_sleeps(HotFence::Compiler);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_cold_fence_a_consumer_sleeps_on() {
    model(|first| {
        let data = ModelBell::new();
        let (mut producer, consumer) = eventpy_ring::modelled(64, false, data.clone(), Silent);
        let produce = move || {
            assert!(push_number(&mut producer, 1));
            producer.publish();
        };
        let consume = move || {
            consumer.announce_sleep();
            if !consumer.has_records() {
                data.wait();
            }
        };
        first.race(produce, consume);
    });
}

#[test]
fn a_consumer_that_stays_awake_knows_whether_its_bell_rings() {
    model(|first| {
        let data = ModelBell::new();
        let (mut producer, consumer) = eventpy_ring::modelled(64, false, data.clone(), Silent);
        let produce = move || {
            assert!(push_number(&mut producer, 1));
            producer.publish();
        };
        let consume = move || {
            consumer.announce_sleep();
            ColdFence::Full.execute();
            consumer.stay_awake()
        };
        let ((), rung) = first.race(produce, consume);
        assert_eq!(data.rings(), usize::from(rung));
    });
}

fn producer_waits_for_room(hot: HotFence) {
    model(move |first| {
        let space = ModelBell::new();
        let (mut producer, mut consumer) = eventpy_ring::modelled(32, false, Silent, space.clone());
        consumer.set_hot_fence(hot);
        assert!(push_number(&mut producer, 1));
        producer.publish();
        let room = Room::of(1);
        let same_room = room.clone();
        let produce = move || {
            while let Err(full) = producer.push(2, &payload(2)) {
                if producer.sleep_until(full.wanted, ColdFence::Full) {
                    space.wait();
                }
            }
            same_room.write(2);
            producer.publish();
        };
        let consume = move || {
            assert_eq!(read_now(&mut consumer), [1]);
            assert_eq!(room.read(), 1);
            consumer.release();
            consumer
        };
        let ((), mut consumer) = first.race(produce, consume);
        assert_eq!(read_now(&mut consumer), [2]);
    });
}

#[test]
fn a_producer_that_waits_for_room_is_woken() {
    producer_waits_for_room(HotFence::Full);
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_hot_fence_a_producer_waits_on() {
    producer_waits_for_room(HotFence::Compiler);
}

#[test]
fn a_producer_that_waits_for_a_segment_is_woken() {
    model(|first| {
        let space = ModelBell::new();
        let (mut producer, mut consumer) = eventpy_ring::modelled(32, false, Silent, space.clone());
        assert!(push_number(&mut producer, 1));
        producer.publish();
        let segments = consumer.segments();
        let produce = move || loop {
            let free = producer.take_returned_segments();
            if free != 0 {
                return free;
            }
            if producer.sleep_until_segment(ColdFence::Full) {
                space.wait();
            }
        };
        // Another thread has the segment; the ring is read meanwhile, and its release may wake
        // the producer too, for nothing.
        let reader = thread::spawn(move || segments.give_back(1));
        let consume = move || {
            assert_eq!(read_now(&mut consumer), [1]);
            consumer.release();
        };
        let (free, ()) = first.race(produce, consume);
        assert_eq!(free, 1 << 1);
        reader.join().unwrap();
    });
}

#[test]
fn a_segment_is_filled_again_only_after_it_was_read() {
    model(|first| {
        let (mut producer, consumer) = silent(32, false);
        let segments = consumer.segments();
        let room = Room::of(1);
        let same_room = room.clone();
        let produce = move || {
            if producer.take_returned_segments() == 1 {
                same_room.write(2);
            }
        };
        let consume = move || {
            assert_eq!(room.read(), 1);
            segments.give_back(0);
        };
        first.race(produce, consume);
    });
}

/// Pushes into a displaceable ring; returns what was displaced for it, oldest first.
fn push_displacing(
    producer: &mut Producer<Silent>,
    switch: &Switch,
    number: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut displaced = Vec::new();
    while producer.push(u16::from(number), payload).is_err() {
        switch.here();
        match producer.displace(|_, _| true) {
            Displacement::Displaced(record) => displaced.push(record.word.type_id() as u8),
            Displacement::Moved => {}
            Displacement::Refused => panic!("nothing to displace in a full ring"),
        }
    }
    producer.publish();
    displaced
}

#[test]
fn a_record_is_either_read_or_displaced() {
    model(|first| {
        let (mut producer, mut consumer) = silent(32, true);
        assert!(push_number(&mut producer, 1));
        producer.publish();
        let switch = Switch::new();
        let there = switch.clone();
        let produce = move || push_displacing(&mut producer, &there, 2, &payload(2));
        let consume = move || {
            let mut read = read_now(&mut consumer);
            switch.here();
            read.extend(read_now(&mut consumer));
            (read, consumer)
        };
        let (displaced, (mut read, mut consumer)) = first.race(produce, consume);
        read.extend(read_now(&mut consumer));
        assert!(read.is_sorted(), "read in order: {read:?}");
        let mut all = [displaced, read].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2], "each record exactly once");
    });
}

#[test]
fn a_head_is_never_found_ahead_of_the_tail() {
    model(|first| {
        let (mut producer, mut consumer) = silent(16, true);
        producer.push(1, &[]).unwrap();
        producer.publish();
        assert!(consumer.begin().unwrap());
        assert!(consumer.read().unwrap().is_some());
        assert_eq!(producer.displace(|_, _| true), Displacement::Moved);
        let produce = move || {
            // The head comes to lie behind the tail that the consumer began with.
            producer.push(2, &[]).unwrap();
            producer.publish();
            producer.displace(|_, _| true)
        };
        let consume = move || {
            assert!(consumer.read().expect("the producer is sound").is_none());
            assert!(consumer.begin().is_ok(), "the producer is sound");
            consumer.read().expect("the producer is sound").is_some()
        };
        let (displacement, read) = first.race(produce, consume);
        assert!(
            !read || displacement == Displacement::Moved || displacement == Displacement::Refused
        );
    });
}

#[test]
fn a_tail_far_ahead_is_never_found_without_its_head() {
    model(|first| {
        let (mut producer, mut consumer) = silent(16, true);
        producer.push(1, &[]).unwrap();
        producer.publish();
        let produce = move || {
            // Two records fill the ring. The third makes the tail more than a ring away from the
            // beginning, where the consumer still is.
            for number in 2..=3 {
                push_displacing(&mut producer, &Switch::new(), number, &[]);
            }
        };
        let consume = move || {
            assert!(consumer.begin().expect("the producer is sound"));
            assert!(consumer.read().is_ok(), "the producer is sound");
        };
        first.race(produce, consume);
    });
}

/// Records of 8, 8 and 16 bytes, which fill a ring of 32.
const SMALL: [(u16, usize); 3] = [(1, 0), (2, 0), (3, 8)];
/// Written over the first two, its payload lies where the second one's word was: bytes that no
/// producer would write as a word.
const OVER: [u8; 8] = [0xff; 8];

fn push_small(producer: &mut Producer<Silent>) {
    for (number, len) in SMALL {
        producer.push(number, &[number as u8; 8][..len]).unwrap();
    }
    producer.publish();
}

#[test]
fn a_sound_producer_is_never_called_broken() {
    model(|first| {
        let (mut producer, mut consumer) = silent(32, true);
        push_small(&mut producer);
        let switch = Switch::new();
        let there = switch.clone();
        let produce = move || push_displacing(&mut producer, &there, OVER[0], &OVER);
        let consume = move || {
            let mut read = Vec::new();
            assert!(consumer.begin().unwrap());
            while let Some(record) = consumer.read().expect("the producer is sound") {
                read.push(record.word().type_id() as u8);
                switch.here();
            }
            read
        };
        let (displaced, read) = first.race(produce, consume);
        assert!(read.is_sorted() && displaced.is_sorted());
        let mut all: Vec<_> =
            [displaced, read].concat().into_iter().filter(|number| *number != OVER[0]).collect();
        all.sort_unstable();
        assert!(SMALL.iter().map(|(number, _)| *number as u8).eq(all), "each exactly once");
    });
}
