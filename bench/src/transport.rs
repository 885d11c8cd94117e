//! A way for records from one process to another, and the two measurements over any way.
//!
//! Each contender that EventPy is compared with implements [`Transport`]; the loops below
//! are compiled anew for each, so that no contender pays for an indirect call.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::measure::{Contender, Load, Reading, Setting};
use crate::process::{Cores, Placement, Producer, await_end, enter_producer, pin};
use crate::record::{Latencies, Record, Tally, now_ns};

/// A contender's way from a producer process to a consumer process.
pub trait Transport {
    /// The consumer's end before the producer is there.
    type Listener;
    /// The consumer's end.
    type Receiver: Receiver;
    /// The producer's end.
    type Sender: Sender;

    /// Opens the consumer's end, and tells the link by which the producer finds it.
    fn listen() -> Result<(Self::Listener, String)>;
    /// Waits for the producer.
    fn accept(listener: Self::Listener) -> Result<Self::Receiver>;
    /// Opens the producer's end.
    fn connect(link: &str) -> Result<Self::Sender>;
}

/// The producer's end of a [`Transport`].
pub trait Sender {
    /// Sends one record, and waits for room as this contender does.
    fn send(&mut self, record: Record) -> Result<()>;

    /// Makes all that was sent visible; only a sender that batches has something to do.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The consumer's end of a [`Transport`].
pub trait Receiver {
    /// Waits, as this contender does, until there is something, and hands at least one
    /// record to `take`.
    fn receive(&mut self, take: &mut impl FnMut(&Record)) -> Result<()>;
}

/// `name` moves `records` as fast as it can: millions a second, and nanoseconds for one.
pub fn throughput<T: Transport>(name: &'static str, records: u64) -> Contender {
    Contender {
        name,
        records,
        gap: Duration::ZERO,
        placement: Placement::Apart,
        measure: consume_flood::<T>,
        produce: produce_flood::<T>,
    }
}

/// `name` moves `records`, one every `gap`: nanoseconds on the way, median and p99.
pub fn latency<T: Transport>(name: &'static str, records: u64, pace: Pace) -> Contender {
    Contender {
        name,
        records,
        gap: pace.gap,
        placement: pace.placement,
        measure: consume_paced::<T>,
        produce: produce_paced::<T>,
    }
}

/// How the records of a latency work follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The pause between two records.
    pub gap: Duration,
    /// Which cores the two sides use.
    pub placement: Placement,
}

fn consume_flood<T: Transport>(setting: &Setting) -> Result<Reading> {
    let (mut receiver, producer) = connect::<T>(setting)?;
    let mut tally = Tally::default();
    let warm_up = setting.load.records / 10;
    while tally.count() < warm_up {
        receiver.receive(&mut |record| tally.take(record))?;
    }
    let (start, first) = (Instant::now(), tally.count());
    while tally.count() < setting.load.records {
        receiver.receive(&mut |record| tally.take(record))?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let moved = (tally.count() - first) as f64;
    tally.verify(setting.load.records)?;
    producer.end()?;
    Ok(throughput_reading(moved, seconds))
}

/// The reading of a throughput work.
pub fn throughput_reading(records: f64, seconds: f64) -> Reading {
    vec![records / seconds / 1e6, seconds * 1e9 / records]
}

fn produce_flood<T: Transport>(link: &str, load: &Load) -> Result<()> {
    enter_producer(load.cores.producer)?;
    let mut sender = T::connect(link)?;
    for sequence in 0..load.records {
        sender.send(Record::numbered(sequence))?;
    }
    sender.flush()?;
    await_end()
}

fn consume_paced<T: Transport>(setting: &Setting) -> Result<Reading> {
    let (mut receiver, producer) = connect::<T>(setting)?;
    let mut latencies = Latencies::with_capacity(setting.load.records);
    while latencies.count() < setting.load.records {
        receiver.receive(&mut |record| latencies.take(record))?;
    }
    producer.end()?;
    Ok(latencies.percentiles()?.to_vec())
}

fn produce_paced<T: Transport>(link: &str, load: &Load) -> Result<()> {
    enter_producer(load.cores.producer)?;
    let mut sender = T::connect(link)?;
    for sequence in 0..load.records {
        await_gap(load);
        sender.send(Record::stamped(sequence, now_ns()))?;
        sender.flush()?;
    }
    await_end()
}

/// Waits for the gap between two records: asleep where the consumer needs the core, else
/// spinning, since a core that is awake sends at once.
pub fn await_gap(load: &Load) {
    let Cores { producer, consumer } = load.cores;
    if producer == consumer {
        return thread::sleep(load.gap);
    }
    let end = now_ns() + load.gap.as_nanos() as u64;
    while now_ns() < end {}
}

/// Starts the producer, which must not inherit the pinning, and meets it.
fn connect<T: Transport>(setting: &Setting) -> Result<(T::Receiver, Producer)> {
    let (listener, link) = T::listen()?;
    let producer = Producer::start(&setting.row, &link, &setting.load)?;
    pin(setting.load.cores.consumer)?;
    Ok((T::accept(listener)?, producer))
}
