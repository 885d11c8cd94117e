//! One running process of a dispatcher: the process, its command socket, its ring, its segments.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use eventpy_ring::{Consumer, CreateError, EventBell, MAX_SEGMENTS, SegmentReader, Segments};

use crate::aside::Aside;
use crate::control::{Control, Descriptors, Received};
use crate::error::{Error, ErrorKind};
use crate::options::{Delivery, DispatcherSpec};
use crate::process::Process;
use crate::protocol::{FromChild, Setup, ToChild};
use crate::space::SpaceBell;

/// Messages that are taken from one process in one go, so that a flood can't hold the manager.
const MESSAGES_AT_ONCE: usize = 256;

/// Messages that one process may send in its life, segments aside. A sound one sends a few.
const MAX_REPORTS: u32 = 64;

/// Whether a process has said all that it has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// All for now.
    All,
    /// There may be more at once.
    More,
    /// It has closed its end: it will not say anything again.
    Closed,
}

pub(crate) struct Link {
    pub(crate) process: Process,
    pub(crate) consumer: Consumer<SpaceBell>,
    control: Aside<Control>,
    data: EventBell,
    segments: Vec<Option<(u32, Arc<SegmentReader>)>>,
    /// Messages that were received while a segment was looked for.
    inbox: VecDeque<FromChild>,
    /// Messages that it has sent, segments aside.
    reports: u32,
    /// It has closed its end, or has said what can't be understood: nothing more is heard.
    closed: bool,
    /// What all segments may take together, in bytes.
    large_bytes: usize,
}

impl Link {
    /// Starts the process and sends it its setup. `this_process` lets it see when we are gone.
    pub(crate) fn start(
        spec: &DispatcherSpec,
        deliveries: &[Delivery],
        this_process: BorrowedFd<'_>,
        barriers: bool,
    ) -> Result<Link, Error> {
        let name = &spec.name;
        let system = |what: &str, source: io::Error| start_error(name, what, source);
        let (control, theirs) =
            Control::pair().map_err(|error| system("make its command socket", error))?;
        let control = Aside::new(control);
        let (space, heard) =
            SpaceBell::pair().map_err(|error| system("make a bell (socketpair)", error))?;
        let data = EventBell::new().map_err(|error| system("make a bell (eventfd)", error))?;
        let displaceable = deliveries.iter().any(|delivery| delivery.displaces());
        let (consumer, ring) =
            eventpy_ring::create(spec.options.buffer_bytes, displaceable, Arc::new(space))
                .map_err(|error| create_error(name, error))?;
        let payload =
            eventpy_ring::parcel(&spec.payload).map_err(|error| create_error(name, error))?;
        let setup = ToChild::Setup(setup(spec, deliveries, barriers));
        control
            .send(
                &setup,
                &[ring.as_fd(), data.as_fd(), heard.as_fd(), this_process, payload.as_fd()],
                false,
            )
            .map_err(|error| system("send its setup", error))?;
        let process = Process::start(&spec.launch, theirs).map_err(|error| {
            system(&format!("start `{}`", spec.launch.program.display()), error)
        })?;
        Ok(Link::new(process, consumer, control, data, spec.options.large_bytes))
    }

    /// What there is of a process that has its setup.
    pub(crate) fn new(
        process: Process,
        consumer: Consumer<SpaceBell>,
        control: Aside<Control>,
        data: EventBell,
        large_bytes: usize,
    ) -> Link {
        Link {
            process,
            consumer,
            control,
            data,
            segments: (0..MAX_SEGMENTS).map(|_| None).collect(),
            inbox: VecDeque::new(),
            reports: 0,
            closed: false,
            large_bytes,
        }
    }

    /// Takes the messages that are there now, oldest first.
    ///
    /// # Errors
    /// When the process does not keep to the protocol.
    pub(crate) fn receive(&mut self, into: &mut Vec<FromChild>) -> io::Result<Heard> {
        into.extend(self.inbox.drain(..));
        for _ in 0..MESSAGES_AT_ONCE {
            match self.receive_one()? {
                Some(FromChild::Segment { .. }) => {}
                Some(message) => into.push(message),
                None if self.closed => return Ok(Heard::Closed),
                None => return Ok(Heard::All),
            }
        }
        Ok(Heard::More)
    }

    /// The segment that a record names. Its descriptor was sent before the record was committed,
    /// so that it is mapped already or waits in the socket.
    pub(crate) fn segment(&mut self, id: u32) -> io::Result<Arc<SegmentReader>> {
        // More messages than this can't wait in the socket behind a segment that was sent.
        for _ in 0..MESSAGES_AT_ONCE {
            if let Some((found, segment)) = &self.segments[slot_of(id)]
                && *found == id
            {
                return Ok(Arc::clone(segment));
            }
            match self.receive_one()? {
                Some(FromChild::Segment { .. }) => {}
                Some(message) => self.inbox.push_back(message),
                None => break,
            }
        }
        Err(io::Error::other(format!("a record names segment {id}, which was never sent")))
    }

