//! Dispatchers take processes, descriptors, mappings and threads. Whatever becomes of them, nothing
//! of that is left; and while they have nothing to tell, a pump asks the system for nothing.

#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use eventpy::{
    Delivery, DispatcherFailed, DispatcherOptions, DispatcherState, Emitter, ErrorKind, Event,
    EventDispatchManager, EventDispatcher, Failure, Restart,
};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde::{Deserialize, Serialize};
use support::{
    Companion, Holdings, Unloadable, WATCHDOG, alone, at_once, has_ended, note, part, pid_of,
    pump_until, signal_child, spin, wait_for_end, wait_for_sent, wait_until,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Event, Serialize, Deserialize)]
struct Page {
    #[serde(with = "serde_bytes")]
    text: Vec<u8>,
}

/// A page for the reader of a process's own affairs.
#[derive(Event, Serialize, Deserialize)]
struct Descriptors(Vec<String>);

/// Writes pages, and then comes to an end or to none.
#[derive(Serialize, Deserialize)]
struct Writer {
    pages: u64,
    bytes: usize,
    then: Then,
}

#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq)]
enum Then {
    RefuseToLoad,
    FailInInit,
    Wait,
    End,
    Fail,
    Panic,
    Hang,
}

#[eventpy::dispatcher]
impl EventDispatcher for Writer {
    type Events = (Page, Descriptors);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        match self.then {
            Then::FailInInit => Err(Failure::new("there is no paper")),
            _ => Ok(0),
        }
    }

    fn update(
        &mut self,
        written: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *written < self.pages {
            emitter.emit(Page { text: vec![b'a'; self.bytes] })?;
            *written += 1;
            return Ok(());
        }
        match self.then {
            Then::End => emitter.end(),
            Then::Fail => return Err(Failure::new("there is no ink")),
            Then::Panic => panic!("there is no light"),
            Then::Hang => spin(),
            _ => wait_for_end(emitter),
        }
        Ok(())
    }

    fn finish(&mut self, _: u64, emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        let mut open = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            open.push(fs::read_link(entry?.path())?.to_string_lossy().into_owned());
        }
        emitter.emit(Descriptors(open))?;
        Ok(())
    }
}

fn writer(pages: u64, bytes: usize, then: Then) -> Writer {
    Writer { pages, bytes, then }
}

/// Ends by force soon, and has room for a few pages.
fn options() -> DispatcherOptions {
    let brief = Duration::from_millis(20);
    DispatcherOptions::default().buffer_bytes(1 << 16).update_timeout(brief).end_timeout(brief)
}

/// Runs rounds, after some of the same that leave what the standard library and the allocator
/// keep for good.
fn assert_nothing_left(
    rounds: usize,
    mut round: impl FnMut() -> eventpy::Result<()>,
) -> eventpy::Result<()> {
    (0..3).try_for_each(|_| round())?;
    let before = Holdings::now();
    (0..rounds).try_for_each(|_| round())?;
    before.assert_nothing_added();
    Ok(())
}

#[eventpy::test]
fn of_fifty_deployments_that_end_well() -> eventpy::Result<()> {
    alone("of_fifty_deployments_that_end_well", || {
        let generous = || options().end_timeout(WATCHDOG).update_timeout(WATCHDOG);
        assert_nothing_left(50, || {
            let mut manager = EventDispatchManager::new()
                .dispatcher_with(writer(100, 1_000, Then::Wait), generous())
                .dispatcher_with(writer(10, 200_000, Then::Wait), generous())
                .dispatcher_with(writer(0, 0, Then::End), generous());
            let pages = note(&mut manager, |page: &Page| page.text.len());
            for _deployment in 0..2 {
                manager.deploy_dispatchers()?;
                manager.fileno()?;
                pump_until(&mut manager, |_| pages.len() == 110)?;
                assert!(manager.end_dispatchers()?.is_clean());
                pages.take();
            }
            Ok(())
        })
    })
}

#[eventpy::test]
fn of_dropped_managers() -> eventpy::Result<()> {
    alone("of_dropped_managers", || {
        assert_nothing_left(30, || {
            let mut manager = EventDispatchManager::new()
                .dispatcher(writer(1_000, 1_000, Then::Wait))
                .dispatcher(writer(10, 200_000, Then::Wait));
            manager.on(|_: &Page| {});
            manager.deploy_dispatchers()?;
            wait_for_sent(&manager, 0, 10);
            Ok(())
        })
    })
}

#[eventpy::test]
fn of_failures_of_every_kind() -> eventpy::Result<()> {
    alone("of_failures_of_every_kind", || {
        let mut ends = [Then::FailInInit, Then::Fail, Then::Panic, Then::Hang].into_iter().cycle();
        assert_nothing_left(20, || {
            let then = ends.next().expect("it is endless");
            let restart = at_once(Restart::on_failure(), 2);
            let mut manager = EventDispatchManager::new()
                .dispatcher_with(writer(10, 100_000, then), options().restart(restart))
                .dispatcher_with(writer(10, 100_000, Then::Wait), options());
            manager.on(|_: &DispatcherFailed| {});
            manager.deploy_dispatchers()?;
            pump_until(&mut manager, |manager| has_ended(manager, 0))?;
            assert!(signal_child(pid_of(&manager, 1), Signal::KILL));
            pump_until(&mut manager, |manager| has_ended(manager, 1))?;
            assert_eq!(manager.end_dispatchers()?.dispatchers[0].restarts, 2, "{then:?}");
            Ok(())
        })
    })
}

