//! What hostile dispatcher processes do, and what has to come of it.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::exit;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventpy_engine::{Delivery, DispatcherOptions, Phase};
use rustix::fs::{OFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::Signal;

use crate::child::{
    CONSUMER_ASLEEP, COUNTERS, HEAD, HEADER_BYTES, Hostile, MAX_DESCRIPTORS, PAD, SIZE_SEALS,
    SPACE_WANTED, Says, TAIL, file, fork, memory, record_word,
};

/// One hostile process.
pub struct Case {
    pub name: &'static str,
    pub act: fn(&mut Hostile),
    pub outcome: Outcome,
    pub options: fn(DispatcherOptions) -> DispatcherOptions,
}

/// What has to come of it.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// It is not deployed; the error says all of this.
    NotDeployed(&'static [&'static str]),
    /// It fails while the manager pumps; the reason says all of this.
    Fails(&'static [&'static str]),
    /// It fails when it is told to end; the reason says all of this.
    FailsAtEnd(&'static [&'static str]),
    /// It does no harm, and ends as if nothing was.
    Ends,
}

use Outcome::{Ends, Fails, FailsAtEnd, NotDeployed};

const NOT_OF_THE_PROTOCOL: Outcome = Fails(&["command socket", "not one of the protocol"]);
const NOT_UNDERSTOOD: Outcome = Fails(&["command socket", "message"]);
const NOT_A_SEGMENT: Outcome = Fails(&["command socket", "seals"]);

/// A variant that there is not.
const NO_MESSAGE: &[u8] = &[8];

const SEGMENT: Says = Says::Segment { id: 0, bytes: 4096, slots: 1 };

