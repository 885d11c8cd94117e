#[eventpy::main]
fn start() {}

#[eventpy::main(now)]
fn main() {}
