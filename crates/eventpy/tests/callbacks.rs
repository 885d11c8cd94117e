//! What callbacks may do, and what happens when one fails.

#![forbid(unsafe_code)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use eventpy::{
    Context, Delivery, DispatcherEnded, DispatcherFailed, DispatcherOptions, Emitter, ErrorKind,
    Event, EventDispatchManager, EventDispatcher, EventListener, Failure, Subscriptions,
};
use serde::{Deserialize, Serialize};
use support::{Notes, WATCHDOG, is_readable, note, pump_until, wait_for_end, wait_for_sent};

#[derive(Event, Serialize, Deserialize)]
struct Count(u64);

#[derive(Event, Serialize, Deserialize)]
struct Finished {
    updates: u64,
}

/// Counts in one update and then does what `then` says.
#[derive(Serialize, Deserialize)]
struct Counter {
    up_to: u64,
    then: Then,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
enum Then {
    End,
    Wait,
    Fail,
    Panic,
}

#[eventpy::dispatcher]
impl EventDispatcher for Counter {
    type Events = (Count, Finished);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        updates: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        *updates += 1;
        emitter.emit_all((1..=self.up_to).map(Count))?;
        match self.then {
            Then::End => emitter.end(),
            Then::Wait => wait_for_end(emitter),
            Then::Fail => return Err(Failure::new("the well is dry")),
            Then::Panic => panic!("the well is deep"),
        }
        Ok(())
    }

    fn finish(&mut self, updates: u64, emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.emit(Finished { updates })?;
        Ok(())
    }
}

fn counting(up_to: u64, then: Then) -> EventDispatchManager {
    EventDispatchManager::new().dispatcher(Counter { up_to, then })
}

/// The message with which this panics.
#[track_caller]
fn panic_of<T>(pump: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(pump)) else { panic!("it does not panic") };
    let text = panic.downcast::<&str>().map(|text| text.to_string());
    text.or_else(|panic| panic.downcast().map(|text| *text)).expect("a panic has a message")
}

struct Fussy {
    dislikes: u64,
}

impl EventListener for Fussy {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_count);
    }
}

impl Fussy {
    fn on_count(&mut self, count: &Count) -> Result<(), std::io::Error> {
        match count.0 == self.dislikes {
            true => Err(std::io::Error::other("no room on the shelf")),
            false => Ok(()),
        }
    }
}

#[eventpy::test]
fn an_error_lets_the_others_run_and_keeps_the_rest_queued() -> eventpy::Result<()> {
    let mut manager = counting(5, Then::Wait).listener(Fussy { dislikes: 3 });
    let counts = note(&mut manager, |count: &Count| count.0);
    manager.deploy_dispatchers()?;

    let error = manager.invoke_dispatch_timeout(WATCHDOG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Callback);
    assert_eq!(
        error.to_string(),
        "callback of listener `Fussy` for `Count` failed: no room on the shelf"
    );
    let failure = Failure::from(error);
    let cause = failure.error().source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    assert!(cause.is_some(), "the callback's own error is the source");
    assert_eq!(counts.take(), [1, 2, 3]);

    assert_eq!(manager.invoke_dispatch()?, 2);
    assert_eq!(counts.take(), [4, 5]);
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

#[eventpy::test]
fn a_closure_that_fails_is_named_by_its_place() -> eventpy::Result<()> {
    let mut manager = counting(1, Then::Wait);
    manager.on(|_: &Count| Err(Failure::new("not today")));
    manager.deploy_dispatchers()?;
    let error = manager.invoke_dispatch_timeout(WATCHDOG).unwrap_err().to_string();
    let file = file!();
    assert!(error.starts_with(&format!("callback at {file}:")), "{error}");
    assert!(error.ends_with("for `Count` failed: not today"), "{error}");
    Ok(())
}

#[eventpy::test]
fn a_panic_lets_the_others_run_and_keeps_the_rest_queued() -> eventpy::Result<()> {
    let mut manager = counting(3, Then::Wait);
    manager.on(|count: &Count| assert_ne!(count.0, 2, "two is one too many"));
    let counts = note(&mut manager, |count: &Count| count.0);
    manager.deploy_dispatchers()?;

    let panic = panic_of(|| manager.invoke_dispatch_timeout(WATCHDOG));
    assert!(panic.contains("two is one too many"));
    assert_eq!(counts.take(), [1, 2]);

    assert_eq!(manager.invoke_dispatch()?, 1);
    assert_eq!(counts.take(), [3]);
    Ok(())
}

#[eventpy::test]
fn an_error_while_ending_does_not_stop_the_end() -> eventpy::Result<()> {
    let mut manager = counting(3, Then::Wait).dispatcher(Counter { up_to: 3, then: Then::Wait });
    let ends = note(&mut manager, |_: &Finished| ());
    manager.on(|_: &Finished| Err(Failure::new("not today")));
    manager.deploy_dispatchers()?;
    let error = manager.end_dispatchers().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Callback);
    assert_eq!(ends.len(), 2);
    assert!(!manager.is_deployed());
    assert!(manager.end_report().is_clean());
    Ok(())
}

