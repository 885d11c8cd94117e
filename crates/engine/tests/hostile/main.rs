//! A hostile dispatcher process harms only itself. This program is its own dispatcher process: a
//! good one through [`child`](eventpy_engine::child), a hostile one by hand.
//!
//! Each case has one of both. The manager neither hangs nor panics and keeps nothing, the good one
//! is served on and on, and the hostile one ends with a reason that says what was wrong.

mod acts;
mod child;
mod driver;
#[path = "../processes/sources.rs"]
#[allow(dead_code, reason = "one of them is enough")]
mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use acts::{CASES, Case, Outcome};
use child::Hostile;
use eventpy_engine::{
    Counts, Delivery, DispatcherFailed, DispatcherOptions, DispatcherReport, DispatcherSpec,
    Engine, ErrorKind, Launch, Payload as _, Pump, Restart, Selection, Yield,
};
use libtest_mimic::{Arguments, Trial};

/// Nothing takes so long unless something hangs.
const WATCHDOG: Duration = Duration::from_secs(60);

/// The memory, in bytes, that no test makes the manager take: a few rings and messages.
const MOST_MEMORY: u64 = 32 << 20;

/// How long each step of a hostile dispatcher's ending takes.
const STEP: Duration = Duration::from_millis(100);

/// The argument that makes this program a hostile process.
const HOSTILE: &str = "--hostile";

fn main() {
    let mut args = std::env::args().skip(1);
    if eventpy_engine::child::is_dispatcher_process() && args.next().as_deref() == Some(HOSTILE) {
        let act = act_named(&args.next().expect("the act has a name"));
        let mut child = Hostile::take();
        act(&mut child);
        child.stay();
    }
    eventpy_engine::child::run_if_dispatcher(
        eventpy_engine::child::Face::default(),
        |assignment, _| sources::load(assignment),
    );
    let mut trials: Vec<Trial> =
        CASES.iter().map(|case| trial(case.name, move || play(case))).collect();
    trials.extend([
        trial("scribbles", scribbles),
        trial("scribbles_in_a_displaceable_ring", scribbles_in_a_displaceable_ring),
        trial("it_is_restarted_and_claims_everything_again", restarted_with_all_counters),
        trial("whatever_bytes_say", whatever_bytes_say),
        trial("what_the_fuzzer_begins_with", what_the_fuzzer_begins_with),
        trial("a_forked_copy_gives_no_payload_back", a_forked_copy_gives_no_payload_back),
    ]);
    // What a process holds can only be counted for one test at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

fn act_named(name: &str) -> fn(&mut Hostile) {
    match CASES.iter().find(|case| case.name == name) {
        Some(case) => case.act,
        None => acts::scribbles,
    }
}

/// A test under a watchdog, after which this process holds what it held before.
fn trial(name: &'static str, test: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let (before, peak) = (Holdings::now(), peak_memory());
        let (done, is_done) = mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if is_done.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name}: the manager hangs");
                std::process::abort();
            }
        });
        test();
        drop(done);
        watchdog.join().expect("a watchdog does not panic");
        before.assert_nothing_added();
        let grown = peak_memory() - peak;
        assert!(grown < MOST_MEMORY, "{grown} bytes more at one time than ever before");
        Ok(())
    })
}

fn spec(name: &str, payload: &str, args: &[&str]) -> DispatcherSpec {
    DispatcherSpec {
        name: name.to_owned(),
        event_types: vec!["Number".to_owned(), "Text".to_owned()],
        internal_types: 0,
        payload: payload.as_bytes().to_vec(),
        launch: Launch {
            program: "/proc/self/exe".into(),
            args: args.iter().map(Into::into).collect(),
            hint: "see to its main".to_owned(),
        },
        options: DispatcherOptions::default(),
    }
}

/// The good dispatcher: it counts for as long as it may.
fn good() -> DispatcherSpec {
    spec("beat", "", &[])
}

fn hostile(
    act: &str,
    payload: &str,
    set: impl FnOnce(DispatcherOptions) -> DispatcherOptions,
) -> DispatcherSpec {
    let mut spec = spec("hostile", payload, &[HOSTILE, act]);
    spec.options = set(DispatcherOptions::default().end_timeout(STEP).large_bytes(1 << 20));
    spec
}

