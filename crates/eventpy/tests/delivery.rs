//! Who gets which events, in which order, and how many of them.

#![forbid(unsafe_code)]

mod support;

use std::time::{Duration, Instant};

use eventpy::{
    Context, Counts, Delivery, DispatcherEnded, DispatcherFailed, DispatcherOptions,
    DispatcherRestarted, Emitter, ErrorKind, Event, EventDispatchManager, EventDispatcher,
    EventListener, Exit, Failure, Restart, Subscriptions,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use support::{
    Diary, Notes, WATCHDOG, assert_balanced, at_once, has_ended, is_readable, note, pid_of,
    pump_until, signal_child, spin, wait_for_end, wait_for_full_ring, wait_for_sent, wait_until,
};

#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Tick {
    clock: u32,
    number: u64,
}

/// Ticks so often and then does the next thing.
#[derive(Serialize, Deserialize, Clone)]
struct Clock {
    clock: u32,
    ticks: u64,
    then: Then,
}

#[derive(Serialize, Deserialize, Clone, Copy, PartialEq)]
enum Then {
    Wait,
    End,
    Fail,
    /// Works on without an end, so that its update hangs.
    Hang,
    /// Ticks on, without an end.
    TickOn,
}

#[eventpy::dispatcher]
impl EventDispatcher for Clock {
    type Events = (Tick,);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *number < self.ticks || self.then == Then::TickOn {
            emitter.emit(Tick { clock: self.clock, number: *number })?;
            *number += 1;
            return Ok(());
        }
        match self.then {
            Then::Wait | Then::TickOn => wait_for_end(emitter),
            Then::End => emitter.end(),
            Then::Fail => return Err(Failure::new("the spring is broken")),
            Then::Hang => spin(),
        }
        Ok(())
    }
}

fn clock(clock: u32, ticks: u64, then: Then) -> Clock {
    Clock { clock, ticks, then }
}

/// Bytes of a tick's record in a ring: a word before it, and at most 8 bytes of it.
const TICK_BYTES: u64 = 16;

/// A ring that holds so many ticks.
fn small_ring(ticks: u64) -> DispatcherOptions {
    DispatcherOptions::default().buffer_bytes((ticks * TICK_BYTES) as usize)
}

#[eventpy::test]
fn dispatchers_of_one_type_keep_an_order_each() -> eventpy::Result<()> {
    const CLOCKS: u32 = 5;
    const TICKS: u64 = 2_000;
    let mut manager = EventDispatchManager::new();
    for number in 0..CLOCKS {
        manager.register_dispatcher_with(clock(number, TICKS, Then::End), small_ring(256))?;
    }
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| (0..5).all(|clock| has_ended(manager, clock)))?;
    let report = manager.end_dispatchers()?;

    let ticks = ticks.take();
    for number in 0..CLOCKS {
        let of_one = ticks.iter().filter(|tick| tick.clock == number).map(|tick| tick.number);
        assert!(of_one.eq(0..TICKS), "of clock {number}");
        let name = if number == 0 { "Clock".to_owned() } else { format!("Clock#{}", number + 1) };
        let report = report.get(&name).unwrap_or_else(|| panic!("{name} is not in {report}"));
        assert_eq!(report.counts.delivered, TICKS);
        assert_balanced(report);
    }
    Ok(())
}

/// Ticks too, and chimes.
#[derive(Serialize, Deserialize)]
struct ChurchTower;

#[derive(Event, Serialize, Deserialize)]
struct Chime;

#[eventpy::dispatcher]
impl EventDispatcher for ChurchTower {
    // In another place than with the clock.
    type Events = (Chime, Tick);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.emit_all((0..3).map(|number| Tick { clock: 100, number }))?;
        emitter.emit(Chime)?;
        emitter.end();
        Ok(())
    }
}

