//! A ring between two mappings of one memory, as two processes have it: making and attaching,
//! bells and sleep, segments and parcels.

#![cfg(not(any(loom, miri)))]

mod numbered;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::thread;

use eventpy_ring::{
    AttachError, ColdFence, Consumer, CreateError, EventBell, HotFence, Producer, SegmentReader,
    SegmentWriter, attach, create, parcel, register_for_barriers, unpack,
};
use numbered::{mixed, number_of, payload};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags};

const CAPACITY: usize = 4096;
const HEADER_BYTES: usize = 4096;

fn bell() -> EventBell {
    EventBell::new().expect("there are descriptors left")
}

/// Another handle of a bell, as the other process has it.
fn handle(bell: &EventBell) -> EventBell {
    bell.try_clone().expect("there are descriptors left").into()
}

/// Both sides over one memory, with the bells that wake them.
struct Pair {
    producer: Producer<EventBell>,
    consumer: Consumer<EventBell>,
    data: EventBell,
    space: EventBell,
}

fn pair() -> Pair {
    let (data, space) = (bell(), bell());
    let (consumer, ring) = create(CAPACITY, false, Arc::new(handle(&space))).unwrap();
    let producer = attach(ring, handle(&data)).unwrap();
    Pair { producer, consumer, data, space }
}

/// How often a bell was rung since it was last asked.
fn rings(bell: &EventBell) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(bell, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(errno) => {
            assert_eq!(errno, rustix::io::Errno::AGAIN);
            0
        }
    }
}

/// Sleeps until a bell rings. The time-out is a watchdog.
fn wait_for(bell: &EventBell, who: &str) {
    let watchdog = Timespec { tv_sec: 20, tv_nsec: 0 };
    let mut descriptors = [PollFd::new(bell, PollFlags::IN)];
    let ready = poll(&mut descriptors, Some(&watchdog)).expect("no signal interrupts the test");
    assert_eq!(ready, 1, "a wake-up was lost: {who} sleeps on");
}

/// Memory with any content, sealed or not.
fn memory(bytes: usize, content: &[(u64, u64)], seals: SealFlags) -> OwnedFd {
    let fd =
        rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&fd, bytes as u64).unwrap();
    let file = File::from(fd);
    for (offset, word) in content {
        file.write_all_at(&word.to_ne_bytes(), *offset).unwrap();
    }
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file.into()
}

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
const MAGIC: u64 = u64::from_le_bytes(*b"EVPYRING");

fn identity(version: u64, capacity: u64) -> [(u64, u64); 3] {
    [(0, MAGIC), (8, version), (16, capacity)]
}

#[test]
fn what_one_mapping_writes_the_other_reads() {
    let Pair { mut producer, mut consumer, .. } = pair();
    for number in 0..10_000 {
        producer.push(9, &payload(number, 512)).unwrap();
        producer.count_sent(9);
        producer.publish();
        assert!(consumer.begin().unwrap());
        let record = consumer.read().unwrap().expect("one record is there");
        let mut bytes = vec![0; record.word().len()];
        record.copy_to(&mut bytes);
        assert_eq!((record.word().type_id(), number_of(&bytes, 512)), (9, number));
        consumer.release();
    }
    assert_eq!(consumer.reported_counts(9), (10_000, 0));
}

#[test]
fn what_was_committed_outlives_its_producer() {
    let Pair { mut producer, mut consumer, .. } = pair();
    producer.push(1, b"published").unwrap();
    producer.publish();
    producer.push(2, b"never published").unwrap();
    drop(producer);
    assert!(consumer.begin().unwrap());
    assert_eq!(consumer.read().unwrap().map(|record| record.word().type_id()), Some(1));
    assert!(consumer.read().unwrap().is_none());
    assert!(!consumer.begin().unwrap());
}

