use eventpy::{Event, EventDispatchManager};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Tick(u32);

fn main() {
    let mut manager = EventDispatchManager::new();
    manager.on(|tick: &Tick| tick.0 + 1);
}