pub const CASES: &[Case] = &[
    // Messages.
    case("random_bytes", random_bytes, NOT_UNDERSTOOD),
    case("a_truncated_message", a_truncated_message, NOT_OF_THE_PROTOCOL),
    case("an_unknown_variant", an_unknown_variant, NOT_OF_THE_PROTOCOL),
    case("a_text_longer_than_its_message", a_text_longer_than_its_message, NOT_OF_THE_PROTOCOL),
    case("a_text_that_is_no_text", a_text_that_is_no_text, NOT_OF_THE_PROTOCOL),
    case("an_oversized_message", an_oversized_message, Fails(&["longer than the protocol allows"])),
    case("a_message_at_the_limit", a_message_at_the_limit, Fails(&["aaaaaaaa"])),
    case("an_empty_message", an_empty_message, Fails(&["command socket", "a message is empty"])),
    case(
        "random_bytes_before_loaded",
        random_bytes_before_loaded,
        NotDeployed(&["command socket", "message"]),
    ),
    case(
        "a_socket_closed_before_loaded",
        a_socket_closed_before_loaded,
        NotDeployed(&["closed its command socket"]),
    ),
    case(
        "a_grandchild_keeps_the_socket_before_loaded",
        a_grandchild_keeps_the_socket_before_loaded,
        NotDeployed(&["before it had loaded its dispatcher", "exit code 3"]),
    ),
    case(
        "a_socket_closed_in_the_middle",
        a_socket_closed_in_the_middle,
        Fails(&["closed its command socket"]),
    ),
    case("loaded_twice", loaded_twice, Fails(&["command socket", "second time", "loaded"])),
    case("initialised_twice", initialised_twice, Fails(&["second time", "init"])),
    case("finished_twice", finished_twice, Fails(&["second time", "finish"])),
    case("failed_after_finished", failed_after_finished, Fails(&["too late to fail"])),
    case("hung_for_ever", hung_for_ever, Fails(&["update number 18446744073709551615 hangs"])),
    case("finished_for_ever", finished_for_ever, Ends),
    case("a_flood_of_reports", a_flood_of_reports, Fails(&["0 xxxxxx"])),
    case("a_flood_of_segments", a_flood_of_segments, Ends),
    // Descriptors and segments.
    case(
        "a_descriptor_with_loaded",
        a_descriptor_with_loaded,
        NotDeployed(&["command socket", "came with descriptors"]),
    ),
    case(
        "a_descriptor_with_the_last_message",
        a_descriptor_with_the_last_message,
        Fails(&["command socket", "came with descriptors"]),
    ),
    case(
        "as_many_descriptors_as_the_kernel_lets_through",
        as_many_descriptors_as_the_kernel_lets_through,
        Fails(&["command socket", "with 253 descriptors"]),
    ),
    case(
        "a_death_while_the_manager_stands_still",
        a_death_while_the_manager_stands_still,
        Fails(&["SIGKILL"]),
    ),
    case("a_descriptor_that_takes_its_time", a_descriptor_that_takes_its_time, NOT_UNDERSTOOD),
    case(
        "a_descriptor_that_takes_its_time_as_a_segment",
        a_descriptor_that_takes_its_time_as_a_segment,
        NOT_A_SEGMENT,
    ),
    case(
        "a_descriptor_that_takes_its_time_unreceived",
        a_descriptor_that_takes_its_time_unreceived,
        NOT_UNDERSTOOD,
    ),
    case(
        "a_descriptor_that_takes_its_time_behind_the_last_message",
        a_descriptor_that_takes_its_time_behind_the_last_message,
        Fails(&["command socket"]),
    ),
    case("a_segment_without_memory", a_segment_without_memory, Fails(&["without its memory"])),
    case("a_segment_in_a_pipe", a_segment_in_a_pipe, NOT_A_SEGMENT),
    case("a_segment_in_a_file", a_segment_in_a_file, NOT_A_SEGMENT),
    case(
        "a_segment_that_can_shrink",
        a_segment_that_can_shrink,
        Fails(&["command socket", "seal"]),
    ),
    case("a_segment_of_less", a_segment_of_less, Fails(&["4096", "8192"])),
    case("a_segment_of_nothing", a_segment_of_nothing, Fails(&["command socket", " 0 "])),
    case("a_segment_of_everything", a_segment_of_everything, Fails(&["18446744073709551615"])),
    case(
        "a_segment_beyond_the_budget",
        a_segment_beyond_the_budget,
        Fails(&["beyond the 1048576"]),
    ),
    case("segments_beyond_the_budget", segments_beyond_the_budget, Fails(&["beyond the 1048576"])),
    case("a_segment_id_again_and_again", a_segment_id_again_and_again, Ends),
    case(
        "a_large_record_of_a_segment_never_sent",
        a_large_record_of_a_segment_never_sent,
        Fails(&["its ring is broken", "segment 7, which was never sent"]),
    ),
    Case {
        options: |options| options.delivery(Delivery::Latest),
        ..case(
            "a_large_record_of_a_segment_never_sent_latest",
            a_large_record_of_a_segment_never_sent,
            Fails(&["its ring is broken", "segment 7, which was never sent"]),
        )
    },
    case(
        "a_large_record_of_no_possible_segment",
        a_large_record_of_no_possible_segment,
        Fails(&["its ring is broken", "can't exist"]),
    ),
    case(
        "a_large_record_longer_than_its_segment",
        a_large_record_longer_than_its_segment,
        Fails(&["its ring is broken", "claims 4097 bytes of a segment of 4096"]),
    ),
    case(
        "a_large_record_without_a_reference",
        a_large_record_without_a_reference,
        Fails(&["its ring is broken", "has 8 bytes"]),
    ),
    // The ring.
    case(
        "a_tail_at_the_end_of_all",
        a_tail_at_the_end_of_all,
        Fails(&["its tail is 18446744073709551615"]),
    ),
    case("a_tail_off_a_record", a_tail_off_a_record, Fails(&["its ring is broken", "its tail is"])),
    case(
        "a_tail_that_goes_back",
        a_tail_that_goes_back,
        Fails(&["its ring is broken", "its tail is"]),
    ),
    case(
        "a_record_without_end",
        a_record_without_end,
        Fails(&["its ring is broken", "4294967295"]),
    ),
    case("a_type_that_was_not_declared", a_type_that_was_not_declared, Fails(&["event type 77"])),
    case("the_type_zero", the_type_zero, Fails(&["event type 0"])),
    case("nothing_but_pads", nothing_but_pads, Ends),
    case("counters_at_the_end_of_all", counters_at_the_end_of_all, Ends),
    Case {
        options: |options| options.delivery(Delivery::Latest),
        ..case("counters_at_the_end_of_all_latest", counters_at_the_end_of_all, Ends)
    },
    case("lost_at_the_end_of_all", lost_at_the_end_of_all, Fails(&["its ring is broken"])),
    Case {
        options: |options| options.delivery(Delivery::DropOldest),
        ..case("a_head_past_the_tail", a_head_past_the_tail, Fails(&["its ring is broken", "head"]))
    },
    // The bells.
    case("a_data_bell_that_is_full", a_data_bell_that_is_full, Ends),
    case("a_space_bell_that_is_full", a_space_bell_that_is_full, Ends),
    case(
        "a_bell_that_never_stops",
        a_bell_that_never_stops,
        FailsAtEnd(&["did not end within", "killed"]),
    ),
    // The process.
    case("it_stops_itself", it_stops_itself, FailsAtEnd(&["did not end within", "killed"])),
    case(
        "it_stays_after_its_finish",
        it_stays_after_its_finish,
        Fails(&["did not exit after its finish"]),
    ),
    case("it_is_traced_by_another", it_is_traced_by_another, Ends),
    case(
        "it_is_traced_and_does_not_finish",
        it_is_traced_and_does_not_finish,
        Fails(&["without its `finish`"]),
    ),
    case("it_does_not_listen", it_does_not_listen, FailsAtEnd(&["did not end within", "killed"])),
    case(
        "a_grandchild_is_left",
        a_grandchild_is_left,
        Fails(&["without its `finish`", "exit code 3"]),
    ),
    case(
        "a_grandchild_floods_the_socket",
        a_grandchild_floods_the_socket,
        Fails(&["without its `finish`", "exit code 3"]),
    ),
    case(
        "a_grandchild_floods_the_ring",
        a_grandchild_floods_the_ring,
        Fails(&["without its `finish`", "exit code 3"]),
    ),
];

