//! The pump: who has something, waiting for it, and yielding it in turns.

use std::time::{Duration, Instant};

use crate::dispatcher::{Dispatcher, Life, Notice};
use crate::engine::{DispatcherId, Engine, Notices, Runtime};
use crate::error::{Error, ErrorKind};
use crate::glance::Glance;
use crate::link::Link;
use crate::options::Selection;
use crate::record::{Record, RingRecord};
use crate::report::{DispatcherEnded, DispatcherFailed, DispatcherRestarted};
use crate::waiter::{Sleep, Woken};

/// How long a pump that is to wait looks at the rings before it sleeps, if events come fast. About
/// what a sleep and a wake-up take of both sides, so that at worst twice the least time is spent.
const SPIN_TIME: Duration = Duration::from_micros(5);

/// Events come fast while sleeps are shorter than this.
const SHORT_SLEEP: Duration = Duration::from_micros(50);

/// Records of one dispatcher that are yielded before the next one has its turn.
const TURN_RECORDS: u32 = 256;

/// Why the engine is pumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pump {
    /// For what is there, without waiting.
    Now,
    /// For what is there, waiting for the first of it at most this long. A signal cuts it short.
    Wait(Duration),
    /// For one step of an ending: waits until there is something, or all dispatchers have ended.
    End,
}

/// What a pump yields.
pub enum Yield<'a> {
    /// An event.
    Record(Record<'a>),
    /// A dispatcher failed.
    Failed(DispatcherFailed),
    /// A dispatcher was started anew.
    Restarted(DispatcherRestarted),
    /// A dispatcher ended.
    Ended(DispatcherEnded),
}

#[derive(Default)]
pub(crate) struct PumpState {
    active: bool,
    /// Dispatchers that have records in this pump, in the order of their turns.
    turns: Vec<u32>,
    /// Whose turn it is: a place in `turns`.
    at: usize,
    left_in_turn: u32,
    /// Whether the pump found anything to yield.
    found_any: bool,
    /// The dispatcher that the next pump begins with.
    first: usize,
    /// When the sleep began that is under way.
    sleeps_since: Option<Instant>,
    /// Whether the last sleep was so short that it would have been better to look a little longer.
    spins: bool,
    /// A look has found something, which the pump is yet to find too: it may be nothing for it.
    has_spun: bool,
    pub(crate) notices: Notices,
}

enum Next {
    Record(usize),
    Notice(Notice),
    Nothing,
}

impl Engine {
    /// Fixes what [`next_delivery`](Self::next_delivery) will yield: what is there now or, for a
    /// waiting pump, as soon as anything is there.
    ///
    /// Without waiting it makes no system call, unless a process has said something or exited, a
    /// time-out is due, or a dispatcher sleeps for want of room.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when nothing is deployed or this process is a forked copy,
    /// [`ErrorKind::Reentrant`] while another pump is under way (an ending one may begin then),
    /// [`ErrorKind::System`] when the operating system refuses to wait.
    pub fn begin_pump(&mut self, which: &Selection, pump: Pump) -> Result<(), Error> {
        self.check_own_process("invoke_dispatch")?;
        self.check_deployed("invoke_dispatch")?;
        if self.pump.active && pump != Pump::End {
            return Err(Error::new(
                ErrorKind::Reentrant,
                "invoke_dispatch was called while it is under way: if that is within a callback, return from it instead; if it is another thread, pump in one only",
            ));
        }
        self.leave_outside_wait();
        self.wait_for_something(which, pump)?;
        self.pump.active = true;
        Ok(())
    }

    /// The dispatcher and the type of the next event, if [`take_in_ring`](Self::take_in_ring) may
    /// yield it.
    #[inline]
    pub fn next_in_ring(&mut self) -> Option<(DispatcherId, u16)> {
        let &turn = self.pump.turns.get(self.pump.at)?;
        if self.pump.left_in_turn == 0 || self.is_forked_copy() {
            return None;
        }
        let type_id = self.dispatchers[turn as usize].next_type()?;
        Some((DispatcherId(turn), type_id))
    }

