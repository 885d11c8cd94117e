use eventpy::{Emitter, Event, EventDispatcher};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Tick;

#[derive(Serialize, Deserialize)]
struct Clock;

impl EventDispatcher for Clock {
    type Events = (Tick,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

fn main() {}
