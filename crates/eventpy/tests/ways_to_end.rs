//! `finish` runs exactly once, whatever ends a dispatcher, and the report tells how it was.

#![forbid(unsafe_code)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventpy::{
    DispatcherEnded, DispatcherFailed, DispatcherOptions, DispatcherReport, DispatcherState,
    Emitter, ErrorKind, Event, EventDispatchManager, EventDispatcher, Exit, Failure, Restart,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use support::{
    Companion, Diary, Notes, WATCHDOG, alone, assert_balanced, at_once, children, folder,
    has_ended, is_alive, is_stopped, pid_of, pump_until, signal_child, spin, stay, wait_for_end,
    wait_for_full_ring, wait_for_sent, wait_until,
};

#[derive(Event, Serialize, Deserialize)]
struct Number(u64);

/// Sent by `finish`: how many numbers were sent before.
#[derive(Event, Serialize, Deserialize)]
struct Farewell {
    numbers: u64,
}

/// Sends numbers and keeps a diary of its life.
#[derive(Serialize, Deserialize)]
struct Worker {
    diary: Diary,
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Work {
    FailInInit,
    /// Never comes back from `init`.
    StuckInInit,
    Wait,
    /// A number every millisecond.
    Beat,
    /// Numbers without a pause.
    Flood,
    /// So many numbers, then the next thing.
    Count(u64, Then),
    /// Never comes back from `update`.
    Spin,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Then {
    Wait,
    End,
    Fail,
    Panic,
    /// Ends while threads that it has started go on.
    LeaveThreads,
    FailInFinish,
    PanicInFinish,
    /// Never comes back from `finish`.
    SpinInFinish,
    /// Fills the ring several times in `finish`.
    FloodInFinish,
}

/// More than any ring of these tests holds.
const FLOOD: u64 = 5_000;

#[eventpy::dispatcher]
impl EventDispatcher for Worker {
    type Events = (Number, Farewell);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        self.diary.write(format_args!("process {}", std::process::id()))?;
        if self.work == Work::FailInInit {
            return Err(Failure::new("the cupboard is bare"));
        }
        if self.work == Work::StuckInInit {
            stay();
        }
        self.diary.write("init")?;
        Ok(0)
    }

    fn update(
        &mut self,
        numbers: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        match self.work {
            Work::FailInInit | Work::StuckInInit | Work::Wait => wait_for_end(emitter),
            Work::Beat => {
                emitter.wait(Duration::from_millis(1));
                send_next(numbers, emitter)?;
            }
            Work::Flood => send_next(numbers, emitter)?,
            Work::Count(up_to, _) if *numbers < up_to => send_next(numbers, emitter)?,
            Work::Count(_, Then::End) => emitter.end(),
            Work::Count(_, Then::Fail) => return Err(Failure::new("the well is dry")),
            Work::Count(_, Then::Panic) => panic!("the well is deep"),
            Work::Count(_, Then::LeaveThreads) => {
                std::thread::spawn(|| stay());
                std::thread::spawn(|| spin());
                emitter.end();
            }
            Work::Count(..) => wait_for_end(emitter),
            Work::Spin => {
                send_next(numbers, emitter)?;
                spin();
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        mut numbers: u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        self.diary.write("finish")?;
        match self.work {
            Work::Count(_, Then::FailInFinish) => return Err(Failure::new("the door is stuck")),
            Work::Count(_, Then::PanicInFinish) => panic!("the door is locked"),
            Work::Count(_, Then::SpinInFinish) => spin(),
            Work::Count(_, Then::FloodInFinish) => {
                for _ in 0..FLOOD {
                    send_next(&mut numbers, emitter)?;
                }
            }
            _ => {}
        }
        emitter.emit(Farewell { numbers })?;
        self.diary.write("finished")?;
        Ok(())
    }
}

fn send_next(
    numbers: &mut u64,
    emitter: &mut Emitter<(Number, Farewell)>,
) -> Result<(), eventpy::Error> {
    emitter.emit(Number(*numbers))?;
    *numbers += 1;
    Ok(())
}

/// A manager with one worker, and all that comes from there.
struct Seen {
    diary: Diary,
    numbers: Notes<u64>,
    farewells: Notes<u64>,
    failures: Notes<DispatcherFailed>,
    ends: Notes<DispatcherReport>,
}

/// Small rings are full soon. A step of an ending lasts long enough for a `finish` on a busy
/// machine.
fn options() -> DispatcherOptions {
    DispatcherOptions::default().buffer_bytes(RING_BYTES as usize).end_timeout(WATCHDOG)
}

const RING_BYTES: u64 = 4096;

impl Seen {
    fn new(folder: &Path) -> Seen {
        Seen {
            diary: Diary::new(folder, "worker"),
            numbers: Notes::new(),
            farewells: Notes::new(),
            failures: Notes::new(),
            ends: Notes::new(),
        }
    }

    fn manager(&self, work: Work, options: DispatcherOptions) -> EventDispatchManager {
        let worker = Worker { diary: self.diary.clone(), work };
        let mut manager = EventDispatchManager::new().dispatcher_with(worker, options);
        manager.on(self.numbers.of(|number: &Number| number.0));
        manager.on(self.farewells.of(|farewell: &Farewell| farewell.numbers));
        manager.on(self.failures.of(DispatcherFailed::clone));
        manager.on(self.ends.of(|ended: &DispatcherEnded| ended.report.clone()));
        manager
    }

    fn is_over(&self) -> bool {
        self.failures.len() + self.ends.len() > 0
    }
}

/// A way to end, and what is to be seen of it.
struct Way {
    work: Work,
    options: DispatcherOptions,
    /// What happens to the worker after its deployment, up to the end command.
    happening: Happening,
    finishes: usize,
    exit: Exit,
    /// What the failure says; nothing if the end is none.
    failure: &'static str,
}

type Happening = fn(&mut EventDispatchManager, &Seen) -> eventpy::Result<()>;

impl Way {
    /// A worker that ends in good order.
    fn well(work: Work, happening: Happening) -> Way {
        Way { work, options: options(), happening, finishes: 1, exit: Exit::Code(0), failure: "" }
    }

    fn options(self, options: DispatcherOptions) -> Way {
        Way { options, ..self }
    }

    fn fails(self, exit: Exit, failure: &'static str) -> Way {
        Way { exit, failure, ..self }
    }

    fn without_finish(self) -> Way {
        Way { finishes: 0, ..self }
    }

    /// Goes the way to its end and looks at what is left.
    fn check(self) -> eventpy::Result<()> {
        let folder = tempfile::tempdir()?;
        let seen = Seen::new(folder.path());
        let mut manager = seen.manager(self.work, self.options);
        manager.deploy_dispatchers()?;
        let pid = pid_of(&manager, 0);
        (self.happening)(&mut manager, &seen)?;
        let report = manager.end_dispatchers()?;
        let [report] = &report.dispatchers[..] else { panic!("one worker: {report:?}") };

        let diary = seen.diary.lines();
        assert_eq!(seen.diary.count("finish"), self.finishes, "{diary:?}");
        assert_eq!(report.exit, self.exit, "{report:?}");
        let failure = report.failure.clone().unwrap_or_default();
        assert_eq!(failure.is_empty(), self.failure.is_empty(), "{report:?}");
        assert!(failure.contains(self.failure), "{report:?}");
        assert!(!is_alive(pid), "its process is gone");

        // A `finish` that ran to its end has sent its farewell.
        let farewells = seen.farewells.take();
        assert_eq!(report.finished, farewells.len() == 1, "{report:?}");
        assert_eq!(report.finished, report.finish_time.is_some(), "{report:?}");
        assert!(self.finishes == 1 || !report.finished, "{report:?}");

        assert_balanced(report);
        let numbers = seen.numbers.take();
        assert_eq!(report.counts.delivered, (numbers.len() + farewells.len()) as u64);
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "{numbers:?}");
        if let Some(sent) = farewells.first() {
            assert_eq!(numbers.len() as u64, *sent, "all that was sent is delivered");
        }
        match self.failure {
            "" => assert_eq!((seen.ends.len(), seen.failures.len()), (1, 0)),
            reason => {
                assert_eq!((seen.ends.len(), seen.failures.len()), (0, 1));
                assert!(seen.failures.take()[0].reason.contains(reason));
            }
        }
        Ok(())
    }
}

/// A test for each way.
macro_rules! ways_to_end {
    ($($name:ident: $way:expr;)*) => {$(
        #[eventpy::test]
        fn $name() -> eventpy::Result<()> {
            $way.check()
        }
    )*};
}

ways_to_end! {
    by_the_end_command: Way::well(Work::Beat, some_numbers_come);
    directly_after_the_deployment: Way::well(Work::Wait, |_, _| Ok(()));
    by_itself: Way::well(Work::Count(100, Then::End), it_ends_by_itself);
    with_threads_that_go_on: Way::well(Work::Count(100, Then::LeaveThreads), it_ends_by_itself);
    with_an_error_of_update: Way::well(Work::Count(100, Then::Fail), it_ends_by_itself)
        .fails(Exit::Code(1), "the well is dry");
    with_a_panic_of_update: Way::well(Work::Count(100, Then::Panic), it_ends_by_itself)
        .fails(Exit::Code(1), "it panicked: the well is deep");
    with_an_error_of_init: Way::well(Work::FailInInit, it_ends_by_itself)
        .fails(Exit::Code(1), "the cupboard is bare")
        .without_finish();
    with_an_error_of_finish: Way::well(Work::Count(100, Then::FailInFinish), some_numbers_come)
        .fails(Exit::Code(1), "the door is stuck");
    with_a_panic_of_finish: Way::well(Work::Count(100, Then::PanicInFinish), some_numbers_come)
        .fails(Exit::Code(1), "it panicked: the door is locked");
    by_sigterm_while_it_works: Way::well(Work::Beat, |manager, seen| {
        some_numbers_come(manager, seen)?;
        it_is_sent(manager, Signal::TERM);
        it_ends_by_itself(manager, seen)
    });
    by_sigterm_while_it_waits: Way::well(Work::Count(100, Then::Wait), |manager, seen| {
        some_numbers_come(manager, seen)?;
        it_is_sent(manager, Signal::TERM);
        it_ends_by_itself(manager, seen)
    });
    by_sigterm_while_it_waits_for_room: Way::well(Work::Flood, |manager, seen| {
        wait_for_full_ring(manager, 0, RING_BYTES);
        it_is_sent(manager, Signal::TERM);
        it_ends_by_itself(manager, seen)
    });
    not_by_sigint: Way::well(Work::Beat, |manager, seen| it_survives(manager, seen, Signal::INT));
    not_by_sighup: Way::well(Work::Beat, |manager, seen| it_survives(manager, seen, Signal::HUP));
    with_events_in_its_ring: Way::well(Work::Count(100, Then::Wait), |manager, seen| {
        wait_for_sent(manager, 0, 100);
        assert_eq!(seen.numbers.len(), 0, "nothing was pumped");
        Ok(())
    });
    with_a_full_ring: Way::well(Work::Flood, |manager, seen| {
        wait_for_full_ring(manager, 0, RING_BYTES);
        assert_eq!(seen.numbers.len(), 0, "nothing was pumped");
        Ok(())
    });
    with_more_events_in_finish_than_its_ring_holds:
        Way::well(Work::Count(100, Then::FloodInFinish), some_numbers_come);
    by_sigterm_with_more_events_in_finish_than_its_ring_holds:
        Way::well(Work::Count(100, Then::FloodInFinish), |manager, seen| {
            some_numbers_come(manager, seen)?;
            it_is_sent(manager, Signal::TERM);
            it_ends_by_itself(manager, seen)
        });
    by_sigkill: Way::well(Work::Beat, |manager, seen| {
            some_numbers_come(manager, seen)?;
            it_is_sent(manager, Signal::KILL);
            it_ends_by_itself(manager, seen)
        })
        .fails(Exit::Signal(9), "without its `finish` (SIGKILL)")
        .without_finish();
    at_the_deadline_when_init_is_stuck: Way::well(Work::StuckInInit, |_, seen| {
            wait_until("it is in its init", || !seen.diary.lines().is_empty());
            Ok(())
        })
        .options(impatient())
        .fails(Exit::Signal(9), "its init did not end within 20ms")
        .without_finish();
    at_the_deadline_when_update_is_stuck: Way::well(Work::Spin, some_numbers_come)
        .options(impatient())
        .fails(Exit::Signal(9), "its update or finish did not end within 20ms")
        .without_finish();
    at_the_deadline_when_finish_is_stuck:
        Way::well(Work::Count(100, Then::SpinInFinish), some_numbers_come)
            .options(impatient())
            .fails(Exit::Signal(9), "its update or finish did not end within 20ms");
    at_the_deadline_when_its_process_is_stopped: Way::well(Work::Beat, |manager, seen| {
            some_numbers_come(manager, seen)?;
            it_is_sent(manager, Signal::STOP);
            let pid = pid_of(manager, 0);
            wait_until("its process is stopped", || is_stopped(pid));
            Ok(())
        })
        .options(options().end_timeout(Duration::from_secs(1)));
}

fn impatient() -> DispatcherOptions {
    options().end_timeout(Duration::from_millis(20))
}

fn some_numbers_come(manager: &mut EventDispatchManager, seen: &Seen) -> eventpy::Result<()> {
    pump_until(manager, |_| seen.numbers.len() > 0)?;
    Ok(())
}

fn it_ends_by_itself(manager: &mut EventDispatchManager, seen: &Seen) -> eventpy::Result<()> {
    pump_until(manager, |_| seen.is_over())?;
    Ok(())
}

fn it_survives(
    manager: &mut EventDispatchManager,
    seen: &Seen,
    signal: Signal,
) -> eventpy::Result<()> {
    some_numbers_come(manager, seen)?;
    for _ in 0..3 {
        it_is_sent(manager, signal);
        let so_far = seen.numbers.len();
        pump_until(manager, |_| seen.numbers.len() > so_far + 20)?;
    }
    assert!(!seen.is_over(), "it goes on");
    Ok(())
}

fn it_is_sent(manager: &EventDispatchManager, signal: Signal) {
    assert!(signal_child(pid_of(manager, 0), signal), "a child of ours can be sent a signal");
}

/// The end of the wait for room and the order to end reach the worker at one time, from two
/// threads: whichever is first, it is no failure.
#[eventpy::test]
fn sigterm_while_it_waits_for_room_is_never_a_failure() -> eventpy::Result<()> {
    for _ in 0..100 {
        by_sigterm_while_it_waits_for_room()?;
    }
    Ok(())
}

/// A process that has just been started does not die of SIGTERM, nor of the terminal's Ctrl-C and
/// hang-up.
#[eventpy::test]
fn a_signal_at_any_instant_of_a_start_keeps_no_worker_from_its_finish() -> eventpy::Result<()> {
    alone("a_signal_at_any_instant_of_a_start_keeps_no_worker_from_its_finish", || {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| signal_children_until(&is_over));
            let result = (0..50).try_for_each(|_| deploy_under_signals());
            is_over.store(true, Ordering::Relaxed);
            result
        })
    })
}

