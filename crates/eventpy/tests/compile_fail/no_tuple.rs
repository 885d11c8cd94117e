use eventpy::{Emitter, Event, EventDispatcher};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Full;

#[derive(Serialize, Deserialize)]
struct Watch;

#[eventpy::dispatcher]
impl EventDispatcher for Watch {
    type Events = (Full);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

fn main() {}