#[test]
fn a_displaceable_ring_is_one_for_both_sides() {
    let (mut consumer, ring) = create(CAPACITY, true, Arc::new(bell())).unwrap();
    let mut producer = attach(ring, bell()).unwrap();
    producer.push(1, b"old").unwrap();
    producer.push(2, b"new").unwrap();
    producer.publish();
    let displaced = producer.displace(|_, _| true);
    assert!(
        matches!(displaced, eventpy_ring::Displacement::Displaced(record) if record.word.type_id() == 1)
    );
    assert!(consumer.begin().unwrap());
    assert_eq!(consumer.read().unwrap().map(|record| record.word().type_id()), Some(2));
}

#[test]
fn nobody_is_rung_for_who_is_awake() {
    let Pair { mut producer, mut consumer, data, space } = pair();
    for _ in 0..1000 {
        producer.push(1, &[0; 100]).unwrap();
        producer.publish();
        assert!(consumer.begin().unwrap());
        assert!(consumer.read().unwrap().is_some());
        consumer.release();
    }
    assert_eq!((rings(&data), rings(&space)), (0, 0));
}

#[test]
fn a_sleeping_consumer_is_rung_once() {
    let Pair { mut producer, consumer, data, .. } = pair();
    consumer.announce_sleep();
    ColdFence::Full.execute();
    assert!(!consumer.has_records());
    producer.push(1, &[]).unwrap();
    assert_eq!(rings(&data), 0, "nothing is published");
    producer.publish();
    producer.publish();
    assert_eq!(rings(&data), 1);
    assert!(consumer.stay_awake());
    producer.publish();
    assert_eq!(rings(&data), 0);
    consumer.announce_sleep();
    assert!(!consumer.stay_awake());
}

#[test]
fn a_waiting_producer_is_rung_when_its_room_is_there() {
    let Pair { mut producer, mut consumer, space, .. } = pair();
    let full = loop {
        if let Err(full) = producer.push(1, &[0; 56]) {
            break full;
        }
    };
    producer.publish();
    assert!(producer.sleep_until(full.wanted + 64, ColdFence::Full));
    assert!(consumer.begin().unwrap());
    for expected in [0, 1, 0] {
        assert!(consumer.read().unwrap().is_some());
        consumer.release();
        assert_eq!(rings(&space), expected);
    }
    assert!(!producer.sleep_until(full.wanted, ColdFence::Full), "there is room");
    assert!(producer.push(1, &[0; 56]).is_ok());
}

#[test]
fn a_producer_that_waits_for_a_segment_is_rung() {
    let Pair { mut producer, consumer, space, .. } = pair();
    let segments = consumer.segments();
    assert!(producer.sleep_until_segment(ColdFence::Full));
    segments.give_back(5);
    assert_eq!(rings(&space), 1);
    assert!(!producer.sleep_until_segment(ColdFence::Full), "one is back");
    assert_eq!(producer.take_returned_segments(), 1 << 5);
    // Cut short, it is not rung.
    assert!(producer.sleep_until_segment(ColdFence::Full));
    producer.stay_awake();
    segments.give_back(6);
    assert_eq!(rings(&space), 0);
}

/// Two threads that sleep whenever they have nothing to do.
fn both_sides_sleep(hot: HotFence, cold: ColdFence) {
    const RECORDS: u64 = 60_000;
    let Pair { mut producer, mut consumer, data, space } = pair();
    producer.set_hot_fence(hot);
    consumer.set_hot_fence(hot);
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..RECORDS {
                let bytes = payload(number, 300);
                while let Err(full) = producer.push(1, &bytes) {
                    producer.publish();
                    space.silence();
                    if producer.sleep_until(full.wanted, cold) {
                        wait_for(&space, "the producer");
                    }
                }
                // A few at a time, and now and then a pause in which the other side falls asleep.
                if mixed(number).is_multiple_of(4) {
                    producer.publish();
                }
                if mixed(number).is_multiple_of(64) {
                    thread::yield_now();
                }
            }
            producer.publish();
        });
        let mut next = 0;
        let mut bytes = Vec::new();
        while next < RECORDS {
            data.silence();
            consumer.announce_sleep();
            cold.execute();
            if !consumer.has_records() {
                wait_for(&data, "the consumer");
            }
            consumer.stay_awake();
            if consumer.begin().expect("the producer is sound") {
                while let Some(record) = consumer.read().expect("the producer is sound") {
                    bytes.resize(record.word().len(), 0);
                    record.copy_to(&mut bytes);
                    assert_eq!(number_of(&bytes, 300), next);
                    next += 1;
                }
            }
            consumer.release();
        }
    });
}

