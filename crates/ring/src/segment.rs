//! Memory beside the ring for a payload that is too large for it.
//!
//! The producer makes a segment, sends its descriptor once and then names it by number in a small
//! record; the consumer gives it back with [`Segments::give_back`](crate::Segments), and the
//! producer fills it again. Neither side keeps a descriptor, only the mapping.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use crate::error::{AttachError, CreateError};
use crate::os::{self, Mapping};

/// A segment in the process that fills it.
#[derive(Debug)]
pub struct SegmentWriter {
    mapping: Mapping,
}

/// A segment in the process that reads it. The writer can still write: bytes are copied out, or
/// handed on as memory that may change.
#[derive(Debug)]
pub struct SegmentReader {
    mapping: Mapping,
}

impl SegmentWriter {
    /// Makes a segment of `bytes` and the descriptor that the reader maps.
    ///
    /// # Errors
    /// When memory, address space or descriptors are used up.
    pub fn create(bytes: usize) -> Result<(SegmentWriter, OwnedFd), CreateError> {
        let refused = |(action, source)| CreateError::Os { action, source };
        let fd = os::sealed_memory("eventpy-large", bytes).map_err(refused)?;
        let mapping = Mapping::new(fd.as_fd(), bytes, true, false).map_err(refused)?;
        Ok((SegmentWriter { mapping }, fd))
    }

    /// Bytes that fit.
    pub fn capacity(&self) -> usize {
        self.mapping.bytes()
    }

    /// The memory to write into. It holds whatever was there before.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has that many writable bytes, and the reader only reads.
        unsafe {
            std::slice::from_raw_parts_mut(self.mapping.start().as_ptr(), self.mapping.bytes())
        }
    }
}

impl SegmentReader {
    /// Maps a segment for reading after checking that it can never shrink.
    ///
    /// # Errors
    /// When the memory is not sealed or smaller than `bytes`, or can't be mapped.
    pub fn map(fd: BorrowedFd<'_>, bytes: usize) -> Result<SegmentReader, AttachError> {
        let refused = |(action, source)| AttachError::Os { action, source };
        let (found, sealed, seals) = os::sealed_size(fd).map_err(refused)?;
        if !sealed || bytes == 0 || found != bytes as u64 {
            return Err(AttachError::Size { found, expected: bytes as u64, seals });
        }
        let mapping = Mapping::new(fd, bytes, false, false).map_err(refused)?;
        Ok(SegmentReader { mapping })
    }

    /// Bytes that can be read.
    pub fn capacity(&self) -> usize {
        self.mapping.bytes()
    }

    /// Copies the first `into.len()` bytes into private memory.
    ///
    /// # Panics
    /// When the segment is smaller.
    pub fn copy_to(&self, into: &mut [u8]) {
        assert!(
            into.len() <= self.mapping.bytes(),
            "the segment has {} bytes",
            self.mapping.bytes()
        );
        crate::memory::copy_foreign(self.mapping.start().as_ptr(), into);
    }

    /// The first mapped byte, for a binding that hands the memory on without a copy. The writer
    /// may change the bytes until the segment has been given back and after that: no Rust slice
    /// may be made of them.
    pub fn as_ptr(&self) -> *const u8 {
        self.mapping.start().as_ptr()
    }
}

/// Puts bytes into sealed memory of their own, to send to another process.
///
/// # Errors
/// When memory or descriptors are used up.
pub fn parcel(bytes: &[u8]) -> Result<OwnedFd, CreateError> {
    let refused = |(action, source)| CreateError::Os { action, source };
    let fd = os::sealed_memory("eventpy-parcel", bytes.len().max(1)).map_err(refused)?;
    let mut file = os::file_of(fd);
    file.write_all(bytes)
        .map_err(|source| CreateError::Os { action: "fill shared memory (write)", source })?;
    Ok(file.into())
}

/// A private copy of the first `len` bytes that [`parcel`] packed in another process. The caller
/// sees to it that `len` is no more than it has memory for.
///
/// # Errors
/// When the descriptor is not one of shared memory, which alone is read without waiting, or when
/// the memory is smaller.
pub fn unpack(fd: OwnedFd, len: usize) -> io::Result<Vec<u8>> {
    let (found, ..) = os::sealed_size(fd.as_fd()).map_err(|(action, source)| {
        io::Error::new(source.kind(), format!("cannot {action}: {source}"))
    })?;
    if found < len as u64 {
        let message = format!("the parcel has {found} bytes, where {len} were announced");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    let mut bytes = vec![0; len];
    os::file_of(fd).read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
