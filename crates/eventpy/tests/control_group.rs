//! A control group that has no more memory: an error that says so where memory would be reserved,
//! and a failure that can be read where the kernel kills. And one that is frozen, so that not even
//! SIGKILL ends what is in it. Runs where control groups can be made.

#![forbid(unsafe_code)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eventpy::{
    DispatcherFailed, DispatcherOptions, Emitter, ErrorKind, Event, EventDispatchManager,
    EventDispatcher,
};
use serde::{Deserialize, Serialize};
use support::{
    Holdings, Notes, alone, assert_balanced, has_ended, is_alive, note, pid_of, pump_until,
    wait_for_end, wait_until,
};

/// More than a manager and a dispatcher take, less than any of these tests asks for.
const LIMIT: usize = 64 << 20;

/// An event and its encoded bytes fit, but not the memory that takes them to the manager too.
const TOO_LARGE: usize = 22 << 20;

/// A group around this process, which goes back to where it was.
struct ControlGroup {
    folder: PathBuf,
    before: PathBuf,
}

impl ControlGroup {
    /// `None` where a test may not make one.
    fn around_this_process() -> Option<ControlGroup> {
        let groups = fs::read_to_string("/proc/self/cgroup").expect("our groups can be read");
        let ours = |begin: &str| {
            let line = groups.lines().find_map(|line| line.split_once(begin));
            line.map_or("", |(_, group)| group.trim_start_matches('/'))
        };
        let (root, limit, group) = match Path::new("/sys/fs/cgroup/memory") {
            version_1 if version_1.exists() => {
                (version_1, "memory.limit_in_bytes", ours(":memory:"))
            }
            _ => (Path::new("/sys/fs/cgroup"), "memory.max", ours("0::")),
        };
        let folder = root.join(format!("eventpy-test-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let made = ControlGroup { folder, before: root.join(group) };
        // A memory that can be swapped has another limit.
        let swap = made.folder.join("memory.swap.max");
        let has_swap = fs::read_to_string("/proc/swaps").is_ok_and(|list| list.lines().count() > 1);
        if has_swap && fs::write(swap, "0").is_err() {
            return None;
        }
        fs::write(made.folder.join(limit), LIMIT.to_string()).ok()?;
        enter(&made.folder).ok()?;
        Some(made)
    }
}

fn enter(group: &Path) -> std::io::Result<()> {
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = enter(&self.before);
        wait_until("its processes are gone", || fs::remove_dir(&self.folder).is_ok());
    }
}

/// Runs a test in such a group, in a process of its own.
fn in_a_control_group(
    test: &str,
    body: impl FnOnce() -> eventpy::Result<()>,
) -> eventpy::Result<()> {
    alone(test, || match ControlGroup::around_this_process() {
        Some(_group) => body(),
        None => {
            println!("not run: no control group with a limit of memory can be made here");
            Ok(())
        }
    })
}

#[derive(Event, Serialize, Deserialize)]
struct Load {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Weight {
    /// An event of so many bytes.
    Event(usize),
    Nothing,
    /// All memory there is.
    Itself,
}

/// Sends three light events and then does what is too much.
#[derive(Serialize, Deserialize)]
struct Carrier {
    too_much: Weight,
}

#[eventpy::dispatcher]
impl EventDispatcher for Carrier {
    type Events = (Load,);
    type State = Vec<Vec<u8>>;

