//! Sending events: from the dispatcher's code into the ring, or into a segment beside it.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use eventpy_ring::{ColdFence, Displacement, EventBell, Full, Producer, RecordWord, Reservation};

use super::large::{Place, Pool, Segment};
use super::status::{Status, Waited};
use crate::control::Control;
use crate::error::{Error, ErrorKind};
use crate::options::Delivery;
use crate::protocol::{FromChild, Setup};

/// Payload of a record that refers to a segment: its id and the length, as u64 each.
const REFERENCE_BYTES: usize = 16;

/// Sends events of an untyped dispatcher. An event is sent once its commit has returned: not even
/// SIGKILL can take it back then.
pub struct Emitter {
    producer: Producer<EventBell>,
    types: Vec<EventType>,
    batching: bool,
    finishing: bool,
    timed: bool,
    space: OwnedFd,
    cold: ColdFence,
    pool: Pool,
    control: Arc<Control>,
    status: Arc<Status>,
    name: String,
    pause: Pause,
}

/// How to sleep: calls what it is given, once.
pub type Pause = fn(&mut (dyn FnMut() + Send));

struct EventType {
    name: String,
    delivery: Delivery,
    /// Where its newest record begins.
    newest: Option<u64>,
}

/// Room for one event. Dropped without a commit, nothing is sent.
pub struct Slot<'a> {
    room: Room<'a>,
    type_id: u16,
    newest: &'a mut Option<u64>,
    batching: bool,
}

enum Room<'a> {
    Ring(Reservation<'a, EventBell>),
    Segment { producer: &'a mut Producer<EventBell>, segment: &'a mut Segment, len: usize },
}

/// What trying to make room came to.
enum Outcome {
    TryAgain,
    Dropped,
}

impl Emitter {
    pub(super) fn new(
        producer: Producer<EventBell>,
        setup: Setup,
        space: OwnedFd,
        cold: ColdFence,
        control: Arc<Control>,
        status: Arc<Status>,
    ) -> Emitter {
        let types = setup
            .event_types
            .into_iter()
            .map(|(name, delivery)| EventType { name, delivery, newest: None })
            .collect();
        Emitter {
            producer,
            types,
            batching: false,
            finishing: false,
            timed: setup.update_timeout.is_some(),
            space,
            cold,
            pool: Pool::new(setup.large_bytes as usize),
            control,
            status,
            name: setup.name,
            pause: |sleep| sleep(),
        }
    }

    /// Sets what happens around a sleep for want of room: a face whose language has a lock lets go
    /// of it meanwhile.
    pub fn set_pause(&mut self, pause: Pause) {
        self.pause = pause;
    }

