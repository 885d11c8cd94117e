//! The manager: holds the dispatchers and the listeners, and brings the events of the ones to the
//! callbacks of the others.

use std::io::Write;
use std::mem::replace;
use std::os::fd::BorrowedFd;
use std::panic::{Location, resume_unwind};
use std::time::Duration;

use eventpy_engine::{
    DispatcherFailed, DispatcherOptions, DispatcherSpec, EndReport, Engine, Error, ErrorKind,
    Launch, Pump, Selection, Stats, Yield,
};

use crate::context::{Context, Requests};
use crate::dispatcher::{EventDispatcher, EventTypes};
use crate::event::Event;
use crate::failure::Outcome;
use crate::listener::EventListener;
use crate::process::{self, short_name};
use crate::route::{Fault, Owner, Routes, Run};

/// Starts dispatchers, each in a process of its own, and delivers their events to callbacks.
///
/// Callbacks run in the thread that calls [`invoke_dispatch`](Self::invoke_dispatch), and in no
/// other. The manager can be moved to another thread. Dropping it ends its dispatchers.
///
/// ```
/// use eventpy::{Emitter, Event, EventDispatchManager, EventDispatcher};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Count(u32);
///
/// #[derive(Serialize, Deserialize)]
/// struct Counter {
///     up_to: u32,
/// }
///
/// #[eventpy::dispatcher]
/// impl EventDispatcher for Counter {
///     type Events = (Count,);
///     type State = ();
///
///     fn init(&mut self) -> eventpy::Result<()> {
///         Ok(())
///     }
///
///     fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
///         emitter.emit_all((1..=self.up_to).map(Count))?;
///         emitter.end();
///         Ok(())
///     }
/// }
///
/// #[eventpy::main]
/// fn main() -> eventpy::Result<()> {
///     let mut manager = EventDispatchManager::new().dispatcher(Counter { up_to: 3 });
///     manager.on(|count: &Count| println!("{}", count.0));
///
///     manager.deploy_dispatchers()?;
///     manager.invoke_dispatch_timeout(Duration::from_secs(10))?;
///     println!("{}", manager.end_dispatchers()?);
///     Ok(())
/// }
/// ```
pub struct EventDispatchManager {
    engine: Engine,
    routes: Routes,
    launch: Launch,
    /// The type names of the dispatchers.
    names: Vec<String>,
    /// What failed in the builder, which can't return it.
    builder_error: Option<Error>,
    requests: Requests,
    /// No callback can pump: if this is set when a pump begins, a panic has left the one before.
    /// Only the `Drop` of an error that is not reported can do so.
    is_pumping: bool,
    /// Failures that no callback took. The pump returns them as its error when it is through.
    unheard: Vec<DispatcherFailed>,
}

impl EventDispatchManager {
    /// A manager without dispatchers.
    ///
    /// ```
    /// let manager = eventpy::EventDispatchManager::new();
    /// assert!(!manager.is_deployed());
    /// ```
    pub fn new() -> EventDispatchManager {
        EventDispatchManager {
            engine: Engine::new(),
            routes: Routes::default(),
            launch: process::launch(),
            names: Vec::new(),
            builder_error: None,
            requests: Requests::default(),
            is_pumping: false,
            unheard: Vec::new(),
        }
    }

    /// Adds a dispatcher. It starts with [`deploy_dispatchers`](Self::deploy_dispatchers), which
    /// returns the error if it could not be added.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// # fn main() {
    /// let manager = EventDispatchManager::new().dispatcher(Idle);
    /// assert_eq!(manager.stats().dispatchers[0].dispatcher, "Idle");
    /// # }
    /// ```
    #[must_use]
    pub fn dispatcher<D: EventDispatcher>(self, dispatcher: D) -> Self {
        self.dispatcher_with(dispatcher, DispatcherOptions::default())
    }

    /// The same with options.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// # fn main() {
    /// use eventpy::{DispatcherOptions, Restart};
    ///
    /// let options = DispatcherOptions::default().restart(Restart::on_failure());
    /// let manager = EventDispatchManager::new().dispatcher_with(Idle, options);
    /// # }
    /// ```
    #[must_use]
    pub fn dispatcher_with<D: EventDispatcher>(
        mut self,
        dispatcher: D,
        options: DispatcherOptions,
    ) -> Self {
        if let Err(error) = self.register_dispatcher_with(dispatcher, options) {
            self.builder_error.get_or_insert(error);
        }
        self
    }

