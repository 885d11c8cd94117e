//! The engine with real processes. This program is its own dispatcher process.

mod sources;

use std::time::{Duration, Instant};

use eventpy_engine::{
    Counts, Delivery, DispatcherFailed, DispatcherOptions, DispatcherSpec, EndReport, Engine,
    Error, ErrorKind, Exit, Launch, Payload as _, Phase, Pump, Restart, Selection, Yield, child,
};
use libtest_mimic::{Arguments, Trial};

/// A watchdog, not a measure: no test comes near it on a sound engine.
const WATCHDOG: Duration = Duration::from_secs(60);

fn main() {
    child::run_if_dispatcher(child::Face::default(), |assignment, _| sources::load(assignment));
    let trials = vec![
        trial("every_record_arrives_once_and_in_order", every_record_arrives_once_and_in_order),
        trial("a_full_ring_makes_the_dispatcher_wait", a_full_ring_makes_the_dispatcher_wait),
        trial("large_events_keep_their_place", large_events_keep_their_place),
        trial(
            "an_event_beyond_the_budget_is_refused_by_name",
            an_event_beyond_the_budget_is_refused_by_name,
        ),
        trial(
            "an_error_in_update_is_told_after_its_events",
            an_error_in_update_is_told_after_its_events,
        ),
        trial("a_panic_is_a_failure_with_its_place", a_panic_is_a_failure_with_its_place),
        trial("a_failed_init_is_told_and_has_no_finish", a_failed_init_is_told_and_has_no_finish),
        trial(
            "a_killed_process_is_told_after_its_events",
            a_killed_process_is_told_after_its_events,
        ),
        trial("sigterm_runs_finish", sigterm_runs_finish),
        trial(
            "a_copy_that_a_dispatcher_forks_off_is_none",
            a_copy_that_a_dispatcher_forks_off_is_none,
        ),
        trial(
            "an_end_command_that_nobody_hears_hides_nothing",
            an_end_command_that_nobody_hears_hides_nothing,
        ),
        trial(
            "an_unknown_dispatcher_is_an_error_of_deploy",
            an_unknown_dispatcher_is_an_error_of_deploy,
        ),
        trial(
            "a_program_that_exits_is_an_error_of_deploy",
            a_program_that_exits_is_an_error_of_deploy,
        ),
        trial(
            "latest_delivers_the_newest_and_counts_the_rest",
            latest_delivers_the_newest_and_counts_the_rest,
        ),
        trial(
            "a_latest_type_does_not_keep_segments_from_finish",
            a_latest_type_does_not_keep_segments_from_finish,
        ),
        trial("drop_newest_keeps_the_first", drop_newest_keeps_the_first),
        trial("drop_oldest_keeps_the_last", drop_oldest_keeps_the_last),
        trial(
            "a_failed_dispatcher_starts_anew_until_the_limit",
            a_failed_dispatcher_starts_anew_until_the_limit,
        ),
        trial("an_update_that_hangs_is_a_failure", an_update_that_hangs_is_a_failure),
        trial(
            "an_update_that_works_too_long_between_waits_is_a_failure",
            an_update_that_works_too_long_between_waits_is_a_failure,
        ),
        trial("an_idle_pump_waits_and_sleeps", an_idle_pump_waits_and_sleeps),
        trial(
            "the_descriptor_is_readable_when_there_is_something",
            the_descriptor_is_readable_when_there_is_something,
        ),
        trial("states_are_checked", states_are_checked),
        trial("options_are_checked", options_are_checked),
        trial("many_dispatchers_end_side_by_side", many_dispatchers_end_side_by_side),
        trial("dropping_the_engine_runs_every_finish", dropping_the_engine_runs_every_finish),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

fn spec(source: &str, payload: &str) -> DispatcherSpec {
    DispatcherSpec {
        name: source.to_owned(),
        event_types: vec!["Number".to_owned(), "Text".to_owned()],
        internal_types: 0,
        payload: payload.as_bytes().to_vec(),
        launch: Launch {
            program: "/proc/self/exe".into(),
            args: vec![],
            hint: "see to its main".to_owned(),
        },
        options: DispatcherOptions::default(),
    }
}

fn with(
    mut spec: DispatcherSpec,
    set: impl FnOnce(DispatcherOptions) -> DispatcherOptions,
) -> DispatcherSpec {
    spec.options = set(spec.options);
    spec
}

fn deploy(specs: impl IntoIterator<Item = DispatcherSpec>) -> Engine {
    let mut engine = Engine::new();
    for spec in specs {
        engine.add(spec).expect("the options are in order");
    }
    engine.deploy(&Selection::All).expect("all can be loaded");
    engine
}

/// What a pump brought, in order.
#[derive(Debug, Clone, PartialEq)]
enum Event {
    Record(u16, Vec<u8>),
    Failed(DispatcherFailed),
    Restarted(u32),
    Ended,
}

fn pump(engine: &mut Engine, how: Pump, into: &mut Vec<Event>) {
    engine.begin_pump(&Selection::All, how).expect("it is deployed");
    while let Some(delivery) = engine.next_delivery() {
        into.push(match delivery {
            Yield::Record(record) => {
                let mut payload = Vec::new();
                record.read(&mut payload);
                Event::Record(record.type_id(), payload)
            }
            Yield::Failed(failed) => Event::Failed(failed),
            Yield::Restarted(restarted) => Event::Restarted(restarted.restarts),
            Yield::Ended(_) => Event::Ended,
        });
    }
}

/// Pumps until `enough`.
fn pump_until(engine: &mut Engine, mut enough: impl FnMut(&[Event]) -> bool) -> Vec<Event> {
    let start = Instant::now();
    let mut events = Vec::new();
    while !enough(&events) {
        assert!(start.elapsed() < WATCHDOG, "still waiting after {} events", events.len());
        pump(engine, Pump::Wait(Duration::from_secs(1)), &mut events);
    }
    events
}

fn end(engine: &mut Engine) -> (Vec<Event>, EndReport) {
    engine.begin_end(&Selection::All, None).expect("it is deployed");
    let mut events = Vec::new();
    while engine.is_deployed() {
        pump(engine, Pump::End, &mut events);
    }
    (events, engine.end_report())
}

fn numbers(events: &[Event]) -> Vec<u64> {
    let number = |event: &Event| match event {
        Event::Record(1, payload) => Some(u64::from_le_bytes(payload[..8].try_into().unwrap())),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

fn failure(events: &[Event]) -> DispatcherFailed {
    let failed = |event: &Event| match event {
        Event::Failed(failed) => Some(failed.clone()),
        _ => None,
    };
    events.iter().find_map(failed).expect("a failure was told")
}

fn is_over(events: &[Event]) -> bool {
    matches!(events.last(), Some(Event::Failed(_) | Event::Ended))
}

fn assert_balanced(counts: Counts) {
    assert_eq!(counts.sent, counts.delivered + counts.dropped + counts.lost, "{counts:?}");
}

fn every_record_arrives_once_and_in_order() {
    let mut engine = deploy([spec("count", "100000")]);
    let events = pump_until(&mut engine, is_over);
    assert_eq!(numbers(&events), (0..100_000).collect::<Vec<_>>());
    let (_, report) = end(&mut engine);
    assert!(report.is_clean(), "{report}");
    let counts = report.dispatchers[0].counts;
    assert_eq!(
        (counts.sent, counts.delivered, counts.lost),
        (100_001, 100_001, 0),
        "one comes from finish"
    );
}

fn a_full_ring_makes_the_dispatcher_wait() {
    let mut engine = deploy([with(spec("count", "50000"), |options| options.buffer_bytes(4096))]);
    let events = pump_until(&mut engine, is_over);
    assert_eq!(numbers(&events), (0..50_000).collect::<Vec<_>>());
    assert!(end(&mut engine).1.is_clean());
}

fn large_events_keep_their_place() {
    let sizes: Vec<usize> =
        [100, 70_000, 10, 1 << 20, 65_536, 65_537, 5, 100_000_000, 64].repeat(2);
    let payload = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut engine = deploy([spec("sizes", &payload)]);
    let events = pump_until(&mut engine, is_over);
    let arrived: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            Event::Record(2, payload) => {
                assert!(sources::is_pattern(payload), "{} bytes are damaged", payload.len());
                Some(payload.len())
            }
            _ => None,
        })
        .collect();
    assert_eq!(arrived, sizes);
    assert!(end(&mut engine).1.is_clean());
}

fn an_event_beyond_the_budget_is_refused_by_name() {
    let mut engine =
        deploy([with(spec("sizes", "2000000"), |options| options.large_bytes(1 << 20))]);
    let reason = failure(&pump_until(&mut engine, is_over)).reason;
    assert!(
        reason.contains("`Text`") && reason.contains("2000000") && reason.contains("large_bytes"),
        "{reason}"
    );
}

fn an_error_in_update_is_told_after_its_events() {
    let mut engine = deploy([spec("fail_after", "5")]);
    let events = pump_until(&mut engine, is_over);
    let failed = failure(&events);
    assert_eq!(numbers(&events).len(), 6, "five from update, one from finish");
    assert_eq!((failed.phase, failed.reason.as_str()), (Phase::Update, "no more after 5"));
    assert_eq!(failed.exit, Exit::Code(1));
    assert!(matches!(events.last(), Some(Event::Failed(_))));
    let (_, report) = end(&mut engine);
    assert!(report.dispatchers[0].finished, "finish runs after a failed update");
}

fn a_panic_is_a_failure_with_its_place() {
    let mut engine = deploy([spec("panic_after", "3")]);
    let failed = failure(&pump_until(&mut engine, is_over));
    assert_eq!(failed.reason, "it panicked: deliberately after 3");
    assert!(failed.traceback.contains("sources.rs"), "{}", failed.traceback);
    assert!(end(&mut engine).1.dispatchers[0].finished);
}

fn a_failed_init_is_told_and_has_no_finish() {
    let mut engine = deploy([spec("fail_init", "")]);
    let events = pump_until(&mut engine, is_over);
    assert_eq!((failure(&events).phase, numbers(&events)), (Phase::Init, vec![]));
    assert!(!end(&mut engine).1.dispatchers[0].finished);
}

fn a_killed_process_is_told_after_its_events() {
    let mut engine = deploy([spec("kill_itself_after", "1000")]);
    let events = pump_until(&mut engine, is_over);
    assert_eq!(numbers(&events), (0..1000).collect::<Vec<_>>());
    let failed = failure(&events);
    assert_eq!(failed.exit, Exit::Signal(9));
    assert!(failed.reason.contains("SIGKILL"), "{}", failed.reason);
    let counts = end(&mut engine).1.dispatchers[0].counts;
    assert_eq!((counts.sent, counts.delivered, counts.lost), (1000, 1000, 0));
}

fn sigterm_runs_finish() {
    let mut engine = deploy([spec("beat", "")]);
    pump_until(&mut engine, |events| !events.is_empty());
    signal(&engine, "-TERM");
    let events = pump_until(&mut engine, is_over);
    assert_eq!(events.last(), Some(&Event::Ended), "{events:?}");
    assert!(end(&mut engine).1.is_clean());
}

fn a_copy_that_a_dispatcher_forks_off_is_none() {
    let mut engine = deploy([spec("fork", "terminate end send return fail")]);
    let mut events = pump_until(&mut engine, is_over);
    assert_eq!(events.pop(), Some(Event::Ended), "{events:?}");
    let texts = events.into_iter().map(|event| match event {
        Event::Record(_, payload) => String::from_utf8(payload).expect("it is text"),
        event => panic!("{event:?}"),
    });
    let expected =
        ["terminate: signal 15", "end: exit 0", "send: exit 0", "return: exit 0", "fail: exit 1"];
    assert_eq!(texts.collect::<Vec<_>>(), expected);
    assert!(end(&mut engine).1.is_clean());
}

/// The kernel answers with an error first when the other end was closed with something unread.
fn an_end_command_that_nobody_hears_hides_nothing() {
    let mut engine = deploy([spec("send_and_stop", "200000")]);
    wait_for_state(&engine, 'T');
    engine.begin_end(&Selection::All, None).expect("it is deployed");
    signal(&engine, "-KILL");
    wait_for_state(&engine, 'Z');
    let mut events = Vec::new();
    while engine.is_deployed() {
        pump(&mut engine, Pump::End, &mut events);
    }
    let [Event::Record(2, payload), Event::Failed(_)] = &events[..] else { panic!("{events:?}") };
    assert!(sources::is_pattern(payload) && payload.len() == 200_000);
    let counts = engine.end_report().dispatchers[0].counts;
    assert_eq!((counts.sent, counts.delivered, counts.lost), (1, 1, 0));
}

/// Waits until the first dispatcher's process is in a state, as ps shows it.
fn wait_for_state(engine: &Engine, state: char) {
    let pid = engine.stats().dispatchers[0].pid.expect("it runs");
    let start = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is not reaped");
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state)) {
            return;
        }
        assert!(start.elapsed() < WATCHDOG, "{stat}");
        std::thread::yield_now();
    }
}

