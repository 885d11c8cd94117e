//! What this process holds of the operating system.

use std::fs;

/// What must not change by any kill.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    descriptors: Vec<(String, String)>,
    /// Lines of the memory map that belong to memory shared with dispatchers.
    shared_memory: Vec<String>,
    threads: usize,
    /// Processes that were not reaped, too.
    children: Vec<u32>,
}

impl Holdings {
    pub fn now() -> Holdings {
        let map = fs::read_to_string("/proc/self/maps").expect("our memory map can be read");
        Holdings {
            descriptors: descriptors(),
            shared_memory: map
                .lines()
                .filter(|line| line.contains("memfd:eventpy"))
                .map(String::from)
                .collect(),
            threads: fs::read_dir("/proc/self/task").expect("our threads can be read").count(),
            children: children(),
        }
    }
}

fn descriptors() -> Vec<(String, String)> {
    let folder = format!("/proc/{}/fd", std::process::id());
    let entries = fs::read_dir(&folder).expect("our descriptors can be read").flatten();
    let named = entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        // The folder that is being read is open too.
        (target != folder).then(|| (entry.file_name().to_string_lossy().into_owned(), target))
    });
    let mut descriptors: Vec<_> = named.collect();
    descriptors.sort();
    descriptors
}

fn children() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc can be read").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(std::process::id())).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
