//! A dispatcher process that keeps to nothing: it speaks the protocol by hand, byte by byte, and
//! writes wherever it likes into what the manager shares with it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventpy_engine::{Delivery, Phase};
use memmap2::MmapRaw;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

/// Bytes before the first record.
pub const HEADER_BYTES: u64 = 4096;
/// Where the header's fields lie, as `docs/ring-format.md` says.
pub const TAIL: u64 = 128;
pub const HEAD: u64 = 256;
pub const CONSUMER_ASLEEP: u64 = 384;
pub const SPACE_WANTED: u64 = 512;
/// `sent` of type 1; `dropped` follows.
pub const COUNTERS: u64 = 768;

/// The flag of a record that covers the end of the ring.
pub const PAD: u16 = 1;
/// The flag of a record that names a segment.
pub const LARGE: u16 = 2;

/// The seals that a segment must have.
pub const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// As many descriptors as the kernel lets one message carry.
pub const MAX_DESCRIPTORS: usize = 253;

/// What a dispatcher process says, as the protocol numbers it.
#[derive(Serialize)]
#[allow(dead_code, reason = "the numbers of those that are said depend on all")]
pub enum Says {
    NotADispatcher,
    Loaded { barriers: bool },
    LoadFailed { reason: String },
    Initialised,
    Segment { id: u32, bytes: u64, slots: u64 },
    Failed { phase: Phase, reason: String, traceback: String },
    Hung { updates: u64, elapsed: Duration, traceback: String },
    Finished { time: Duration },
}

#[derive(Deserialize)]
enum Hears {
    Setup(Setup),
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "all of it is on the wire")]
struct Setup {
    name: String,
    event_types: Vec<(String, Delivery)>,
    payload_bytes: u64,
}

/// The process, with all that it was sent.
pub struct Hostile {
    pub control: OwnedFd,
    pub ring: MmapRaw,
    pub data: OwnedFd,
    pub space: OwnedFd,
    manager: OwnedFd,
    pub payload: String,
}

