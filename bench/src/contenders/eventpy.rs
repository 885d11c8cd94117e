//! EventPy: dispatchers, a listener, a manager, as a user would write them.
//!
//! The engine starts the dispatcher's process itself and finds it by `#[eventpy::main]` above
//! this program's `main`. So nothing here is a `Transport`: each work is one function, which
//! plays the consumer, and a dispatcher, which plays the producer.

use std::fs;
use std::time::{Duration, Instant};

use eventpy::{
    DispatcherState, Emitter, EventDispatchManager, EventDispatcher, EventListener, Subscriptions,
};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::measure::{Contender, Load, Reading, Setting};
use crate::process::{Placement, Producer, await_end, cpu_time, pin, private_bytes};
use crate::record::{Latencies, Record, Tally, now_ns};
use crate::transport::{Pace, await_gap, throughput_reading};

/// Events that one `update` emits, and that one `emit_all` takes, like the bare ring that
/// publishes every 32.
const BATCH: u64 = 32;

/// Longer than any wait of a benchmark.
const FOREVER: Duration = Duration::from_secs(3600);

/// Dispatchers in the work of the idle ones.
const IDLE_DISPATCHERS: usize = 256;

/// How long the CPU time of waiting is watched: so long that the going to sleep and the waking, which
/// are paid once, are little beside it.
const WATCHED: Duration = Duration::from_secs(20);

/// `emit`, to a callback.
pub fn emit(records: u64) -> Contender {
    flood("eventpy emit", records, measure_emit)
}

/// `emit_all`, to a callback.
pub fn emit_all(records: u64) -> Contender {
    flood("eventpy emit_all", records, measure_emit_all)
}

/// Latency to a callback, where the manager pumps without a pause.
pub fn polling(records: u64, pace: Pace) -> Contender {
    paced(records, pace, measure_polling)
}

/// Latency to a callback, where the manager waits in `invoke_dispatch_timeout`.
pub fn sleeping(records: u64, pace: Pace) -> Contender {
    paced(records, pace, measure_sleeping)
}

/// What a manager of many dispatchers costs that have nothing to tell, over `pumps`.
pub fn idle(pumps: u64) -> Contender {
    Contender { records: pumps, ..alone(measure_idle) }
}

/// What one idle dispatcher's process takes of memory.
pub fn memory() -> Contender {
    Contender { produce: stay_bare, ..alone(measure_memory) }
}

type Measure = fn(&Setting) -> Result<Reading>;

fn flood(name: &'static str, records: u64, measure: Measure) -> Contender {
    Contender { name, records, ..alone(measure) }
}

fn paced(records: u64, pace: Pace, measure: Measure) -> Contender {
    let Pace { gap, placement } = pace;
    Contender { records, gap, placement, ..alone(measure) }
}

/// A contender that needs no producer from this benchmark.
fn alone(measure: Measure) -> Contender {
    Contender {
        name: "eventpy",
        records: 0,
        gap: Duration::ZERO,
        placement: Placement::Apart,
        measure,
        produce: |_, _| Err("the engine starts the producer of eventpy".into()),
    }
}

/// Emits numbered records as fast as it can.
#[derive(Serialize, Deserialize)]
struct Flood {
    load: Load,
    in_batches: bool,
}

#[eventpy::dispatcher]
impl EventDispatcher for Flood {
    type Events = (Record,);
    /// The next sequence number.
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        pin(self.load.cores.producer)?;
        Ok(0)
    }

    fn update(
        &mut self,
        next: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        let end = (*next + BATCH).min(self.load.records);
        let records = (*next..end).map(Record::numbered);
        if self.in_batches {
            emitter.emit_all(records)?;
        } else {
            for record in records {
                emitter.emit(record)?;
            }
        }
        *next = end;
        if end == self.load.records {
            emitter.wait(FOREVER);
        }
        Ok(())
    }
}

/// Takes what [`Flood`] emits.
#[derive(Default)]
struct FloodListener {
    tally: Tally,
}

impl FloodListener {
    fn on_record(&mut self, record: &Record) {
        self.tally.take(record);
    }
}

impl EventListener for FloodListener {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_record);
    }
}

fn measure_emit(setting: &Setting) -> Result<Reading> {
    measure_flood(setting, false)
}

fn measure_emit_all(setting: &Setting) -> Result<Reading> {
    measure_flood(setting, true)
}

