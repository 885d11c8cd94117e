//! A program that runs for long: dispatchers of all kinds, restarts, kills and deployments, again
//! and again. Nothing grows, every event arrives once and in order, and every count is exact: each
//! process states in its last event how many came before, and those that are killed keep a note.
//!
//! `EVENTPY_SOAK_SECONDS` is how long it runs.

#![forbid(unsafe_code)]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eventpy::{
    Delivery, DispatcherFailed, DispatcherOptions, Emitter, Event, EventDispatchManager,
    EventDispatcher, EventListener, Failure, Restart, Subscriptions,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use support::growth::{Growth, Sample};
use support::{WATCHDOG, alone_for, assert_balanced, signal_child};

/// Something with a number, and with content that follows from it.
#[derive(Event, Serialize, Deserialize)]
struct Load {
    sender: usize,
    /// The process that sent it.
    incarnation: u64,
    number: u64,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
}

/// The last event of a process, from its `finish`.
#[derive(Event, Serialize, Deserialize)]
struct Farewell {
    sender: usize,
    incarnation: u64,
    /// How many loads it has sent.
    loads: u64,
}

/// How a sender behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Manner {
    /// A small event every millisecond.
    Steady,
    /// Small events as fast as it can, some of them in batches.
    Flood,
    /// Events of 100 bytes to 2 MB.
    Large,
    /// Fails after some thousand events.
    Failing,
    /// Is killed from outside.
    Killed,
    /// Old events make way for new ones.
    Dropping,
    /// Only the newest event counts.
    Latest,
}

const MANNERS: [Manner; 7] = [
    Manner::Steady,
    Manner::Flood,
    Manner::Large,
    Manner::Failing,
    Manner::Killed,
    Manner::Dropping,
    Manner::Latest,
];

impl Manner {
    fn options(self) -> DispatcherOptions {
        let restart = |restart: Restart| {
            restart
                .backoff(Duration::from_millis(1), Duration::from_millis(20))
                .limit(u32::MAX, WATCHDOG)
        };
        let options = DispatcherOptions::default().end_timeout(WATCHDOG);
        match self {
            Manner::Steady | Manner::Large => options,
            Manner::Flood => options.buffer_bytes(64 * 1024),
            Manner::Failing => options.restart(restart(Restart::on_failure())),
            Manner::Killed => options.restart(restart(Restart::always())),
            Manner::Dropping => {
                options.delivery_of(Load::NAME, Delivery::DropOldest).buffer_bytes(16 * 1024)
            }
            Manner::Latest => options.delivery_of(Load::NAME, Delivery::Latest),
        }
    }

    /// Whether each event of a process arrives.
    fn is_complete(self) -> bool {
        !matches!(self, Manner::Dropping | Manner::Latest)
    }
}

#[derive(Serialize, Deserialize)]
struct Sender {
    number: usize,
    manner: Manner,
    /// Where those that are killed keep their notes.
    notes: PathBuf,
}

struct Sent {
    incarnation: u64,
    count: u64,
    /// How many it has sent for sure, as 8 bytes, if it may not come to its farewell.
    note: Option<File>,
    random: fastrand::Rng,
}

#[eventpy::dispatcher]
impl EventDispatcher for Sender {
    type Events = (Load, Farewell);
    type State = Sent;

    fn init(&mut self) -> eventpy::Result<Sent> {
        let incarnation = fastrand::u64(..);
        let note = match self.manner {
            Manner::Killed => Some(File::create_new(self.notes.join(incarnation.to_string()))?),
            _ => None,
        };
        Ok(Sent { incarnation, count: 0, note, random: fastrand::Rng::new() })
    }

    fn update(
        &mut self,
        sent: &mut Sent,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        match self.manner {
            Manner::Steady | Manner::Killed => {
                emitter.wait(Duration::from_millis(1));
                emitter.emit(self.next(sent, 40))?;
                if let Some(note) = &sent.note {
                    note.write_all_at(&sent.count.to_le_bytes(), 0)?;
                }
            }
            Manner::Flood if sent.random.bool() => {
                let batch: Vec<Load> = (0..32).map(|_| self.next(sent, 24)).collect();
                emitter.emit_all(batch)?;
            }
            Manner::Large => {
                let bytes = 100 << sent.random.u32(0..15);
                emitter.emit(self.next(sent, bytes))?;
                emitter.wait(Duration::from_millis(2));
            }
            Manner::Failing if sent.count > 2_000 => {
                return Err(Failure::new("it is time to fail"));
            }
            Manner::Failing | Manner::Flood | Manner::Dropping | Manner::Latest => {
                emitter.emit(self.next(sent, 24))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, sent: Sent, emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        let Sent { incarnation, count: loads, .. } = sent;
        emitter.emit(Farewell { sender: self.number, incarnation, loads })?;
        Ok(())
    }
}

impl Sender {
    fn next(&self, sent: &mut Sent, bytes: usize) -> Load {
        sent.count += 1;
        let number = sent.count - 1;
        let content = vec![number as u8; bytes];
        Load { sender: self.number, incarnation: sent.incarnation, number, content }
    }
}

/// Checks each event.
#[derive(Default)]
struct Receiver {
    senders: [FromSender; MANNERS.len()],
    /// Loads of each process of the one that is killed.
    of_killed: HashMap<u64, u64>,
    failures: u64,
}

#[derive(Default)]
struct FromSender {
    incarnation: Option<u64>,
    /// The number after the last one.
    next: u64,
    /// Events of this deployment.
    delivered: u64,
    /// Events that its processes have sent, by their own account.
    stated: u64,
    /// Whether the process has said farewell.
    is_gone: bool,
}

impl EventListener for Receiver {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_load).on(Self::on_farewell).on(Self::on_failed);
    }
}

