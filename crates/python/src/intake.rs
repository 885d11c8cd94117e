//! From a record to an event: the manager's side of the codec.

use std::cell::Cell;

use eventpy_engine::{
    DispatcherEnded, DispatcherFailed, DispatcherRestarted, Engine, LargePayload, Payload, Record,
    Yield,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::codec::{self, Decoder, Decoders, HEAD_BYTES};
use crate::error::{ReentrantError, raise_codec};
use crate::gil::GilLock;
use crate::large::SharedMemory;

/// Types that follow the declared ones in the ring: definitions of the codec, then log records.
pub(crate) const INTERNAL_TYPES: u16 = 2;

/// The type of definitions, of a dispatcher with so many event types.
pub(crate) fn definition_type(event_types: usize) -> u16 {
    event_types as u16 + 1
}

/// The type of log records.
pub(crate) fn log_type(event_types: usize) -> u16 {
    event_types as u16 + 2
}

/// What the manager knows of one dispatcher's events.
pub(crate) struct Inbox {
    decoder: Decoding,
    pub(crate) event_types: Vec<Py<PyType>>,
    copy_large: bool,
}

/// How a dispatcher's records are to be read.
enum Decoding {
    /// Definitions come as records of their own, before the records that need them.
    Defined(Decoder),
    /// Each record stands alone, because others may be dropped.
    Alone(Decoders),
}

/// The inboxes of all dispatchers, in the engine's order.
#[derive(Default)]
pub(crate) struct Intake {
    inboxes: Vec<Inbox>,
    bytes: Vec<u8>,
}

/// What came out of the engine.
pub(crate) enum Arrival<'py> {
    Event(Bound<'py, PyAny>),
    /// An event that this process can't make.
    Undecodable(PyErr),
    Log(Bound<'py, PyBytes>),
    /// Something between the dispatcher and its inbox.
    Internal,
    Failed(DispatcherFailed),
    Restarted(DispatcherRestarted),
    Ended(DispatcherEnded),
}

/// One record, out of the engine.
enum Pulled {
    Copied,
    Large(LargePayload),
}

thread_local! {
    /// Whether this thread is decoding: a hook of an event's class must not pump.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Refuses to pump within a hook that decoding runs.
pub(crate) fn check_not_decoding() -> PyResult<()> {
    if DECODING.get() {
        return Err(ReentrantError::new_err(
            "the manager was pumped or ended while an event was being made for it; do that in a callback",
        ));
    }
    Ok(())
}

impl Inbox {
    pub(crate) fn new(
        py: Python<'_>,
        event_types: Vec<Py<PyType>>,
        copy_large: bool,
        may_drop: bool,
    ) -> PyResult<Inbox> {
        let decoder = match may_drop {
            true => Decoding::Alone(Decoders::default()),
            false => Decoding::Defined(Decoder::new(py)?),
        };
        Ok(Inbox { decoder, event_types, copy_large })
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.event_types.iter().try_for_each(|event_type| visit.call(event_type))?;
        match &self.decoder {
            Decoding::Defined(decoder) => decoder.traverse(visit),
            Decoding::Alone(decoders) => decoders.traverse(visit),
        }
    }

    /// Takes a definition. An empty one is the first word of each process of the dispatcher, whose
    /// encoder begins anew.
    fn define(&mut self, py: Python<'_>, definition: &[u8]) -> PyResult<()> {
        let Decoding::Defined(decoder) = &mut self.decoder else { return Ok(()) };
        if definition.is_empty() {
            *decoder = Decoder::new(py)?;
            return Ok(());
        }
        decoder.define(py, definition).map_err(|error| raise_codec(py, error))
    }

    #[inline]
    fn decode<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let event = match &mut self.decoder {
            Decoding::Defined(decoder) => decoder.decode(py, bytes, owner),
            Decoding::Alone(decoders) => decoders.decode(py, bytes, owner),
        };
        event.map_err(|error| raise_codec(py, error))
    }
}

impl Intake {
    pub(crate) fn add(&mut self, inbox: Inbox) {
        self.inboxes.push(inbox);
    }

    /// Shows the garbage collector what is held here.
    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.inboxes.iter().try_for_each(|inbox| inbox.traverse(visit))
    }

    /// Takes the next thing out of the engine and makes it what it is. The engine is needed only to
    /// take it out.
    #[inline]
    pub(crate) fn next<'py>(
        &mut self,
        py: Python<'py>,
        engine: &GilLock<Engine>,
    ) -> Option<Arrival<'py>> {
        let pulled = pull(&mut engine.lock(py), &mut self.bytes)?;
        let (dispatcher, type_id, record) = match pulled {
            Ok(record) => record,
            Err(notice) => return Some(notice),
        };
        DECODING.set(true);
        let arrival = self.arrival(py, dispatcher, type_id, record);
        DECODING.set(false);
        Some(arrival.unwrap_or_else(Arrival::Undecodable))
    }

    #[inline]
    fn arrival<'py>(
        &mut self,
        py: Python<'py>,
        dispatcher: usize,
        type_id: u16,
        record: Pulled,
    ) -> PyResult<Arrival<'py>> {
        let inbox = &mut self.inboxes[dispatcher];
        if usize::from(type_id) <= inbox.event_types.len() {
            return match record {
                Pulled::Copied => inbox.decode(py, &self.bytes, None).map(Arrival::Event),
                Pulled::Large(payload) => self.large(py, dispatcher, payload).map(Arrival::Event),
            };
        }
        if let Pulled::Large(payload) = record {
            copy(&payload, payload.len(), &mut self.bytes);
        }
        if type_id == definition_type(inbox.event_types.len()) {
            inbox.define(py, &self.bytes)?;
            return Ok(Arrival::Internal);
        }
        Ok(Arrival::Log(PyBytes::new(py, &self.bytes)))
    }

    #[cold]
    fn large<'py>(
        &mut self,
        py: Python<'py>,
        dispatcher: usize,
        payload: LargePayload,
    ) -> PyResult<Bound<'py, PyAny>> {
        let inbox = &mut self.inboxes[dispatcher];
        let mut head = [0; HEAD_BYTES];
        let len = payload.len();
        let head = &mut head[..len.min(HEAD_BYTES)];
        payload.copy_to(head);
        let leading =
            codec::leading_bytes(head, len).map_err(|error| raise_codec(py, error.into()))?;
        if leading == len || inbox.copy_large {
            copy(&payload, len, &mut self.bytes);
            drop(payload);
            return inbox.decode(py, &self.bytes, None);
        }
        copy(&payload, leading, &mut self.bytes);
        // The out-of-band buffers stay in the shared memory.
        let owner = Bound::new(py, SharedMemory::new(payload))?;
        inbox.decode(py, &self.bytes, Some(owner.as_any()))
    }
}

