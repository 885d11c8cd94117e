//! The native module of the Python package `eventpy`.
//!
//! The manager, the processes, the pump and the reports are the engine's. Here they get a Python
//! face: events become bytes and objects again, callbacks are called, errors become exceptions.
//! What needs no speed is written in Python, in the folder `python/eventpy`, which is the only
//! caller of this module.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | `manager` | deploy, pump, end: the manager's process |
//! | `intake` | from a record to an event |
//! | `route` | from an event to the callbacks for its type |
//! | `large` | shared memory as a Python buffer |
//! | `process` | the dispatcher's process, and its three calls |
//! | `ending` | the end of that process: asking for it, waiting for it |
//! | `outbox` | where events leave a dispatcher's code |
//! | `gil` | a lock for what only threads touch that hold the interpreter's lock |
//! | `options`, `report`, `error` | what crosses the border, in and out |
//! | `codec_pair` | its two ends, for its tests |
//! | `codec` | events to bytes and back, such that what arrives equals what pickle would bring |
//!
//! **Locks.** The engine's lock is held for engine work alone: no Python code runs under it. A
//! thread that waits for a lock does so without the interpreter's lock.

mod codec;
mod codec_pair;
mod ending;
mod error;
mod gil;
mod intake;
mod large;
mod manager;
mod options;
mod outbox;
mod process;
mod report;
mod route;

use pyo3::prelude::*;

/// The native part of `eventpy`. Only the package itself uses it.
#[pymodule(gil_used = true)]
mod _eventpy {
    #[pymodule_export]
    use super::codec_pair::{Decoder, Encoder, leading_bytes};
    #[pymodule_export]
    use super::ending::{end, interrupt, is_ending, wait};
    #[pymodule_export]
    use super::manager::{Manager, end_all};
    #[pymodule_export]
    use super::outbox::{emit, send_log};
    #[pymodule_export]
    use super::process::run_dispatcher;

    #[pymodule_export]
    const ALIGNMENT: usize = super::codec::ALIGNMENT;
    #[pymodule_export]
    const HEAD_BYTES: usize = super::codec::HEAD_BYTES;
}