fn signal_children_until(is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let signal = [Signal::TERM, Signal::INT, Signal::HUP][fastrand::usize(..3)];
        children().into_iter().for_each(|pid| {
            signal_child(pid, signal);
        });
        std::thread::sleep(Duration::from_micros(fastrand::u64(..2_000)));
    }
}

fn deploy_under_signals() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let seen = Seen::new(folder.path());
    let mut manager = seen.manager(Work::Beat, options());
    manager.deploy_dispatchers()?;
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean() && seen.failures.len() == 0, "{report}");
    assert_eq!(seen.diary.lines()[1..], ["init", "finish", "finished"]);
    Ok(())
}

/// What a process has said counts, also if it is gone before it has heard the end command.
#[eventpy::test]
fn an_end_command_that_comes_too_late_hides_nothing() -> eventpy::Result<()> {
    for round in 0..100 {
        let folder = tempfile::tempdir()?;
        let seen = Seen::new(folder.path());
        let (then, exit, failure) = match round % 2 {
            0 => (Then::End, Exit::Code(0), None),
            _ => (Then::Fail, Exit::Code(1), Some("the well is dry".to_owned())),
        };
        let mut manager = seen.manager(Work::Count(10, then), options());
        manager.deploy_dispatchers()?;
        wait_until("it finishes", || seen.diary.count("finished") == 1);
        // Its process is about to exit: the command reaches it before, meanwhile or never.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..500)));
        let report = manager.end_dispatchers()?;
        let report = &report.dispatchers[0];
        assert!(report.finished, "{report:?}");
        assert_eq!((report.exit, &report.failure), (exit, &failure), "{report:?}");
        assert_eq!(report.counts.delivered, 11, "{report:?}");
    }
    Ok(())
}