type Taken<'py> = Result<(usize, u16, Pulled), Arrival<'py>>;

/// Takes the next thing out of the engine; `None` at the end of the pump.
#[inline]
fn pull<'py>(engine: &mut Engine, bytes: &mut Vec<u8>) -> Option<Taken<'py>> {
    if let Some((dispatcher, type_id)) = engine.next_in_ring()
        && let Some(record) = engine.take_in_ring(type_id)
    {
        record.read(bytes);
        return Some(Ok((dispatcher.index(), type_id, Pulled::Copied)));
    }
    Some(match engine.next_delivery()? {
        Yield::Record(record) => Ok(pull_record(record, bytes)),
        Yield::Failed(failed) => Err(Arrival::Failed(failed)),
        Yield::Restarted(restarted) => Err(Arrival::Restarted(restarted)),
        Yield::Ended(ended) => Err(Arrival::Ended(ended)),
    })
}

fn pull_record(record: Record<'_>, bytes: &mut Vec<u8>) -> (usize, u16, Pulled) {
    let (dispatcher, type_id) = (record.dispatcher().index(), record.type_id());
    let pulled = match record.into_large() {
        Ok(payload) => Pulled::Large(payload),
        Err(record) => {
            record.read(bytes);
            Pulled::Copied
        }
    };
    (dispatcher, type_id, pulled)
}

fn copy(payload: &LargePayload, len: usize, into: &mut Vec<u8>) {
    into.resize(len, 0);
    payload.copy_to(into);
}