/// Sends a signal to the first dispatcher's process.
fn signal(engine: &Engine, signal: &str) {
    let pid = engine.stats().dispatchers[0].pid.expect("it runs");
    let status = std::process::Command::new("kill").arg(signal).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "a process of ours can be signalled");
}

fn deploy_error(spec: DispatcherSpec) -> Error {
    let mut engine = Engine::new();
    engine.add(spec).unwrap();
    let error = engine.deploy(&Selection::All).expect_err("it can't be deployed");
    assert!(!engine.is_deployed());
    error
}

fn an_unknown_dispatcher_is_an_error_of_deploy() {
    let error = deploy_error(spec("nobody_knows", ""));
    assert_eq!(error.kind(), ErrorKind::Load);
    assert!(error.to_string().contains("`nobody_knows`"), "{error}");
}

fn a_program_that_exits_is_an_error_of_deploy() {
    let mut spec = spec("count", "1");
    spec.launch.program = "/bin/false".into();
    let error = deploy_error(spec.clone());
    assert_eq!(error.kind(), ErrorKind::Start);
    assert!(
        error.to_string().contains("exit code 1") && error.to_string().contains("see to its main"),
        "{error}"
    );
    spec.launch.program = "/nonexistent/program".into();
    assert_eq!(deploy_error(spec).kind(), ErrorKind::System);
}