#[test]
fn no_wake_up_is_lost_with_full_fences() {
    both_sides_sleep(HotFence::Full, ColdFence::Full);
}

#[test]
fn no_wake_up_is_lost_with_barriers() {
    match register_for_barriers() {
        ColdFence::Everywhere => both_sides_sleep(HotFence::Compiler, ColdFence::Everywhere),
        ColdFence::Full => both_sides_sleep(HotFence::Full, ColdFence::Full),
    }
}

#[test]
fn the_size_of_a_ring_can_never_change() {
    let (_consumer, ring) = create(CAPACITY, false, Arc::new(bell())).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&ring).unwrap();
    assert!(seals.contains(SIZE_SEALS), "{seals:?}");
    for bytes in [0, CAPACITY as u64 * 4] {
        assert_eq!(rustix::fs::ftruncate(&ring, bytes), Err(rustix::io::Errno::PERM));
    }
    assert_eq!(File::from(ring).metadata().unwrap().size(), (HEADER_BYTES + CAPACITY) as u64);
}

/// Address ranges of this process and their permissions, for one file or for none.
fn ranges() -> Vec<(usize, usize, String, u64)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    let range = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.to_owned();
        let inode = fields.nth(2)?.parse().ok()?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?, permissions, inode))
    };
    maps.lines().filter_map(range).collect()
}

/// Where the mapping of a file ends, and what comes next.
fn guard_of(file: &File) -> (usize, String) {
    let inode = file.metadata().unwrap().ino();
    let ranges = ranges();
    let mine = |range: &&(_, _, String, u64)| range.3 == inode && range.2.starts_with('r');
    let last = ranges.iter().filter(mine).max_by_key(|range| range.1).expect("it is mapped");
    let next = ranges.iter().find(|range| range.0 == last.1).expect("something follows");
    (next.1 - next.0, next.2[..3].to_owned())
}

#[test]
fn a_page_that_nobody_may_touch_follows_every_mapping() {
    let (consumer, ring) = create(CAPACITY, false, Arc::new(bell())).unwrap();
    let ring = File::from(ring);
    let (bytes, permissions) = guard_of(&ring);
    assert!(bytes >= 4096 && permissions == "---", "{bytes} bytes with {permissions}");
    drop(consumer);
    let inode = ring.metadata().unwrap().ino();
    assert!(!ranges().iter().any(|range| range.3 == inode), "a mapping was left");

    for bytes in [1, 4096, 4097, 100_000] {
        let (writer, fd) = SegmentWriter::create(bytes).unwrap();
        let file = File::from(fd);
        assert_eq!(guard_of(&file).1, "---", "a writer of {bytes} bytes");
        drop(writer);
        let fd = file.try_clone().unwrap();
        let _reader = SegmentReader::map(fd.as_fd(), bytes).unwrap();
        assert_eq!(guard_of(&file).1, "---", "a reader of {bytes} bytes");
    }
}

#[test]
fn the_reader_of_a_ring_cannot_write_records() {
    let (_consumer, ring) = create(1 << 20, false, Arc::new(bell())).unwrap();
    let inode = File::from(ring).metadata().unwrap().ino();
    let writable: usize = ranges()
        .iter()
        .filter(|range| range.3 == inode && range.2.starts_with("rw"))
        .map(|range| range.1 - range.0)
        .sum();
    assert_eq!(writable, rustix::param::page_size().max(HEADER_BYTES));
}