#[eventpy::test]
fn of_deployments_that_fail() -> eventpy::Result<()> {
    alone("of_deployments_that_fail", || {
        assert_nothing_left(30, || {
            let mut manager = EventDispatchManager::new()
                .dispatcher(writer(100, 100_000, Then::Wait))
                .dispatcher(Unloadable)
                .dispatcher(writer(100, 1_000, Then::Wait));
            let error = manager.deploy_dispatchers().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Load, "{error}");
            Ok(())
        })
    })
}

/// A dispatcher's process has its own descriptors, and none of the manager or of the others.
#[eventpy::test]
fn of_the_manager_in_its_dispatchers() -> eventpy::Result<()> {
    let open_with = |others: usize| -> eventpy::Result<Vec<usize>> {
        let mut manager = EventDispatchManager::new();
        for _ in 0..=others {
            manager.register_dispatcher(writer(0, 0, Then::Wait))?;
        }
        let notes = note(&mut manager, |descriptors: &Descriptors| descriptors.0.len());
        manager.deploy_dispatchers()?;
        manager.end_dispatchers()?;
        Ok(notes.take())
    };
    let alone = open_with(0)?[0];
    assert_eq!(open_with(15)?, [alone; 16]);
    Ok(())
}

/// A reading, as large as a cache line.
#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(C)]
struct Reading([u64; 8]);

/// Reads without a pause; what nobody takes in time is dropped.
#[derive(Serialize, Deserialize)]
struct Meter {
    is_idle: bool,
}

#[eventpy::dispatcher]
impl EventDispatcher for Meter {
    type Events = (Reading,);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if self.is_idle {
            wait_for_end(emitter);
        } else {
            emitter.emit(Reading([*number; 8]))?;
            *number += 1;
        }
        Ok(())
    }
}

/// From here on this thread may only exit, with what the standard library does before, and say why
/// it panics. For anything else that it asks, its process is killed.
fn forbid_system_calls() -> eventpy::Result<()> {
    let allowed = [libc::SYS_exit_group, libc::SYS_sigaltstack, libc::SYS_munmap, libc::SYS_write];
    let allowed = allowed.map(|call| (call, Vec::new()));
    let filter = SeccompFilter::new(
        BTreeMap::from(allowed),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

/// Runs the rest of a test in a process of its own, whose thread is forbidden all system calls as
/// soon as `prepare` is through, and which exits at the end of `pump`.
fn without_system_calls<T>(
    test: &str,
    prepare: impl FnOnce() -> eventpy::Result<T>,
    pump: impl FnOnce(&mut T) -> eventpy::Result<()>,
) -> eventpy::Result<()> {
    if part().is_some() {
        let mut prepared = prepare()?;
        forbid_system_calls()?;
        let pumped = pump(&mut prepared);
        std::process::exit(if pumped.is_ok() { 17 } else { 18 });
    }
    let mut companion = Companion::start(test, "without system calls");
    let (status, output) = companion.wait();
    assert_eq!(status.code(), Some(17), "{status}:\n{output}");
    companion.wait_until_gone();
    Ok(())
}

#[eventpy::test]
fn of_idle_dispatchers_in_the_time_of_a_pump() -> eventpy::Result<()> {
    without_system_calls(
        "of_idle_dispatchers_in_the_time_of_a_pump",
        || {
            let mut manager = EventDispatchManager::new();
            for _ in 0..4 {
                manager.register_dispatcher(Meter { is_idle: true })?;
            }
            manager.on(|_: &Reading| {});
            manager.deploy_dispatchers()?;
            // All that they say at their start is heard, also by the engine's own thread.
            pump_until(&mut manager, |manager| {
                manager.stats().dispatchers.iter().all(|d| d.state == DispatcherState::Running)
            })?;
            wait_until("all other threads sleep", support::is_asleep_but_for_us);
            manager.invoke_dispatch()?;
            Ok(manager)
        },
        |manager| {
            for _ in 0..1_000_000 {
                assert_eq!(manager.invoke_dispatch()?, 0);
            }
            Ok(())
        },
    )
}

#[eventpy::test]
fn of_busy_dispatchers_in_the_time_of_a_pump() -> eventpy::Result<()> {
    without_system_calls(
        "of_busy_dispatchers_in_the_time_of_a_pump",
        || {
            let options = DispatcherOptions::default().delivery(Delivery::DropNewest);
            let mut manager = EventDispatchManager::new()
                .dispatcher_with(Meter { is_idle: false }, options.clone())
                .dispatcher_with(Meter { is_idle: false }, options);
            manager.on(|reading: &Reading| assert_eq!(reading.0[0], reading.0[7]));
            manager.deploy_dispatchers()?;
            for dispatcher in 0..2 {
                wait_for_sent(&manager, dispatcher, 1_000);
            }
            wait_until("all other threads sleep", support::is_asleep_but_for_us);
            manager.invoke_dispatch()?;
            Ok(manager)
        },
        |manager| {
            let mut delivered = 0;
            while delivered < 1_000_000 {
                delivered += manager.invoke_dispatch()?;
            }
            Ok(())
        },
    )
}

/// The filter that these tests rely on does kill.
#[eventpy::test]
fn of_a_process_that_asks_for_what_is_forbidden() -> eventpy::Result<()> {
    let test = "of_a_process_that_asks_for_what_is_forbidden";
    if part().is_some() {
        forbid_system_calls()?;
        std::thread::sleep(Duration::from_nanos(1));
        std::process::exit(17);
    }
    let (status, output) = Companion::start(test, "forbidden").wait();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(libc::SIGSYS), "{status}:\n{output}");
    Ok(())
}