    /// Whether its end of the command socket is closed, or as good as that.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Lets nothing more into the command socket: what is there already is still to be received.
    /// Its process is gone, but what that has left behind may have the other end.
    pub(crate) fn hear_no_more(&self) {
        self.control.hear_no_more();
    }

    /// Whether messages were received that nobody has handled.
    pub(crate) fn has_inbox(&self) -> bool {
        !self.inbox.is_empty()
    }

    pub(crate) fn returns(&self) -> Segments<SpaceBell> {
        self.consumer.segments()
    }

    /// Tells the process to end. It may be gone already, or not listening: deadlines see to that.
    pub(crate) fn send_end(&self) {
        let _ = self.control.send(&ToChild::End, &[], false);
    }

    pub(crate) fn data_bell(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    fn receive_one(&mut self) -> io::Result<Option<FromChild>> {
        if self.closed {
            return Ok(None);
        }
        match self.control.receive() {
            Ok(Received::Message(message, descriptors)) => {
                self.take(&message, descriptors).inspect_err(|_| self.closed = true)?;
                Ok(Some(message))
            }
            Ok(Received::Nothing) => Ok(None),
            Ok(Received::Closed) => {
                self.closed = true;
                Ok(None)
            }
            Err(error) => {
                self.closed = true;
                Err(error)
            }
        }
    }

    fn take(&mut self, message: &FromChild, descriptors: Descriptors) -> io::Result<()> {
        if let FromChild::Segment { id, bytes, slots } = *message {
            return self.map_segment(id, bytes, slots, descriptors);
        }
        if descriptors.is_some() {
            return Err(io::Error::other(
                "a message came with descriptors, which only segments do",
            ));
        }
        self.reports += 1;
        if self.reports > MAX_REPORTS {
            return Err(io::Error::other(format!(
                "it has sent more than {MAX_REPORTS} reports of itself"
            )));
        }
        Ok(())
    }

    /// A newer segment takes the place of an older one that the process has given up.
    fn map_segment(
        &mut self,
        id: u32,
        bytes: u64,
        slots: u64,
        descriptors: Descriptors,
    ) -> io::Result<()> {
        for (slot, segment) in self.segments.iter_mut().enumerate() {
            if slots & 1 << slot == 0 || slot == slot_of(id) {
                *segment = None;
            }
        }
        let Some(memory) = descriptors else {
            return Err(io::Error::other(format!("segment {id} came without its memory")));
        };
        let [descriptor] = &memory[..] else {
            return Err(io::Error::other(format!(
                "segment {id} came with {} descriptors, not with one",
                memory.len()
            )));
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let kept: usize = self.segments.iter().flatten().map(|(_, kept)| kept.capacity()).sum();
        if bytes > self.large_bytes.saturating_sub(kept) {
            return Err(io::Error::other(format!(
                "segment {id} of {bytes} bytes is beyond the {} that large events may take",
                self.large_bytes
            )));
        }
        let segment = SegmentReader::map(descriptor.as_fd(), bytes).map_err(io::Error::other)?;
        // It is memory, which nobody waits for.
        drop(memory.into_inner());
        self.segments[slot_of(id)] = Some((id, Arc::new(segment)));
        Ok(())
    }
}

/// The bit by which a segment is given back. No two segments in use have the same.
pub(crate) fn slot_of(id: u32) -> usize {
    id as usize % MAX_SEGMENTS
}

fn setup(spec: &DispatcherSpec, deliveries: &[Delivery], barriers: bool) -> Setup {
    let internal = (0..spec.internal_types).map(|_| "(internal)".to_owned());
    let names = spec.event_types.iter().cloned().chain(internal);
    Setup {
        name: spec.name.clone(),
        event_types: names.zip(deliveries.iter().copied()).collect(),
        payload_bytes: spec.payload.len() as u64,
        large_bytes: spec.options.large_bytes as u64,
        update_timeout: spec.options.update_timeout,
        end_timeout: spec.options.end_timeout,
        barriers,
    }
}

pub(crate) fn start_error(name: &str, what: &str, source: io::Error) -> Error {
    Error::refused(&format!("cannot start dispatcher `{name}`: cannot {what}"), source)
}

fn create_error(name: &str, error: CreateError) -> Error {
    match error {
        CreateError::Os { action, source } => start_error(name, action, source),
        other => Error::new(ErrorKind::Options, format!("dispatcher `{name}`: {other}")),
    }
}