fn measure_flood(setting: &Setting, in_batches: bool) -> Result<Reading> {
    let load = setting.load;
    let mut manager = EventDispatchManager::new()
        .dispatcher(Flood { load, in_batches })
        .listener(FloodListener::default());
    deploy(&mut manager, setting)?;
    let mut count = 0;
    while count < load.records / 10 {
        count += manager.invoke_dispatch()? as u64;
    }
    let (start, first) = (Instant::now(), count);
    while count < load.records {
        count += manager.invoke_dispatch()? as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    manager.end_dispatchers()?;
    let listener = manager.listener_ref::<FloodListener>().ok_or("the listener is gone")?;
    listener.tally.verify(load.records)?;
    Ok(throughput_reading((count - first) as f64, seconds))
}

/// Emits stamped records, one every gap.
#[derive(Serialize, Deserialize)]
struct Paced {
    load: Load,
}

#[eventpy::dispatcher]
impl EventDispatcher for Paced {
    type Events = (Record,);
    /// The next sequence number.
    type State = u64;

    fn init(&mut self) -> eventpy::Result<u64> {
        pin(self.load.cores.producer)?;
        Ok(0)
    }

    fn update(
        &mut self,
        next: &mut u64,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *next == self.load.records {
            emitter.wait(FOREVER);
            return Ok(());
        }
        await_gap(&self.load);
        emitter.emit(Record::stamped(*next, now_ns()))?;
        *next += 1;
        Ok(())
    }
}

/// Takes what [`Paced`] emits.
struct PacedListener {
    latencies: Latencies,
}

impl PacedListener {
    fn on_record(&mut self, record: &Record) {
        self.latencies.take(record);
    }
}

impl EventListener for PacedListener {
    fn subscribe(subscriptions: &mut Subscriptions<Self>) {
        subscriptions.on(Self::on_record);
    }
}

fn measure_polling(setting: &Setting) -> Result<Reading> {
    measure_paced(setting, EventDispatchManager::invoke_dispatch)
}

fn measure_sleeping(setting: &Setting) -> Result<Reading> {
    measure_paced(setting, |manager| manager.invoke_dispatch_timeout(FOREVER))
}

fn measure_paced(
    setting: &Setting,
    pump: impl Fn(&mut EventDispatchManager) -> std::result::Result<usize, eventpy::Error>,
) -> Result<Reading> {
    let load = setting.load;
    let listener = PacedListener { latencies: Latencies::with_capacity(load.records) };
    let mut manager = EventDispatchManager::new().dispatcher(Paced { load }).listener(listener);
    deploy(&mut manager, setting)?;
    let mut count = 0;
    while count < load.records {
        count += pump(&mut manager)? as u64;
    }
    manager.end_dispatchers()?;
    let listener = manager.listener_ref::<PacedListener>().ok_or("the listener is gone")?;
    Ok(listener.latencies.percentiles()?.to_vec())
}

/// Deploys, then pins the manager: dispatchers that started pinned would keep all their threads
/// on the manager's core.
fn deploy(manager: &mut EventDispatchManager, setting: &Setting) -> Result<()> {
    manager.deploy_dispatchers()?;
    Ok(pin(setting.load.cores.consumer)?)
}

/// Has nothing to tell.
#[derive(Serialize, Deserialize)]
struct Idle;

#[eventpy::dispatcher]
impl EventDispatcher for Idle {
    type Events = (Record,);
    type State = ();

    fn init(&mut self) -> eventpy::Result<()> {
        Ok(())
    }

    fn update(&mut self, _: &mut (), emitter: &mut Emitter<Self::Events>) -> eventpy::Result<()> {
        emitter.wait(FOREVER);
        Ok(())
    }
}

/// Microseconds for a pump, and the share of one core that all processes use while the manager
/// waits.
fn measure_idle(setting: &Setting) -> Result<Reading> {
    let mut manager = EventDispatchManager::new();
    for _ in 0..IDLE_DISPATCHERS {
        manager.register_dispatcher(Idle)?;
    }
    deploy(&mut manager, setting)?;
    let dispatchers = await_idle(&mut manager)?;

    let pumps = setting.load.records;
    let start = Instant::now();
    for _ in 0..pumps {
        manager.invoke_dispatch()?;
    }
    let pump_us = start.elapsed().as_secs_f64() * 1e6 / pumps as f64;

    // The own time is read next to the wait, so that reading the others' is no part of it.
    let others_before = total_cpu_time(&dispatchers)?;
    let (own_before, start) = (own_cpu_time()?, Instant::now());
    manager.invoke_dispatch_timeout(WATCHED)?;
    let own = own_cpu_time()? - own_before;
    let used = own + (total_cpu_time(&dispatchers)? - others_before);
    let percent = used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0;
    manager.end_dispatchers()?;
    Ok(vec![pump_us, percent])
}

/// Waits until every dispatcher is in its wait, and tells their process ids.
fn await_idle(manager: &mut EventDispatchManager) -> Result<Vec<u32>> {
    loop {
        manager.invoke_dispatch_timeout(Duration::from_millis(1))?;
        let dispatchers = manager.stats().dispatchers;
        let is_running =
            dispatchers.iter().all(|dispatcher| dispatcher.state == DispatcherState::Running);
        let pids: Vec<u32> = dispatchers.iter().filter_map(|dispatcher| dispatcher.pid).collect();
        if is_running && pids.iter().all(|pid| is_asleep(*pid)) {
            return Ok(pids);
        }
    }
}

/// Whether a process sleeps. One that has ended does not.
fn is_asleep(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| status.contains("State:\tS"))
}

/// The CPU time of this process. It sleeps before: the kernel accounts for the time of a thread when
/// that leaves its core, and at best with every tick in between.
fn own_cpu_time() -> Result<Duration> {
    std::thread::sleep(Duration::from_millis(1));
    cpu_time(std::process::id())
}

fn total_cpu_time(dispatchers: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in dispatchers {
        total += cpu_time(*pid)?;
    }
    Ok(total)
}

/// Megabytes that an idle dispatcher takes over a bare child of this same program.
fn measure_memory(setting: &Setting) -> Result<Reading> {
    let bare = Producer::start(&setting.row, "", &setting.load)?;
    let mut manager = EventDispatchManager::new().dispatcher(Idle);
    manager.deploy_dispatchers()?;
    let [dispatcher] = await_idle(&mut manager)?[..] else {
        return Err("one dispatcher should run".into());
    };
    while !is_asleep(bare.pid()) {}
    let (dispatcher, base) = (private_bytes(dispatcher)?, private_bytes(bare.pid())?);
    manager.end_dispatchers()?;
    bare.end()?;
    let over = dispatcher as f64 - base as f64;
    Ok([over, dispatcher as f64, base as f64].map(|bytes| bytes / 1e6).to_vec())
}

/// The bare child: a process of this program that only waits for its end.
fn stay_bare(_: &str, _: &Load) -> Result<()> {
    await_end()
}
