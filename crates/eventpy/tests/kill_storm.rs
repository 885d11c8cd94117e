//! Dispatchers are killed at random instants, thousands of times. Whatever they were about: what
//! was sent arrives whole, once and in order, and nothing is left of them.
//!
//! `EVENTPY_STORM_KILLS` is the number of kills.

#![forbid(unsafe_code)]

mod support;

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use eventpy::{
    Delivery, DispatcherFailed, DispatcherOptions, DispatcherReport, Emitter, ErrorKind, Event,
    EventDispatchManager, EventDispatcher, EventListener, Exit, Restart, Subscriptions,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use support::{
    Companion, Diary, Holdings, WATCHDOG, alone, assert_balanced, at_once, children, folder, part,
    pump_until, signal_child, wait_until,
};

/// Something with a number, and with content that follows from it.
#[derive(Event, Serialize, Deserialize)]
struct Parcel {
    sender: usize,
    /// The process that sent it.
    incarnation: u64,
    number: u64,
    #[serde(with = "serde_bytes")]
    content: Vec<u8>,
    /// Of all the above.
    checksum: u64,
}

/// The content of a parcel is a piece of this. Comparing pieces is fast in a debug build too.
static RANDOM_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = fastrand::Rng::with_seed(1);
    (0..2 * LARGEST / 8).flat_map(|_| random.u64(..).to_le_bytes()).collect()
});

/// Bytes of the largest parcel.
const LARGEST: usize = 200 * 1024;

impl Parcel {
    fn new(sender: usize, incarnation: u64, number: u64, bytes: usize) -> Parcel {
        let checksum = [sender as u64, incarnation, number, bytes as u64]
            .into_iter()
            .fold(0, |sum: u64, word| {
                (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
            });
        let content = RANDOM_BYTES[checksum as usize % LARGEST..][..bytes].to_vec();
        Parcel { sender, incarnation, number, content, checksum }
    }

    fn is_whole(&self) -> bool {
        let Parcel { sender, incarnation, number, content, checksum } = self;
        let sent = Parcel::new(*sender, *incarnation, *number, content.len());
        *checksum == sent.checksum && *content == sent.content
    }
}

/// Sends parcels as fast as it can, and notes in a file how many it has sent.
#[derive(Serialize, Deserialize)]
struct Sender {
    number: usize,
    folder: PathBuf,
}

struct Sent {
    incarnation: u64,
    count: u64,
    /// How many it has sent for sure, as 8 bytes.
    note: File,
    random: fastrand::Rng,
    /// It pauses now and then; else its ring is mostly full.
    is_slow: bool,
}

/// The most that a sender puts into one batch.
const BATCH: u64 = 12;

#[eventpy::dispatcher]
impl EventDispatcher for Sender {
    type Events = (Parcel,);
    type State = Sent;

    fn init(&mut self) -> eventpy::Result<Sent> {
        let incarnation = fastrand::u64(..);
        let note = File::create_new(note_of(&self.folder, self.number, incarnation))?;
        let is_slow = fastrand::bool();
        Ok(Sent { incarnation, count: 0, note, random: fastrand::Rng::new(), is_slow })
    }

    fn update(
        &mut self,
        sent: &mut Sent,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        let (incarnation, count) = (sent.incarnation, sent.random.u64(1..=BATCH));
        let sizes: Vec<usize> = (0..count).map(|_| random_size(&mut sent.random)).collect();
        let parcels = (sent.count..)
            .zip(sizes)
            .map(|(number, bytes)| Parcel::new(self.number, incarnation, number, bytes));
        if sent.random.bool() {
            emitter.emit_all(parcels)?;
            sent.note(count)?;
        } else {
            for parcel in parcels {
                emitter.emit(parcel)?;
                sent.note(1)?;
            }
        }
        if sent.is_slow {
            emitter.wait(Duration::from_micros(sent.random.u64(..2_000)));
        }
        Ok(())
    }

    fn finish(&mut self, sent: Sent, _: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        let name = name_of(self.number, sent.incarnation);
        Ok(finishes(&self.folder).write(name)?)
    }
}

impl Sent {
    /// A write into a file outlives the process.
    fn note(&mut self, more: u64) -> std::io::Result<()> {
        self.count += more;
        self.note.write_all_at(&self.count.to_le_bytes(), 0)
    }
}

fn note_of(folder: &Path, sender: usize, incarnation: u64) -> PathBuf {
    folder.join(name_of(sender, incarnation))
}

fn name_of(sender: usize, incarnation: u64) -> String {
    format!("{sender}-{incarnation:016x}")
}

/// The names of all notes in a folder: one for each process that was in its `init`.
fn names_of_notes(folder: &Path) -> std::io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| !name.ends_with(".diary")).collect())
}

