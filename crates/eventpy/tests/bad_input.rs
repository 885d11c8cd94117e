//! What is wrong is an error that names the thing and what to do.

#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use eventpy::{
    Delivery, DispatcherFailed, DispatcherOptions, Emitter, Error, ErrorKind, Event,
    EventDispatchManager, EventDispatcher, Exit, Registered, Restart,
};
use serde::{Deserialize, Serialize};
use support::{has_ended, note, pump_until, wait_for_end};

#[derive(Event, Serialize, Deserialize)]
struct Frame {
    number: u64,
    #[serde(with = "serde_bytes")]
    pixels: Vec<u8>,
}

#[derive(Event, Serialize, Deserialize)]
struct Focus(f32);

/// Sends frames of these sizes, and then waits.
#[derive(Serialize, Deserialize)]
struct Camera {
    frames: Vec<usize>,
}

impl Camera {
    fn idle() -> Camera {
        Camera { frames: Vec::new() }
    }
}

#[eventpy::dispatcher]
impl EventDispatcher for Camera {
    type Events = (Frame, Focus);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        for bytes in std::mem::take(&mut self.frames) {
            emitter.emit(Frame { number: *number, pixels: vec![0; bytes] })?;
            *number += 1;
        }
        wait_for_end(emitter);
        Ok(())
    }
}

