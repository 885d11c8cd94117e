//! Who can reach what dispatchers and their manager share: the two of them, and nobody else. It has
//! no name, and no program that either of them starts inherits it.

#![forbid(unsafe_code)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use eventpy::{DispatcherOptions, Emitter, Event, EventDispatchManager, EventDispatcher};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use serde::{Deserialize, Serialize};
use support::{Companion, Notes, alone, is_asleep, part, pid_of, pump_until, wait_until};

/// So much that it travels beside the ring.
#[derive(Event, Serialize, Deserialize)]
struct Page {
    #[serde(with = "serde_bytes")]
    text: Vec<u8>,
}

/// The descriptors of a program that the dispatcher has started.
#[derive(Event, Serialize, Deserialize)]
struct Inherited(Descriptors);

/// Sends pages and tells what a program inherits that it starts; then it waits.
#[derive(Serialize, Deserialize)]
struct Writer;

/// How many pages each sends.
const PAGES: usize = 4;

#[eventpy::dispatcher]
impl EventDispatcher for Writer {
    type Events = (Page, Inherited);
    type State = usize;

    fn init(&mut self) -> eventpy::Result<usize> {
        Ok(0)
    }

    fn update(
        &mut self,
        written: &mut usize,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        if *written < PAGES {
            *written += 1;
            emitter.emit(Page { text: vec![b'a'; 200_000] })?;
        } else {
            emitter.emit(Inherited(inherited()?))?;
            while emitter.wait(Duration::from_secs(3600)) {}
        }
        Ok(())
    }
}

/// Each descriptor, and what the kernel calls that which it refers to.
type Descriptors = BTreeMap<u32, String>;

fn descriptors_of(pid: u32) -> io::Result<Descriptors> {
    let folder = format!("/proc/{pid}/fd");
    let mut descriptors = Descriptors::new();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().parse().expect("it is a number");
        // The folder that is being read is open too, and closed before the link is.
        if let Ok(target) = fs::read_link(entry.path())
            && target != Path::new(&folder)
        {
            descriptors.insert(number, target.to_string_lossy().into_owned());
        }
    }
    Ok(descriptors)
}

/// The descriptors of a program that this process starts without a thought.
fn inherited() -> io::Result<Descriptors> {
    struct Sleeper(Child);
    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let mut command = Command::new("sleep");
    command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let sleeper = Sleeper(command.spawn()?);
    // What it opens itself at its start, it has closed before it sleeps.
    wait_until("the program sleeps", || is_asleep(sleeper.0.id()));
    descriptors_of(sleeper.0.id())
}

fn beyond_standard(mut descriptors: Descriptors) -> Descriptors {
    descriptors.split_off(&3)
}

/// What is in one and not in the other.
fn without(descriptors: Descriptors, others: &Descriptors) -> Descriptors {
    let is_new = |(number, target): &(u32, String)| others.get(number) != Some(target);
    descriptors.into_iter().filter(is_new).collect()
}

/// A manager whose dispatchers have all done what they do, and the programs' descriptors that they
/// tell of.
fn at_work(dispatchers: usize) -> eventpy::Result<(EventDispatchManager, Vec<Descriptors>)> {
    let mut manager = EventDispatchManager::new();
    for _ in 0..dispatchers {
        let options = DispatcherOptions::default().update_timeout(support::WATCHDOG);
        manager.register_dispatcher_with(Writer, options)?;
    }
    let (pages, told) = (Notes::new(), Notes::new());
    let (noted, noted_too) = (pages.clone(), told.clone());
    manager.on(move |page: &Page| noted.add(page.text.len()));
    manager.on(move |inherited: &Inherited| noted_too.add(inherited.0.clone()));
    manager.deploy_dispatchers()?;
    manager.fileno()?;
    pump_until(&mut manager, |_| told.len() == dispatchers)?;
    assert_eq!(pages.take(), vec![200_000; PAGES * dispatchers]);
    Ok((manager, told.take()))
}

