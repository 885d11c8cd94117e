//! Where events leave a dispatcher's code: `emit`, and what `update` returns.

use std::cell::Cell;
use std::collections::HashMap;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use eventpy_engine::child::Emitter;
use eventpy_engine::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyIterator, PyList, PyTuple, PyType};

use crate::codec::{Definitions, Encoded, Encoder};
use crate::ending;
use crate::error::{EventTypeError, ReentrantError, StateError, raise, raise_codec};
use crate::gil::GilLock;
use crate::intake::{definition_type, log_type};

/// Out-of-band buffers have at least so many bytes: what is smaller travels in the ring.
const OUT_OF_BAND_BYTES: usize = 64 * 1024;
/// Room for an event that is asked for before its size is known. More is offered if there is more.
const FIRST_ROOM_BYTES: usize = 32;

/// The outbox of this dispatcher process. Any of its threads may send, one at a time.
static OUTBOX: GilLock<Option<Outbox>> = GilLock::new(None);

/// The engine's emitter, while the engine lends it to a call of the dispatcher. It is used only
/// under the lock of [`OUTBOX`], and taken back only while nobody has that.
static LENT: AtomicPtr<Emitter> = AtomicPtr::new(null_mut());

/// What turns objects into records of the ring.
pub(crate) struct Outbox {
    name: String,
    event_types: Vec<Py<PyType>>,
    /// The ids of classes that are no declared type but derived from one, by address.
    derived: HashMap<usize, (Py<PyType>, u16)>,
    event_base: Py<PyType>,
    encoder: Encoder,
    /// What goes along with each record where records may be dropped.
    definitions: Option<Definitions>,
    finishing: bool,
}

// The threads of the dispatcher's process use the emitter in turns.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Emitter>();
};

thread_local! {
    /// Whether this thread is encoding: a hook of an event's class must not send.
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

/// Sends an event at once; it works in the dispatcher's own process, from `init` to `finish`.
///
///     for line in lines:
///         self.emit(LineRead(line))
#[pyfunction]
pub(crate) fn emit(event: &Bound<'_, PyAny>) -> PyResult<()> {
    with_outbox(event.py(), |outbox, emitter| outbox.send(event, emitter))
}

/// Sends a log record.
#[pyfunction]
pub(crate) fn send_log(record: &Bound<'_, PyBytes>) -> PyResult<()> {
    with_outbox(record.py(), |outbox, emitter| {
        let type_id = log_type(outbox.event_types.len());
        outbox.sent(emitter.send(type_id, record.as_bytes()))
    })
}

/// Makes the outbox of this process.
pub(crate) fn open(
    py: Python<'_>,
    name: String,
    event_types: Vec<Py<PyType>>,
    may_drop: bool,
) -> PyResult<()> {
    let event_base = py.import("eventpy._event")?.getattr("Event")?.cast_into::<PyType>()?;
    let outbox = Outbox {
        name,
        event_types,
        derived: HashMap::new(),
        event_base: event_base.unbind(),
        encoder: Encoder::new(py, OUT_OF_BAND_BYTES)?,
        definitions: may_drop.then(Definitions::default),
        finishing: false,
    };
    *OUTBOX.lock(py) = Some(outbox);
    Ok(())
}

/// Tells the manager that an encoder begins anew.
pub(crate) fn greet(py: Python<'_>) -> PyResult<()> {
    with_outbox(py, |outbox, emitter| match outbox.definitions {
        Some(_) => Ok(()),
        None => outbox.define(Vec::new(), emitter),
    })
}

/// From now on nothing may be cut short any more.
pub(crate) fn begin_finish(py: Python<'_>) {
    if let Some(outbox) = &mut *OUTBOX.lock(py) {
        outbox.finishing = true;
    }
}

/// Calls the dispatcher's code with the emitter at hand.
#[inline]
pub(crate) fn lending<R>(py: Python<'_>, emitter: &mut Emitter, call: impl FnOnce() -> R) -> R {
    /// Takes the emitter back, also when the call panics.
    struct TakeBack<'py>(Python<'py>);
    impl Drop for TakeBack<'_> {
        fn drop(&mut self) {
            // Whoever sends at this moment is waited for.
            let must_wait = !OUTBOX.is_free(self.0) && !ending::is_forked_copy();
            let _nobody_sends = must_wait.then(|| OUTBOX.lock(self.0));
            LENT.store(null_mut(), Ordering::Relaxed);
        }
    }
    let _take_back = TakeBack(py);
    // Release: whoever finds it finds the emitter as it is now.
    LENT.store(emitter, Ordering::Release);
    call()
}