impl Receiver {
    fn on_load(&mut self, load: &Load) {
        let from = self.hear_of(load.sender, load.incarnation);
        if MANNERS[load.sender].is_complete() {
            assert_eq!(load.number, from.next, "of {:?}", MANNERS[load.sender]);
        }
        assert!(load.number >= from.next, "{} is not before {}", load.number, from.next);
        assert!(load.content.iter().all(|byte| *byte == load.number as u8), "it is damaged");
        from.next = load.number + 1;
        if MANNERS[load.sender] == Manner::Killed {
            *self.of_killed.entry(load.incarnation).or_default() += 1;
        }
    }

    fn on_farewell(&mut self, farewell: &Farewell) {
        let from = self.hear_of(farewell.sender, farewell.incarnation);
        if MANNERS[farewell.sender].is_complete() {
            assert_eq!(farewell.loads, from.next, "of {:?}", MANNERS[farewell.sender]);
        }
        from.stated += farewell.loads + 1;
        from.is_gone = true;
    }

    /// An event of a process has come: one that was not killed has said farewell before the next.
    fn hear_of(&mut self, sender: usize, incarnation: u64) -> &mut FromSender {
        let from = &mut self.senders[sender];
        if from.incarnation != Some(incarnation) {
            let was_killed = MANNERS[sender] == Manner::Killed;
            assert!(from.incarnation.is_none() || from.is_gone || was_killed, "sender {sender}");
            from.incarnation = Some(incarnation);
            from.next = 0;
            from.is_gone = false;
        }
        from.delivered += 1;
        from
    }

    fn on_failed(&mut self, _: &DispatcherFailed) {
        self.failures += 1;
    }
}

/// How long one deployment lasts.
const ROUND: Duration = Duration::from_secs(3);

#[eventpy::test]
fn a_program_that_runs_for_long_does_not_grow() -> eventpy::Result<()> {
    let seconds = std::env::var("EVENTPY_SOAK_SECONDS").map_or(Ok(6.0), |text| text.parse())?;
    let time = Duration::from_secs_f64(seconds);
    alone_for("a_program_that_runs_for_long_does_not_grow", time + WATCHDOG, || {
        // What a first deployment leaves in allocator and standard library stays for good.
        round(ROUND.min(time / 4), &mut Totals::default())?;
        let (mut growth, mut totals) = (Growth::begin(), Totals::default());
        let begin = Instant::now();
        while begin.elapsed() < time {
            round(ROUND.min(time / 4), &mut totals)?;
            growth.add(Sample::now());
        }
        println!("{totals:?} in {:.0?}", begin.elapsed());
        println!("{growth}");
        growth.assert_flat();
        Ok(())
    })
}

#[derive(Debug, Default)]
struct Totals {
    deployments: u64,
    events: u64,
    dropped: u64,
    restarts: u64,
    failures: u64,
    kills: u64,
}

/// Deploys, pumps for a time, ends, and compares what came with what is reported.
fn round(time: Duration, totals: &mut Totals) -> eventpy::Result<()> {
    let notes = tempfile::tempdir()?;
    let mut manager = EventDispatchManager::new().listener(Receiver::default());
    for (number, manner) in MANNERS.into_iter().enumerate() {
        let sender = Sender { number, manner, notes: notes.path().into() };
        manager.register_dispatcher_with(sender, manner.options())?;
    }
    manager.deploy_dispatchers()?;
    let begin = Instant::now();
    let mut next_kill = begin;
    while begin.elapsed() < time {
        manager.invoke_dispatch_timeout(Duration::from_millis(10))?;
        if Instant::now() >= next_kill {
            next_kill += Duration::from_millis(fastrand::u64(20..200));
            totals.kills += u64::from(kill(&manager));
        }
    }
    let report = manager.end_dispatchers()?;
    let receiver: &Receiver = manager.listener_ref().expect("it was registered");
    for ((from, manner), report) in receiver.senders.iter().zip(MANNERS).zip(&report.dispatchers) {
        assert_balanced(report);
        assert_eq!(report.counts.delivered, from.delivered, "{report:#?}");
        if manner != Manner::Killed {
            assert_eq!(report.counts.sent, from.stated, "{report:#?}");
        }
        assert!(from.is_gone || !report.finished, "{report:#?}");
        totals.events += from.delivered;
        totals.dropped += report.counts.dropped;
        totals.restarts += u64::from(report.restarts);
    }
    compare_with_notes(notes.path(), &receiver.of_killed)?;
    totals.failures += receiver.failures;
    totals.deployments += 1;
    Ok(())
}

/// What a killed process has sent for sure has come, and at most the one that was under way.
fn compare_with_notes(notes: &Path, of_killed: &HashMap<u64, u64>) -> eventpy::Result<()> {
    let mut noted = HashMap::new();
    for entry in fs::read_dir(notes)? {
        let entry = entry?;
        // Empty if the process was killed before its first note.
        let count = fs::read(entry.path())?.try_into().map_or(0, u64::from_le_bytes);
        noted.insert(entry.file_name().to_string_lossy().parse()?, count);
    }
    for (process, noted) in &noted {
        let delivered = of_killed.get(process).copied().unwrap_or(0);
        assert!((*noted..=noted + 1).contains(&delivered), "{noted} noted, {delivered} delivered");
    }
    assert!(of_killed.keys().all(|process| noted.contains_key(process)), "nobody has sent it");
    Ok(())
}

/// Kills the process that is there to be killed; true if there is one.
fn kill(manager: &EventDispatchManager) -> bool {
    let place = MANNERS.iter().position(|manner| *manner == Manner::Killed);
    let dispatcher = &manager.stats().dispatchers[place.expect("it is one of them")];
    dispatcher.pid.is_some_and(|pid| signal_child(pid, Signal::KILL))
}
