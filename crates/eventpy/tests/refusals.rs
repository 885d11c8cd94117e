//! What the operating system refuses is one error that says what to do, and leaves nothing; what
//! is unusual about a manager's process keeps nothing from working.

mod support;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventpy::{
    DispatcherFailed, DispatcherOptions, DispatcherRestarted, Emitter, ErrorKind, Event,
    EventDispatchManager, EventDispatcher, Restart,
};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde::{Deserialize, Serialize};
use support::{
    Companion, Diary, Holdings, Notes, WATCHDOG, alone, has_ended, note, pid_of, pump_until,
    signal_child, wait_for_end, wait_until,
};

#[derive(Event, Serialize, Deserialize)]
struct Flash {
    number: u64,
    #[serde(with = "serde_bytes")]
    light: Vec<u8>,
}

/// Flashes.
#[derive(Serialize, Deserialize)]
struct Beacon {
    /// So many times, then it waits.
    times: u64,
    /// This bright, in bytes.
    bytes: usize,
    /// Not before this has a line.
    after: Option<Diary>,
}

impl Beacon {
    fn flashing(times: u64) -> Beacon {
        Beacon { times, bytes: 10, after: None }
    }
}

#[eventpy::dispatcher]
impl EventDispatcher for Beacon {
    type Events = (Flash,);
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        Ok(0)
    }

    fn update(
        &mut self,
        number: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if self.after.as_ref().is_some_and(|diary| diary.lines().is_empty()) {
            emitter.wait(Duration::from_millis(1));
        } else if *number == self.times {
            wait_for_end(emitter);
        } else {
            emitter.emit(Flash { number: *number, light: vec![1; self.bytes] })?;
            *number += 1;
        }
        Ok(())
    }
}

/// A manager with a beacon, and the numbers of the flashes that come.
fn manager(beacon: Beacon) -> (EventDispatchManager, Notes<u64>) {
    let options = DispatcherOptions::default().buffer_bytes(4096);
    let mut manager = EventDispatchManager::new().dispatcher_with(beacon, options);
    let flashes = note(&mut manager, |flash: &Flash| flash.number);
    (manager, flashes)
}

/// Deploys, receives all flashes, ends.
fn watch_to_the_end(
    mut manager: EventDispatchManager,
    flashes: &Notes<u64>,
) -> eventpy::Result<()> {
    manager.deploy_dispatchers()?;
    see_to_the_end(manager, flashes)
}

fn see_to_the_end(mut manager: EventDispatchManager, flashes: &Notes<u64>) -> eventpy::Result<()> {
    pump_until(&mut manager, |_| flashes.len() == FLASHES as usize)?;
    let report = manager.end_dispatchers()?;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.dispatchers[0].failure, None);
    assert_eq!(flashes.take(), (0..FLASHES).collect::<Vec<_>>());
    Ok(())
}

/// More than the ring holds.
const FLASHES: u64 = 1000;

/// Answers some system calls of a thread, and of what it starts, with an error.
fn refuse(calls: &[i64], rules: &[SeccompRule], errno: i32) -> eventpy::Result<()> {
    let rules = BTreeMap::from_iter(calls.iter().map(|call| (*call, rules.to_vec())));
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(())
}