const fn case(name: &'static str, act: fn(&mut Hostile), outcome: Outcome) -> Case {
    Case { name, act, outcome, options: |options| options }
}

// Messages.

fn random_bytes(child: &mut Hostile) {
    child.begin_well();
    send_random(child);
}

fn send_random(child: &Hostile) {
    let mut random = fastrand::Rng::with_seed(7);
    for len in 1..200 {
        // What happens to be a message of the protocol is harmless: the first byte is none.
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len).collect();
        let _ = child.send(&[&[random.u8(8..)], &bytes[1..]].concat(), &[]);
    }
}

fn a_truncated_message(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(&[4, 1], &[]);
}

fn an_unknown_variant(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(NO_MESSAGE, &[]);
}

fn a_text_longer_than_its_message(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(&[5, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], &[]);
}

fn a_text_that_is_no_text(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(&[5, 2, 2, 0xff, 0xfe, 0], &[]);
}

fn an_oversized_message(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(&vec![3; 64 * 1024 + 1], &[]);
}

fn a_message_at_the_limit(child: &mut Hostile) {
    child.begin_well();
    // One byte for each of variant and phase, three for the text's length, one for the other's.
    let reason = "a".repeat(64 * 1024 - 6);
    child.say(&Says::Failed { phase: Phase::Update, reason, traceback: String::new() });
}

fn an_empty_message(child: &mut Hostile) {
    child.begin_well();
    let _ = child.send(&[], &[]);
}

fn random_bytes_before_loaded(child: &mut Hostile) {
    send_random(child);
}

fn a_socket_closed_before_loaded(child: &mut Hostile) {
    child.close_control();
}

fn a_grandchild_keeps_the_socket_before_loaded(child: &mut Hostile) {
    if fork().is_none() {
        child.stay_until_hung_up();
    }
    exit(3);
}

fn a_socket_closed_in_the_middle(child: &mut Hostile) {
    child.begin_well();
    child.close_control();
}

fn loaded_twice(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Loaded { barriers: true });
}

fn initialised_twice(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Initialised);
}

fn finished_twice(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Finished { time: Duration::ZERO });
    child.end_well();
}

fn failed_after_finished(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Finished { time: Duration::ZERO });
    let reason = "too late to fail".to_owned();
    child.say(&Says::Failed { phase: Phase::Init, reason, traceback: String::new() });
    exit(0);
}

fn hung_for_ever(child: &mut Hostile) {
    child.begin_well();
    let traceback = String::new();
    child.say(&Says::Hung { updates: u64::MAX, elapsed: Duration::MAX, traceback });
}

fn finished_for_ever(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Finished { time: Duration::MAX });
    exit(0);
}