#[eventpy::test]
fn one_event_type_may_come_from_dispatchers_of_several_types() -> eventpy::Result<()> {
    let mut manager =
        EventDispatchManager::new().dispatcher(clock(1, 3, Then::End)).dispatcher(ChurchTower);
    let ticks = note(&mut manager, Tick::clone);
    let chimes = note(&mut manager, |_: &Chime| ());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0) && has_ended(manager, 1))?;
    let mut ticks = ticks.take();
    ticks.sort_by_key(|tick| (tick.clock, tick.number));
    let of = |clock| (0..3).map(move |number| Tick { clock, number });
    assert_eq!(ticks, of(1).chain(of(100)).collect::<Vec<_>>());
    assert_eq!(chimes.len(), 1);
    let per_type = &manager.stats().dispatchers[1].event_types;
    let delivered = |index: usize| (per_type[index].0.as_str(), per_type[index].1.delivered);
    assert_eq!([delivered(0), delivered(1)], [("Chime", 1), ("Tick", 3)]);
    Ok(())
}

/// Notes what it gets under its name.
struct Scribe {
    name: &'static str,
    notes: Notes<(&'static str, u64)>,
    ticks: u64,
}

impl EventListener for Scribe {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_tick).on(Self::on_tick_again);
    }
}

impl Scribe {
    fn on_tick(&mut self, tick: &Tick) {
        self.ticks += 1;
        self.notes.add((self.name, tick.number));
    }

    fn on_tick_again(&mut self, tick: &Tick) {
        self.notes.add(("again", tick.number));
    }
}

#[eventpy::test]
fn each_listener_gets_each_event_in_the_order_of_registration() -> eventpy::Result<()> {
    let notes = Notes::new();
    let scribe = |name| Scribe { name, notes: notes.clone(), ticks: 0 };
    let mut manager =
        EventDispatchManager::new().dispatcher(clock(0, 100, Then::End)).listener(scribe("first"));
    manager.on(notes.of(|tick: &Tick| ("closure", tick.number)));
    manager.register_listener(scribe("second"));
    let noted = notes.clone();
    manager.on_with(move |tick: &Tick, _: &mut Context| noted.add(("last", tick.number)));
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;

    let order = ["first", "again", "closure", "second", "again", "last"];
    let expected = (0..100).flat_map(|number| order.map(|name| (name, number)));
    assert_eq!(notes.take(), expected.collect::<Vec<_>>());
    assert_eq!(manager.listener_ref::<Scribe>().unwrap().ticks, 100);
    let counts = manager.stats().dispatchers[0].counts;
    assert_eq!(counts.delivered, 100, "an event counts once, however many get it");
    Ok(())
}

/// An event whose delivery is part of its name. All have numbers out of one sequence.
macro_rules! numbered_events {
    ($($event:ident)*) => {$(
        #[derive(Event, Serialize, Deserialize)]
        struct $event(u64);
    )*};
}

numbered_events! { Every Latest Newest Oldest }

/// Sends rounds of a `Latest`, a `Newest` and an `Oldest`; the first rounds begin with an `Every`.
#[derive(Serialize, Deserialize)]
struct Mixer {
    rounds: u64,
    /// How many rounds have an `Every`.
    every: u64,
    pauses: bool,
}

#[eventpy::dispatcher]
impl EventDispatcher for Mixer {
    type Events = (Every, Latest, Newest, Oldest);
    type State = (u64, u64);

    fn init(&mut self) -> eventpy::Result<(u64, u64)> {
        Ok((0, 0))
    }

