//! The operating-system calls of this crate: memory that two processes share, eventfds, barriers.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::event::EventfdFlags;
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use crate::room;

/// The file system of memory that has no name.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A refused call: what was tried, and why it was refused.
pub(crate) type Refused = (&'static str, io::Error);

fn refused(action: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| (action, io::Error::from(errno))
}

/// Makes anonymous memory of a size that can never change again. It is closed on exec, has no
/// name, and its pages exist at once, so that no later write can fail for want of memory.
pub(crate) fn sealed_memory(name: &str, bytes: usize) -> Result<OwnedFd, Refused> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A system may insist on memory that can't be run as a program; before Linux 6.3 there is none.
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        made => made,
    };
    let fd = fd.map_err(refused("make shared memory (memfd_create)"))?;
    room::check(bytes as u64).map_err(|error| ("reserve shared memory", error))?;
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64)
        .map_err(refused("reserve shared memory (fallocate)"))?;
    rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS)
        .map_err(refused("seal the size of shared memory (F_ADD_SEALS)"))?;
    Ok(fd)
}

/// The size of memory that was sent to us, and whether it is fixed for good.
pub(crate) fn sealed_size(fd: BorrowedFd<'_>) -> Result<(u64, bool, u32), Refused> {
    let seals =
        rustix::fs::fcntl_get_seals(fd).map_err(refused("read the seals of shared memory"))?;
    // Memory of huge pages has seals too, but a hole in it may be filled by nothing but a signal.
    let system = rustix::fs::fstatfs(fd).map_err(refused("read the kind of shared memory"))?;
    if system.f_type != TMPFS_MAGIC {
        return Err(refused("take memory that is not of ordinary pages")(Errno::INVAL));
    }
    let stat = rustix::fs::fstat(fd).map_err(refused("read the size of shared memory (fstat)"))?;
    Ok((stat.st_size as u64, seals.contains(SIZE_SEALS), seals.bits()))
}

/// A private copy of a whole descriptor's content is read with the standard library.
pub(crate) fn file_of(fd: OwnedFd) -> File {
    File::from(fd)
}

/// Shared memory mapped into this process, with a page behind it that nobody may touch.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is plain memory; who may touch which byte when is the protocol's affair, and
// every access goes through atomics or through a range that one side owns.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all `bytes` of `fd`, whose size must be sealed, readable and writable. Pages that
    /// exist are mapped at once when `populate` is set.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        bytes: usize,
        writable: bool,
        populate: bool,
    ) -> Result<Mapping, Refused> {
        let page = rustix::param::page_size();
        let guard = bytes.next_multiple_of(page);
        let mut flags = MapFlags::SHARED;
        flags.set(MapFlags::POPULATE, populate);
        let protection =
            if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a null hint lets the kernel choose the place; nothing that exists is touched.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), guard + page, protection, flags, fd, 0)
        }
        .map_err(refused("map shared memory (mmap)"))?;
        let start = NonNull::new(start.cast()).expect("a mapping is not null");
        let mapping = Mapping { start, bytes };
        // The last page lies past the end of the memory; without rights it can't be touched at all.
        mapping.protect(guard, page, MprotectFlags::empty())?;
        Ok(mapping)
    }

    /// Takes the right to write away from every whole page behind the first `writable_bytes`.
    pub(crate) fn protect_after(&self, writable_bytes: usize) -> Result<(), Refused> {
        let from = writable_bytes.next_multiple_of(rustix::param::page_size());
        match self.bytes.checked_sub(from) {
            None | Some(0) => Ok(()),
            Some(rest) => self.protect(from, rest, MprotectFlags::READ),
        }
    }

    /// Leaves only some rights to the pages of a range, which nothing on this side has a use for
    /// that it takes away.
    fn protect(&self, from: usize, bytes: usize, rights: MprotectFlags) -> Result<(), Refused> {
        // SAFETY: the offset lies within the mapping or its guard page.
        let place = unsafe { self.start.add(from) };
        // SAFETY: the range belongs to this mapping, and no reference into it is alive.
        unsafe { rustix::mm::mprotect(place.as_ptr().cast(), bytes, rights) }
            .map_err(refused("protect shared memory (mprotect)"))
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let page = rustix::param::page_size();
        let mapped = self.bytes.next_multiple_of(page) + page;
        // SAFETY: the range was mapped by `new` and no reference into it outlives the mapping.
        let result = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), mapped) };
        debug_assert!(result.is_ok(), "a mapping of our own can't be unmapped: {result:?}");
    }
}

/// A counter in the kernel that one process raises and another waits for.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Raises an eventfd. A full counter is as good as a raised one, and a closed one has no reader.
pub(crate) fn raise(fd: impl AsFd) {
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// Sets an eventfd back to zero.
pub(crate) fn lower(fd: impl AsFd) {
    let mut count = [0; 8];
    let _ = rustix::io::read(fd, &mut count);
}

const MEMBARRIER_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Lets other processes' barriers reach the threads of this one. False where the kernel refuses.
pub(crate) fn register_for_barriers() -> bool {
    !cfg!(miri) && membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)
}

/// A full fence on every running thread of every registered process. False where the kernel
/// refuses.
pub(crate) fn barrier_everywhere() -> bool {
    membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
}
