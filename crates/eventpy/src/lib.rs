//! Event sources in processes of their own, their events at callbacks in yours.
//!
//! Write an [`EventDispatcher`], which makes events, and an [`EventListener`] or closures, which
//! get them. Hand both to an [`EventDispatchManager`], deploy, and pump. A dispatcher that blocks,
//! crashes or hangs does so in its own process: yours goes on, and is told.
//!
//! ```
//! use eventpy::{Emitter, Event, EventDispatchManager, EventDispatcher, EventListener, Subscriptions};
//! use serde::{Deserialize, Serialize};
//! use std::time::{Duration, Instant};
//!
//! #[derive(Event, Serialize, Deserialize)]
//! struct Uptime {
//!     seconds: f64,
//! }
//!
//! /// Reads how long the machine has been up, in a process of its own.
//! #[derive(Serialize, Deserialize)]
//! struct UptimeWatch {
//!     every: Duration,
//! }
//!
//! #[eventpy::dispatcher]
//! impl EventDispatcher for UptimeWatch {
//!     type Events = (Uptime,);
//!     type State = ();
//!
//!     fn init(&mut self) -> eventpy::Result<()> {
//!         Ok(())
//!     }
//!
//!     fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
//!         let text = std::fs::read_to_string("/proc/uptime")?;
//!         let seconds = text.split(' ').next().unwrap_or_default().parse()?;
//!         emitter.emit(Uptime { seconds })?;
//!         emitter.wait(self.every);
//!         Ok(())
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Console {
//!     lines: usize,
//! }
//!
//! impl EventListener for Console {
//!     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
//!         subscriptions.on(Self::on_uptime);
//!     }
//! }
//!
//! impl Console {
//!     fn on_uptime(&mut self, uptime: &Uptime) {
//!         println!("up for {:.1} s", uptime.seconds);
//!         self.lines += 1;
//!     }
//! }
//!
//! #[eventpy::main]
//! fn main() -> eventpy::Result<()> {
//!     let mut manager = EventDispatchManager::new()
//!         .dispatcher(UptimeWatch { every: Duration::from_millis(10) })
//!         .listener(Console::default());
//!     manager.deploy_dispatchers()?;
//!     let started = Instant::now();
//!     while started.elapsed() < Duration::from_millis(50) {
//!         manager.invoke_dispatch_timeout(Duration::from_millis(50))?;
//!     }
//!     println!("{}", manager.end_dispatchers()?);
//!     assert!(manager.listener_ref::<Console>().unwrap().lines > 0);
//!     Ok(())
//! }
//! ```
//!
//! # Layout
//!
//! In the order in which an event passes:
//!
//! | file | what it holds |
//! |---|---|
//! | `dispatcher.rs` | [`EventDispatcher`], the tuple of its event types |
//! | `emitter.rs` | [`Emitter`]: where events leave a dispatcher's code |
//! | `event.rs`, `encoding.rs` | [`Event`]: to the bytes of a record, and back |
//! | `manager.rs` | [`EventDispatchManager`]: deploy, pump, end |
//! | `route.rs` | from a record to the callbacks for its type |
//! | `listener.rs`, `context.rs` | [`EventListener`], and what its callbacks may ask for |
//! | `process.rs` | how a dispatcher gets into its process |
//! | `failure.rs` | [`Failure`]: why a user's code failed |
//!
//! Everything about processes and shared memory lies in the crate `eventpy-engine`.

#![forbid(unsafe_code)]

// So that what the derive and the attributes write is right in this crate too.
extern crate self as eventpy;

/// A dispatcher that waits to be ended, for the examples in the documentation.
macro_rules! doc_idle {
    () => {
        "# use eventpy::{Emitter, Event, EventDispatchManager, EventDispatcher};
# use serde::{Deserialize, Serialize};
# #[derive(Event, Serialize, Deserialize)]
# struct Awake;
# #[derive(Serialize, Deserialize)]
# struct Idle;
# #[eventpy::dispatcher]
# impl EventDispatcher for Idle {
#     type Events = (Awake,);
#     type State = ();
#     fn init(&mut self) -> eventpy::Result<()> { Ok(()) }
#     fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
#         emitter.wait(std::time::Duration::from_secs(60));
#         Ok(())
#     }
# }"
    };
}

mod context;
mod dispatcher;
mod emitter;
mod encoding;
mod event;
mod failure;
mod listener;
mod manager;
mod process;
mod route;

pub use context::Context;
pub use dispatcher::{Contains, EventDispatcher, EventTypes, Registered};
pub use emitter::Emitter;
pub use event::Event;
pub use eventpy_engine::{
    Counts, Delivery, DispatcherEnded, DispatcherFailed, DispatcherOptions, DispatcherReport,
    DispatcherRestarted, DispatcherState, DispatcherStats, EndReport, Error, ErrorKind, Exit,
    Phase, Restart, Stats,
};
pub use failure::{Failure, Outcome, Result};
pub use listener::{EventListener, Subscriptions};
pub use manager::EventDispatchManager;

/// Makes a type an event; the trait of this name explains it.
///
/// ```
/// use eventpy::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct DoorOpened {
///     door: u32,
/// }
/// ```
pub use eventpy_derive::Event;

/// Makes a dispatcher known to the process that is started for it.
///
/// It goes above `impl EventDispatcher for ..`, which does not compile without it. The type must be
/// a concrete one: its process finds it by name.
///
/// ```
/// # use eventpy::{Emitter, Event, EventDispatcher};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Full;
/// #[derive(Serialize, Deserialize)]
/// struct Watch<T> {
///     what: T,
/// }
/// #[derive(Serialize, Deserialize)]
/// struct Disk;
///
/// #[eventpy::dispatcher]
/// impl EventDispatcher for Watch<Disk> {
///     type Events = (Full,);
///     // ..
/// #     type State = ();
/// #     fn init(&mut self) -> eventpy::Result<()> { Ok(()) }
/// #     fn update(&mut self, _: &mut (), _: &mut Emitter<(Full,)>) -> eventpy::Result<()> {
/// #         Ok(())
/// #     }
/// }
/// ```
pub use eventpy_derive::dispatcher;

/// Marks the `main` of a program that has dispatchers.
///
/// A dispatcher's process is this same program, started again. There, the first line of `main`,
/// which this attribute writes, runs the dispatcher instead of the rest. So nothing of `main` runs
/// in it: what a dispatcher needs, it makes in its `init`.
///
/// `main` may return anything that it could without the attribute. It can't be async; the attribute
/// of a runtime goes above this one.
///
/// ```
/// #[eventpy::main]
/// fn main() -> eventpy::Result<()> {
///     println!("this is the manager's process");
///     Ok(())
/// }
/// ```
pub use eventpy_derive::main;

/// Marks a test that deploys dispatchers; it stands in place of `#[test]`.
///
/// A dispatcher's process is the test program, started again with this one test, whose first line
/// then runs the dispatcher. The test harness over there prints `running 1 test` for each.
///
/// The manager must be made in the thread of the test; afterwards it may move to another.
///
/// ```
/// # /*
/// #[eventpy::test]
/// # */
/// fn a_manager_without_dispatchers_has_nothing_to_end() -> eventpy::Result<()> {
///     let mut manager = eventpy::EventDispatchManager::new();
///     assert!(manager.end_dispatchers().is_err());
///     Ok(())
/// }
/// # a_manager_without_dispatchers_has_nothing_to_end().unwrap();
/// ```
pub use eventpy_derive::test;

/// For what the derive and the attributes write. Anything here may change at any time.
#[doc(hidden)]
pub mod __private {
    pub use crate::encoding::{Encoding, ForPlain, ForSerde, Plain, Serde};
    pub use crate::process::{Registration, begin_test, run_if_dispatcher_process};
    pub use inventory;
}

/// The README's example, compiled and run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