/// System calls that are refused, why, and what the error says about it.
type Refusal = (&'static [i64], i32, &'static [&'static str]);

const FORBIDDEN: &str = "sandbox or seccomp filter";
const DESCRIPTORS: &str = "`ulimit -n`";
const PROCESSES: &str = "`ulimit -u`";
const OLD_KERNEL: &str = "Linux 5.4";

#[rustfmt::skip]
const REFUSALS: [Refusal; 14] = [
    (&[libc::SYS_memfd_create], libc::EPERM, &["`Beacon`", "shared memory (memfd_create)", FORBIDDEN]),
    (&[libc::SYS_memfd_create], libc::EMFILE, &["`Beacon`", "shared memory (memfd_create)", DESCRIPTORS]),
    (&[libc::SYS_fallocate], libc::ENOSPC, &["`Beacon`", "shared memory (fallocate)", "No space left"]),
    (&[libc::SYS_fcntl], libc::EPERM, &["`Beacon`", "shared memory (F_ADD_SEALS)", FORBIDDEN]),
    (&[libc::SYS_socketpair], libc::EMFILE, &["`Beacon`", "command socket", DESCRIPTORS]),
    (&[libc::SYS_socketpair], libc::EACCES, &["`Beacon`", "command socket", FORBIDDEN]),
    (&[libc::SYS_execve], libc::EACCES, &["`Beacon`", "start `/proc/self/exe`", FORBIDDEN]),
    (&[libc::SYS_clone, libc::SYS_clone3], libc::EAGAIN, &["prepare for dispatchers", PROCESSES]),
    (&[libc::SYS_eventfd2], libc::EMFILE, &["prepare for dispatchers", DESCRIPTORS]),
    (&[libc::SYS_epoll_create1], libc::EMFILE, &["prepare for dispatchers", DESCRIPTORS]),
    (&[libc::SYS_timerfd_create], libc::EMFILE, &["prepare for dispatchers", DESCRIPTORS]),
    (&[libc::SYS_epoll_ctl], libc::EPERM, &["prepare for dispatchers", FORBIDDEN]),
    (&[libc::SYS_pidfd_open], libc::EPERM, &["prepare for dispatchers", FORBIDDEN]),
    (&[libc::SYS_pidfd_open], libc::ENOSYS, &["prepare for dispatchers", OLD_KERNEL]),
];

#[eventpy::test]
fn what_the_system_refuses_is_an_error_of_the_deployment() -> eventpy::Result<()> {
    alone("what_the_system_refuses_is_an_error_of_the_deployment", || {
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)?;
        let before = Holdings::now();
        for (calls, errno, says) in REFUSALS {
            refused_deployment(says, &[], calls, errno);
            before.assert_nothing_added();
        }
        Ok(())
    })
}

/// Deploys in a thread for which calls are refused, and looks at the error.
#[track_caller]
fn refused_deployment(says: &[&str], rules: &[SeccompRule], calls: &[i64], errno: i32) {
    let (mut manager, _) = self::manager(Beacon::flashing(FLASHES));
    let (rules, calls) = (rules.to_vec(), calls.to_vec());
    let deployment = std::thread::spawn(move || {
        refuse(&calls, &rules, errno).expect("a filter can be set");
        let error = manager.deploy_dispatchers().expect_err("a call is refused");
        assert!(!manager.is_deployed());
        (error.kind(), error.to_string())
    });
    let (kind, error) = deployment.join().expect("it does not panic");
    assert_eq!(kind, ErrorKind::System, "{error}");
    for part in says {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// The same behind the start of a process, which has to be ended then.
#[eventpy::test]
fn a_process_that_can_not_be_watched_is_ended() -> eventpy::Result<()> {
    alone("a_process_that_can_not_be_watched_is_ended", || {
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)?;
        let before = Holdings::now();
        // What the deployment itself watches has the first free descriptors; those of the
        // dispatcher come after them.
        for later in 5..9 {
            let least = first_free_descriptor()? + later;
            let (argument, width) = (2, SeccompCmpArgLen::Dword);
            let is_later = SeccompCondition::new(argument, width, SeccompCmpOp::Ge, least)?;
            let rules = [SeccompRule::new(vec![is_later])?];
            refused_deployment(&["(epoll_ctl)"], &rules, &[libc::SYS_epoll_ctl], libc::ENOSPC);
            before.assert_nothing_added();
        }
        Ok(())
    })
}

#[eventpy::test]
fn a_kernel_without_membarrier_wakes_all_the_same() -> eventpy::Result<()> {
    alone("a_kernel_without_membarrier_wakes_all_the_same", || {
        refuse(&[libc::SYS_membarrier], &[], libc::ENOSYS)?;
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)
    })
}

/// The descriptor that the next one to be opened will be.
fn first_free_descriptor() -> std::io::Result<u64> {
    let opened = std::fs::File::open("/dev/null")?;
    Ok(u64::from(opened.as_raw_fd().unsigned_abs()))
}

/// Lets this process open no descriptor from this one on.
fn limit_descriptors(limit: u64) {
    let limit = Rlimit { current: Some(limit), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("a limit can be lowered, and raised again");
}

#[eventpy::test]
fn the_limit_of_descriptors_is_named_wherever_it_is_reached() -> eventpy::Result<()> {
    alone("the_limit_of_descriptors_is_named_wherever_it_is_reached", || {
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)?;
        let before = Holdings::now();
        let usual = getrlimit(Resource::Nofile).current.unwrap_or(1024);
        let mut refused = 0;
        for limit in first_free_descriptor()?.. {
            let (mut manager, flashes) = self::manager(Beacon::flashing(FLASHES));
            limit_descriptors(limit);
            let deployed = manager.deploy_dispatchers();
            limit_descriptors(usual);
            let Err(error) = deployed else {
                see_to_the_end(manager, &flashes)?;
                break;
            };
            assert_eq!(error.kind(), ErrorKind::System, "{error}");
            assert!(error.to_string().contains(DESCRIPTORS), "{error}");
            drop(manager);
            before.assert_nothing_added();
            refused += 1;
        }
        assert!(refused > 10, "a dispatcher takes more than {refused} descriptors");
        Ok(())
    })
}

#[eventpy::test]
fn a_restart_that_is_refused_is_a_failure_and_is_tried_again() -> eventpy::Result<()> {
    alone("a_restart_that_is_refused_is_a_failure_and_is_tried_again", || {
        let pause = Duration::from_millis(10);
        let restart = Restart::on_failure().backoff(pause, pause).limit(100, WATCHDOG);
        let options = DispatcherOptions::default().restart(restart);
        let mut manager = EventDispatchManager::new().dispatcher_with(Beacon::flashing(1), options);
        let failures = note(&mut manager, DispatcherFailed::clone);
        let restarts = note(&mut manager, |restarted: &DispatcherRestarted| restarted.restarts);
        let flashes = note(&mut manager, |flash: &Flash| flash.number);
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| flashes.len() == 1)?;
        signal_child(pid_of(&manager, 0), Signal::KILL);
        pump_until(&mut manager, |_| failures.len() == 1)?;
        let usual = getrlimit(Resource::Nofile).current.unwrap_or(1024);
        limit_descriptors(first_free_descriptor()?);
        let pumped = pump_until(&mut manager, |_| failures.len() == 3);
        limit_descriptors(usual);
        pumped?;
        for (failure, says) in failures.take().iter().zip(["SIGKILL", DESCRIPTORS, DESCRIPTORS]) {
            assert!(failure.reason.contains(says) && failure.will_restart, "{failure}");
        }
        assert_eq!(restarts.len(), 0);
        pump_until(&mut manager, |_| flashes.len() == 2)?;
        assert_eq!(restarts.take(), [1]);
        let report = manager.end_dispatchers()?;
        assert!(report.is_clean(), "{report}");
        Ok(())
    })
}

