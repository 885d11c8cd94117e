//! A consumer on memory that somebody else writes into, driven by bytes.
//!
//! Used by the tests, with fixed seeds and with what fuzzing has found, and by the fuzz target
//! `hostile_ring`. Whatever the bytes say, the consumer answers with [`Broken`] or with records within bounds: no panic, no read past
//! the mapping (an unmapped page follows it), and no read that goes on for more records than the
//! ring has room for.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use eventpy_ring::{
    Broken, Consumer, EventBell, Producer, RecordWord, attach, create, max_inline_bytes,
};
use memmap2::MmapRaw;

/// Bytes before the first record.
const HEADER_BYTES: usize = 4096;
/// Where the header's fields lie, as `docs/ring-format.md` says.
const TAIL: usize = 128;
const HEAD: usize = 256;
const FIELDS: [usize; 11] = [0, 8, 16, 24, 384, 512, 640, 768, 776, 2816, 2824];

/// What one input made the consumer do.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub records: u64,
    pub broken: u64,
}

/// The mapping of whoever is hostile: every byte of the ring can be written through it.
pub struct Scribbler {
    mapping: MmapRaw,
}

impl Scribbler {
    pub fn new(ring: &OwnedFd) -> Scribbler {
        Scribbler { mapping: MmapRaw::map_raw(ring).expect("a ring can be mapped twice") }
    }

    /// The word at a byte offset, which is brought into the mapping.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        let offset = (offset % self.mapping.len()) & !7;
        // SAFETY: the offset lies within the mapping.
        let word = unsafe { self.mapping.as_mut_ptr().add(offset) };
        // SAFETY: the place is aligned, stays mapped with `self`, and is accessed as an atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    pub fn set_tail(&self, tail: u64) {
        self.word(TAIL).store(tail, Ordering::Release);
    }

    pub fn tail(&self) -> u64 {
        self.word(TAIL).load(Ordering::Acquire)
    }

    pub fn set_head(&self, head: u64) {
        self.word(HEAD).store(head, Ordering::Release);
    }

    pub fn head(&self) -> u64 {
        self.word(HEAD).load(Ordering::Acquire)
    }

    /// Writes a record word at a position.
    pub fn set_record(&self, position: u64, len: u32, type_id: u16, flags: u16) {
        let bits = u64::from(len) | u64::from(type_id) << 32 | u64::from(flags) << 48;
        self.data(position).store(bits, Ordering::Relaxed);
    }

    /// The data word at a position.
    pub fn data(&self, position: u64) -> &AtomicU64 {
        let capacity = self.mapping.len() - HEADER_BYTES;
        self.word(HEADER_BYTES + (position % capacity as u64) as usize)
    }

    /// One hostile act, as the input says.
    fn scribble(&self, input: &mut Input<'_>) {
        match input.byte() % 6 {
            0 => self.set_tail(input.position(self.tail())),
            1 => self.set_head(input.position(self.head())),
            2 => {
                let at = u64::from(input.short()) * 8;
                self.set_record(
                    at,
                    u32::from(input.short() % 1024),
                    input.short() % 8,
                    input.short() % 4,
                );
            }
            3 => self.data(u64::from(input.short()) * 8).store(input.long(), Ordering::Relaxed),
            4 => {
                let field = FIELDS[usize::from(input.byte()) % FIELDS.len()];
                self.word(field).store(input.long(), Ordering::Relaxed);
            }
            _ => {
                let (from, to) = (input.short(), input.short() % 64);
                let bits = input.long();
                for at in 0..u64::from(to) {
                    self.data((u64::from(from) + at) * 8).store(bits, Ordering::Relaxed);
                }
            }
        }
    }

    /// An act that a reader may not notice at once; now and then one that it must.
    fn meddle(&self, input: &mut Input<'_>, displaceable: bool) {
        let (head, tail) = (self.head(), self.tail());
        let capacity = (self.mapping.len() - HEADER_BYTES) as u64;
        match input.byte() {
            0..64 => {
                let to = tail.wrapping_add(u64::from(input.byte() % 64) * 8);
                if to.wrapping_sub(head) <= capacity {
                    self.set_tail(to);
                }
            }
            64..96 if displaceable => {
                let to = head.wrapping_add(u64::from(input.byte() % 16) * 8);
                if to <= tail {
                    // A reader may have claimed the record meanwhile.
                    let exchange = self.word(HEAD);
                    let _ =
                        exchange.compare_exchange(head, to, Ordering::AcqRel, Ordering::Relaxed);
                }
            }
            255 => self.scribble(input),
            act => {
                let at = u64::from(input.short()) * 8;
                let type_id = input.short() % 8;
                self.set_record(at, u32::from(act % 32), type_id, u16::from(act % 3 == 0));
            }
        }
    }
}

