//! How an event becomes the bytes of a record, and a record an event.
//!
//! There are two ways, and the derive of [`Event`] names one of them: [`Serde`] encodes straight
//! into the ring, [`Plain`] copies. Either writes a record without any allocation, unless the event
//! turns out larger than the room at hand.

use eventpy_engine::{Error, ErrorKind, Payload, child};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Event;

/// A way to write an `E` into a record and to read it back.
pub trait Encoding<E> {
    /// Sends `event`. `hint` belongs to its type and starts as 0.
    ///
    /// # Errors
    /// When it can't be encoded, or the engine refuses to send it.
    fn send(
        event: &E,
        type_id: u16,
        hint: &mut usize,
        emitter: &mut child::Emitter,
    ) -> Result<(), Error>;

    /// Puts the event in `slot`, in place of the one before. `scratch` is any buffer.
    ///
    /// # Errors
    /// When the bytes are not those of an `E`.
    fn read(
        payload: &impl Payload,
        slot: &mut Option<E>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Error>;
}

/// Written with serde in the `postcard` format.
pub enum Serde {}

/// What [`Serde`] asks of a type; the derive of a generic event has it as a condition.
pub trait ForSerde: Serialize + DeserializeOwned {}

impl<E: Serialize + DeserializeOwned> ForSerde for E {}

/// The bytes of the event as they are.
pub enum Plain {}

/// What [`Plain`] asks of a type; the derive of a generic event has it as a condition.
pub trait ForPlain: FromBytes + IntoBytes + Immutable {}

impl<E: FromBytes + IntoBytes + Immutable> ForPlain for E {}

/// A buffer that grew beyond this for one large event is not kept for the next.
const KEPT_BYTES: usize = 1 << 20;

impl<E: Event + Serialize + DeserializeOwned> Encoding<E> for Serde {
    /// The hint is the size of the event before. Room for that and an eighth is asked for, and more
    /// is usually at hand, so that few events have to be encoded a second time.
    #[inline]
    fn send(
        event: &E,
        type_id: u16,
        hint: &mut usize,
        emitter: &mut child::Emitter,
    ) -> Result<(), Error> {
        let limit = emitter.inline_limit();
        if *hint > limit {
            // A large event's memory is asked for by its true size, which may be small.
            return send_aside(event, type_id, hint, emitter);
        }
        match emitter.reserve(type_id, (*hint + *hint / 8).min(limit)) {
            Ok(Some(mut slot)) => {
                if let Ok(written) = postcard::to_slice(event, slot.bytes_mut()) {
                    let len = written.len();
                    slot.commit(len);
                    *hint = len;
                    return Ok(());
                }
            }
            // Dropped and counted, as its delivery says.
            Ok(None) => return Ok(()),
            // That much room can't be had, but this event may need less.
            Err(_) => {}
        }
        send_aside(event, type_id, hint, emitter)
    }

    fn read(
        payload: &impl Payload,
        slot: &mut Option<E>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Error> {
        payload.read(scratch);
        let event = decode(scratch).map_err(|reason| {
            Error::new(ErrorKind::Event, format!("event `{}` can't be decoded: {reason}", E::NAME))
        });
        if scratch.capacity() > KEPT_BYTES {
            *scratch = Vec::new();
        }
        *slot = Some(event?);
        Ok(())
    }
}

impl<E: Event + FromBytes + IntoBytes + Immutable> Encoding<E> for Plain {
    /// Always inlined: then the length is a constant, and the copy a few moves. The event itself is
    /// never handed on by reference: so the compiler can leave it out and write the values of its
    /// fields straight into the ring.
    #[inline(always)]
    fn send(
        event: &E,
        type_id: u16,
        _hint: &mut usize,
        emitter: &mut child::Emitter,
    ) -> Result<(), Error> {
        if emitter.try_send(type_id, event.as_bytes()) {
            return Ok(());
        }
        let mut copy = E::new_zeroed();
        copy.as_mut_bytes().copy_from_slice(event.as_bytes());
        emitter.send_with_care(type_id, copy.as_bytes())
    }

    /// Copies over the event before, which saves the clearing.
    #[inline(always)]
    fn read(payload: &impl Payload, slot: &mut Option<E>, _: &mut Vec<u8>) -> Result<(), Error> {
        if payload.len() != size_of::<E>() {
            return Err(wrong_size::<E>(payload.len()));
        }
        payload.copy_to(slot.get_or_insert_with(E::new_zeroed).as_mut_bytes());
        Ok(())
    }
}

/// Sends an event that did not get the room that it needs, or tells what else is wrong with it.
#[cold]
fn send_aside<E: Event + Serialize>(
    event: &E,
    type_id: u16,
    hint: &mut usize,
    emitter: &mut child::Emitter,
) -> Result<(), Error> {
    let bytes = encode(event, *hint).map_err(|reason| {
        Error::new(ErrorKind::Event, format!("event `{}` can't be encoded: {reason}", E::NAME))
    })?;
    *hint = bytes.len();
    emitter.send(type_id, &bytes)
}

#[cold]
fn wrong_size<E: Event>(len: usize) -> Error {
    let size = size_of::<E>();
    let message = format!("event `{}` has {size} bytes, and {len} arrived", E::NAME);
    Error::new(ErrorKind::Event, message)
}

/// The bytes of a value; the error is the reason in words.
pub(crate) fn encode<T: Serialize>(value: &T, capacity: usize) -> Result<Vec<u8>, String> {
    postcard::to_extend(value, Vec::with_capacity(capacity)).map_err(in_words)
}

/// The value that has these bytes, all of them; the error is the reason in words.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes are left over; {SELF_DESCRIBING}", rest.len())),
        Err(error) => Err(in_words(error)),
    }
}

const SELF_DESCRIBING: &str = "serde's `untagged`, `flatten` and `skip_serializing_if` need a \
                               format that describes itself, which this one does not";

/// The encoder's errors name its parts; these name the user's.
#[cold]
fn in_words(error: postcard::Error) -> String {
    use postcard::Error as E;
    match error {
        E::SerdeSerCustom | E::CollectStrError => {
            "its `Serialize` refused the value, as that of a path does which is not UTF-8".into()
        }
        E::SerdeDeCustom => "its `Deserialize` refused the value".into(),
        E::WontImplement | E::NotYetImplemented | E::SerializeSeqLengthUnknown => {
            SELF_DESCRIBING.into()
        }
        other => format!("the bytes do not fit the type ({other}); {SELF_DESCRIBING}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    #[test]
    fn a_value_comes_back_from_its_bytes() {
        let value = (7_u32, "seven".to_owned(), vec![Some(1.5_f64), None]);
        assert_eq!(decode(&encode(&value, 0).unwrap()), Ok(value));
    }

    #[test]
    fn bytes_of_another_type_are_an_error() {
        let bytes = encode(&("a longer text", 1), 0).unwrap();
        assert!(decode::<u8>(&bytes).unwrap_err().contains("left over"));
        assert!(decode::<(String, String, String)>(&bytes).unwrap_err().contains("do not fit"));
    }

    #[test]
    fn a_type_that_needs_another_format_is_named_as_such() {
        #[derive(Debug, Serialize, serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u32),
        }
        let bytes = encode(&Either::Number(3), 0).unwrap();
        assert_eq!(decode::<Either>(&bytes).unwrap_err(), SELF_DESCRIBING);
    }

    #[test]
    fn a_refusal_of_the_type_itself_says_so() {
        let path = Path::new(OsStr::from_bytes(b"\xff"));
        assert!(encode(&path, 0).unwrap_err().contains("not UTF-8"));
    }
}