#[eventpy::test]
fn every_process_of_a_worker_that_is_restarted_has_its_own_finish() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let seen = Seen::new(folder.path());
    let options = options().restart(at_once(Restart::on_failure(), 3));
    let mut manager = seen.manager(Work::Count(10, Then::Fail), options);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    let report = manager.end_dispatchers()?;
    assert_eq!((seen.diary.count("init"), seen.diary.count("finish")), (4, 4));
    assert_eq!(report.dispatchers[0].restarts, 3);
    assert_eq!(seen.farewells.take(), [10; 4]);
    assert_balanced(&report.dispatchers[0]);
    Ok(())
}

#[eventpy::test]
fn a_worker_that_waits_for_its_restart_ends_without_another_process() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let seen = Seen::new(folder.path());
    let hour = Duration::from_secs(3600);
    let restart = Restart::always().backoff(hour, hour);
    let mut manager = seen.manager(Work::Count(10, Then::End), options().restart(restart));
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| {
        manager.stats().dispatchers[0].state == DispatcherState::Waiting
    })?;
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean() && report.dispatchers[0].failure.is_none(), "{report}");
    assert_eq!(manager.stats().dispatchers[0].state, DispatcherState::Ended, "it did not fail");
    assert_eq!((seen.diary.count("init"), seen.diary.count("finish")), (1, 1));
    Ok(())
}