/// The bytes that drive; past their end they are zero.
struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let len = N.min(self.bytes.len());
        let (now, rest) = self.bytes.split_at(len);
        taken[..len].copy_from_slice(now);
        self.bytes = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A position: most often near another one and a multiple of 8, else any number.
    fn position(&mut self, near: u64) -> u64 {
        match self.byte() % 8 {
            0 => self.long(),
            1 => near.wrapping_add(self.short().into()),
            2 => near.wrapping_sub(self.short().into()),
            3 => !self.long() & !7,
            _ => near.wrapping_add(u64::from(self.short() % 1024) * 8),
        }
    }
}

/// A consumer, and how much it may still yield before the next begin.
struct Reader {
    consumer: Consumer<EventBell>,
    capacity: usize,
    bytes_left: usize,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Reader {
    fn new(consumer: Consumer<EventBell>, capacity: usize) -> Reader {
        Reader { consumer, capacity, bytes_left: 0, buffer: Vec::new(), tally: Tally::default() }
    }

    fn begin(&mut self) -> Result<(), Broken> {
        self.consumer.begin()?;
        self.bytes_left = self.capacity;
        Ok(())
    }

    /// Every record takes room, and a read ends when the ring's room is used up.
    fn account(&mut self, word: RecordWord) {
        let len = word.len();
        assert!(len <= max_inline_bytes(self.capacity), "a record of {len} bytes");
        let span = 8 + len.next_multiple_of(8);
        assert!(span <= self.bytes_left, "more was read than the ring holds");
        self.bytes_left -= span;
    }

    fn read(&mut self, records: u8) -> Result<(), Broken> {
        for _ in 0..records {
            let Some(record) = self.consumer.read()? else { break };
            let word = record.word();
            self.buffer.resize(word.len(), 0);
            record.copy_to(&mut self.buffer);
            self.tally.records += 1;
            self.account(word);
        }
        Ok(())
    }

    /// Reads by the short cut, and what it leaves by the long way.
    fn read_by_type(&mut self, records: u8) -> Result<(), Broken> {
        for _ in 0..records {
            let Some(type_id) = self.consumer.next_type() else { return self.read(1) };
            let Some(record) = self.consumer.read_of(type_id) else { return self.read(1) };
            let word = record.word();
            assert_eq!(word.type_id(), type_id);
            self.buffer.resize(word.len(), 0);
            record.copy_to(&mut self.buffer);
            self.tally.records += 1;
            self.account(word);
        }
        Ok(())
    }

    fn read_again(&mut self) {
        let record = self.consumer.current();
        self.buffer.resize(record.word().len(), 0);
        record.copy_to(&mut self.buffer);
    }

    /// The calls that can't fail.
    fn look_around(&mut self, number: u8) {
        assert!(self.consumer.queued_bytes() <= self.capacity as u64);
        self.consumer.announce_sleep();
        self.consumer.has_records();
        self.consumer.stay_awake();
        self.consumer.reported_counts(number.into());
        self.consumer.segments().give_back(u32::from(number) % 64);
    }

    /// One call, as the input says.
    fn act(&mut self, input: &mut Input<'_>) {
        let result = match input.byte() % 8 {
            0 | 1 => self.begin(),
            2 | 3 => self.read(input.byte()),
            4 | 5 => self.read_by_type(input.byte()),
            6 => {
                self.consumer.release();
                self.read_again();
                Ok(())
            }
            _ => {
                self.look_around(input.byte());
                Ok(())
            }
        };
        if let Err(broken) = result {
            assert!(!broken.to_string().is_empty());
            self.tally.broken += 1;
        }
    }

    /// Reads whole payloads for as long as there is something to do.
    fn read_all(&mut self) -> Result<(), Broken> {
        self.begin()?;
        self.read_by_type(u8::MAX)?;
        self.read(u8::MAX)?;
        self.read_again();
        self.consumer.release();
        Ok(())
    }
}

fn bell() -> EventBell {
    EventBell::new().expect("there are descriptors left")
}

/// A sound producer of the ring, for what comes before the first scribble.
fn sound(ring: &OwnedFd) -> Producer<EventBell> {
    let fd = ring.try_clone().expect("there are descriptors left");
    attach(fd, bell()).expect("nothing was scribbled yet")
}

fn produce(producer: &mut Producer<EventBell>, input: &mut Input<'_>) {
    let len = usize::from(input.short()) % (producer.max_record_bytes() + 1);
    let type_id = input.short() % 8 + 1;
    while producer.push(type_id, &vec![type_id as u8; len]).is_err() {
        producer.publish();
        if matches!(producer.displace(|_, _| true), eventpy_ring::Displacement::Refused) {
            break;
        }
    }
    producer.publish();
}

/// What the fuzz target does with an input: one in sixteen is scribbled by a second thread while the
/// consumer reads.
pub fn drive_either_way(bytes: &[u8]) -> Tally {
    match bytes.split_first() {
        Some((0..16, rest)) => drive_racing(rest, 20),
        Some((_, rest)) => drive(rest),
        None => Tally::default(),
    }
}

/// Does to a consumer and to its memory what the bytes say, one after the other.
pub fn drive(bytes: &[u8]) -> Tally {
    let mut input = Input { bytes };
    let kind = input.byte();
    let capacity = 4096 << (kind & 1);
    let (consumer, ring) =
        create(capacity, kind & 2 != 0, Arc::new(bell())).expect("there is memory");
    let mut reader = Reader::new(consumer, capacity);
    let mut producer = Some(sound(&ring));
    let scribbler = Scribbler::new(&ring);
    while !input.bytes.is_empty() {
        match (input.byte() % 4, &mut producer) {
            (0, Some(producer)) => produce(producer, &mut input),
            (0 | 1, _) => {
                // A producer trusts its own memory; from here on there is none that is sound.
                producer = None;
                scribbler.scribble(&mut input);
            }
            _ => reader.act(&mut input),
        }
    }
    reader.consumer.uncounted_drop();
    reader.tally
}

/// Writes into the memory in another thread while the consumer reads, a number of times or until
/// it finds the ring broken.
pub fn drive_racing(bytes: &[u8], reads: u32) -> Tally {
    let mut input = Input { bytes };
    let kind = input.byte();
    let capacity = 4096 << (kind & 1);
    let displaceable = kind & 2 != 0;
    let (consumer, ring) =
        create(capacity, displaceable, Arc::new(bell())).expect("there is memory");
    let mut reader = Reader::new(consumer, capacity);
    let scribbler = Scribbler::new(&ring);
    scribbler.set_tail(capacity as u64 / 2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let meddling = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let mut acts = Input { bytes: input.bytes };
                while !acts.bytes.is_empty() {
                    scribbler.meddle(&mut acts, displaceable);
                }
            }
        });
        for _ in 0..reads {
            if reader.read_all().is_err() {
                reader.tally.broken += 1;
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        // The end of the scope waits for its closure alone, and a leak check for the whole thread.
        meddling.join().expect("the other thread does not panic");
    });
    reader.consumer.uncounted_drop();
    reader.tally
}
