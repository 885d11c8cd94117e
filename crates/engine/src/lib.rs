//! Dispatcher processes and their records.
//!
//! The engine knows an event as a type id and bytes. The faces (the crate `eventpy`, the Python
//! package) give those a meaning: they encode in the dispatcher's process, decode in the
//! manager's, and call callbacks.
//!
//! # Layout
//!
//! In the manager's process, from the outside in:
//!
//! | module | holds |
//! |---|---|
//! | `engine` | [`Engine`]: deploy, end, and the order of things |
//! | `pump` | what is yielded, in whose turn, and sleeping until there is something |
//! | `dispatcher` | one dispatcher's life: states, failures, restarts, counts |
//! | `glance` | whether a dispatcher has anything, by one load |
//! | `latest` | the queue of rings that have a `latest` type |
//! | `link` | one process: command socket, ring, segments |
//! | `record` | one event's bytes |
//! | `process`, `control`, `aside`, `space`, `waiter`, `attention`, `os` | the operating system |
//!
//! In a dispatcher's process: [`child`]. For fuzzing: `stage`. Both sides: `protocol`, `options`, `report`, `error`.

mod aside;
mod attention;
pub mod child;
mod control;
mod dispatcher;
mod engine;
mod error;
mod glance;
mod latest;
mod link;
mod options;
mod os;
mod process;
mod protocol;
mod pump;
mod record;
mod report;
mod space;
#[doc(hidden)]
pub mod stage;
mod waiter;

pub use engine::{DispatcherId, Engine};
pub use error::{Error, ErrorKind};
pub use options::{Delivery, DispatcherOptions, DispatcherSpec, Launch, Restart, Selection};
pub use pump::{Pump, Yield};
pub use record::{LargePayload, Payload, Record, RingRecord};
pub use report::{
    Counts, DispatcherEnded, DispatcherFailed, DispatcherReport, DispatcherRestarted,
    DispatcherState, DispatcherStats, EndReport, Exit, Phase, Stats,
};
pub use waiter::{Sleep, Woken};
