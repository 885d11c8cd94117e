//! What once went wrong under unusual programs: copies that a callback forks off, floods that a
//! failing callback meets, descriptors that others wait for.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eventpy::{
    Delivery, DispatcherFailed, DispatcherOptions, Emitter, Event, EventDispatchManager,
    EventDispatcher, Failure,
};
use serde::{Deserialize, Serialize};
use support::{
    Notes, Unloadable, WATCHDOG, alone, has_ended, is_readable, note, pump_until, stay,
    wait_for_end, wait_for_sent, wait_until,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(C)]
struct Number(u64);

#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(C)]
struct State(u64);

#[derive(Event, FromBytes, IntoBytes, Immutable)]
#[event(plain)]
#[repr(C)]
struct Page([u8; 400]);

#[derive(Event, Serialize, Deserialize)]
struct Blob(#[serde(with = "serde_bytes")] Vec<u8>);

#[derive(Serialize, Deserialize)]
enum Does {
    /// One number after the other, as fast as there is room.
    Flood,
    /// The same, with pauses.
    Beat,
    /// Pages, after one state.
    FloodOfPages,
    /// States, behind pages.
    FloodOfStates,
    /// One number once this file exists.
    OneWhen(PathBuf),
    /// One number, and never another update.
    Hang,
    Idle,
    /// One large blob and two small ones.
    LargeAndSmall,
}

#[derive(Serialize, Deserialize)]
struct Odd {
    does: Does,
}

#[eventpy::dispatcher]
impl EventDispatcher for Odd {
    type Events = (Number, State, Page, Blob);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        *number += 1;
        let is_first = *number == 1;
        match &self.does {
            Does::Flood => emitter.emit(Number(*number))?,
            Does::Beat => {
                emitter.emit(Number(*number))?;
                emitter.wait(Duration::from_millis(1));
            }
            Does::FloodOfPages => {
                if is_first {
                    emitter.emit(State(1))?;
                }
                emitter.emit(Page([0; 400]))?;
            }
            Does::FloodOfStates => {
                if is_first {
                    (0..100).try_for_each(|_| emitter.emit(Page([0; 400])))?;
                }
                emitter.emit(State(*number))?;
            }
            Does::OneWhen(file) if is_first => {
                while !file.exists() && emitter.wait(Duration::from_millis(1)) {}
                emitter.emit(Number(7))?;
            }
            Does::Hang => {
                emitter.emit(Number(1))?;
                stay();
            }
            Does::LargeAndSmall if is_first => {
                for len in [600_000, 10, 10] {
                    emitter.emit(Blob(vec![1; len]))?;
                }
            }
            Does::OneWhen(_) | Does::LargeAndSmall | Does::Idle => wait_for_end(emitter),
        }
        Ok(())
    }
}

fn options() -> DispatcherOptions {
    DispatcherOptions::default().end_timeout(Duration::from_millis(300))
}

fn manager(does: Does, options: DispatcherOptions) -> EventDispatchManager {
    EventDispatchManager::new().dispatcher_with(Odd { does }, options)
}

/// The time that the processors spent for this process.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("our state can be read");
    let fields = stat.rsplit_once(") ").expect("the name is in parentheses").1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory that this process has, in bytes.
fn memory() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("our size can be read");
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.expect("the second number is there") * rustix::param::page_size() as u64
}

/// The copy returns from the pump with nothing, and takes nothing from the original.
#[eventpy::test]
fn a_copy_that_a_callback_forks_off_takes_nothing() -> eventpy::Result<()> {
    alone("a_copy_that_a_callback_forks_off_takes_nothing", || {
        let original = std::process::id();
        let seen = Notes::new();
        let mut manager = manager(Does::Flood, options().buffer_bytes(4096));
        manager.on({
            let seen = seen.clone();
            let mut has_forked = false;
            move |number: &Number| {
                seen.add(number.0);
                if std::mem::replace(&mut has_forked, true) {
                    return;
                }
                // SAFETY: the copy pumps, which is what the test is about, and exits.
                let pid = unsafe { libc::fork() };
                if let Some(copy) = rustix::process::Pid::from_raw(pid) {
                    let status =
                        rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty());
                    let (_, status) = status.unwrap().expect("it was waited for");
                    assert_eq!(status.exit_status(), Some(1), "the copy saw one number");
                }
            }
        });
        manager.deploy_dispatchers()?;
        // The ring is full.
        wait_for_sent(&manager, 0, 200);
        let delivered = manager.invoke_dispatch_timeout(WATCHDOG);
        if std::process::id() != original {
            // SAFETY: it only ends the process, without what the harness does at its end.
            unsafe { libc::_exit(seen.len() as i32) };
        }
        assert!(delivered? >= 200);
        pump_until(&mut manager, |_| seen.len() > 2_000)?;
        assert!(manager.end_dispatchers()?.is_clean());
        let seen = seen.take();
        assert!(seen.iter().copied().eq(1..=seen.len() as u64), "each number once and in order");
        Ok(())
    })
}

/// Each pump of a ring with a `latest` type takes all out of it; what a callback that fails leaves
/// there must not become more and more.
fn memory_is_bounded_while_a_callback_fails(
    test: &str,
    does: Does,
    register: fn(&mut EventDispatchManager),
) -> Result<(), Failure> {
    alone(test, || {
        let options = options().buffer_bytes(1 << 16).delivery_of("State", Delivery::Latest);
        let mut manager = manager(does, options);
        register(&mut manager);
        manager.deploy_dispatchers()?;
        let pump = |manager: &mut EventDispatchManager, times| {
            for _ in 0..times {
                let sent = manager.stats().dispatchers[0].counts.sent;
                let _ = manager.invoke_dispatch_timeout(WATCHDOG);
                // It fills its ring anew, as far as there is room.
                let start = Instant::now();
                while manager.stats().dispatchers[0].counts.sent < sent + 2_000
                    && start.elapsed() < Duration::from_millis(10)
                {
                    std::thread::yield_now();
                }
            }
        };
        pump(&mut manager, 10);
        let before = memory();
        pump(&mut manager, 80);
        let grown = memory().saturating_sub(before);
        assert!(grown < 4 << 20, "{grown} bytes more than before");
        // The callbacks fail on all that is left, too.
        let _ = manager.end_dispatchers();
        Ok(())
    })
}

