//! The loop of a dispatcher: `init` once, `update` again and again, `finish` exactly once.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::time::Instant;

use super::emitter::Emitter;
use super::status::Status;
use crate::control::Control;
use crate::protocol::{FromChild, cut};
use crate::report::Phase;

/// An untyped dispatcher, in its own process.
pub trait Source {
    /// Called once, before anything else.
    ///
    /// # Errors
    /// The dispatcher's own; then nothing else is called.
    fn init(&mut self, emitter: &mut Emitter) -> Result<(), Failure>;

    /// Called again and again, until the dispatcher is to end.
    ///
    /// # Errors
    /// The dispatcher's own; then only `finish` is called.
    fn update(&mut self, emitter: &mut Emitter) -> Result<(), Failure>;

    /// Called once after the last `update`, whatever ended it.
    ///
    /// # Errors
    /// The dispatcher's own.
    fn finish(&mut self, emitter: &mut Emitter) -> Result<(), Failure>;
}

/// Why a dispatcher's code failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One sentence.
    pub reason: String,
    /// Where, as text, if the language tells.
    pub traceback: String,
    /// The error only passes on that the dispatcher was told to end: not a failure.
    pub is_ending: bool,
}

/// Runs a dispatcher to its end and returns the exit code of its process.
pub(super) fn run(
    mut source: Box<dyn Source>,
    mut emitter: Emitter,
    control: &Control,
    status: &Status,
) -> i32 {
    note_panics();
    let initialised = guarded(|| source.init(&mut emitter));
    if status.is_forked_copy() {
        return end_copy(initialised);
    }
    if let Err(failure) = initialised {
        report_failure(control, Phase::Init, failure);
        return 1;
    }
    let _ = control.send(&FromChild::Initialised, &[], true);
    let mut failed = false;
    while !status.is_ending() {
        emitter.begin_update();
        let updated = guarded(|| source.update(&mut emitter));
        if status.is_forked_copy() {
            return end_copy(updated);
        }
        emitter.end_update();
        match updated {
            Ok(()) => {}
            Err(failure) if failure.is_ending && status.is_ending() => break,
            Err(failure) => {
                report_failure(control, Phase::Update, failure);
                failed = true;
                break;
            }
        }
    }
    let start = Instant::now();
    emitter.begin_finish();
    let finished = guarded(|| source.finish(&mut emitter));
    if status.is_forked_copy() {
        return end_copy(finished);
    }
    emitter.publish();
    match finished {
        Err(failure) if !failure.is_ending => {
            report_failure(control, Phase::Finish, failure);
            failed = true;
        }
        _ => {
            let _ = control.send(&FromChild::Finished { time: start.elapsed() }, &[], true);
        }
    }
    i32::from(failed)
}

/// The dispatcher's code forked this process off and came back here in it. It is no dispatcher: it
/// ends as a program does, and the manager hears nothing of it.
fn end_copy(result: Result<(), Failure>) -> i32 {
    if let Err(failure) = &result {
        eprintln!(
            "eventpy: in a process that was forked from the dispatcher's: {}\n{}",
            failure.reason, failure.traceback
        );
    }
    i32::from(result.is_err())
}

fn report_failure(control: &Control, phase: Phase, failure: Failure) {
    let failed =
        FromChild::Failed { phase, reason: cut(failure.reason), traceback: cut(failure.traceback) };
    let _ = control.send(&failed, &[], true);
}

thread_local! {
    /// The place of the panic that this thread is in, if the loop called what panicked.
    static PANIC: RefCell<Option<Option<String>>> = const { RefCell::new(None) };
}

/// Keeps place and backtrace of a panic in the dispatcher's code for the report, instead of
/// printing them here. Panics of other threads are printed as ever.
fn note_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let noted = PANIC.with_borrow_mut(|place| match place {
            Some(place) => {
                *place = Some(place_of(info));
                true
            }
            None => false,
        });
        if !noted {
            print(info);
        }
    }));
}

fn place_of(info: &panic::PanicHookInfo<'_>) -> String {
    let place = info.location().map_or_else(String::new, |location| format!("  at {location}"));
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("{place}\n{backtrace}"),
        _ => place,
    }
}

/// Calls the dispatcher's code; a panic is a failure.
fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    PANIC.set(Some(None));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let place = PANIC.take().flatten();
    result.unwrap_or_else(|payload| {
        let reason = format!("it panicked: {}", message_of(&*payload));
        Err(Failure { reason, traceback: place.unwrap_or_default(), is_ending: false })
    })
}

pub(super) fn message_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(without a message)")
}
