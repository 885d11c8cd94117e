#[eventpy::dispatcher]
struct Clock;

struct Watch;

#[eventpy::dispatcher]
impl Watch {}

fn main() {}
