// A callback can't pump: the manager that calls it is borrowed.

use eventpy::{Event, EventDispatchManager};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct CpuLoad {
    busy: f32,
}

fn main() {
    let mut manager = EventDispatchManager::new();
    manager.on(|_: &CpuLoad| manager.invoke_dispatch());
}
