//! What a dispatcher process knows of its own end: shared by its loop and its watcher.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use eventpy_ring::{Bell, EventBell};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::os;
use crate::space;
use crate::waiter::{LONGEST_WAIT, timespec};

/// The bells are shared with copies that the dispatcher's code forks off, so those must not ring them.
pub(crate) struct Status {
    ending: AtomicBool,
    urgent: AtomicBool,
    orphaned: AtomicBool,
    updating: AtomicBool,
    /// Rung when any of these is set; never silenced.
    ended: EventBell,
    /// Rung for SIGTERM; never silenced.
    interrupted: EventBell,
    /// Rung when the manager is gone; never silenced.
    abandoned: EventBell,
    /// The manager's process: readable once it is gone.
    manager: OwnedFd,
    /// When the update began, in microseconds after `start`, plus one and what it has waited since;
    /// 0 outside of an update and while it waits.
    update_since: AtomicU64,
    /// What the update had worked when it began to wait, in microseconds.
    worked: AtomicU64,
    updates: AtomicU64,
    start: Instant,
    /// Whose waits are those of the update.
    thread: ThreadId,
    /// To notice that this process is a forked copy.
    forks: u32,
}

/// Why a wait for room was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Room,
    Interrupted,
    ManagerGone,
}

impl Status {
    pub(crate) fn new(manager: OwnedFd) -> io::Result<Status> {
        Ok(Status {
            ending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            orphaned: AtomicBool::new(false),
            updating: AtomicBool::new(false),
            ended: EventBell::new()?,
            interrupted: EventBell::new()?,
            abandoned: EventBell::new()?,
            manager,
            update_since: AtomicU64::new(0),
            worked: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            start: Instant::now(),
            thread: std::thread::current().id(),
            forks: os::fork_count(),
        })
    }

    /// Whether the dispatcher's code forked this process off.
    #[inline]
    pub(crate) fn is_forked_copy(&self) -> bool {
        self.forks != os::fork_count_again()
    }

    /// A copy shares the ring, of which it knows less and less.
    #[inline]
    pub(crate) fn check_is_no_copy(&self) -> Result<(), Error> {
        if self.is_forked_copy() { Err(forked()) } else { Ok(()) }
    }

    /// The dispatcher is to end after the current update.
    pub(crate) fn end(&self) {
        if self.is_forked_copy() {
            return;
        }
        self.ending.store(true, Ordering::Release);
        self.ended.ring();
    }

    /// SIGTERM: the dispatcher is to end, and the current update need not get its events through.
    pub(crate) fn interrupt(&self) {
        if self.is_forked_copy() {
            return;
        }
        self.urgent.store(true, Ordering::Release);
        // Before the bell: whoever it wakes finds that the dispatcher is to end.
        self.end();
        self.interrupted.ring();
    }

    /// The manager's process is gone, or has given this one up.
    pub(crate) fn orphan(&self) {
        self.orphaned.store(true, Ordering::Release);
        self.end();
        self.abandoned.ring();
    }

    #[inline]
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn is_orphaned(&self) -> bool {
        self.orphaned.load(Ordering::Acquire)
    }

