//! The example as a user runs it: in a pipe, and on a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// No output for so long means that something hangs.
const WATCHDOG: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

const DISPATCHERS: [&str; 3] = ["CpuWatch", "MemoryWatch", "FolderWatch"];

fn machine_watch(seconds: u32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_machine_watch"));
    command.args(["--seconds", &seconds.to_string()]);
    command
}

#[track_caller]
fn assert_all_finished(output: &str) {
    for dispatcher in DISPATCHERS {
        let row = output.lines().map(str::trim_start).find(|line| line.starts_with(dispatcher));
        let row = row.unwrap_or_default();
        assert!(row.contains("ran, ") && row.contains("exit code 0"), "{dispatcher}:\n{output}");
    }
}

#[test]
fn ends_when_the_time_is_over_and_every_dispatcher_finishes() {
    let output = machine_watch(2).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("cpu 0: "), "{text}");
    assert!(text.contains("GiB"), "{text}");
    assert!(text.contains("last: note-"), "{text}");
    assert_all_finished(&text);
}

#[test]
fn ends_at_a_signal() {
    let mut child = machine_watch(600).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    output.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_all_finished(&text);
}

#[test]
fn a_dispatcher_that_fails_takes_no_other_along() {
    let output = machine_watch(2).args(["--folder", "/no/such/folder"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "{text}");
    let (lines, report) = text.split_once("finish").unwrap();
    assert!(lines.contains("dispatcher `FolderWatch` failed"), "{text}");
    assert!(lines.contains("cpu 0: "), "{text}");
    assert!(report.contains("FolderWatch failed: ") && report.contains("/no/such"), "{text}");
}

#[test]
fn a_terminal_is_restored_before_the_report() {
    let (mut ours, theirs) = terminal();
    let handle = || theirs.try_clone().unwrap();
    let before = local_modes(&theirs);
    let mut child =
        machine_watch(600).stdin(handle()).stdout(handle()).stderr(handle()).spawn().unwrap();

    let mut screen = String::new();
    read_until(&mut ours, &mut screen, "note-0.txt");
    assert!(screen.contains("\x1b[?1049h"), "the alternate screen is entered: {screen:?}");
    ours.write_all(b"\x03").unwrap();
    read_until(&mut ours, &mut screen, "FolderWatch ");

    assert!(child.wait().unwrap().success(), "{screen}");
    assert_eq!(local_modes(&theirs), before, "echo and line mode are back");
    let (_, report) = screen.split_once("\x1b[?1049l").expect("the alternate screen is left");
    assert!(report.contains("\x1b[?25h"), "the cursor is shown again: {report:?}");
    assert!(report.contains("CpuWatch"), "{report:?}");
}

/// A terminal of 80 columns and 24 rows: our end, and the end that programs see.
fn terminal() -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = File::options().read(true).write(true).open(name).unwrap();
    let size = Winsize { ws_col: 80, ws_row: 24, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).unwrap();
    (File::from(ours), theirs.into())
}

fn local_modes(terminal: &OwnedFd) -> LocalModes {
    let Termios { local_modes, .. } = tcgetattr(terminal).unwrap();
    local_modes
}

fn read_until(terminal: &mut File, screen: &mut String, text: &str) {
    let mut bytes = [0; 4096];
    while !screen.contains(text) {
        let mut readable = [PollFd::new(&*terminal, PollFlags::IN)];
        let ready = poll(&mut readable, Some(&WATCHDOG)).unwrap();
        assert_ne!(ready, 0, "{text} is not shown: {screen:?}");
        let n = terminal.read(&mut bytes).unwrap();
        screen.push_str(&String::from_utf8_lossy(&bytes[..n]));
    }
}
