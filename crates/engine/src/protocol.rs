//! What manager and dispatcher process say to each other over the command socket. The protocol is
//! the same for every language.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::options::Delivery;
use crate::report::Phase;

/// Both sides must speak the same version; it changes with any message below.
pub(crate) const VERSION: u32 = 1;

/// The environment variable that tells a program that it is to be a dispatcher process. Its value
/// is the protocol's version.
pub(crate) const ENVIRONMENT: &str = "EVENTPY_DISPATCHER_PROCESS";

/// No message is longer, in bytes. A longer text is cut before it is sent.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A reason or a traceback is cut to this many bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 24 * 1024;

/// From the manager to a dispatcher process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToChild {
    /// The first message. Descriptors: ring, data bell, space bell, the manager's process, payload.
    Setup(Setup),
    /// End after the current update.
    End,
}

/// What a dispatcher process needs to become one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) name: String,
    /// Name and delivery per event type, in the order of their ids from 1.
    pub(crate) event_types: Vec<(String, Delivery)>,
    pub(crate) payload_bytes: u64,
    pub(crate) large_bytes: u64,
    pub(crate) update_timeout: Option<Duration>,
    /// How long each step of an ending takes, should the manager not be there to take it.
    pub(crate) end_timeout: Duration,
    /// The manager is registered for barriers and uses them before it sleeps.
    pub(crate) barriers: bool,
}

/// From a dispatcher process to the manager.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// The program reached a manager's `deploy` instead of becoming a dispatcher process.
    NotADispatcher,
    /// The dispatcher exists; `init` comes next.
    Loaded {
        /// The process is registered for barriers and uses them before it sleeps.
        barriers: bool,
    },
    /// The dispatcher can't be made in this process.
    LoadFailed { reason: String },
    /// `init` is through.
    Initialised,
    /// A segment to map for large events; it replaces an older one whose id has the same
    /// remainder. `slots` has a bit for each segment that the process still has, this one
    /// included. Descriptor: its memory.
    Segment { id: u32, bytes: u64, slots: u64 },
    /// Code of the dispatcher failed.
    Failed { phase: Phase, reason: String, traceback: String },
    /// An update takes longer than allowed.
    Hung { updates: u64, elapsed: Duration, traceback: String },
    /// `finish` ran to its end; the process exits now.
    Finished { time: Duration },
}

/// Cuts a text to what a message may hold, at a character's boundary, keeping its end: the last
/// lines of a traceback say most.
pub(crate) fn cut(text: String) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text;
    }
    let mut from = text.len() - MAX_TEXT_BYTES;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    format!("[...]{}", &text[from..])
}
