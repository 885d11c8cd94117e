//! What a user writes to make events: the `EventDispatcher` trait, and what stands behind it.

use eventpy_engine::child;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::emitter::{Emitter, Hints};
use crate::event::Event;
use crate::failure::Result;

/// A source of events that runs in a process of its own.
///
/// The value that is handed to the manager is written out with serde and read in again in the
/// dispatcher's process: it holds the settings. What the dispatcher works with, open files and the
/// like, is its [`State`](EventDispatcher::State), which is made over there by `init`.
///
/// There `init` is called once, then `update` again and again, then `finish` exactly once, whether
/// the manager ended the dispatcher, `update` failed or panicked, or the manager's process died. If
/// `init` failed, there is nothing to finish.
///
/// ```
/// use eventpy::{Emitter, Event, EventDispatcher};
/// use serde::{Deserialize, Serialize};
/// use std::time::{Duration, Instant};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Tick {
///     late: Duration,
/// }
///
/// /// Ticks at an even pace.
/// #[derive(Serialize, Deserialize)]
/// struct Clock {
///     period: Duration,
/// }
///
/// #[eventpy::dispatcher]
/// impl EventDispatcher for Clock {
///     type Events = (Tick,);
///     type State = Instant;
///
///     fn init(&mut self) -> eventpy::Result<Instant> {
///         Ok(Instant::now() + self.period)
///     }
///
///     fn update(
///         &mut self,
///         due: &mut Instant,
///         emitter: &mut Emitter<Self::Events>,
///     ) -> eventpy::Result<()> {
///         if emitter.wait(due.saturating_duration_since(Instant::now())) {
///             emitter.emit(Tick { late: due.elapsed() })?;
///             *due += self.period;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait EventDispatcher: Registered + Serialize + DeserializeOwned + 'static {
    /// The types of its events, as a tuple of 1 to 16: `(CpuLoad,)`, `(Created, Removed)`.
    /// Emitting any other type does not compile.
    type Events: EventTypes;

    /// What it works with in its process; `()` if that is nothing.
    type State: 'static;

    /// Called once, at the start.
    ///
    /// # Errors
    /// Any. The dispatcher has failed then, and `finish` is not called.
    fn init(&mut self) -> Result<Self::State>;

    /// Called again and again. It should not run for long: an end command waits for it to return,
    /// unless it is in [`Emitter::wait`] or an `emit` for which the ring has no room.
    ///
    /// # Errors
    /// Any. The dispatcher has failed then, and `finish` is called.
    fn update(
        &mut self,
        state: &mut Self::State,
        emitter: &mut Emitter<'_, Self::Events>,
    ) -> Result<()>;

    /// Called once, at the end, if `init` was through. Its events are delivered as well. The state
    /// is dropped if it is not written. The process ends after it, and with the process threads that
    /// still run: join here those that have something to complete.
    ///
    /// # Errors
    /// Any. The dispatcher has failed then.
    fn finish(
        &mut self,
        state: Self::State,
        emitter: &mut Emitter<'_, Self::Events>,
    ) -> Result<()> {
        let _ = (state, emitter);
        Ok(())
    }
}

/// A dispatcher that its own process can find by name.
///
/// The attribute [`dispatcher`](macro@crate::dispatcher) implements it, and nothing else does.
///
/// ```
#[doc = doc_idle!()]
/// fn is_registered<T: eventpy::Registered>() {}
/// is_registered::<Idle>();
/// ```
#[diagnostic::on_unimplemented(
    message = "the dispatcher `{Self}` is not known to its process",
    label = "the attribute `#[eventpy::dispatcher]` is missing",
    note = "add `#[eventpy::dispatcher]` above `impl EventDispatcher for {Self}`"
)]
pub trait Registered {}

/// A tuple of event types: what a dispatcher may emit.
///
/// A type's id in the ring is its place in the tuple, counted from 1.
///
/// ```
/// # use eventpy::{Event, EventTypes};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Created;
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Removed;
/// assert_eq!(<(Created, Removed)>::NAMES, ["Created", "Removed"]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of event types",
    note = "write a tuple of 1 to 16 types, with a comma also behind a single one: `(CpuLoad,)`"
)]
pub trait EventTypes: 'static {
    /// The names of the types, in order.
    const NAMES: &'static [&'static str];

    /// Calls `visitor` for each type, in order.
    #[doc(hidden)]
    fn visit(visitor: &mut impl EventTypeVisitor);
}

#[doc(hidden)]
pub trait EventTypeVisitor {
    fn event_type<E: Event>(&mut self);
}