/// One line for each process that was in its `finish`.
fn finishes(folder: &Path) -> Diary {
    Diary::new(folder, "finishes")
}

/// Mostly small, some that fill a good part of the ring, a few that travel beside it.
fn random_size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..100) {
        0..70 => random.usize(8..200),
        70..97 => random.usize(200..8_000),
        _ => random.usize(8_000..LARGEST),
    }
}

/// Checks each parcel.
#[derive(Default)]
struct Receiver {
    senders: [FromSender; SENDERS],
    /// Parcels of each process.
    delivered: HashMap<u64, u64>,
}

#[derive(Default)]
struct FromSender {
    incarnation: u64,
    /// The number after the last one.
    next: u64,
    /// Parcels of this deployment.
    parcels: u64,
    /// How many of its processes have ended.
    deaths: u64,
}

impl EventListener for Receiver {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_parcel).on(Self::on_failed);
    }
}

impl Receiver {
    fn on_parcel(&mut self, parcel: &Parcel) {
        assert!(parcel.is_whole(), "parcel {} of {} is damaged", parcel.number, parcel.sender);
        let from = &mut self.senders[parcel.sender];
        if parcel.incarnation != from.incarnation {
            let earlier = self.delivered.insert(parcel.incarnation, 0);
            assert_eq!(earlier, None, "a parcel comes from a process before the last one");
            from.incarnation = parcel.incarnation;
            from.next = 0;
        }
        if parcel.sender == DROPPING {
            assert!(parcel.number >= from.next, "{} is not before {}", parcel.number, from.next);
        } else {
            assert_eq!(parcel.number, from.next, "of sender {}", parcel.sender);
        }
        from.next = parcel.number + 1;
        from.parcels += 1;
        *self.delivered.get_mut(&parcel.incarnation).expect("it was noted above") += 1;
    }

    fn on_failed(&mut self, failed: &DispatcherFailed) {
        assert_eq!(failed.exit, Exit::Signal(9), "{failed}");
        assert!(failed.reason.contains("SIGKILL"), "{failed}");
        self.senders[sender_of(&failed.dispatcher)].deaths += 1;
    }
}

const SENDERS: usize = 4;
/// This one is not restarted but deployed anew.
const REDEPLOYED: usize = 2;
/// In the ring of this one, old parcels make way for new ones.
const DROPPING: usize = 3;

fn sender_of(dispatcher: &str) -> usize {
    dispatcher.strip_prefix("Sender#").map_or(0, |number| number.parse::<usize>().unwrap() - 1)
}

fn options(sender: usize) -> DispatcherOptions {
    let restart = |restart| at_once(restart, u32::MAX);
    let options = DispatcherOptions::default().buffer_bytes(64 * 1024).end_timeout(WATCHDOG);
    match sender {
        0 => options.restart(restart(Restart::on_failure())),
        1 => options.restart(restart(Restart::always())).buffer_bytes(1 << 20),
        REDEPLOYED => options.buffer_bytes(16 * 1024),
        DROPPING => options.restart(restart(Restart::on_failure())).delivery(Delivery::DropOldest),
        _ => unreachable!("there are {SENDERS}"),
    }
}

#[eventpy::test]
fn nothing_that_was_sent_is_lost_however_often_its_sender_is_killed() -> eventpy::Result<()> {
    let test = "nothing_that_was_sent_is_lost_however_often_its_sender_is_killed";
    alone(test, || {
        let kills = std::env::var("EVENTPY_STORM_KILLS").map_or(Ok(2000), |text| text.parse())?;
        // The first storm leaves what the standard library and the allocator keep for good.
        storm(20)?;
        let before = Holdings::now();
        let start = Instant::now();
        let parcels = storm(kills)?;
        println!("{kills} kills and {parcels} parcels in {:.1?}", start.elapsed());
        before.assert_nothing_added();
        Ok(())
    })
}