    fn update(
        &mut self,
        (round, number): &mut (u64, u64),
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *round == self.rounds {
            wait_for_end(emitter);
            return Ok(());
        }
        let mut next = || {
            *number += 1;
            *number
        };
        if *round < self.every {
            emitter.emit(Every(next()))?;
        }
        emitter.emit(Latest(next()))?;
        emitter.emit(Newest(next()))?;
        emitter.emit(Oldest(next()))?;
        *round += 1;
        if self.pauses && *round % 64 == 0 {
            emitter.wait(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Mixer {
    fn sent(&self) -> u64 {
        3 * self.rounds + self.every
    }

    /// A manager with this mixer, and what comes from it: the type, the number.
    fn manager(self) -> (EventDispatchManager, Notes<(&'static str, u64)>) {
        let notes = Notes::new();
        let options = DispatcherOptions::default()
            .buffer_bytes(4096)
            .delivery_of("Latest", Delivery::Latest)
            .delivery_of("Newest", Delivery::DropNewest)
            .delivery_of("Oldest", Delivery::DropOldest);
        let mut manager = EventDispatchManager::new().dispatcher_with(self, options);
        manager.on(notes.of(|event: &Every| ("Every", event.0)));
        manager.on(notes.of(|event: &Latest| ("Latest", event.0)));
        manager.on(notes.of(|event: &Newest| ("Newest", event.0)));
        manager.on(notes.of(|event: &Oldest| ("Oldest", event.0)));
        (manager, notes)
    }
}

/// The counts of each type, after what has come of it is compared with them.
#[track_caller]
fn counts_by_type(manager: &EventDispatchManager, notes: &[(&'static str, u64)]) -> [Counts; 4] {
    assert!(notes.is_sorted_by_key(|(_, number)| *number), "out of order: {notes:?}");
    let types = &manager.stats().dispatchers[0].event_types;
    ["Every", "Latest", "Newest", "Oldest"].map(|name| {
        let (_, counts) = types.iter().find(|(of, _)| of == name).expect("it is declared");
        let came = notes.iter().filter(|(of, _)| *of == name).count();
        assert_eq!(counts.delivered, came as u64, "{name}: {counts:?}");
        assert_eq!(counts.sent, counts.delivered + counts.dropped, "{name}: {counts:?}");
        assert_eq!(counts.lost, 0, "{name}: {counts:?}");
        *counts
    })
}

#[eventpy::test]
fn each_type_has_its_delivery_in_a_ring_that_is_pumped_late() -> eventpy::Result<()> {
    // The events that stay fit into the ring.
    let mixer = Mixer { rounds: 5_000, every: 50, pauses: false };
    let sent = mixer.sent();
    let (mut manager, notes) = mixer.manager();
    manager.deploy_dispatchers()?;
    wait_for_sent(&manager, 0, sent);
    manager.invoke_dispatch()?;
    assert!(manager.end_dispatchers()?.is_clean());
    let notes = notes.take();
    let [every, latest, newest, oldest] = counts_by_type(&manager, &notes);
    assert_eq!((every.sent, every.delivered), (50, 50), "none of these is ever dropped");
    assert_eq!((latest.sent, latest.delivered), (5_000, 1));
    assert_eq!((newest.sent, oldest.sent), (5_000, 5_000));
    assert!(newest.dropped > 4_000 && oldest.dropped > 4_000, "{newest:?} {oldest:?}");
    Ok(())
}

#[eventpy::test]
fn each_type_has_its_delivery_in_a_ring_that_is_pumped_all_the_time() -> eventpy::Result<()> {
    let mixer = Mixer { rounds: 20_000, every: 10_000, pauses: true };
    let sent = mixer.sent();
    let (mut manager, notes) = mixer.manager();
    manager.deploy_dispatchers()?;
    let start = Instant::now();
    let mut came = Vec::new();
    loop {
        let all_sent = manager.stats().dispatchers[0].counts.sent == sent;
        manager.invoke_dispatch()?;
        let of_this_pump = notes.take();
        let latest = of_this_pump.iter().filter(|(of, _)| *of == "Latest").count();
        assert!(latest <= 1, "one pump delivers the newest only: {of_this_pump:?}");
        came.extend(of_this_pump);
        if all_sent {
            break;
        }
        assert!(start.elapsed() < WATCHDOG, "{:?}", manager.stats());
    }
    assert!(manager.end_dispatchers()?.is_clean());
    came.extend(notes.take());
    let [every, latest, newest, oldest] = counts_by_type(&manager, &came);
    assert_eq!((every.sent, every.delivered), (10_000, 10_000), "none of these is ever dropped");
    assert_eq!((latest.sent, newest.sent, oldest.sent), (20_000, 20_000, 20_000));
    assert!(latest.delivered > 1, "there were many pumps");
    Ok(())
}

#[eventpy::test]
fn what_befalls_a_dispatcher_is_told_in_its_place_among_the_events() -> eventpy::Result<()> {
    let notes = Notes::new();
    let restart = Restart::on_failure()
        .backoff(Duration::from_millis(8), Duration::from_millis(20))
        .limit(3, WATCHDOG);
    let options = DispatcherOptions::default().restart(restart);
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(clock(0, 2, Then::Fail), options)
        .dispatcher(clock(1, 0, Then::End));
    manager.on(notes.of(|tick: &Tick| format!("tick {}", tick.number)));
    manager.on(notes.of(|failed: &DispatcherFailed| {
        assert_eq!((failed.dispatcher.as_str(), failed.exit), ("Clock", Exit::Code(1)));
        let limit = " (not restarted: 3 restarts within 120s)";
        let suffix = if failed.will_restart { "" } else { limit };
        assert_eq!(failed.reason, format!("the spring is broken{suffix}"));
        format!("failed, {}", failed.will_restart)
    }));
    manager.on(notes.of(|restarted: &DispatcherRestarted| {
        let number = restarted.restarts;
        // It doubles, up to the longest, with up to a quarter more by chance.
        let least = [8, 16, 20].map(Duration::from_millis)[number as usize - 1];
        let pause = restarted.backoff;
        assert!(least <= pause && pause <= least.mul_f64(1.25), "{number}: {pause:?}");
        format!("restarted {number}")
    }));
    let ends = note(&mut manager, |ended: &DispatcherEnded| ended.report.clone());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0) && has_ended(manager, 1))?;

    let mut expected: Vec<String> = Vec::new();
    for number in 1..=3 {
        let round = ["tick 0", "tick 1", "failed, true", &format!("restarted {number}")];
        expected.extend(round.map(String::from));
    }
    expected.extend(["tick 0", "tick 1", "failed, false"].map(String::from));
    assert_eq!(notes.take(), expected);
    let [end] = &ends.take()[..] else { panic!("the other clock has ended once") };
    assert_eq!((end.dispatcher.as_str(), end.exit, end.finished), ("Clock#2", Exit::Code(0), true));
    let report = manager.end_dispatchers()?;
    assert_eq!((report.dispatchers[0].restarts, report.dispatchers[0].counts.delivered), (3, 8));
    Ok(())
}

#[eventpy::test]
fn a_dispatcher_that_always_restarts_does_so_after_a_good_end_too() -> eventpy::Result<()> {
    let options = DispatcherOptions::default().restart(at_once(Restart::always(), 4));
    let mut manager = EventDispatchManager::new().dispatcher_with(clock(0, 3, Then::End), options);
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    assert_eq!(ticks.len(), 3 * 5);
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.dispatchers[0].restarts, &report.dispatchers[0].failure), (4, &None));
    Ok(())
}

#[eventpy::test]
fn a_failure_without_a_listener_is_the_error_behind_all_events() -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(clock(0, 5_000, Then::Fail), small_ring(256))
        .dispatcher(clock(1, 5, Then::Wait));
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    let error = pump_until(&mut manager, |_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dispatcher);
    assert!(error.to_string().contains("dispatcher `Clock` failed: the spring is broken"));
    let of_failed = ticks.take().into_iter().filter(|tick| tick.clock == 0);
    assert!(of_failed.map(|tick| tick.number).eq(0..5_000), "all were delivered before");
    // It is told once, and the other dispatcher goes on.
    assert_eq!(manager.invoke_dispatch()?, 0);
    assert!(manager.stats().dispatchers[1].pid.is_some());
    assert_eq!(manager.end_dispatchers()?.get("Clock#2").unwrap().exit, Exit::Code(0));
    Ok(())
}

#[eventpy::test]
fn an_update_that_hangs_is_ended_told_and_restarted() -> eventpy::Result<()> {
    let brief = Duration::from_millis(50);
    let options = DispatcherOptions::default()
        .update_timeout(brief)
        .end_timeout(brief)
        .restart(at_once(Restart::on_failure(), 1));
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(clock(0, 3, Then::Hang), options)
        .dispatcher(clock(1, 3, Then::Wait));
    let ticks = note(&mut manager, Tick::clone);
    let failures = note(&mut manager, DispatcherFailed::clone);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    let failures = failures.take();
    assert_eq!(
        failures.iter().map(|failed| failed.will_restart).collect::<Vec<_>>(),
        [true, false]
    );
    for failed in failures {
        assert!(failed.reason.starts_with("update number 4 hangs: "), "{failed}");
        assert!(failed.reason.contains("50ms allowed"), "{failed}");
        assert_eq!((failed.dispatcher.as_str(), failed.exit), ("Clock", Exit::Signal(9)));
    }
    assert_eq!(ticks.take().iter().filter(|tick| tick.clock == 0).count(), 6);
    let report = manager.end_dispatchers()?;
    assert!(!report.dispatchers[0].finished && report.dispatchers[1].finished, "{report}");
    assert_balanced(&report.dispatchers[0]);
    Ok(())
}

#[eventpy::test]
fn an_update_that_waits_for_room_or_by_choice_does_not_hang() -> eventpy::Result<()> {
    let limit = Duration::from_millis(20);
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(clock(0, 0, Then::TickOn), small_ring(256).update_timeout(limit))
        .dispatcher_with(clock(1, 0, Then::Wait), small_ring(256).update_timeout(limit));
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    wait_for_full_ring(&manager, 0, 256 * TICK_BYTES);
    // Several times as long as an update may take; what is waited for is that nothing happens.
    std::thread::sleep(limit * 10);
    pump_until(&mut manager, |_| ticks.len() > 1000)?;
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

#[eventpy::test]
fn a_pump_that_waits_returns_with_the_first_event() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let begin = Diary::new(folder.path(), "begin");
    let mut manager = EventDispatchManager::new().dispatcher(Late { begin: begin.clone() });
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    assert_eq!(manager.invoke_dispatch_timeout(Duration::from_millis(1))?, 0);
    for number in 0..20 {
        // It comes while the pump waits, or a moment before.
        begin.write("now")?;
        let start = Instant::now();
        assert_eq!(manager.invoke_dispatch_timeout(WATCHDOG)?, 1);
        assert!(start.elapsed() < WATCHDOG, "it has slept through the event");
        assert_eq!(ticks.take(), [Tick { clock: 7, number }]);
    }
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

/// Ticks once for each line of a diary.
#[derive(Serialize, Deserialize)]
struct Late {
    begin: Diary,
}

#[eventpy::dispatcher]
impl EventDispatcher for Late {
    type Events = (Tick,);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *number < self.begin.lines().len() as u64 {
            emitter.emit(Tick { clock: 7, number: *number })?;
            *number += 1;
        } else {
            emitter.wait(Duration::from_micros(500));
        }
        Ok(())
    }
}

#[eventpy::test]
fn the_descriptor_is_readable_whenever_there_is_something_to_pump() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let begin = Diary::new(folder.path(), "begin");
    let notes = Notes::new();
    let restart = Restart::on_failure().backoff(Duration::from_millis(5), Duration::from_millis(5));
    let options = DispatcherOptions::default().restart(restart);
    let mut manager =
        EventDispatchManager::new().dispatcher_with(Late { begin: begin.clone() }, options);
    manager.on(notes.of(|tick: &Tick| format!("tick {}", tick.number)));
    manager.on(notes.of(|_: &DispatcherFailed| "failed".to_owned()));
    manager.on(notes.of(|_: &DispatcherRestarted| "restarted".to_owned()));
    manager.deploy_dispatchers()?;

    // Nobody pumps but when the descriptor says so.
    let mut noted = Vec::new();
    let mut wait_for = |manager: &mut EventDispatchManager, note: &str| -> eventpy::Result<()> {
        let start = Instant::now();
        while noted.last().is_none_or(|last| last != note) {
            assert!(is_readable(manager, WATCHDOG)?, "{note} was not shown");
            manager.invoke_dispatch()?;
            assert!(start.elapsed() < WATCHDOG, "{note} does not come, but {noted:?}");
            noted.extend(notes.take());
        }
        Ok(())
    };
    for number in 0..20 {
        begin.write("now")?;
        wait_for(&mut manager, &format!("tick {number}"))?;
    }
    while is_readable(&mut manager, Duration::ZERO)? {
        manager.invoke_dispatch()?;
    }
    signal_child(pid_of(&manager, 0), Signal::KILL);
    wait_for(&mut manager, "failed")?;
    // From here on nobody writes anything: the restart shows by itself, and so do the old lines.
    wait_for(&mut manager, "tick 19")?;
    let ticks: Vec<String> = (0..20).map(|number| format!("tick {number}")).collect();
    let befell = ["failed", "restarted"].map(String::from);
    assert_eq!(noted, [&ticks[..], &befell, &ticks].concat());
    manager.end_dispatchers()?;
    Ok(())
}

#[eventpy::test]
fn the_descriptor_shows_what_a_failing_callback_has_left_of_a_latest_ring() -> eventpy::Result<()> {
    let mixer = Mixer { rounds: 3, every: 3, pauses: false };
    let sent = mixer.sent();
    let (mut manager, notes) = mixer.manager();
    let mut has_failed = false;
    manager.on(move |_: &Every| match std::mem::replace(&mut has_failed, true) {
        false => Err(Failure::new("deliberately")),
        true => Ok(()),
    });
    manager.deploy_dispatchers()?;
    manager.fileno()?;
    wait_for_sent(&manager, 0, sent);
    assert_eq!(manager.invoke_dispatch().unwrap_err().kind(), ErrorKind::Callback);
    assert_eq!(notes.take(), [("Every", 1)]);
    assert!(is_readable(&mut manager, Duration::ZERO)?, "the rest is to be pumped");
    manager.invoke_dispatch()?;
    let last = [("Every", 9), ("Latest", 10), ("Newest", 11), ("Oldest", 12)];
    assert!(notes.take().ends_with(&last));
    // It is quiet when all is through.
    while is_readable(&mut manager, Duration::ZERO)? {
        manager.invoke_dispatch()?;
    }
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

#[derive(Event, Serialize, Deserialize)]
struct Parcel {
    number: usize,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
}

impl Parcel {
    /// Its content follows from its number and size.
    fn new(number: usize, bytes: usize) -> Parcel {
        let pattern: Vec<u8> = (0..4096).map(|at| (at * 31 + number * 7 + bytes) as u8).collect();
        let mut content = pattern.repeat(bytes.div_ceil(pattern.len()));
        content.truncate(bytes);
        Parcel { number, content }
    }
}

/// Sends parcels of these sizes.
#[derive(Serialize, Deserialize)]
struct Sender {
    sizes: Vec<usize>,
}

#[eventpy::dispatcher]
impl EventDispatcher for Sender {
    type Events = (Parcel,);
    type State = usize;

    fn init(&mut self) -> eventpy::Result<usize> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut usize,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        match self.sizes.get(*number) {
            Some(bytes) => emitter.emit(Parcel::new(*number, *bytes))?,
            None => wait_for_end(emitter),
        }
        *number += 1;
        Ok(())
    }
}

/// What has come of parcels: number and size of each, in order.
fn note_parcels(manager: &mut EventDispatchManager) -> Notes<(usize, usize)> {
    note(manager, |parcel: &Parcel| {
        let bytes = parcel.content.len();
        let sent = Parcel::new(parcel.number, bytes);
        assert!(parcel.content == sent.content, "{bytes} bytes are damaged");
        (parcel.number, bytes)
    })
}

#[eventpy::test]
fn events_of_100_bytes_to_100_megabytes_keep_one_order() -> eventpy::Result<()> {
    const MB: usize = 1_000_000;
    let sizes = vec![
        100,
        65_000,
        65_536,
        70_000,
        100,
        MB,
        10 * MB,
        100,
        100 * MB,
        100,
        1_000,
        10_000,
        100_000,
        MB,
        100,
        100 * MB,
        10 * MB,
        50 * MB,
        100,
    ];
    let expected: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
    let mut manager = EventDispatchManager::new().dispatcher(Sender { sizes });
    let parcels = note_parcels(&mut manager);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| parcels.len() == expected.len())?;
    assert_eq!(parcels.take(), expected);
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean(), "{report}");
    Ok(())
}