fn a_flood_of_reports(child: &mut Hostile) {
    child.begin_well();
    for number in 0..100_000 {
        let reason = format!("{number} {}", "x".repeat(1000));
        child.say(&Says::Failed { phase: Phase::Update, reason, traceback: String::new() });
    }
}

fn a_flood_of_segments(child: &mut Hostile) {
    child.begin_well();
    let memory = memory(4096, SIZE_SEALS);
    for id in 0..100_000 {
        let segment = Says::Segment { id, bytes: 4096, slots: u64::MAX };
        child.say_with(&segment, &[memory.as_fd()]);
    }
    child.end_well();
}

// Descriptors and segments.

fn null_device() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn a_descriptor_with_loaded(child: &mut Hostile) {
    child.say_with(&Says::Loaded { barriers: false }, &[null_device().as_fd()]);
}

fn a_descriptor_with_the_last_message(child: &mut Hostile) {
    child.begin_well();
    child.say_with(&Says::Finished { time: Duration::ZERO }, &[null_device().as_fd()]);
    exit(0);
}

fn as_many_descriptors_as_the_kernel_lets_through(child: &mut Hostile) {
    child.begin_well();
    let null = null_device();
    child.say_with(&SEGMENT, &[null.as_fd(); MAX_DESCRIPTORS]);
}

/// Sends messages, each with a connection whose last owner waits, when he closes it, for what it has
/// not sent. That is the manager. The other end, which is the test, takes nothing.
fn send_lingering(child: &Hostile, messages: &[&[u8]]) {
    child.begin_well();
    child.wait_until_read();
    let mut lingering = TcpStream::connect(&child.payload).unwrap();
    let for_long = Some(Duration::from_secs(600));
    rustix::net::sockopt::set_socket_linger(&lingering, for_long).unwrap();
    lingering.set_nonblocking(true).unwrap();
    while lingering.write(&[0; 65536]).is_ok() {}
    child.while_the_manager_stands_still(|| {
        for message in messages {
            let _ = child.send(message, &[lingering.as_fd()]);
        }
        drop(lingering);
    });
}

fn a_death_while_the_manager_stands_still(child: &mut Hostile) {
    child.begin_well();
    child.wait_until_read();
    child.while_the_manager_stands_still(|| {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    });
}

fn a_descriptor_that_takes_its_time(child: &mut Hostile) {
    send_lingering(child, &[NO_MESSAGE]);
}

fn a_descriptor_that_takes_its_time_as_a_segment(child: &mut Hostile) {
    send_lingering(child, &[&postcard::to_stdvec(&SEGMENT).unwrap()]);
}

fn a_descriptor_that_takes_its_time_unreceived(child: &mut Hostile) {
    send_lingering(child, &[NO_MESSAGE, NO_MESSAGE]);
}

fn a_descriptor_that_takes_its_time_behind_the_last_message(child: &mut Hostile) {
    let finished = postcard::to_stdvec(&Says::Finished { time: Duration::ZERO }).unwrap();
    send_lingering(child, &[&finished, &[]]);
    exit(0);
}