    /// Adds a listener, whose callbacks come behind those that are there already.
    ///
    /// ```
    /// use eventpy::{DispatcherFailed, EventDispatchManager, EventListener, Subscriptions};
    ///
    /// struct Alarm;
    ///
    /// impl EventListener for Alarm {
    ///     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
    ///         subscriptions.on(|_, failed: &DispatcherFailed| eprintln!("{failed}"));
    ///     }
    /// }
    /// let manager = EventDispatchManager::new().listener(Alarm);
    /// ```
    #[must_use]
    pub fn listener<L: EventListener>(mut self, listener: L) -> Self {
        self.register_listener(listener);
        self
    }

    /// Adds a dispatcher. It starts with the next [`deploy_dispatchers`](Self::deploy_dispatchers).
    ///
    /// ```
    #[doc = doc_idle!()]
    /// # fn main() -> eventpy::Result<()> {
    /// let mut manager = EventDispatchManager::new();
    /// manager.register_dispatcher(Idle)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Load`](ErrorKind::Load) when its settings can't be encoded.
    pub fn register_dispatcher<D: EventDispatcher>(&mut self, dispatcher: D) -> Result<(), Error> {
        self.register_dispatcher_with(dispatcher, DispatcherOptions::default())
    }

    /// The same with options.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// # fn main() {
    /// use eventpy::{DispatcherOptions, ErrorKind};
    ///
    /// let mut manager = EventDispatchManager::new();
    /// let options = DispatcherOptions::default().buffer_bytes(1000);
    /// let error = manager.register_dispatcher_with(Idle, options).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Options);
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Load`](ErrorKind::Load) when its settings can't be encoded, [`Options`](ErrorKind::Options)
    /// when the options can't be met.
    pub fn register_dispatcher_with<D: EventDispatcher>(
        &mut self,
        dispatcher: D,
        options: DispatcherOptions,
    ) -> Result<(), Error> {
        let name = short_name::<D>();
        let namesakes = self.names.iter().filter(|other| **other == name).count();
        let spec = DispatcherSpec {
            name: if namesakes == 0 { name.clone() } else { format!("{name}#{}", namesakes + 1) },
            event_types: D::Events::NAMES.iter().copied().map(String::from).collect(),
            internal_types: 0,
            payload: process::ship(&dispatcher)?,
            launch: self.launch.clone(),
            options,
        };
        let id = self.engine.add(spec)?;
        debug_assert_eq!(id.index(), self.names.len());
        self.names.push(name);
        self.routes.add_dispatcher::<D::Events>();
        Ok(())
    }

    /// Adds a listener, whose callbacks come behind those that are there already.
    ///
    /// ```
    /// # use eventpy::{DispatcherFailed, EventDispatchManager, EventListener, Subscriptions};
    /// # struct Alarm;
    /// # impl EventListener for Alarm {
    /// #     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
    /// #         subscriptions.on(|_, failed: &DispatcherFailed| eprintln!("{failed}"));
    /// #     }
    /// # }
    /// let mut manager = EventDispatchManager::new();
    /// manager.register_listener(Alarm);
    /// ```
    pub fn register_listener<L: EventListener>(&mut self, listener: L) {
        self.routes.add_listener(listener);
    }

    /// Subscribes a closure to the events of a type. It returns nothing, or a `Result` whose error
    /// becomes that of `invoke_dispatch`.
    ///
    /// ```
    /// # use eventpy::{Event, EventDispatchManager};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct CpuLoad { core: usize, busy: f32 }
    /// let mut manager = EventDispatchManager::new();
    /// manager.on(|load: &CpuLoad| println!("core {}: {:.0} %", load.core, load.busy * 100.0));
    /// ```
    #[track_caller]
    pub fn on<E: Event, R: Outcome>(
        &mut self,
        mut callback: impl FnMut(&E) -> R + Send + 'static,
    ) -> &mut Self {
        self.on_with(move |event, _| callback(event))
    }

