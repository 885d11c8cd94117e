//! A dispatcher that fails is started anew, with patience and within limits, and each deployment
//! counts from the start.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use eventpy::{
    DispatcherFailed, DispatcherOptions, DispatcherRestarted, DispatcherState, Emitter, Event,
    EventDispatchManager, EventDispatcher, Exit, Failure, Phase, Restart,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use support::{
    Diary, Holdings, Notes, WATCHDOG, alone, assert_balanced, at_once, has_ended, note, pid_of,
    pump_until, signal_child, wait_for_end, wait_for_sent,
};

/// Content that follows from the number.
#[derive(Event, Serialize, Deserialize)]
struct Bale {
    number: u64,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
}

impl Bale {
    fn new(number: u64, bytes: usize) -> Bale {
        Bale { number, content: vec![number as u8; bytes] }
    }
}

/// Sends bales and has its troubles.
#[derive(Serialize, Deserialize)]
struct Farm {
    diary: Diary,
    bales: u64,
    bytes: usize,
    trouble: Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Trouble {
    InInit,
    InUpdate,
    /// It kills itself in its `finish`.
    InFinish,
    None,
}

#[eventpy::dispatcher]
impl EventDispatcher for Farm {
    type Events = (Bale,);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        self.diary.write("init")?;
        match self.trouble {
            Trouble::InInit => Err(Failure::new("the soil is dry")),
            _ => Ok(0),
        }
    }

    fn update(
        &mut self,
        sent: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *sent < self.bales {
            emitter.emit(Bale::new(*sent, self.bytes))?;
            *sent += 1;
        } else if self.trouble == Trouble::InUpdate {
            return Err(Failure::new("the barn is on fire"));
        } else {
            wait_for_end(emitter);
        }
        Ok(())
    }

    fn finish(&mut self, _: u64, _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        self.diary.write("finish")?;
        if self.trouble == Trouble::InFinish {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)?;
        }
        Ok(())
    }
}

/// A manager with a farm, and what is told of it.
struct Seen {
    _folder: tempfile::TempDir,
    diary: Diary,
    bales: Notes<u64>,
    failures: Notes<DispatcherFailed>,
    restarts: Notes<DispatcherRestarted>,
}

fn farm(
    bales: u64,
    bytes: usize,
    trouble: Trouble,
    options: DispatcherOptions,
) -> eventpy::Result<(EventDispatchManager, Seen)> {
    let folder = tempfile::tempdir()?;
    let diary = Diary::new(folder.path(), "farm");
    let farm = Farm { diary: diary.clone(), bales, bytes, trouble };
    let mut manager = EventDispatchManager::new().dispatcher_with(farm, options);
    let bales = note(&mut manager, |bale: &Bale| {
        assert!(bale.content.iter().all(|byte| *byte == bale.number as u8), "it is whole");
        bale.number
    });
    let failures = note(&mut manager, DispatcherFailed::clone);
    let restarts = note(&mut manager, DispatcherRestarted::clone);
    Ok((manager, Seen { _folder: folder, diary, bales, failures, restarts }))
}

fn restarting(restart: Restart) -> DispatcherOptions {
    DispatcherOptions::default().restart(restart)
}

#[eventpy::test]
fn one_that_fails_in_init_again_and_again_is_given_longer_and_longer_pauses() -> eventpy::Result<()>
{
    const LIMIT: u32 = 5;
    let (first, longest) = (Duration::from_millis(10), Duration::from_millis(45));
    let restart = Restart::on_failure().backoff(first, longest).limit(LIMIT, WATCHDOG);
    let (mut manager, seen) = farm(0, 0, Trouble::InInit, restarting(restart))?;
    manager.deploy_dispatchers()?;
    for failures in 1..=LIMIT as usize {
        pump_until(&mut manager, |_| seen.failures.len() == failures)?;
        let stats = manager.stats();
        assert_eq!(stats.dispatchers[0].state, DispatcherState::Waiting);
        assert_eq!(
            (stats.dispatchers[0].restarts, stats.dispatchers[0].pid),
            (failures as u32 - 1, None)
        );
        pump_until(&mut manager, |_| seen.restarts.len() == failures)?;
        assert_eq!(manager.stats().dispatchers[0].restarts, failures as u32);
    }
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    assert_eq!(manager.stats().dispatchers[0].state, DispatcherState::Failed);

    for (restarted, millis) in seen.restarts.take().iter().zip([10, 20, 40, 45, 45]) {
        let least = Duration::from_millis(millis);
        let pause = restarted.backoff;
        assert!(least <= pause && pause <= least.mul_f64(1.25), "{pause:?} for {least:?}");
    }
    let failures = seen.failures.take();
    assert_eq!(failures.len(), LIMIT as usize + 1);
    for failed in &failures {
        assert_eq!((failed.phase, failed.exit), (Phase::Init, Exit::Code(1)), "{failed}");
        assert!(failed.reason.contains("the soil is dry"), "{failed}");
    }
    let last = &failures[LIMIT as usize];
    assert!(!last.will_restart && last.reason.contains("not restarted: 5 restarts"), "{last}");
    assert_eq!((seen.diary.count("init"), seen.diary.count("finish")), (6, 0));
    let report = manager.end_dispatchers()?;
    assert_eq!(report.dispatchers[0].restarts, LIMIT);
    Ok(())
}

