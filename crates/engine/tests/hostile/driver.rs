//! A manager whose dispatcher process is driven by bytes: what it says, what it writes into the
//! ring, when it exits, and what the manager does meanwhile.
//!
//! Used by the tests with fixed seeds and by the fuzz target `control_protocol`. Whatever the bytes
//! say, nothing panics, a pump comes to its end, what was yielded is what is counted, and once the
//! process is gone the counts balance and nothing is left.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventpy_engine::stage::Stage;
use eventpy_engine::{
    Delivery, DispatcherOptions, DispatcherSpec, Exit, Launch, Payload as _, Pump, Selection, Yield,
};
use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// Bytes before the first record, and where the header's fields lie, as `docs/ring-format.md` says.
const HEADER_BYTES: usize = 4096;
const TAIL: usize = 128;
const FIELDS: [usize; 6] = [256, 384, 512, 640, 768, 776];

const BUFFER_BYTES: usize = 4096;
const LARGE_BYTES: u64 = 1 << 16;
/// Variants of the protocol's messages to the manager, and how many numbers follow each, texts
/// aside.
const NUMBERS: [usize; 8] = [0, 1, 0, 0, 3, 1, 3, 2];
const SEGMENT: u8 = 4;

/// What one input made the manager do.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub records: u64,
    pub failed: u64,
    pub ended: u64,
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

    fn short(&mut self) -> u64 {
        u16::from_le_bytes(self.take()).into()
    }

    /// Most often a small number.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..0xe0 => u64::from(small % 16),
            0xe0..0xf0 => self.short(),
            _ => u64::from_le_bytes(self.take()),
        }
    }
}

struct Play {
    stage: Stage,
    ring: MmapRaw,
    tally: Tally,
    payload: Vec<u8>,
}

impl Play {
    fn new(delivery: Delivery) -> Play {
        let options = DispatcherOptions::default()
            .buffer_bytes(BUFFER_BYTES)
            .large_bytes(LARGE_BYTES as usize)
            .delivery_of("State", delivery);
        let stage = Stage::new(DispatcherSpec {
            name: "hostile".to_owned(),
            event_types: vec!["Number".to_owned(), "State".to_owned()],
            internal_types: 1,
            payload: Vec::new(),
            launch: Launch { program: "".into(), args: Vec::new(), hint: "see to it".to_owned() },
            options,
        });
        let ring = MmapRaw::map_raw(stage.ring()).expect("a ring can be mapped twice");
        Play { stage, ring, tally: Tally::default(), payload: Vec::new() }
    }