/// Asserts that an error is of a kind and says all of these.
#[track_caller]
fn assert_says<T>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) {
    let Err(error) = result else { panic!("it was accepted, though {says:?} is wrong") };
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Is not known to its process: what the attribute adds to the program is missing.
#[derive(Serialize, Deserialize)]
struct Ghost;

impl Registered for Ghost {}

impl EventDispatcher for Ghost {
    type Events = (Focus,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

#[eventpy::test]
fn a_dispatcher_that_its_process_does_not_know_is_named() {
    let mut manager = EventDispatchManager::new().dispatcher(Camera::idle()).dispatcher(Ghost);
    for _attempt in 0..2 {
        assert_says(
            manager.deploy_dispatchers(),
            ErrorKind::Load,
            &["dispatcher `Ghost`", "bad_input::Ghost", "is not known to the program"],
        );
        assert!(!manager.is_deployed());
    }
}

/// What happens while a `Fragile` is loaded in its process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Accident {
    Refuses,
    Panics,
    Exits,
    IsKilled,
}

/// Does not get through its loading.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "Breakable")]
struct Fragile {
    accident: Accident,
}

#[derive(Deserialize)]
struct Breakable {
    accident: Accident,
}

impl TryFrom<Breakable> for Fragile {
    type Error = &'static str;

    fn try_from(breakable: Breakable) -> Result<Fragile, &'static str> {
        match breakable.accident {
            Accident::Refuses => Err("not like this"),
            Accident::Panics => panic!("it falls to the floor"),
            Accident::Exits => std::process::exit(5),
            Accident::IsKilled => {
                let us = rustix::process::getpid();
                let _ = rustix::process::kill_process(us, rustix::process::Signal::KILL);
                Err("unreachable")
            }
        }
    }
}

#[eventpy::dispatcher]
impl EventDispatcher for Fragile {
    type Events = (Focus,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

#[eventpy::test]
fn a_process_that_does_not_get_through_its_loading_is_named_with_the_reason() {
    let before_loaded = "ended before it had loaded its dispatcher";
    let accidents: [(_, _, &[&str]); 4] = [
        (Accident::Refuses, ErrorKind::Load, &["settings can't be decoded"]),
        (Accident::Panics, ErrorKind::Load, &["it panicked: it falls to the floor"]),
        (Accident::Exits, ErrorKind::Start, &[before_loaded, "exit code 5"]),
        (Accident::IsKilled, ErrorKind::Start, &[before_loaded, "SIGKILL"]),
    ];
    for (accident, kind, says) in accidents {
        let mut manager =
            EventDispatchManager::new().dispatcher(Camera::idle()).dispatcher(Fragile { accident });
        let result = manager.deploy_dispatchers();
        assert!(!manager.is_deployed(), "{accident:?}");
        assert_says(result, kind, &[&["dispatcher `Fragile`"], says].concat());
    }
}

#[eventpy::test]
fn options_that_can_not_be_met_are_named_with_what_would_do() {
    type Options = fn(DispatcherOptions) -> DispatcherOptions;
    let wrong: [(Options, &[&str]); 6] = [
        (|options| options.buffer_bytes(100_000), &["buffer_bytes", "100000", "131072"]),
        (|options| options.buffer_bytes(64), &["buffer_bytes", "64", "power of two", "4096"]),
        (|options| options.buffer_bytes(0), &["buffer_bytes is 0", "4096"]),
        (|options| options.buffer_bytes(1 << 31), &["2147483648", "1073741824"]),
        (|options| options.delivery_of("Focsu", Delivery::Latest), &["`Focsu`", "Frame, Focus"]),
        (|options| options.update_timeout(Duration::ZERO), &["update_timeout", "leave it out"]),
    ];
    for (set, says) in wrong {
        let options = set(DispatcherOptions::default());
        let mut manager = EventDispatchManager::new();
        assert_says(
            manager.register_dispatcher_with(Camera::idle(), options.clone()),
            ErrorKind::Options,
            &[&["dispatcher `Camera`"], says].concat(),
        );
        assert!(manager.stats().dispatchers.is_empty(), "it was not added");
        let mut manager = EventDispatchManager::new().dispatcher_with(Camera::idle(), options);
        assert_says(manager.deploy_dispatchers(), ErrorKind::Options, says);
    }
}

/// The longest time is a way to say that there is no limit.
#[eventpy::test]
fn times_without_end_are_taken() -> eventpy::Result<()> {
    let forever = Duration::MAX;
    let options = DispatcherOptions::default()
        .start_timeout(forever)
        .update_timeout(forever)
        .end_timeout(forever)
        .restart(Restart::always().backoff(forever, forever).limit(u32::MAX, forever));
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(Camera { frames: vec![1] }, options.clone())
        .dispatcher_with(Fleeting, options);
    manager.deploy_dispatchers()?;
    assert_eq!(manager.invoke_dispatch_timeout(forever)?, 1);
    pump_until(&mut manager, |manager| manager.stats().dispatchers[1].pid.is_none())?;
    assert!(manager.end_dispatchers_timeout(forever)?.is_clean());
    Ok(())
}

/// Ends at once.
#[derive(Serialize, Deserialize)]
struct Fleeting;

#[eventpy::dispatcher]
impl EventDispatcher for Fleeting {
    type Events = (Focus,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.end();
        Ok(())
    }
}

#[eventpy::test]
fn an_event_larger_than_the_budget_is_named_with_the_option() -> eventpy::Result<()> {
    let budget = 1 << 20;
    let options = DispatcherOptions::default().large_bytes(budget);
    let frames = vec![100, budget - 100, 100, budget + 1, 100];
    let mut manager = EventDispatchManager::new().dispatcher_with(Camera { frames }, options);
    let failures = note(&mut manager, DispatcherFailed::clone);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    let reason = &failures.take()[0].reason;
    for part in ["event `Frame`", "1048", "dispatcher `Camera`", "raise large_bytes"] {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
    let report = manager.end_dispatchers()?;
    assert_eq!(report.dispatchers[0].counts.delivered, 3, "what fits has come");
    assert_eq!(report.dispatchers[0].exit, Exit::Code(1));
    Ok(())
}

#[eventpy::test]
fn calls_out_of_turn_are_told_what_comes_first() -> eventpy::Result<()> {
    let state = ErrorKind::State;
    let mut manager = EventDispatchManager::new();
    assert_says(manager.deploy_dispatchers(), state, &["no dispatcher to deploy", "add one"]);

    manager.register_dispatcher(Camera::idle())?;
    for deployments in 0..3 {
        let why = if deployments == 0 { "no dispatcher is deployed" } else { "have ended" };
        let advice = "call deploy_dispatchers first";
        assert_says(manager.invoke_dispatch(), state, &["invoke_dispatch: ", why, advice]);
        let second = Duration::from_secs(1);
        assert_says(manager.invoke_dispatch_timeout(second), state, &[why, advice]);
        assert_says(manager.end_dispatchers(), state, &["end_dispatchers: ", why, advice]);
        assert_says(manager.fileno().map(|_| ()), state, &["fileno: ", why, advice]);

        manager.deploy_dispatchers()?;
        let twice = &["all dispatchers are deployed already", "call end_dispatchers before"];
        assert_says(manager.deploy_dispatchers(), state, twice);
        assert_eq!(manager.invoke_dispatch()?, 0, "the error has changed nothing");
        assert!(manager.end_dispatchers()?.is_clean());
    }
    Ok(())
}

#[eventpy::test]
fn a_dispatcher_that_is_added_late_starts_with_the_next_deployment() -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new().dispatcher(Camera::idle());
    manager.deploy_dispatchers()?;
    manager.register_dispatcher(Camera { frames: vec![1] })?;
    assert_eq!(manager.stats().dispatchers[1].pid, None);
    manager.deploy_dispatchers()?;
    assert_eq!(pump_until(&mut manager, |m| m.stats().dispatchers[1].counts.delivered > 0)?, 1);
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}