/// What a dispatcher's process has open besides the three that every program has. Its memory is not
/// among it: that is mapped, and closed.
///
/// In this order: the bell of its ring, and those of its own end (any end, SIGTERM, the manager's);
/// the manager's process; the command socket, the bell of the ring's room, a pair for its signals.
const OF_A_DISPATCHER: [&str; 9] =
    ["eventfd", "eventfd", "eventfd", "eventfd", "pidfd", "socket", "socket", "socket", "socket"];

#[eventpy::test]
fn a_dispatcher_has_its_own_descriptors_and_none_else() -> eventpy::Result<()> {
    alone("a_dispatcher_has_its_own_descriptors_and_none_else", || {
        // This process may have inherited some itself, as from a build that keeps pipes open.
        let passed_on = inherited()?;
        let (manager, _) = at_work(3)?;
        let pids: Vec<u32> = (0..3).map(|dispatcher| pid_of(&manager, dispatcher)).collect();
        let mut taken = sockets(&descriptors_of(std::process::id())?);
        for pid in pids {
            let all = descriptors_of(pid)?;
            assert_eq!(all[&0], "/dev/null", "its standard input was the command socket");
            let own = without(beyond_standard(all), &passed_on);
            let mut kinds: Vec<&str> = own.values().map(|target| kind_of(target)).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, OF_A_DISPATCHER, "{own:#?}");
            for (number, target) in &own {
                if kind_of(target) == "pidfd" {
                    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
                    let ours = format!("Pid:\t{}", std::process::id());
                    assert!(info.lines().any(|line| line == ours), "{info}");
                }
            }
            // Each end of a pair has a number of its own.
            let sockets = sockets(&own);
            assert!(taken.is_disjoint(&sockets), "{taken:?}, {sockets:?}");
            taken.extend(sockets);
        }
        Ok(())
    })
}

/// What `socket:[123]` and `anon_inode:[eventfd]` are. A newer kernel calls `pidfd:[123]` what was
/// `anon_inode:[pidfd]`.
fn kind_of(target: &str) -> &str {
    match target.split_once(":[") {
        Some(("anon_inode", kind)) => kind.trim_end_matches(']'),
        Some((kind, _)) => kind,
        None => target,
    }
}

fn sockets(descriptors: &Descriptors) -> BTreeSet<String> {
    descriptors.values().filter(|target| kind_of(target) == "socket").cloned().collect()
}

#[eventpy::test]
fn a_program_that_is_started_beside_dispatchers_inherits_nothing() -> eventpy::Result<()> {
    alone("a_program_that_is_started_beside_dispatchers_inherits_nothing", || {
        let before = inherited()?;
        let (mut manager, of_dispatchers) = at_work(3)?;
        assert_eq!(inherited()?, before);
        for of_dispatcher in of_dispatchers {
            assert_eq!(of_dispatcher, before);
        }
        // What is given back and made anew is closed on `exec` too.
        manager.end_dispatchers()?;
        manager.deploy_dispatchers()?;
        assert_eq!(inherited()?, before);
        Ok(())
    })
}

/// The folders in which a program finds a place for what has a name.
const PLACES: [&str; 3] = ["TMPDIR", "XDG_RUNTIME_DIR", "HOME"];

