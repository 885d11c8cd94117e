//! Measures EventPy against bare limits and against its peers, on this machine.
//!
//! Every measurement has two processes: this one consumes, and a producer, which is this
//! program run again, sends. `Transport` is what a peer implements, one file each under
//! `contenders/`; `measure` runs the rounds; `targets` holds the promised figures.

mod contenders;
mod measure;
mod process;
mod quiet;
mod record;
mod table;
mod targets;
mod transport;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use contenders::bare_futex::BareFutex;
use contenders::bare_ring::BareRing;
use contenders::eventpy_ring::EventPyRing;
use contenders::iceoryx2::{Iceoryx2Events, Iceoryx2Polling};
use contenders::ipc_channel::IpcChannel;
use measure::{Load, Plan, Work};
use process::{Cores, PRODUCE, Placement};
use table::Style;
use transport::{Pace, latency, throughput};

/// Any failure, told to a person.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Far enough apart for a polling consumer to be through with the record before.
const POLLING: Pace = Pace { gap: Duration::from_micros(5), placement: Placement::Apart };

/// Far enough apart for a consumer to be asleep again: on one core with the producer, it
/// sleeps while that runs.
const SLEEPING: Pace = Pace { gap: Duration::from_micros(200), placement: Placement::Together };

/// The same with a core of its own, which is idle when the record comes.
const IDLE_CORE: Pace = Pace { gap: Duration::from_micros(200), placement: Placement::Apart };

/// Measures EventPy against bare limits and against its peers, on this machine.
#[derive(Parser)]
struct Arguments {
    /// How often to measure each contender.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of few records: shows that everything runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Measure only the rows whose name contains this, like `ring/` or `/iceoryx2`.
    #[arg(long, value_name = "ROW")]
    only: Option<String>,
    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,
}

#[eventpy::main]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match &arguments[..] {
        [role, row, link, load] if role == PRODUCE => produce(row, link, load),
        _ => benchmark(&Arguments::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures all that was asked for, and prints it.
fn benchmark(arguments: &Arguments) -> Result<()> {
    let plan = Plan {
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        tries: if arguments.quick { 1 } else { 4 },
        divisor: if arguments.quick { 100 } else { 1 },
        only: arguments.only.clone(),
    };
    let style = Style { markdown: arguments.markdown };
    let cores = Cores::choose()?;
    let mut outcomes = Vec::new();
    for work in works() {
        let measured = measure::run(&work, &plan, cores);
        if !measured.is_empty() {
            table::print_work(&work, &measured, style);
        }
        outcomes.extend(measured);
    }
    table::print_targets(&outcomes, style);
    let failed = outcomes.iter().filter(|outcome| outcome.readings.is_err()).count();
    if failed > 0 {
        return Err(format!("{failed} contenders failed").into());
    }
    Ok(())
}

/// Plays the producer of `row`.
fn produce(row: &str, link: &str, load: &str) -> Result<()> {
    let load: Load = load.parse()?;
    for work in works() {
        for contender in &work.contenders {
            if work.row(contender) == row {
                return (contender.produce)(link, &load);
            }
        }
    }
    Err(format!("there is no contender `{row}`").into())
}

/// All works and who contends in them.
fn works() -> Vec<Work> {
    vec![ring(), events(), polling(), sleeping(), idle_core(), idle(), memory()]
}

const THROUGHPUT: &[&str] = &["M records/s", "ns per record"];
const LATENCY: &[&str] = &["p50 ns", "p99 ns"];

fn ring() -> Work {
    Work {
        name: "ring",
        title: "Ring throughput, 64-byte records",
        columns: THROUGHPUT,
        reference: Some("limit"),
        contenders: vec![
            throughput::<BareRing<32>>("limit", 100_000_000),
            throughput::<BareRing<1>>("limit per record", 50_000_000),
            #[cfg(feature = "tachyon")]
            throughput::<contenders::tachyon::Tachyon>("tachyon-ipc", 50_000_000),
            throughput::<EventPyRing>("eventpy-ring", 100_000_000),
        ],
    }
}

fn events() -> Work {
    Work {
        name: "events",
        title: "Typed events of 64 bytes to a callback",
        columns: THROUGHPUT,
        reference: Some("limit per record"),
        contenders: vec![
            throughput::<BareRing<1>>("limit per record", 50_000_000),
            throughput::<BareRing<32>>("limit every 32", 100_000_000),
            throughput::<Iceoryx2Polling<1000>>("iceoryx2", 4_000_000),
            throughput::<IpcChannel>("ipc-channel", 400_000),
            contenders::eventpy::emit(50_000_000),
            contenders::eventpy::emit_all(50_000_000),
        ],
    }
}

fn polling() -> Work {
    Work {
        name: "polling",
        title: "Latency one way, consumer polling, an event every 5 us",
        columns: LATENCY,
        reference: Some("limit"),
        contenders: vec![
            latency::<BareRing<1>>("limit", 100_000, POLLING),
            latency::<Iceoryx2Polling<1>>("iceoryx2", 100_000, POLLING),
            contenders::eventpy::polling(100_000, POLLING),
        ],
    }
}

fn sleeping() -> Work {
    Work {
        name: "sleeping",
        title: "Latency one way, consumer sleeping, both on one core, an event every 200 us",
        columns: LATENCY,
        reference: Some("bare futex"),
        contenders: vec![
            latency::<BareFutex>("bare futex", 5_000, SLEEPING),
            latency::<Iceoryx2Events>("iceoryx2", 5_000, SLEEPING),
            latency::<IpcChannel>("ipc-channel", 5_000, SLEEPING),
            contenders::eventpy::sleeping(5_000, SLEEPING),
        ],
    }
}

fn idle_core() -> Work {
    Work {
        name: "idle-core",
        title: "Latency one way, consumer sleeping on an idle core of its own, an event every 200 us",
        columns: LATENCY,
        reference: Some("bare futex"),
        contenders: vec![
            latency::<BareFutex>("bare futex", 5_000, IDLE_CORE),
            latency::<Iceoryx2Events>("iceoryx2", 5_000, IDLE_CORE),
            latency::<IpcChannel>("ipc-channel", 5_000, IDLE_CORE),
            contenders::eventpy::sleeping(5_000, IDLE_CORE),
        ],
    }
}

fn idle() -> Work {
    Work {
        name: "idle",
        title: "256 idle dispatchers",
        columns: &["us per invoke_dispatch", "% CPU while waiting"],
        reference: None,
        contenders: vec![contenders::eventpy::idle(100_000)],
    }
}

fn memory() -> Work {
    Work {
        name: "memory",
        title: "Private memory of an idle dispatcher",
        columns: &["MB over a bare child", "MB", "MB of a bare child"],
        reference: None,
        contenders: vec![contenders::eventpy::memory()],
    }
}
