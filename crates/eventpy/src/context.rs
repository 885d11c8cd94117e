//! What a callback may do with the manager that called it.

use std::panic::Location;

use eventpy_engine::{Engine, Stats};

use crate::event::Event;
use crate::failure::Outcome;
use crate::listener::EventListener;
use crate::route::{Call, Fault, Owner, Routes};

/// The manager, as a callback sees it.
///
/// A callback gets one if it is subscribed with
/// [`EventDispatchManager::on_with`](crate::EventDispatchManager::on_with) or
/// [`Subscriptions::on_with`](crate::Subscriptions::on_with). What it asks for is done when all
/// callbacks for the event have run. It can't pump: an event is delivered to the end before the
/// next one.
///
/// ```
/// use eventpy::{Context, EventDispatchManager, DispatcherFailed};
///
/// let mut manager = EventDispatchManager::new();
/// manager.on_with(|failed: &DispatcherFailed, context: &mut Context| {
///     eprintln!("{failed}");
///     context.end_dispatchers();
/// });
/// ```
pub struct Context<'a> {
    engine: &'a Engine,
    requests: &'a mut Requests,
}

/// What callbacks have asked for.
#[derive(Default)]
pub(crate) struct Requests {
    /// To end the dispatchers.
    pub(crate) end: bool,
    /// To subscribe.
    pub(crate) changes: Vec<Change>,
}

type Change = Box<dyn FnOnce(&mut Routes) + Send>;

impl<'a> Context<'a> {
    #[inline]
    pub(crate) fn new(engine: &'a Engine, requests: &'a mut Requests) -> Context<'a> {
        Context { engine, requests }
    }

    /// Ends the dispatchers before `invoke_dispatch` returns, which delivers all that they send
    /// until then, as [`end_dispatchers`](crate::EventDispatchManager::end_dispatchers) does.
    ///
    /// ```
    /// # use eventpy::{Context, Event, EventDispatchManager};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Progress { percent: u8 }
    /// # let mut manager = EventDispatchManager::new();
    /// manager.on_with(|progress: &Progress, context: &mut Context| {
    ///     if progress.percent == 100 {
    ///         context.end_dispatchers();
    ///     }
    /// });
    /// ```
    pub fn end_dispatchers(&mut self) {
        self.requests.end = true;
    }

    /// What the dispatchers are doing.
    ///
    /// ```
    /// # use eventpy::{Context, DispatcherEnded, EventDispatchManager};
    /// # let mut manager = EventDispatchManager::new();
    /// manager.on_with(|_: &DispatcherEnded, context: &mut Context| {
    ///     let running = context.stats().dispatchers.iter().filter(|d| d.pid.is_some()).count();
    ///     println!("{running} dispatchers are left");
    /// });
    /// ```
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Subscribes a closure, from the next event on.
    ///
    /// ```
    /// # use eventpy::{Context, Event, EventDispatchManager};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Header { columns: usize }
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Row(Vec<f64>);
    /// # let mut manager = EventDispatchManager::new();
    /// manager.on_with(|header: &Header, context: &mut Context| {
    ///     let columns = header.columns;
    ///     context.on(move |row: &Row| assert_eq!(row.0.len(), columns));
    /// });
    /// ```
    #[track_caller]
    pub fn on<E: Event, R: Outcome>(
        &mut self,
        mut callback: impl FnMut(&E) -> R + Send + 'static,
    ) -> &mut Self {
        let owner = Owner::Closure(Location::caller());
        let call: Call<E> = Box::new(move |_, event, _| callback(event).into_result());
        self.requests.changes.push(Box::new(|routes| routes.add_callback(owner, call)));
        self
    }

    /// Registers a listener, from the next event on.
    ///
    /// ```
    /// # use eventpy::{Context, Event, EventDispatchManager, EventListener, Subscriptions};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Opened { name: String }
    /// # struct View { name: String }
    /// # impl EventListener for View {
    /// #     fn subscribe(_: &mut Subscriptions<Self>) {}
    /// # }
    /// # let mut manager = EventDispatchManager::new();
    /// manager.on_with(|opened: &Opened, context: &mut Context| {
    ///     context.register_listener(View { name: opened.name.clone() });
    /// });
    /// ```
    pub fn register_listener<L: EventListener>(&mut self, listener: L) {
        self.requests.changes.push(Box::new(|routes| routes.add_listener(listener)));
    }
}

impl Requests {
    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.end || !self.changes.is_empty()
    }

    /// Carries out what changes the routes. A listener's `subscribe` may panic.
    #[cold]
    pub(crate) fn apply(
        &mut self,
        routes: &mut Routes,
        result: Result<(), Box<Fault>>,
    ) -> Result<(), Box<Fault>> {
        let changed = self.changes.drain(..).map(|change| {
            Fault::catch(|| {
                change(routes);
                Ok(())
            })
        });
        changed.filter_map(Result::err).fold(result, Fault::first)
    }
}
