use eventpy::{Emitter, Event, EventDispatcher};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Full;

#[derive(Serialize, Deserialize)]
struct Watch<T> {
    what: T,
}

#[eventpy::dispatcher]
impl<T: Serialize + for<'a> Deserialize<'a> + 'static> EventDispatcher for Watch<T> {
    type Events = (Full,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

fn main() {}
