//! Dispatchers are killed after every single instruction of what they do to send: at each of them,
//! what was committed arrives whole and once, the numbers are true, and nothing is left.

#[cfg(target_arch = "x86_64")]
mod holdings;
#[cfg(target_arch = "x86_64")]
mod in_engine;
#[cfg(target_arch = "x86_64")]
mod in_ring;
#[cfg(target_arch = "x86_64")]
#[path = "../../../ring/tests/numbered/mod.rs"]
mod numbered;
#[cfg(target_arch = "x86_64")]
mod stepping;

#[cfg(target_arch = "x86_64")]
mod trials {
    use std::time::Instant;

    use eventpy_engine::child;
    use libtest_mimic::{Arguments, Trial};

    use super::{in_engine, in_ring};
    use crate::holdings::Holdings;
    use crate::stepping::Kills;

    /// A watchdog, not a measure: after so many seconds the kernel ends this process, and with it
    /// those that it traces.
    const WATCHDOG: u32 = 300;

    type Test = (&'static str, fn() -> Kills);

    pub fn run() {
        child::run_if_dispatcher(child::Face::default(), |assignment, _| {
            in_engine::load(assignment)
        });
        in_ring::run_if_writer();
        let mut arguments = Arguments::from_args();
        // Descriptors and children are the whole process's.
        arguments.test_threads = Some(1);
        let tests: [Test; 8] = [
            ("every_instruction_of_an_emit", || in_ring::EMIT.kill_everywhere()),
            ("every_instruction_of_a_batch", || in_ring::BATCH.kill_everywhere()),
            ("every_instruction_of_a_displacement", || in_ring::DISPLACE.kill_everywhere()),
            ("a_displacement_beside_a_reader", || in_ring::DISPLACE.kill_beside_reader(1000)),
            ("every_instruction_of_an_emit_of_a_dispatcher", || in_engine::EMIT.kill_everywhere()),
            ("a_batch_of_a_dispatcher", || in_engine::BATCH.kill_at(300)),
            ("a_displacement_of_a_dispatcher", || in_engine::DISPLACE.kill_at(500)),
            ("a_large_event_of_a_dispatcher", || in_engine::LARGE.kill_at(300)),
        ];
        let can_trace = arguments.list || in_ring::can_trace();
        if !can_trace {
            eprintln!("no process can be traced here (ptrace), so nothing is killed step by step");
        }
        let trials = tests
            .into_iter()
            .map(|(name, kill)| trial(name, kill).with_ignored_flag(!can_trace))
            .collect();
        nix::unistd::alarm::set(WATCHDOG);
        libtest_mimic::run(&arguments, trials).exit();
    }

    fn trial(name: &'static str, kill: fn() -> Kills) -> Trial {
        Trial::test(name, move || {
            let (before, start) = (Holdings::now(), Instant::now());
            let Kills { kills, places } = kill();
            println!("{name}: {kills} kills at {places} places in {:.1?}", start.elapsed());
            assert_eq!(Holdings::now(), before, "something is left");
            Ok(())
        })
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod trials {
    use libtest_mimic::{Arguments, Trial};

    pub fn run() {
        eprintln!("this test knows the breakpoints of x86-64 only");
        let trial = Trial::test("every_instruction", || Ok(())).with_ignored_flag(true);
        libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
    }
}

fn main() {
    trials::run();
}
