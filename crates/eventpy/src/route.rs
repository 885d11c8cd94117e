//! From a record to the callbacks for its type.
//!
//! Each event type that anybody dispatches or listens to has a channel: its callbacks, and a slot
//! for the event that is being delivered. A record is delivered in two steps. It is read into the
//! slot, after which it has left the engine; then the callbacks are called, which therefore may
//! look at the engine. Nothing is looked up: a dispatcher's type ids are indices into a table that
//! was made when it was added.
//!
//! A channel delivers a *run* of events, which follow each other in one ring: then an event costs
//! one dynamic call for each callback, and what else there is to see to is seen to once.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};

use eventpy_engine::{DispatcherId, Engine, Error, ErrorKind, Record};

use crate::context::{Context, Requests};
use crate::dispatcher::{EventTypeVisitor, EventTypes};
use crate::encoding::Encoding;
use crate::event::Event;
use crate::failure::Failure;
use crate::listener::{EventListener, Subscriptions};

/// All callbacks, by event type, and the listeners that some of them are methods of.
#[derive(Default)]
pub(crate) struct Routes {
    channels: Vec<Box<dyn AnyChannel>>,
    by_type: HashMap<TypeId, ChannelId>,
    /// By dispatcher, then by type id less 1.
    by_record: Vec<Vec<ChannelId>>,
    listeners: Listeners,
    scratch: Vec<u8>,
}

/// An index into `Routes::channels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChannelId(usize);

/// What is called with an event.
pub(crate) type Call<E> =
    Box<dyn FnMut(&mut Listeners, &E, &mut Context<'_>) -> Result<(), Failure> + Send>;

/// Whose callback it is, for the error that it may return.
pub(crate) enum Owner {
    Listener(String),
    Closure(&'static Location<'static>),
}

/// What went wrong in the delivery of an event. Always in a box: a result with one is passed on for
/// every event, and a large one would cost more than the delivery.
pub(crate) enum Fault {
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

impl Routes {
    /// Adds the dispatcher with the next index.
    pub(crate) fn add_dispatcher<Events: EventTypes>(&mut self) {
        let mut table = Table { routes: self, channels: Vec::new() };
        Events::visit(&mut table);
        let channels = table.channels;
        self.by_record.push(channels);
    }

    pub(crate) fn add_listener<L: EventListener>(&mut self, listener: L) {
        let index = self.listeners.0.len();
        self.listeners.0.push(Box::new(listener));
        for add in Subscriptions::<L>::of_listener().callbacks {
            add(self, index);
        }
    }

    pub(crate) fn add_callback<E: Event>(&mut self, owner: Owner, call: Call<E>) {
        let id = self.channel_of::<E>();
        self.channel_mut(id).callbacks.push(Callback { owner, call });
    }

    pub(crate) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    pub(crate) fn listeners_mut(&mut self) -> &mut Listeners {
        &mut self.listeners
    }

    /// Delivers the events of a type that come next in a ring, until one fails or a callback has
    /// requests. `None`: the next thing is something else after all.
    #[inline]
    pub(crate) fn deliver_run(
        &mut self,
        dispatcher: DispatcherId,
        type_id: u16,
        engine: &mut Engine,
        requests: &mut Requests,
    ) -> Option<Run> {
        let id = self.by_record[dispatcher.index()][usize::from(type_id) - 1];
        let Routes { channels, listeners, scratch, .. } = self;
        let run = channels[id.0].deliver_run(type_id, engine, listeners, scratch, requests);
        (run.delivered > 0 || run.result.is_err()).then_some(run)
    }

    /// Reads the event out of a record, unless it has no callbacks: then it is not decoded.
    pub(crate) fn receive(&mut self, record: &Record<'_>) -> Result<ChannelId, Box<Fault>> {
        let id = self.by_record[record.dispatcher().index()][usize::from(record.type_id()) - 1];
        self.channels[id.0].receive(record, &mut self.scratch)?;
        Ok(id)
    }

    /// Takes an event that the engine made. It comes back if it has no callbacks.
    pub(crate) fn accept<E: Event>(&mut self, event: E) -> Result<ChannelId, E> {
        let id = self.channel_of::<E>();
        let channel = self.channel_mut::<E>(id);
        if channel.callbacks.is_empty() {
            return Err(event);
        }
        channel.event = Some(event);
        Ok(id)
    }

    /// Calls every callback of a channel with the event that it has received.
    pub(crate) fn call(
        &mut self,
        id: ChannelId,
        context: &mut Context<'_>,
    ) -> Result<(), Box<Fault>> {
        self.channels[id.0].call(&mut self.listeners, context)
    }

    fn channel_of<E: Event>(&mut self) -> ChannelId {
        *self.by_type.entry(TypeId::of::<E>()).or_insert_with(|| {
            self.channels.push(Box::new(Channel::<E>::default()));
            ChannelId(self.channels.len() - 1)
        })
    }

    fn channel_mut<E: Event>(&mut self, id: ChannelId) -> &mut Channel<E> {
        let channel: &mut dyn Any = &mut *self.channels[id.0];
        channel.downcast_mut().expect("`channel_of` gave the id of a channel of this type")
    }
}

/// Collects the channels of a dispatcher's event types.
struct Table<'a> {
    routes: &'a mut Routes,
    channels: Vec<ChannelId>,
}

impl EventTypeVisitor for Table<'_> {
    fn event_type<E: Event>(&mut self) {
        self.channels.push(self.routes.channel_of::<E>());
    }
}

