//! A dispatcher's life: one state, moved on by messages, exits and deadlines.
//!
//! ```text
//! Idle -> Starting -> Running -> Ending -> Exited -> Ended
//!            ^            \________________^   |  \-> Failed
//!            |                                 v
//!            +----------- Waiting <------------+      (restart rule)
//! ```
//!
//! `Exited` lasts until the pump has yielded the last record of the ring, so that whatever follows
//! (a failure, a restart, an end) comes after all that was sent before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use eventpy_ring::HotFence;
use rustix::process::Signal;

use crate::engine::DispatcherId;
use crate::latest::{LatestQueue, Queued};
use crate::link::Link;
use crate::options::{Delivery, DispatcherSpec, Restart, RestartWhen};
use crate::os;
use crate::protocol::FromChild;
use crate::record::{LargePayload, Record};
use crate::report::{
    Counts, DispatcherEnded, DispatcherFailed, DispatcherReport, DispatcherRestarted,
    DispatcherState, DispatcherStats, Exit, Phase,
};

/// The step of an ending that was taken last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Asked,
    Terminated,
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Idle,
    Starting { deadline: Instant },
    Running,
    Ending { step: Step, deadline: Instant },
    Exited,
    Waiting { until: Instant, backoff: Duration },
    Ended,
    Failed,
}

/// Why a dispatcher failed, as far as known before its process is gone.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) phase: Phase,
    pub(crate) reason: String,
    pub(crate) traceback: String,
    /// The dispatcher could not be loaded, as opposed to not started.
    pub(crate) in_load: bool,
}

/// What befell a dispatcher, to be told after all its records.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    Failed(DispatcherFailed),
    Restarted(DispatcherRestarted),
    Ended(DispatcherEnded),
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    delivered: u64,
    /// Passed over by the pump.
    passed_over: u64,
    /// Dropped by processes that are gone.
    dropped_before: u64,
    /// Sent by processes that are gone.
    sent_before: u64,
    lost: u64,
}

impl Tally {
    /// Events dropped so far, given what the process reports. It can't have dropped more than it
    /// has sent.
    fn dropped(&self, reported: u64, dropped: u64) -> u64 {
        let before = self.passed_over.saturating_add(self.dropped_before);
        before.saturating_add(dropped.min(reported))
    }

    /// Events whose fate is known.
    fn settled(&self) -> u64 {
        let dropped = self.passed_over.saturating_add(self.dropped_before);
        self.delivered.saturating_add(dropped).saturating_add(self.lost)
    }
}

/// Where the payload of the record that was found last is.
enum Current {
    Ring,
    Queue(Queued),
    Large(u16, LargePayload),
}

/// The first two words of a large record's payload: which segment, and how many bytes of it.
const LARGE_REFERENCE_BYTES: usize = 16;

pub(crate) struct Dispatcher {
    pub(crate) spec: DispatcherSpec,
    pub(crate) life: Life,
    pub(crate) link: Option<Link>,
    pub(crate) fault: Option<Fault>,
    /// It is part of a deployment that is under way.
    pub(crate) in_deploy: bool,
    deliveries: Vec<Delivery>,
    latest: Option<LatestQueue>,
    tallies: Vec<Tally>,
    current: Current,
    /// Whether somebody wants it to end: no restart follows.
    asked: bool,
    /// How long each step of its ending takes.
    end_timeout: Duration,
    loaded: bool,
    initialised: bool,
    finish_time: Option<Duration>,
    exit: Exit,
    restarts: u32,
    recent_restarts: VecDeque<Instant>,
    poisoned: bool,
    /// Its process is gone, and how far its records reach is settled.
    is_tail_final: bool,
}

impl Dispatcher {
    pub(crate) fn new(spec: DispatcherSpec, deliveries: Vec<Delivery>) -> Dispatcher {
        let latest = LatestQueue::new(&deliveries);
        let tallies = vec![Tally::default(); deliveries.len()];
        let end_timeout = spec.options.end_timeout;
        Dispatcher {
            spec,
            life: Life::Idle,
            link: None,
            fault: None,
            in_deploy: false,
            deliveries,
            latest,
            tallies,
            current: Current::Ring,
            asked: false,
            end_timeout,
            loaded: false,
            initialised: false,
            finish_time: None,
            exit: Exit::Unknown,
            restarts: 0,
            recent_restarts: VecDeque::new(),
            poisoned: false,
            is_tail_final: false,
        }
    }