#[eventpy::test]
fn the_limit_of_file_sizes_is_named() -> eventpy::Result<()> {
    alone("the_limit_of_file_sizes_is_named", || {
        let before = Holdings::now();
        let limit = Rlimit { current: Some(200_000), ..getrlimit(Resource::Fsize) };
        setrlimit(Resource::Fsize, limit)?;
        let mut manager = EventDispatchManager::new().dispatcher(Beacon::flashing(0));
        let error = manager.deploy_dispatchers().expect_err("a ring is larger");
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        assert!(error.to_string().contains("`ulimit -f`"), "{error}");
        before.assert_nothing_added();
        // A ring that is small enough, and an event that is not.
        let (mut manager, flashes) =
            self::manager(Beacon { times: 1, bytes: 300_000, after: None });
        let failures = note(&mut manager, DispatcherFailed::to_string);
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |manager| has_ended(manager, 0))?;
        let [failure] = &failures.take()[..] else { panic!("one failure is told") };
        assert!(failure.contains("event `Flash` of 300"), "{failure}");
        assert!(failure.contains("File too large"), "{failure}");
        assert_eq!(flashes.len(), 0);
        Ok(())
    })
}

/// A limit on processes holds for all but root, so that root runs this as somebody else.
#[eventpy::test]
fn the_limit_of_processes_is_named_wherever_it_is_reached() -> eventpy::Result<()> {
    if support::part().is_none() {
        let test = "the_limit_of_processes_is_named_wherever_it_is_reached";
        let mut command = Companion::command("/proc/self/exe", test);
        if rustix::process::getuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        Companion::run(command, "limited").wait_for_pass(WATCHDOG);
        return Ok(());
    }
    let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
    watch_to_the_end(manager, &flashes)?;
    let before = Holdings::now();
    let usual = getrlimit(Resource::Nproc);
    let mut refused = 0;
    // Others may start and end processes meanwhile, which counts.
    for limit in (1..).map(|step| step * step) {
        let (mut manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        setrlimit(Resource::Nproc, Rlimit { current: Some(limit), ..usual })?;
        let deployed = manager.deploy_dispatchers();
        setrlimit(Resource::Nproc, usual)?;
        let Err(error) = deployed else {
            see_to_the_end(manager, &flashes)?;
            break;
        };
        // The dispatcher's process needs a thread, too.
        assert!(matches!(error.kind(), ErrorKind::System | ErrorKind::Start), "{error}");
        if error.kind() == ErrorKind::System {
            assert!(error.to_string().contains(PROCESSES), "{error}");
        }
        drop(manager);
        before.assert_nothing_added();
        refused += 1;
    }
    assert!(refused > 0, "a deployment starts threads and processes");
    Ok(())
}

/// Whoever has no rights.
const NOBODY: u32 = 65534;

/// Lets this process map so many bytes more than it does.
fn limit_memory(more: u64) {
    let status = std::fs::read_to_string("/proc/self/statm").expect("our memory can be read");
    let pages = status.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    let mapped = pages.expect("it begins with a number") * 4096;
    let limit = Rlimit { current: Some(mapped + more), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit).expect("a limit can be lowered, and raised again");
}

#[eventpy::test]
fn a_ring_beyond_the_limit_of_memory_is_an_error_of_the_deployment() -> eventpy::Result<()> {
    alone("a_ring_beyond_the_limit_of_memory_is_an_error_of_the_deployment", || {
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)?;
        let before = Holdings::now();
        let usual = getrlimit(Resource::As);
        let options = DispatcherOptions::default().buffer_bytes(1 << 30);
        let mut manager = EventDispatchManager::new().dispatcher_with(Beacon::flashing(0), options);
        limit_memory(1 << 28);
        let deployed = manager.deploy_dispatchers();
        setrlimit(Resource::As, usual)?;
        let error = deployed.expect_err("a ring of a gigabyte does not fit");
        assert_eq!(error.kind(), ErrorKind::System, "{error}");
        for part in ["`Beacon`", "shared memory (mmap)", "`ulimit -v`"] {
            assert!(error.to_string().contains(part), "{part:?} is not in: {error}");
        }
        before.assert_nothing_added();
        Ok(())
    })
}

