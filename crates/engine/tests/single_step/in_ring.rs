//! A process that writes into a ring, without an engine around it: it is started so quickly that
//! there can be one for every instruction.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use eventpy_ring::{Consumer, Displacement, EventBell, Producer, attach, create};

use crate::numbered::{mixed, number_of, payload};
use crate::stepping::{Kills, REFUSED, Stepped, Way, some_of, window};

/// Tells a process that it is a writer, and what it does in its window.
const VARIABLE: &str = "EVENTPY_TEST_WRITER";

const CAPACITY: usize = 4096;
/// Payloads have up to so many bytes.
const MOST: usize = 400;
const TYPE: u16 = 1;

/// What a writer does in its window.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    name: &'static str,
    /// Records that are there when the window begins, displaced ones included.
    before: u64,
    /// Records that it writes in the window and publishes together.
    batch: u64,
    displaces: bool,
}

pub const EMIT: Work = Work { name: "emit", before: 3, batch: 1, displaces: false };
pub const BATCH: Work = Work { name: "batch", before: 3, batch: 3, displaces: false };
pub const DISPLACE: Work = Work { name: "displace", before: 42, batch: 1, displaces: true };

/// In a writer's process: becomes the writer. In any other: returns.
pub fn run_if_writer() {
    let Ok(name) = env::var(VARIABLE) else { return };
    let work = [EMIT, BATCH, DISPLACE].into_iter().find(|work| work.name == name);
    work.expect("the test knows what it asks for").run();
}

impl Work {
    fn run(self) -> ! {
        let ring = io::stdin().as_fd().try_clone_to_owned().expect("the ring is standard input");
        let bell = EventBell::new().expect("there are descriptors left");
        let mut producer = attach(ring, bell).expect("it is a ring");
        let payloads: Vec<_> =
            (0..self.before + self.batch).map(|number| payload(number, MOST)).collect();
        let (before, batch) = payloads.split_at(self.before as usize);
        for payload in before {
            self.write(&mut producer, payload);
            producer.publish();
        }
        window(|| {
            batch.iter().for_each(|payload| self.write(&mut producer, payload));
            producer.publish();
        })
    }

    /// As the engine does it.
    fn write(self, producer: &mut Producer<EventBell>, payload: &[u8]) {
        while producer.push(TYPE, payload).is_err() {
            let displaced = producer.displace(|_, _| self.displaces);
            assert!(displaced != Displacement::Refused, "an ordinary ring has room");
        }
        producer.count_sent(TYPE);
    }

    fn ways(self) -> Vec<Way> {
        let mut writer = Writer::start(self);
        let trace = writer.stepped.trace();
        writer.kill();
        trace.ways()
    }

    /// Kills a writer at each place of its window.
    pub fn kill_everywhere(self) -> Kills {
        let ways = self.ways();
        let mut before = Outcome { dropped: 0, records: self.before };
        let mut dropped_before = 0;
        for (index, way) in ways.iter().enumerate() {
            let mut writer = Writer::start(self);
            assert!(writer.stepped.go_to(*way), "{way:?}");
            let (read, outcome) = writer.kill();
            assert!(read.into_iter().eq(outcome.dropped..outcome.records), "{way:?}: {outcome:?}");
            assert_eq!((outcome.records - self.before) % self.batch, 0, "{way:?}: {outcome:?}");
            // What was done before an instruction is done after it too.
            assert!(index == 0 || outcome >= before, "{way:?}: {before:?}, then {outcome:?}");
            before = outcome;
            if index == 0 {
                dropped_before = before.dropped;
            }
        }
        assert_eq!(before.dropped > dropped_before, self.displaces, "{dropped_before} before");
        assert_eq!(before.records, self.before + self.batch, "it is there when the call returns");
        Kills { kills: ways.len(), places: ways.len() }
    }

    /// The same at about so many places, with a reader that takes a record a while before the kill.
    pub fn kill_beside_reader(self, about: usize) -> Kills {
        let ways = self.ways();
        let places = ways.len();
        let ways = some_of(ways, about);
        for (index, way) in ways.iter().enumerate() {
            let mut writer = Writer::start(self);
            writer.stepped.go_to(*way);
            writer.read(1);
            let more = mixed(index as u64) % 100;
            (0..more).all(|_| writer.stepped.step());
            let (read, outcome) = writer.kill();
            let what = format!("{way:?} and {more}: {read:?}, {outcome:?}");
            assert!(read.is_sorted() && outcome.records >= self.before, "{what}");
            assert_eq!(read.len() as u64 + outcome.dropped, outcome.records, "{what}");
        }
        Kills { kills: ways.len(), places }
    }
}

/// What a writer that was killed has come to, as the reader finds it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    /// Records that it dropped, by its own count.
    dropped: u64,
    /// The number after that of the last record.
    records: u64,
}

struct Writer {
    process: Child,
    stepped: Stepped,
    consumer: Consumer<EventBell>,
    read: Vec<u64>,
}

impl Writer {
    fn try_start(work: Work) -> Option<Writer> {
        let bell = Arc::new(EventBell::new().expect("there are descriptors left"));
        let (consumer, ring): (_, OwnedFd) =
            create(CAPACITY, work.displaces, bell).expect("there is memory");
        let mut process = Command::new("/proc/self/exe")
            .env(VARIABLE, work.name)
            .stdin(Stdio::from(ring))
            .spawn()
            .expect("this program can be started again");
        match Stepped::at_begin(process.id()) {
            Some(stepped) => Some(Writer { process, stepped, consumer, read: Vec::new() }),
            None => {
                let status = process.wait().expect("it is a child");
                assert_eq!(status.code(), Some(REFUSED), "a writer has failed");
                None
            }
        }
    }

    fn start(work: Work) -> Writer {
        Writer::try_start(work).expect("it was possible before")
    }

    fn read(&mut self, most: usize) {
        let end = self.read.len().saturating_add(most);
        while self.read.len() < end && self.consumer.begin().expect("the writer is sound") {
            while self.read.len() < end
                && let Some(record) = self.consumer.read().expect("the writer is sound")
            {
                let mut bytes = vec![0; record.word().len()];
                record.copy_to(&mut bytes);
                self.read.push(number_of(&bytes, MOST));
            }
        }
        self.consumer.release();
    }

    /// Kills it where it is, and reads on: all numbers that were read, and what it came to.
    fn kill(mut self) -> (Vec<u64>, Outcome) {
        self.stepped.kill();
        let status = self.process.wait().expect("it is a child");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        self.read(usize::MAX - self.read.len());
        let (sent, counted) = self.consumer.reported_counts(TYPE);
        let dropped = counted + u64::from(self.consumer.uncounted_drop().is_some());
        let records = self.read.last().map_or(dropped, |last| last + 1);
        assert!(sent >= records, "{sent} are counted, {records} were there");
        (self.read, Outcome { dropped, records })
    }
}

/// Whether this process may trace its children.
pub fn can_trace() -> bool {
    Writer::try_start(EMIT).map(Writer::kill).is_some()
}