    /// Whether it has neither process nor plan for one.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.life, Life::Idle | Life::Ended | Life::Failed)
    }

    /// Whether it is at rest because somebody wanted that, or was never deployed.
    pub(crate) fn is_done(&self) -> bool {
        self.is_at_rest() && (self.asked || self.life == Life::Idle)
    }

    /// Its process and ring, if that can be read.
    pub(crate) fn readable_link(&self) -> Option<&Link> {
        self.link.as_ref().filter(|_| !self.poisoned)
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether there is a process that was not reaped.
    pub(crate) fn has_process(&self) -> bool {
        self.link.is_some() && self.life != Life::Exited
    }

    /// Whether its deployment has failed.
    pub(crate) fn failed_to_start(&self) -> bool {
        self.in_deploy && !self.loaded && self.fault.is_some()
    }

    /// Forgets an earlier deployment.
    pub(crate) fn reset(&mut self) {
        let (spec, deliveries) = (self.spec.clone(), std::mem::take(&mut self.deliveries));
        *self = Dispatcher::new(spec, deliveries);
    }

    pub(crate) fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Whether its process may take records back out of the ring.
    pub(crate) fn is_displaceable(&self) -> bool {
        self.deliveries.iter().any(|delivery| delivery.displaces())
    }

    /// Takes a process that was just started.
    pub(crate) fn begin(&mut self, link: Link, now: Instant) {
        self.link = Some(link);
        self.life = Life::Starting { deadline: after(now, self.spec.options.start_timeout) };
        self.fault = None;
        self.finish_time = None;
        self.loaded = false;
        self.initialised = false;
        self.poisoned = false;
        self.is_tail_final = false;
        self.exit = Exit::Unknown;
    }

    /// Tells it to end; a restart that was planned is given up.
    pub(crate) fn ask_to_end(&mut self, now: Instant, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.end_timeout = timeout;
        }
        self.asked = true;
        match self.life {
            Life::Starting { .. } | Life::Running => {
                self.send_end();
                self.set_ending(Step::Asked, now);
            }
            Life::Ending { step, .. } if timeout.is_some() && step != Step::Killed => {
                self.set_ending(step, now);
            }
            Life::Waiting { .. } => self.life = self.last_state(),
            _ => {}
        }
    }

    /// Ends its process because the deployment failed: one that is not loaded yet is killed.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if self.loaded {
            self.ask_to_end(now, None);
        } else if self.has_process() {
            self.signal(Signal::KILL);
            self.set_ending(Step::Killed, now);
        }
    }

    /// The next time at which [`on_time`](Self::on_time) has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.life {
            Life::Starting { deadline } => Some(deadline),
            Life::Ending { deadline, .. } => Some(deadline),
            Life::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Takes the step that is due. A restart that is due is the caller's to perform.
    pub(crate) fn on_time(&mut self, now: Instant) {
        match self.life {
            Life::Starting { deadline } if now >= deadline => {
                let limit = self.spec.options.start_timeout;
                let hint = &self.spec.launch.hint;
                self.blame(
                    Phase::Start,
                    format!("its process did not report within {limit:?}; {hint}"),
                );
                self.signal(Signal::KILL);
                self.set_ending(Step::Killed, now);
            }
            Life::Ending { step: Step::Asked, deadline } if now >= deadline => {
                if self.link.as_ref().is_some_and(Link::is_closed) {
                    let limit = self.end_timeout;
                    self.blame(self.phase(), format!("its process closed its command socket and did not end within {limit:?} of that"));
                }
                self.signal(Signal::TERM);
                // One that somebody has stopped could not run its `finish`.
                self.signal(Signal::CONT);
                self.set_ending(Step::Terminated, now);
            }
            Life::Ending { step: Step::Terminated, deadline } if now >= deadline => {
                let limit = self.end_timeout;
                let what = match (self.initialised, self.finish_time) {
                    (false, _) => "its init did not end within",
                    (_, None) => "its update or finish did not end within",
                    (_, Some(_)) => "its process did not exit after its finish within",
                };
                self.blame(
                    self.phase(),
                    format!("{what} {limit:?} of the end command nor of SIGTERM, so it was killed"),
                );
                self.signal(Signal::KILL);
                self.set_ending(Step::Killed, now);
            }
            Life::Ending { step: Step::Killed, deadline } if now >= deadline => {
                self.blame(self.phase(), format!("its process is not gone {KILL_TIMEOUT:?} after SIGKILL; it waits in the kernel, or is frozen"));
                if let Some(link) = &self.link {
                    link.process.reap_later();
                    link.hear_no_more();
                }
                self.on_exit(Exit::Unknown);
            }
            _ => {}
        }
    }

    /// Where its process is, as far as it has told.
    fn phase(&self) -> Phase {
        match (self.loaded, self.initialised) {
            (false, _) => Phase::Start,
            (_, false) => Phase::Init,
            _ => Phase::Update,
        }
    }

    /// Handles what its process says.
    pub(crate) fn on_message(&mut self, message: FromChild, now: Instant, barriers: bool) {
        match message {
            FromChild::NotADispatcher => self.on_not_a_dispatcher(),
            FromChild::Loaded { .. } if self.loaded => self.on_repetition("it has loaded", now),
            FromChild::Initialised if self.initialised => {
                self.on_repetition("`init` is through", now)
            }
            FromChild::Finished { .. } if self.finish_time.is_some() => {
                self.on_repetition("`finish` is through", now)
            }
            FromChild::Loaded { barriers: child } => self.on_loaded(barriers && child),
            FromChild::LoadFailed { reason } => self.on_load_failed(reason),
            FromChild::Initialised => self.initialised = true,
            FromChild::Segment { .. } => {}
            FromChild::Failed { phase, reason, traceback } => {
                self.on_failed(phase, reason, traceback, now)
            }
            FromChild::Hung { updates, elapsed, traceback } => {
                self.on_hung(updates, elapsed, traceback, now)
            }
            FromChild::Finished { time } => self.on_finished(time, now),
        }
    }

    /// Its process does not keep to the protocol: it is killed, what it committed is delivered.
    pub(crate) fn on_bad_message(&mut self, error: &std::io::Error, now: Instant) {
        self.blame(Phase::Update, format!("its command socket can't be understood: {error}"));
        self.signal(Signal::KILL);
        self.set_ending(Step::Killed, now);
    }

    fn on_repetition(&mut self, what: &str, now: Instant) {
        let error = std::io::Error::other(format!("it says a second time that {what}"));
        self.on_bad_message(&error, now);
    }

    /// Its process has closed the command socket. As a rule that is the first sign of its exit; one
    /// that stays is taken through the steps of an ending.
    pub(crate) fn on_closed(&mut self, now: Instant) {
        if matches!(self.life, Life::Starting { .. } | Life::Running) {
            self.set_ending(Step::Asked, now);
        }
    }

    /// Its process is gone and reaped.
    pub(crate) fn on_exit(&mut self, exit: Exit) {
        self.exit = exit;
        // Unknown is the exit of a process that somebody else has reaped.
        let is_good = self.finish_time.is_some() && matches!(exit, Exit::Code(0) | Exit::Unknown);
        if self.fault.is_none() && !is_good {
            let (phase, doing) = match (self.loaded, self.initialised, self.finish_time) {
                (false, ..) => (Phase::Start, "before it had loaded its dispatcher"),
                (_, false, _) => (Phase::Init, "in `init`"),
                (.., None) => (Phase::Update, "without its `finish`"),
                (.., Some(_)) => (Phase::Finish, "badly after its `finish`"),
            };
            let hint = match exit {
                _ if !self.loaded => format!("; {}", self.spec.launch.hint),
                Exit::Signal(libc::SIGKILL) => {
                    "; the system kills so when memory runs out".to_owned()
                }
                _ => String::new(),
            };
            self.blame(phase, format!("its process ended {doing} ({exit}){hint}"));
        }
        self.life = Life::Exited;
    }

    /// Fixes what this pump will yield; true if that is anything.
    #[inline]
    pub(crate) fn begin_turn(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        if self.poisoned {
            return self.latest.as_ref().is_some_and(|queue| !queue.is_empty());
        }
        // After its exit the tail is looked at once: what it left behind may go on writing.
        let found = match self.is_tail_final {
            true => Ok(link.consumer.has_limit_ahead()),
            false => link.consumer.begin().map_err(|broken| broken.to_string()),
        };
        self.is_tail_final = self.life == Life::Exited;
        let found = match (found, &self.latest) {
            (Ok(true), Some(_)) => self.queue_all().map(|()| self.queue_is_due()),
            (Ok(false), Some(_)) => Ok(self.queue_is_due()),
            (found, _) => found,
        };
        found.unwrap_or_else(|reason| {
            self.poison(&reason);
            false
        })
    }

    /// Whether an interrupted pump has left something that its ring does not show.
    pub(crate) fn has_left_over(&self) -> bool {
        self.link.is_some() && self.queue_is_due()
    }

    /// Whether what was taken out of the ring is to be delivered now. While the dispatcher ends,
    /// each pump would find another newest event; it is delivered when there can be no newer one.
    fn queue_is_due(&self) -> bool {
        let ends = matches!(self.life, Life::Ending { .. });
        self.latest.as_ref().is_some_and(|queue| !queue.is_empty() && (!ends || queue.has_urgent()))
    }

    /// The next record, if it is an event of this type that lies in the ring as it is.
    #[inline(always)]
    pub(crate) fn take_in_ring(&mut self, type_id: u16) -> Option<eventpy_ring::Record<'_>> {
        let tally = self.tallies.get_mut(usize::from(type_id).wrapping_sub(1))?;
        let link = self.link.as_mut().filter(|_| !self.poisoned)?;
        let record = link.consumer.read_of(type_id)?;
        tally.delivered += 1;
        Some(record)
    }

    /// The type of the next record, if [`take_in_ring`](Self::take_in_ring) may yield it.
    #[inline]
    pub(crate) fn next_type(&mut self) -> Option<u16> {
        let link = self.link.as_mut().filter(|_| !self.poisoned)?;
        let type_id = link.consumer.next_type()?;
        (1..=self.tallies.len()).contains(&usize::from(type_id)).then_some(type_id)
    }

    /// Whether there is another record in this turn; [`record`](Self::record) is it then.
    pub(crate) fn next_record(&mut self) -> bool {
        loop {
            let found =
                if self.latest.is_some() { self.next_queued() } else { self.next_in_ring() };
            match found {
                Ok(found) => return found,
                // What was taken out of the ring before is still to be had.
                Err(reason) => self.poison(&reason),
            }
        }
    }

    /// The record that was found last.
    pub(crate) fn record(&mut self, id: DispatcherId) -> Option<Record<'_>> {
        match std::mem::replace(&mut self.current, Current::Ring) {
            Current::Ring => Some(Record::inline(id, self.link.as_ref()?.consumer.current())),
            Current::Large(type_id, payload) => Some(Record::large(id, type_id, payload)),
            Current::Queue(queued) => Some(Record::queued(id, queued.type_id, queued.payload)),
        }
    }

    /// Ends a turn: the dispatcher gets its room back.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        if let Some(link) = &mut self.link {
            link.consumer.release();
        }
    }

    fn next_in_ring(&mut self) -> Result<bool, String> {
        let Some(link) = self.link.as_mut().filter(|_| !self.poisoned) else { return Ok(false) };
        let Some(record) = link.consumer.read().map_err(|broken| broken.to_string())? else {
            return Ok(false);
        };
        let word = record.word();
        let Some(tally) = self.tallies.get_mut(usize::from(word.type_id()).wrapping_sub(1)) else {
            return Err(format!(
                "a record has event type {}, which was not declared",
                word.type_id()
            ));
        };
        if word.is_large() {
            let reference = payload_of(&record);
            let payload = large_payload(link, &reference)?;
            self.current = Current::Large(word.type_id(), payload);
        }
        tally.delivered += 1;
        Ok(true)
    }

    fn next_queued(&mut self) -> Result<bool, String> {
        let (Some(queue), Some(link)) = (&mut self.latest, &mut self.link) else {
            return Ok(false);
        };
        let Some(queued) = queue.pop() else { return Ok(false) };
        let type_id = queued.type_id;
        self.current = if queued.is_large {
            Current::Large(type_id, large_payload(link, &queued.payload)?)
        } else {
            Current::Queue(queued)
        };
        self.tallies[usize::from(type_id) - 1].delivered += 1;
        Ok(true)
    }

    /// Takes all records out of the ring, so that its dispatcher can't displace them meanwhile.
    fn queue_all(&mut self) -> Result<(), String> {
        let (Some(queue), Some(link)) = (&mut self.latest, &mut self.link) else { return Ok(()) };
        // No more than a ring's worth at a time: else a listener that keeps failing would let its
        // dispatcher fill our memory instead of waiting.
        while queue.bytes() < self.spec.options.buffer_bytes
            && let Some(record) = link.consumer.read().map_err(|broken| broken.to_string())?
        {
            let word = record.word();
            let Some(tally) = self.tallies.get_mut(usize::from(word.type_id()).wrapping_sub(1))
            else {
                return Err(format!(
                    "a record has event type {}, which was not declared",
                    word.type_id()
                ));
            };
            let mut payload = queue.buffer();
            payload.resize(word.len(), 0);
            record.copy_to(&mut payload);
            if let Some(obsolete) = queue.push(word.type_id(), word.is_large(), payload) {
                tally.passed_over += 1;
                if obsolete.is_large {
                    drop(large_payload(link, &obsolete.payload)?);
                }
                queue.reuse(obsolete.payload);
            }
        }
        link.consumer.release();
        Ok(())
    }

    /// Gives the ring up: what it holds can't be told from garbage. The process is killed.
    #[cold]
    fn poison(&mut self, reason: &str) {
        self.poisoned = true;
        self.blame(Phase::Update, format!("its ring is broken: {reason}"));
        self.signal(Signal::KILL);
        if !matches!(self.life, Life::Exited) {
            self.set_ending(Step::Killed, Instant::now());
        }
    }

    /// Settles what became of a process that is gone and whose records were all yielded: what to
    /// tell, and whether it waits for a restart from now on.
    pub(crate) fn settle(&mut self, now: Instant) -> Notice {
        self.count_out();
        self.link = None;
        self.conclude(now)
    }

    /// Decides on a restart, and tells what has happened.
    fn conclude(&mut self, now: Instant) -> Notice {
        let backoff = self.next_backoff(now);
        self.life = match backoff {
            Some(backoff) => Life::Waiting { until: after(now, backoff), backoff },
            None => self.last_state(),
        };
        match &self.fault {
            None => Notice::Ended(DispatcherEnded { report: self.report() }),
            Some(fault) => Notice::Failed(DispatcherFailed {
                dispatcher: self.spec.name.clone(),
                phase: fault.phase,
                reason: fault.reason.clone(),
                exit: self.exit,
                traceback: fault.traceback.clone(),
                will_restart: backoff.is_some(),
            }),
        }
    }

    /// What it has come to when nothing follows.
    fn last_state(&self) -> Life {
        if self.fault.is_some() { Life::Failed } else { Life::Ended }
    }

    /// Takes note of a restart that was just performed.
    pub(crate) fn on_restart(&mut self, backoff: Duration, now: Instant) -> Notice {
        self.restarts += 1;
        self.recent_restarts.push_back(now);
        Notice::Restarted(DispatcherRestarted {
            dispatcher: self.spec.name.clone(),
            restarts: self.restarts,
            backoff,
        })
    }

    /// A restart could not be performed: a failure of its own, to which the rule applies again.
    pub(crate) fn on_restart_refused(&mut self, error: &crate::Error, now: Instant) -> Notice {
        self.fault = None;
        self.exit = Exit::Unknown;
        self.blame(Phase::Start, error.to_string());
        self.recent_restarts.push_back(now);
        self.conclude(now)
    }

    pub(crate) fn report(&self) -> DispatcherReport {
        DispatcherReport {
            dispatcher: self.spec.name.clone(),
            finished: self.finish_time.is_some(),
            finish_time: self.finish_time,
            exit: self.exit,
            failure: self.fault.as_ref().map(|fault| fault.reason.clone()),
            restarts: self.restarts,
            counts: self.counts(),
        }
    }

    pub(crate) fn stats(&self) -> DispatcherStats {
        let event_types = (1..)
            .zip(&self.spec.event_types)
            .map(|(id, name)| (name.clone(), self.counts_of(id)))
            .collect();
        DispatcherStats {
            dispatcher: self.spec.name.clone(),
            state: self.state(),
            pid: self.link.as_ref().map(|link| link.process.pid()),
            restarts: self.restarts,
            counts: self.counts(),
            queued_bytes: self.link.as_ref().map_or(0, |link| link.consumer.queued_bytes()),
            event_types,
        }
    }

    fn state(&self) -> DispatcherState {
        match self.life {
            Life::Idle => DispatcherState::Idle,
            Life::Starting { .. } => DispatcherState::Starting,
            Life::Running if !self.initialised && !self.has_sent() => DispatcherState::Starting,
            Life::Running => DispatcherState::Running,
            Life::Ending { .. } | Life::Exited => DispatcherState::Ending,
            Life::Waiting { .. } => DispatcherState::Waiting,
            Life::Ended => DispatcherState::Ended,
            Life::Failed => DispatcherState::Failed,
        }
    }

    /// Whether its process has sent anything: then its `init` is through, which it may not have
    /// told yet.
    fn has_sent(&self) -> bool {
        let sent = |link: &Link| {
            (1..).zip(&self.tallies).any(|(id, _)| link.consumer.reported_counts(id).0 > 0)
        };
        self.link.as_ref().is_some_and(sent)
    }

    fn counts(&self) -> Counts {
        (1..=self.spec.event_types.len() as u16).map(|id| self.counts_of(id)).fold(
            Counts::default(),
            |sum, counts| {
                countable(Counts {
                    sent: sum.sent.saturating_add(counts.sent),
                    delivered: sum.delivered.saturating_add(counts.delivered),
                    dropped: sum.dropped.saturating_add(counts.dropped),
                    lost: sum.lost.saturating_add(counts.lost),
                })
            },
        )
    }

    /// Counts of a type. While its process lives, `sent` is as the process reports it; afterwards
    /// it is the sum of what became of its events: an emit that death cut short sent nothing.
    fn counts_of(&self, type_id: u16) -> Counts {
        let tally = self.tallies[usize::from(type_id) - 1];
        let (reported, dropped_now) =
            self.link.as_ref().map_or((0, 0), |link| link.consumer.reported_counts(type_id));
        let dropped = tally.dropped(reported, dropped_now);
        let settled = tally.delivered.saturating_add(dropped).saturating_add(tally.lost);
        let sent = settled.max(reported.saturating_add(tally.sent_before));
        countable(Counts { sent, delivered: tally.delivered, dropped, lost: tally.lost })
    }

    /// Adds what the process that is gone has counted. In a broken ring, what was sent and did not
    /// arrive is lost.
    fn count_out(&mut self) {
        let Some(link) = &mut self.link else { return };
        let uncounted = link.consumer.uncounted_drop().filter(|_| !self.poisoned);
        for (id, tally) in (1..).zip(&mut self.tallies) {
            let (reported, counted) = link.consumer.reported_counts(id);
            let dropped = counted.saturating_add(u64::from(uncounted == Some(id)));
            tally.dropped_before =
                tally.dropped(reported, dropped).saturating_sub(tally.passed_over);
            if self.poisoned {
                let sent = reported.saturating_add(tally.sent_before);
                tally.lost = tally.lost.saturating_add(sent.saturating_sub(tally.settled()));
            }
            tally.sent_before = tally.settled();
        }
    }

    fn next_backoff(&mut self, now: Instant) -> Option<Duration> {
        let rule = self.spec.options.restart;
        let applies = match rule.when {
            RestartWhen::Never => false,
            RestartWhen::OnFailure => self.fault.is_some(),
            RestartWhen::Always => true,
        };
        if !applies || self.asked {
            return None;
        }
        while self.recent_restarts.front().is_some_and(|at| now.duration_since(*at) > rule.window) {
            self.recent_restarts.pop_front();
        }
        let recent = u32::try_from(self.recent_restarts.len()).unwrap_or(u32::MAX);
        if recent >= rule.limit {
            if let Some(fault) = &mut self.fault {
                fault.reason +=
                    &format!(" (not restarted: {recent} restarts within {:?})", rule.window);
            }
            return None;
        }
        Some(backoff(&rule, recent, fastrand::f64()))
    }

    fn on_not_a_dispatcher(&mut self) {
        let hint = self.spec.launch.hint.clone();
        self.blame(
            Phase::Start,
            format!("its process ran the program instead of the dispatcher; {hint}"),
        );
    }

    fn on_loaded(&mut self, barriers: bool) {
        self.loaded = true;
        if barriers && let Some(link) = &mut self.link {
            link.consumer.set_hot_fence(HotFence::Compiler);
        }
        if let Life::Starting { .. } = self.life {
            self.life = Life::Running;
        }
    }

    fn on_load_failed(&mut self, reason: String) {
        self.blame(Phase::Start, reason);
        if let Some(fault) = &mut self.fault {
            fault.in_load = true;
        }
    }

    fn on_failed(&mut self, phase: Phase, reason: String, traceback: String, now: Instant) {
        if self.fault.is_none() {
            self.fault = Some(Fault { phase, reason, traceback, in_load: false });
        }
        if matches!(self.life, Life::Starting { .. } | Life::Running) {
            self.set_ending(Step::Asked, now);
        }
    }

    /// What is left is the exit, which has its time like each step of an ending.
    fn on_finished(&mut self, time: Duration, now: Instant) {
        self.finish_time = Some(time);
        if matches!(self.life, Life::Starting { .. } | Life::Running) {
            self.set_ending(Step::Asked, now);
        }
    }

    fn on_hung(&mut self, updates: u64, elapsed: Duration, traceback: String, now: Instant) {
        if self.fault.is_none() {
            let limit = self.spec.options.update_timeout.unwrap_or_default();
            let reason =
                format!("update number {updates} hangs: {elapsed:.1?} so far, {limit:?} allowed");
            self.fault = Some(Fault { phase: Phase::Update, reason, traceback, in_load: false });
        }
        if matches!(self.life, Life::Running | Life::Ending { step: Step::Asked, .. }) {
            self.signal(Signal::TERM);
            self.set_ending(Step::Terminated, now);
        }
    }

    fn blame(&mut self, phase: Phase, reason: String) {
        if self.fault.is_none() {
            self.fault = Some(Fault { phase, reason, traceback: String::new(), in_load: false });
        }
    }

    fn set_ending(&mut self, step: Step, now: Instant) {
        let timeout = if step == Step::Killed { KILL_TIMEOUT } else { self.end_timeout };
        self.life = Life::Ending { step, deadline: after(now, timeout) };
    }

    fn send_end(&self) {
        if let Some(link) = &self.link {
            link.send_end();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(link) = &self.link {
            link.process.signal(signal);
        }
    }
}

