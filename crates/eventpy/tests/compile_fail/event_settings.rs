use eventpy::Event;
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
#[event(title = "tick")]
struct Tick;

fn main() {}