fn wait_for_end_of_sending(engine: &Engine, sent: u64) {
    let start = Instant::now();
    while engine.stats().dispatchers[0].counts.sent < sent {
        assert!(start.elapsed() < WATCHDOG, "{:?}", engine.stats());
        std::thread::yield_now();
    }
}

fn count_with(delivery: Delivery, count: u64) -> (Vec<u64>, Counts) {
    let options =
        |options: DispatcherOptions| options.buffer_bytes(4096).delivery_of("Number", delivery);
    let mut engine = deploy([with(spec("count_and_stay", &count.to_string()), options)]);
    wait_for_end_of_sending(&engine, count);
    let mut events = Vec::new();
    pump(&mut engine, Pump::Now, &mut events);
    let (after, report) = end(&mut engine);
    events.extend(after);
    assert_balanced(report.dispatchers[0].counts);
    (numbers(&events), report.dispatchers[0].counts)
}

fn latest_delivers_the_newest_and_counts_the_rest() {
    let (delivered, counts) = count_with(Delivery::Latest, 10_000);
    assert_eq!(delivered, [9_999]);
    assert_eq!((counts.sent, counts.delivered, counts.dropped, counts.lost), (10_000, 1, 9_999, 0));
}

fn a_latest_type_does_not_keep_segments_from_finish() {
    let options = |options: DispatcherOptions| {
        options.large_bytes(4 << 20).delivery_of("Number", Delivery::Latest)
    };
    let mut engine = deploy([with(spec("large_finish", ""), options)]);
    let (events, report) = end(&mut engine);
    let texts = events.iter().filter(|event| matches!(event, Event::Record(2, _))).count();
    assert_eq!(texts, 10);
    assert!(report.is_clean(), "{report}");
}

