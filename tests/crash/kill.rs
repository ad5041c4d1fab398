//! `kill -9` at random microseconds: while the log is made, opened, appended to, closed; again and again.

use super::{
    ledger::Ledger,
    process::{Kill, Process},
    run::{Ground, Run},
    seed::Seed,
    worker::{Append, Guards, Work},
};

/// Kills in the life of one log.
const KILLS: u64 = 8;

pub fn run(ground: &Ground, seed: u64) -> Run {
    let (mut run, mut random) = (Run::new("kill", seed), Seed::new(seed));
    let home = ground.place(&mut random);
    let (dir, mut ledger) = (home.path().join("log"), Ledger::new(seed));
    for round in 0..KILLS {
        let create = round == 0;
        let orders = Append { create, enough: u64::MAX, ..Append::new(dir.clone(), &ledger, &mut random) };
        let (orders, kill) = draw(orders, &mut random);
        let mut story = Process::start(Work::Append(orders), &[]).listen(kill, &mut ledger, || false);
        story.expect_no_failure();
        run.heard(&mut story);
        if create {
            run.settle(&dir, &ledger, Guards::ON);
        }
        let findings = run.audit(&dir, &mut ledger, &mut random);
        run.wrong.extend(findings.all());
        if !run.wrong.is_empty() {
            break;
        }
    }
    run.keep(ground, &dir, &ledger);
    run
}

/// A moment to kill at.
fn draw(orders: Append, random: &mut Seed) -> (Append, Kill) {
    let enough = 1 + random.scaled(300);
    match random.below(10) {
        0..3 => (orders, Kill::Opening(random.scaled(100_000))),
        3..8 => (orders, Kill::Acknowledged(enough, random.scaled(8_000))),
        _ => (Append { enough, ..orders }, Kill::Closing(random.scaled(8_000))),
    }
}
