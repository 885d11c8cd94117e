use eventpy::{Emitter, Event};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Tick;

#[derive(Event, Serialize, Deserialize)]
struct Tock;

#[derive(Event, Serialize, Deserialize)]
struct Alarm;

fn update(emitter: &mut Emitter<(Tick, Tock)>) -> eventpy::Result<()> {
    emitter.emit(Alarm)?;
    Ok(())
}

fn main() {}