#[eventpy::test]
fn an_event_beyond_the_limit_of_memory_is_a_failure() -> eventpy::Result<()> {
    alone("an_event_beyond_the_limit_of_memory_is_a_failure", || {
        let beacon = Beacon { times: 1, bytes: 1 << 30, after: None };
        let (mut manager, flashes) = self::manager(beacon);
        let failures = note(&mut manager, |failed: &DispatcherFailed| failed.to_string());
        let usual = getrlimit(Resource::As);
        // The process of the dispatcher has the limit that its manager has at its start.
        limit_memory(1 << 28);
        let deployed = manager.deploy_dispatchers();
        setrlimit(Resource::As, usual)?;
        deployed?;
        pump_until(&mut manager, |manager| has_ended(manager, 0))?;
        let [failure] = &failures.take()[..] else { panic!("one failure is told") };
        assert!(failure.contains("dispatcher `Beacon` failed"), "{failure}");
        assert!(failure.contains("SIGABRT"), "the allocator gives up: {failure}");
        manager.end_dispatchers()?;
        assert_eq!(flashes.len(), 0);
        Ok(())
    })
}

#[eventpy::test]
fn nothing_needs_shared_memory_that_has_a_name() -> eventpy::Result<()> {
    alone("nothing_needs_shared_memory_that_has_a_name", || {
        // SAFETY: this thread and what it starts get a view of the mounts of their own.
        if unsafe { libc::unshare(libc::CLONE_FS | libc::CLONE_NEWNS) } != 0 {
            println!("not run: mounts can't be changed here");
            return Ok(());
        }
        let read_only = libc::MS_RDONLY;
        for (what, flags) in [(c"/", libc::MS_REC | libc::MS_PRIVATE), (c"/dev/shm", read_only)] {
            let (none, tmpfs) = (c"none".as_ptr(), c"tmpfs".as_ptr());
            // SAFETY: all pointers are to strings, or null where that is allowed.
            let mounted =
                unsafe { libc::mount(none, what.as_ptr(), tmpfs, flags, std::ptr::null()) };
            assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        }
        std::fs::write("/dev/shm/eventpy", "").expect_err("nothing can be written there");
        let beacon = Beacon { times: FLASHES, bytes: 1000, after: None };
        let (manager, flashes) = self::manager(beacon);
        watch_to_the_end(manager, &flashes)
    })
}