fn drop_newest_keeps_the_first() {
    let (delivered, counts) = count_with(Delivery::DropNewest, 10_000);
    assert_eq!(delivered, (0..delivered.len() as u64).collect::<Vec<_>>());
    assert_eq!(counts.dropped, 10_000 - delivered.len() as u64);
    assert!(delivered.len() > 100, "the ring holds more than {}", delivered.len());
}

fn drop_oldest_keeps_the_last() {
    let (delivered, counts) = count_with(Delivery::DropOldest, 10_000);
    assert_eq!(delivered, (10_000 - delivered.len() as u64..10_000).collect::<Vec<_>>());
    assert_eq!(counts.dropped, 10_000 - delivered.len() as u64);
    assert!(delivered.len() > 100, "the ring holds more than {}", delivered.len());
}

fn a_failed_dispatcher_starts_anew_until_the_limit() {
    let restart = Restart::on_failure()
        .backoff(Duration::from_millis(1), Duration::from_millis(2))
        .limit(3, WATCHDOG);
    let mut engine = deploy([with(spec("fail_after", "2"), |options| options.restart(restart))]);
    let events = pump_until(
        &mut engine,
        |events| matches!(events.last(), Some(Event::Failed(failed)) if !failed.will_restart),
    );
    let restarts: Vec<&Event> =
        events.iter().filter(|event| matches!(event, Event::Restarted(_))).collect();
    assert_eq!(restarts, [&Event::Restarted(1), &Event::Restarted(2), &Event::Restarted(3)]);
    assert_eq!(numbers(&events).len(), 4 * 3, "two updates and a finish in each of four processes");
    let report = end(&mut engine).1;
    assert_eq!((report.dispatchers[0].restarts, report.dispatchers[0].counts.sent), (3, 12));
    assert!(report.dispatchers[0].failure.as_ref().unwrap().contains("not restarted"));
}

