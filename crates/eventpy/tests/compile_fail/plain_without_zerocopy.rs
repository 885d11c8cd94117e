use eventpy::Event;

#[derive(Event)]
#[event(plain)]
struct Sample {
    channel: u64,
    value: u64,
}

fn main() {}
