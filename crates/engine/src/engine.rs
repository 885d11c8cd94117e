//! The engine: dispatchers, what they wait for, and the order of their lives.
//!
//! Everything happens in the manager's thread, within [`Engine::deploy`], [`Engine::begin_pump`]
//! and what follows it; the only other thread raises a flag (see `attention`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventpy_ring::{ColdFence, MAX_EVENT_TYPES, check_capacity};

use crate::attention::Attention;
use crate::child;
use crate::dispatcher::{Dispatcher, Life, Notice};
use crate::error::{Error, ErrorKind};
use crate::glance::Glance;
use crate::link::{self, Heard, Link};
use crate::options::{Delivery, DispatcherSpec, Selection};
use crate::os;
use crate::process;
use crate::protocol::FromChild;
use crate::pump::PumpState;
use crate::report::{EndReport, Exit, Stats};
use crate::waiter::{Sleep, Waiter, Woken};

/// Which dispatcher of an engine, in the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DispatcherId(pub(crate) u32);

impl DispatcherId {
    /// Its place, from 0.
    #[inline]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Starts, pumps, supervises, ends and counts dispatcher processes. It knows events as a type id
/// and bytes.
///
/// Dropping it ends all dispatchers, waits for them, and leaves nothing behind.
#[derive(Default)]
pub struct Engine {
    pub(crate) dispatchers: Vec<Dispatcher>,
    /// What a pump looks at first, side by side in memory: one for each dispatcher.
    pub(crate) glances: Vec<Glance>,
    /// What exists only while dispatchers are deployed.
    pub(crate) runtime: Option<Runtime>,
    pub(crate) pump: PumpState,
    was_deployed: bool,
}

/// What the engine holds of the operating system, apart from the processes.
pub(crate) struct Runtime {
    pub(crate) waiter: Arc<Waiter>,
    pub(crate) attention: Attention,
    pub(crate) cold: ColdFence,
    /// Whether somebody outside waits for the waiter's descriptor.
    pub(crate) exported: bool,
    /// The earliest deadline of all dispatchers.
    pub(crate) deadline: Option<Instant>,
    this_process: OwnedFd,
    /// To notice that this process is a forked copy of the one that deployed.
    forks: u32,
}

impl Runtime {
    pub(crate) fn new() -> io::Result<Runtime> {
        Ok(Runtime {
            waiter: Arc::new(Waiter::new()?),
            attention: Attention::start()?,
            cold: eventpy_ring::register_for_barriers(),
            exported: false,
            deadline: None,
            this_process: process::this_process()?,
            forks: os::fork_count(),
        })
    }

    pub(crate) fn is_forked_copy(&self) -> bool {
        self.forks != os::fork_count_again()
    }

    /// A sleep until something happens, a deadline is due, or `until`.
    pub(crate) fn sleep(&self, until: Option<Instant>) -> Sleep {
        Sleep::new(&self.waiter, [until, self.deadline].into_iter().flatten().min())
    }

    fn has_barriers(&self) -> bool {
        self.cold == ColdFence::Everywhere
    }

    fn watch(&self, link: &Link) -> io::Result<()> {
        self.waiter.watch(link)?;
        self.attention.watch(link.process.as_fd())?;
        self.attention.watch(link.control())
    }

    /// A closed command socket says nothing more, but would stay readable.
    fn unwatch_control(&self, link: &Link) {
        self.waiter.unwatch_control(link);
        self.attention.unwatch(link.control());
    }

    pub(crate) fn unwatch(&self, link: &Link) {
        self.waiter.unwatch(link);
        self.attention.unwatch(link.process.as_fd());
        self.attention.unwatch(link.control());
    }
}

impl Engine {
    /// An engine without dispatchers.
    pub fn new() -> Engine {
        Engine::default()
    }

    /// Adds a dispatcher. It starts at the next [`deploy`](Self::deploy).
    ///
    /// # Errors
    /// [`ErrorKind::Options`] when its options can't be met.
    pub fn add(&mut self, spec: DispatcherSpec) -> Result<DispatcherId, Error> {
        let deliveries = check_spec(&spec)?;
        let id = u32::try_from(self.dispatchers.len()).expect("fewer than 2^32 dispatchers");
        self.dispatchers.push(Dispatcher::new(spec, deliveries));
        self.glances.push(Glance::default());
        Ok(DispatcherId(id))
    }