    /// Room for an event of a type with at least `least` bytes of payload. Up to
    /// [`inline_limit`](Self::inline_limit) as much room is offered as is at hand; beyond that
    /// just as much as was asked for.
    ///
    /// While there is no room, it waits or drops, as the type's delivery says. `None`: the event
    /// was dropped, and counted.
    ///
    /// # Errors
    /// [`ErrorKind::Event`] for an undeclared type or an event beyond the budget,
    /// [`ErrorKind::State`] in a copy that the dispatcher's code forked off, [`ErrorKind::Ended`] after SIGTERM, unless in `finish`, [`ErrorKind::ManagerGone`] when the
    /// manager's process is gone, [`ErrorKind::System`] when there is no memory for a large event.
    #[inline]
    pub fn reserve(&mut self, type_id: u16, least: usize) -> Result<Option<Slot<'_>>, Error> {
        if self.status.is_ending() || self.status.is_forked_copy() {
            self.check_may_send()?;
        }
        if usize::from(type_id).wrapping_sub(1) >= self.types.len() {
            return Err(self.unknown_type(type_id));
        }
        if least > self.producer.max_record_bytes() {
            return self.reserve_large(type_id, least);
        }
        if !self.room_in_ring(type_id, least)? {
            return Ok(None);
        }
        let most = self.producer.max_record_bytes();
        let Ok(reservation) = self.producer.reserve(least, most) else {
            unreachable!("room that was found stays until something is committed");
        };
        let newest = &mut self.types[usize::from(type_id) - 1].newest;
        Ok(Some(Slot { room: Room::Ring(reservation), type_id, newest, batching: self.batching }))
    }

    /// Sends an event: the payload is copied.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    #[inline]
    pub fn send(&mut self, type_id: u16, payload: &[u8]) -> Result<(), Error> {
        if self.try_send(type_id, payload) { Ok(()) } else { self.send_with_care(type_id, payload) }
    }

    /// Sends an event if that takes no more than to write it into the ring. If not, nothing has
    /// happened, and [`send_with_care`](Self::send_with_care) is the way.
    #[inline(always)]
    pub fn try_send(&mut self, type_id: u16, payload: &[u8]) -> bool {
        let event_type = self.types.get_mut(usize::from(type_id).wrapping_sub(1));
        if let Some(event_type) = event_type
            && !self.status.is_ending()
            && !self.status.is_forked_copy()
            && payload.len() <= self.producer.max_record_bytes()
            && self.producer.push(type_id, payload).is_ok()
        {
            sent(&mut self.producer, &mut event_type.newest, type_id, self.batching);
            return true;
        }
        false
    }

    /// As [`send`](Self::send), where more is needed than a look at the ring.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    #[cold]
    pub fn send_with_care(&mut self, type_id: u16, payload: &[u8]) -> Result<(), Error> {
        if let Some(mut slot) = self.reserve(type_id, payload.len())? {
            slot.bytes_mut()[..payload.len()].copy_from_slice(payload);
            slot.commit(payload.len());
        }
        Ok(())
    }

    /// From now until [`end_batch`](Self::end_batch), the manager learns of events together. They
    /// are sent at the latest when the ring is full.
    pub fn begin_batch(&mut self) {
        self.batching = true;
    }

    /// Sends what a batch holds.
    pub fn end_batch(&mut self) {
        self.batching = false;
        self.publish();
    }

    /// The largest payload that travels in the ring, in bytes.
    pub fn inline_limit(&self) -> usize {
        self.producer.max_record_bytes()
    }

    /// Sleeps; false when the dispatcher is to end, which cuts the sleep short.
    pub fn wait(&mut self, time: Duration) -> bool {
        self.publish();
        let sleep = || self.status.sleep(time, || Ok::<(), Infallible>(()));
        let Ok(slept) = self.status.waiting(sleep);
        slept
    }

    /// Whether the dispatcher is to end.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.status.is_ending()
    }

    /// Ends the dispatcher after the current update; `finish` runs.
    pub fn end(&mut self) {
        self.status.end();
    }

    pub(super) fn begin_update(&mut self) {
        self.status.set_updating(true);
        if self.timed {
            self.status.begin_update();
        }
    }

    pub(super) fn end_update(&mut self) {
        self.status.set_updating(false);
        if self.timed {
            self.status.end_update();
        }
        self.end_batch();
    }

    pub(super) fn begin_finish(&mut self) {
        self.finishing = true;
    }

    pub(super) fn publish(&mut self) {
        // What a copy has of a batch, the dispatcher publishes.
        if self.producer.has_unpublished() && !self.status.is_forked_copy() {
            self.producer.publish();
        }
    }

    #[cold]
    fn check_may_send(&self) -> Result<(), Error> {
        self.status.check_is_no_copy()?;
        if self.status.is_orphaned() {
            return Err(manager_gone());
        }
        if self.status.is_urgent() && !self.finishing {
            return Err(interrupted());
        }
        Ok(())
    }

    #[cold]
    fn unknown_type(&self, type_id: u16) -> Error {
        Error::new(
            ErrorKind::Event,
            format!("dispatcher `{}` has no event type number {type_id}", self.name),
        )
    }

    /// Sees to room for a record; false if the event is dropped instead.
    #[inline]
    fn room_in_ring(&mut self, type_id: u16, least: usize) -> Result<bool, Error> {
        while let Err(full) = self.producer.fits(least) {
            if let Outcome::Dropped = self.make_room(type_id, |emitter| emitter.park(full))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// There is no room for an event: does what its delivery says.
    #[cold]
    fn make_room(
        &mut self,
        type_id: u16,
        wait: impl FnOnce(&mut Emitter) -> Result<(), Error>,
    ) -> Result<Outcome, Error> {
        self.publish();
        let delivery = self.types[usize::from(type_id) - 1].delivery;
        if delivery != Delivery::DropNewest && self.displace_oldest(type_id) {
            return Ok(Outcome::TryAgain);
        }
        if delivery == Delivery::Every {
            wait(self)?;
            return Ok(Outcome::TryAgain);
        }
        self.count_drop(type_id);
        Ok(Outcome::Dropped)
    }

    fn count_drop(&mut self, type_id: u16) {
        self.producer.count_sent(type_id);
        self.producer.count_dropped(type_id);
    }

    /// Drops the oldest record of the ring for an event of a type, if it may be dropped. True if
    /// there may be more room now.
    fn displace_oldest(&mut self, type_id: u16) -> bool {
        let types = &self.types;
        let may_displace = |word: RecordWord, position: u64| {
            let oldest = &types[usize::from(word.type_id()) - 1];
            match oldest.delivery {
                Delivery::Every | Delivery::DropNewest => false,
                Delivery::DropOldest => true,
                // The newest of its type stays, unless this event is newer.
                Delivery::Latest => word.type_id() == type_id || oldest.newest != Some(position),
            }
        };
        match self.producer.displace(may_displace) {
            Displacement::Refused => false,
            Displacement::Moved => true,
            Displacement::Displaced(displaced) => {
                if displaced.word.is_large() {
                    self.pool.take_back_id(displaced.first_word as u32);
                }
                true
            }
        }
    }

    /// Sleeps until the manager has made room.
    fn park(&mut self, full: Full) -> Result<(), Error> {
        // Waking for half of the ring instead of one record saves wake-ups; what is published is
        // all that the manager can free.
        let half = self.producer.head() + self.producer.capacity() / 2;
        let wanted = full.wanted.max(half.min(self.producer.position()));
        let cold = self.cold;
        self.sleep(|producer| producer.sleep_until(wanted, cold))
    }

    fn sleep(
        &mut self,
        announce: impl FnOnce(&mut Producer<EventBell>) -> bool,
    ) -> Result<(), Error> {
        if !announce(&mut self.producer) {
            return Ok(());
        }
        let (status, space, finishing) = (&self.status, &self.space, self.finishing);
        let mut waited = Waited::Room;
        let mut wait = || waited = status.wait_for(space, finishing);
        status.waiting(|| (self.pause)(&mut wait));
        self.producer.stay_awake();
        match waited {
            Waited::Room => Ok(()),
            Waited::Interrupted => Err(interrupted()),
            Waited::ManagerGone => Err(manager_gone()),
        }
    }

    #[cold]
    fn reserve_large(&mut self, type_id: u16, len: usize) -> Result<Option<Slot<'_>>, Error> {
        if len > self.pool.budget() {
            let name = &self.types[usize::from(type_id) - 1].name;
            return Err(Error::new(
                ErrorKind::Event,
                format!(
                    "cannot send event `{name}`: it takes {len} bytes, and dispatcher `{}` may have {} in large events; \
                     raise large_bytes in its options or send it in parts",
                    self.name,
                    self.pool.budget()
                ),
            ));
        }
        let Some(slot) = self.room_in_pool(type_id, len)? else { return Ok(None) };
        // The ring's room is seen to now, so that the commit can't fail.
        if !self.room_in_ring(type_id, REFERENCE_BYTES)? {
            return Ok(None);
        }
        let room =
            Room::Segment { producer: &mut self.producer, segment: self.pool.segment(slot), len };
        let newest = &mut self.types[usize::from(type_id) - 1].newest;
        Ok(Some(Slot { room, type_id, newest, batching: self.batching }))
    }

    /// Sees to a segment; `None` if the event is dropped instead.
    fn room_in_pool(&mut self, type_id: u16, len: usize) -> Result<Option<usize>, Error> {
        loop {
            self.pool.take_back(self.producer.take_returned_segments());
            match self.pool.find(len).map_err(|error| self.no_memory(type_id, len, error))? {
                Place::Ready(slot) => return Ok(Some(slot)),
                Place::New(slot, memory) => {
                    if self.send_segment(type_id, slot, &memory)? {
                        return Ok(Some(slot));
                    }
                    self.pool.give_up(slot);
                    self.count_drop(type_id);
                    return Ok(None);
                }
                Place::Wait => {}
            }
            let cold = self.cold;
            let wait = |emitter: &mut Emitter| {
                emitter.sleep(|producer| producer.sleep_until_segment(cold))
            };
            if self.types[usize::from(type_id) - 1].delivery == Delivery::Every {
                // The ring may have room: nothing in it has to go for this.
                self.publish();
                wait(self)?;
            } else if let Outcome::Dropped = self.make_room(type_id, wait)? {
                return Ok(None);
            }
        }
    }

    /// False if the command socket is full of what the manager has not taken, and an event of this
    /// type does not wait.
    fn send_segment(&mut self, type_id: u16, slot: usize, memory: &OwnedFd) -> Result<bool, Error> {
        let waits = self.types[usize::from(type_id) - 1].delivery == Delivery::Every;
        let slots = self.pool.slots();
        let segment = self.pool.segment(slot);
        let bytes = segment.memory.capacity() as u64;
        let message = FromChild::Segment { id: segment.id, bytes, slots };
        match self.control.send(&message, &[memory.as_fd()], waits) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(_) if self.status.is_orphaned() => Err(manager_gone()),
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Err(manager_gone()),
            Err(error) => Err(Error::refused("cannot send the memory of a large event", error)),
        }
    }

    fn no_memory(&self, type_id: u16, len: usize, source: eventpy_ring::CreateError) -> Error {
        let name = &self.types[usize::from(type_id) - 1].name;
        Error::with_source(
            ErrorKind::System,
            format!("cannot send event `{name}` of {len} bytes: {source}"),
            source,
        )
    }
}

