use eventpy::Event;

#[derive(Event)]
struct Tick {
    count: u32,
}

fn main() {}
