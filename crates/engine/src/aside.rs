//! Closing what another process chose.
//!
//! Whoever closes the last descriptor of a connection that lingers, or of a file whose file system
//! answers late, waits for that. A dispatcher process can send such descriptors over its command
//! socket, and can leave them in there unreceived, so that closing the socket closes them.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::os;

/// How long the one who drops waits for the thread that closes. It takes some microseconds, unless
/// the machine is overloaded or somebody means harm.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same while others are late, so that many who mean harm take little more time than one.
const PATIENCE_WHILE_LATE: Duration = Duration::from_millis(1);

/// Threads that still close what nobody waits for any more.
static LATE: AtomicUsize = AtomicUsize::new(0);

/// Something that holds descriptors of another process's choice. It is dropped in a thread of its
/// own; whoever drops it goes on when that is done, and after a second in any case.
pub(crate) struct Aside<T: Send + 'static> {
    value: Option<T>,
    forks: u32,
}

impl<T: Send + 'static> Aside<T> {
    pub(crate) fn new(value: T) -> Aside<T> {
        Aside { value: Some(value), forks: os::fork_count() }
    }

    /// For one who knows that it can be closed without waiting.
    pub(crate) fn into_inner(mut self) -> T {
        self.value.take().expect("only this and a drop take it")
    }
}

impl<T: Send + 'static> Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("only a drop takes it")
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        // A forked copy keeps to one thread, and the original most likely has them open too.
        if self.forks != os::fork_count_again() {
            return drop(value);
        }
        let (closing, closed) = mpsc::channel::<()>();
        // Set by whoever comes first: the thread when it is done, or the one who waits no longer.
        let is_settled = Arc::new(AtomicBool::new(false));
        let settled_here = Arc::clone(&is_settled);
        // Without a thread to be had, the value is dropped here.
        let thread = os::spawn_without_signals("eventpy-close", move || {
            drop(value);
            if settled_here.swap(true, Ordering::Relaxed) {
                LATE.fetch_sub(1, Ordering::Relaxed);
            }
            drop(closing);
        });
        let Ok(thread) = thread else { return };
        let is_first = LATE.load(Ordering::Relaxed) == 0;
        let patience = if is_first { PATIENCE } else { PATIENCE_WHILE_LATE };
        if closed.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected) {
            let _ = thread.join();
            return;
        }
        LATE.fetch_add(1, Ordering::Relaxed);
        if is_settled.swap(true, Ordering::Relaxed) {
            LATE.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;
    use std::time::Instant;

    use super::*;

    /// Says when its drop is through, which begins with a wait for a word or for a hang-up.
    struct Slow(mpsc::Receiver<()>, Sender<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            let _ = self.0.recv();
            let _ = self.1.send(());
        }
    }

    #[test]
    fn a_drop_is_done_when_it_returns() {
        let (go, going) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        go.send(()).unwrap();
        drop(Aside::new(Slow(going, done)));
        assert_eq!(is_done.try_recv(), Ok(()));
    }

    #[test]
    fn drops_that_take_too_long_go_on_alone_and_only_the_first_is_waited_for() {
        let start = Instant::now();
        let mut all = Vec::new();
        for number in 0..100 {
            let (go, going) = mpsc::channel();
            let (done, is_done) = mpsc::channel();
            drop(Aside::new(Slow(going, done)));
            assert!(is_done.try_recv().is_err());
            all.push((go, is_done));
            assert!(number > 0 || start.elapsed() >= PATIENCE);
        }
        assert!(LATE.load(Ordering::Relaxed) >= 100);
        for (go, is_done) in all {
            drop(go);
            assert_eq!(is_done.recv(), Ok(()));
        }
        while LATE.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_is_taken_out_is_dropped_by_whoever_has_it() {
        let (_go, going) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let slow = Aside::new(Slow(going, done)).into_inner();
        assert!(is_done.try_recv().is_err());
        std::mem::forget(slow);
    }
}