/// The manager, and what it was told.
#[derive(Default)]
struct Play {
    engine: Engine,
    /// Per dispatcher, the numbers that it sent.
    numbers: BTreeMap<usize, Vec<u64>>,
    /// Per dispatcher, how many events it sent, of whatever type.
    events: [u64; 2],
    failed: Vec<DispatcherFailed>,
    ended: Vec<DispatcherReport>,
    restarts: u32,
    payload: Vec<u8>,
}

const HOSTILE_ID: usize = 0;
const GOOD_ID: usize = 1;

impl Play {
    fn new(hostile: DispatcherSpec) -> Play {
        let mut play = Play::default();
        for spec in [hostile, good()] {
            play.engine.add(spec).expect("the options are in order");
        }
        play
    }

    fn deployed(hostile: DispatcherSpec) -> Play {
        let mut play = Play::new(hostile);
        play.engine.deploy(&Selection::All).expect("both can be loaded");
        play
    }

    fn pump(&mut self, how: Pump) {
        self.engine.begin_pump(&Selection::All, how).expect("it is deployed");
        while let Some(delivery) = self.engine.next_delivery() {
            match delivery {
                Yield::Record(record) => {
                    let (id, type_id) = (record.dispatcher().index(), record.type_id());
                    record.read(&mut self.payload);
                    self.events[id] += 1;
                    if let (1, Some(bytes)) = (type_id, self.payload.first_chunk()) {
                        self.numbers.entry(id).or_default().push(u64::from_le_bytes(*bytes));
                    }
                }
                Yield::Failed(failed) => self.failed.push(failed),
                Yield::Ended(ended) => self.ended.push(ended.report),
                Yield::Restarted(restarted) => self.restarts = restarted.restarts,
            }
        }
    }

    fn numbers(&self, id: usize) -> &[u64] {
        self.numbers.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Pumps until it is so, and lets the good dispatcher be served meanwhile and afterwards.
    fn pump_until(&mut self, is_so: impl Fn(&Play) -> bool) {
        while !is_so(self) {
            let start = Instant::now();
            self.pump(Pump::Wait(Duration::from_millis(50)));
            assert!(start.elapsed() < WATCHDOG / 2, "a pump with a time-out does not come back");
        }
        let served = self.numbers(GOOD_ID).len() + 20;
        while self.numbers(GOOD_ID).len() < served {
            self.pump(Pump::Wait(Duration::from_millis(50)));
        }
    }

    /// Ends both, and looks at what is true of every play.
    fn end(&mut self) -> DispatcherReport {
        self.engine.begin_end(&Selection::All, None).expect("it is deployed");
        while self.engine.is_deployed() {
            self.pump(Pump::End);
        }
        let reports = self.engine.end_report().dispatchers;
        let [hostile, good] = <[_; 2]>::try_from(reports).expect("there are two");
        for (report, events) in [&hostile, &good].into_iter().zip(self.events) {
            assert_balanced(report.counts);
            assert_eq!(report.counts.delivered, events, "{report:?}");
        }
        assert!(good.finished && good.failure.is_none(), "{good:?}");
        assert_eq!(good.counts.lost, 0, "{good:?}");
        let numbers = self.numbers(GOOD_ID);
        assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "out of order");
        hostile
    }
}

fn assert_balanced(counts: Counts) {
    let known = counts.delivered.checked_add(counts.dropped);
    let known = known.and_then(|known| known.checked_add(counts.lost));
    assert_eq!(Some(counts.sent), known, "{counts:?}");
}

fn assert_says(reason: &str, says: &[&str]) {
    for part in says {
        let start: String = reason.chars().take(300).collect();
        assert!(reason.contains(part), "{part:?} is not in {start:?}");
    }
}

