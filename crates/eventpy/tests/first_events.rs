//! The shortest way through everything: one dispatcher, one listener, one closure.

#![forbid(unsafe_code)]

mod support;

use eventpy::{
    DispatcherEnded, Emitter, Event, EventDispatchManager, EventDispatcher, EventListener,
    Subscriptions,
};
use serde::{Deserialize, Serialize};
use support::{note, pump_until};

#[derive(Event, Serialize, Deserialize)]
struct Count(u64);

#[derive(Serialize, Deserialize)]
struct Counter {
    up_to: u64,
}

#[eventpy::dispatcher]
impl EventDispatcher for Counter {
    type Events = (Count,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        for number in 1..=self.up_to {
            emitter.emit(Count(number))?;
        }
        emitter.end();
        Ok(())
    }
}

#[derive(Default)]
struct Numbers {
    seen: Vec<u64>,
    ended: bool,
}

impl EventListener for Numbers {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_count).on(Self::on_ended);
    }
}

impl Numbers {
    fn on_count(&mut self, count: &Count) {
        self.seen.push(count.0);
    }

    fn on_ended(&mut self, _: &DispatcherEnded) {
        self.ended = true;
    }
}

#[eventpy::test]
fn every_event_arrives_in_order_at_listener_and_closure() -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new()
        .dispatcher(Counter { up_to: 1000 })
        .listener(Numbers::default());
    let in_closure = note(&mut manager, |count: &Count| count.0);

    manager.deploy_dispatchers()?;
    let delivered =
        pump_until(&mut manager, |manager| manager.listener_ref::<Numbers>().unwrap().ended)?;
    let report = manager.end_dispatchers()?;

    let expected: Vec<u64> = (1..=1000).collect();
    assert_eq!(manager.listener_ref::<Numbers>().unwrap().seen, expected);
    assert_eq!(in_closure.take(), expected);
    assert_eq!(delivered, 1001, "1000 counts and the end of the dispatcher");

    assert!(report.is_clean(), "{report}");
    let counts = report.get("Counter").unwrap().counts;
    assert_eq!((counts.sent, counts.delivered, counts.dropped), (1000, 1000, 0));
    Ok(())
}
