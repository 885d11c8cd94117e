//! Running a process instruction by instruction, by ptrace, within a window that it marks itself.
//!
//! A process stores one instruction at a time. So whoever kills it after each of them has seen all
//! that a kill can leave in shared memory.

use std::collections::HashMap;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, AddressType, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Exit code of a process that may not be traced.
pub const REFUSED: i32 = 77;

/// Runs `work` as the window, under the eyes of the parent's thread that started this process. The
/// process does not survive it.
pub fn window(work: impl FnOnce()) -> ! {
    if ptrace::traceme().is_err() {
        std::process::exit(REFUSED);
    }
    mark_begin();
    work();
    mark_end();
    unreachable!("a process is killed at the end of its window")
}

/// Stops the process with SIGTRAP.
#[inline(always)]
fn mark_begin() {
    // SAFETY: a breakpoint changes neither registers nor memory.
    unsafe { core::arch::asm!("int3") };
}

/// Stops the process with SIGILL.
#[inline(always)]
fn mark_end() {
    // SAFETY: the instruction does nothing but raise the exception.
    unsafe { core::arch::asm!("ud2") };
}

/// A process in its window, stopped between two instructions.
pub struct Stepped {
    pid: Pid,
    at_end: bool,
}

impl Stepped {
    /// Waits until a child of this thread has come to its window. `None`: it may not be traced.
    ///
    /// Asks for its state: that it was stopped may have been told to another wait of this process.
    pub fn at_begin(pid: u32) -> Option<Stepped> {
        loop {
            match state_of(pid) {
                't' => break,
                'Z' => return None,
                _ => std::thread::yield_now(),
            }
        }
        // A thread that is not traced would not survive a breakpoint. In the window nothing wakes it.
        while !others_sleep(pid) {
            std::thread::yield_now();
        }
        let pid = Pid::from_raw(pid as i32);
        waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("it is a child");
        ptrace::setoptions(pid, Options::PTRACE_O_EXITKILL).expect("it is stopped");
        Some(Stepped { pid, at_end: false })
    }

    /// Executes one instruction. False at the end of the window.
    pub fn step(&mut self) -> bool {
        if !self.at_end {
            ptrace::step(self.pid, None).expect("it is stopped");
            self.wait();
        }
        !self.at_end
    }

    /// Goes from the beginning to where so many instructions are executed. False if the window ends
    /// before that.
    pub fn go_to(&mut self, way: Way) -> bool {
        if let Some((offset, times)) = way.pass {
            self.run_to(offset, times);
        }
        (0..way.steps).all(|_| self.step())
    }

    /// Executes the window to its end, and notes which instructions these are.
    pub fn trace(&mut self) -> Trace {
        let begin = self.registers().rip;
        let mut offsets = vec![0];
        while self.step() {
            offsets.push(self.registers().rip.wrapping_sub(begin) as i64);
        }
        // The last one is the mark of the end.
        offsets.pop();
        Trace { offsets }
    }

    /// Kills it where it is. Its exit is left to whoever started it.
    pub fn kill(&self) {
        // A process that is stopped is there.
        nix::sys::signal::kill(self.pid, Signal::SIGKILL).expect("it is stopped");
    }

    /// Runs until it comes to an instruction for the so manieth time.
    fn run_to(&mut self, offset: i64, times: usize) {
        let mut registers = self.registers();
        let address = registers.rip.wrapping_add_signed(offset);
        let code = ptrace::read(self.pid, address as AddressType).expect("there is code");
        let breakpoint = code & !0xff | 0xcc;
        for time in 0..times {
            if time > 0 && !self.step() {
                return;
            }
            self.write(address, breakpoint);
            ptrace::cont(self.pid, None).expect("it is stopped");
            self.wait();
            if self.at_end {
                return;
            }
            self.write(address, code);
            registers = self.registers();
            assert_eq!(registers.rip, address + 1, "it stopped elsewhere");
            registers.rip = address;
            ptrace::setregs(self.pid, registers).expect("it is stopped");
        }
    }

    fn registers(&self) -> libc::user_regs_struct {
        ptrace::getregs(self.pid).expect("it is stopped")
    }

    fn write(&self, address: u64, code: i64) {
        ptrace::write(self.pid, address as AddressType, code).expect("there is code");
    }

    fn wait(&mut self) {
        match waitpid(self.pid, None) {
            Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {}
            Ok(WaitStatus::Stopped(_, Signal::SIGILL)) => self.at_end = true,
            Err(Errno::EINTR) => self.wait(),
            other => panic!("it was not stopped after its step: {other:?}"),
        }
    }
}

/// Whether all threads of a child sleep but the first, which is stopped.
fn others_sleep(pid: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is not reaped");
    threads.all(|thread| {
        let thread = thread.expect("its threads can be listed");
        matches!(state_in(&thread.path()), 'S' | 't')
    })
}

/// The state of a child, as ps shows it.
fn state_of(pid: u32) -> char {
    state_in(Path::new(&format!("/proc/{pid}")))
}

fn state_in(folder: &Path) -> char {
    let stat = std::fs::read_to_string(folder.join("stat")).expect("it is not reaped");
    // The name, in parentheses, may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.expect("its state comes behind its name")
}

/// How often a process was killed, and how many places its window has.
pub struct Kills {
    pub kills: usize,
    pub places: usize,
}

/// About so many of these ways, evenly spread, the last one among them.
pub fn some_of(mut ways: Vec<Way>, about: usize) -> Vec<Way> {
    let last = ways.pop();
    let part = (ways.len() / about).max(1);
    ways.into_iter().step_by(part).chain(last).collect()
}

/// The instructions that a window executes.
pub struct Trace {
    /// How far each of them lies behind the first one.
    offsets: Vec<i64>,
}

/// A short way to a place in a window: a single step takes as long as thousands of instructions.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// To pass an instruction so many times; `None` for the beginning.
    pass: Option<(i64, usize)>,
    /// Single steps from there.
    steps: usize,
}

/// What it takes to stop at an instruction, in single steps.
const STEPS_OF_A_PASS: usize = 6;

impl Trace {
    /// The ways to each place between two instructions, the beginning and the end among them.
    pub fn ways(&self) -> Vec<Way> {
        let mut passed = HashMap::new();
        let mut ways = vec![Way { pass: None, steps: 0 }];
        let mut best = ways[0];
        for offset in &self.offsets[1..] {
            best.steps += 1;
            let times = passed.entry(*offset).or_insert(0);
            *times += 1;
            // A library lies elsewhere in each process.
            let is_near = offset.unsigned_abs() < 1 << 30;
            if is_near && *times * STEPS_OF_A_PASS < best.cost() {
                best = Way { pass: Some((*offset, *times)), steps: 0 };
            }
            ways.push(best);
        }
        ways.push(Way { steps: best.steps + 1, ..best });
        ways
    }
}

impl Way {
    /// How long it takes, in single steps.
    pub fn cost(self) -> usize {
        self.pass.map_or(0, |(_, times)| times * STEPS_OF_A_PASS) + self.steps
    }
}
