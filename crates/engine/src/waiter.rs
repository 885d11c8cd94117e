//! The one descriptor that says that there is something to pump, and sleeping on it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eventpy_ring::{Bell, EventBell};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::error::{Error, ErrorKind};
use crate::link::Link;

/// An epoll set over every ring's bell, process and command socket.
///
/// Bells are edge-triggered: each ring of one is seen once and never has to be silenced. Processes
/// and sockets are level-triggered: they stay readable until they are handled.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: OwnedFd,
    /// Readable while something waits that no other descriptor shows.
    ready: EventBell,
    /// Readable when a deadline is due, for loops that wait for the descriptor alone.
    timer: OwnedFd,
    is_ready: AtomicBool,
    is_timed: AtomicBool,
}

/// A sleep that was prepared. It needs the engine only before and after.
#[derive(Debug)]
pub struct Sleep {
    waiter: Arc<Waiter>,
    until: Option<Instant>,
}

impl Sleep {
    pub(crate) fn new(waiter: &Arc<Waiter>, until: Option<Instant>) -> Sleep {
        Sleep { waiter: Arc::clone(waiter), until }
    }

    /// Sleeps until there may be something, the time is over, or a signal came.
    ///
    /// # Errors
    /// [`ErrorKind::System`] when the operating system refuses.
    pub fn wait(&self) -> Result<Woken, Error> {
        let timeout = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        self.waiter.wait(timeout).map_err(|source| {
            Error::with_source(
                ErrorKind::System,
                format!("cannot wait for dispatchers (epoll_wait): {source}"),
                source,
            )
        })
    }
}

/// What ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// A process exited or said something.
    Process,
    /// A signal of this process.
    Signal,
    /// A bell, the timer, or the end of the time.
    Other,
}

/// The kernel counts milliseconds in an int; whoever waits longer looks and waits again.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

const PROCESS: u64 = 1;
const OTHER: u64 = 0;

impl Waiter {
    pub(crate) fn new() -> io::Result<Waiter> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ready = EventBell::new()?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        epoll::add(&epoll, &ready, EventData::new_u64(OTHER), EventFlags::IN)?;
        epoll::add(&epoll, &timer, EventData::new_u64(OTHER), EventFlags::IN)?;
        Ok(Waiter {
            epoll,
            ready,
            timer,
            is_ready: AtomicBool::new(false),
            is_timed: AtomicBool::new(false),
        })
    }

    pub(crate) fn watch(&self, link: &Link) -> io::Result<()> {
        let (bell, process) = (EventData::new_u64(OTHER), EventData::new_u64(PROCESS));
        epoll::add(&self.epoll, link.data_bell(), bell, EventFlags::IN | EventFlags::ET)?;
        epoll::add(&self.epoll, link.process.as_fd(), process, EventFlags::IN)?;
        Ok(epoll::add(&self.epoll, link.control(), process, EventFlags::IN)?)
    }

    /// Removes what [`watch`](Self::watch) added. A closed descriptor would stay in the set while
    /// a forked copy of this process has it open.
    pub(crate) fn unwatch(&self, link: &Link) {
        for descriptor in [link.data_bell(), link.process.as_fd(), link.control()] {
            let _ = epoll::delete(&self.epoll, descriptor);
        }
    }

    pub(crate) fn unwatch_control(&self, link: &Link) {
        let _ = epoll::delete(&self.epoll, link.control());
    }

    /// Sleeps until a descriptor is ready, the time is over, or a signal came; at the most a day.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Woken> {
        let timeout = timeout.map(|timeout| timespec(timeout.min(LONGEST_WAIT)));
        let mut space = [std::mem::MaybeUninit::uninit(); 64];
        match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((events, _)) if events.iter().any(|event| event.data.u64() == PROCESS) => {
                Ok(Woken::Process)
            }
            Ok(_) => Ok(Woken::Other),
            Err(rustix::io::Errno::INTR) => Ok(Woken::Signal),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes note of what was ready, so that the descriptor turns unreadable. `rung` says whether
    /// a ring's bell was among it.
    pub(crate) fn settle(&self, rung: bool) {
        if self.is_ready.swap(false, Ordering::Relaxed) {
            self.ready.silence();
        }
        if rung {
            self.take_note_of_all();
        }
        self.set_timer(None);
    }

    /// Takes note of all bells that have rung.
    pub(crate) fn take_note_of_all(&self) {
        let mut space = [std::mem::MaybeUninit::uninit(); 64];
        let now = timespec(Duration::ZERO);
        // Processes stay readable until they are handled: the rounds are limited for their sake.
        for _ in 0..64 {
            match epoll::wait(&self.epoll, &mut space, Some(&now)) {
                Ok((events, _)) if events.len() == 64 => {}
                _ => break,
            }
        }
    }

    /// Makes the descriptor readable until [`settle`](Self::settle).
    pub(crate) fn show_ready(&self) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            self.ready.ring();
        }
    }

    /// Makes the descriptor readable at a time.
    pub(crate) fn set_timer(&self, deadline: Option<Instant>) {
        let was_set = self.is_timed.swap(deadline.is_some(), Ordering::Relaxed);
        if deadline.is_none() && !was_set {
            return;
        }
        // Zero would disarm the timer: a deadline that has passed is due in a nanosecond.
        let left = deadline
            .map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)));
        let value = Itimerspec {
            it_interval: timespec(Duration::ZERO),
            it_value: timespec(left.unwrap_or_default()),
        };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value);
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
