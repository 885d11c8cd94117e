//! Whether there is memory to be had. Of its own pages the kernel refuses none: where a control
//! group or the machine has no more, it kills a process, and not always the one that asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use procfs::process::{MountInfo, Process};
use procfs::{Current, Meminfo, ProcessCGroup};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Less than this is taken without a question, in bytes: to ask takes a tenth of a millisecond.
const LITTLE: u64 = 1 << 20;

/// Fails when so many bytes are more than this process can have, as far as the kernel tells. What
/// can't be found out is as good as enough; so is what other processes take meanwhile.
pub(crate) fn check(bytes: u64) -> io::Result<()> {
    // The kernel counts memory as a file, and kills whoever makes one beyond this limit.
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| bytes > limit) {
        return Err(Errno::FBIG.into());
    }
    if bytes < LITTLE {
        return Ok(());
    }
    let Ok(machine) = Meminfo::current() else { return Ok(()) };
    let swap = machine.swap_free;
    if let Some(available) = machine.mem_available {
        refuse_beyond(available.saturating_add(swap), bytes, || "the machine".to_owned())?;
    }
    for (group, files) in groups() {
        if let Some(left) = files.left(&group, bytes) {
            let name = || format!("the control group {}", group.display());
            refuse_beyond(left.saturating_add(swap), bytes, name)?;
        }
    }
    Ok(())
}

fn refuse_beyond(left: u64, bytes: u64, whose: impl Fn() -> String) -> io::Result<()> {
    if bytes <= left {
        return Ok(());
    }
    let message = format!("{bytes} bytes are more than the {left} that {} has left", whose());
    Err(io::Error::new(io::ErrorKind::OutOfMemory, message))
}

/// Where one version of control groups keeps what is of interest here.
#[derive(Debug)]
struct Files {
    file_system: &'static str,
    controller: Option<&'static str>,
    limit: &'static str,
    used: &'static str,
    /// What can be taken back.
    cache: &'static [&'static str],
}

const VERSION_1: Files = Files {
    file_system: "cgroup",
    controller: Some("memory"),
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: &["total_inactive_file", "total_active_file"],
};

const VERSION_2: Files = Files {
    file_system: "cgroup2",
    controller: None,
    limit: "memory.max",
    used: "memory.current",
    cache: &["inactive_file", "active_file", "slab_reclaimable"],
};

impl Files {
    /// What a group has left, if it has a limit; the cache is only looked at if it matters.
    fn left(&self, group: &Path, wanted: u64) -> Option<u64> {
        let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let left = number(self.limit)?.saturating_sub(number(self.used)?);
        if left >= wanted {
            return Some(left);
        }
        let stat = fs::read_to_string(group.join("memory.stat")).ok()?;
        let entries = stat.lines().filter_map(|line| line.split_once(' '));
        let cached = entries.filter(|(name, _)| self.cache.contains(name));
        Some(cached.filter_map(|(_, bytes)| bytes.parse().ok()).fold(left, u64::saturating_add))
    }

    fn is_mounted_by(&self, mount: &MountInfo) -> bool {
        mount.fs_type == self.file_system
            && self.controller.is_none_or(|name| mount.super_options.contains_key(name))
    }

    fn has(&self, group: &ProcessCGroup) -> bool {
        match self.controller {
            Some(name) => group.controllers.iter().any(|controller| controller == name),
            None => group.hierarchy == 0,
        }
    }

    /// The folder of a group below a mount, which need not show the whole hierarchy.
    fn folder_of(mount: &MountInfo, group: &ProcessCGroup) -> PathBuf {
        let below = Path::new(&group.pathname).strip_prefix(&mount.root);
        mount.mount_point.join(below.unwrap_or(Path::new("")))
    }
}

/// The groups that this process is in and those around them, as far as they are to be seen.
fn groups() -> Vec<(PathBuf, &'static Files)> {
    static MOUNTS: OnceLock<Vec<(MountInfo, &Files)>> = OnceLock::new();
    let Ok(this) = Process::myself() else { return Vec::new() };
    let mounts = MOUNTS.get_or_init(|| {
        let all = this.mountinfo().map_or(Vec::new(), |mounts| mounts.0).into_iter();
        all.filter_map(|mount| {
            let mut versions = [&VERSION_1, &VERSION_2].into_iter();
            versions.find(|files| files.is_mounted_by(&mount)).map(|files| (mount, files))
        })
        .collect()
    });
    let Ok(of_this) = this.cgroups() else { return Vec::new() };
    let mut groups = Vec::new();
    for (mount, files) in mounts {
        for group in of_this.0.iter().filter(|group| files.has(group)) {
            let folder = Files::folder_of(mount, group);
            let around =
                folder.ancestors().take_while(|above| above.starts_with(&mount.mount_point));
            groups.extend(around.map(|above| (above.to_owned(), *files)));
        }
    }
    groups
}

// Miri shows its programs no files.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn a_group_has_left_what_it_does_not_use_and_what_is_cached() {
        let stat = "anon 5\ninactive_file 100\nactive_file 20\nslab_reclaimable 3\nfile 900\n";
        let limited =
            group(&[("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", stat)]);
        assert_eq!(VERSION_2.left(limited.path(), 300), Some(300));
        assert_eq!(VERSION_2.left(limited.path(), 301), Some(423));
        let unlimited = group(&[("memory.max", "max\n"), ("memory.current", "700\n")]);
        assert_eq!(VERSION_2.left(unlimited.path(), 301), None);
        assert_eq!(VERSION_1.left(limited.path(), 1), None);
    }

    #[test]
    fn a_group_is_found_where_a_mount_shows_it() {
        let mount = |root| {
            MountInfo::from_line(&format!("1 2 0:3 {root} /mnt rw - cgroup2 cgroup2 rw")).unwrap()
        };
        let group = |path: &str| ProcessCGroup {
            hierarchy: 0,
            controllers: Vec::new(),
            pathname: path.to_owned(),
        };
        let folder = |root, path| Files::folder_of(&mount(root), &group(path));
        assert_eq!(folder("/", "/"), Path::new("/mnt"));
        assert_eq!(folder("/", "/a/b"), Path::new("/mnt/a/b"));
        assert_eq!(folder("/a", "/a/b"), Path::new("/mnt/b"));
        assert_eq!(folder("/elsewhere", "/a/b"), Path::new("/mnt"));
        assert!(VERSION_2.is_mounted_by(&mount("/")) && !VERSION_1.is_mounted_by(&mount("/")));
    }

    #[test]
    fn only_what_is_too_much_is_refused() {
        assert!(check(1 << 20).is_ok());
        let error = check(1 << 62).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("that the machine has left"), "{error}");
    }
}