#[eventpy::test]
fn a_dropped_manager_lets_every_worker_finish() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let seen = Seen::new(folder.path());
    let mut manager = seen.manager(Work::Flood, options());
    manager.deploy_dispatchers()?;
    let pid = pid_of(&manager, 0);
    wait_for_full_ring(&manager, 0, RING_BYTES);
    drop(manager);
    assert_eq!(seen.diary.count("finish"), 1);
    assert_eq!(seen.farewells.take(), [seen.numbers.len() as u64], "all is delivered");
    assert!(!is_alive(pid));
    Ok(())
}

#[eventpy::test]
fn a_callback_that_fails_or_panics_keeps_no_worker_from_its_finish() -> eventpy::Result<()> {
    for panics in [false, true] {
        for at in [0, 50] {
            let folder = tempfile::tempdir()?;
            let seen = Seen::new(folder.path());
            let mut manager = seen.manager(Work::Count(100, Then::Wait), options());
            manager.on(move |number: &Number| match number.0 == at {
                true if panics => panic!("a callback panics"),
                true => Err(Failure::new("a callback fails")),
                false => Ok(()),
            });
            manager.deploy_dispatchers()?;
            wait_for_sent(&manager, 0, 100);
            // It fails in a pump or in the end.
            let ended = catch_unwind(AssertUnwindSafe(|| match at {
                0 => manager.invoke_dispatch().map(|_| ()),
                _ => manager.end_dispatchers().map(|_| ()),
            }));
            match ended {
                Ok(result) => {
                    assert!(!panics);
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::Callback);
                }
                Err(panic) => {
                    assert!(panics);
                    assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "a callback panics");
                }
            }
            if at == 0 {
                assert_eq!(seen.numbers.len(), 1, "what follows stays queued");
                assert!(manager.end_dispatchers()?.is_clean());
            }
            assert!(!manager.is_deployed());
            assert!(manager.end_report().is_clean());
            assert_eq!(seen.numbers.take(), (0..100).collect::<Vec<_>>());
            assert_eq!((seen.farewells.len(), seen.diary.count("finish")), (1, 1));
        }
    }
    Ok(())
}

