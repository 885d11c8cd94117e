//! Untyped dispatchers for the tests.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use eventpy_engine::ErrorKind;
use eventpy_engine::child::{Assignment, Emitter, Failure, Source};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};

const NUMBER: u16 = 1;
const TEXT: u16 = 2;

pub fn load(assignment: &Assignment) -> Result<Box<dyn Source>, String> {
    let kind = KINDS.iter().find(|(name, _)| *name == assignment.name);
    let Some((_, update)) = kind else {
        return Err(format!("no dispatcher is called `{}` in this program", assignment.name));
    };
    let payload =
        String::from_utf8(assignment.payload.clone()).map_err(|error| error.to_string())?;
    Ok(Box::new(Scripted { name: assignment.name.clone(), payload, step: 0, update: *update }))
}

type Update = fn(&mut Scripted, &mut Emitter) -> Result<(), Failure>;

const KINDS: [(&str, Update); 16] = [
    ("count", count),
    ("count_and_stay", count_and_stay),
    ("sizes", sizes),
    ("send_and_stop", send_and_stop),
    ("fail_after", fail_after),
    ("panic_after", panic_after),
    ("fail_init", idle),
    ("kill_itself_after", kill_itself_after),
    ("beat", beat),
    ("idle", idle),
    ("hang", hang),
    ("hang_by_parts", hang_by_parts),
    ("slow_finish", idle),
    ("large_finish", idle),
    ("finish_file", idle),
    ("fork", fork),
];

/// One step of an update is told by a function, the rest by the name.
struct Scripted {
    name: String,
    payload: String,
    step: u64,
    update: Update,
}

impl Source for Scripted {
    fn init(&mut self, _: &mut Emitter) -> Result<(), Failure> {
        if self.name == "fail_init" { Err(failure("no instrument is there")) } else { Ok(()) }
    }

    fn update(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        (self.update)(self, emitter)
    }

    fn finish(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        match self.name.as_str() {
            "count" => send(emitter, TEXT, b"the end"),
            "fail_after" => send(emitter, NUMBER, &u64::MAX.to_le_bytes()),
            "slow_finish" => {
                std::thread::sleep(Duration::from_millis(self.number()));
                Ok(())
            }
            "large_finish" => (0..10).try_for_each(|_| send(emitter, TEXT, &pattern(1 << 20))),
            "finish_file" => note_finish(&self.payload),
            _ => Ok(()),
        }
    }
}

fn note_finish(path: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| writeln!(file, "finished"))
        .map_err(|error| failure(&error.to_string()))
}

impl Scripted {
    fn number(&self) -> u64 {
        self.payload.parse().expect("the payload is a number")
    }

    fn send_next(&mut self, emitter: &mut Emitter) -> Result<(), Failure> {
        self.step += 1;
        send(emitter, NUMBER, &(self.step - 1).to_le_bytes())
    }
}

fn count(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    if source.step == source.number() {
        emitter.end();
        return Ok(());
    }
    source.send_next(emitter)
}

fn count_and_stay(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    if source.step == source.number() {
        return idle(source, emitter);
    }
    source.send_next(emitter)
}

fn sizes(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    for size in source.payload.split(',') {
        let size: usize = size.parse().expect("sizes are numbers");
        send(emitter, TEXT, &pattern(size))?;
    }
    emitter.end();
    Ok(())
}

/// Stops its whole process behind an event, as SIGSTOP does.
fn send_and_stop(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    send(emitter, TEXT, &pattern(source.number() as usize))?;
    let stopped =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    stopped.map_err(|error| failure(&error.to_string()))
}

fn fail_after(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    if source.step == source.number() {
        return Err(failure(&format!("no more after {}", source.step)));
    }
    source.send_next(emitter)
}

fn panic_after(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    assert!(source.step < source.number(), "deliberately after {}", source.step);
    source.send_next(emitter)
}

fn kill_itself_after(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    if source.step == source.number() {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    source.send_next(emitter)
}

fn beat(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    emitter.wait(Duration::from_millis(1));
    source.send_next(emitter)
}

fn idle(_: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    emitter.wait(Duration::from_secs(3600));
    Ok(())
}

fn hang(_: &mut Scripted, _: &mut Emitter) -> Result<(), Failure> {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn hang_by_parts(_: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    while !emitter.is_ending() {
        std::thread::sleep(Duration::from_millis(10));
        emitter.wait(Duration::from_millis(1));
    }
    Ok(())
}

/// Forks a copy for each word of the payload, and sends what became of it.
fn fork(source: &mut Scripted, emitter: &mut Emitter) -> Result<(), Failure> {
    let Some(word) = source.payload.split(' ').nth(source.step as usize) else {
        emitter.end();
        return Ok(());
    };
    source.step += 1;
    // SAFETY: this process has no thread that holds a lock at this time.
    let pid = unsafe { libc::fork() };
    let Some(copy) = Pid::from_raw(pid) else {
        return in_copy(word, emitter);
    };
    if word == "terminate" {
        kill_process(copy, Signal::TERM).map_err(|error| failure(&error.to_string()))?;
    }
    let status = rustix::process::waitpid(Some(copy), WaitOptions::empty());
    let status = status.expect("it can be waited for").expect("it was waited for").1;
    // By now the watcher has heard whatever there is to hear.
    emitter.wait(Duration::from_millis(50));
    let text = match status.terminating_signal() {
        Some(signal) => format!("{word}: signal {signal}"),
        None => format!("{word}: exit {}", status.exit_status().unwrap_or_default()),
    };
    send(emitter, TEXT, text.as_bytes())
}

fn in_copy(word: &str, emitter: &mut Emitter) -> Result<(), Failure> {
    match word {
        "terminate" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "end" => emitter.end(),
        "send" => {
            let refused = [emitter.send(NUMBER, b"from a copy"), emitter.send(TEXT, &[0; 100_000])];
            assert!(refused.iter().all(|sent| {
                sent.as_ref().is_err_and(|error| {
                    error.kind() == ErrorKind::State && error.to_string().contains("forked from")
                })
            }));
        }
        "fail" => return Err(failure("a copy fails")),
        _ => {}
    }
    Ok(())
}

fn send(emitter: &mut Emitter, type_id: u16, payload: &[u8]) -> Result<(), Failure> {
    emitter.send(type_id, payload).map_err(|error| Failure {
        is_ending: error.kind() == ErrorKind::Ended,
        ..failure(&error.to_string())
    })
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), traceback: String::new(), is_ending: false }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + len) as u8).collect()
}

pub fn is_pattern(bytes: &[u8]) -> bool {
    bytes == pattern(bytes.len())
}
