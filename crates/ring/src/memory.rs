//! The bytes of a ring: a shared mapping between two processes, or the heap for models and Miri.
//!
//! This is the only place that turns an address into a reference. Every access to the ring's data
//! goes through [`Memory::word`] or through a range that the producer alone owns.

use std::sync::Arc;

use crate::layout::{Counters, Header};
use crate::sync::{AtomicU64, Ordering};

#[cfg(not(loom))]
pub(crate) use shared::Memory;

#[cfg(loom)]
pub(crate) use modelled::Memory;

impl Memory {
    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The word at a position, which must be a multiple of 8.
    #[inline]
    pub(crate) fn word(&self, position: u64) -> &AtomicU64 {
        self.word_at((position & (self.capacity - 1)) as usize / 8)
    }

    /// Bytes from a position to the end of the ring.
    #[inline]
    pub(crate) fn contiguous(&self, position: u64) -> u64 {
        self.capacity - (position & (self.capacity - 1))
    }

    #[inline]
    pub(crate) fn counters(&self, type_id: u16) -> Option<&Counters> {
        self.header().counters.get(usize::from(type_id).checked_sub(1)?)
    }
}

/// Payloads are copied as blocks. A copy that races with the other side's writing is thrown away,
/// or it is that of a hostile process, whose bytes may be anything; see [`copy_foreign`].
#[cfg(not(any(loom, miri, tsan)))]
mod by_block {
    use super::{Memory, copy_foreign};

    impl Memory {
        /// Copies `bytes` to a position from which that many bytes are contiguous.
        #[inline(always)]
        pub(crate) fn write(&self, position: u64, bytes: &[u8]) {
            assert!(bytes.len() as u64 <= self.contiguous(position), "a record does not wrap");
            // SAFETY: the range is contiguous and the producer's own until it is committed.
            unsafe {
                libc::memcpy(self.byte_at(position).cast(), bytes.as_ptr().cast(), bytes.len())
            };
        }

        /// Copies from a position from which `into.len()` bytes are contiguous. The other side may
        /// write at the same time: what arrives is then any mixture, but it is ours alone.
        #[inline(always)]
        pub(crate) fn read(&self, position: u64, into: &mut [u8]) {
            assert!(into.len() as u64 <= self.contiguous(position), "a record does not wrap");
            copy_foreign(self.byte_at(position), into);
        }
    }
}

/// The same word by word, for tools that report every race.
#[cfg(any(loom, miri, tsan))]
mod by_word {
    use super::{Memory, Ordering};

    impl Memory {
        pub(crate) fn write(&self, position: u64, bytes: &[u8]) {
            let (words, rest) = bytes.as_chunks::<8>();
            let first = self.first_of(position, bytes.len());
            for (index, word) in words.iter().enumerate() {
                self.word_at(first + index).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            }
            if !rest.is_empty() {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                let last = u64::from_ne_bytes(last);
                self.word_at(first + words.len()).store(last, Ordering::Relaxed);
            }
        }

        pub(crate) fn read(&self, position: u64, into: &mut [u8]) {
            let first = self.first_of(position, into.len());
            let (words, rest) = into.as_chunks_mut::<8>();
            let count = words.len();
            for (index, word) in words.iter_mut().enumerate() {
                *word = self.word_at(first + index).load(Ordering::Relaxed).to_ne_bytes();
            }
            if !rest.is_empty() {
                let last = self.word_at(first + count).load(Ordering::Relaxed).to_ne_bytes();
                rest.copy_from_slice(&last[..rest.len()]);
            }
        }

        fn first_of(&self, position: u64, bytes: usize) -> usize {
            assert!(bytes as u64 <= self.contiguous(position), "a record does not wrap");
            (position & (self.capacity - 1)) as usize / 8
        }
    }
}

#[cfg(not(loom))]
mod shared {
    use std::os::fd::{AsFd, OwnedFd};
    use std::ptr::NonNull;

    use super::{Arc, AtomicU64, Header, Ordering};
    use crate::error::{AttachError, CreateError};
    use crate::layout::{HEADER_BYTES, MAGIC, VERSION, check_capacity};
    use crate::os::{self, Mapping};

    pub(crate) struct Memory {
        header: NonNull<Header>,
        words: NonNull<AtomicU64>,
        pub(super) capacity: u64,
        _backing: Backing,
    }

    /// Keeps the bytes alive.
    enum Backing {
        Mapped { _mapping: Mapping },
        Heap { _words: HeapWords },
    }