#[eventpy::test]
fn a_deployment_that_fails_lets_the_loaded_workers_finish() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let diary = Diary::new(folder.path(), "worker");
    let work = Work::Flood;
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(Worker { diary: diary.clone(), work }, options())
        .dispatcher(Unloadable { diary: diary.clone() });
    let error = manager.deploy_dispatchers().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Load, "{error}");
    assert!(!manager.is_deployed());
    assert_eq!(diary.lines()[1..], ["init", "finish", "finished"]);
    Ok(())
}

/// Refuses to be loaded, as soon as the worker of the diary waits for room in its ring.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "Awaited")]
struct Unloadable {
    diary: Diary,
}

#[derive(Deserialize)]
struct Awaited {
    diary: Diary,
}

impl TryFrom<Awaited> for Unloadable {
    type Error = &'static str;

    fn try_from(awaited: Awaited) -> Result<Unloadable, &'static str> {
        wait_until("the worker is through its init", || awaited.diary.count("init") > 0);
        let lines = awaited.diary.lines();
        let pid = lines[0].strip_prefix("process ").and_then(|pid| pid.parse().ok());
        wait_until("the worker sleeps", || support::is_asleep(pid.expect("a number")));
        Err("not like this")
    }
}

#[eventpy::dispatcher]
impl EventDispatcher for Unloadable {
    type Events = (Number,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Err(Failure::new("it was loaded"))
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

#[eventpy::test]
fn the_time_out_of_one_end_is_not_that_of_the_next() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let diary = Diary::new(folder.path(), "slow");
    let mut manager = EventDispatchManager::new().dispatcher(Slow { diary: diary.clone() });
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| diary.count("init") == 1)?;
    manager.on(|_: &DispatcherFailed| {});
    let report = manager.end_dispatchers_timeout(Duration::from_millis(1))?;
    assert_eq!(report.dispatchers[0].exit, Exit::Signal(9), "{report}");

    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| diary.count("init") == 2)?;
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean(), "it had five seconds this time: {report}");
    Ok(())
}