    /// The same for a closure that also gets the [`Context`], through which it can end the
    /// dispatchers, subscribe and see statistics.
    ///
    /// ```
    /// # use eventpy::{Context, DispatcherEnded, EventDispatchManager};
    /// let mut manager = EventDispatchManager::new();
    /// manager.on_with(|_: &DispatcherEnded, context: &mut Context| context.end_dispatchers());
    /// ```
    #[track_caller]
    pub fn on_with<E: Event, R: Outcome>(
        &mut self,
        mut callback: impl FnMut(&E, &mut Context<'_>) -> R + Send + 'static,
    ) -> &mut Self {
        let owner = Owner::Closure(Location::caller());
        self.routes.add_callback::<E>(
            owner,
            Box::new(move |_, event, context| callback(event, context).into_result()),
        );
        self
    }

    /// The first listener of a type.
    ///
    /// ```
    /// # use eventpy::{EventDispatchManager, EventListener, Subscriptions};
    /// #[derive(Default)]
    /// struct Total(u64);
    /// # impl EventListener for Total {
    /// #     fn subscribe(_: &mut Subscriptions<Self>) {}
    /// # }
    /// let manager = EventDispatchManager::new().listener(Total::default());
    /// assert_eq!(manager.listener_ref::<Total>().unwrap().0, 0);
    /// ```
    pub fn listener_ref<L: EventListener>(&self) -> Option<&L> {
        self.routes.listeners().first()
    }

    /// The first listener of a type, to change it.
    ///
    /// ```
    /// # use eventpy::{EventDispatchManager, EventListener, Subscriptions};
    /// # #[derive(Default)]
    /// # struct Total(u64);
    /// # impl EventListener for Total {
    /// #     fn subscribe(_: &mut Subscriptions<Self>) {}
    /// # }
    /// let mut manager = EventDispatchManager::new().listener(Total(17));
    /// manager.listener_mut::<Total>().unwrap().0 = 0;
    /// ```
    pub fn listener_mut<L: EventListener>(&mut self) -> Option<&mut L> {
        self.routes.listeners_mut().first_mut()
    }

    /// Starts the dispatchers, side by side, and returns when each has been loaded in its process.
    /// Their `init` may still be under way.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     assert!(manager.is_deployed());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// What kept a dispatcher from being added or started: [`Options`](ErrorKind::Options),
    /// [`Load`](ErrorKind::Load), [`Start`](ErrorKind::Start), [`System`](ErrorKind::System). None
    /// runs then. [`State`](ErrorKind::State) when all are deployed already.
    pub fn deploy_dispatchers(&mut self) -> Result<(), Error> {
        match &self.builder_error {
            Some(error) => Err(Error::new(error.kind(), error.to_string())),
            None => self.engine.deploy(&Selection::All),
        }
    }

    /// Whether the dispatchers are deployed and not ended. One that ended by itself is still
    /// deployed.
    ///
    /// ```
    /// let manager = eventpy::EventDispatchManager::new();
    /// assert!(!manager.is_deployed());
    /// ```
    pub fn is_deployed(&self) -> bool {
        self.engine.is_deployed()
    }

    /// Whether any dispatcher still runs, or has something left to be delivered: what a loop asks
    /// that goes on until all dispatchers have ended by themselves.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn pump_to_the_end(mut manager: eventpy::EventDispatchManager) -> eventpy::Result<()> {
    /// while manager.is_running() {
    ///     manager.invoke_dispatch_timeout(Duration::from_secs(1))?;
    /// }
    /// # Ok(())
    /// # }
    /// # assert!(!eventpy::EventDispatchManager::new().is_running());
    /// ```
    pub fn is_running(&self) -> bool {
        self.engine.is_running()
    }

    /// Delivers the events that are there now, without waiting, and returns how many. Events
    /// without a callback count too; [`DispatcherFailed`] and its kind count if a callback gets
    /// them.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     for _frame in 0..3 {
    ///         manager.invoke_dispatch()?;
    ///         // .. draw ..
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Callback`](ErrorKind::Callback) when a callback failed: the others for that event have
    /// run, and the events behind it wait for the next call. [`Event`](ErrorKind::Event) when an
    /// event can't be decoded. [`Dispatcher`](ErrorKind::Dispatcher) when a dispatcher failed for good
    /// and no callback takes [`DispatcherFailed`]: the pump went to its end. [`State`](ErrorKind::State)
    /// when nothing is deployed.
    ///
    /// # Panics
    /// When a callback does, or the `Deserialize` or `Drop` of an event; the callbacks for that event
    /// have run, if there was one. The events behind it wait for the next call.
    pub fn invoke_dispatch(&mut self) -> Result<usize, Error> {
        self.pump(Pump::Now)
    }

    /// The same, but waits for the first event if there is none, at most for `timeout`.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     let delivered = manager.invoke_dispatch_timeout(std::time::Duration::from_millis(1))?;
    ///     assert_eq!(delivered, 0);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`invoke_dispatch`](Self::invoke_dispatch).
    ///
    /// # Panics
    /// As for [`invoke_dispatch`](Self::invoke_dispatch).
    pub fn invoke_dispatch_timeout(&mut self, timeout: Duration) -> Result<usize, Error> {
        self.pump(Pump::Wait(timeout))
    }

    /// Tells all dispatchers to end, waits until their `finish` has run, and delivers all that they
    /// have sent until then.
    ///
    /// A dispatcher that takes longer than its `end_timeout` gets SIGTERM, and after the same time
    /// once more SIGKILL.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     let report = manager.end_dispatchers()?;
    ///     assert!(report.is_clean());
    ///     println!("{report}");
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The first error of a callback. All are ended nevertheless, and
    /// [`end_report`](Self::end_report) has the report. A dispatcher's failure is no error here: it
    /// stands in the report.
    /// [`State`](ErrorKind::State) when nothing is deployed.
    ///
    /// # Panics
    /// When a callback does, or the `Deserialize` or `Drop` of an event, after all are ended.
    pub fn end_dispatchers(&mut self) -> Result<EndReport, Error> {
        self.end_and_report(None)
    }

    /// The same with one `end_timeout` for all dispatchers.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     manager.end_dispatchers_timeout(std::time::Duration::from_secs(1))?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`end_dispatchers`](Self::end_dispatchers).
    ///
    /// # Panics
    /// As for [`end_dispatchers`](Self::end_dispatchers).
    pub fn end_dispatchers_timeout(&mut self, timeout: Duration) -> Result<EndReport, Error> {
        self.end_and_report(Some(timeout))
    }

    /// The report of the last end, also when `end_dispatchers` returned an error or a callback had
    /// the dispatchers ended.
    ///
    /// ```
    /// let manager = eventpy::EventDispatchManager::new();
    /// assert!(manager.end_report().dispatchers.is_empty());
    /// ```
    pub fn end_report(&self) -> EndReport {
        self.engine.end_report()
    }

    /// What the dispatchers are doing and have done so far.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// # fn main() {
    /// let manager = EventDispatchManager::new().dispatcher(Idle);
    /// for dispatcher in manager.stats().dispatchers {
    ///     println!("{}: {} events", dispatcher.dispatcher, dispatcher.counts.delivered);
    /// }
    /// # }
    /// ```
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// A descriptor that is readable when there is something to pump, for `select`, `epoll` and
    /// event loops.
    ///
    /// ```
    #[doc = doc_idle!()]
    /// use std::os::fd::AsRawFd;
    ///
    /// #[eventpy::main]
    /// fn main() -> eventpy::Result<()> {
    ///     let mut manager = EventDispatchManager::new().dispatcher(Idle);
    ///     manager.deploy_dispatchers()?;
    ///     assert!(manager.fileno()?.as_raw_fd() >= 0);
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`State`](ErrorKind::State) when nothing is deployed.
    pub fn fileno(&mut self) -> Result<BorrowedFd<'_>, Error> {
        self.engine.descriptor()
    }

    fn pump(&mut self, pump: Pump) -> Result<usize, Error> {
        if self.is_pumping {
            self.engine.stop_pump();
        }
        self.engine.begin_pump(&Selection::All, pump)?;
        self.is_pumping = true;
        let mut delivered = 0;
        let mut result = Ok(());
        loop {
            let Some(run) = self.deliver_some() else { break };
            delivered += run.delivered;
            result = run.result;
            if result.is_err() || self.requests.end {
                self.engine.stop_pump();
                break;
            }
        }
        self.is_pumping = false;
        let ended = match self.requests.end {
            true => self.end(None, &mut result),
            false => Ok(0),
        };
        self.conclude(result)?;
        Ok(delivered + ended?)
    }

    fn end_and_report(&mut self, timeout: Option<Duration>) -> Result<EndReport, Error> {
        let mut result = Ok(());
        let ended = self.end(timeout, &mut result);
        self.conclude(result)?;
        ended?;
        Ok(self.engine.end_report())
    }

    /// Ends all dispatchers, whatever the callbacks do, and returns the number of events delivered.
    fn end(
        &mut self,
        timeout: Option<Duration>,
        result: &mut Result<(), Box<Fault>>,
    ) -> Result<usize, Error> {
        self.requests.end = false;
        self.engine.begin_end(&Selection::All, timeout)?;
        let mut delivered = 0;
        while self.engine.is_deployed() {
            self.engine.begin_pump(&Selection::All, Pump::End)?;
            while let Some(run) = self.deliver_some() {
                delivered += run.delivered;
                if let Err(fault) = run.result {
                    *result = Fault::first(replace(result, Ok(())), fault);
                }
            }
        }
        self.requests.end = false;
        // The report tells of them.
        self.unheard.clear();
        Ok(delivered)
    }

    /// Delivers what comes next in the pump; `None` when it is over.
    #[inline]
    fn deliver_some(&mut self) -> Option<Run> {
        let run = self.engine.next_in_ring().and_then(|(dispatcher, type_id)| {
            let EventDispatchManager { engine, routes, requests, .. } = self;
            routes.deliver_run(dispatcher, type_id, engine, requests)
        });
        let mut run = match run {
            Some(run) => run,
            None => self.deliver_one()?,
        };
        if !self.requests.changes.is_empty() {
            run.result = self.requests.apply(&mut self.routes, run.result);
        }
        Some(run)
    }

    /// Delivers what is no event in a ring, or a special one.
    fn deliver_one(&mut self) -> Option<Run> {
        let received = match self.engine.next_delivery()? {
            Yield::Record(record) => self.routes.receive(&record).map(Some),
            Yield::Failed(failed) => {
                Ok(self.routes.accept(failed).map_err(|failed| self.note_unheard(failed)).ok())
            }
            Yield::Restarted(restarted) => Ok(self.routes.accept(restarted).ok()),
            Yield::Ended(ended) => Ok(self.routes.accept(ended).ok()),
        };
        let result = match received {
            Ok(Some(channel)) => {
                self.routes.call(channel, &mut Context::new(&self.engine, &mut self.requests))
            }
            // A lifecycle event that nobody listens to.
            Ok(None) => return Some(Run { delivered: 0, result: Ok(()) }),
            Err(fault) => Err(fault),
        };
        Some(Run { delivered: usize::from(result.is_ok()), result })
    }

    /// A failure that a restart follows is what the user has made provision for.
    fn note_unheard(&mut self, failed: DispatcherFailed) {
        if !failed.will_restart {
            self.unheard.push(failed);
        }
    }

    /// What a pump has come to: its fault, or else the failures that nobody listened to.
    fn conclude(&mut self, result: Result<(), Box<Fault>>) -> Result<(), Error> {
        match result.map_err(|fault| *fault) {
            Err(Fault::Panic(panic)) => resume_unwind(panic),
            Err(Fault::Error(error)) => Err(error),
            Ok(()) if self.unheard.is_empty() => Ok(()),
            Ok(()) => Err(Error::of_failed(std::mem::take(&mut self.unheard))),
        }
    }
}

impl Default for EventDispatchManager {
    fn default() -> EventDispatchManager {
        EventDispatchManager::new()
    }
}

impl Drop for EventDispatchManager {
    /// Ends the dispatchers, as `end_dispatchers` does. While the thread panics no callback is
    /// called: then the engine ends them by itself.
    fn drop(&mut self) {
        if !self.engine.is_deployed() || std::thread::panicking() {
            return;
        }
        let mut result = Ok(());
        let ended = self.end(None, &mut result);
        let concluded = match result {
            // A panic has printed its message already, and a `drop` must not panic.
            Err(fault) if matches!(*fault, Fault::Panic(_)) => Ok(()),
            result => ended.and_then(|_| self.conclude(result)),
        };
        match concluded {
            // A forked copy of the manager has nothing to end.
            Err(error) if error.kind() != ErrorKind::State => {
                // Nobody is left to take the error, also not if there is no standard error.
                let _ = writeln!(std::io::stderr(), "eventpy: a dropped manager: {error}");
            }
            _ => {}
        }
    }
}
