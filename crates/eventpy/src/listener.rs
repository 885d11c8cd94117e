//! What a user writes to get events: the `EventListener` trait, and where it lists its callbacks.

use std::marker::PhantomData;

use crate::context::Context;
use crate::event::Event;
use crate::failure::Outcome;
use crate::process::short_name;
use crate::route::{Owner, Routes};

/// A value whose methods are called with events.
///
/// Each method that is to get events is named in `subscribe`. The manager owns the listener and
/// lends it out: [`EventDispatchManager::listener_ref`](crate::EventDispatchManager::listener_ref).
///
/// ```
/// use eventpy::{Event, EventListener, Subscriptions};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct CpuLoad {
///     busy: f32,
/// }
///
/// #[derive(Default)]
/// struct Highest {
///     busy: f32,
/// }
///
/// impl EventListener for Highest {
///     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
///         subscriptions.on(Self::on_cpu_load);
///     }
/// }
///
/// impl Highest {
///     fn on_cpu_load(&mut self, load: &CpuLoad) {
///         self.busy = self.busy.max(load.busy);
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a listener",
    note = "implement `EventListener` for it, or subscribe a closure with `manager.on(..)`"
)]
pub trait EventListener: Sized + Send + 'static {
    /// Names the methods that are to be called.
    fn subscribe(subscriptions: &mut Subscriptions<Self>);
}

/// The callbacks of a listener of type `L`, in the order in which they are called.
///
/// ```
/// # use eventpy::{Event, EventListener, Subscriptions};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Created;
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Removed;
/// struct FileCount(usize);
///
/// impl EventListener for FileCount {
///     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
///         subscriptions
///             .on(|count, _: &Created| count.0 += 1)
///             .on(|count, _: &Removed| count.0 -= 1);
///     }
/// }
/// ```
pub struct Subscriptions<L> {
    /// Each adds one callback, given the listener's index.
    pub(crate) callbacks: Vec<AddCallback>,
    listener: PhantomData<fn(L)>,
}

type AddCallback = Box<dyn FnOnce(&mut Routes, usize) + Send>;

impl<L: EventListener> Subscriptions<L> {
    pub(crate) fn of_listener() -> Subscriptions<L> {
        let mut subscriptions = Subscriptions { callbacks: Vec::new(), listener: PhantomData };
        L::subscribe(&mut subscriptions);
        subscriptions
    }

    /// Calls `callback` with the listener and each event of type `E`. It returns nothing, or a
    /// `Result` whose error becomes that of `invoke_dispatch`.
    ///
    /// ```
    /// # use eventpy::{Event, EventListener, Subscriptions};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::io::Write;
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Line(String);
    /// struct Journal(std::fs::File);
    ///
    /// impl EventListener for Journal {
    ///     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
    ///         subscriptions.on(Self::append);
    ///     }
    /// }
    ///
    /// impl Journal {
    ///     fn append(&mut self, line: &Line) -> std::io::Result<()> {
    ///         writeln!(self.0, "{}", line.0)
    ///     }
    /// }
    /// ```
    pub fn on<E, R>(
        &mut self,
        mut callback: impl FnMut(&mut L, &E) -> R + Send + 'static,
    ) -> &mut Self
    where
        E: Event,
        R: Outcome,
    {
        self.on_with(move |listener, event, _| callback(listener, event))
    }

    /// The same for a callback that also gets the [`Context`], through which it can end the
    /// dispatchers, subscribe and see statistics.
    ///
    /// ```
    /// # use eventpy::{Context, Event, EventListener, Subscriptions};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct KeyPressed(char);
    /// struct Keyboard;
    ///
    /// impl EventListener for Keyboard {
    ///     fn subscribe(subscriptions: &mut Subscriptions<Self>) {
    ///         subscriptions.on_with(Self::on_key);
    ///     }
    /// }
    ///
    /// impl Keyboard {
    ///     fn on_key(&mut self, key: &KeyPressed, context: &mut Context) {
    ///         if key.0 == 'q' {
    ///             context.end_dispatchers();
    ///         }
    ///     }
    /// }
    /// ```
    pub fn on_with<E, R>(
        &mut self,
        mut callback: impl FnMut(&mut L, &E, &mut Context<'_>) -> R + Send + 'static,
    ) -> &mut Self
    where
        E: Event,
        R: Outcome,
    {
        self.callbacks.push(Box::new(move |routes, index| {
            routes.add_callback::<E>(
                Owner::Listener(short_name::<L>()),
                Box::new(move |listeners, event, context| {
                    callback(listeners.at(index), event, context).into_result()
                }),
            );
        }));
        self
    }
}