fn an_update_that_hangs_is_a_failure() {
    let options = |options: DispatcherOptions| {
        options.update_timeout(Duration::from_millis(50)).end_timeout(Duration::from_millis(50))
    };
    let mut engine = deploy([with(spec("hang", ""), options)]);
    let failed = failure(&pump_until(&mut engine, is_over));
    assert!(failed.reason.contains("update number 1 hangs"), "{}", failed.reason);
    assert_eq!(failed.exit, Exit::Signal(9));
    assert!(!end(&mut engine).1.dispatchers[0].finished);
}

fn an_update_that_works_too_long_between_waits_is_a_failure() {
    let limit = |options: DispatcherOptions| options.update_timeout(Duration::from_millis(100));
    let mut engine = deploy([with(spec("hang_by_parts", ""), limit)]);
    let failed = failure(&pump_until(&mut engine, is_over));
    assert!(failed.reason.contains("update number 1 hangs"), "{}", failed.reason);
    assert!(end(&mut engine).1.dispatchers[0].finished);
}

fn an_idle_pump_waits_and_sleeps() {
    let mut engine = deploy([spec("idle", "")]);
    let mut events = Vec::new();
    let start = Instant::now();
    pump(&mut engine, Pump::Wait(Duration::from_millis(50)), &mut events);
    assert!(events.is_empty() && start.elapsed() >= Duration::from_millis(50));
    pump(&mut engine, Pump::Now, &mut events);
    assert!(events.is_empty());
    assert!(end(&mut engine).1.is_clean());
}