impl Hostile {
    /// Takes the command socket from standard input, and the setup from that.
    pub fn take() -> Hostile {
        let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).expect("it is a socket");
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
        rustix::stdio::dup2_stdin(null).unwrap();
        let (message, descriptors) = receive(&control);
        let (Hears::Setup(setup), _) =
            postcard::take_from_bytes(&message).expect("the first message is a setup");
        let [ring, data, space, manager, payload] =
            <[OwnedFd; 5]>::try_from(descriptors).expect("it comes with five descriptors");
        let payload = eventpy_ring::unpack(payload, setup.payload_bytes as usize).unwrap();
        Hostile {
            control,
            ring: MmapRaw::map_raw(&ring).expect("a ring can be mapped"),
            data,
            space,
            manager,
            payload: String::from_utf8(payload).expect("the payload is text"),
        }
    }

    pub fn say(&self, what: &Says) {
        self.say_with(what, &[]);
    }

    pub fn say_with(&self, what: &Says, descriptors: &[BorrowedFd<'_>]) {
        let bytes = postcard::to_stdvec(what).unwrap();
        let _ = self.send(&bytes, descriptors);
    }

    /// Sends anything at all; waits while the socket is full.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let parts = [IoSlice::new(bytes)];
        rustix::net::sendmsg(&self.control, &parts, &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// What a sound process does first: it is loaded, it is initialised, and it sends 0, 1, 2.
    pub fn begin_well(&self) {
        self.say(&Says::Loaded { barriers: false });
        self.say(&Says::Initialised);
        (0..3).for_each(|number| self.commit(number));
    }

    /// What a sound process does last.
    pub fn end_well(&self) -> ! {
        self.say(&Says::Finished { time: Duration::ZERO });
        exit(0)
    }

    /// Does nothing more until it is killed; no longer than the manager lives.
    pub fn stay(&self) -> ! {
        let _ = poll(&mut [PollFd::new(&self.manager, PollFlags::IN)], None);
        exit(0)
    }

    /// Does nothing more until the manager has closed the command socket.
    pub fn stay_until_hung_up(&self) -> ! {
        loop {
            let mut hung_up = [
                PollFd::new(&self.control, PollFlags::empty()),
                PollFd::new(&self.manager, PollFlags::IN),
            ];
            if poll(&mut hung_up, None).is_ok() {
                exit(0)
            }
        }
    }

    /// Returns when another process traces this one, which it does until the manager has closed the
    /// command socket.
    pub fn let_another_trace(&self) {
        let (mut until_it_does, does) = io::pipe().unwrap();
        let this = rustix::process::getpid();
        // SAFETY: it touches no memory. Where only ancestors may trace, this one lets anybody.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        if fork().is_none() {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: a seizure reads and writes no memory.
            let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, this.as_raw_pid(), none, none) };
            assert_eq!(seized, 0, "a child may trace its parent");
            drop(does);
            self.stay_until_hung_up();
        }
        drop(does);
        let _ = until_it_does.read(&mut [0]);
    }

    /// Whether the manager has closed the command socket.
    pub fn is_hung_up(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.control, PollFlags::empty())], Some(&now)) != Ok(0)
    }

    /// Does something that the manager sees only when it is done.
    pub fn while_the_manager_stands_still(&self, act: impl FnOnce()) {
        let manager = rustix::process::getppid().expect("the manager has started this process");
        let (end, holder) = io::pipe().unwrap();
        // Whatever becomes of this process: stopped with the manager are the watchdogs of its tests.
        let Some(copy) = fork() else { continue_when_closed(manager, end, holder) };
        drop(end);
        rustix::process::kill_process(manager, Signal::STOP).unwrap();
        // Until it is stopped, or traced by somebody and stopped, or gone.
        while matches!(crate::state(manager.as_raw_pid() as u32), Some('R' | 'S' | 'D')) {
            std::thread::yield_now();
        }
        act();
        drop(holder);
        wait_for(copy);
    }

    /// The word at an offset into the ring's memory.
    pub fn word(&self, offset: u64) -> &AtomicU64 {
        let offset = offset as usize & !7;
        assert!(offset < self.ring.len());
        // SAFETY: the offset lies within the mapping.
        let word = unsafe { self.ring.as_mut_ptr().add(offset) };
        // SAFETY: the place is aligned, stays mapped with `self`, and is accessed as an atomic.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    pub fn capacity(&self) -> u64 {
        self.ring.len() as u64 - HEADER_BYTES
    }

    pub fn tail(&self) -> u64 {
        self.word(TAIL).load(Ordering::Acquire)
    }

    pub fn head(&self) -> u64 {
        self.word(HEAD).load(Ordering::Acquire)
    }

    /// Moves the tail, and rings the bell in case the manager sleeps.
    pub fn set_tail(&self, tail: u64) {
        self.word(TAIL).store(tail, Ordering::SeqCst);
        self.ring_data();
    }

    pub fn ring_data(&self) {
        let _ = rustix::io::write(&self.data, &1u64.to_ne_bytes());
    }

    /// Writes words behind the tail; the first one of a record is its word.
    pub fn write(&self, words: &[u64]) {
        for (position, word) in (self.tail()..).step_by(8).zip(words) {
            self.word(HEADER_BYTES + position % self.capacity()).store(*word, Ordering::Relaxed);
        }
    }

    /// Commits words as they are.
    pub fn commit_words(&self, words: &[u64]) {
        self.write(words);
        self.set_tail(self.tail() + words.len() as u64 * 8);
    }

    /// Commits an event of type 1 with a number, as a sound process does.
    pub fn commit(&self, number: u64) {
        self.word(COUNTERS).fetch_add(1, Ordering::Relaxed);
        self.commit_words(&[record_word(8, 1, 0), number]);
    }

    /// Commits a record of type 2 that names `len` bytes of a segment.
    pub fn commit_large(&self, segment: u64, len: u64) {
        self.commit_words(&[record_word(16, 2, LARGE), segment, len]);
    }

    /// Sends a segment as a sound process does.
    pub fn send_segment(&self, id: u32, bytes: u64) {
        let memory = memory(bytes, SIZE_SEALS);
        self.say_with(&Says::Segment { id, bytes, slots: u64::MAX }, &[memory.as_fd()]);
    }

    /// Waits until the manager has read all that was committed.
    pub fn wait_until_read(&self) {
        while self.head() != self.tail() {
            std::thread::yield_now();
        }
    }

    pub fn close_control(&mut self) {
        let null = File::open("/dev/null").unwrap();
        self.control = null.into();
    }
}

/// The first word of a record.
pub fn record_word(len: u32, type_id: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(type_id) << 32 | u64::from(flags) << 48
}

/// Memory of a size, with seals.
pub fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("eventpy-hostile", flags).unwrap();
    rustix::fs::ftruncate(&fd, bytes).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

/// An ordinary file that nobody finds.
pub fn file() -> OwnedFd {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::open(std::env::temp_dir(), flags, mode).unwrap());
    file.write_all(&[0; 4096]).unwrap();
    file.into()
}

/// The process of a copy, or `None` in the copy itself, which has this thread alone.
pub fn fork() -> Option<Pid> {
    // SAFETY: the copy allocates at most, which the C library allows after a fork.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "a process can be forked");
    Pid::from_raw(pid)
}

/// Ends a copy without what a program does at its end.
pub fn leave() -> ! {
    // SAFETY: it touches no memory.
    unsafe { libc::_exit(0) }
}

/// In a copy: lets the manager go on as soon as nobody holds the other end of a pipe any more.
fn continue_when_closed(manager: Pid, end: PipeReader, holder: PipeWriter) -> ! {
    drop(holder);
    let _ = rustix::stdio::dup2_stdin(end);
    // Nothing that the process has open stays so for the sake of its copy.
    // SAFETY: the copy uses none of them from here on, and never drops one.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    while rustix::io::read(io::stdin(), &mut [0; 1]) == Err(Errno::INTR) {}
    let _ = rustix::process::kill_process(manager, Signal::CONT);
    leave()
}

pub fn wait_for(copy: Pid) {
    let exited = rustix::process::waitpid(Some(copy), WaitOptions::empty());
    assert!(exited.is_ok_and(|exited| exited.is_some()), "a copy can be waited for");
}

fn receive(control: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(control, &mut into, &mut ancillary, flags).unwrap();
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    bytes.truncate(received.bytes);
    (bytes, descriptors)
}