#[eventpy::test]
fn two_hundred_dispatchers_run_side_by_side() -> eventpy::Result<()> {
    alone("two_hundred_dispatchers_run_side_by_side", || {
        const BEACONS: usize = 200;
        let usual = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: usual.maximum, ..usual })?;
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)?;
        let before = Holdings::now();
        let mut manager = EventDispatchManager::new();
        for _ in 0..BEACONS {
            manager.register_dispatcher(Beacon::flashing(10))?;
        }
        let flashes = note(&mut manager, |flash: &Flash| flash.number);
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| flashes.len() == 10 * BEACONS)?;
        let report = manager.end_dispatchers()?;
        assert!(report.is_clean(), "{report}");
        assert!(report.dispatchers.iter().all(|of| of.counts.delivered == 10), "{report}");
        drop(manager);
        before.assert_nothing_added();
        Ok(())
    })
}

/// A dispatcher whose code handles the hang-up by itself.
#[derive(Serialize, Deserialize)]
struct Diver {
    diary: Diary,
}

static HUNG_UP: AtomicBool = AtomicBool::new(false);

extern "C" fn note_hang_up(_: libc::c_int) {
    HUNG_UP.store(true, Ordering::Relaxed);
}

#[eventpy::dispatcher]
impl EventDispatcher for Diver {
    type Events = (Flash,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        let handler = note_hang_up as extern "C" fn(libc::c_int);
        // SAFETY: the handler only touches an atomic, which is allowed at any time.
        unsafe { libc::signal(libc::SIGHUP, handler as libc::sighandler_t) };
        self.diary.write("handles")?;
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.wait(Duration::from_millis(1));
        if HUNG_UP.swap(false, Ordering::Relaxed) {
            self.diary.write("hung up")?;
        }
        Ok(())
    }
}

#[eventpy::test]
fn a_dispatcher_may_handle_the_hang_up_by_itself() -> eventpy::Result<()> {
    let folder = tempfile::tempdir()?;
    let diary = Diary::new(folder.path(), "diver");
    let mut manager = EventDispatchManager::new().dispatcher(Diver { diary: diary.clone() });
    manager.deploy_dispatchers()?;
    wait_until("it handles the signal", || diary.count("handles") == 1);
    assert!(signal_child(pid_of(&manager, 0), Signal::HUP), "a child can be sent a signal");
    wait_until("it has done so", || diary.count("hung up") == 1);
    assert!(manager.end_dispatchers()?.is_clean());
    Ok(())
}

