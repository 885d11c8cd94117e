//! What the tests with real processes share: waiting under a watchdog, notes from callbacks and
//! from dispatchers, processes of their own, and what this process holds of the operating system.

#![allow(dead_code, reason = "no test file uses all of it")]

pub mod growth;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eventpy::{
    DispatcherReport, DispatcherState, Emitter, Event, EventDispatchManager, EventDispatcher,
    Restart,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

/// Nothing takes so long unless something hangs.
pub const WATCHDOG: Duration = Duration::from_secs(120);

/// Waits until `is_so`, which `what` says in words.
#[track_caller]
pub fn wait_until(what: impl Display, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WATCHDOG, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Pumps until `done`, and returns how many events were delivered.
#[track_caller]
pub fn pump_until(
    manager: &mut EventDispatchManager,
    mut done: impl FnMut(&EventDispatchManager) -> bool,
) -> Result<usize, eventpy::Error> {
    let start = Instant::now();
    let mut delivered = 0;
    while !done(manager) {
        assert!(start.elapsed() < WATCHDOG, "still waiting: {:#?}", manager.stats());
        delivered += manager.invoke_dispatch_timeout(Duration::from_millis(20))?;
    }
    Ok(delivered)
}

/// Waits until a ring has no room for another small event, and its dispatcher sleeps.
#[track_caller]
pub fn wait_for_full_ring(manager: &EventDispatchManager, dispatcher: usize, ring_bytes: u64) {
    wait_until("the ring is full", || {
        // Less room than a number needs: 8 bytes of header and up to 8 of itself.
        manager.stats().dispatchers[dispatcher].queued_bytes > ring_bytes - 16
    });
    let pid = pid_of(manager, dispatcher);
    wait_until("its dispatcher sleeps", || is_asleep(pid));
}

/// Waits, without a pump, until a dispatcher has sent so many events.
#[track_caller]
pub fn wait_for_sent(manager: &EventDispatchManager, dispatcher: usize, sent: u64) {
    wait_until(format_args!("{sent} events are sent"), || {
        manager.stats().dispatchers[dispatcher].counts.sent >= sent
    });
}

/// Waits for the manager's descriptor as an event loop does; false if it did not turn readable in
/// time.
pub fn is_readable(manager: &mut EventDispatchManager, time: Duration) -> eventpy::Result<bool> {
    let mut descriptors = [PollFd::from_borrowed_fd(manager.fileno()?, PollFlags::IN)];
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    Ok(poll(&mut descriptors, Some(&time))? == 1)
}

/// The process of a dispatcher.
#[track_caller]
pub fn pid_of(manager: &EventDispatchManager, dispatcher: usize) -> u32 {
    manager.stats().dispatchers[dispatcher].pid.expect("it has a process")
}

/// Whether a dispatcher has neither a process nor a plan for one.
pub fn has_ended(manager: &EventDispatchManager, dispatcher: usize) -> bool {
    matches!(
        manager.stats().dispatchers[dispatcher].state,
        DispatcherState::Ended | DispatcherState::Failed
    )
}

#[track_caller]
pub fn assert_balanced(report: &DispatcherReport) {
    let counts = report.counts;
    assert_eq!(counts.sent, counts.delivered + counts.dropped, "{report:#?}");
    assert_eq!(counts.lost, 0, "{report:#?}");
}

/// Restarts so often, and at once.
pub fn at_once(restart: Restart, limit: u32) -> Restart {
    restart.backoff(Duration::ZERO, Duration::ZERO).limit(limit, WATCHDOG)
}

/// Waits in an `update` until the dispatcher is to end.
pub fn wait_for_end<Events>(emitter: &mut Emitter<'_, Events>) {
    while emitter.wait(Duration::from_secs(3600)) {}
}

/// Never comes back, and does nothing.
pub fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Never comes back, and is busy.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// An event that there can't be.
#[derive(Event, Serialize, Deserialize)]
pub enum Nothing {}

/// Refuses to be loaded in its process.
#[derive(Serialize, Deserialize)]
#[serde(try_from = "()")]
pub struct Unloadable;

impl TryFrom<()> for Unloadable {
    type Error = &'static str;

    fn try_from((): ()) -> Result<Unloadable, &'static str> {
        Err("it refuses")
    }
}

#[eventpy::dispatcher]
impl EventDispatcher for Unloadable {
    type Events = (Nothing,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        Ok(())
    }
}

/// Has a callback note down something of each event of a type.
pub fn note<E: Event, T: Send + 'static>(
    manager: &mut EventDispatchManager,
    note: impl Fn(&E) -> T + Send + 'static,
) -> Notes<T> {
    let notes = Notes::new();
    manager.on(notes.of(note));
    notes
}