/// Kills senders until so many are killed, and returns how many parcels have come.
fn storm(kills: u64) -> eventpy::Result<u64> {
    let folder = tempfile::tempdir()?;
    let mut manager = EventDispatchManager::new().listener(Receiver::default());
    for number in 0..SENDERS {
        let sender = Sender { number, folder: folder.path().into() };
        manager.register_dispatcher_with(sender, options(number))?;
    }
    manager.deploy_dispatchers()?;

    let targets = Targets::default();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| targets.kill_until(&is_over));
        let result = pump_until_so_many_are_dead(&mut manager, kills, &targets);
        is_over.store(true, Ordering::Relaxed);
        result
    })?;

    let report = manager.end_dispatchers()?;
    let receiver = receiver(&manager);
    for (sender, report) in report.dispatchers.iter().enumerate() {
        let was_killed = report.exit == Exit::Signal(9);
        assert!(report.finished != was_killed, "{report:?}");
        assert_balanced(report);
        let from = &receiver.senders[sender];
        assert_eq!(report.counts.delivered, from.parcels, "{report:?}");
        if sender != REDEPLOYED {
            assert_eq!(u64::from(report.restarts) + u64::from(was_killed), from.deaths);
        }
    }
    compare_with_notes(folder.path(), receiver, &report.dispatchers[DROPPING])?;
    Ok(receiver.delivered.values().sum())
}

fn pump_until_so_many_are_dead(
    manager: &mut EventDispatchManager,
    kills: u64,
    targets: &Targets,
) -> eventpy::Result<()> {
    let mut last_death = Instant::now();
    let mut deaths = 0;
    while deaths < kills {
        manager.invoke_dispatch_timeout(Duration::from_millis(1))?;
        redeploy(manager)?;
        targets.update(manager);
        let so_far = receiver(manager).senders.iter().map(|sender| sender.deaths).sum();
        if deaths != so_far {
            (deaths, last_death) = (so_far, Instant::now());
        }
        assert!(last_death.elapsed() < WATCHDOG, "nobody dies: {:#?}", manager.stats());
    }
    Ok(())
}

fn receiver(manager: &EventDispatchManager) -> &Receiver {
    manager.listener_ref().expect("it was registered")
}

/// Deploys the sender that is not restarted, if it was killed.
fn redeploy(manager: &mut EventDispatchManager) -> eventpy::Result<()> {
    if manager.stats().dispatchers[REDEPLOYED].pid.is_some() {
        return Ok(());
    }
    let report = &manager.end_report().dispatchers[REDEPLOYED];
    assert_balanced(report);
    let receiver: &mut Receiver = manager.listener_mut().expect("it was registered");
    let parcels = std::mem::take(&mut receiver.senders[REDEPLOYED].parcels);
    assert_eq!(report.counts.delivered, parcels, "{report:?}");
    match manager.deploy_dispatchers() {
        // Killed before it was loaded.
        Err(error) if error.kind() == ErrorKind::Start => Ok(()),
        result => Ok(result?),
    }
}

/// All that was sent for sure has come, and no more than was under way.
fn compare_with_notes(
    folder: &Path,
    receiver: &Receiver,
    dropping: &DispatcherReport,
) -> eventpy::Result<()> {
    let mut noted_by_dropping = 0;
    for name in names_of_notes(folder)? {
        let (sender, incarnation) = name.split_once('-').expect("it has two parts");
        let incarnation = u64::from_str_radix(incarnation, 16)?;
        // Empty if the process was killed before its first note.
        let noted = fs::read(folder.join(&name))?.try_into().map_or(0, u64::from_le_bytes);
        if sender.parse() == Ok(DROPPING) {
            noted_by_dropping += noted;
            continue;
        }
        let delivered = receiver.delivered.get(&incarnation).copied().unwrap_or(0);
        let possible = noted..=noted + BATCH;
        assert!(possible.contains(&delivered), "{name}: {noted} noted, {delivered} delivered");
    }
    let processes = receiver.senders[DROPPING].deaths + 1;
    let possible = noted_by_dropping..=noted_by_dropping + processes * BATCH;
    assert!(possible.contains(&dropping.counts.sent), "{possible:?}: {dropping:?}");
    Ok(())
}

/// The processes that are there to be killed.
#[derive(Default)]
struct Targets(Mutex<[Target; SENDERS]>);

#[derive(Default, Clone, Copy)]
struct Target {
    pid: Option<u32>,
    /// Whose parcel came last before this process was there.
    earlier: u64,
    /// Whether a parcel of this process has come.
    has_sent: bool,
}

impl Targets {
    fn update(&self, manager: &EventDispatchManager) {
        let stats = manager.stats();
        let mut targets = self.0.lock().unwrap();
        for (sender, target) in targets.iter_mut().enumerate() {
            let pid = stats.dispatchers[sender].pid;
            let last = receiver(manager).senders[sender].incarnation;
            if pid != target.pid {
                *target = Target { pid, earlier: last, has_sent: false };
            }
            target.has_sent = last != target.earlier;
        }
    }

    /// Kills one after the other, mostly those that send.
    fn kill_until(&self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_micros(fastrand::u64(..4_000)));
            let target = self.0.lock().unwrap()[fastrand::usize(..SENDERS)];
            if let Some(pid) = target.pid
                && (target.has_sent || fastrand::u8(..100) < 15)
            {
                signal_child(pid, Signal::KILL);
            }
        }
    }
}

