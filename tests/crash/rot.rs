//! Bit rot: bytes of any file of a log change while nobody looks. It is harmless, or it is named; never a wrong answer.
//!
//! Another process reads the rotten log, as nobody can say what a database does that is given broken files; if it dies,
//! that is a violation.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc,
};

use serde::{Deserialize, Serialize};

use super::{
    audit::{self, Findings},
    ledger::Ledger,
    process::{Kill, Process, Story},
    run::{Ground, Run},
    seed::Seed,
    worker::{self, Append, Guards, Message, Outbox, Work},
};
use crate::log::copy;

/// Changes in the life of one log.
const ROUNDS: u64 = 40;
/// What a disk writes at once, in bytes.
const SECTOR: usize = 512;

/// Rots copies of a log, one after the other, and audits each.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// A log as a crash leaves it, with its ledger beside it.
    log: PathBuf,
    ledger: PathBuf,
    seed: u64,
    rounds: u64,
}

pub fn run(ground: &Ground, seed: u64) -> Run {
    let (mut run, mut random) = (Run::new("rot", seed), Seed::new(seed));
    let home = ground.in_memory();
    let ledger = template(home.path(), seed, &mut random, &mut run);
    let (log, saved) = (home.path().join("image"), home.path().join("ledger"));
    fs::write(&saved, serde_json::to_vec(&ledger).unwrap()).unwrap();
    let orders = Orders { log, ledger: saved, seed: random.next(), rounds: ROUNDS };
    let process = Process::start(Work::Rot(orders), &[]);
    let mut story = process.listen(Kill::Never, &mut ledger.clone(), || false);
    if story.aborted {
        story.wrong.push(format!("I8: the process died when it read a log with {}", story.rotting));
        story.aborted = false;
    }
    run.audits += story.rotted.0 + story.rotted.1;
    run.heard(&mut story);
    if !run.wrong.is_empty() {
        run.keep(ground, &home.path().join("image"), &ledger);
    }
    run
}

/// A log with files of every kind: tables, blobs, a manifest, a write-ahead log that was not flushed.
fn template(home: &Path, seed: u64, random: &mut Seed, run: &mut Run) -> Ledger {
    let (dir, mut ledger) = (home.join("log"), Ledger::new(seed));
    audit::create(&dir).unwrap();
    // Every opening flushes what the one before left in its write-ahead log.
    for enough in [150, 300, 100] {
        let orders = Append { enough, dawdle_us: 0, callers: 8, ..Append::new(dir.clone(), &ledger, random) };
        let mut story = Story::default();
        let (sender, messages) = mpsc::channel();
        worker::append(orders, Outbox::Channel(sender));
        for message in messages {
            story.take_in(message, &mut ledger);
        }
        story.expect_no_failure();
        run.heard(&mut story);
    }
    let log = audit::open(&dir, &audit::options()).unwrap();
    let mut findings = Findings::default();
    audit::check(&log, &mut ledger, random, &mut findings);
    for _ in 0..3 {
        audit::probe(&log, &mut ledger, random, &mut findings);
    }
    copy(&dir, &home.join("image"));
    run.wrong.extend(findings.all());
    ledger
}

/// What the other process does.
pub fn work(orders: &Orders, outbox: &Outbox) {
    let ledger: Ledger = serde_json::from_slice(&fs::read(&orders.ledger).unwrap()).unwrap();
    let mut random = Seed::new(orders.seed);
    let files = files(&orders.log);
    for _ in 0..orders.rounds {
        let rotten = orders.log.with_extension("rotten");
        copy(&orders.log, &rotten);
        let (class, file) = pick(&files, &mut random);
        let what = rot(&rotten.join(file), &mut random);
        outbox.say(Message::Rotting(format!("{what} of {}", file.display())));
        outbox.say(Message::Injected(format!("rot: {class}")));
        let findings = audit::audit(&rotten, &mut ledger.clone(), &mut random, Guards::AWAY);
        outbox.say(Message::Rotted(findings.is_empty()));
        for wrong in findings.unnamed() {
            outbox.say(Message::Wrong(format!("after {what} of {}: {wrong}", file.display())));
        }
        fs::remove_dir_all(rotten).unwrap();
    }
}

/// Files with their class, by path in the log's directory.
fn files(log: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for path in walk(log) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let class = match name.rsplit_once('.') {
            Some((number, ending)) if number.bytes().all(|byte| byte.is_ascii_digit()) => ending,
            _ => name.split('-').next().unwrap(),
        };
        if fs::metadata(&path).unwrap().len() > 0 {
            found.push((class.to_owned(), path.strip_prefix(log).unwrap().to_owned()));
        }
    }
    found
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

/// A file: first its class, then one of the class.
fn pick<'a>(files: &'a [(String, PathBuf)], random: &mut Seed) -> (&'a str, &'a Path) {
    let mut classes: Vec<&str> = files.iter().map(|(class, _)| class.as_str()).collect();
    classes.sort_unstable();
    classes.dedup();
    let class = *random.pick(&classes);
    let of_class: Vec<&PathBuf> = files.iter().filter(|(found, _)| found == class).map(|(_, path)| path).collect();
    (class, of_class[random.index(of_class.len())])
}

/// Changes a file somehow, and says how.
fn rot(path: &Path, random: &mut Seed) -> String {
    let mut bytes = fs::read(path).unwrap();
    let at = random.index(bytes.len());
    let sector = at - at % SECTOR;
    let end = (sector + SECTOR).min(bytes.len());
    let what = match random.below(20) {
        0..12 => {
            bytes[at] ^= 1 << random.below(8);
            format!("a flipped bit in byte {at}")
        }
        12..15 => {
            bytes[at] = bytes[at].wrapping_add(1 + random.below(255) as u8);
            format!("another byte {at}")
        }
        15 => {
            bytes[sector..end].fill(0);
            format!("zeros from byte {sector} to {end}")
        }
        16 => {
            bytes[sector..end].copy_from_slice(&random.bytes(end - sector));
            format!("noise from byte {sector} to {end}")
        }
        17 => {
            // A write that went to the wrong place.
            let from = random.index(bytes.len()) / SECTOR * SECTOR;
            let length = (end - sector).min(bytes.len() - from);
            let misdirected = bytes[from..from + length].to_vec();
            bytes[sector..sector + length].copy_from_slice(&misdirected);
            format!("the sector at byte {from} written to {sector}")
        }
        18 => {
            bytes.truncate(at);
            format!("an end at byte {at}")
        }
        _ => {
            bytes.extend(random.bytes(at % 100 + 1));
            "noise at the end".to_owned()
        }
    };
    fs::write(path, bytes).unwrap();
    what
}
