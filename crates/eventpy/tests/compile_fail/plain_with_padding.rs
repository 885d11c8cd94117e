use eventpy::Event;
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(C)]
struct Sample {
    channel: u8,
    value: u64,
}

fn main() {}