    // SAFETY: all shared state behind the pointers is atomic, and the backing lives as long.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        /// Makes a ring for another process: this side's mapping and the descriptor to send.
        pub(crate) fn create(
            capacity: usize,
            displaceable: bool,
        ) -> Result<(Arc<Memory>, OwnedFd), CreateError> {
            check_capacity(capacity)
                .map_err(|suggestion| CreateError::Capacity { capacity, suggestion })?;
            let os = |(action, source)| CreateError::Os { action, source };
            let bytes = HEADER_BYTES + capacity;
            let fd = os::sealed_memory("eventpy-ring", bytes).map_err(os)?;
            let mapping = Mapping::new(fd.as_fd(), bytes, true, true).map_err(os)?;
            mapping.protect_after(HEADER_BYTES).map_err(os)?;
            let memory = Memory::over(mapping, capacity);
            memory.identify(displaceable);
            Ok((Arc::new(memory), fd))
        }

        /// Maps a ring that another process made.
        pub(crate) fn attach(fd: OwnedFd) -> Result<(Arc<Memory>, bool), AttachError> {
            let os = |(action, source)| AttachError::Os { action, source };
            let (found, sealed, seals) = os::sealed_size(fd.as_fd()).map_err(os)?;
            let size = |expected| AttachError::Size { found, expected, seals };
            let capacity = usize::try_from(found).unwrap_or(0).saturating_sub(HEADER_BYTES);
            if !sealed || check_capacity(capacity).is_err() {
                return Err(size(found));
            }
            let mapping =
                Mapping::new(fd.as_fd(), HEADER_BYTES + capacity, true, true).map_err(os)?;
            let memory = Memory::over(mapping, capacity);
            let displaceable = memory.check_identity(capacity, size)?;
            Ok((Arc::new(memory), displaceable))
        }

        /// A ring within this process, for models, sanitizers and fuzzing.
        pub(crate) fn heap(
            capacity: usize,
            displaceable: bool,
        ) -> Result<Arc<Memory>, CreateError> {
            check_capacity(capacity)
                .map_err(|suggestion| CreateError::Capacity { capacity, suggestion })?;
            let words = HeapWords::new(HEADER_BYTES + capacity);
            let start = words.start();
            let memory = Memory::at(start, capacity, Backing::Heap { _words: words });
            memory.identify(displaceable);
            Ok(Arc::new(memory))
        }

        fn over(mapping: Mapping, capacity: usize) -> Memory {
            Memory::at(mapping.start(), capacity, Backing::Mapped { _mapping: mapping })
        }

        fn at(start: NonNull<u8>, capacity: usize, backing: Backing) -> Memory {
            // SAFETY: the backing holds HEADER_BYTES + capacity bytes.
            let words = unsafe { start.add(HEADER_BYTES) }.cast();
            Memory { header: start.cast(), words, capacity: capacity as u64, _backing: backing }
        }

        fn identify(&self, displaceable: bool) {
            let identity = &self.header().identity;
            identity.magic.store(MAGIC, Ordering::Relaxed);
            identity.version.store(VERSION, Ordering::Relaxed);
            identity.capacity.store(self.capacity, Ordering::Relaxed);
            identity.displaceable.store(u64::from(displaceable), Ordering::Relaxed);
        }

        fn check_identity(
            &self,
            capacity: usize,
            size: impl Fn(u64) -> AttachError,
        ) -> Result<bool, AttachError> {
            let identity = &self.header().identity;
            let found = identity.magic.load(Ordering::Relaxed);
            if found != MAGIC {
                return Err(AttachError::NotARing { found });
            }
            let found = identity.version.load(Ordering::Relaxed);
            if found != VERSION {
                return Err(AttachError::Version { found });
            }
            let announced = identity.capacity.load(Ordering::Relaxed);
            if announced != capacity as u64 {
                return Err(size(announced.saturating_add(HEADER_BYTES as u64)));
            }
            Ok(identity.displaceable.load(Ordering::Relaxed) != 0)
        }

        #[inline]
        pub(crate) fn header(&self) -> &Header {
            // SAFETY: the backing begins with HEADER_BYTES, page-aligned, zero or written through
            // atomics, and lives as long as `self`; a header is atomics only.
            unsafe { self.header.as_ref() }
        }

        #[inline]
        pub(super) fn word_at(&self, index: usize) -> &AtomicU64 {
            debug_assert!(index < self.capacity as usize / 8);
            // SAFETY: `word` masks the position and `first_of` checks the range, so the index lies
            // within the data.
            let word = unsafe { self.words.add(index) };
            // SAFETY: the data is aligned, initialised and accessed through atomics while shared.
            unsafe { word.as_ref() }
        }