/// Counts whose sum can be counted: a hostile process may claim to have dropped, or lost, as much
/// as there are numbers. What was delivered is a fact.
fn countable(counts: Counts) -> Counts {
    let lost = counts.lost.min(u64::MAX - counts.delivered);
    let dropped = counts.dropped.min(u64::MAX - counts.delivered - lost);
    Counts { lost, dropped, ..counts }
}

/// The pause before a restart: doubled for each recent one, and up to a quarter more by `chance`
/// (0 to 1).
fn backoff(rule: &Restart, recent: u32, chance: f64) -> Duration {
    let doubled = rule.backoff.saturating_mul(1u32.checked_shl(recent.min(30)).unwrap_or(u32::MAX));
    doubled.min(rule.backoff_max).min(LONGEST).mul_f64(1.0 + chance / 4.0)
}

/// How long a process may take to be gone after SIGKILL, for which it does nothing itself.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A hundred years: whoever wants to wait for ever does not notice.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// An instant some time from now; the longest times there are would not be instants any more.
fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(LONGEST)
}

fn payload_of(record: &eventpy_ring::Record<'_>) -> Vec<u8> {
    let mut bytes = vec![0; record.word().len().min(LARGE_REFERENCE_BYTES)];
    record.copy_to(&mut bytes);
    bytes
}