/// Bursts where it arrives, but not where it comes from.
#[derive(Event, Serialize, Deserialize)]
#[serde(from = "SentBalloon")]
struct Balloon {
    number: u64,
    bursts: Bursts,
    #[serde(with = "serde_bytes")]
    air: Vec<u8>,
    #[serde(skip)]
    has_arrived: bool,
}

#[derive(Deserialize)]
struct SentBalloon {
    number: u64,
    bursts: Bursts,
    #[serde(with = "serde_bytes")]
    air: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Bursts {
    Never,
    InDeserialize,
    InDrop,
}

impl From<SentBalloon> for Balloon {
    fn from(SentBalloon { number, bursts, air }: SentBalloon) -> Balloon {
        assert!(bursts != Bursts::InDeserialize, "it bursts InDeserialize");
        Balloon { number, bursts, air, has_arrived: true }
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        assert!(!(self.has_arrived && self.bursts == Bursts::InDrop), "it bursts InDrop");
    }
}

/// Sends three balloons, the second of which bursts.
#[derive(Serialize, Deserialize)]
struct Fair {
    bursts: Bursts,
    air_bytes: usize,
}

#[eventpy::dispatcher]
impl EventDispatcher for Fair {
    type Events = (Balloon, Finished);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        for (number, bursts) in (1..).zip([Bursts::Never, self.bursts, Bursts::Never]) {
            let air = vec![1; self.air_bytes];
            emitter.emit(Balloon { number, bursts, air, has_arrived: false })?;
        }
        wait_for_end(emitter);
        Ok(())
    }

