//! Watches this machine: three dispatchers, each in a process of its own, and one listener here.
//!
//! `cargo xtask demo` runs it. `CpuWatch` samples the load of every core, `MemoryWatch` memory and
//! pressure, `FolderWatch` reports what happens to the files of a folder. `Machine` listens to all
//! of them, and a `View` shows it. At the end the manager reports on each dispatcher.

#![forbid(unsafe_code)]

#[path = "machine_watch/cpu.rs"]
mod cpu;
#[path = "machine_watch/folder.rs"]
mod folder;
#[path = "machine_watch/machine.rs"]
mod machine;
#[path = "machine_watch/memory.rs"]
mod memory;
#[path = "machine_watch/playground.rs"]
mod playground;
#[path = "machine_watch/table.rs"]
mod table;
#[path = "machine_watch/view.rs"]
mod view;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use eventpy::{EventDispatchManager, Failure};

use cpu::CpuWatch;
use folder::FolderWatch;
use machine::Machine;
use memory::MemoryWatch;
use playground::Playground;
use view::View;

/// How long a pump waits for an event before the view and the keys get their turn.
const FRAME: Duration = Duration::from_millis(100);

/// Shows what this machine does: load, memory, pressure, and the files of a folder.
#[derive(Parser)]
struct Arguments {
    /// How long to watch; Ctrl-C ends it earlier.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// The folder to watch. Without it, a temporary one in which this program touches files.
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[eventpy::main]
fn main() -> eventpy::Result<()> {
    let arguments = Arguments::parse();
    let mut playground = Playground::unless(arguments.folder)?;

    let mut manager = EventDispatchManager::new()
        .dispatcher(CpuWatch { every: Duration::from_millis(500) })
        .dispatcher(MemoryWatch { every: Duration::from_secs(1) })
        .dispatcher(FolderWatch { folder: playground.folder().to_owned() })
        .listener(Machine::default());
    manager.deploy_dispatchers()?;

    let mut view = View::open()?;
    let end = Instant::now() + Duration::from_secs(arguments.seconds.into());
    while Instant::now() < end && !view.wants_to_end()? {
        playground.play()?;
        manager.invoke_dispatch_timeout(FRAME)?;
        if let Some(machine) = manager.listener_ref::<Machine>() {
            view.show(machine, end.saturating_duration_since(Instant::now()))?;
        }
    }
    drop(view);

    let report = manager.end_dispatchers()?;
    println!("{report}");
    match report.is_clean() {
        true => Ok(()),
        false => Err(Failure::new("not every dispatcher got to its end")),
    }
}
