use eventpy::{Emitter, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Tick;

fn update(emitter: &mut Emitter<(Tick, Tick)>) -> eventpy::Result<()> {
    emitter.emit(Tick)?;
    Ok(())
}

fn main() {}