#[eventpy::test]
fn sixty_four_workers_finish_side_by_side() -> eventpy::Result<()> {
    const WORKERS: u32 = 64;
    let folder = tempfile::tempdir()?;
    let diary = Diary::new(folder.path(), "slow");
    let mut manager = EventDispatchManager::new();
    for _ in 0..WORKERS {
        manager.register_dispatcher(Slow { diary: diary.clone() })?;
    }
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| diary.count("init") == WORKERS as usize)?;
    let start = Instant::now();
    let report = manager.end_dispatchers()?;
    let took = start.elapsed();
    assert!(report.is_clean(), "{report}");
    let one_by_one: Duration = report.dispatchers.iter().filter_map(|of| of.finish_time).sum();
    assert!(one_by_one >= FINISH * WORKERS);
    assert!(took < FINISH * WORKERS / 3, "{took:?}");
    Ok(())
}

/// How long a slow one takes to finish.
const FINISH: Duration = Duration::from_millis(300);

/// Takes much longer than a millisecond to finish, and much less than the usual time-out.
#[derive(Serialize, Deserialize)]
struct Slow {
    diary: Diary,
}

#[eventpy::dispatcher]
impl EventDispatcher for Slow {
    type Events = (Number,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        self.diary.write("init")?;
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        wait_for_end(emitter);
        Ok(())
    }