#[eventpy::test]
fn a_flood_that_a_callback_fails_on_does_not_fill_the_memory() -> eventpy::Result<()> {
    memory_is_bounded_while_a_callback_fails(
        "a_flood_that_a_callback_fails_on_does_not_fill_the_memory",
        Does::FloodOfPages,
        |manager| {
            manager.on(|_: &Page| Err::<(), _>(Failure::new("deliberately")));
        },
    )?;
    Ok(())
}

#[eventpy::test]
fn a_flood_behind_an_event_that_waits_does_not_fill_the_memory() -> eventpy::Result<()> {
    memory_is_bounded_while_a_callback_fails(
        "a_flood_behind_an_event_that_waits_does_not_fill_the_memory",
        Does::FloodOfStates,
        |manager| {
            manager.on(|_: &Page| Err::<(), _>(Failure::new("deliberately")));
            manager.on(|_: &State| Err::<(), _>(Failure::new("deliberately")));
        },
    )?;
    Ok(())
}

/// More bells than the descriptor shows at a time.
#[eventpy::test]
fn a_descriptor_that_many_bells_have_rung_is_quiet_again() -> eventpy::Result<()> {
    alone("a_descriptor_that_many_bells_have_rung_is_quiet_again", || {
        const MANY: usize = 80;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("now");
        let options = DispatcherOptions::default().buffer_bytes(4096);
        let mut manager = (0..MANY).fold(EventDispatchManager::new(), |manager, _| {
            let does = Does::OneWhen(file.clone());
            manager.dispatcher_with(Odd { does }, options.clone())
        });
        let numbers = note(&mut manager, |number: &Number| number.0);
        manager.deploy_dispatchers()?;
        // All are through `init`, which each of them tells.
        while is_readable(&mut manager, Duration::from_millis(500))? {
            manager.invoke_dispatch()?;
        }
        std::fs::write(&file, "")?;
        for dispatcher in 0..MANY {
            wait_for_sent(&manager, dispatcher, 1);
        }
        let mut in_vain = 0;
        while numbers.len() < MANY || is_readable(&mut manager, Duration::from_millis(100))? {
            assert!(is_readable(&mut manager, WATCHDOG)?, "something is left");
            in_vain += usize::from(manager.invoke_dispatch()? == 0);
            assert!(in_vain < 200, "it is readable for nothing, again and again");
        }
        manager.end_dispatchers()?;
        Ok(())
    })
}

/// A deadline that has passed, or lies ahead, does not keep an ending manager busy.
#[eventpy::test]
fn an_ending_that_takes_its_time_uses_no_processor() -> eventpy::Result<()> {
    alone("an_ending_that_takes_its_time_uses_no_processor", || {
        let mut manager = EventDispatchManager::new()
            .dispatcher_with(Odd { does: Does::Hang }, options())
            .dispatcher_with(Odd { does: Does::Idle }, options());
        manager.on(|_: &DispatcherFailed| {});
        manager.deploy_dispatchers()?;
        manager.fileno()?;
        wait_for_sent(&manager, 0, 1);
        let (start, before) = (Instant::now(), processor_time());
        manager.end_dispatchers()?;
        let (took, used) = (start.elapsed(), processor_time() - before);
        assert!(took >= Duration::from_millis(300), "it hangs until it is killed: {took:?}");
        assert!(used < took / 3, "{used:?} of {took:?}");
        Ok(())
    })
}

#[eventpy::test]
fn a_descriptor_outlives_a_deployment_that_fails() -> eventpy::Result<()> {
    let mut manager = manager(Does::Beat, options());
    let numbers = note(&mut manager, |number: &Number| number.0);
    manager.deploy_dispatchers()?;
    manager.fileno()?;
    pump_until(&mut manager, |_| numbers.len() > 5)?;
    manager.register_dispatcher_with(Unloadable, options())?;
    manager.deploy_dispatchers().expect_err("one can't be loaded");
    for _ in 0..5 {
        assert!(is_readable(&mut manager, WATCHDOG)?, "there is something to pump");
        let before = numbers.len();
        // Readable says that there may be something.
        wait_until("the next number is there", || {
            manager.invoke_dispatch().expect("nothing fails") > 0
        });
        assert!(numbers.len() > before);
    }
    assert!(!has_ended(&manager, 0));
    let report = manager.end_dispatchers()?;
    assert!(report.dispatchers[0].finished, "{report}");
    Ok(())
}

/// Memory for large events is not wanted by small ones.
#[eventpy::test]
fn a_large_event_that_waits_keeps_no_small_one_out() -> eventpy::Result<()> {
    let options = options().large_bytes(1 << 20).delivery(Delivery::DropNewest);
    let mut manager = manager(Does::LargeAndSmall, options);
    let sizes = note(&mut manager, |blob: &Blob| blob.0.len());
    manager.deploy_dispatchers()?;
    wait_for_sent(&manager, 0, 3);
    pump_until(&mut manager, |_| sizes.len() == 3)?;
    assert_eq!(sizes.take(), [600_000, 10, 10]);
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}