fn send_segment(child: &Hostile, bytes: u64, descriptors: &[BorrowedFd<'_>]) {
    child.begin_well();
    child.say_with(&Says::Segment { id: 0, bytes, slots: 1 }, descriptors);
}

fn a_segment_without_memory(child: &mut Hostile) {
    send_segment(child, 4096, &[]);
}

fn a_segment_in_a_pipe(child: &mut Hostile) {
    let (reader, _writer) = std::io::pipe().unwrap();
    send_segment(child, 4096, &[reader.as_fd()]);
}

fn a_segment_in_a_file(child: &mut Hostile) {
    send_segment(child, 4096, &[file().as_fd()]);
}

fn a_segment_that_can_shrink(child: &mut Hostile) {
    send_segment(child, 4096, &[memory(4096, SealFlags::GROW).as_fd()]);
}

fn a_segment_of_less(child: &mut Hostile) {
    send_segment(child, 8192, &[memory(4096, SIZE_SEALS).as_fd()]);
}

fn a_segment_of_nothing(child: &mut Hostile) {
    send_segment(child, 0, &[memory(0, SIZE_SEALS).as_fd()]);
}

fn a_segment_of_everything(child: &mut Hostile) {
    send_segment(child, u64::MAX, &[memory(4096, SIZE_SEALS).as_fd()]);
}

/// Memory costs nothing as long as nobody writes into it.
fn a_segment_beyond_the_budget(child: &mut Hostile) {
    send_segment(child, 1 << 44, &[memory(1 << 44, SIZE_SEALS).as_fd()]);
}

fn segments_beyond_the_budget(child: &mut Hostile) {
    child.begin_well();
    (0..3).for_each(|id| child.send_segment(id, 400_000));
}

/// Each takes the place of the one before, in the same slot.
fn a_segment_id_again_and_again(child: &mut Hostile) {
    child.begin_well();
    for id in [0, 0, 0, 64, 128, u32::MAX - 63, 0] {
        child.send_segment(id, 4096);
        child.commit_large(id.into(), 4096);
        child.wait_until_read();
    }
    child.end_well();
}

fn a_large_record_of_a_segment_never_sent(child: &mut Hostile) {
    child.begin_well();
    child.commit_large(7, 100);
}

fn a_large_record_of_no_possible_segment(child: &mut Hostile) {
    child.begin_well();
    child.commit_large(u64::MAX, 100);
}

fn a_large_record_longer_than_its_segment(child: &mut Hostile) {
    child.begin_well();
    child.send_segment(0, 4096);
    child.commit_large(0, 4097);
}

fn a_large_record_without_a_reference(child: &mut Hostile) {
    child.begin_well();
    child.commit_words(&[record_word(8, 2, crate::child::LARGE), 0]);
}

// The ring.

fn a_tail_at_the_end_of_all(child: &mut Hostile) {
    child.begin_well();
    child.set_tail(u64::MAX);
}

fn a_tail_off_a_record(child: &mut Hostile) {
    child.begin_well();
    child.set_tail(child.tail() + 4);
}

fn a_tail_that_goes_back(child: &mut Hostile) {
    child.begin_well();
    child.wait_until_read();
    child.set_tail(16);
}

fn a_record_without_end(child: &mut Hostile) {
    child.begin_well();
    child.commit_words(&[record_word(u32::MAX, 1, 0), 1, 2, 3]);
}

fn a_type_that_was_not_declared(child: &mut Hostile) {
    child.begin_well();
    child.commit_words(&[record_word(8, 77, 0), 1]);
}

fn the_type_zero(child: &mut Hostile) {
    child.begin_well();
    child.commit_words(&[record_word(8, 0, 0), 1]);
}

/// Round and round, all through the ring.
fn nothing_but_pads(child: &mut Hostile) {
    child.begin_well();
    let pads = [record_word(0, 0, PAD); 1024];
    for _ in 0..300 {
        while child.tail() - child.head() > child.capacity() / 2 {
            std::thread::yield_now();
        }
        child.commit_words(&pads);
    }
    child.end_well();
}

fn counters_at_the_end_of_all(child: &mut Hostile) {
    child.begin_well();
    (0..256).for_each(|at| child.word(COUNTERS + at * 8).store(u64::MAX, Ordering::SeqCst));
    child.end_well();
}

fn lost_at_the_end_of_all(child: &mut Hostile) {
    child.begin_well();
    child.wait_until_read();
    (0..256).for_each(|at| child.word(COUNTERS + at * 8).store(u64::MAX, Ordering::SeqCst));
    child.set_tail(u64::MAX);
}

fn a_head_past_the_tail(child: &mut Hostile) {
    child.begin_well();
    child.word(HEAD).store(1 << 40, Ordering::SeqCst);
    child.ring_data();
    child.commit(3);
}

/// Everything everywhere, while the manager reads. The payload is the seed.
pub fn scribbles(child: &mut Hostile) {
    let seed: u64 = child.payload.parse().expect("the payload is a number");
    child.begin_well();
    let scribble = |child: &Hostile, seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            scribble_once(child, &mut random);
            child.ring_data();
        }
    };
    std::thread::scope(|scope| {
        let child = &*child;
        scope.spawn(move || scribble(child, seed));
        scope.spawn(move || scribble(child, !seed));
        child.stay();
    });
}

