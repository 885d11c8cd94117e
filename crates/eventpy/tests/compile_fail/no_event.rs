use eventpy::{Emitter, EventDispatchManager, EventDispatcher};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Tick;

#[derive(Serialize, Deserialize)]
struct Clock;

#[eventpy::dispatcher]
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

fn main() {
    let mut manager = EventDispatchManager::new();
    manager.on(|_: &Tick| {});
}