fn the_descriptor_is_readable_when_there_is_something() {
    let mut engine = deploy([spec("beat", "")]);
    let start = Instant::now();
    let mut events = Vec::new();
    while numbers(&events).len() < 20 {
        assert!(start.elapsed() < WATCHDOG, "{events:?}");
        let descriptor = engine.descriptor().expect("it is deployed");
        let mut poll =
            [rustix::event::PollFd::from_borrowed_fd(descriptor, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(
            rustix::event::poll(&mut poll, Some(&limit)),
            Ok(1),
            "nothing came, or nobody said so"
        );
        pump(&mut engine, Pump::Now, &mut events);
    }
    signal(&engine, "-KILL");
    while !is_over(&events) {
        let descriptor = engine.descriptor().expect("it is deployed");
        let mut poll =
            [rustix::event::PollFd::from_borrowed_fd(descriptor, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&limit)), Ok(1), "the death was not shown");
        pump(&mut engine, Pump::Now, &mut events);
    }
    end(&mut engine);
}

fn states_are_checked() {
    let mut engine = Engine::new();
    let kind = |result: Result<(), Error>| result.map_err(|error| error.kind());
    assert_eq!(kind(engine.deploy(&Selection::All)), Err(ErrorKind::State), "nothing to deploy");
    engine.add(spec("idle", "")).unwrap();
    assert_eq!(
        kind(engine.begin_pump(&Selection::All, Pump::Now)),
        Err(ErrorKind::State),
        "not deployed"
    );
    assert_eq!(
        kind(engine.begin_end(&Selection::All, None)),
        Err(ErrorKind::State),
        "not deployed"
    );
    engine.deploy(&Selection::All).unwrap();
    assert_eq!(kind(engine.deploy(&Selection::All)), Err(ErrorKind::State), "deployed twice");
    engine.begin_pump(&Selection::All, Pump::Now).unwrap();
    assert_eq!(kind(engine.begin_pump(&Selection::All, Pump::Now)), Err(ErrorKind::Reentrant));
    engine.stop_pump();
    end(&mut engine);
    assert_eq!(kind(engine.begin_end(&Selection::All, None)), Err(ErrorKind::State), "ended twice");
    assert_eq!(
        kind(engine.begin_pump(&Selection::All, Pump::Now)),
        Err(ErrorKind::State),
        "used after its end"
    );
    engine.deploy(&Selection::All).expect("it can be deployed again after its end");
    assert!(end(&mut engine).1.is_clean());
}

fn options_are_checked() {
    let refusal = |set: fn(DispatcherOptions) -> DispatcherOptions| {
        let error = Engine::new()
            .add(with(spec("idle", ""), set))
            .expect_err("the options are not in order");
        assert_eq!(error.kind(), ErrorKind::Options);
        error.to_string()
    };
    let message = refusal(|options| options.buffer_bytes(100_000));
    assert!(
        message.contains("`idle`") && message.contains("100000") && message.contains("131072"),
        "{message}"
    );
    assert!(refusal(|options| options.buffer_bytes(64)).contains("4096"));
    assert!(
        refusal(|options| options.delivery_of("Nothing", Delivery::Latest)).contains("`Nothing`")
    );
    assert!(refusal(|options| options.update_timeout(Duration::ZERO)).contains("update_timeout"));
}

fn many_dispatchers_end_side_by_side() {
    let mut engine = deploy((0..32).map(|_| spec("slow_finish", "200")));
    let start = Instant::now();
    let (_, report) = end(&mut engine);
    assert!(report.is_clean(), "{report}");
    assert!(
        start.elapsed() < Duration::from_millis(200) * 16,
        "one after another they take 6.4 s: {:?}",
        start.elapsed()
    );
}

fn dropping_the_engine_runs_every_finish() {
    let path = std::env::temp_dir().join(format!("eventpy-drop-{}", std::process::id()));
    let engine = deploy([spec("finish_file", path.to_str().unwrap())]);
    drop(engine);
    assert_eq!(std::fs::read_to_string(&path).expect("finish wrote the file"), "finished\n");
    std::fs::remove_file(&path).unwrap();
}