impl Slot<'_> {
    /// The payload to write into. It holds whatever was there before.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.room {
            Room::Ring(reservation) => reservation.bytes_mut(),
            Room::Segment { segment, len, .. } => &mut segment.memory.bytes_mut()[..*len],
        }
    }

    /// Sends the first `len` bytes of the payload.
    ///
    /// # Panics
    /// When `len` exceeds the room.
    #[inline]
    pub fn commit(self, len: usize) {
        let producer = match self.room {
            Room::Ring(reservation) => reservation.commit(self.type_id, len),
            Room::Segment { producer, segment, len: room } => {
                assert!(len <= room, "{room} bytes were reserved, not {len}");
                commit_large(producer, segment, self.type_id, len)
            }
        };
        sent(producer, self.newest, self.type_id, self.batching);
    }
}

/// Counts the event that was just committed and, unless it is part of a batch, publishes it.
#[inline(always)]
fn sent(
    producer: &mut Producer<EventBell>,
    newest: &mut Option<u64>,
    type_id: u16,
    batching: bool,
) {
    *newest = Some(producer.last_record());
    producer.count_sent(type_id);
    if !batching {
        producer.publish();
    }
}

#[cold]
fn commit_large<'a>(
    producer: &'a mut Producer<EventBell>,
    segment: &mut Segment,
    type_id: u16,
    len: usize,
) -> &'a mut Producer<EventBell> {
    let mut reference = [0; REFERENCE_BYTES];
    reference[..8].copy_from_slice(&u64::from(segment.id).to_le_bytes());
    reference[8..].copy_from_slice(&(len as u64).to_le_bytes());
    segment.send_off();
    let Ok(reservation) = producer.reserve(REFERENCE_BYTES, REFERENCE_BYTES) else {
        unreachable!("room that was found stays until something is committed");
    };
    reservation.write(&reference);
    reservation.commit_large(type_id, REFERENCE_BYTES)
}

fn interrupted() -> Error {
    Error::new(
        ErrorKind::Ended,
        "the dispatcher was told to end at once (SIGTERM); the event was not sent",
    )
}

fn manager_gone() -> Error {
    Error::new(
        ErrorKind::ManagerGone,
        "the manager's process is gone; nobody receives events any more",
    )
}