    fn finish(&mut self, _: (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        std::thread::sleep(FINISH);
        Ok(())
    }
}

/// What may become of the manager's process.
#[derive(Clone, Copy)]
struct Fate {
    name: &'static str,
    meet: fn(EventDispatchManager) -> eventpy::Result<()>,
    /// How its process ends.
    end: Exit,
}

/// A test for each fate: the manager is in a process of its own, with four workers. One beats, one
/// waits for room in its ring, and two are stuck for good.
macro_rules! fates_of_the_manager {
    ($($name:ident: $end:expr, $meet:expr;)*) => {$(
        #[eventpy::test]
        fn $name() -> eventpy::Result<()> {
            Fate { name: stringify!($name), meet: $meet, end: $end }.check()
        }
    )*};
}

fates_of_the_manager! {
    the_manager_is_killed: Exit::Signal(9), |_manager| stay();
    the_manager_is_killed_while_it_waits_for_events: Exit::Signal(9), |mut manager| {
        // The worker that beats would wake it.
        pump_until(&mut manager, |_| false)?;
        Ok(())
    };
    the_manager_exits_without_an_end: Exit::Code(7), |_manager| std::process::exit(7);
    the_manager_aborts: Exit::Signal(6), |_manager| std::process::abort();
    the_manager_panics: Exit::Code(101), |_manager| panic!("all is lost");
    the_manager_returns_without_an_end: Exit::Code(0), |_manager| Ok(());
    its_group_is_interrupted: Exit::Signal(2), |_manager| meet_together(Signal::INT);
    its_group_is_hung_up: Exit::Signal(1), |_manager| meet_together(Signal::HUP);
    its_group_is_terminated: Exit::Signal(15), |_manager| meet_together(Signal::TERM);
    the_manager_becomes_another_program: Exit::Code(0), |_manager| {
        use std::os::unix::process::CommandExt;
        // The process stays the same, and stays until the worker finishes.
        let flooding = folder().join("flood.diary");
        let wait_for_finish =
            format!("until grep -q finish {}; do sleep 0.01; done", flooding.display());
        Err(std::process::Command::new("sh").arg("-c").arg(wait_for_finish).exec().into())
    };
}

/// The signal reaches the manager and its workers at once.
fn meet_together(signal: Signal) -> eventpy::Result<()> {
    rustix::process::kill_current_process_group(signal)?;
    stay()
}

impl Fate {
    fn check(self) -> eventpy::Result<()> {
        if support::part().is_some() {
            return self.meet_it();
        }
        if let Exit::Signal(signal) = self.end
            && support::is_ignored(signal)
        {
            println!("not run: whoever started this program has it ignore signal {signal}");
            return Ok(());
        }
        let folder = tempfile::tempdir()?;
        let diary = |name: &str| Diary::new(folder.path(), name);
        let mut companion = Companion::start_in(folder.path(), self.name, "manager");
        wait_until("all workers work", || diary("manager").count("ready") > 0);
        if self.end == Exit::Signal(9) {
            companion.kill();
        }
        let (status, output) = companion.wait();
        let end = status.code().map(Exit::Code).or(status.signal().map(Exit::Signal));
        assert_eq!(end, Some(self.end), "{status}:\n{output}");
        companion.wait_until_gone();
        for (worker, inits, finishes) in
            [("beat", 1, 1), ("flood", 1, 1), ("spin", 1, 0), ("stuck", 0, 0)]
        {
            let diary = diary(worker);
            let counts = (diary.count("init"), diary.count("finish"));
            assert_eq!(counts, (inits, finishes), "{worker}: {:?}", diary.lines());
        }
        Ok(())
    }

