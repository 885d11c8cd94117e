//! Event objects to bytes and back, such that what arrives equals what pickle would bring.
//!
//! One [`Encoder`] in each dispatcher process, and one [`Decoder`] for each of them in the manager's.
//! An event takes one of two ways, which its reader can't tell apart but by the clock:
//!
//! - The **typed path**, for an event whose class has no hook of pickling (`plain`) and whose
//!   attributes are `None`, `bool`, `int`, `float`, `str`, `bytes` or `tuple`, `list`, `dict`,
//!   `set`, `frozenset` of these, of exactly these types. Class and attribute names are sent once
//!   (`shape`); a record holds the values alone (`write`, `read`).
//! - **Pickle**, protocol 5, for every other event as a whole (`pickled`). Large buffers stay out
//!   of the pickle: they are copied once into the record, and mapped by its reader.
//!
//! The typed path is taken only where its outcome is that of pickle; whatever could make a
//! difference leads to pickle. What pickle keeps of identity the typed path keeps: the same text,
//! bytes or container twice in an event is the same object twice on arrival (`memo`). An event
//! that contains itself is pickled.
//!
//! | module | holds |
//! |---|---|
//! | `encode`, `decode` | the two sides |
//! | `write`, `read`, `int` | the values on the typed path |
//! | `classes`, `shape` | what an encoder knows of classes, and definitions |
//! | `plain`, `reduce` | which classes have no hooks |
//! | `instance` | where the attributes of an instance are, per version of CPython |
//! | `memo` | which objects of an event were met before |
//! | `pickled` | pickles and out-of-band buffers |
//! | `unsendable` | which attribute is to blame |
//! | `alone` | records that bring their definition along |
//! | `wire` | kinds, tags, cursors |

mod alone;
mod classes;
mod decode;
mod encode;
mod error;
mod instance;
mod int;
mod memo;
mod pickled;
mod plain;
mod read;
mod reduce;
mod shape;
mod unsendable;
mod wire;
mod write;

pub use alone::{Decoders, Definitions};
pub use decode::Decoder;
pub use encode::{Encoded, Encoder};
pub use error::{Broken, Error};
pub use pickled::{ALIGNMENT, HEAD_BYTES, Pickled, leading_bytes};

#[cfg(Py_GIL_DISABLED)]
compile_error!("the codec reads objects in place and relies on the global interpreter lock");