/// The listeners that the manager owns.
#[derive(Default)]
pub(crate) struct Listeners(Vec<Box<dyn Any + Send>>);

impl Listeners {
    /// The listener with an index, whose type is `L`.
    #[inline]
    pub(crate) fn at<L: EventListener>(&mut self, index: usize) -> &mut L {
        self.0[index].downcast_mut().expect("a callback's index is that of its listener")
    }

    /// The first listener of type `L`.
    pub(crate) fn first<L: EventListener>(&self) -> Option<&L> {
        self.0.iter().find_map(|listener| listener.downcast_ref())
    }

    /// The first listener of type `L`.
    pub(crate) fn first_mut<L: EventListener>(&mut self) -> Option<&mut L> {
        self.0.iter_mut().find_map(|listener| listener.downcast_mut())
    }
}

/// The callbacks for the events of one type.
struct Channel<E> {
    callbacks: Vec<Callback<E>>,
    /// The event that is being delivered. It may stay afterwards, as memory for the next.
    event: Option<E>,
}

struct Callback<E> {
    owner: Owner,
    call: Call<E>,
}

/// What came of a run of events.
pub(crate) struct Run {
    /// Events that all callbacks were called with, and none failed.
    pub(crate) delivered: usize,
    /// What went wrong with the one behind them.
    pub(crate) result: Result<(), Box<Fault>>,
}

/// A channel whose event type only it knows.
trait AnyChannel: Any + Send {
    fn deliver_run(
        &mut self,
        type_id: u16,
        engine: &mut Engine,
        listeners: &mut Listeners,
        scratch: &mut Vec<u8>,
        requests: &mut Requests,
    ) -> Run;
    fn receive(&mut self, record: &Record<'_>, scratch: &mut Vec<u8>) -> Result<(), Box<Fault>>;
    fn call(
        &mut self,
        listeners: &mut Listeners,
        context: &mut Context<'_>,
    ) -> Result<(), Box<Fault>>;
}

impl<E> Default for Channel<E> {
    fn default() -> Channel<E> {
        Channel { callbacks: Vec::new(), event: None }
    }
}

impl<E: Event> AnyChannel for Channel<E> {
    fn deliver_run(
        &mut self,
        type_id: u16,
        engine: &mut Engine,
        listeners: &mut Listeners,
        scratch: &mut Vec<u8>,
        requests: &mut Requests,
    ) -> Run {
        let (mut delivered, mut called) = (0, 0);
        let outcome = Fault::catch(|| {
            while let Some(record) = engine.take_in_ring(type_id) {
                called = self.callbacks.len();
                if called > 0 {
                    E::Encoding::read(&record, &mut self.event, scratch).map_err(Fault::error)?;
                    self.call_all(listeners, &mut Context::new(engine, requests), &mut called)?;
                }
                delivered += 1;
                if requests.has_any() {
                    break;
                }
            }
            Ok(())
        });
        let result = match outcome {
            Ok(()) => Ok(()),
            fault => self.call_rest(called, fault, listeners, &mut Context::new(engine, requests)),
        };
        Run { delivered, result }
    }

    fn receive(&mut self, record: &Record<'_>, scratch: &mut Vec<u8>) -> Result<(), Box<Fault>> {
        if self.callbacks.is_empty() {
            return Ok(());
        }
        Fault::catch(|| E::Encoding::read(record, &mut self.event, scratch).map_err(Fault::error))
    }

    fn call(
        &mut self,
        listeners: &mut Listeners,
        context: &mut Context<'_>,
    ) -> Result<(), Box<Fault>> {
        self.call_rest(0, Ok(()), listeners, context)
    }
}

impl<E: Event> Channel<E> {
    /// Calls the callbacks with the event until one fails. `called` is the number of those that
    /// were called.
    #[inline]
    fn call_all(
        &mut self,
        listeners: &mut Listeners,
        context: &mut Context<'_>,
        called: &mut usize,
    ) -> Result<(), Box<Fault>> {
        if let Some(event) = &self.event {
            for (number, callback) in (1..).zip(&mut self.callbacks) {
                *called = number;
                callback.call(listeners, event, context)?;
            }
        }
        if std::mem::needs_drop::<E>() {
            self.event = None;
        }
        Ok(())
    }

