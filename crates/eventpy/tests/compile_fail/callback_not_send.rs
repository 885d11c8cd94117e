use std::cell::Cell;
use std::rc::Rc;

use eventpy::{Event, EventDispatchManager};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
struct Tick;

fn main() {
    let count = Rc::new(Cell::new(0));
    let mut manager = EventDispatchManager::new();
    manager.on(move |_: &Tick| count.set(count.get() + 1));
}