    /// Starts every dispatcher that does not run, all side by side, and returns when each has
    /// loaded its dispatcher. After an error none of those that it started is left.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when there is nothing to start, [`ErrorKind::System`] when the
    /// operating system refuses, [`ErrorKind::Load`] when a dispatcher can't be made in its
    /// process, [`ErrorKind::Start`] when a process ends or hangs before that.
    pub fn deploy(&mut self, which: &Selection) -> Result<(), Error> {
        self.begin_deploy(which)?;
        while !self.poll_deploy(None)? {}
        Ok(())
    }

    /// The first half of [`deploy`](Self::deploy): starts the processes and does not wait.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub fn begin_deploy(&mut self, which: &Selection) -> Result<(), Error> {
        if let Some(refusal) = child::refuse_to_deploy() {
            return Err(refusal);
        }
        self.check_own_process("deploy_dispatchers")?;
        if self.dispatchers.is_empty() {
            return Err(Error::new(
                ErrorKind::State,
                "there is no dispatcher to deploy; add one first",
            ));
        }
        let idle: Vec<usize> = (0..self.dispatchers.len())
            .filter(|&index| which.has(index) && self.dispatchers[index].is_at_rest())
            .collect();
        if idle.is_empty() {
            return Err(Error::new(
                ErrorKind::State,
                "all dispatchers are deployed already; call end_dispatchers before deploying them again",
            ));
        }
        if self.runtime.is_none() {
            self.runtime = Some(
                Runtime::new()
                    .map_err(|source| Error::refused("cannot prepare for dispatchers", source))?,
            );
        }
        self.was_deployed = true;
        self.leave_outside_wait();
        for &index in &idle {
            self.dispatchers[index].reset();
        }
        for &index in &idle {
            self.dispatchers[index].in_deploy = true;
            if let Err(error) = self.start(index) {
                self.give_up_deploy();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The second half of [`deploy`](Self::deploy): waits until every dispatcher is loaded or the
    /// time is over (`None`: no limit beyond the start timeouts). True when all are loaded; a
    /// signal makes it return early.
    ///
    /// # Errors
    /// As [`deploy`](Self::deploy).
    pub fn poll_deploy(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.attend();
            self.keep_time();
            if let Some(error) = self.failed_start() {
                self.give_up_deploy();
                return Err(error);
            }
            if self
                .dispatchers
                .iter()
                .all(|dispatcher| !dispatcher.in_deploy || dispatcher.is_loaded())
            {
                self.dispatchers.iter_mut().for_each(|dispatcher| dispatcher.in_deploy = false);
                self.prepare_for_outside_wait();
                return Ok(true);
            }
            if until.is_some_and(|until| Instant::now() >= until)
                || self.doze(until)? == Woken::Signal
            {
                return Ok(false);
            }
        }
    }

    /// From the deployment until all dispatchers have ended after [`begin_end`](Self::begin_end).
    pub fn is_deployed(&self) -> bool {
        self.runtime.is_some()
    }

    /// Whether any dispatcher runs, or waits for its restart, or has something left to be pumped.
    pub fn is_running(&self) -> bool {
        self.is_deployed() && !self.has_ended(&Selection::All)
    }

    /// Whether no process of these dispatchers is left, and nothing is left to be told of them.
    pub fn has_ended(&self, which: &Selection) -> bool {
        let mut chosen = self.dispatchers.iter().enumerate().filter(|(index, _)| which.has(*index));
        !self.is_deployed()
            || (self.pump.notices.is_empty()
                && chosen.all(|(_, dispatcher)| dispatcher.is_at_rest()))
    }

    /// Sends the end command to dispatchers and returns at once. `timeout` takes the place of each
    /// `end_timeout`.
    ///
    /// Pump with [`Pump::End`](crate::Pump::End) until [`has_ended`](Self::has_ended), then read
    /// [`end_report`](Self::end_report). Asked again while ending, it changes the time-out. When
    /// no dispatcher is left, the deployment is over.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when nothing is deployed.
    pub fn begin_end(&mut self, which: &Selection, timeout: Option<Duration>) -> Result<(), Error> {
        self.check_own_process("end_dispatchers")?;
        self.check_deployed("end_dispatchers")?;
        let now = Instant::now();
        for (index, dispatcher) in self.dispatchers.iter_mut().enumerate() {
            if which.has(index) {
                dispatcher.ask_to_end(now, timeout);
            }
        }
        self.note_deadline();
        self.close_if_ended();
        self.prepare_for_outside_wait();
        Ok(())
    }

    /// How the dispatchers ended; of those that run, how they stand.
    pub fn end_report(&self) -> EndReport {
        EndReport { dispatchers: self.dispatchers.iter().map(Dispatcher::report).collect() }
    }

    /// What the dispatchers are doing and have done.
    pub fn stats(&self) -> Stats {
        Stats { dispatchers: self.dispatchers.iter().map(Dispatcher::stats).collect() }
    }

    /// A descriptor that is readable when there is something to pump, for select, epoll and event
    /// loops. From the first call on, each pump ends with preparations for such a wait.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when nothing is deployed.
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>, Error> {
        self.check_own_process("fileno")?;
        self.check_deployed("fileno")?;
        if let Some(runtime) = &mut self.runtime
            && !std::mem::replace(&mut runtime.exported, true)
        {
            self.prepare_for_outside_wait();
        }
        Ok(self.runtime.as_ref().expect("it is deployed").waiter.descriptor())
    }

    pub(crate) fn check_deployed(&self, operation: &str) -> Result<(), Error> {
        if self.is_deployed() {
            return Ok(());
        }
        let why = if self.was_deployed {
            "the dispatchers have ended"
        } else {
            "no dispatcher is deployed"
        };
        Err(Error::new(
            ErrorKind::State,
            format!("{operation}: {why}; call deploy_dispatchers first"),
        ))
    }

    pub(crate) fn check_own_process(&self, operation: &str) -> Result<(), Error> {
        match &self.runtime {
            Some(runtime) if runtime.is_forked_copy() => Err(Error::new(
                ErrorKind::State,
                format!(
                    "{operation}: this process was forked from the manager's; only the manager's own process can use it"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Handles what processes said and whether they are gone, if anything happened.
    pub(crate) fn attend(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        runtime.attention.lower();
        let mut messages = Vec::new();
        for (dispatcher, glance) in self.dispatchers.iter_mut().zip(&mut self.glances) {
            if let Some(link) = dispatcher.link.as_ref().filter(|_| dispatcher.has_process()) {
                // First the exit, then the messages: what it said before it went is there by then.
                let exit = link.process.try_wait();
                attend_one(dispatcher, exit, runtime, &mut messages);
            }
            if dispatcher.life == Life::Exited {
                glance.look_closer();
            }
        }
        self.note_deadline();
    }

    /// Takes every step that is due.
    pub(crate) fn keep_time(&mut self) {
        let Some(deadline) = self.runtime.as_ref().and_then(|runtime| runtime.deadline) else {
            return;
        };
        let now = Instant::now();
        if now < deadline {
            return;
        }
        for index in 0..self.dispatchers.len() {
            self.take_step(index, now);
            if let Life::Waiting { until, backoff } = self.dispatchers[index].life
                && now >= until
            {
                self.restart(index, backoff);
            }
        }
        self.note_deadline();
    }

    /// Takes the step of one dispatcher that is due, if any.
    pub(crate) fn take_step(&mut self, index: usize, now: Instant) {
        let dispatcher = &mut self.dispatchers[index];
        let had_process = dispatcher.has_process();
        dispatcher.on_time(now);
        if had_process && !dispatcher.has_process() {
            // It is waited for no longer, and treated as if it were gone.
            if let (Some(runtime), Some(link)) = (&self.runtime, &dispatcher.link) {
                runtime.unwatch(link);
            }
            self.glances[index].look_closer();
        }
    }

    /// A process that is gone and whose records were all yielded makes place for what follows.
    pub(crate) fn settle(&mut self, index: usize) {
        let dispatcher = &mut self.dispatchers[index];
        if let (Some(runtime), Some(link)) = (&self.runtime, &dispatcher.link) {
            runtime.unwatch(link);
        }
        self.glances[index].forget();
        let notice = dispatcher.settle(Instant::now());
        self.pump.notices.push_back(notice);
        self.note_deadline();
    }

    /// Lets everything go once no dispatcher is left to wait for.
    pub(crate) fn close_if_ended(&mut self) {
        if self.pump.notices.is_empty() && self.dispatchers.iter().all(Dispatcher::is_done) {
            self.close();
        }
    }

    /// Lets everything go; a thread that sleeps meanwhile wakes up.
    fn close(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.waiter.show_ready();
        }
    }

    fn start(&mut self, index: usize) -> Result<(), Error> {
        let runtime =
            self.runtime.as_ref().expect("a runtime exists while dispatchers are deployed");
        let dispatcher = &mut self.dispatchers[index];
        let link = Link::start(
            &dispatcher.spec,
            dispatcher.deliveries(),
            runtime.this_process.as_fd(),
            runtime.has_barriers(),
        )?;
        if let Err(source) = runtime.watch(&link) {
            // Nobody would be told of its exit.
            runtime.unwatch(&link);
            link.process.end_at_once();
            let name = &dispatcher.spec.name;
            return Err(link::start_error(name, "watch its process (epoll_ctl)", source));
        }
        self.glances[index].watch(link.consumer.tail_watch());
        dispatcher.begin(link, Instant::now());
        self.note_deadline();
        Ok(())
    }

    /// Sleeps until a process says something or a deadline is due; rings may ring unheard.
    fn doze(&self, until: Option<Instant>) -> Result<Woken, Error> {
        let sleep = self.runtime.as_ref().map(|runtime| runtime.sleep(until));
        sleep.map_or(Ok(Woken::Other), |sleep| sleep.wait())
    }

    fn restart(&mut self, index: usize, backoff: Duration) {
        let started = self.start(index);
        let dispatcher = &mut self.dispatchers[index];
        let notice = match started {
            Ok(()) => dispatcher.on_restart(backoff, Instant::now()),
            Err(error) => dispatcher.on_restart_refused(&error, Instant::now()),
        };
        self.pump.notices.push_back(notice);
    }

    pub(crate) fn note_deadline(&mut self) {
        let deadline = self.dispatchers.iter().filter_map(Dispatcher::deadline).min();
        if let Some(runtime) = &mut self.runtime {
            runtime.deadline = deadline;
        }
    }

    /// The error of a dispatcher that did not get through its start, if any.
    fn failed_start(&self) -> Option<Error> {
        let failed = self.dispatchers.iter().find(|dispatcher| dispatcher.failed_to_start())?;
        let fault = failed.fault.as_ref()?;
        let kind = if fault.in_load { ErrorKind::Load } else { ErrorKind::Start };
        Some(Error::new(
            kind,
            format!("cannot deploy dispatcher `{}`: {}", failed.spec.name, fault.reason),
        ))
    }

    /// Ends all that the deployment under way has started, those that were loaded with their
    /// `finish`, and delivers nothing of them. Those that ran before run on.
    pub fn give_up_deploy(&mut self) {
        let now = Instant::now();
        for dispatcher in self.dispatchers.iter_mut().filter(|dispatcher| dispatcher.in_deploy) {
            dispatcher.give_up(now);
        }
        self.note_deadline();
        let ids = (0..).zip(&self.dispatchers).filter(|(_, dispatcher)| dispatcher.in_deploy);
        let in_deploy = Selection::Only(ids.map(|(id, _)| DispatcherId(id)).collect());
        while self
            .dispatchers
            .iter()
            .any(|dispatcher| dispatcher.in_deploy && dispatcher.has_process())
        {
            self.discard_records();
            let woken = match self.announce_sleep(&in_deploy) {
                true => Ok(Woken::Other),
                false => self.doze(None),
            };
            self.end_sleep(*woken.as_ref().unwrap_or(&Woken::Other));
            if woken.is_err() {
                break;
            }
            self.attend();
            self.keep_time();
        }
        let both = self.dispatchers.iter_mut().zip(&mut self.glances);
        for (dispatcher, glance) in both.filter(|(dispatcher, _)| dispatcher.in_deploy) {
            if let (Some(runtime), Some(link)) = (&self.runtime, &dispatcher.link) {
                runtime.unwatch(link);
            }
            glance.forget();
            dispatcher.reset();
        }
        self.note_deadline();
        if self.dispatchers.iter().all(Dispatcher::is_at_rest) {
            self.close();
            self.was_deployed = false;
        }
        self.prepare_for_outside_wait();
    }

    /// Makes room in the rings of a deployment that has failed: nobody gets what they hold, but a
    /// dispatcher that waits for room could not finish.
    fn discard_records(&mut self) {
        for (id, dispatcher) in (0..).zip(&mut self.dispatchers) {
            if dispatcher.in_deploy && dispatcher.begin_turn() {
                while dispatcher.next_record() {
                    drop(dispatcher.record(DispatcherId(id)));
                }
                dispatcher.end_turn();
            }
        }
    }
}

/// Handles what one process said, and its exit. If it may say more at once, that needs attention
/// again.
pub(crate) fn attend_one(
    dispatcher: &mut Dispatcher,
    exit: Option<Exit>,
    runtime: &Runtime,
    messages: &mut Vec<FromChild>,
) {
    let Some(link) = &mut dispatcher.link else { return };
    let now = Instant::now();
    if exit.is_some() {
        link.hear_no_more();
    }
    let mut received = link.receive(messages);
    while exit.is_some() && matches!(received, Ok(Heard::More)) {
        received = link.receive(messages);
    }
    if exit.is_some() {
        // The process stays readable, and there is nothing more to be told of it.
        runtime.unwatch(link);
    } else if link.is_closed() {
        runtime.unwatch_control(link);
    }
    for message in messages.drain(..) {
        dispatcher.on_message(message, now, runtime.has_barriers());
    }
    match received {
        Ok(Heard::All) => {}
        Ok(Heard::More) => runtime.attention.raise(),
        Ok(Heard::Closed) => dispatcher.on_closed(now),
        Err(error) => dispatcher.on_bad_message(&error, now),
    }
    if let Some(exit) = exit {
        dispatcher.on_exit(exit);
    }
}

fn check_spec(spec: &DispatcherSpec) -> Result<Vec<Delivery>, Error> {
    let refuse = |why: String| {
        Err(Error::new(ErrorKind::Options, format!("dispatcher `{}`: {why}", spec.name)))
    };
    let options = &spec.options;
    if let Err(suggestion) = check_capacity(options.buffer_bytes) {
        return refuse(format!(
            "buffer_bytes is {}, but must be a power of two from 4096 to 1073741824; {suggestion} would do",
            options.buffer_bytes
        ));
    }
    if spec.event_types.is_empty() {
        return refuse("it declares no event type".to_owned());
    }
    let possible = MAX_EVENT_TYPES.saturating_sub(usize::from(spec.internal_types));
    if spec.event_types.len() > possible {
        let declared = spec.event_types.len();
        return refuse(format!("it declares {declared} event types, and {possible} are possible"));
    }
    if options.update_timeout == Some(Duration::ZERO) {
        return refuse("update_timeout is zero; leave it out for no limit".to_owned());
    }
    if let Some((name, _)) =
        options.delivery_of.iter().find(|(name, _)| !spec.event_types.contains(name))
    {
        return refuse(format!(
            "a delivery is set for event type `{name}`, which it does not declare (it declares {})",
            spec.event_types.join(", ")
        ));
    }
    let delivery_of = |name: &String| {
        let own = options.delivery_of.iter().rev().find(|(of, _)| of == name);
        own.map_or(options.delivery, |(_, delivery)| *delivery)
    };
    let mut deliveries: Vec<_> = spec.event_types.iter().map(delivery_of).collect();
    let internal = internal_delivery(&deliveries);
    deliveries.extend((0..spec.internal_types).map(|_| internal));
    Ok(deliveries)
}

/// What happens to internal records that find no room: they neither make a dispatcher wait that
/// never waits for its events, nor keep the newest of those out.
fn internal_delivery(deliveries: &[Delivery]) -> Delivery {
    if deliveries.iter().any(|delivery| delivery.displaces()) {
        Delivery::DropOldest
    } else if deliveries.contains(&Delivery::DropNewest) {
        Delivery::DropNewest
    } else {
        Delivery::Every
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(runtime) = &mut self.runtime else { return };
        if runtime.is_forked_copy() {
            // The processes are not ours to end, and the thread exists only in the original.
            runtime.attention.abandon();
            return;
        }
        if self.begin_end(&Selection::All, None).is_err() {
            return;
        }
        while self.is_deployed() && self.begin_pump(&Selection::All, crate::Pump::End).is_ok() {
            while self.next_delivery().is_some() {}
        }
    }
}

pub(crate) type Notices = VecDeque<Notice>;