fn play(case: &Case) {
    // Whoever connects to it is never heard.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("there is a loopback");
    let address = deaf.local_addr().expect("it is bound").to_string();
    let hostile = hostile(case.name, &address, case.options);
    match case.outcome {
        Outcome::NotDeployed(says) => play_not_deployed(hostile, says),
        Outcome::Fails(says) => {
            let mut play = Play::deployed(hostile);
            play.pump_until(|play| !play.failed.is_empty());
            play_failed(&mut play, says);
        }
        Outcome::FailsAtEnd(says) => {
            let mut play = Play::deployed(hostile);
            play.pump_until(|play| !play.numbers(HOSTILE_ID).is_empty());
            play_failed(&mut play, says);
        }
        Outcome::Ends => {
            let mut play = Play::deployed(hostile);
            play.pump_until(|play| !play.ended.is_empty() || !play.failed.is_empty());
            assert_eq!(play.failed, [], "it ends well");
            let report = play.end();
            assert!(report.finished && report.failure.is_none(), "{report:?}");
            assert!(report.counts.delivered > 0);
        }
    }
}

fn play_not_deployed(hostile: DispatcherSpec, says: &[&str]) {
    let mut play = Play::new(hostile);
    let error = play.engine.deploy(&Selection::All).expect_err("it does not load");
    assert_eq!(error.kind(), ErrorKind::Start);
    assert_says(&error.to_string(), says);
    assert!(!play.engine.is_deployed());
    assert_eq!(children(), [0; 0], "the good one is ended too");
}

fn play_failed(play: &mut Play, says: &[&str]) {
    let report = play.end();
    let [failed] = &play.failed[..] else { panic!("not one failure: {:?}", play.failed) };
    assert_eq!(failed.dispatcher, "hostile");
    assert_says(&failed.reason, says);
    assert_says(report.failure.as_deref().expect("the report tells of it"), says);
    if says[0] == "command socket" {
        assert_eq!(play.numbers(HOSTILE_ID), [0, 1, 2], "what it committed before is delivered");
    }
}

fn scribbles() {
    for seed in 0..15 {
        scribble(seed, |options| options.buffer_bytes(16 * 1024));
    }
}

fn scribbles_in_a_displaceable_ring() {
    for seed in 0..15 {
        let delivery = if seed % 2 == 0 { Delivery::Latest } else { Delivery::DropOldest };
        scribble(seed, |options| options.buffer_bytes(16 * 1024).delivery(delivery));
    }
}

fn scribble(seed: u64, set: impl FnOnce(DispatcherOptions) -> DispatcherOptions) {
    let mut play = Play::deployed(hostile("scribbles", &seed.to_string(), set));
    play.pump_until(|play| !play.failed.is_empty());
    play_failed(&mut play, &["its ring is broken"]);
}

/// What a process claims to have sent is not more than can be counted, however often it claims it.
fn restarted_with_all_counters() {
    let restart = Restart::always().limit(3, WATCHDOG).backoff(STEP / 10, STEP / 10);
    for act in ["counters_at_the_end_of_all", "lost_at_the_end_of_all"] {
        let mut play = Play::deployed(hostile(act, "", |options| options.restart(restart)));
        play.pump_until(|play| {
            play.restarts == 3 && play.engine.stats().dispatchers[HOSTILE_ID].pid.is_none()
        });
        let report = play.end();
        assert_eq!(report.restarts, 3);
        assert_eq!(report.counts.delivered, 12);
        assert_eq!(report.counts.sent, u64::MAX);
    }
}

/// Random inputs for the driver that the fuzz target shares, with fixed seeds.
fn whatever_bytes_say() {
    let end = Instant::now() + Duration::from_secs(1);
    let mut sum = driver::Tally::default();
    for seed in 0.. {
        // At least some, on a machine that has no time.
        if seed >= 50 && Instant::now() >= end {
            break;
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let len = random.usize(..400);
        let input: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        let tally = driver::drive(&input);
        sum.records += tally.records;
        sum.failed += tally.failed;
        sum.ended += tally.ended;
    }
    assert!(sum.records > 0 && sum.failed > 0, "{sum:?}");
}

/// What it has once failed on is among it.
fn what_the_fuzzer_begins_with() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/control_protocol");
    let files = fs::read_dir(folder).expect("the repository has it").flatten();
    let is_seed = |file: &fs::DirEntry| file.file_name().to_string_lossy().starts_with("seed-");
    let seeds: Vec<_> = files.filter(is_seed).map(|file| fs::read(file.path())).collect();
    assert!(!seeds.is_empty());
    for seed in seeds {
        driver::drive(&seed.expect("a file can be read"));
    }
}