#[eventpy::test]
fn one_that_dies_while_the_manager_ends_it_is_told_and_not_started_anew() -> eventpy::Result<()> {
    let options = restarting(at_once(Restart::always(), 5));
    let (mut manager, seen) = farm(10, 10, Trouble::InFinish, options)?;
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| seen.bales.len() == 10)?;
    let report = manager.end_dispatchers()?;
    let report = &report.dispatchers[0];
    assert_eq!((report.finished, report.exit), (false, Exit::Signal(9)), "{report:?}");
    assert!(report.failure.as_ref().is_some_and(|why| why.contains("SIGKILL")), "{report:?}");
    assert_eq!((report.restarts, report.counts.delivered), (0, 10));
    assert_balanced(report);
    assert_eq!((seen.diary.count("init"), seen.diary.count("finish")), (1, 1));
    assert_eq!(seen.failures.len(), 1);
    Ok(())
}

/// It is killed while megabytes are on their way: what arrives is whole, and its memory goes back.
#[eventpy::test]
fn one_that_is_killed_with_large_events_on_their_way_starts_anew() -> eventpy::Result<()> {
    alone("one_that_is_killed_with_large_events_on_their_way_starts_anew", || {
        const KILLS: usize = 20;
        let mut before = None;
        for _ in 0..2 {
            let restart = at_once(Restart::on_failure(), u32::MAX);
            let options = restarting(restart).buffer_bytes(4096);
            let (mut manager, seen) = farm(u64::MAX, 1 << 20, Trouble::None, options)?;
            manager.deploy_dispatchers()?;
            for kills in 1..=KILLS {
                wait_for_sent(&manager, 0, 1);
                std::thread::sleep(Duration::from_micros(fastrand::u64(..3_000)));
                assert!(signal_child(pid_of(&manager, 0), Signal::KILL));
                pump_until(&mut manager, |_| seen.restarts.len() == kills)?;
                let so_far = seen.bales.len();
                pump_until(&mut manager, |_| seen.bales.len() > so_far)?;
            }
            let report = manager.end_dispatchers()?;
            let report = &report.dispatchers[0];
            assert!(report.finished, "{report:?}");
            assert_eq!(report.restarts as usize, KILLS);
            assert_balanced(report);
            // From each process the first ones, in their order.
            let mut next = 0;
            for number in seen.bales.take() {
                assert!(number == next || number == 0, "{number} instead of {next}");
                next = number + 1;
            }
            drop(manager);
            before.get_or_insert_with(Holdings::now).assert_nothing_added();
        }
        Ok(())
    })
}

#[eventpy::test]
fn each_deployment_counts_from_the_start() -> eventpy::Result<()> {
    let options = || DispatcherOptions::default().buffer_bytes(4096);
    let (mut manager, seen) = farm(10, 10, Trouble::None, options())?;
    for _ in 0..3 {
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| seen.bales.len() == 10)?;
        let report = manager.end_dispatchers()?;
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.dispatchers[0].counts.sent, seen.bales.take().len()), (10, 10));
    }

    let (mut manager, seen) = farm(10, 10, Trouble::InUpdate, options())?;
    for deployment in 1..=3 {
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |manager| has_ended(manager, 0))?;
        let stats = manager.stats();
        assert_eq!(stats.dispatchers[0].state, DispatcherState::Failed);
        assert_eq!(
            (stats.dispatchers[0].counts.delivered, stats.dispatchers[0].queued_bytes),
            (10, 0)
        );
        // A failed dispatcher may be deployed again at once, or after an end.
        if deployment == 2 {
            let report = manager.end_dispatchers()?;
            assert_eq!(report.dispatchers[0].counts.sent, 10);
            assert!(report.dispatchers[0].failure.is_some());
        }
        assert_eq!((seen.failures.len(), seen.diary.count("finish")), (deployment, deployment));
        assert_eq!(seen.bales.take(), (0..10).collect::<Vec<_>>());
    }
    manager.end_dispatchers()?;
    Ok(())
}
