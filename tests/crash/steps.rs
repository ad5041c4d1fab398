//! The log's own fail points: each step of a commit fails before or after it was done, or the process dies there; and
//! bits flip in the memory of a batch.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, mpsc},
};

use countersign::log::Options;

use super::{
    audit, entry,
    ledger::Ledger,
    process::{Kill, Process, Story},
    run::{Ground, Run},
    seed::Seed,
    wait_for,
    worker::{self, Append, BatchDamage, Fails, Guards, Outbox, StepFault, Work},
};

/// Faults in the life of one log.
const FAULTS: u64 = 10;

/// The steps that the log comes to: those that a test may make fail.
fn steps(ground: &Ground) -> &'static [String] {
    static STEPS: OnceLock<Vec<String>> = OnceLock::new();
    STEPS.get_or_init(|| {
        let home = ground.in_memory();
        let (dir, seen) = (home.path().join("log"), Arc::new(Mutex::new(BTreeSet::new())));
        audit::create(&dir).unwrap();
        let all = Arc::clone(&seen);
        let fault = move |step| {
            all.lock().unwrap().insert(format!("{step:?}"));
            Ok(())
        };
        let log = audit::open(&dir, &Options { fault: Some(Arc::new(fault)), ..audit::options() }).unwrap();
        wait_for(log.append(vec![entry::draft(0, 0)])).unwrap();
        drop(log);
        let steps: Vec<String> = seen.lock().unwrap().iter().cloned().collect();
        assert!(steps.len() >= 4, "a commit has steps: {steps:?}");
        steps
    })
}

/// Steps that fail, in this process; or that kill another.
pub fn run(ground: &Ground, seed: u64) -> Run {
    let (mut run, mut random) = (Run::new("steps", seed), Seed::new(seed));
    let home = ground.in_memory();
    let (dir, mut ledger) = (home.path().join("log"), Ledger::new(seed));
    audit::create(&dir).unwrap();
    let first = random.next();
    for round in 0..FAULTS {
        let steps = steps(ground);
        let step = steps[(first.wrapping_add(round) % steps.len() as u64) as usize].clone();
        let what = *random.pick(&[Fails::Once, Fails::Once, Fails::Always, Fails::Dies]);
        let fault = Some(StepFault { step, at: 1 + random.scaled(20), what });
        let orders =
            Append { fault, dawdle_us: *random.pick(&[0, 200]), ..Append::new(dir.clone(), &ledger, &mut random) };
        let mut story = if what == Fails::Dies {
            Process::start(Work::Append(orders), &[]).listen(Kill::Never, &mut ledger, || false)
        } else {
            append_here(orders, &mut ledger)
        };
        expect(&mut story, "ordered");
        run.heard(&mut story);
        let findings = run.audit(&dir, &mut ledger, &mut random);
        run.wrong.extend(findings.all());
        if !run.wrong.is_empty() {
            break;
        }
    }
    run.keep(ground, &dir, &ledger);
    run
}

/// Appends in this process.
fn append_here(orders: Append, ledger: &mut Ledger) -> Story {
    let (sender, messages) = mpsc::channel();
    worker::append(orders, Outbox::Channel(sender));
    let mut story = Story::default();
    for message in messages {
        story.take_in(message, ledger);
    }
    story
}

/// Failures are there if and only if something was injected, and name it.
fn expect(story: &mut Story, cause: &str) {
    if story.injected.is_empty() {
        return story.expect_no_failure();
    }
    let unnamed = story.failed.drain(..).find(|failure| !failure.contains(cause));
    story.wrong.extend(unnamed.map(|failure| format!("I8: an injected fault was named as {failure:?}")));
}

/// Bits that flip in the memory of a batch: it is refused before it is signed, and nothing of it is there.
pub fn memory(ground: &Ground, seed: u64, guards: Guards) -> Run {
    let (mut run, mut random) = (Run::new("memory", seed), Seed::new(seed));
    let home = ground.in_memory();
    let (dir, mut ledger) = (home.path().join("log"), Ledger::new(seed));
    audit::create(&dir).unwrap();
    for _ in 0..FAULTS {
        let damage = BatchDamage { seed: random.next(), at: 1 + random.below(6), bits: *random.pick(&[1, 1, 1, 2, 8]) };
        let orders = Append::new(dir.clone(), &ledger, &mut random);
        let orders = Append { damage: Some(damage), guards, dawdle_us: 0, enough: 40, ..orders };
        // In another process: a database that is given broken rows may do anything.
        let mut story = Process::start(Work::Append(orders), &[]).listen(Kill::Never, &mut ledger, || false);
        if story.injected.is_empty() {
            story.expect_no_failure();
        }
        if story.aborted {
            story.wrong.push("I8: broken memory killed the process".to_owned());
        }
        run.heard(&mut story);
        let findings = run.audit(&dir, &mut ledger, &mut random);
        run.wrong.extend(findings.all());
        if !run.wrong.is_empty() {
            break;
        }
    }
    run.keep(ground, &dir, &ledger);
    run
}