    /// Calls the callbacks that were not called with the event. Goes on behind one that fails or
    /// panics, and reports the first that did.
    fn call_rest(
        &mut self,
        called: usize,
        mut result: Result<(), Box<Fault>>,
        listeners: &mut Listeners,
        context: &mut Context<'_>,
    ) -> Result<(), Box<Fault>> {
        let Some(event) = &self.event else { return result };
        let mut rest = self.callbacks.iter_mut().skip(called);
        while let Err(fault) =
            Fault::catch(|| rest.try_for_each(|callback| callback.call(listeners, event, context)))
        {
            result = Fault::first(result, fault);
        }
        if std::mem::needs_drop::<E>() {
            let event = self.event.take();
            if let Err(fault) = Fault::catch(|| {
                drop(event);
                Ok(())
            }) {
                result = Fault::first(result, fault);
            }
        }
        result
    }
}

impl<E: Event> Callback<E> {
    #[inline]
    fn call(
        &mut self,
        listeners: &mut Listeners,
        event: &E,
        context: &mut Context<'_>,
    ) -> Result<(), Box<Fault>> {
        (self.call)(listeners, event, context).map_err(|failure| self.failed(failure))
    }

    #[cold]
    fn failed(&self, failure: Failure) -> Box<Fault> {
        let reason = failure.sentence();
        let message = format!("callback {} for `{}` failed: {reason}", self.owner, E::NAME);
        Fault::error(Error::with_source(ErrorKind::Callback, message, failure))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Listener(name) => write!(f, "of listener `{name}`"),
            Owner::Closure(place) => write!(f, "at {place}"),
        }
    }
}

impl Fault {
    #[cold]
    fn error(error: Error) -> Box<Fault> {
        Box::new(Fault::Error(error))
    }

    /// Runs code of the user's. A panic may leave a listener half changed: it goes on to the caller
    /// of the manager, who can judge that, when all else is seen to.
    #[inline(always)]
    pub(crate) fn catch(
        users_code: impl FnOnce() -> Result<(), Box<Fault>>,
    ) -> Result<(), Box<Fault>> {
        catch_unwind(AssertUnwindSafe(users_code))
            .unwrap_or_else(|panic| Err(Box::new(Fault::Panic(panic))))
    }

    /// The fault to report out of what went wrong so far and now: the first, but a panic before an
    /// error.
    #[cold]
    pub(crate) fn first(so_far: Result<(), Box<Fault>>, now: Box<Fault>) -> Result<(), Box<Fault>> {
        match so_far {
            Err(first) if !matches!((&*first, &*now), (Fault::Error(_), Fault::Panic(_))) => {
                Err(first)
            }
            _ => Err(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Requests;
    use eventpy_engine::Engine;
    use serde::{Deserialize, Serialize};
    use std::sync::mpsc::{Receiver, Sender, channel};

    #[derive(crate::Event, Serialize, Deserialize)]
    struct Tick;

    /// Routes with a callback for each of these, which notes its number and then does that.
    fn routes_with(callbacks: &[fn() -> Result<(), Failure>]) -> (Routes, Receiver<usize>) {
        let mut routes = Routes::default();
        let (called, calls): (Sender<usize>, _) = channel();
        for (number, callback) in callbacks.iter().copied().enumerate() {
            let called = called.clone();
            let call = move |_: &mut Listeners, _: &Tick, _: &mut Context<'_>| {
                called.send(number).unwrap();
                callback()
            };
            routes.add_callback(Owner::Closure(Location::caller()), Box::new(call));
        }
        (routes, calls)
    }

    fn deliver(routes: &mut Routes) -> Result<(), Box<Fault>> {
        let (engine, mut requests) = (Engine::new(), Requests::default());
        let Ok(id) = routes.accept(Tick) else { panic!("it has callbacks") };
        routes.call(id, &mut Context::new(&engine, &mut requests))
    }

    #[test]
    fn all_callbacks_run_in_order_whatever_they_do() {
        let (mut routes, calls) = routes_with(&[
            || Ok(()),
            || Err(Failure::new("first")),
            || panic!("second"),
            || Err(Failure::new("third")),
            || panic!("fourth"),
            || Ok(()),
        ]);
        let fault = deliver(&mut routes).map_err(|fault| *fault);
        assert_eq!(calls.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        let Err(Fault::Panic(panic)) = fault else { panic!("a panic comes before an error") };
        assert_eq!(*panic.downcast::<&str>().unwrap(), "second");
    }

    #[test]
    fn the_first_error_is_the_one_that_counts() {
        let (mut routes, _calls) =
            routes_with(&[|| Err(Failure::new("first")), || Err(Failure::new("second"))]);
        let Err(Fault::Error(error)) = deliver(&mut routes).map_err(|fault| *fault) else {
            panic!("it is an error")
        };
        assert_eq!(error.kind(), ErrorKind::Callback);
        assert!(error.to_string().ends_with("for `Tick` failed: first"), "{error}");
    }

    #[test]
    fn an_event_that_nobody_wants_comes_back() {
        assert!(Routes::default().accept(Tick).is_err());
    }
}
