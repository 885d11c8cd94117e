//! An engine with one dispatcher whose process is played by the caller, message by message: for
//! tests and fuzzing of what a hostile process could say and write.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventpy_ring::EventBell;

use crate::aside::Aside;
use crate::control::Control;
use crate::dispatcher::Life;
use crate::engine::{Engine, Runtime, attend_one};
use crate::link::Link;
use crate::options::{DispatcherSpec, RestartWhen};
use crate::process::Process;
use crate::report::Exit;
use crate::space::SpaceBell;

/// The engine, and what its dispatcher's process would have of it.
pub struct Stage {
    engine: Engine,
    control: Option<OwnedFd>,
    ring: OwnedFd,
    _space: OwnedFd,
}

impl Stage {
    /// As if the dispatcher's process had just been started.
    ///
    /// # Panics
    /// When the operating system refuses anything, and for a dispatcher that would be restarted:
    /// its program is not run.
    pub fn new(spec: DispatcherSpec) -> Stage {
        assert_eq!(spec.options.restart.when, RestartWhen::Never, "nothing can be started");
        let refused = "there are memory and descriptors left";
        let (control, theirs) = Control::pair().expect(refused);
        let (space, heard) = SpaceBell::pair().expect(refused);
        let data = EventBell::new().expect(refused);
        let (capacity, large_bytes) = (spec.options.buffer_bytes, spec.options.large_bytes);
        let mut engine = Engine::new();
        engine.add(spec).expect("its options can be met");
        let dispatcher = &mut engine.dispatchers[0];
        let (consumer, ring) =
            eventpy_ring::create(capacity, dispatcher.is_displaceable(), Arc::new(space))
                .expect(refused);
        engine.glances[0].watch(consumer.tail_watch());
        let process = Process::none(File::open("/dev/null").expect(refused).into());
        let link = Link::new(process, consumer, Aside::new(control), data, large_bytes);
        dispatcher.begin(link, Instant::now());
        engine.runtime = Some(Runtime::new().expect(refused));
        engine.note_deadline();
        Stage { engine, control: Some(theirs), ring, _space: heard }
    }

    /// To pump, to end and to ask; nothing that waits.
    pub fn engine(&mut self) -> &mut Engine {
        // Only the caller says what there is to attend to.
        if let Some(runtime) = &self.engine.runtime {
            runtime.attention.lower();
        }
        &mut self.engine
    }

    /// The memory of the ring.
    pub fn ring(&self) -> &OwnedFd {
        &self.ring
    }

    /// The process's end of the command socket, unless it is closed.
    pub fn control(&self) -> Option<BorrowedFd<'_>> {
        self.control.as_ref().map(AsFd::as_fd)
    }

    /// The process closes its end of the command socket.
    pub fn close_control(&mut self) {
        self.control = None;
    }

    /// The manager handles what the process has said and, if it has exited, that.
    pub fn attend(&mut self, exit: Option<Exit>) {
        let (dispatcher, glance) = (&mut self.engine.dispatchers[0], &mut self.engine.glances[0]);
        if let Some(runtime) = self.engine.runtime.as_ref().filter(|_| dispatcher.has_process()) {
            attend_one(dispatcher, exit, runtime, &mut Vec::new());
            if dispatcher.life == Life::Exited {
                glance.look_closer();
            }
        }
        self.engine.note_deadline();
    }

    /// What is due some time from now is due.
    pub fn pass(&mut self, time: Duration) {
        self.engine.take_step(0, Instant::now() + time);
        self.engine.note_deadline();
    }
}

impl Drop for Stage {
    /// An engine waits for its processes.
    fn drop(&mut self) {
        self.attend(Some(Exit::Unknown));
    }
}