/// The payload that a large record refers to.
fn large_payload(link: &mut Link, reference: &[u8]) -> Result<LargePayload, String> {
    let (words, _) = reference.as_chunks::<8>();
    let [id, len] = words else {
        return Err(format!("the reference to a large event has {} bytes", reference.len()));
    };
    let (id, len) = (u64::from_le_bytes(*id), u64::from_le_bytes(*len));
    let id = u32::try_from(id).map_err(|_| format!("segment {id} can't exist"))?;
    let segment = link.segment(id).map_err(|error| error.to_string())?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > segment.capacity() {
        return Err(format!(
            "a large event claims {len} bytes of a segment of {}",
            segment.capacity()
        ));
    }
    Ok(LargePayload { segment, segments: link.returns(), id, len, forks: os::fork_count_again() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_the_longest_and_adds_chance() {
        let rule =
            Restart::on_failure().backoff(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<u64> =
            (0..6).map(|recent| backoff(&rule, recent, 0.0).as_millis() as u64).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff(&rule, 0, 1.0), Duration::from_millis(125));
        assert_eq!(backoff(&rule, 4_000_000, 0.0), Duration::from_secs(1));
        let rule = rule.backoff(Duration::MAX, Duration::MAX);
        assert!(backoff(&rule, 5, 1.0) >= LONGEST);
    }
}