#[test]
fn a_size_that_is_no_power_of_two_is_refused_with_the_next_one() {
    let error = create(100_000, false, Arc::new(bell())).err().expect("it is no power of two");
    assert!(matches!(error, CreateError::Capacity { capacity: 100_000, suggestion: 131_072 }));
    assert_eq!(
        error.to_string(),
        "a ring of 100000 bytes can't be made: the size must be a power of two from 4096 to \
         1073741824; the next one is 131072"
    );
}

fn refused(memory: OwnedFd) -> AttachError {
    attach(memory, bell()).err().expect("it is not sound")
}

#[test]
fn memory_that_is_no_ring_is_refused() {
    let error = refused(memory(HEADER_BYTES + CAPACITY, &[(0, 0x1234)], SIZE_SEALS));
    assert!(matches!(error, AttachError::NotARing { found: 0x1234 }));
    assert_eq!(error.to_string(), "the memory is not a ring: it begins with 0x0000000000001234");
}

#[test]
fn a_ring_of_another_version_is_refused() {
    let content = identity(2, CAPACITY as u64);
    let error = refused(memory(HEADER_BYTES + CAPACITY, &content, SIZE_SEALS));
    assert!(matches!(error, AttachError::Version { found: 2 }));
    assert_eq!(
        error.to_string(),
        "the ring has format 2, this side speaks 1: both sides must be built from one version"
    );
}

#[test]
fn a_ring_of_another_size_than_it_says_is_refused() {
    let content = identity(1, 2 * CAPACITY as u64);
    let error = refused(memory(HEADER_BYTES + CAPACITY, &content, SIZE_SEALS));
    assert!(matches!(error, AttachError::Size { found: 8192, expected: 12288, .. }));
    assert_eq!(
        error.to_string(),
        "the memory has 8192 bytes and seals 0x7, where 12288 sealed bytes were announced"
    );
    let huge = identity(1, u64::MAX);
    let error = refused(memory(HEADER_BYTES + CAPACITY, &huge, SIZE_SEALS));
    assert!(matches!(error, AttachError::Size { expected: u64::MAX, .. }));
}

#[test]
fn memory_of_a_size_that_no_ring_has_is_refused() {
    assert!(matches!(refused(memory(0, &[], SIZE_SEALS)), AttachError::Size { .. }));
    for bytes in [100, HEADER_BYTES, HEADER_BYTES + 2048, HEADER_BYTES + 5000] {
        let memory = memory(bytes, &identity(1, CAPACITY as u64), SIZE_SEALS);
        assert!(matches!(refused(memory), AttachError::Size { .. }), "{bytes}");
    }
}

#[test]
fn memory_whose_size_may_change_is_refused() {
    let sound = identity(1, CAPACITY as u64);
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::SHRINK | SealFlags::GROW] {
        let memory = memory(HEADER_BYTES + CAPACITY, &sound, seals);
        assert!(matches!(refused(memory), AttachError::Size { .. }), "{seals:?}");
    }
    let sealed = memory(HEADER_BYTES + CAPACITY, &sound, SIZE_SEALS);
    assert!(attach(sealed, bell()).is_ok());
}

#[test]
fn a_descriptor_that_is_no_memory_is_refused() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let error = refused(reader);
    assert!(matches!(error, AttachError::Os { .. }));
    assert!(error.to_string().starts_with("cannot read the seals of shared memory: "), "{error}");
}

#[test]
fn a_segment_shows_what_was_written_into_it() {
    for bytes in [8, 4096, 100_001] {
        let (mut writer, fd) = SegmentWriter::create(bytes).unwrap();
        let reader = SegmentReader::map(fd.as_fd(), bytes).unwrap();
        assert_eq!((writer.capacity(), reader.capacity()), (bytes, bytes));
        let content: Vec<u8> = (0..bytes).map(|at| mixed(at as u64) as u8).collect();
        writer.bytes_mut().copy_from_slice(&content);
        let mut copy = vec![0; bytes];
        reader.copy_to(&mut copy);
        assert_eq!(copy, content);
        let mut part = [0; 5];
        reader.copy_to(&mut part);
        assert_eq!(part, content[..5]);
        // SAFETY: the segment has at least one byte, and nobody writes now.
        assert_eq!(unsafe { reader.as_ptr().read() }, content[0]);
    }
}

