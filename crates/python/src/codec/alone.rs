//! Records that stand alone: each brings the definition of its shape along.
//!
//! Where events may be dropped, so may a definition that was sent before them. There the record of
//! an event on the typed path is followed by its definition and the length of that, `u32`; both
//! name the shape 0. A pickled record stands alone anyway.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::decode::Decoder;
use super::error::{Broken, Error};
use super::wire;

/// Where a record names its shape.
const SHAPE_IN_RECORD: std::ops::Range<usize> = 1..3;
/// Where a definition names its shape.
const SHAPE_IN_DEFINITION: std::ops::Range<usize> = 2..4;
const LENGTH_BYTES: usize = 4;
/// Shapes that a reader remembers.
const MOST_SHAPES: usize = 1024;

/// The definitions that an encoder has made, to go along with records.
#[derive(Default)]
pub struct Definitions(Vec<Vec<u8>>);

/// The decoders for records that stand alone: one for each definition.
#[derive(Default)]
pub struct Decoders {
    known: HashMap<Box<[u8]>, Decoder>,
    pickled: Option<Decoder>,
}

impl Definitions {
    /// Takes the encoder's next definition.
    pub fn push(&mut self, mut definition: Vec<u8>) {
        definition[SHAPE_IN_DEFINITION].fill(0);
        self.0.push(definition);
    }

    /// Makes the record of `len` bytes at the beginning of `room` stand alone. Returns its new
    /// length, which may be more than there is room for: then nothing has changed.
    pub fn complete(&self, room: &mut [u8], len: usize) -> usize {
        if !is_typed(room) {
            return len;
        }
        let shape = u16::from_le_bytes([room[1], room[2]]);
        let definition = &self.0[usize::from(shape)];
        let end = len + definition.len();
        let total = end + LENGTH_BYTES;
        if total <= room.len() {
            room[SHAPE_IN_RECORD].fill(0);
            room[len..end].copy_from_slice(definition);
            room[end..total].copy_from_slice(&(definition.len() as u32).to_le_bytes());
        }
        total
    }
}

impl Decoders {
    /// Makes the event of a record.
    ///
    /// # Errors
    /// As [`Decoder::decode`].
    pub fn decode<'py>(
        &mut self,
        py: Python<'py>,
        bytes: &[u8],
        owner: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyAny>, Error> {
        if !is_typed(bytes) {
            let decoder = match &mut self.pickled {
                Some(decoder) => decoder,
                unmade => unmade.insert(Decoder::new(py)?),
            };
            return decoder.decode(py, bytes, owner);
        }
        let (record, definition) = split(bytes)?;
        self.decoder_for(py, definition)?.decode(py, record, None)
    }

    /// As [`Decoder::traverse`].
    ///
    /// # Errors
    /// When the collector has seen enough.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.known.values().chain(&self.pickled).try_for_each(|decoder| decoder.traverse(visit))
    }

    fn decoder_for(&mut self, py: Python<'_>, definition: &[u8]) -> Result<&mut Decoder, Error> {
        if !self.known.contains_key(definition) {
            if self.known.len() >= MOST_SHAPES {
                self.known.clear();
            }
            let mut decoder = Decoder::new(py)?;
            decoder.define(py, definition)?;
            self.known.insert(definition.into(), decoder);
        }
        self.known.get_mut(definition).ok_or(Error::Broken(Broken::UnknownShape(0)))
    }
}

fn is_typed(record: &[u8]) -> bool {
    matches!(record.first(), Some(&(wire::TYPED | wire::TYPED_SHARED)))
}

/// The record and its definition.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), Broken> {
    let (rest, len) = bytes.split_last_chunk::<LENGTH_BYTES>().ok_or(Broken::Truncated)?;
    let len = u32::from_le_bytes(*len) as usize;
    let record_len = rest.len().checked_sub(len).ok_or(Broken::Truncated)?;
    Ok(rest.split_at(record_len))
}