    /// The process that the test is about.
    fn meet_it(self) -> eventpy::Result<()> {
        // Signals to the group are for the manager and its workers, not for the test.
        rustix::process::setpgid(None, None)?;
        let folder = folder();
        let diary = |name: &str| Diary::new(&folder, name);
        let worker = |name: &str, work| Worker { diary: diary(name), work };
        let mut manager = EventDispatchManager::new()
            .dispatcher_with(worker("flood", Work::Flood), options())
            .dispatcher_with(worker("beat", Work::Beat), options())
            .dispatcher_with(worker("spin", Work::Spin), impatient())
            .dispatcher_with(worker("stuck", Work::StuckInInit), impatient());
        manager.deploy_dispatchers()?;
        wait_for_full_ring(&manager, 0, RING_BYTES);
        wait_for_sent(&manager, 1, 1);
        wait_for_sent(&manager, 2, 1);
        wait_until("one is stuck", || !diary("stuck").lines().is_empty());
        diary("manager").write("ready")?;
        (self.meet)(manager)
    }
}

#[eventpy::test]
fn a_worker_that_is_stopped_finishes_when_its_manager_is_killed() -> eventpy::Result<()> {
    if support::part().is_some() {
        let diary = |name: &str| Diary::new(&folder(), name);
        let worker = Worker { diary: diary("beat"), work: Work::Beat };
        let mut manager = EventDispatchManager::new().dispatcher_with(worker, options());
        manager.deploy_dispatchers()?;
        wait_for_sent(&manager, 0, 1);
        let pid = pid_of(&manager, 0);
        it_is_sent(&manager, Signal::STOP);
        wait_until("its process is stopped", || is_stopped(pid));
        diary("manager").write("ready")?;
        stay()
    }
    let folder = tempfile::tempdir()?;
    let diary = |name: &str| Diary::new(folder.path(), name);
    let test = "a_worker_that_is_stopped_finishes_when_its_manager_is_killed";
    let mut companion = Companion::start_in(folder.path(), test, "manager");
    wait_until("its worker is stopped", || diary("manager").count("ready") > 0);
    companion.kill();
    companion.wait_until_gone();
    assert_eq!(diary("beat").count("finish"), 1);
    Ok(())
}

/// However far a manager has come with its deployment: a worker that was through its `init` has its
/// `finish`, and none is left.
#[eventpy::test]
fn a_manager_that_is_killed_at_any_instant_leaves_no_worker() -> eventpy::Result<()> {
    const WORKERS: [&str; 3] = ["a", "b", "c"];
    if support::part().is_some() {
        let folder = folder();
        let mut manager = EventDispatchManager::new();
        for name in WORKERS {
            let worker = Worker { diary: Diary::new(&folder, name), work: Work::Beat };
            manager.register_dispatcher_with(worker, options())?;
        }
        Diary::new(&folder, "manager").write("ready")?;
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| false)?;
    }
    for round in 0..39 {
        let folder = tempfile::tempdir()?;
        let mut companion = Companion::start_in(
            folder.path(),
            "a_manager_that_is_killed_at_any_instant_leaves_no_worker",
            "manager",
        );
        // From one line or another on: the machine may be slow.
        let (whose, line) = [("manager", "ready"), ("a", "init"), ("c", "init")][round % 3];
        let diary = Diary::new(folder.path(), whose);
        wait_until(format_args!("{line} of {whose}"), || diary.count(line) > 0);
        std::thread::sleep(Duration::from_micros(fastrand::u64(..10_000)));
        companion.kill();
        companion.wait_until_gone();
        for name in WORKERS {
            let diary = Diary::new(folder.path(), name);
            assert_eq!(diary.count("init"), diary.count("finish"), "{:?}", diary.lines());
        }
    }
    Ok(())
}