/// What callbacks have noted down.
pub struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Notes<T> {
    pub fn new() -> Notes<T> {
        Notes(Arc::new(Mutex::new(Vec::new())))
    }

    /// A callback that adds something of each event.
    pub fn of<E, N: Fn(&E) -> T>(&self, note: N) -> impl Fn(&E) + use<E, N, T> {
        let notes = self.clone();
        move |event| notes.add(note(event))
    }

    pub fn add(&self, note: T) {
        self.0.lock().unwrap().push(note);
    }

    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Notes<T> {
        Notes(Arc::clone(&self.0))
    }
}

/// A file to which dispatchers append lines from their processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Diary(PathBuf);

impl Diary {
    pub fn new(folder: &Path, name: impl Display) -> Diary {
        Diary(folder.join(format!("{name}.diary")))
    }

    pub fn write(&self, line: impl Display) -> std::io::Result<()> {
        let mut file = File::options().append(true).create(true).open(&self.0)?;
        // One call, so that a line is there as a whole or not at all.
        file.write_all(format!("{line}\n").as_bytes())
    }

    pub fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|found| *found == line).count()
    }
}

/// Tells a test that it runs in a process of its own, and what for.
const PART: &str = "EVENTPY_TEST_PART";

/// Tells it where the files are that it shares with those who look on.
pub const FOLDER: &str = "EVENTPY_TEST_FOLDER";

/// The part that this process plays in the test; `None` where the test was started by its harness.
pub fn part() -> Option<String> {
    std::env::var(PART).ok().and_then(|part| part.split('@').next().map(String::from))
}

/// The folder that the test has told this process.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER).expect("the test tells it").into()
}

/// Runs the body of a test alone in a process of its own: beside its thread there is only that of
/// the harness, which waits.
#[track_caller]
pub fn alone(
    test: &str,
    body: impl FnOnce() -> eventpy::Result<()>,
) -> Result<(), eventpy::Failure> {
    alone_for(test, WATCHDOG, body)
}

/// The same for a body that takes up to so long.
#[track_caller]
pub fn alone_for(
    test: &str,
    time: Duration,
    body: impl FnOnce() -> eventpy::Result<()>,
) -> Result<(), eventpy::Failure> {
    if part().is_some() {
        return body();
    }
    print!("{}", Companion::start(test, "alone").wait_for_pass(time));
    Ok(())
}

/// A test of this program in a process of its own, where [`part`] is what it is told to be.
pub struct Companion {
    child: Child,
    output: File,
    marker: String,
}

impl Companion {
    pub fn start(test: &str, part: &str) -> Companion {
        Companion::run(Companion::command("/proc/self/exe", test), part)
    }

    /// The same with a [`folder`].
    pub fn start_in(folder: &Path, test: &str, part: &str) -> Companion {
        let mut command = Companion::command("/proc/self/exe", test);
        command.env(FOLDER, folder);
        Companion::run(command, part)
    }

    /// What runs one test of a program.
    pub fn command(program: impl AsRef<OsStr>, test: &str) -> Command {
        let mut command = Command::new(program);
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command
    }

    /// Runs any program of ours.
    pub fn run(mut command: Command, part: &str) -> Companion {
        let output = tempfile::tempfile().expect("a temporary file can be made");
        let handle = || Stdio::from(output.try_clone().expect("a descriptor is left"));
        let part = format!("{part}@{:016x}", fastrand::u64(..));
        let child = command
            .env(PART, &part)
            .stdin(Stdio::null())
            .stdout(handle())
            .stderr(handle())
            .spawn()
            .expect("this program can be started again");
        Companion { child, output, marker: format!("{PART}={part}") }
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("a process of ours can be killed");
    }

    /// How many processes it and its dispatchers are. Those that were started from there on count
    /// too, however deep.
    pub fn processes(&self) -> usize {
        process_ids().filter(|pid| self.is_ours(*pid)).count()
    }