#[test]
#[should_panic(expected = "the segment has 8 bytes")]
fn a_copy_past_a_segment_is_refused() {
    let (_writer, fd) = SegmentWriter::create(8).unwrap();
    SegmentReader::map(fd.as_fd(), 8).unwrap().copy_to(&mut [0; 9]);
}

const HUGE: MemfdFlags =
    MemfdFlags::HUGETLB.union(MemfdFlags::ALLOW_SEALING).union(MemfdFlags::HUGE_2MB);

#[test]
fn a_segment_that_is_not_what_was_announced_is_refused() {
    let refused = |memory: OwnedFd, bytes| {
        SegmentReader::map(memory.as_fd(), bytes).expect_err("it is not sound")
    };
    for (found, expected) in [(8192, 4096), (4096, 8192), (0, 0), (4096, usize::MAX)] {
        let error = refused(memory(found, &[], SIZE_SEALS), expected);
        assert!(matches!(error, AttachError::Size { .. }), "{found} instead of {expected}");
    }
    let error = refused(memory(4096, &[], SealFlags::SHRINK), 4096);
    assert_eq!(
        error.to_string(),
        "the memory has 4096 bytes and seals 0x2, where 4096 sealed bytes were announced"
    );
    let (reader, _writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    assert!(matches!(refused(reader, 4096), AttachError::Os { .. }));
    // Not every kernel has huge pages.
    if let Ok(huge) = rustix::fs::memfd_create("huge", HUGE) {
        rustix::fs::ftruncate(&huge, 2 << 20).unwrap();
        rustix::fs::fcntl_add_seals(&huge, SIZE_SEALS).unwrap();
        let error = refused(huge, 2 << 20).to_string();
        assert!(error.contains("not of ordinary pages"), "{error}");
    }
}

#[test]
fn no_segment_is_empty() {
    assert!(matches!(SegmentWriter::create(0), Err(CreateError::Os { .. })));
}

#[test]
fn a_parcel_holds_what_was_packed() {
    for content in [&b""[..], b"x", &[7; 10_000]] {
        let fd = parcel(content).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
        assert!(seals.contains(SIZE_SEALS));
        assert_eq!(unpack(fd, content.len()).unwrap(), content);
    }
    assert_eq!(unpack(parcel(b"abc").unwrap(), 2).unwrap(), b"ab");
}

#[test]
fn a_parcel_that_is_shorter_than_announced_is_refused() {
    for len in [4, 1 << 46, isize::MAX as usize] {
        let error = unpack(parcel(b"abc").unwrap(), len).expect_err("three bytes are there");
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    }
}

/// Reading from it could take for ever.
#[test]
fn a_parcel_that_is_no_memory_is_refused() {
    let endless = File::open("/dev/zero").expect("the system has a /dev/zero");
    assert!(unpack(endless.into(), 8).is_err());
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    assert!(unpack(reader, 8).is_err());
}

#[test]
fn a_bell_rings_until_it_is_silenced() {
    use eventpy_ring::Bell;
    let bell = bell();
    let other = handle(&bell);
    let ready = |bell: &EventBell| {
        let mut descriptors = [PollFd::new(bell, PollFlags::IN)];
        poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!ready(&bell));
    bell.silence();
    other.ring();
    other.ring();
    assert!(ready(&bell) && ready(&other));
    bell.silence();
    assert!(!ready(&bell) && !ready(&other));
    // A counter that can't count on is as good as a bell that was rung, and nobody waits for it.
    rustix::io::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    other.ring();
    assert!(ready(&bell));
    let mut raw = File::from(bell.as_fd().try_clone_to_owned().unwrap());
    assert_eq!(raw.read(&mut [0; 8]).unwrap(), 8);
}