    /// Yields the next event of this pump, if it comes from the same dispatcher as the one before,
    /// is of this type and lies in the ring as it is: a short cut past
    /// [`next_delivery`](Self::next_delivery), to which everything else is left.
    #[inline(always)]
    pub fn take_in_ring(&mut self, type_id: u16) -> Option<RingRecord<'_>> {
        let &turn = self.pump.turns.get(self.pump.at)?;
        let left = self.pump.left_in_turn.checked_sub(1)?;
        if self.is_forked_copy() {
            return None;
        }
        let record = self.dispatchers[turn as usize].take_in_ring(type_id)?;
        self.pump.left_in_turn = left;
        Some(record)
    }

    /// The next thing to deliver; `None` when the pump is over.
    pub fn next_delivery(&mut self) -> Option<Yield<'_>> {
        if self.is_forked_copy() {
            return None;
        }
        match self.next() {
            Next::Record(index) => {
                let id = DispatcherId(index as u32);
                self.dispatchers[index].record(id).map(Yield::Record)
            }
            Next::Notice(Notice::Failed(failed)) => Some(Yield::Failed(failed)),
            Next::Notice(Notice::Restarted(restarted)) => Some(Yield::Restarted(restarted)),
            Next::Notice(Notice::Ended(ended)) => Some(Yield::Ended(ended)),
            Next::Nothing => {
                self.stop_pump();
                None
            }
        }
    }

    /// Ends a pump before it is over; what was not yielded stays queued.
    pub fn stop_pump(&mut self) {
        if self.is_forked_copy() {
            return;
        }
        for &index in &self.pump.turns {
            self.dispatchers[index as usize].end_turn();
        }
        self.pump.turns.clear();
        self.pump.active = false;
        self.prepare_for_outside_wait();
        self.close_if_ended();
    }

    /// A copy reads nothing and writes nothing: the rings are the original's.
    #[inline]
    fn is_forked_copy(&self) -> bool {
        self.runtime.as_ref().is_some_and(Runtime::is_forked_copy)
    }

    fn next(&mut self) -> Next {
        while let Some(&turn) = self.pump.turns.get(self.pump.at) {
            let index = turn as usize;
            let dispatcher = &mut self.dispatchers[index];
            if self.pump.left_in_turn > 0 && dispatcher.next_record() {
                self.pump.left_in_turn -= 1;
                return Next::Record(index);
            }
            self.end_turn(index);
        }
        match self.pump.notices.pop_front() {
            Some(notice) => Next::Notice(notice),
            None => Next::Nothing,
        }
    }

    /// Passes the turn on: to the next dispatcher, which is the first again after the last.
    fn end_turn(&mut self, index: usize) {
        let used_up = self.pump.left_in_turn == 0;
        let dispatcher = &mut self.dispatchers[index];
        dispatcher.end_turn();
        if let Some(runtime) = &self.runtime
            && dispatcher.link.as_ref().is_some_and(Link::has_inbox)
        {
            // Received on the way to a segment: the socket no longer shows it.
            runtime.attention.raise();
        }
        self.pump.left_in_turn = TURN_RECORDS;
        if used_up {
            self.pump.at += 1;
        } else {
            self.pump.turns.remove(self.pump.at);
            if dispatcher.life == Life::Exited && !dispatcher.begin_turn() {
                self.settle(index);
            }
        }
        if self.pump.at >= self.pump.turns.len() {
            self.pump.at = 0;
        }
    }

    fn wait_for_something(&mut self, which: &Selection, pump: Pump) -> Result<(), Error> {
        let until = match pump {
            Pump::Wait(timeout) => Instant::now().checked_add(timeout),
            Pump::Now | Pump::End => None,
        };
        loop {
            self.look_around(which);
            let found = !self.pump.turns.is_empty() || !self.pump.notices.is_empty();
            self.pump.found_any = found;
            if std::mem::take(&mut self.pump.has_spun) {
                self.pump.spins = found;
            }
            if found || pump == Pump::Now || (pump == Pump::End && self.has_ended(which)) {
                return Ok(());
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            if !self.sleep(which, until)? && pump != Pump::End {
                return Ok(());
            }
        }
    }

    /// Sees to processes and deadlines, and finds out whose turn it is.
    fn look_around(&mut self, which: &Selection) {
        let Some(runtime) = &self.runtime else { return };
        if runtime.attention.is_raised() {
            self.attend();
        }
        self.keep_time();
        self.pump.turns.clear();
        self.pump.at = 0;
        self.pump.left_in_turn = TURN_RECORDS;
        let count = self.dispatchers.len();
        self.pump.first = if self.pump.first + 1 < count { self.pump.first + 1 } else { 0 };
        for index in (self.pump.first..count).chain(0..self.pump.first) {
            if !self.glances[index].is_idle() && which.has(index) {
                self.look_closer(index);
            }
        }
        self.close_if_ended();
    }

    fn look_closer(&mut self, index: usize) {
        let dispatcher = &mut self.dispatchers[index];
        if dispatcher.begin_turn() {
            self.pump.turns.push(index as u32);
        } else if dispatcher.life == Life::Exited {
            self.settle(index);
        } else if let Some(link) = dispatcher.readable_link() {
            self.glances[index].idle_at(link.consumer.limit());
        }
    }

    /// Prepares a sleep until there may be something for these dispatchers. `None`: there is
    /// something already.
    ///
    /// [`Pump::Wait`] does the same by itself. This is for a face that lets other threads at the
    /// engine meanwhile: sleep, then call [`end_sleep`](Self::end_sleep), then pump.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when nothing is deployed.
    pub fn begin_sleep(
        &mut self,
        which: &Selection,
        until: Option<Instant>,
    ) -> Result<Option<Sleep>, Error> {
        self.check_deployed("invoke_dispatch")?;
        if !self.pump.notices.is_empty() {
            return Ok(None);
        }
        if self.spin(which, until) {
            self.pump.has_spun = true;
            self.pump.spins = false;
            return Ok(None);
        }
        if self.announce_sleep(which) {
            self.stay_awake();
            return Ok(None);
        }
        self.pump.sleeps_since = Some(Instant::now());
        Ok(self.runtime.as_ref().map(|runtime| runtime.sleep(until)))
    }

    /// Looks for a little longer whether there is something; true if there may be.
    fn spin(&self, which: &Selection, until: Option<Instant>) -> bool {
        let Some(runtime) = self.runtime.as_ref().filter(|_| self.pump.spins) else { return false };
        let now = Instant::now();
        let end = until.map_or(now + SPIN_TIME, |until| until.min(now + SPIN_TIME));
        while Instant::now() < end {
            let is_idle = |(index, glance): (usize, &Glance)| glance.is_idle() || !which.has(index);
            if runtime.attention.is_raised() || !self.glances.iter().enumerate().all(is_idle) {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Takes the announcements of [`begin_sleep`](Self::begin_sleep) back.
    pub fn end_sleep(&mut self, woken: Woken) {
        self.stay_awake();
        let slept = self.pump.sleeps_since.take().map(|since| since.elapsed());
        self.pump.spins = slept.is_some_and(|slept| slept < SHORT_SLEEP);
        if let Some(runtime) = &self.runtime
            && woken == Woken::Process
        {
            // The thread that raises the flag may not have run yet.
            runtime.attention.raise();
        }
    }

    /// Wakes whoever sleeps, and keeps all awake until [`calm`](Self::calm).
    pub fn rouse(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.waiter.show_ready();
        }
    }

    /// Takes [`rouse`](Self::rouse) back. Then pump: it also takes back what a loop outside waits
    /// for.
    pub fn calm(&self) {
        if let Some(runtime) = &self.runtime {
            runtime.waiter.settle(false);
        }
    }

    /// Sleeps until there may be something; false if a signal woke it.
    fn sleep(&mut self, which: &Selection, until: Option<Instant>) -> Result<bool, Error> {
        let Some(sleep) = self.begin_sleep(which, until)? else { return Ok(true) };
        let woken = sleep.wait();
        self.end_sleep(*woken.as_ref().unwrap_or(&Woken::Other));
        Ok(woken? != Woken::Signal)
    }

    /// Tells dispatchers that we are about to sleep; true if there is something after all.
    pub(crate) fn announce_sleep(&self, which: &Selection) -> bool {
        let Some(runtime) = &self.runtime else { return true };
        let links = || {
            let chosen = self.dispatchers.iter().enumerate().filter(|(index, _)| which.has(*index));
            chosen.filter_map(|(_, dispatcher)| dispatcher.readable_link())
        };
        links().for_each(|link| link.consumer.announce_sleep());
        runtime.cold.execute();
        runtime.attention.is_raised() || links().any(|link| link.consumer.has_records())
    }

    /// Takes the announcement back; true if a dispatcher has rung its bell meanwhile.
    fn stay_awake(&mut self) -> bool {
        let mut rung = false;
        for link in self.dispatchers.iter().filter_map(|dispatcher| dispatcher.link.as_ref()) {
            rung |= link.consumer.stay_awake();
        }
        rung
    }

    /// Between pumps a loop outside may wait for the descriptor: then we count as asleep.
    pub(crate) fn prepare_for_outside_wait(&mut self) {
        let Some(runtime) = self.runtime.as_ref().filter(|runtime| runtime.exported) else {
            return;
        };
        if !self.pump.found_any {
            // The descriptor was readable for something that is no more, or not for us: a bell
            // that rang late, or more of them than were taken note of at a time.
            runtime.waiter.take_note_of_all();
        }
        let is_left =
            |dispatcher: &Dispatcher| dispatcher.life == Life::Exited || dispatcher.has_left_over();
        let something = self.announce_sleep(&Selection::All)
            || !self.pump.notices.is_empty()
            || self.dispatchers.iter().any(is_left);
        if let Some(runtime) = &mut self.runtime {
            runtime.waiter.set_timer(runtime.deadline);
            if something {
                runtime.waiter.show_ready();
            }
        }
    }

    pub(crate) fn leave_outside_wait(&mut self) {
        if !self.runtime.as_ref().is_some_and(|runtime| runtime.exported) {
            return;
        }
        let rung = self.stay_awake();
        if let Some(runtime) = &mut self.runtime {
            runtime.waiter.settle(rung);
        }
    }
}