fn scribble_once(child: &Hostile, random: &mut fastrand::Rng) {
    let at = HEADER_BYTES + random.u64(0..child.capacity());
    let word = record_word(random.u32(0..100), random.u16(1..3), random.u16(0..3));
    // Mostly what might be sound, so that the manager comes far.
    match random.u32(0..1000) {
        0 => child.word(random.u64(0..HEADER_BYTES)).store(random.u64(..), Ordering::SeqCst),
        1 => child.word(TAIL).store(random.u64(..) & !7, Ordering::SeqCst),
        2 => child.word(at).store(random.u64(..), Ordering::SeqCst),
        3..10 => child.word(HEAD).store(child.tail(), Ordering::SeqCst),
        10..30 => child.word(SPACE_WANTED).store(random.u64(0..1 << 20) & !7, Ordering::SeqCst),
        30..50 => child.word(COUNTERS + random.u64(0..32)).store(random.u64(..), Ordering::SeqCst),
        50..100 => {
            let room = child.capacity().saturating_sub(child.tail().saturating_sub(child.head()));
            child.set_tail(child.tail().wrapping_add(random.u64(0..=room) & !7));
        }
        _ => child.word(at).store(word, Ordering::SeqCst),
    }
}

// The bells.

/// Lets writes and reads of a descriptor wait, in all processes that share it.
fn let_wait(descriptor: &OwnedFd) {
    rustix::fs::fcntl_setfl(descriptor, OFlags::empty()).unwrap();
}

fn a_data_bell_that_is_full(child: &mut Hostile) {
    child.begin_well();
    let_wait(&child.data);
    let _ = rustix::io::write(&child.data, &(u64::MAX - 100).to_ne_bytes());
    // The bell takes a hundred more, and then would make us wait.
    for number in 3..50 {
        child.commit(number);
        child.wait_until_read();
    }
    child.end_well();
}

/// It asks to be woken and does not listen.
fn a_space_bell_that_is_full(child: &mut Hostile) {
    child.begin_well();
    let_wait(&child.space);
    let _ = rustix::net::send(&child.space, &[0; 8], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    let _ = rustix::io::write(&child.space, &(u64::MAX - 1).to_ne_bytes());
    for number in 3..2000 {
        child.word(SPACE_WANTED).store(8, Ordering::SeqCst);
        child.commit(number);
        child.wait_until_read();
    }
    child.end_well();
}

fn a_bell_that_never_stops(child: &mut Hostile) {
    child.begin_well();
    let start = Instant::now();
    // Only a test that hangs lets it come to this end.
    while start.elapsed() < Duration::from_secs(300) {
        child.word(CONSUMER_ASLEEP).store(0, Ordering::SeqCst);
        child.ring_data();
    }
}

// The process.

fn it_stops_itself(child: &mut Hostile) {
    child.begin_well();
    rustix::process::kill_process(rustix::process::getpid(), Signal::STOP).unwrap();
}

fn it_stays_after_its_finish(child: &mut Hostile) {
    child.begin_well();
    child.say(&Says::Finished { time: Duration::ZERO });
}

/// Its end is kept from its parent for as long as the tracer lives.
fn it_is_traced_by_another(child: &mut Hostile) {
    child.begin_well();
    child.let_another_trace();
    child.end_well();
}

fn it_is_traced_and_does_not_finish(child: &mut Hostile) {
    child.begin_well();
    child.let_another_trace();
    exit(0);
}

fn it_does_not_listen(child: &mut Hostile) {
    child.begin_well();
}

fn a_grandchild_is_left(child: &mut Hostile) {
    child.begin_well();
    if fork().is_none() {
        child.stay_until_hung_up();
    }
    exit(3);
}

/// Faster than they can be read, and for as long as anybody reads them.
fn a_grandchild_floods_the_socket(child: &mut Hostile) {
    child.begin_well();
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&child.control, 4 << 20);
    let memory = memory(4096, SIZE_SEALS);
    let segment = postcard::to_stdvec(&Says::Segment { id: 0, bytes: 4096, slots: 1 }).unwrap();
    for _ in 0..3 {
        if fork().is_none() {
            while child.send(&segment, &[memory.as_fd()]) != Err(Errno::PIPE) {}
            exit(0);
        }
    }
    child.wait_until_read();
    exit(3);
}

fn a_grandchild_floods_the_ring(child: &mut Hostile) {
    child.begin_well();
    if fork().is_none() {
        for number in 3.. {
            while child.tail() - child.head() > child.capacity() / 2 {
                if child.is_hung_up() {
                    exit(0);
                }
                std::thread::yield_now();
            }
            child.commit(number);
        }
    }
    exit(3);
}
