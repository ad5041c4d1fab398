//! One run of one part: where it works, and what it came to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use countersign::log::Options;
use serde::Serialize;
use tempfile::TempDir;

use super::{
    audit::{self, Findings},
    ledger::Ledger,
    process::{Phase, Story},
    seed::Seed,
    worker::Guards,
};
use crate::log::copy;

/// Where runs make their logs.
#[derive(Debug)]
pub struct Ground {
    /// On a real disk.
    disk: PathBuf,
    /// In memory, where that is: a killed process leaves the same files there, and far more rounds fit into a minute.
    memory: Option<PathBuf>,
    /// What a run with violations leaves is copied here.
    kept: PathBuf,
}

impl Ground {
    pub fn new(home: &Path) -> Self {
        let disk = home.join("work");
        fs::create_dir_all(&disk).unwrap();
        let memory = PathBuf::from("/dev/shm");
        let has_room = rustix::fs::statvfs(&memory).is_ok_and(|found| found.f_bavail * found.f_frsize > 1 << 30);
        Self { disk, memory: has_room.then_some(memory), kept: home.join("kept") }
    }

    /// A new directory: on the disk in a quarter of the cases, in memory otherwise.
    pub fn place(&self, seed: &mut Seed) -> TempDir {
        if seed.chance(25) { self.on_disk() } else { self.in_memory() }
    }

    fn on_disk(&self) -> TempDir {
        tempfile::Builder::new().prefix("crash").tempdir_in(&self.disk).unwrap()
    }

    pub fn in_memory(&self) -> TempDir {
        tempfile::Builder::new().prefix("crash").tempdir_in(self.memory.as_ref().unwrap_or(&self.disk)).unwrap()
    }
}

/// What a run came to.
#[derive(Debug, Serialize)]
pub struct Run {
    pub part: &'static str,
    pub seed: u64,
    /// Kills by what they interrupted.
    pub kills: BTreeMap<String, u64>,
    /// Injected faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// Entries that were acknowledged.
    pub acknowledged: u64,
    /// Audits of a log against its ledger.
    pub audits: u64,
    /// Violations.
    pub wrong: Vec<String>,
}

impl Run {
    pub const fn new(part: &'static str, seed: u64) -> Self {
        Self {
            part,
            seed,
            kills: BTreeMap::new(),
            faults: BTreeMap::new(),
            acknowledged: 0,
            audits: 0,
            wrong: Vec::new(),
        }
    }

    pub fn killed(&mut self, what: impl Into<String>) {
        *self.kills.entry(what.into()).or_default() += 1;
    }

    pub fn injected(&mut self, what: impl Into<String>) {
        *self.faults.entry(what.into()).or_default() += 1;
    }

    /// Takes over what a process told, and how it ended.
    pub fn heard(&mut self, story: &mut Story) {
        if story.killed || story.aborted {
            let during = match story.phase {
                Phase::Starting | Phase::Opening => "while opening",
                Phase::Open => "while appending",
                Phase::Closing => "while closing",
                Phase::Closed => "after closing",
            };
            self.killed(during);
        }
        for what in story.injected.drain(..) {
            self.injected(what);
        }
        self.acknowledged += story.acknowledged;
        self.wrong.append(&mut story.wrong);
    }

    /// Audits a log after a crash: in place, or a copy of it, so that the next process finds it as the crash left it.
    pub fn audit(&mut self, dir: &Path, ledger: &mut Ledger, seed: &mut Seed) -> Findings {
        self.audit_with(dir, ledger, seed, Guards::ON)
    }

    /// As [`Self::audit`], of a log that runs without some guards.
    pub fn audit_with(&mut self, dir: &Path, ledger: &mut Ledger, seed: &mut Seed, guards: Guards) -> Findings {
        self.audits += 1;
        if seed.chance(40) {
            return audit::audit(dir, ledger, seed, guards);
        }
        let aside = dir.with_extension("copy");
        copy(dir, &aside);
        let findings = audit::audit(&aside, &mut ledger.clone(), seed, Guards { home: false, ..guards });
        fs::remove_dir_all(aside).unwrap();
        findings
    }

    /// Goes on where making the log was interrupted: either there is a whole log, or none and it is said so.
    pub fn settle(&mut self, dir: &Path, ledger: &Ledger, guards: Guards) {
        let options = Options { skips: guards.skips(), ..audit::options() };
        let refused = match audit::open(dir, &options) {
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        let is_named = ["there is no log in", "is a half-made log"].iter().any(|text| refused.contains(text));
        if !is_named || ledger.size() > 0 {
            return self.wrong.push(format!("I8: after making a log was interrupted: {refused}"));
        }
        for left in [dir.to_owned(), dir.with_extension("making")] {
            if left.exists() {
                fs::remove_dir_all(left).unwrap();
            }
        }
        audit::create(dir).unwrap();
    }

    /// Keeps a log and its ledger as evidence, if there is something to show.
    pub fn keep(&self, ground: &Ground, dir: &Path, ledger: &Ledger) {
        if !self.wrong.is_empty() && dir.exists() {
            let kept = ground.kept.join(format!("{}-{:#x}", self.part, self.seed));
            copy(dir, &kept);
            fs::write(kept.with_extension("ledger"), ledger.text()).unwrap();
        }
    }

    /// Seed and verdict, in one line.
    pub fn line(&self) -> String {
        let Self { part, seed, acknowledged, audits, .. } = self;
        let (kills, faults) = (self.kills.values().sum::<u64>(), self.faults.values().sum::<u64>());
        let verdict =
            if self.wrong.is_empty() { "sound".to_owned() } else { format!("VIOLATED: {}", self.wrong.join("; ")) };
        format!(
            "{part:9} seed {seed:#018x}: {kills} kills, {faults} faults, {acknowledged} acknowledged, {audits} audits: {verdict}"
        )
    }
}