/// That a tuple of event types contains `E`, and where.
///
/// `Place` is found by the compiler. It can't be found if the type stands in the tuple twice.
///
/// ```
/// # use eventpy::{Contains, Event};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Created;
/// # #[derive(Event, Serialize, Deserialize)]
/// # struct Removed;
/// fn type_id<Events: Contains<E, Place>, E, Place>() -> u16 {
///     Events::TYPE_ID
/// }
/// assert_eq!(type_id::<(Created, Removed), Removed, _>(), 2);
/// ```
#[diagnostic::on_unimplemented(
    message = "this dispatcher does not emit `{E}`: its events are `{Self}`",
    label = "`{E}` is not among its events",
    note = "add it to `type Events` of the dispatcher"
)]
pub trait Contains<E, Place> {
    /// The id of `E` in the ring of a dispatcher with these events.
    const TYPE_ID: u16;
}

/// A place in a tuple, from 0.
#[doc(hidden)]
pub struct At<const PLACE: usize>;

/// The longest tuple of event types.
pub(crate) const MAX_EVENT_TYPES: usize = 16;

/// Implements `EventTypes` and `Contains` for each prefix of a list of type parameters.
macro_rules! event_types {
    (@tuple $($event:ident $place:literal)*) => {
        impl<$($event: Event),*> EventTypes for ($($event,)*) {
            const NAMES: &'static [&'static str] = &[$($event::NAME),*];

            fn visit(visitor: &mut impl EventTypeVisitor) {
                $(visitor.event_type::<$event>();)*
            }
        }
        event_types!(@contains [$($event)*] $($event $place)*);
    };
    (@contains $all:tt $($event:ident $place:literal)*) => {
        $(event_types!(@at $event $place $all);)*
    };
    (@at $event:ident $place:literal [$($all:ident)*]) => {
        #[diagnostic::do_not_recommend]
        impl<$($all: Event),*> Contains<$event, At<$place>> for ($($all,)*) {
            const TYPE_ID: u16 = $place + 1;
        }
    };
    ([$($done:tt)*]) => {};
    ([$($done:tt)*] $event:ident $place:literal $($rest:tt)*) => {
        event_types!(@tuple $($done)* $event $place);
        event_types!([$($done)* $event $place] $($rest)*);
    };
}

event_types!([] A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7 I 8 J 9 K 10 L 11 M 12 N 13 O 14 P 15);

/// A dispatcher as the loop in its process sees it.
pub(crate) struct Running<D: EventDispatcher> {
    dispatcher: D,
    /// From `init` to `finish`.
    state: Option<D::State>,
    hints: Hints,
}

impl<D: EventDispatcher> Running<D> {
    pub(crate) fn new(dispatcher: D) -> Running<D> {
        Running { dispatcher, state: None, hints: Hints::default() }
    }
}

impl<D: EventDispatcher> child::Source for Running<D> {
    fn init(&mut self, _: &mut child::Emitter) -> Result<(), child::Failure> {
        self.state = Some(self.dispatcher.init().map_err(told)?);
        Ok(())
    }

    fn update(&mut self, emitter: &mut child::Emitter) -> Result<(), child::Failure> {
        let state = self.state.as_mut().expect("`init` comes before `update`");
        let mut emitter = Emitter::new(emitter, &mut self.hints);
        self.dispatcher.update(state, &mut emitter).map_err(told)
    }

    fn finish(&mut self, emitter: &mut child::Emitter) -> Result<(), child::Failure> {
        let state = self.state.take().expect("`init` comes before `finish`, which comes once");
        self.dispatcher.finish(state, &mut Emitter::new(emitter, &mut self.hints)).map_err(told)
    }
}

fn told(failure: crate::Failure) -> child::Failure {
    child::Failure {
        reason: failure.sentence(),
        traceback: String::new(),
        is_ending: failure.is_ending(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::type_name;

    #[derive(crate::Event, Serialize, serde::Deserialize)]
    struct First;
    #[derive(crate::Event, Serialize, serde::Deserialize)]
    struct Second;

    fn type_id<Events: Contains<E, Place>, E, Place>() -> u16 {
        Events::TYPE_ID
    }

    #[test]
    fn a_type_id_is_the_place_in_the_tuple() {
        assert_eq!(type_id::<(First,), First, _>(), 1);
        assert_eq!(type_id::<(First, Second), First, _>(), 1);
        assert_eq!(type_id::<(First, Second), Second, _>(), 2);
    }

    #[test]
    fn the_types_are_visited_in_order() {
        struct Names(Vec<&'static str>);
        impl EventTypeVisitor for Names {
            fn event_type<E: Event>(&mut self) {
                self.0.push(type_name::<E>());
            }
        }
        let mut names = Names(Vec::new());
        <(Second, First)>::visit(&mut names);
        assert_eq!(names.0, [type_name::<Second>(), type_name::<First>()]);
    }

    #[test]
    fn the_longest_tuple_is_accepted() {
        type F = First;
        type Longest = (F, F, F, F, F, F, F, F, F, F, F, F, F, F, F, Second);
        assert_eq!(Longest::NAMES.len(), MAX_EVENT_TYPES);
        assert_eq!(type_id::<Longest, Second, _>() as usize, MAX_EVENT_TYPES);
    }
}
