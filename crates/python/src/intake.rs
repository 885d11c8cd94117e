//! From a record to an event: the manager's side of the codec.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};

use eventpy_engine::{
    DispatcherEnded, DispatcherFailed, DispatcherRestarted, Engine, LargePayload, Payload, Record,
    Selection, Yield,
};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::codec::{self, Decoder, Decoders, HEAD_BYTES};
use crate::error::raise_codec;
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

/// So often the making of an event may be interrupted. A hook that raises each time would keep back
/// all that follows.
const MOST_ATTEMPTS: u32 = 10;

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
    /// What was copied of the record that an event is being made of.
    bytes: Vec<u8>,
    /// Of each dispatcher one at most: it is made before another is taken out.
    kept: Vec<Kept>,
}

/// A record that counts as delivered, and was not: the making of its event was interrupted.
struct Kept {
    from: Origin,
    bytes: Vec<u8>,
    owner: Option<Py<PyAny>>,
}

/// Where a record comes from.
#[derive(Clone, Copy)]
struct Origin {
    dispatcher: usize,
    type_id: u16,
    /// How often its event was interrupted.
    interrupts: u32,
}

/// What came out of the engine.
pub(crate) enum Arrival<'py> {
    Event(Bound<'py, PyAny>),
    /// An event that this process can't make, or that was interrupted and is kept.
    Unmade(PyErr),
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

/// The thread that makes events for a manager at this moment, if any. Python code may run in it: a
/// hook of an event's class, or a signal handler.
#[derive(Default)]
pub(crate) struct Maker(AtomicUsize);

/// As long as it lives, this thread is the maker.
pub(crate) struct Making<'a>(&'a Maker);

thread_local! {
    /// Its address is this thread's own.
    static HERE: u8 = const { 0 };
}

fn this_thread() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Maker {
    #[inline]
    pub(crate) fn begin(&self) -> Making<'_> {
        // Relaxed, here and below: a thread finds its own address only if it was the last to write.
        self.0.store(this_thread(), Ordering::Relaxed);
        Making(self)
    }

    /// Whether it is this thread, which then can't have what the making needs.
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(Ordering::Relaxed) == this_thread()
    }
}

impl Drop for Making<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
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

    /// Whether a record of these dispatchers was kept.
    pub(crate) fn keeps(&self, which: &Selection) -> bool {
        self.kept.iter().any(|kept| which.has(kept.from.dispatcher))
    }

    /// Takes the next thing out of the engine and makes it what it is, after what was kept of these
    /// dispatchers. The engine is needed only to take it out.
    #[inline]
    pub(crate) fn next<'py>(
        &mut self,
        py: Python<'py>,
        engine: &GilLock<Engine>,
        which: &Selection,
    ) -> Option<Arrival<'py>> {
        if !self.kept.is_empty()
            && let Some(arrival) = self.make_kept(py, engine, which)
        {
            return Some(arrival);
        }
        let pulled = pull(&mut engine.lock(py), &mut self.bytes)?;
        let (dispatcher, type_id, record) = match pulled {
            Ok(record) => record,
            Err(notice) => return Some(notice),
        };
        let from = Origin { dispatcher, type_id, interrupts: 0 };
        Some(match record {
            Pulled::Copied => self.make(py, engine, from, None),
            Pulled::Large(payload) => self.make_large(py, engine, from, payload),
        })
    }

    /// Makes what the bytes at hand are.
    #[inline]
    fn make<'py>(
        &mut self,
        py: Python<'py>,
        engine: &GilLock<Engine>,
        from: Origin,
        owner: Option<&Bound<'py, PyAny>>,
    ) -> Arrival<'py> {
        let inbox = &mut self.inboxes[from.dispatcher];
        let declared = inbox.event_types.len();
        let failed = if usize::from(from.type_id) <= declared {
            match inbox.decode(py, &self.bytes, owner) {
                Ok(event) => return Arrival::Event(event),
                Err(error) => error,
            }
        } else if from.type_id == definition_type(declared) {
            match inbox.define(py, &self.bytes) {
                Ok(()) => return Arrival::Internal,
                Err(error) => error,
            }
        } else {
            return Arrival::Log(PyBytes::new(py, &self.bytes));
        };
        self.keep_if_interrupted(py, engine, from, owner, &failed);
        Arrival::Unmade(failed)
    }

    #[cold]
    fn make_large<'py>(
        &mut self,
        py: Python<'py>,
        engine: &GilLock<Engine>,
        from: Origin,
        payload: LargePayload,
    ) -> Arrival<'py> {
        match self.unload(py, from, payload) {
            Ok(owner) => self.make(py, engine, from, owner.as_ref()),
            Err(error) => Arrival::Unmade(error),
        }
    }

    /// Copies a large record, but for out-of-band buffers, which stay where they are: in memory
    /// that then has an owner.
    fn unload<'py>(
        &mut self,
        py: Python<'py>,
        from: Origin,
        payload: LargePayload,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let inbox = &self.inboxes[from.dispatcher];
        let len = payload.len();
        let mut leading = len;
        if usize::from(from.type_id) <= inbox.event_types.len() && !inbox.copy_large {
            let mut head = [0; HEAD_BYTES];
            let head = &mut head[..len.min(HEAD_BYTES)];
            payload.copy_to(head);
            leading =
                codec::leading_bytes(head, len).map_err(|error| raise_codec(py, error.into()))?;
        }
        self.bytes.resize(leading, 0);
        payload.copy_to(&mut self.bytes);
        if leading == len {
            return Ok(None);
        }
        Ok(Some(Bound::new(py, SharedMemory::new(payload))?.into_any()))
    }

    /// Keeps the record at hand to be made once more, if it was not the event that failed: what is
    /// no `Exception` was raised by a signal handler, or else is not meant for whoever made it.
    #[cold]
    fn keep_if_interrupted(
        &mut self,
        py: Python<'_>,
        engine: &GilLock<Engine>,
        from: Origin,
        owner: Option<&Bound<'_, PyAny>>,
        failed: &PyErr,
    ) {
        let from = Origin { interrupts: from.interrupts + 1, ..from };
        if !failed.is_instance_of::<PyException>(py) && from.interrupts < MOST_ATTEMPTS {
            let owner = owner.map(|owner| owner.clone().unbind());
            self.kept.push(Kept { from, bytes: mem::take(&mut self.bytes), owner });
            engine.lock(py).rouse();
        }
    }

    #[cold]
    fn make_kept<'py>(
        &mut self,
        py: Python<'py>,
        engine: &GilLock<Engine>,
        which: &Selection,
    ) -> Option<Arrival<'py>> {
        let chosen = |kept: &Kept| which.has(kept.from.dispatcher);
        let kept = self.kept.remove(self.kept.iter().position(chosen)?);
        if self.kept.is_empty() {
            engine.lock(py).calm();
        }
        self.bytes = kept.bytes;
        let owner = kept.owner.as_ref().map(|owner| owner.bind(py));
        Some(self.make(py, engine, kept.from, owner))
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
