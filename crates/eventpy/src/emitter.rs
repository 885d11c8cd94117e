//! Where a dispatcher's events leave its code.

use std::marker::PhantomData;
use std::time::Duration;

use eventpy_engine::{Error, child};

use crate::dispatcher::{Contains, MAX_EVENT_TYPES};
use crate::encoding::Encoding;
use crate::event::Event;

/// Sends the events of a dispatcher, whose types are the tuple `Events`.
///
/// `update` and `finish` get one. Once [`emit`](Emitter::emit) has returned, the event is on its
/// way: it arrives even if the dispatcher's process dies in the next instant.
///
/// ```
/// use eventpy::{Emitter, Event};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct Line(String);
///
/// fn count_down(emitter: &mut Emitter<(Line,)>) -> eventpy::Result<()> {
///     for second in (1..=3).rev() {
///         emitter.emit(Line(second.to_string()))?;
///         emitter.wait(Duration::from_secs(1));
///     }
///     emitter.end();
///     Ok(())
/// }
/// ```
pub struct Emitter<'a, Events> {
    engine: &'a mut child::Emitter,
    hints: &'a mut Hints,
    events: PhantomData<fn(Events)>,
}

/// For each event type what its encoding remembers from one event to the next.
pub(crate) type Hints = [usize; MAX_EVENT_TYPES];

impl<'a, Events> Emitter<'a, Events> {
    #[inline]
    pub(crate) fn new(engine: &'a mut child::Emitter, hints: &'a mut Hints) -> Self {
        Emitter { engine, hints, events: PhantomData }
    }

    /// Sends one event. If the ring is full, its type's [`Delivery`](crate::Delivery) decides
    /// whether this waits for room or an event is dropped.
    ///
    /// ```
    /// # use eventpy::{Emitter, Event};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Line(String);
    /// fn greet(emitter: &mut Emitter<(Line,)>) -> eventpy::Result<()> {
    ///     emitter.emit(Line("hello".to_owned()))?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Event`](crate::ErrorKind::Event) when it can't be encoded or is too large,
    /// [`Ended`](crate::ErrorKind::Ended) or [`ManagerGone`](crate::ErrorKind::ManagerGone) when
    /// nobody takes it any more. `update` may hand these two on: they end the dispatcher without
    /// making a failure of it.
    #[inline(always)]
    pub fn emit<E: Event, Place>(&mut self, event: E) -> Result<(), Error>
    where
        Events: Contains<E, Place>,
    {
        let type_id = Events::TYPE_ID;
        let hint = &mut self.hints[usize::from(type_id) - 1];
        E::Encoding::send(&event, type_id, hint, self.engine)
    }

    /// Sends many events and wakes the manager once, which is faster than one by one. They arrive
    /// all the same if one of them fails or the iterator panics: those before it do.
    ///
    /// ```
    /// # use eventpy::{Emitter, Event};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Event, Serialize, Deserialize)]
    /// # struct Line(String);
    /// fn tell(emitter: &mut Emitter<(Line,)>, text: &str) -> eventpy::Result<()> {
    ///     emitter.emit_all(text.lines().map(|line| Line(line.to_owned())))?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`emit`](Emitter::emit); the rest is not sent then.
    #[inline(always)]
    pub fn emit_all<E: Event, Place>(
        &mut self,
        events: impl IntoIterator<Item = E>,
    ) -> Result<(), Error>
    where
        Events: Contains<E, Place>,
    {
        let type_id = Events::TYPE_ID;
        let hint = &mut self.hints[usize::from(type_id) - 1];
        let batch = Batch::begin(self.engine);
        for event in events {
            E::Encoding::send(&event, type_id, hint, batch.0)?;
        }
        Ok(())
    }

    /// Sleeps for `time`; false when the end of the dispatcher cut it short.
    ///
    /// ```
    /// # use eventpy::Emitter;
    /// # use std::time::Duration;
    /// fn pause(emitter: &mut Emitter<()>) -> eventpy::Result<()> {
    ///     if emitter.wait(Duration::from_secs(60)) {
    ///         println!("a minute has passed");
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn wait(&mut self, time: Duration) -> bool {
        self.engine.wait(time)
    }

    /// Whether this dispatcher was told to end. An `update` that works for long should look at it.
    ///
    /// ```
    /// # use eventpy::Emitter;
    /// fn search(emitter: &mut Emitter<()>, mut next: impl FnMut() -> bool) {
    ///     while !emitter.is_ending() && next() {}
    /// }
    /// ```
    pub fn is_ending(&self) -> bool {
        self.engine.is_ending()
    }

    /// Ends this dispatcher when the `update` returns that is under way. `finish` is called.
    ///
    /// ```
    /// # use eventpy::Emitter;
    /// fn stop_when_done(emitter: &mut Emitter<()>, rest: &[u8]) {
    ///     if rest.is_empty() {
    ///         emitter.end();
    ///     }
    /// }
    /// ```
    pub fn end(&mut self) {
        self.engine.end();
    }
}

/// Events that are published together, however the block is left.
struct Batch<'a>(&'a mut child::Emitter);

impl<'a> Batch<'a> {
    #[inline]
    fn begin(emitter: &'a mut child::Emitter) -> Batch<'a> {
        emitter.begin_batch();
        Batch(emitter)
    }
}

impl Drop for Batch<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.end_batch();
    }
}