        /// The bytes of a reserved range, as the producer's own.
        ///
        /// # Safety
        /// The caller is the only producer, the range lies between its tail and the head plus the
        /// capacity, it does not wrap, and no other slice of it is alive.
        #[inline]
        #[expect(clippy::mut_from_ref, reason = "the range belongs to the one producer")]
        pub(crate) unsafe fn owned_bytes(&self, position: u64, len: usize) -> &mut [u8] {
            // SAFETY: by the caller's promise.
            unsafe { std::slice::from_raw_parts_mut(self.byte_at(position), len) }
        }

        /// The address of a byte, good for all the data behind it; that of a word is good for the
        /// word alone.
        #[inline]
        pub(super) fn byte_at(&self, position: u64) -> *mut u8 {
            let offset = (position & (self.capacity - 1)) as usize;
            // SAFETY: the position is masked, so the offset lies within the data.
            unsafe { self.words.as_ptr().cast::<u8>().add(offset) }
        }

        /// Asks for the cache line of a position, to read there soon.
        #[inline]
        pub(crate) fn prefetch_read(&self, position: u64) {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: prefetching has no effect but on time.
            unsafe {
                use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(self.byte_at(position).cast());
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            let _ = position;
        }

        /// Asks for the cache line of a position, to write there soon.
        #[inline]
        pub(crate) fn prefetch_write(&self, position: u64) {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: prefetching has no effect but on time.
            unsafe {
                let line = self.byte_at(position);
                core::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags));
            }
            #[cfg(not(all(target_arch = "x86_64", not(miri))))]
            let _ = position;
        }
    }

    /// Copies bytes that another process may be writing. What arrives is private and is not read
    /// from the source again: the fence hides from the compiler that the source stayed the same.
    #[inline(always)]
    pub(crate) fn copy_foreign(from: *const u8, into: &mut [u8]) {
        // SAFETY: callers hold a mapping with `into.len()` readable bytes at `from`; the copy is
        // done by the C library, for which racing bytes are just bytes.
        unsafe { libc::memcpy(into.as_mut_ptr().cast(), from.cast(), into.len()) };
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Page-like alignment for a header, on the heap.
    #[repr(C, align(128))]
    struct HeapLine([AtomicU64; 16]);

    struct HeapWords(NonNull<[HeapLine]>);

    impl HeapWords {
        fn new(bytes: usize) -> HeapWords {
            let lines: Box<[HeapLine]> = (0..bytes.div_ceil(128))
                .map(|_| HeapLine(std::array::from_fn(|_| AtomicU64::new(0))))
                .collect();
            HeapWords(NonNull::from(Box::leak(lines)))
        }

        fn start(&self) -> NonNull<u8> {
            self.0.cast()
        }
    }

    impl Drop for HeapWords {
        fn drop(&mut self) {
            // SAFETY: the pointer came from a leaked box and is freed once, here.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

#[cfg(not(loom))]
pub(crate) use shared::copy_foreign;

#[cfg(loom)]
mod modelled {
    use super::{Arc, AtomicU64, Header};
    use crate::layout::{Counters, Displacing, Identity, Line};

    /// Memory that loom watches. Small capacities, since each word costs the model time.
    pub(crate) struct Memory {
        header: Header,
        words: Vec<AtomicU64>,
        pub(super) capacity: u64,
    }

    impl Memory {
        pub(crate) fn heap(capacity: usize) -> Arc<Memory> {
            let word = || AtomicU64::new(0);
            let header = Header {
                identity: Line(Identity {
                    magic: word(),
                    version: word(),
                    capacity: word(),
                    displaceable: word(),
                }),
                tail: Line(word()),
                head: Line(word()),
                consumer_asleep: Line(word()),
                space_wanted: Line(word()),
                segments_free: Line(word()),
                counters: Line(std::array::from_fn(|_| Counters { sent: word(), dropped: word() })),
                displacing: Line(Displacing { record: word(), dropped_before: word() }),
            };
            let words = (0..capacity / 8).map(|_| word()).collect();
            Arc::new(Memory { header, words, capacity: capacity as u64 })
        }

        pub(crate) fn header(&self) -> &Header {
            &self.header
        }

        pub(crate) fn prefetch_read(&self, _: u64) {}

        pub(crate) fn prefetch_write(&self, _: u64) {}

        pub(super) fn word_at(&self, index: usize) -> &AtomicU64 {
            &self.words[index]
        }
    }
}