/// What one of two copies gives back, the dispatcher would write over under the eyes of the other.
fn a_forked_copy_gives_no_payload_back() {
    let sizes = (0..8).map(|number| (400_000 + number).to_string()).collect::<Vec<_>>().join(",");
    let mut source = spec("sizes", &sizes, &[]);
    source.options = DispatcherOptions::default().large_bytes(1 << 20);
    let mut engine = Engine::new();
    engine.add(source).expect("the options are in order");
    engine.deploy(&Selection::All).expect("it can be loaded");
    engine.begin_pump(&Selection::All, Pump::Wait(WATCHDOG)).expect("it is deployed");
    let payload = match engine.next_delivery() {
        Some(Yield::Record(record)) => record.into_large().ok().expect("it is large"),
        _ => panic!("the first is an event"),
    };
    engine.stop_pump();
    let bytes = || {
        let mut bytes = vec![0; payload.len()];
        payload.copy_to(&mut bytes);
        bytes
    };
    let before = bytes();
    assert!(sources::is_pattern(&before));
    // Only two of its events fit: it waits for memory.
    let stats = engine.stats().dispatchers;
    let pid = stats[0].pid.expect("it runs");
    let is_asleep = || state(pid) == Some('S');
    wait_until(|| engine.stats().dispatchers[0].counts.sent == 2 && is_asleep());
    match child::fork() {
        None => {
            drop(payload);
            child::leave();
        }
        Some(copy) => child::wait_for(copy),
    }
    wait_until(is_asleep);
    assert!(bytes() == before, "it was written over");
    drop(payload);
    while engine.end_report().dispatchers[0].counts.delivered < 8 {
        engine.begin_pump(&Selection::All, Pump::Wait(WATCHDOG)).expect("it is deployed");
        while engine.next_delivery().is_some() {}
    }
}

/// What this process holds of the operating system.
#[derive(Debug, PartialEq)]
struct Holdings {
    descriptors: Vec<(String, String)>,
    shared_memory: Vec<String>,
    threads: usize,
    children: Vec<u32>,
}

impl Holdings {
    fn now() -> Holdings {
        let map = fs::read_to_string("/proc/self/maps").expect("our memory map can be read");
        let shared = map.lines().filter(|line| line.contains("eventpy") && line.contains("memfd"));
        Holdings {
            descriptors: descriptors(),
            shared_memory: shared.map(String::from).collect(),
            threads: fs::read_dir("/proc/self/task").expect("our threads can be read").count(),
            children: children(),
        }
    }

    fn assert_nothing_added(&self) {
        // The kernel takes a moment to remove a thread that was joined.
        let start = Instant::now();
        while Holdings::now() != *self {
            let now = Holdings::now();
            assert!(start.elapsed() < WATCHDOG / 6, "before: {self:#?}\nnow: {now:#?}");
            std::thread::yield_now();
        }
    }
}

/// The most memory that this process ever had at one time, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("our state can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.expect("the kernel tells it") * 1024
}

fn descriptors() -> Vec<(String, String)> {
    let folder = format!("/proc/{}/fd", std::process::id());
    let entries = fs::read_dir(&folder).expect("our descriptors can be read").flatten();
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut all: Vec<_> = entries
        .filter_map(|entry| Some((text(entry.path()), text(fs::read_link(entry.path()).ok()?))))
        // The folder that is being read is open too.
        .filter(|(_, target)| *target != folder)
        .collect();
    all.sort();
    all
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// The state of a process's first thread, as ps shows it.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The processes that this one has started and not reaped.
fn children() -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything.
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(std::process::id())
    };
    let processes = fs::read_dir("/proc").expect("/proc can be read").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}