/// Sends what an `update` returned.
#[inline]
pub(crate) fn send_returned(returned: &Bound<'_, PyAny>) -> PyResult<()> {
    if returned.is_none() {
        return Ok(());
    }
    if returned.is_exact_instance_of::<PyTuple>() || returned.is_exact_instance_of::<PyList>() {
        return send_together(returned);
    }
    let is_event = with_outbox(returned.py(), |outbox, emitter| {
        let is_event = outbox.is_event(returned)?;
        if is_event {
            outbox.send(returned, emitter)?;
        }
        Ok(is_event)
    })?;
    if is_event { Ok(()) } else { send_each(returned) }
}

/// Sends the events of a tuple or list with one commit.
fn send_together(events: &Bound<'_, PyAny>) -> PyResult<()> {
    if events.is_empty()? {
        return Ok(());
    }
    with_outbox(events.py(), |outbox, emitter| {
        emitter.begin_batch();
        let sent = events.try_iter()?.try_for_each(|event| outbox.send(&event?, emitter));
        emitter.end_batch();
        sent
    })
}

/// Sends what an iterator yields, each as it comes.
fn send_each(events: &Bound<'_, PyAny>) -> PyResult<()> {
    let Ok(iterator) = events.cast::<PyIterator>() else {
        return Err(EventTypeError::new_err(format!(
            "update returned {} (a `{}`); return an event, a tuple, list or iterator of events, or None",
            shortened(events),
            events.get_type().fully_qualified_name()?
        )));
    };
    iterator.clone().try_for_each(|event| emit(&event?))
}

fn with_outbox<R>(
    py: Python<'_>,
    send: impl FnOnce(&mut Outbox, &mut Emitter) -> PyResult<R>,
) -> PyResult<R> {
    if SENDING.get() {
        return Err(ReentrantError::new_err(
            "an event was emitted while another one was being pickled; emit it afterwards",
        ));
    }
    // Before the lock, which a thread that a copy does not have may hold.
    ending::check_is_no_copy()?;
    let mut outbox = OUTBOX.lock(py);
    // Acquire: pairs with the release of `lending`.
    let lent = NonNull::new(LENT.load(Ordering::Acquire));
    let (Some(outbox), Some(mut emitter)) = (outbox.as_mut(), lent) else {
        return Err(StateError::new_err(
            "emit works only in the dispatcher's own process, from `init` to `finish`",
        ));
    };
    // SAFETY: the engine lends the emitter until `lending` has taken it back, for which it needs
    // the lock that is held here; so nobody else has a reference to it.
    let emitter = unsafe { emitter.as_mut() };
    SENDING.set(true);
    let result = send(outbox, emitter);
    SENDING.set(false);
    result
}

