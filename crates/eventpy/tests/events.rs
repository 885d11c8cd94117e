//! Events of all sizes and encodings arrive as they were sent, in order.

#![forbid(unsafe_code)]

mod support;

use eventpy::{
    DispatcherOptions, Emitter, Event, EventDispatchManager, EventDispatcher, EventListener,
    Subscriptions,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use support::{WATCHDOG, note, pump_until, wait_for_end};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Event, Serialize, Deserialize, Debug, Clone, PartialEq)]
struct Text {
    number: u64,
    text: String,
}

#[derive(Event, FromBytes, IntoBytes, Immutable, Debug, Clone, Copy, PartialEq)]
#[event(plain)]
#[repr(C)]
struct Sample {
    number: u64,
    values: [f32; 14],
}

/// Does not fit into the ring of the tests.
#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain, name = "a large block")]
#[repr(C)]
struct Block {
    number: u64,
    filling: [u64; 1 << 12],
}

/// Has no bytes at all.
#[derive(Event, Serialize, Deserialize)]
struct Mark;

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
enum Shape<T> {
    Point,
    Of(T),
}

#[derive(Serialize, Deserialize)]
struct Mixer {
    rounds: u64,
}

/// Sizes from nothing to far more than the ring holds.
fn text(number: u64) -> Text {
    let len = [0, 1, 100, 1000, 7000, 20_000, 300_000][(number % 7) as usize];
    Text { number, text: char::from(b'a' + (number % 26) as u8).to_string().repeat(len) }
}

fn sample(number: u64) -> Sample {
    Sample { number, values: [number as f32; 14] }
}

#[eventpy::dispatcher]
impl EventDispatcher for Mixer {
    type Events = (Text, Sample, Block, Mark, Shape<u8>, Shape<String>);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        for number in 0..self.rounds {
            emitter.emit(text(number))?;
            emitter.emit(sample(number))?;
            emitter.emit(Block { number, filling: [number; 1 << 12] })?;
            emitter.emit(Shape::Of(number as u8))?;
            emitter.emit_all([Shape::Point, Shape::Of(number.to_string())])?;
            emitter.emit(Mark)?;
        }
        emitter.end();
        Ok(())
    }
}

/// Notes what came, in order.
#[derive(Default)]
struct Checker {
    round: u64,
    in_round: Vec<&'static str>,
}

impl EventListener for Checker {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions
            .on(|checker, event: &Text| {
                assert_eq!(*event, text(checker.round));
                checker.in_round.push("text");
            })
            .on(|checker, event: &Sample| {
                assert_eq!(*event, sample(checker.round));
                checker.in_round.push("sample");
            })
            .on(|checker, event: &Block| {
                assert_eq!(event.number, checker.round);
                assert!(event.filling.iter().all(|word| *word == checker.round));
                checker.in_round.push("block");
            })
            .on(|checker, event: &Shape<u8>| {
                assert_eq!(*event, Shape::Of(checker.round as u8));
                checker.in_round.push("number");
            })
            .on(|checker, event: &Shape<String>| match event {
                Shape::Point => checker.in_round.push("point"),
                Shape::Of(text) => {
                    assert_eq!(*text, checker.round.to_string());
                    checker.in_round.push("string");
                }
            })
            .on(|checker, _: &Mark| {
                let all = ["text", "sample", "block", "number", "point", "string"];
                assert_eq!(checker.in_round, all);
                checker.in_round.clear();
                checker.round += 1;
            });
    }
}

#[eventpy::test]
fn every_size_and_encoding_arrives_unchanged_and_in_order() -> eventpy::Result<()> {
    const ROUNDS: u64 = 500;
    // A small ring wraps often.
    let options = DispatcherOptions::default().buffer_bytes(1 << 16);
    let mut manager = EventDispatchManager::new()
        .dispatcher_with(Mixer { rounds: ROUNDS }, options)
        .listener(Checker::default());
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| manager.listener_ref::<Checker>().unwrap().round == ROUNDS)?;
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.dispatchers[0].counts.delivered, 7 * ROUNDS);
    Ok(())
}

#[test]
fn names_are_those_of_the_types_unless_said_otherwise() {
    assert_eq!(Text::NAME, "Text");
    assert_eq!(Block::NAME, "a large block");
    assert_eq!(<Shape<u8>>::NAME, "Shape");
}

/// Emits one event that its `Deserialize` does not take back.
#[derive(Serialize, Deserialize)]
struct Broken;

#[derive(Event, Serialize, Deserialize)]
struct OneWay {
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[eventpy::dispatcher]
impl EventDispatcher for Broken {
    type Events = (OneWay, Mark);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.emit(OneWay { number: 1, comment: None })?;
        emitter.emit(Mark)?;
        wait_for_end(emitter);
        Ok(())
    }
}

#[eventpy::test]
fn an_event_that_can_not_be_decoded_is_an_error_and_the_next_one_comes() -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new().dispatcher(Broken);
    manager.on(|_: &OneWay| {});
    let marks = note(&mut manager, |_: &Mark| ());
    manager.deploy_dispatchers()?;
    let error = manager.invoke_dispatch_timeout(WATCHDOG).unwrap_err();
    assert_eq!(error.kind(), eventpy::ErrorKind::Event);
    assert!(error.to_string().contains("`OneWay` can't be decoded"), "{error}");
    assert!(error.to_string().contains("skip_serializing_if"), "{error}");
    pump_until(&mut manager, |_| marks.len() > 0)?;
    Ok(())
}

#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(transparent)]
struct Reading<T>(T);

#[test]
fn a_generic_event_is_one_for_every_type_that_its_encoding_takes() {
    fn is_event<T: Event>() {}
    fn with_serde<T: Serialize + DeserializeOwned + Send + 'static>() {
        is_event::<Shape<T>>();
    }
    fn plain<T: FromBytes + IntoBytes + Immutable + Send + 'static>() {
        is_event::<Reading<T>>();
    }
    with_serde::<String>();
    plain::<[f32; 3]>();
}
