//! The bytes of a record: kinds, value tags, and the cursor that writes or reads them.
//!
//! | kind | then |
//! |---|---|
//! | [`TYPED`], [`TYPED_SHARED`] | shape id `u16`, one value per attribute |
//! | [`PICKLED`] | a pickle |
//! | [`PICKLED_WITH_BUFFERS`] | see the module `pickled` |
//! | [`DEFINITION`] | see the module `shape` |
//!
//! Numbers stand little end first. A length or count is a base-128 varint of at most 32 bits.
//! In a `TYPED_SHARED` record each text, bytes and container has an index, counted from zero in
//! the order in which they end; [`tag::REFERENCE`] with that index is the same object again.

use super::error::Broken;

/// An event of plain values, no part of which occurs twice.
pub(super) const TYPED: u8 = 1;
/// The same with references, for which the reader has to remember what it read.
pub(super) const TYPED_SHARED: u8 = 2;
/// A pickle, nothing else.
pub(super) const PICKLED: u8 = 3;
/// A pickle and the buffers that it left out.
pub(super) const PICKLED_WITH_BUFFERS: u8 = 4;
/// The class and attribute names that a shape id stands for.
pub(super) const DEFINITION: u8 = 5;

/// The first byte of each value.
pub(super) mod tag {
    /// `None`.
    pub const NONE: u8 = 0;
    /// `False`.
    pub const FALSE: u8 = 1;
    /// `True`.
    pub const TRUE: u8 = 2;
    /// An `int` as `i32`.
    pub const INT32: u8 = 3;
    /// An `int` as `i64`.
    pub const INT64: u8 = 4;
    /// Any other `int`: length, two's complement.
    pub const INT: u8 = 5;
    /// A `float`: the bits of its `f64`.
    pub const FLOAT: u8 = 6;
    /// A `str`: length in bytes, UTF-8 in which surrogates stand as if they were characters.
    pub const TEXT: u8 = 7;
    /// `bytes`: length, bytes.
    pub const BYTES: u8 = 8;
    /// A `tuple`: count, values.
    pub const TUPLE: u8 = 9;
    /// A `list`: count, values.
    pub const LIST: u8 = 10;
    /// A `set`: count, values.
    pub const SET: u8 = 11;
    /// A `frozenset`: count, values.
    pub const FROZEN_SET: u8 = 12;
    /// A `dict`: count of items, then key and value in turn.
    pub const DICT: u8 = 13;
    /// A part that was written before: its index.
    pub const REFERENCE: u8 = 14;
    /// With this bit set, the tag is an `int` from 0 to 127.
    pub const SMALL_INT: u8 = 0x80;
}

/// Whether the typed path sends attributes of this name. Pickle looks some names up on the instance
/// for hooks, all of which have two underscores before and behind.
pub(super) fn is_attribute_name(name: &str) -> bool {
    !(name.starts_with("__") && name.ends_with("__"))
}

/// Containers within containers that the typed path writes and reads. Deeper ones are pickled.
pub(super) const MAX_DEPTH: u32 = 200;

/// Writes into a given room, and goes on counting when that is full.
pub(super) struct Writer<'a> {
    room: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Writer<'a> {
        Writer { room, len: 0 }
    }

    /// Bytes that were put, whether they fitted or not.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether all that was put stands in the room.
    pub(super) fn fits(&self) -> bool {
        self.len <= self.room.len()
    }

    #[inline]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.room.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
        }
        self.len = end;
    }

    #[inline]
    pub(super) fn put_with_tag<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.put(&[tag]);
        self.put(&bytes);
    }

    /// Puts a tag with a length or count after it.
    #[inline]
    pub(super) fn put_size(&mut self, tag: u8, size: u32) {
        if size < 0x80 {
            self.put(&[tag, size as u8]);
        } else {
            self.put(&[tag]);
            self.put_varint(size);
        }
    }

    pub(super) fn put_varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.put(&[number as u8 | 0x80]);
            number >>= 7;
        }
        self.put(&[number as u8]);
    }

    /// Replaces the byte at the beginning.
    pub(super) fn set_kind(&mut self, kind: u8) {
        if let Some(first) = self.room.first_mut() {
            *first = kind;
        }
    }
}

/// Reads bytes that nobody vouches for.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Broken::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Broken::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn take_byte(&mut self) -> Result<u8, Broken> {
        self.take_array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn take_varint(&mut self) -> Result<u32, Broken> {
        let first = self.take_byte()?;
        if first < 0x80 { Ok(u32::from(first)) } else { self.take_long_varint(first) }
    }

    /// Takes a length and that many bytes.
    #[inline]
    pub(super) fn take_sized(&mut self) -> Result<&'a [u8], Broken> {
        let len = self.take_varint()?;
        self.take(len as usize)
    }

    /// Ends the reading: nothing may be left.
    #[inline]
    pub(super) fn finish(self) -> Result<(), Broken> {
        if self.rest.is_empty() { Ok(()) } else { Err(Broken::Trailing(self.rest.len())) }
    }

    fn take_long_varint(&mut self, first: u8) -> Result<u32, Broken> {
        let mut number = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.take_byte()?;
            if shift == 28 && byte > 0x0f {
                return Err(Broken::Length);
            }
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_comes_back() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 1 << 28, u32::MAX] {
            let mut room = [0; 8];
            let mut writer = Writer::new(&mut room);
            writer.put_varint(number);
            let len = writer.len();
            let mut reader = Reader::new(&room[..len]);
            assert_eq!(reader.take_varint(), Ok(number));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_varint_beyond_32_bits_is_broken() {
        let overlong = [0xff, 0xff, 0xff, 0xff, 0x10];
        assert_eq!(Reader::new(&overlong).take_varint(), Err(Broken::Length));
        assert_eq!(Reader::new(&overlong[..4]).take_varint(), Err(Broken::Truncated));
    }

    #[test]
    fn a_writer_counts_on_when_its_room_is_full() {
        let mut room = [0; 3];
        let mut writer = Writer::new(&mut room);
        writer.put(b"ab");
        writer.put(b"cde");
        writer.put(b"f");
        assert_eq!((writer.len(), writer.fits()), (6, false));
        assert_eq!(&room, b"ab\0");
    }
}