#[eventpy::test]
fn large_events_wait_for_the_budget_and_all_arrive() -> eventpy::Result<()> {
    // The budget holds two of the largest, and the ring none.
    let sizes: Vec<usize> = (0..300).map(|number| 10_000 + 8_999 * (number % 90)).collect();
    let expected: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
    let options = small_ring(256).large_bytes(2 << 20);
    let mut manager = EventDispatchManager::new().dispatcher_with(Sender { sizes }, options);
    let parcels = note_parcels(&mut manager);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| parcels.len() == expected.len())?;
    assert_eq!(parcels.take(), expected);
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

#[eventpy::test]
fn a_dispatcher_that_drops_large_events_never_waits() -> eventpy::Result<()> {
    for delivery in [Delivery::DropNewest, Delivery::DropOldest, Delivery::Latest] {
        let count = 1_500;
        let sizes: Vec<usize> = (0..count).map(|number| 1_000 * (1 + number * 7 % 500)).collect();
        let expected: Vec<(usize, usize)> = sizes.iter().copied().enumerate().collect();
        let options = small_ring(256).large_bytes(4 << 20).delivery(delivery);
        let mut manager = EventDispatchManager::new().dispatcher_with(Sender { sizes }, options);
        let parcels = note_parcels(&mut manager);
        manager.deploy_dispatchers()?;
        // Without a pump.
        wait_for_sent(&manager, 0, count as u64);
        let report = manager.end_dispatchers()?;
        assert!(report.is_clean(), "{report}");
        assert_balanced(&report.dispatchers[0]);
        let parcels = parcels.take();
        assert!(!parcels.is_empty() && parcels.is_sorted(), "{parcels:?}");
        assert!(parcels.iter().all(|parcel| expected.contains(parcel)));
        match delivery {
            Delivery::DropNewest => assert_eq!(parcels[0], expected[0]),
            Delivery::DropOldest => assert_eq!(parcels.last(), expected.last()),
            _ => assert_eq!(parcels, expected[count - 1..]),
        }
    }
    Ok(())
}

