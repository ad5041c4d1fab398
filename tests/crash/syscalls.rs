//! System calls that fail, or at which the process is killed, by `strace`.
//!
//! Counts are by thread, so that the Nth sync of the thread that writes the anchor fails as well as that of the thread
//! that writes batches.

use std::{fs, path::Path, process::Command};

use super::{
    ledger::Ledger,
    process::{Kill, Process},
    run::{Ground, Run},
    seed::Seed,
    worker::{Append, Guards, Work},
};

/// Processes in the life of one log.
const ROUNDS: u64 = 5;

/// A kind of system call, how it can fail, and from which number on: the first opens are those of the program's loader,
/// the first write is that of the test harness.
struct Call {
    calls: &'static str,
    errors: &'static [&'static str],
    first: u64,
    spread: u64,
}

const CALLS: [Call; 9] = [
    Call { calls: "write", errors: &["EIO", "ENOSPC"], first: 2, spread: 150 },
    Call { calls: "pwrite64", errors: &["EIO", "ENOSPC"], first: 1, spread: 60 },
    Call { calls: "fdatasync", errors: &["EIO", "ENOSPC"], first: 1, spread: 80 },
    Call { calls: "fsync", errors: &["EIO", "ENOSPC"], first: 1, spread: 20 },
    Call { calls: "?rename,?renameat,?renameat2", errors: &["EIO", "ENOSPC"], first: 1, spread: 6 },
    Call { calls: "ftruncate", errors: &["EIO"], first: 1, spread: 12 },
    Call { calls: "fallocate", errors: &["EIO", "ENOSPC"], first: 1, spread: 20 },
    Call { calls: "?unlink,unlinkat", errors: &["EIO"], first: 1, spread: 12 },
    Call { calls: "openat", errors: &["EMFILE", "EIO"], first: 24, spread: 60 },
];

/// Whether system calls can be tampered with here.
pub fn probe() -> Result<(), String> {
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("strace does not work: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("strace is not there: {error}")),
    }
}

pub fn run(ground: &Ground, seed: u64) -> Run {
    let (mut run, mut random) = (Run::new("syscalls", seed), Seed::new(seed));
    let home = ground.in_memory();
    let (dir, mut ledger, trace) = (home.path().join("log"), Ledger::new(seed), home.path().join("trace"));
    for round in 0..ROUNDS {
        let call = random.pick(&CALLS);
        let fails = if random.chance(65) { Some(*random.pick(call.errors)) } else { None };
        let for_good = fails.is_some() && random.chance(30);
        let at = call.first + random.scaled(call.spread);
        let tracer = tracer(&trace, call, fails, at, for_good);
        let orders = Append {
            create: round == 0,
            enough: 20 + random.scaled(150),
            ..Append::new(dir.clone(), &ledger, &mut random)
        };
        let mut story = Process::start(Work::Append(orders), &tracer).listen(Kill::Never, &mut ledger, || false);
        let injected = fails.map_or(0, |error| record(&mut run, &trace, error));
        if injected == 0 && !story.killed {
            story.expect_no_failure();
        }
        run.heard(&mut story);
        if round == 0 {
            run.settle(&dir, &ledger, Guards::ON);
        }
        let findings = run.audit(&dir, &mut ledger, &mut random);
        run.wrong.extend(findings.all());
        if !run.wrong.is_empty() {
            run.wrong.push(format!("(with {} {fails:?} at {at}, for good: {for_good})", call.calls));
            break;
        }
    }
    run.keep(ground, &dir, &ledger);
    run
}

fn tracer(trace: &Path, call: &Call, fails: Option<&str>, at: u64, for_good: bool) -> Vec<String> {
    let what = fails.map_or_else(|| "signal=SIGKILL".to_owned(), |error| format!("error={error}"));
    let inject = format!("inject={}:{what}:when={at}{}", call.calls, if for_good { "+" } else { "" });
    let mut words = vec!["strace", "-f", "-qq"];
    if fails.is_some() {
        // Far faster; but signals are not delivered with it.
        words.push("--seccomp-bpf");
    }
    let calls = format!("trace={}", call.calls);
    words.extend(["-o", trace.to_str().unwrap(), "-e", "signal=none", "-e", &calls, "-e", &inject]);
    words.into_iter().map(str::to_owned).collect()
}

/// Counts what was injected, by call and error.
fn record(run: &mut Run, trace: &Path, error: &str) -> u64 {
    let mut count = 0;
    for line in fs::read_to_string(trace).unwrap_or_default().lines().filter(|line| line.ends_with("(INJECTED)")) {
        // `<thread> call(arguments) = -1 EIO (Input/output error) (INJECTED)`, or `<thread> <... call resumed>)`.
        let words = line.split_whitespace().skip(1).find(|word| word.starts_with(|c: char| c.is_ascii_lowercase()));
        let call = words.map_or("?", |word| word.split('(').next().unwrap());
        run.injected(format!("{call} {error}"));
        count += 1;
    }
    count
}