    fn finish(&mut self, _: (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.emit(Finished { updates: 1 })?;
        Ok(())
    }
}

/// The ways that a balloon may travel: in the ring, beside it, and with all else out of a ring that
/// has a `latest` type.
fn ways() -> [(usize, DispatcherOptions); 3] {
    let usual = DispatcherOptions::default();
    let with_latest = usual.clone().delivery_of("Finished", Delivery::Latest);
    [(10, usual.clone()), (100_000, usual), (10, with_latest)]
}

/// A manager with a fair for each of these, and what its two callbacks note.
fn fairs(
    bursts: Bursts,
    air_bytes: usize,
    options: impl IntoIterator<Item = DispatcherOptions>,
) -> (EventDispatchManager, Notes<String>) {
    let mut manager = EventDispatchManager::new();
    for options in options {
        manager = manager.dispatcher_with(Fair { bursts, air_bytes }, options);
    }
    let notes = Notes::new();
    for name in ["a", "b"] {
        manager.on(notes.of(move |balloon: &Balloon| format!("{name}{}", balloon.number)));
    }
    manager.on(notes.of(|_: &Finished| "finished".to_owned()));
    (manager, notes)
}

#[eventpy::test]
fn an_event_that_panics_keeps_the_rest_queued() -> eventpy::Result<()> {
    for bursts in [Bursts::InDeserialize, Bursts::InDrop] {
        for (air_bytes, options) in ways() {
            let (mut manager, notes) = fairs(bursts, air_bytes, [options]);
            manager.deploy_dispatchers()?;
            manager.fileno()?;
            wait_for_sent(&manager, 0, 3);
            let panic = panic_of(|| manager.invoke_dispatch());
            assert_eq!(panic, format!("it bursts {bursts:?}"));
            match bursts {
                Bursts::InDrop => assert_eq!(notes.take(), ["a1", "b1", "a2", "b2"]),
                _ => assert_eq!(notes.take(), ["a1", "b1"]),
            }
            assert!(is_readable(&mut manager, Duration::ZERO)?, "something is left to pump");
            assert_eq!(manager.invoke_dispatch()?, 1);
            assert_eq!(notes.take(), ["a3", "b3"]);
            assert!(manager.end_dispatchers()?.is_clean());
        }
    }
    Ok(())
}

#[eventpy::test]
fn an_event_that_panics_while_ending_does_not_stop_the_end() -> eventpy::Result<()> {
    for bursts in [Bursts::InDeserialize, Bursts::InDrop] {
        for (air_bytes, options) in ways() {
            let (mut manager, notes) = fairs(bursts, air_bytes, [options.clone(), options]);
            manager.deploy_dispatchers()?;
            wait_for_sent(&manager, 0, 3);
            wait_for_sent(&manager, 1, 3);
            let panic = panic_of(|| manager.end_dispatchers());
            assert_eq!(panic, format!("it bursts {bursts:?}"));
            assert!(!manager.is_deployed());
            assert!(manager.end_report().is_clean());
            let notes = notes.take();
            let of_second = if bursts == Bursts::InDrop { 2 } else { 0 };
            for (note, times) in
                [("a1", 2), ("b1", 2), ("a2", of_second), ("b2", of_second), ("finished", 2)]
            {
                assert_eq!(notes.iter().filter(|noted| *noted == note).count(), times, "{notes:?}");
            }
        }
    }
    Ok(())
}

#[eventpy::test]
fn an_event_that_panics_in_its_drop_hides_nothing_of_its_callbacks() -> eventpy::Result<()> {
    for (air_bytes, options) in ways() {
        let (mut manager, notes) = fairs(Bursts::InDrop, air_bytes, [options]);
        manager.on_with(|balloon: &Balloon, context: &mut Context| {
            if balloon.number == 2 {
                context.end_dispatchers();
                panic!("two is one too many");
            }
        });
        manager.deploy_dispatchers()?;
        wait_for_sent(&manager, 0, 3);
        assert_eq!(panic_of(|| manager.invoke_dispatch()), "two is one too many");
        assert!(!manager.is_deployed());
        assert_eq!(notes.take(), ["a1", "b1", "a2", "b2", "a3", "b3", "finished"]);
    }
    Ok(())
}

#[eventpy::test]
fn a_subscription_that_panics_while_ending_does_not_stop_the_end() -> eventpy::Result<()> {
    struct Shy;
    impl EventListener for Shy {
        fn subscribe(_: &mut Subscriptions<Self>) {
            panic!("it is shy");
        }
    }
    let mut manager = counting(0, Then::Wait).dispatcher(Counter { up_to: 0, then: Then::Wait });
    let ends = note(&mut manager, |_: &Finished| ());
    manager.on_with(|_: &Finished, context: &mut Context| context.register_listener(Shy));
    manager.deploy_dispatchers()?;
    assert_eq!(panic_of(|| manager.end_dispatchers()), "it is shy");
    assert_eq!(ends.len(), 2);
    assert!(!manager.is_deployed());
    assert!(manager.end_report().is_clean());
    Ok(())
}

#[eventpy::test]
fn a_failure_that_nobody_takes_is_the_error_of_the_pump() -> eventpy::Result<()> {
    for (then, reason) in [(Then::Fail, "the well is dry"), (Then::Panic, "the well is deep")] {
        let notes = Notes::new();
        let mut manager = counting(2, then);
        manager.on(notes.of(|count: &Count| count.0.to_string()));
        manager.on(notes.of(|finished: &Finished| format!("after {}", finished.updates)));
        manager.deploy_dispatchers()?;

        let error = pump_until(&mut manager, |_| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Dispatcher);
        assert!(error.to_string().contains("dispatcher `Counter` failed"), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(notes.take(), ["1", "2", "after 1"], "all that it sent comes first");

        let report = manager.end_dispatchers()?;
        assert!(report.get("Counter").unwrap().failure.as_ref().unwrap().contains(reason));
    }
    Ok(())
}

#[eventpy::test]
fn a_failure_that_is_listened_to_is_an_event() -> eventpy::Result<()> {
    let mut manager = counting(0, Then::Fail);
    let reasons = note(&mut manager, |failed: &DispatcherFailed| failed.reason.clone());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| reasons.len() > 0)?;
    assert_eq!(reasons.take(), ["the well is dry"]);
    manager.end_dispatchers()?;
    Ok(())
}

#[eventpy::test]
fn a_callback_may_end_the_dispatchers() -> eventpy::Result<()> {
    let mut manager = counting(100, Then::Wait);
    manager.on_with(|count: &Count, context: &mut Context| {
        if count.0 == 7 {
            context.end_dispatchers();
        }
    });
    let counts = note(&mut manager, |count: &Count| count.0);
    let ends = note(&mut manager, |_: &Finished| ());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| counts.len() > 0)?;