#[eventpy::test]
fn none_waits_for_the_end_of_anothers_flood() -> eventpy::Result<()> {
    let roomy = DispatcherOptions::default();
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(clock(0, 0, Then::TickOn), roomy.clone())
        .dispatcher_with(clock(1, 0, Then::TickOn), roomy.clone())
        .dispatcher_with(clock(2, 1, Then::Wait), roomy);
    let ticks = note(&mut manager, Tick::clone);
    manager.deploy_dispatchers()?;
    for flood in [0, 1] {
        // Both have the same to deliver: a ring that is full but for one event.
        wait_until("its ring is full", || {
            manager.stats().dispatchers[flood].queued_bytes > (1 << 20) - 64
        });
    }
    wait_for_sent(&manager, 2, 1);
    manager.invoke_dispatch()?;
    let ticks = ticks.take();
    let place = |clock| ticks.iter().position(|tick| tick.clock == clock).expect("it has ticked");
    let last = |clock| ticks.iter().rposition(|tick| tick.clock == clock).expect("it has ticked");
    assert!(ticks.len() > 40_000, "both floods are in this pump");
    for clock in 0..3 {
        assert!(place(clock) < 2_000, "clock {clock} has its turn at {}", place(clock));
    }
    assert!(last(0).abs_diff(last(1)) < ticks.len() / 2, "both go on side by side");
    Ok(())
}