#[eventpy::test]
fn nothing_of_it_has_a_name() -> eventpy::Result<()> {
    let test = "nothing_of_it_has_a_name";
    if part().is_none() {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command.current_dir(folder.path()).envs(PLACES.map(|place| (place, folder.path())));
        let (status, output) = Companion::run(command, "named").wait();
        assert!(status.success() && output.contains("1 passed"), "{status}:\n{output}");
        return Ok(());
    }
    let before = descriptors_of(std::process::id())?;
    let (manager, _) = at_work(3)?;
    let of_dispatchers = (0..3).map(|dispatcher| pid_of(&manager, dispatcher));
    let pids: Vec<u32> = of_dispatchers.chain([std::process::id()]).collect();
    let mut sockets = BTreeSet::new();
    for pid in pids {
        for target in without(beyond_standard(descriptors_of(pid)?), &before).values() {
            let nameless = ["anon_inode:", "pidfd:[", "socket:[", MEMORY];
            assert!(nameless.iter().any(|kind| target.starts_with(kind)), "{target}");
            sockets.extend(target.strip_prefix("socket:[").map(|inode| inode.replace(']', "")));
        }
        let shared = shared_mappings(pid)?;
        assert!(!shared.is_empty(), "it has its ring at least");
        assert!(shared.iter().all(|mapping| mapping.starts_with(MEMORY)), "{shared:?}");
    }
    assert!(sockets.len() >= 3 * 4, "{sockets:?}");
    // Number, count, protocol, flags, type, state, inode, and the address if there is one.
    let listed = fs::read_to_string("/proc/net/unix")?;
    let mut found = 0;
    for socket in listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>()) {
        if sockets.contains(socket[6]) {
            assert_eq!(socket.len(), 7, "it has an address: {socket:?}");
            found += 1;
        }
    }
    assert_eq!(found, sockets.len(), "all are of the kind that is listed");
    for place in PLACES.iter().filter_map(std::env::var_os) {
        assert_eq!(names_in(Path::new(&place)), [""; 0]);
    }
    // Other programs may use this one.
    let is_ours = |name: &String| name.contains("eventpy");
    assert!(!names_in(Path::new("/dev/shm")).iter().any(is_ours));
    drop(manager);
    Ok(())
}

/// What the kernel calls memory of ours that has no name in any file system.
const MEMORY: &str = "/memfd:eventpy-";

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// What a process shares by a mapping, as the kernel calls it.
fn shared_mappings(pid: u32) -> io::Result<Vec<String>> {
    let map = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut mappings = Vec::new();
    for line in map.lines() {
        // Addresses, rights, offset, device, inode, path.
        let mut fields = line.split_whitespace();
        if fields.nth(1).is_some_and(|rights| rights.ends_with('s')) {
            mappings.push(fields.skip(3).collect::<Vec<_>>().join(" "));
        }
    }
    Ok(mappings)
}

/// Whoever has no rights.
const NOBODY: u32 = 65534;

/// Tells the stranger whose doors to try, by their numbers with commas.
const DOORS: &str = "EVENTPY_TEST_DOORS";

#[eventpy::test]
fn another_user_finds_no_way_in() -> eventpy::Result<()> {
    let test = "another_user_finds_no_way_in";
    if part().is_some() {
        return try_all_doors();
    }
    if !rustix::process::getuid().is_root() {
        println!("not run: only root can be another user too");
        return Ok(());
    }
    let (manager, _) = at_work(2)?;
    let mut pids = vec![std::process::id()];
    pids.extend((0..2).map(|dispatcher| pid_of(&manager, dispatcher)));
    // The doors are there, and open to us.
    for pid in &pids {
        assert!(!beyond_standard(descriptors_of(*pid)?).is_empty());
        File::open(format!("/proc/{pid}/mem"))?;
    }
    let doors = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("/proc/self/exe");
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(DOORS, doors);
    command.uid(NOBODY).gid(NOBODY);
    let (status, output) = Companion::run(command, "stranger").wait();
    assert!(status.success() && output.contains("1 passed"), "{status}:\n{output}");
    Ok(())
}

/// Tries all the ways that the kernel knows into another process.
fn try_all_doors() -> eventpy::Result<()> {
    let refused = |what: &str, kind: ErrorKind| {
        assert_eq!(kind, ErrorKind::PermissionDenied, "{what}");
    };
    for pid in std::env::var(DOORS)?.split(',') {
        for folder in ["fd", "map_files"] {
            let place = format!("/proc/{pid}/{folder}");
            refused(&place, fs::read_dir(&place).expect_err(&place).kind());
        }
        for number in 0..64 {
            let place = format!("/proc/{pid}/fd/{number}");
            refused(&place, File::open(&place).expect_err(&place).kind());
        }
        let memory = format!("/proc/{pid}/mem");
        refused(&memory, File::open(&memory).expect_err(&memory).kind());
        let process = Pid::from_raw(pid.parse()?).expect("it is no 0");
        let pidfd = rustix::process::pidfd_open(process, PidfdFlags::empty())?;
        for number in 0..64 {
            let taken = rustix::process::pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty());
            let error = taken.expect_err("it is not handed out");
            refused("pidfd_getfd", io::Error::from(error).kind());
        }
    }
    Ok(())
}
