//! Whether a dispatcher has anything for a pump, at the cost of one load.
//!
//! A manager may have hundreds of dispatchers that are mostly idle. What a dispatcher is takes many
//! cache lines; a pump looks at these small ones first.

use eventpy_ring::TailWatch;

/// A glance at one dispatcher.
#[derive(Default)]
pub(crate) struct Glance {
    watch: Option<TailWatch>,
    /// The tail up to which there is nothing to do; `None` if there is something that the tail
    /// doesn't show.
    idle_at: Option<u64>,
}

impl Glance {
    /// A new process: its ring is empty.
    pub(crate) fn watch(&mut self, watch: TailWatch) {
        *self = Glance { watch: Some(watch), idle_at: Some(0) };
    }

    /// Whether there is nothing to do.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.watch.as_ref().is_none_or(|watch| Some(watch.tail()) == self.idle_at)
    }

    /// All up to this tail was read.
    pub(crate) fn idle_at(&mut self, tail: u64) {
        self.idle_at = Some(tail);
    }

    /// There is something to do that the tail doesn't show.
    pub(crate) fn look_closer(&mut self) {
        self.idle_at = None;
    }

    /// The process and its ring are gone.
    pub(crate) fn forget(&mut self) {
        *self = Glance::default();
    }
}