/// Processes are killed at any instant of their start and their end.
#[eventpy::test]
fn no_kill_in_a_deployment_or_an_end_leaves_anything() -> eventpy::Result<()> {
    alone("no_kill_in_a_deployment_or_an_end_leaves_anything", || {
        deployments(5)?;
        let before = Holdings::now();
        let kills = deployments(150)?;
        assert!(kills > 0, "nothing was killed");
        before.assert_nothing_added();
        Ok(())
    })
}

/// Deploys and ends again and again, while another thread kills processes, and returns how many.
fn deployments(rounds: u64) -> eventpy::Result<u64> {
    let folder = tempfile::tempdir()?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_children_until(&is_over));
        let result = (0..rounds).try_for_each(|_| deploy_and_end(folder.path()));
        is_over.store(true, Ordering::Relaxed);
        let kills = killer.join().expect("it does not panic");
        result.map(|()| kills)
    })
}

fn kill_children_until(is_over: &AtomicBool) -> u64 {
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_micros(fastrand::u64(..10_000)));
        if let Some(pid) = fastrand::choice(children()) {
            kills += u64::from(signal_child(pid, Signal::KILL));
        }
    }
    kills
}

fn deploy_and_end(folder: &Path) -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new().listener(Receiver::default());
    for number in 0..SENDERS {
        let sender = Sender { number, folder: folder.into() };
        manager.register_dispatcher_with(sender, options(number))?;
    }
    match manager.deploy_dispatchers() {
        Ok(()) => {
            let first = |manager: &EventDispatchManager| receiver(manager).senders[0].parcels > 0;
            if fastrand::bool() {
                pump_until(&mut manager, first)?;
            }
            let report = manager.end_dispatchers()?;
            report.dispatchers.iter().for_each(assert_balanced);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Start, "{error}");
            assert!(error.to_string().contains("SIGKILL"), "{error}");
            assert!(!manager.is_deployed());
        }
    }
    Ok(())
}

/// Senders that find their manager gone end within this time, or something is wrong.
const END_TIME: Duration = Duration::from_secs(30);

/// Managers are killed at any instant, with senders that are about anything: each sender that was
/// in its `init` has one `finish`, and none is left.
#[eventpy::test]
fn no_kill_of_a_manager_leaves_a_sender_or_keeps_it_from_its_finish() -> eventpy::Result<()> {
    let test = "no_kill_of_a_manager_leaves_a_sender_or_keeps_it_from_its_finish";
    if part().is_some() {
        return be_a_manager(&folder());
    }
    let mut senders = 0;
    for round in 0..40 {
        let folder = tempfile::tempdir()?;
        let mut manager = Companion::start_in(folder.path(), test, "manager");
        // At once, from the first sender's `init` on, or from the first parcel on.
        wait_until("it has come so far", || match round % 4 {
            0 => true,
            1 => names_of_notes(folder.path()).is_ok_and(|names| !names.is_empty()),
            _ => parcels(folder.path()).count("first") > 0,
        });
        std::thread::sleep(Duration::from_micros(fastrand::u64(..20_000)));
        manager.kill();
        let start = Instant::now();
        let (status, output) = manager.wait();
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{output}");
        manager.wait_until_gone();
        assert!(start.elapsed() < END_TIME, "they took {:?}", start.elapsed());
        let mut begun = names_of_notes(folder.path())?;
        let mut finished = finishes(folder.path()).lines();
        begun.sort();
        finished.sort();
        assert_eq!(begun, finished, "in round {round}:\n{output}");
        senders += begun.len();
    }
    println!("40 managers with {senders} senders were killed");
    assert!(senders >= 60, "{senders} of 3 x 20 were at work for sure");
    Ok(())
}

/// Pumps until it is killed.
fn be_a_manager(folder: &Path) -> eventpy::Result<()> {
    let mut manager = EventDispatchManager::new().listener(Receiver::default());
    for number in [0, 1, DROPPING] {
        let options = options(number).end_timeout(END_TIME);
        manager.register_dispatcher_with(Sender { number, folder: folder.into() }, options)?;
    }
    manager.deploy_dispatchers()?;
    pump_until(&mut manager, |manager| receiver(manager).senders[0].parcels > 0)?;
    parcels(folder).write("first")?;
    pump_until(&mut manager, |_| false)?;
    Ok(())
}

/// One line when a parcel has come.
fn parcels(folder: &Path) -> Diary {
    Diary::new(folder, "parcels")
}
