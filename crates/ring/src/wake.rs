//! Sleeping and waking without a lost wake-up, and without a system call while both sides run.
//!
//! Each direction is the same two-sided handshake (Dekker's):
//!
//! ```text
//! sleeper                          waker
//! S1  asleep = 1                   W1  position = new   (release)
//! S2  cold fence                   W2  hot fence
//! S3  look at position again       W3  look at asleep; if set, swap to 0 and ring the bell
//! S4  sleep if nothing was there
//! ```
//!
//! With a full fence at S2 and at W2 it can't be that S3 misses W1 *and* W3 misses S1: one of the
//! two fences comes first in the single order of `SeqCst` fences, and what precedes it is seen by
//! what follows the other. So either the sleeper sees the record, or the waker sees the sleeper.
//!
//! A full fence at W2 waits for the store of W1 to leave the core, on every record. Where the
//! kernel has the `membarrier` system call, the sleeper pays instead: its barrier runs a full
//! fence on every core that runs a registered process, at a moment between S1 and S3. The waker
//! executes that fence before its W1, or between W1 and W3, or after W3. In the first and second
//! case W3 comes after the fence and sees S1; in the second and third W1 comes before it, and S3
//! sees W1. So W2 need only keep the compiler from exchanging W1 and W3.
//!
//! The bell is level-triggered and raised after the flag was set, so ringing too often is harmless.

use crate::sync::{AtomicU64, Ordering, fence};

/// How the side that sleeps is woken: an eventfd between processes, a model's own in a model.
pub trait Bell {
    /// Wakes the other side. It never blocks, and a second ring is as good as one.
    fn ring(&self);
}

/// The fence on the side that wakes, executed for every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotFence {
    /// A full fence: right under all circumstances.
    Full,
    /// None for the processor. Right only if this process is registered for barriers and every
    /// sleeper of the other side uses [`ColdFence::Everywhere`].
    Compiler,
}

impl HotFence {
    #[inline]
    fn execute(self) {
        match self {
            HotFence::Full => fence(Ordering::SeqCst),
            HotFence::Compiler => {
                core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst)
            }
        }
    }
}

/// The fence on the side that goes to sleep, executed once per sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColdFence {
    /// A full fence of this thread.
    Full,
    /// A full fence of every thread of every registered process, by `membarrier`.
    Everywhere,
}

impl ColdFence {
    /// Executes the fence. One execution serves any number of rings that were armed before it.
    pub fn execute(self) {
        fence(Ordering::SeqCst);
        #[cfg(not(loom))]
        if self == ColdFence::Everywhere {
            let done = crate::os::barrier_everywhere();
            debug_assert!(done, "a registered process can always use the barrier");
            fence(Ordering::SeqCst);
        }
    }
}

/// Registers this process for the other side's barriers and says which fence its sleepers may use:
/// [`ColdFence::Everywhere`] where the kernel has `membarrier`, else [`ColdFence::Full`].
#[cfg(not(loom))]
pub fn register_for_barriers() -> ColdFence {
    if crate::os::register_for_barriers() && crate::os::barrier_everywhere() {
        ColdFence::Everywhere
    } else {
        ColdFence::Full
    }
}

/// S1: announces that this side is about to sleep, until `state` is what it waits for.
pub(crate) fn announce(flag: &AtomicU64, state: u64) {
    // Relaxed: ordered by the cold fence that follows.
    flag.store(state, Ordering::Relaxed);
}

/// Takes the announcement back; false if a waker took it first, and rings the bell.
pub(crate) fn retract(flag: &AtomicU64) -> bool {
    // Relaxed: the exchange itself decides who has taken it.
    flag.swap(0, Ordering::Relaxed) != 0
}

/// W2 and W3. `due` says whether a sleeper that announced this state is to be woken.
#[inline]
pub(crate) fn wake(flag: &AtomicU64, hot: HotFence, bell: &impl Bell, due: impl Fn(u64) -> bool) {
    hot.execute();
    // Relaxed: ordered by the hot fence.
    let state = flag.load(Ordering::Relaxed);
    if state != 0 && due(state) {
        ring_once(flag, bell);
    }
}

#[cold]
fn ring_once(flag: &AtomicU64, bell: &impl Bell) {
    // The swap decides between two wakers (the consumer and a segment given back by another
    // thread). Relaxed: the bell itself orders what the sleeper sees.
    if flag.swap(0, Ordering::Relaxed) != 0 {
        bell.ring();
    }
}