    fn is_ours(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|line| line == self.marker.as_bytes())
    }

    /// Waits for its end; what it has printed comes too.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, String) {
        self.wait_for(WATCHDOG)
    }

    /// The same for one that takes up to so long.
    #[track_caller]
    pub fn wait_for(&mut self, time: Duration) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(start.elapsed() < time, "it does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(1));
        };
        (status, self.output())
    }

    /// Waits for the end of its test, and returns what it has printed.
    #[track_caller]
    pub fn wait_for_pass(&mut self, time: Duration) -> String {
        let (status, output) = self.wait_for(time);
        assert!(status.success() && output.contains("1 passed"), "{status}:\n{output}");
        output
    }

    pub fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        self.output.rewind().expect("a file can be read again");
        self.output.read_to_end(&mut bytes).expect("a file can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until neither it nor any process that was started from there is left.
    #[track_caller]
    pub fn wait_until_gone(&mut self) {
        wait_until("its processes are gone", || self.processes() == 0);
    }
}

impl Drop for Companion {
    /// A test that failed leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn process_ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// State and parent of a process, if there is one.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(char, u32)> {
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process runs; one that nobody has reaped does not.
pub fn is_alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Whether a process was stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state == 'T')
}

/// Whether every thread of a process sleeps.
pub fn is_asleep(pid: u32) -> bool {
    awake_threads(pid) == 0
}

/// Whether every thread of this process sleeps, but for the one that asks.
pub fn is_asleep_but_for_us() -> bool {
    awake_threads(std::process::id()) == 1
}

fn awake_threads(pid: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let is_awake = |thread: &fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        parse_stat(&stat).is_some_and(|(state, _)| state != 'S')
    };
    threads.flatten().filter(is_awake).count()
}

/// The processes that this one has started and not reaped.
pub fn children() -> Vec<u32> {
    let is_child = |pid: &u32| state_and_parent(*pid).is_some_and(|(_, p)| p == std::process::id());
    process_ids().filter(is_child).collect()
}

/// Sends a signal to a process, if it is a child of this one; true if that could be done.
pub fn signal_child(pid: u32, signal: Signal) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(pidfd) = rustix::process::pidfd_open(process, PidfdFlags::empty()) else { return false };
    // Looked at after the open: a number that has passed on to another process is noticed.
    state_and_parent(pid).is_some_and(|(_, parent)| parent == std::process::id())
        && rustix::process::pidfd_send_signal(&pidfd, signal).is_ok()
}

/// Whether this process ignores a signal, as one does that a shell has started in the background.
pub fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("our status can be read");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.expect("it tells what is ignored") & (1 << (signal - 1)) != 0
}

/// What this process holds of the operating system.
#[derive(Debug)]
pub struct Holdings {
    /// Each open descriptor, and what it refers to.
    descriptors: BTreeMap<u32, String>,
    threads: usize,
    children: Vec<u32>,
    /// Lines of the memory map that belong to shared memory of dispatchers.
    shared_memory: Vec<String>,
    /// All lines of the memory map.
    mappings: usize,
}

/// How many mappings an allocator adds and removes on its own account.
const ALLOCATOR_MAPPINGS: usize = 8;

impl Holdings {
    pub fn now() -> Holdings {
        let map = fs::read_to_string("/proc/self/maps").expect("our memory map can be read");
        let shared = map.lines().filter(|line| line.contains("eventpy-") && line.contains("memfd"));
        Holdings {
            descriptors: descriptors(),
            threads: fs::read_dir("/proc/self/task").expect("our threads can be read").count(),
            children: children(),
            shared_memory: shared.map(String::from).collect(),
            mappings: map.lines().count(),
        }
    }

    /// Asserts that nothing was added since, even if that was only one thing in many turns.
    #[track_caller]
    pub fn assert_nothing_added(&self) {
        // The kernel takes a moment to remove a thread that was joined.
        let start = Instant::now();
        while !Holdings::now().is_no_more_than(self) {
            let now = Holdings::now();
            assert!(start.elapsed() < Duration::from_secs(10), "before: {self:#?}\nnow: {now:#?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_no_more_than(&self, before: &Holdings) -> bool {
        self.descriptors == before.descriptors
            && self.threads == before.threads
            && self.children == before.children
            && self.shared_memory == before.shared_memory
            && self.mappings <= before.mappings + ALLOCATOR_MAPPINGS
    }
}

fn descriptors() -> BTreeMap<u32, String> {
    let folder = format!("/proc/{}/fd", std::process::id());
    let entries = fs::read_dir(&folder).expect("our descriptors can be read").flatten();
    let named = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
    });
    // The folder that is being read is open too.
    named.filter(|(_, target)| *target != folder).collect()
}
