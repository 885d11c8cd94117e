//! What can be dispatched: the `Event` trait, and the events that the engine itself makes.

use eventpy_engine::{DispatcherEnded, DispatcherFailed, DispatcherRestarted};

use crate::encoding::{Encoding, Serde};

/// Something that happened: what dispatchers emit and callbacks get.
///
/// Derive it. An event is `Send`, because a manager may move to another thread.
///
/// ```
/// use eventpy::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// struct CpuLoad {
///     core: usize,
///     busy: f32,
/// }
/// assert_eq!(CpuLoad::NAME, "CpuLoad");
/// ```
///
/// Its bytes are written with serde, in the `postcard` format. As with any format that does not
/// describe itself, serde's `untagged`, `flatten` and `skip_serializing_if` can't be used.
///
/// # Plain events
///
/// A type whose bytes *are* its value needs no encoder: with `#[event(plain)]` it is copied. The
/// derives of the `zerocopy` crate check at compile time that it is such a type, without padding
/// and without values that bytes could get wrong.
///
/// ```
/// use eventpy::Event;
/// use zerocopy::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(Event, FromBytes, IntoBytes, Immutable)]
/// #[event(plain)]
/// #[repr(C)]
/// struct Sample {
///     at_ns: u64,
///     channels: [f32; 14],
/// }
/// ```
///
/// # Name
///
/// [`NAME`](Event::NAME) is what statistics, errors and
/// [`DispatcherOptions::delivery_of`](crate::DispatcherOptions::delivery_of) call the type: its
/// own name, or another one.
///
/// ```
/// # use eventpy::Event;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "disk.Full")]
/// struct Full;
/// assert_eq!(Full::NAME, "disk.Full");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "derive it: `#[derive(eventpy::Event, serde::Serialize, serde::Deserialize)]`"
)]
pub trait Event: Sized + Send + 'static {
    /// What statistics, errors and options call this type.
    const NAME: &'static str;

    /// How it is written into the ring and read from it.
    #[doc(hidden)]
    type Encoding: Encoding<Self>;
}

/// An engine's event is one like any other, only that the engine makes it.
macro_rules! lifecycle_events {
    ($($event:ident)*) => {$(
        #[diagnostic::do_not_recommend]
        impl Event for $event {
            const NAME: &'static str = stringify!($event);
            type Encoding = Serde;
        }
    )*};
}

lifecycle_events!(DispatcherFailed DispatcherRestarted DispatcherEnded);