    assert!(!manager.is_deployed());
    assert_eq!((counts.len(), ends.len()), (100, 1), "what was sent before the end is delivered");
    assert!(manager.end_report().is_clean());
    assert_eq!(manager.invoke_dispatch().unwrap_err().kind(), ErrorKind::State);
    Ok(())
}

#[eventpy::test]
fn a_callback_may_subscribe_from_the_next_event_on() -> eventpy::Result<()> {
    struct Late(Notes<String>);
    impl EventListener for Late {
        fn subscribe(subscriptions: &mut Subscriptions<Self>) {
            subscriptions.on(|late, count: &Count| late.0.add(format!("listener {}", count.0)));
        }
    }
    let notes = Notes::new();
    let mut manager = counting(3, Then::Wait);
    let noted = notes.clone();
    manager.on_with(move |count: &Count, context: &mut Context| {
        if count.0 == 2 {
            context.register_listener(Late(noted.clone()));
            context.on(noted.of(|count: &Count| format!("closure {}", count.0)));
        }
    });
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| notes.len() > 0)?;
    assert_eq!(notes.take(), ["listener 3", "closure 3"]);
    assert!(manager.listener_mut::<Late>().is_some());
    Ok(())
}

#[eventpy::test]
fn a_callback_may_read_the_statistics() -> eventpy::Result<()> {
    let notes = Notes::new();
    let mut manager = counting(2, Then::Wait);
    let noted = notes.clone();
    manager.on_with(move |_: &Count, context: &mut Context| {
        noted.add(context.stats().dispatchers[0].counts.delivered);
    });
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| notes.len() == 2)?;
    assert_eq!(notes.take(), [1, 2]);
    Ok(())
}

#[eventpy::test]
fn an_event_without_a_callback_is_counted_as_delivered() -> eventpy::Result<()> {
    let mut manager = counting(5, Then::End);
    let ends = note(&mut manager, |_: &DispatcherEnded| ());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| ends.len() > 0)?;
    let counts = manager.end_dispatchers()?.get("Counter").unwrap().counts;
    assert_eq!((counts.sent, counts.delivered), (6, 6), "five counts and the end");
    Ok(())
}

#[eventpy::test]
fn a_dropped_manager_delivers_what_its_end_brings() -> eventpy::Result<()> {
    let mut manager = counting(0, Then::Wait);
    let ends = note(&mut manager, |_: &Finished| ());
    manager.deploy_dispatchers()?;
    drop(manager);
    assert_eq!(ends.len(), 1);
    Ok(())
}

#[eventpy::test]
fn a_manager_that_a_panic_drops_calls_nobody() -> eventpy::Result<()> {
    let mut manager = counting(0, Then::Wait);
    let ends = note(&mut manager, |_: &Finished| ());
    manager.deploy_dispatchers()?;
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _manager = manager;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(ends.len(), 0);
    Ok(())
}

#[eventpy::test]
fn a_manager_may_move_to_another_thread() -> eventpy::Result<()> {
    let mut manager = counting(3, Then::Wait);
    let counts = note(&mut manager, |count: &Count| count.0);
    let elsewhere = counts.clone();
    let ended = std::thread::spawn(move || {
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| elsewhere.len() == 3)?;
        manager.end_dispatchers()
    });
    assert!(ended.join().unwrap()?.is_clean());
    assert_eq!(counts.take(), [1, 2, 3]);
    Ok(())
}

#[eventpy::test]
fn two_dispatchers_of_one_type_reach_the_same_callbacks() -> eventpy::Result<()> {
    let mut manager = counting(2, Then::Wait);
    manager.register_dispatcher(Counter { up_to: 3, then: Then::Wait })?;
    let counts = note(&mut manager, |count: &Count| count.0);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| counts.len() == 5)?;
    let report = manager.end_dispatchers()?;
    let delivered = |name| report.get(name).unwrap().counts.delivered;
    assert_eq!((delivered("Counter"), delivered("Counter#2")), (3, 4), "with one `Finished` each");
    Ok(())
}

#[eventpy::test]
fn bad_options_in_the_builder_are_the_error_of_deploy() {
    let options = eventpy::DispatcherOptions::default().buffer_bytes(1000);
    let counter = Counter { up_to: 1, then: Then::End };
    let mut manager = EventDispatchManager::new().dispatcher_with(counter, options);
    for _attempt in 0..2 {
        let error = manager.deploy_dispatchers().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Options);
        assert!(error.to_string().contains("1000"), "{error}");
    }
}