impl Outbox {
    #[inline]
    fn send(&mut self, event: &Bound<'_, PyAny>, emitter: &mut Emitter) -> PyResult<()> {
        let type_id = self.type_id_of(event)?;
        let mut least = FIRST_ROOM_BYTES;
        loop {
            let Some(mut slot) = self.room(emitter.reserve(type_id, least), event.py())? else {
                return Ok(());
            };
            let encoded = self.encoder.encode(event, slot.bytes_mut());
            match encoded.map_err(|error| raise_codec(event.py(), error))? {
                Encoded::Written { len } => {
                    let room = slot.bytes_mut();
                    let complete = |definitions: &Definitions| definitions.complete(room, len);
                    let len = self.definitions.as_ref().map_or(len, complete);
                    if len <= slot.bytes_mut().len() {
                        slot.commit(len);
                        return Ok(());
                    }
                    least = len;
                }
                Encoded::TooLarge { len } => least = len,
                Encoded::Define(definition) => self.define(definition, emitter)?,
                Encoded::Pickled(pickled) => {
                    let room = emitter.reserve(type_id, pickled.len());
                    if let Some(mut slot) = self.room(room, event.py())? {
                        pickled.write(event.py(), slot.bytes_mut())?;
                        slot.commit(pickled.len());
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Keeps a definition for the records that need it, or sends it ahead of them.
    fn define(&mut self, definition: Vec<u8>, emitter: &mut Emitter) -> PyResult<()> {
        if let Some(definitions) = &mut self.definitions {
            definitions.push(definition);
            return Ok(());
        }
        let type_id = definition_type(self.event_types.len());
        self.sent(emitter.send(type_id, &definition))
    }

    #[inline]
    fn is_event(&self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        let class = object.get_type_ptr();
        let is_declared = self.event_types.iter().any(|of| of.as_ptr() == class.cast());
        Ok(is_declared || object.is_instance(self.event_base.bind(object.py()))?)
    }

    /// The id of the event's class, or of the nearest declared base of it.
    #[inline]
    fn type_id_of(&mut self, event: &Bound<'_, PyAny>) -> PyResult<u16> {
        let class = event.get_type_ptr();
        let declared = self.event_types.iter().position(|of| of.as_ptr() == class.cast());
        match declared {
            Some(place) => Ok(place as u16 + 1),
            None => self.derived_type_id(event),
        }
    }

    #[cold]
    fn derived_type_id(&mut self, event: &Bound<'_, PyAny>) -> PyResult<u16> {
        let class = event.get_type();
        let address = class.as_type_ptr() as usize;
        if let Some((_, type_id)) = self.derived.get(&address) {
            return Ok(*type_id);
        }
        let bases = class.mro();
        let place_of =
            |base: Borrowed<'_, '_, PyAny>| self.event_types.iter().position(|of| base.is(of));
        let Some(place) = bases.iter_borrowed().find_map(place_of) else {
            return Err(self.refuse(event)?);
        };
        let type_id = place as u16 + 1;
        self.derived.insert(address, (class.unbind(), type_id));
        Ok(type_id)
    }

    fn refuse(&self, event: &Bound<'_, PyAny>) -> PyResult<PyErr> {
        let class = event.get_type().fully_qualified_name()?.to_string();
        let name = &self.name;
        if !event.is_instance(self.event_base.bind(event.py()))? {
            return Ok(EventTypeError::new_err(format!(
                "dispatcher `{name}` cannot send {} (a `{class}`): it is no event; derive its class from `eventpy.Event`",
                shortened(event)
            )));
        }
        Ok(EventTypeError::new_err(format!(
            "dispatcher `{name}` cannot send event `{class}`: it did not declare that type; add it to super().__init__(...)"
        )))
    }

    /// The room that the engine found, or none when the event is dropped.
    #[inline]
    fn room<T>(&self, room: Result<Option<T>, Error>, py: Python<'_>) -> PyResult<Option<T>> {
        match room {
            Ok(room) => Ok(room),
            Err(error) if self.goes_on_after(&error) => Ok(None),
            Err(error) => Err(refusal(py, error)),
        }
    }

    fn sent(&self, sent: Result<(), Error>) -> PyResult<()> {
        match sent {
            Err(error) if !self.goes_on_after(&error) => Err(raise(error)),
            _ => Ok(()),
        }
    }

    /// `finish` is to run to its end, also when nobody is left to receive its events.
    fn goes_on_after(&self, error: &Error) -> bool {
        self.finishing && error.kind() == ErrorKind::ManagerGone
    }
}

/// A refusal of the engine as an exception. A signal that caused it has its handler run first,
/// which may raise by itself.
#[cold]
fn refusal(py: Python<'_>, error: Error) -> PyErr {
    match py.check_signals() {
        Ok(()) => raise(error),
        Err(raised) => raised,
    }
}

/// How an object prints, not too long for a message.
fn shortened(object: &Bound<'_, PyAny>) -> String {
    const MOST: usize = 80;
    let text = object.repr().map_or_else(|_| "an object".to_owned(), |text| text.to_string());
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
