//! The same in whole dispatcher processes, whose starting takes longer: at some of the places.

use std::time::Duration;

use eventpy_engine::child::{Assignment, Emitter, Failure, Source};
use eventpy_engine::{
    Counts, Delivery, DispatcherOptions, DispatcherSpec, Engine, Exit, Launch, Payload as _, Pump,
    Selection, Yield,
};

use crate::numbered::{number_of, payload};
use crate::stepping::{Kills, Stepped, some_of, window};

const TYPE: u16 = 1;
/// Payloads have up to so many bytes, if they are small.
const SMALL: usize = 400;
/// Bytes that only a segment has room for.
const LARGE_BYTES: usize = 70_000;
/// As many steps take about as long as a process takes to start.
const LONGEST_WAY: usize = 300;

/// What a dispatcher does in its window.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    name: &'static str,
    /// Events that it has sent when the window begins.
    before: u64,
    /// Events that it sends in the window.
    batch: u64,
    delivery: Delivery,
    is_large: bool,
}

pub const EMIT: Work =
    Work { name: "emit", before: 3, batch: 1, delivery: Delivery::Every, is_large: false };
pub const BATCH: Work =
    Work { name: "batch", before: 3, batch: 3, delivery: Delivery::Every, is_large: false };
pub const DISPLACE: Work = Work {
    name: "displace",
    before: 42,
    batch: 1,
    delivery: Delivery::DropOldest,
    is_large: false,
};
pub const LARGE: Work =
    Work { name: "large", before: 3, batch: 1, delivery: Delivery::Every, is_large: true };

/// Dispatchers of the tests.
pub fn load(assignment: &Assignment) -> Result<Box<dyn Source>, String> {
    let work = [EMIT, BATCH, DISPLACE, LARGE].into_iter().find(|work| work.name == assignment.name);
    work.map(|work| Box::new(work) as Box<dyn Source>).ok_or("the test knows its names".to_owned())
}

impl Source for Work {
    fn init(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        (0..self.before).for_each(|number| send(emitter, &payload(number, SMALL)));
        Ok(())
    }

    fn update(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        let numbers = self.before..self.before + self.batch;
        let payloads: Vec<_> = numbers.map(|number| self.payload(number)).collect();
        window(|| match &payloads[..] {
            [payload] => send(emitter, payload),
            payloads => {
                emitter.begin_batch();
                payloads.iter().for_each(|payload| send(emitter, payload));
                emitter.end_batch();
            }
        })
    }

    fn finish(&mut self, _: &mut Emitter) -> Result<(), Failure> {
        Ok(())
    }
}

fn send(emitter: &mut Emitter, payload: &[u8]) {
    emitter.send(TYPE, payload).expect("a small ring and a segment suffice");
}

impl Work {
    fn payload(self, number: u64) -> Vec<u8> {
        if !self.is_large {
            return payload(number, SMALL);
        }
        (number..).flat_map(|number| payload(number, SMALL)).take(LARGE_BYTES).collect()
    }

    fn spec(self) -> DispatcherSpec {
        let options = DispatcherOptions::default().buffer_bytes(4096).delivery(self.delivery);
        DispatcherSpec {
            name: self.name.to_owned(),
            event_types: vec!["Number".to_owned()],
            internal_types: 0,
            payload: Vec::new(),
            launch: Launch {
                program: "/proc/self/exe".into(),
                args: vec![],
                hint: "see to its main".to_owned(),
            },
            options,
        }
    }

    /// The number of an event, which must be whole.
    fn number_of(self, bytes: &[u8]) -> u64 {
        if bytes.len() <= SMALL {
            return number_of(bytes, SMALL);
        }
        assert!(bytes == self.payload(self.before), "the large event is damaged");
        self.before
    }

    /// Deploys it, steps through its window as `walk` says and kills it there.
    fn kill<T>(self, walk: impl FnOnce(&mut Stepped) -> T) -> (T, Vec<u64>, Counts) {
        let mut engine = Engine::new();
        engine.add(self.spec()).expect("the options are in order");
        engine.deploy(&Selection::All).expect("it can be loaded");
        let pid = engine.stats().dispatchers[0].pid.expect("it runs");
        let mut stepped = Stepped::at_begin(pid).expect("it was possible before");
        let walked = walk(&mut stepped);
        stepped.kill();
        let (numbers, exit) = self.pump_until_its_failure(&mut engine);
        assert_eq!(exit, Exit::Signal(9));
        engine.begin_end(&Selection::All, None).expect("it is deployed");
        while engine.is_deployed() {
            engine.begin_pump(&Selection::All, Pump::End).expect("it is deployed");
            assert!(engine.next_delivery().is_none(), "nothing follows its failure");
        }
        let report = &engine.end_report().dispatchers[0];
        assert_eq!(report.exit, Exit::Signal(9), "{report:?}");
        (walked, numbers, report.counts)
    }

    /// What it has sent, in order, and how it ended.
    fn pump_until_its_failure(self, engine: &mut Engine) -> (Vec<u64>, Exit) {
        let mut numbers = Vec::new();
        let mut bytes = Vec::new();
        loop {
            let pump = Pump::Wait(Duration::from_secs(60));
            engine.begin_pump(&Selection::All, pump).expect("it is deployed");
            let mut exit = None;
            while let Some(delivery) = engine.next_delivery() {
                match delivery {
                    Yield::Record(record) => {
                        record.read(&mut bytes);
                        numbers.push(self.number_of(&bytes));
                    }
                    Yield::Failed(failed) => exit = Some(failed.exit),
                    Yield::Restarted(_) | Yield::Ended(_) => panic!("it does not end otherwise"),
                }
            }
            if let Some(exit) = exit {
                return (numbers, exit);
            }
        }
    }

    /// Kills it at each place of its window.
    pub fn kill_everywhere(self) -> Kills {
        self.kill_at(usize::MAX)
    }

    /// Kills it at about so many places of its window, but for those in the middle of a long loop:
    /// no short way leads there.
    pub fn kill_at(self, about: usize) -> Kills {
        let (trace, ..) = self.kill(Stepped::trace);
        let mut ways = trace.ways();
        let places = ways.len();
        ways.retain(|way| way.cost() < LONGEST_WAY);
        let ways = some_of(ways, about);
        let mut before = (0, 0);
        let mut dropped_before = 0;
        for (index, way) in ways.iter().enumerate() {
            let (_, numbers, counts) = self.kill(|stepped| stepped.go_to(*way));
            let what = format!("{way:?}: {numbers:?}, {counts:?}");
            let end = numbers.last().expect("something was sent") + 1;
            let outcome = (counts.dropped, end);
            assert!(numbers.into_iter().eq(counts.dropped..end), "{what}");
            assert_eq!((end - self.before) % self.batch, 0, "{what}");
            assert_eq!(counts.sent, counts.delivered + counts.dropped, "{what}");
            assert_eq!((counts.sent, counts.lost), (end, 0), "{what}");
            // What was done before an instruction is done after it too.
            assert!(index == 0 || outcome >= before, "{what}, after {before:?}");
            before = outcome;
            if index == 0 {
                dropped_before = before.0;
            }
        }
        let displaces = self.delivery == Delivery::DropOldest;
        assert_eq!(before.0 > dropped_before, displaces, "{dropped_before} before");
        assert_eq!(before.1, self.before + self.batch, "it is there when the call returns");
        Kills { kills: ways.len(), places }
    }
}