    fn init(&mut self) -> eventpy::Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn update(
        &mut self,
        carried: &mut Vec<Vec<u8>>,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if carried.len() < 3 {
            emitter.emit(Load { bytes: vec![1; 10] })?;
        } else {
            match self.too_much {
                Weight::Event(len) => emitter.emit(Load { bytes: vec![1; len] })?,
                Weight::Nothing => wait_for_end(emitter),
                Weight::Itself => {}
            }
        }
        carried.push(vec![1; 1 << 20]);
        Ok(())
    }
}

fn manager(too_much: Weight, buffer_bytes: usize) -> (EventDispatchManager, Notes<usize>) {
    let options = DispatcherOptions::default().buffer_bytes(buffer_bytes);
    let mut manager = EventDispatchManager::new().dispatcher_with(Carrier { too_much }, options);
    let loads = note(&mut manager, |load: &Load| load.bytes.len());
    (manager, loads)
}

/// What is said of a carrier that had too much, of which all that was light has arrived.
fn failure_of(too_much: Weight) -> eventpy::Result<DispatcherFailed> {
    let (mut manager, loads) = manager(too_much, 1 << 16);
    let failures = note(&mut manager, DispatcherFailed::clone);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| has_ended(manager, 0))?;
    assert_eq!(loads.take(), [10; 3]);
    assert_balanced(&manager.end_dispatchers()?.dispatchers[0]);
    let [failure] = <[_; 1]>::try_from(failures.take()).expect("one failure is told");
    Ok(failure)
}

#[eventpy::test]
fn a_ring_that_is_too_large_for_it_is_an_error_of_the_deployment() -> eventpy::Result<()> {
    in_a_control_group("a_ring_that_is_too_large_for_it_is_an_error_of_the_deployment", || {
        let before = Holdings::now();
        let (mut manager, _) = manager(Weight::Itself, 1 << 26);
        let error = manager.deploy_dispatchers().expect_err("there is less memory");
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        for part in ["`Carrier`", "cannot reserve shared memory", "control group", "buffer_bytes"] {
            assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
        }
        drop(manager);
        before.assert_nothing_added();
        Ok(())
    })
}

#[eventpy::test]
fn an_event_that_is_too_large_for_it_is_a_failure() -> eventpy::Result<()> {
    in_a_control_group("an_event_that_is_too_large_for_it_is_a_failure", || {
        let before = Holdings::now();
        let failure = failure_of(Weight::Event(TOO_LARGE))?;
        assert!(failure.reason.contains("that the control group"), "{failure}");
        before.assert_nothing_added();
        Ok(())
    })
}

#[eventpy::test]
fn a_dispatcher_that_is_killed_for_memory_is_a_failure() -> eventpy::Result<()> {
    in_a_control_group("a_dispatcher_that_is_killed_for_memory_is_a_failure", || {
        let before = Holdings::now();
        let failure = failure_of(Weight::Itself)?;
        for part in ["SIGKILL", "when memory runs out"] {
            assert!(failure.to_string().contains(part), "{part:?} is not in: {failure}");
        }
        before.assert_nothing_added();
        Ok(())
    })
}

/// Version 2 lets frozen processes be killed.
#[eventpy::test]
fn a_dispatcher_that_can_not_be_killed_is_given_up() -> eventpy::Result<()> {
    let root = Path::new("/sys/fs/cgroup/freezer");
    let group = root.join(format!("eventpy-test-{}", std::process::id()));
    if fs::create_dir(&group).is_err() {
        println!("not run: no control group that freezes can be made here");
        return Ok(());
    }
    let (mut manager, loads) = manager(Weight::Nothing, 1 << 16);
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |_| loads.len() == 3)?;
    let pid = pid_of(&manager, 0);
    fs::write(group.join("cgroup.procs"), pid.to_string())?;
    let state = group.join("freezer.state");
    fs::write(&state, "FROZEN")?;
    wait_until("it is frozen", || {
        fs::read_to_string(&state).is_ok_and(|state| state == "FROZEN\n")
    });
    let report = manager.end_dispatchers_timeout(Duration::from_millis(50));
    assert!(is_alive(pid), "nothing can end it");
    fs::write(&state, "THAWED")?;
    wait_until("it is reaped", || !is_alive(pid));
    wait_until("its group is empty", || fs::remove_dir(&group).is_ok());
    let report = &report?.dispatchers[0];
    assert!(!report.finished, "{report:?}");
    let failure = report.failure.as_deref().expect("the report tells of it");
    assert!(failure.contains("nor of SIGTERM, so it was killed"), "{failure}");
    assert_balanced(report);
    Ok(())
}
