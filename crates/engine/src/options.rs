//! What a face tells the engine about a dispatcher.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::DispatcherId;

/// How a dispatcher is run. Made with [`DispatcherOptions::default`] and the methods.
///
/// ```
/// use std::time::Duration;
/// use eventpy_engine::{Delivery, DispatcherOptions, Restart};
///
/// let options = DispatcherOptions::default()
///     .buffer_bytes(1 << 16)
///     .delivery(Delivery::Latest)
///     .restart(Restart::on_failure())
///     .update_timeout(Duration::from_secs(2))
///     .end_timeout(Duration::from_secs(1));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct DispatcherOptions {
    pub(crate) buffer_bytes: usize,
    pub(crate) large_bytes: usize,
    pub(crate) delivery: Delivery,
    pub(crate) delivery_of: Vec<(String, Delivery)>,
    pub(crate) restart: Restart,
    pub(crate) update_timeout: Option<Duration>,
    pub(crate) start_timeout: Duration,
    pub(crate) end_timeout: Duration,
}

impl Default for DispatcherOptions {
    fn default() -> DispatcherOptions {
        DispatcherOptions {
            buffer_bytes: 1 << 20,
            large_bytes: 256 << 20,
            delivery: Delivery::Every,
            delivery_of: Vec::new(),
            restart: Restart::never(),
            update_timeout: None,
            start_timeout: Duration::from_secs(30),
            end_timeout: Duration::from_secs(5),
        }
    }
}

impl DispatcherOptions {
    /// Size of the ring in bytes, a power of two from 4 KiB to 1 GiB. Default 1 MiB.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// Bytes that events too large for the ring (64 KiB, or an eighth of the ring if that is
    /// less) may take beside it at one time. It is also the largest event. Default 256 MiB.
    #[must_use]
    pub fn large_bytes(mut self, bytes: usize) -> Self {
        self.large_bytes = bytes;
        self
    }

    /// What happens to events that are not pumped in time. Default [`Delivery::Every`].
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// The same for one event type, by its name.
    #[must_use]
    pub fn delivery_of(mut self, event_type: impl Into<String>, delivery: Delivery) -> Self {
        self.delivery_of.push((event_type.into(), delivery));
        self
    }

    /// Whether the dispatcher starts anew when it has failed or ended. Default never.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// The longest an `update` may take, without the time that it waits in its emitter. One that
    /// takes longer is a failure. Default: no limit.
    #[must_use]
    pub fn update_timeout(mut self, timeout: Duration) -> Self {
        self.update_timeout = Some(timeout);
        self
    }

    /// The longest that the process may take until it has loaded its dispatcher. Default 30 s.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How long `finish` may take after the end command before SIGTERM is sent, and again before
    /// SIGKILL. Default 5 s.
    #[must_use]
    pub fn end_timeout(mut self, timeout: Duration) -> Self {
        self.end_timeout = timeout;
        self
    }
}

/// What happens to events of a type that are not pumped in time. Every drop is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Delivery {
    /// Each event is delivered; a full ring makes the dispatcher wait.
    #[default]
    Every,
    /// Each pump delivers the newest event of the type and passes over the older ones; a full
    /// ring drops older ones and never makes the dispatcher wait. If the oldest event of a full
    /// ring is of a type that must stay, the event that is being emitted is dropped.
    Latest,
    /// A full ring drops the event that is being emitted.
    DropNewest,
    /// A full ring drops its oldest events, as long as those may be dropped; if an event that
    /// must stay is the oldest, the one that is being emitted is dropped.
    DropOldest,
}

impl Delivery {
    /// Whether a full ring gives older records up for it.
    pub(crate) fn displaces(self) -> bool {
        matches!(self, Delivery::Latest | Delivery::DropOldest)
    }
}

/// When a dispatcher's process is started anew.
///
/// The pause before a restart doubles from `backoff` up to `backoff_max`, with up to a quarter
/// more by chance, so that dispatchers that failed together do not return together. More than
/// `limit` restarts within `window`, and it stays failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Restart {
    pub(crate) when: RestartWhen,
    pub(crate) backoff: Duration,
    pub(crate) backoff_max: Duration,
    pub(crate) limit: u32,
    pub(crate) window: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartWhen {
    Never,
    OnFailure,
    Always,
}

impl Restart {
    /// It stays ended.
    pub fn never() -> Restart {
        Restart::when(RestartWhen::Never)
    }

    /// It starts anew after an error, a panic, a hang or a death.
    pub fn on_failure() -> Restart {
        Restart::when(RestartWhen::OnFailure)
    }

    /// It starts anew also when it ended by itself or by SIGTERM.
    pub fn always() -> Restart {
        Restart::when(RestartWhen::Always)
    }

    fn when(when: RestartWhen) -> Restart {
        Restart {
            when,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            limit: 5,
            window: Duration::from_secs(60),
        }
    }

    /// The first pause and the longest. Default 100 ms and 30 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = first;
        self.backoff_max = longest;
        self
    }

    /// At most `limit` restarts within `window`. Default 5 in 60 s.
    #[must_use]
    pub fn limit(mut self, limit: u32, window: Duration) -> Self {
        self.limit = limit;
        self.window = window;
        self
    }
}

/// A dispatcher, as the engine sees it.
#[derive(Debug, Clone)]
pub struct DispatcherSpec {
    /// What errors, reports and the process list call it.
    pub name: String,
    /// The names of its event types; a type's id in the ring is its place here plus one.
    pub event_types: Vec<String>,
    /// How many types follow those for what the face itself sends, such as log records. They are
    /// delivered each and in their place, and appear in no count. Where an event type has another
    /// delivery than `every`, a full ring drops them too.
    pub internal_types: u16,
    /// What the child process needs to make the dispatcher; opaque to the engine.
    pub payload: Vec<u8>,
    /// How the process is started.
    pub launch: Launch,
    /// How it is run.
    pub options: DispatcherOptions,
}

/// A program that calls [`child::run_if_dispatcher`](crate::child::run_if_dispatcher) before
/// anything else.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What to tell a user whose program started and did not become a dispatcher process.
    pub hint: String,
}

/// Which dispatchers an operation is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selection {
    /// All that the engine has.
    #[default]
    All,
    /// These.
    Only(Vec<DispatcherId>),
}

impl Selection {
    /// Whether the dispatcher of this index ([`DispatcherId::index`]) is among them.
    #[inline]
    pub fn has(&self, index: usize) -> bool {
        match self {
            Selection::All => true,
            Selection::Only(ids) => ids.iter().any(|id| id.index() == index),
        }
    }
}
