//! The crash programme: nothing acknowledged is ever lost or unsaid, whatever happens to the process, the system calls,
//! the disk and the memory. `scripts/crash` runs it for as long as one likes; the tests here are its short form.
//!
//! | part | what happens | and then |
//! |---|---|---|
//! | `kill` | `kill -9` at random microseconds | the log opens and holds what its clients were told |
//! | `steps` | a step of a commit fails, done or not, or the process dies there | the same; nothing more was written |
//! | `memory` | bits of a batch flip before it is signed | it is refused, and nothing of it is there |
//! | `syscalls` | the Nth write, sync, rename ... fails, or kills | the same as for `steps` |
//! | `power` | power cuts on a disk that keeps any part of what was not synced; syncs that fail | the log opens and holds |
//! | `lies` | the same, where the disk lies about syncs of the database | what is lost is named |
//! | `rot` | bytes of any file change | harmless or named, never a wrong answer |
//!
//! Clients keep a [`ledger`] of all they are told; [`audit`] holds the log against it. A run follows from its seed, as
//! far as timing allows: `scripts/crash --part kill --seed 0x1 --runs 1` repeats one.

mod audit;
mod controls;
mod disk;
mod entry;
mod key;
mod kill;
mod ledger;
mod mount;
mod power;
mod process;
mod programme;
mod rot;
mod run;
mod seed;
mod signing;
mod steps;
mod syscalls;
mod worker;

use std::{env, path::Path, sync::OnceLock, time::Duration, time::Instant};

use disk::Lies;
use run::{Ground, Run};
use worker::Guards;

/// So long each part runs in its short form.
const SHORT: Duration = Duration::from_secs(4);

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| Ground::new(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash")))
}

/// Blocks until it is done. The programme's own threads are not asynchronous.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Runtime::new().unwrap()).block_on(future)
}

/// Whether a part can run here; where `scripts/test` installed what it needs, it must.
fn can_run(probe: Result<(), String>, required: bool) -> bool {
    let Err(why) = probe else { return true };
    assert!(!required, "{why}");
    println!("skipped: {why}");
    false
}

/// Runs a part with seeds 1, 2, 3 and so on, for a short time, at least twice.
fn run_shortly(run: impl Fn(&Ground, u64) -> Run) {
    let started = Instant::now();
    for seed in 1.. {
        let run = run(ground(), seed);
        println!("{}", run.line());
        assert!(run.wrong.is_empty(), "{:#?}", run.wrong);
        if seed >= 2 && started.elapsed() > SHORT {
            break;
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    run_shortly(kill::run);
}

#[test]
fn what_was_acknowledged_survives_failing_steps() {
    run_shortly(steps::run);
}

#[test]
fn nothing_wrong_is_signed_when_memory_breaks() {
    run_shortly(|ground, seed| steps::memory(ground, seed, Guards::ON));
}

#[test]
fn what_was_acknowledged_survives_failing_system_calls() {
    if can_run(syscalls::probe(), env::var_os("CI_REQUIRE_STRACE").is_some()) {
        run_shortly(syscalls::run);
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    if can_run(power::probe(), false) {
        run_shortly(|ground, seed| power::run(ground, seed, Guards::AWAY));
    }
}

#[test]
fn what_a_lying_disk_lost_is_named() {
    if can_run(power::probe(), false) {
        run_shortly(|ground, seed| power::lying(ground, seed, Lies::Database, Guards::AWAY));
    }
}

#[test]
fn rotten_files_are_harmless_or_named() {
    run_shortly(rot::run);
}

#[test]
fn without_its_guards_the_log_fails_these_tests() {
    for control in controls::CONTROLS {
        if !control.needs_mount || can_run(power::probe(), false) {
            let (after, run) = control.turn_red(ground(), 1).unwrap_or_else(|| panic!("{} and is green", control.name));
            println!("{}: red after {after:?}: {}", control.name, run.line());
        }
    }
}

/// Not a test: the process that is killed, see [`worker`].
#[test]
#[ignore = "started by the crash programme"]
fn worker_process() {
    if let Ok(orders) = env::var(worker::ORDERS) {
        worker::main(&orders);
    }
}

/// Not a test: the whole programme, see [`programme`].
#[test]
#[ignore = "run by scripts/crash"]
fn whole_programme() {
    if env::var_os("COUNTERSIGN_CRASH_HOME").is_some() {
        programme::main();
    }
}