#[eventpy::test]
fn a_pump_delivers_what_was_there_when_it_began() -> eventpy::Result<()> {
    const ROOM: u64 = 256;
    let mut manager =
        EventDispatchManager::new().dispatcher_with(clock(0, 0, Then::TickOn), small_ring(ROOM));
    let seen = Notes::new();
    let noted = seen.clone();
    manager.on_with(move |tick: &Tick, context: &mut Context| {
        noted.add(tick.number);
        // Half of the ring is free again by now: the dispatcher goes on while we are here.
        if noted.len() as u64 == ROOM * 3 / 4 {
            let before = tick.number + ROOM / 4;
            wait_until("it sends more", || context.stats().dispatchers[0].counts.sent > before + 1);
        }
    });
    manager.deploy_dispatchers()?;
    wait_for_full_ring(&manager, 0, ROOM * TICK_BYTES);
    let there = manager.stats().dispatchers[0].counts.sent;
    assert_eq!(manager.invoke_dispatch()? as u64, there);
    assert_eq!(seen.take(), (0..there).collect::<Vec<_>>());
    assert!(manager.stats().dispatchers[0].counts.sent > there, "there is more by now");
    Ok(())
}

#[eventpy::test]
fn settings_of_any_size_reach_the_process() -> eventpy::Result<()> {
    let sizes = vec![9; 1_000_000];
    let mut manager = EventDispatchManager::new().dispatcher(Sender { sizes });
    let parcels = note_parcels(&mut manager);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| parcels.len() > 1_000)?;
    assert!(parcels.take().iter().all(|(_, bytes)| *bytes == 9));
    Ok(())
}