    /// One thing that the process or the manager does, as the input says.
    fn act(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 | 1 => self.say_something(input),
            2 => self.say_anything(input),
            3 => self.send_segment(input),
            4..7 => self.commit(input),
            7 => self.scribble(input),
            8 | 9 => self.stage.attend(None),
            10 | 11 => self.pump(usize::from(input.byte())),
            12 => self.look_around(),
            13 => self.stage.pass(Duration::from_secs(input.short() / 512)),
            14 => match input.byte() % 8 {
                0 => self.stage.close_control(),
                1 => self.stage.attend(Some(Exit::Code(input.byte().into()))),
                2 => self.stage.attend(Some(Exit::Signal(input.byte().into()))),
                3 => drop(self.stage.engine().begin_end(&Selection::All, None)),
                _ => {}
            },
            _ => self.begin_well(),
        }
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let Some(control) = self.stage.control() else { return };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(10))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A socket that is full is as good as a process that waits.
        let _ = rustix::net::sendmsg(control, &[IoSlice::new(bytes)], &mut ancillary, flags);
    }

    fn begin_well(&self) {
        self.send(&[1, 0], &[]);
        self.send(&[3], &[]);
    }

    /// A message whose form is right, more or less.
    fn say_something(&self, input: &mut Input<'_>) {
        let variant = input.byte() % 9;
        let mut message = vec![variant];
        for _ in 0..NUMBERS.get(usize::from(variant)).copied().unwrap_or_default() {
            put(&mut message, input.number());
        }
        for _ in 0..2 {
            let len = input.byte() % 4;
            put(&mut message, len.into());
            message.resize(message.len() + usize::from(len), b'a' + len);
        }
        let null = std::fs::File::open("/dev/null").expect("there are descriptors left");
        let descriptors = [null.as_fd(); 10];
        let count = usize::from(input.byte()).saturating_sub(245);
        self.send(&message, &descriptors[..count]);
    }

    fn say_anything(&self, input: &mut Input<'_>) {
        let len = usize::from(input.byte() % 32).min(input.bytes.len());
        let (message, rest) = input.bytes.split_at(len);
        self.send(message, &[]);
        input.bytes = rest;
    }

    /// A segment that is what it says, more or less.
    fn send_segment(&self, input: &mut Input<'_>) {
        let (id, bytes, kind) = (input.number(), 1 + input.short(), input.byte());
        let seals = match kind {
            0..16 => SealFlags::SHRINK,
            _ => SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
        };
        let memory = memory(bytes, seals);
        let mut message = vec![SEGMENT];
        put(&mut message, id);
        put(&mut message, if kind < 32 { input.number() } else { bytes });
        put(&mut message, if kind < 64 { input.number() } else { u64::MAX });
        self.send(&message, &[memory.as_fd()]);
    }

    /// The word at a byte offset, which is brought into the mapping.
    fn word(&self, offset: usize) -> &AtomicU64 {
        let offset = (offset % self.ring.len()) & !7;
        // SAFETY: the offset lies within the mapping.
        let word = unsafe { self.ring.as_mut_ptr().add(offset) };
        // SAFETY: the place is aligned, stays mapped with `self`, and is accessed as an atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// A record, most often a sound one.
    fn commit(&self, input: &mut Input<'_>) {
        let tail = self.word(TAIL).load(Ordering::Relaxed);
        let (kind, type_id) = (input.byte(), u64::from(1 + input.byte() % 3));
        let words = match kind {
            0..128 => [8 | type_id << 32, input.number(), 0],
            128..192 => [16 | type_id << 32 | 2 << 48, input.number(), input.short()],
            _ => [input.number() | input.number() << 32 | input.number() << 48, input.number(), 0],
        };
        for (position, word) in (tail..).step_by(8).zip(words) {
            let offset = HEADER_BYTES + (position as usize) % BUFFER_BYTES;
            self.word(offset).store(word, Ordering::Relaxed);
        }
        let span = if kind < 128 { 16 } else { 24 };
        self.word(TAIL).store(tail.wrapping_add(span), Ordering::Release);
    }

    fn scribble(&self, input: &mut Input<'_>) {
        match input.byte() {
            0..8 => self.word(TAIL).store(input.number(), Ordering::Relaxed),
            8..128 => {
                let field = FIELDS[usize::from(input.byte()) % FIELDS.len()];
                self.word(field).store(input.number(), Ordering::Relaxed);
            }
            _ => {
                let offset = HEADER_BYTES + input.short() as usize;
                self.word(offset).store(input.number(), Ordering::Relaxed);
            }
        }
    }

    /// A pump, which is stopped after some deliveries if it has so many.
    fn pump(&mut self, most: usize) {
        let engine = self.stage.engine();
        if !engine.is_deployed() {
            return;
        }
        engine.begin_pump(&Selection::All, Pump::Now).expect("no other pump is under way");
        let mut records = 0;
        for _ in 0..most {
            match engine.next_delivery() {
                Some(Yield::Record(record)) => {
                    assert!((1..=3).contains(&record.type_id()));
                    assert!(record.len() <= LARGE_BYTES as usize);
                    record.read(&mut self.payload);
                    records += 1;
                }
                Some(Yield::Failed(failed)) => {
                    assert!(!failed.to_string().is_empty());
                    self.tally.failed += 1;
                }
                Some(_) => self.tally.ended += 1,
                None => break,
            }
        }
        engine.stop_pump();
        self.tally.records += records;
    }

    fn look_around(&mut self) {
        let engine = self.stage.engine();
        let counts = engine.stats().dispatchers[0].counts;
        assert!(counts.sent >= counts.delivered, "{counts:?}");
        assert!(!engine.end_report().to_string().is_empty());
    }

    /// The process exits, if it has not, and the manager pumps until all is told.
    fn end(&mut self) {
        let _ = self.stage.engine().begin_end(&Selection::All, None);
        self.stage.attend(Some(Exit::Code(0)));
        // A queue that was full lets the rest of the ring in with the next pump.
        for _ in 0..8 {
            self.pump(usize::MAX);
        }
        let engine = self.stage.engine();
        assert!(!engine.is_deployed(), "something is left");
        let counts = engine.end_report().dispatchers[0].counts;
        let known = counts.delivered.checked_add(counts.dropped);
        let known = known.and_then(|known| known.checked_add(counts.lost));
        assert_eq!(Some(counts.sent), known, "{counts:?}");
        // Records of the internal type are yielded, and not counted.
        assert!(counts.delivered <= self.tally.records);
        assert_eq!(self.tally.failed + self.tally.ended, 1);
    }
}

/// A number as the protocol writes it.
fn put(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("eventpy-hostile", flags).expect("there is memory");
    rustix::fs::ftruncate(&fd, bytes).expect("there is memory");
    rustix::fs::fcntl_add_seals(&fd, seals).expect("nothing is sealed yet");
    fd
}

/// Does what the bytes say, one after the other, and then comes to the end.
pub fn drive(bytes: &[u8]) -> Tally {
    let mut input = Input { bytes };
    let kinds = [Delivery::Every, Delivery::Latest, Delivery::DropOldest, Delivery::DropNewest];
    let kind = input.byte();
    let mut play = Play::new(kinds[usize::from(kind % 4)]);
    if kind & 4 == 0 {
        play.begin_well();
    }
    while !input.bytes.is_empty() {
        play.act(&mut input);
    }
    play.end();
    play.tally
}