    pub(crate) fn manager(&self) -> BorrowedFd<'_> {
        self.manager.as_fd()
    }

    /// Sleeps until the time is over or the dispatcher is to end; false for the latter. Each signal
    /// that wakes it is answered by `on_signal`, whose error ends the sleep.
    pub(crate) fn sleep<E>(
        &self,
        time: Duration,
        mut on_signal: impl FnMut() -> Result<(), E>,
    ) -> Result<bool, E> {
        let until = Instant::now().checked_add(time);
        while !self.is_ending() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(true);
            }
            let mut ended = [PollFd::new(&self.ended, PollFlags::IN)];
            let left = left.map(|left| timespec(left.min(LONGEST_WAIT)));
            match rustix::event::poll(&mut ended, left.as_ref()) {
                Err(Errno::INTR) => on_signal()?,
                // Only a forked copy has not heard of it before.
                Ok(1) => self.ending.store(true, Ordering::Release),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Sleeps until `space` rings or the manager is gone, and unless it is `patient`, until
    /// SIGTERM.
    pub(crate) fn wait_for(&self, space: &OwnedFd, patient: bool) -> Waited {
        loop {
            let mut descriptors = [
                PollFd::new(space, PollFlags::IN),
                PollFd::new(&self.abandoned, PollFlags::IN),
                PollFd::new(&self.interrupted, PollFlags::IN),
            ];
            let watched = if patient { 2 } else { 3 };
            if rustix::event::poll(&mut descriptors[..watched], None).is_err() {
                continue;
            }
            // The manager has closed its end: it reads no more.
            let hung_up = descriptors[0].revents().contains(PollFlags::HUP);
            let [room, abandoned, interrupted] =
                descriptors.map(|descriptor| !descriptor.revents().is_empty());
            if hung_up || abandoned {
                return Waited::ManagerGone;
            }
            if room {
                space::silence(space);
                return Waited::Room;
            }
            if interrupted && !patient {
                return Waited::Interrupted;
            }
        }
    }

    /// An update begins.
    pub(crate) fn begin_update(&self) {
        self.updates.fetch_add(1, Ordering::Relaxed);
        self.worked.store(0, Ordering::Relaxed);
        self.resume_update();
    }

    /// The update is over.
    pub(crate) fn end_update(&self) {
        self.update_since.store(0, Ordering::Relaxed);
        self.worked.store(0, Ordering::Relaxed);
    }

    /// An update begins or is over; also without a time limit.
    pub(crate) fn set_updating(&self, updating: bool) {
        self.updating.store(updating, Ordering::Release);
    }

    pub(crate) fn is_updating(&self) -> bool {
        self.updating.load(Ordering::Acquire)
    }

    /// Waits within an update, which does not count as work.
    pub(crate) fn waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        let is_timed = self.update_since.load(Ordering::Relaxed) != 0
            && self.thread == std::thread::current().id();
        if !is_timed {
            return wait();
        }
        self.pause_update();
        let waited = wait();
        self.resume_update();
        waited
    }

    fn pause_update(&self) {
        let since = self.update_since.load(Ordering::Relaxed);
        self.worked.store((self.now() + 1).saturating_sub(since), Ordering::Relaxed);
        self.update_since.store(0, Ordering::Relaxed);
    }

    fn resume_update(&self) {
        let worked = self.worked.load(Ordering::Relaxed);
        self.update_since.store(self.now() + 1 - worked, Ordering::Relaxed);
    }

    /// The number of the current update, and how long it has been at work without the time it waited.
    pub(crate) fn work_in_progress(&self) -> (u64, Duration) {
        let worked = match self.update_since.load(Ordering::Relaxed) {
            0 => self.worked.load(Ordering::Relaxed),
            since => (self.now() + 1).saturating_sub(since),
        };
        (self.updates.load(Ordering::Relaxed), Duration::from_micros(worked))
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

#[cold]
fn forked() -> Error {
    Error::new(
        ErrorKind::State,
        "cannot send an event: this process was forked from the dispatcher's; only the dispatcher's \
         own process can send, so hand it what is to be sent",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRETCH: Duration = Duration::from_millis(5);

    fn work_of(status: &Status) -> Duration {
        status.work_in_progress().1
    }

    #[test]
    fn work_adds_up_over_the_waits_of_an_update() {
        let manager = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty());
        let status = Status::new(manager.expect("it can be made")).expect("it can be made");
        for _ in 0..2 {
            let start = Instant::now();
            status.begin_update();
            for stretch in 1..=10 {
                std::thread::sleep(STRETCH);
                status.waiting(|| {
                    assert!(work_of(&status) >= stretch * STRETCH - Duration::from_millis(1));
                    std::thread::sleep(STRETCH);
                });
            }
            assert!(work_of(&status) <= start.elapsed() - 10 * STRETCH);
            status.end_update();
            assert_eq!(work_of(&status), Duration::ZERO);
        }
    }

    #[test]
    fn a_wait_of_another_thread_is_none_of_the_update() {
        let manager = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty());
        let status = Status::new(manager.expect("it can be made")).expect("it can be made");
        status.begin_update();
        std::thread::scope(|scope| {
            scope.spawn(|| status.waiting(|| std::thread::sleep(STRETCH)));
        });
        assert!(work_of(&status) >= STRETCH);
    }
}