#[eventpy::test]
fn a_large_event_beyond_the_limit_of_descriptors_is_a_failure() -> eventpy::Result<()> {
    alone("a_large_event_beyond_the_limit_of_descriptors_is_a_failure", || {
        let folder = tempfile::tempdir()?;
        let after = Diary::new(folder.path(), "begin");
        let beacon = Beacon { times: 3, bytes: 100_000, after: Some(after.clone()) };
        let (mut manager, flashes) = self::manager(beacon);
        let failures = note(&mut manager, |failed: &DispatcherFailed| failed.reason.clone());
        manager.deploy_dispatchers()?;
        let usual = getrlimit(Resource::Nofile).current.unwrap_or(1024);
        after.write("now")?;
        // From here on no descriptor can be received.
        limit_descriptors(first_free_descriptor()?);
        let pumped = pump_until(&mut manager, |manager| has_ended(manager, 0));
        limit_descriptors(usual);
        pumped?;
        let [reason] = &failures.take()[..] else { panic!("one failure is told") };
        assert!(reason.contains("limit of open files"), "{reason}");
        let counts = manager.end_dispatchers()?.dispatchers[0].counts;
        assert_eq!(counts.sent, counts.delivered + counts.lost, "{counts:?}");
        assert_eq!(counts.delivered, flashes.len() as u64);
        Ok(())
    })
}

#[eventpy::test]
fn a_program_that_is_replaced_while_it_runs_deploys_itself() -> eventpy::Result<()> {
    let test = "a_program_that_is_replaced_while_it_runs_deploys_itself";
    if support::part().is_some() {
        let program = std::env::current_exe()?;
        std::fs::remove_file(&program)?;
        std::fs::write(&program, "no program at all")?;
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        return watch_to_the_end(manager, &flashes);
    }
    let folder = tempfile::tempdir()?;
    let program: PathBuf = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &program)?;
    Companion::run(Companion::command(program, test), "is replaced").wait_for_pass(WATCHDOG);
    Ok(())
}

#[eventpy::test]
fn a_program_that_ignores_its_children_ends_them_well() -> eventpy::Result<()> {
    alone("a_program_that_ignores_its_children_ends_them_well", || {
        // SAFETY: no handler is installed, and no other thread runs.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        let (manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        watch_to_the_end(manager, &flashes)
    })
}

#[eventpy::test]
fn a_program_that_holds_signals_back_keeps_none_from_its_dispatchers() -> eventpy::Result<()> {
    alone("a_program_that_holds_signals_back_keeps_none_from_its_dispatchers", || {
        // SAFETY: a signal set is plain data, valid when zeroed.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to a live signal set.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: as above; the set before is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };

        let (mut manager, flashes) = self::manager(Beacon::flashing(FLASHES));
        manager.deploy_dispatchers()?;
        pump_until(&mut manager, |_| flashes.len() == FLASHES as usize)?;
        assert!(signal_child(pid_of(&manager, 0), Signal::TERM), "a child can be sent a signal");
        pump_until(&mut manager, |manager| has_ended(manager, 0))?;
        see_to_the_end(manager, &flashes)
    })
}

#[eventpy::test]
fn a_forked_copy_of_the_manager_is_inert() -> eventpy::Result<()> {
    // What the copy does with its manager before it exits.
    let ways: [fn(EventDispatchManager); 3] = [
        |manager| drop(manager),
        |manager| std::mem::forget(manager),
        |mut manager| {
            let inert = |kind: Option<ErrorKind>| assert_eq!(kind, Some(ErrorKind::State));
            inert(manager.invoke_dispatch().err().map(|error| error.kind()));
            inert(manager.invoke_dispatch_timeout(WATCHDOG).err().map(|e| e.kind()));
            inert(manager.fileno().err().map(|error| error.kind()));
            inert(manager.deploy_dispatchers().err().map(|error| error.kind()));
            let error = manager.end_dispatchers().unwrap_err();
            assert!(error.to_string().contains("forked from the manager's"), "{error}");
        },
    ];
    alone("a_forked_copy_of_the_manager_is_inert", || {
        for way in ways {
            let (mut manager, flashes) = self::manager(Beacon::flashing(FLASHES));
            manager.deploy_dispatchers()?;
            pump_until(&mut manager, |_| flashes.len() > 0)?;
            // SAFETY: this thread is the only one that holds a lock at any time.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                way(manager);
                std::process::exit(17);
            }
            let pid = rustix::process::Pid::from_raw(pid).expect("the fork succeeded");
            let status = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            let status = status?.expect("it was waited for").1;
            assert_eq!(status.exit_status(), Some(17), "{status:?}");
            see_to_the_end(manager, &flashes)?;
        }
        Ok(())
    })
}
