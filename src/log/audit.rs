//! The audit, `countersign log fsck`: recomputes everything from leaf bytes to root, and compares.
//!
//! It reads every leaf once, in order; memory does not grow with the log. Views are compared by count and by a sum over
//! the hashes of their rows, which does not depend on their order.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Log, LogError, facts, opening, sequencer::add_to_tiles, snapshot::Head, views};
use crate::{
    store::{
        Store,
        anchor::Anchor,
        views::{row_index, row_key},
    },
    tlog::{Delta, EMPTY_ROOT, Hash, VerifierKey, leaf_hash},
};

/// Leaves hashed between two calls of the progress callback.
const STRIDE: u64 = 256;
/// Findings that are kept; more add nothing.
const MOST_FINDINGS: usize = 100;

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The log's origin.
    pub origin: String,
    /// The audited size.
    pub size: u64,
    /// The root, recomputed from leaf bytes.
    pub root: String,
    /// Payloads that are there.
    pub payloads: u64,
    /// Rows of the views, rebuilt.
    pub rows: u64,
    /// Everything that is not as it must be, one sentence each; empty when the log is sound.
    pub findings: Vec<String>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Audits a log that no process has open. `progress` gets entries done and entries in all.
pub fn fsck(dir: &Path, progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
    let (store, anchor) = Store::open_read_only(dir)?;
    let key = opening::key_of(&store)?;
    let head = opening::head_of(&store, &key)?;
    let mut audit = Audit::new(&store, &key, head);
    // The same check that opening makes: it holds the right edge against head and anchor.
    if let Err(error) = opening::recover(&store, &key, Some(&anchor)) {
        audit.find(error.to_string());
    }
    if let Err(problem) = store.verify_checksums() {
        audit.find(format!("the database's files: {problem}"));
    }
    audit.run(Some(&anchor), progress)
}

/// Audits an open log up to its published size.
pub(super) fn fsck_open(log: &Log, progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
    let (store, key) = (&log.0.shared.store, &log.0.key);
    let head = log.head();
    let mut audit = Audit::new(store, key, head);
    if let Err(error) = crate::tlog::Checkpoint::verify(&audit.head.checkpoint, key) {
        audit.find(error.to_string());
    }
    audit.run(None, progress)
}

/// A sum over rows that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct RowSum(u64, u128);

impl RowSum {
    fn add(&mut self, row: &[u8]) {
        let digest = Sha256::digest(row);
        let part = digest.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        (self.0, self.1) = (self.0 + 1, self.1.wrapping_add(part));
    }
}

struct Audit<'a> {
    store: &'a Store,
    head: Head,
    report: Report,
    rows: RowSum,
    frontier: Vec<Hash>,
    partial: Vec<Vec<Hash>>,
    root: Hash,
}

impl<'a> Audit<'a> {
    fn new(store: &'a Store, key: &VerifierKey, head: Head) -> Self {
        let report = Report {
            origin: key.name().to_owned(),
            size: head.size,
            root: String::new(),
            payloads: 0,
            rows: 0,
            findings: Vec::new(),
        };
        let (rows, frontier, partial) = (RowSum::default(), Vec::new(), Vec::new());
        Self { store, head, report, rows, frontier, partial, root: EMPTY_ROOT }
    }

    fn find(&mut self, finding: String) {
        if self.report.findings.len() < MOST_FINDINGS && !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }

    fn run(mut self, anchor: Option<&Anchor>, mut progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
        let (size, mut at) = (self.head.size, 0);
        while at < size {
            // A stride ends where the anchor stands, so that its root can be compared.
            let stop = anchor.map(Anchor::size).filter(|stop| *stop > at).unwrap_or(size);
            let count = STRIDE.min(size - at).min(stop - at);
            let done = self.stride(at, count)?;
            if done < count {
                self.find(format!("leaf {} is missing", at + done));
                break;
            }
            at += count;
            if anchor.is_some_and(|anchor| anchor.size() == at && *anchor.root() != self.root) {
                self.find(format!("the anchor has another root at size {at}"));
            }
            progress(at, size);
        }
        self.finish(at)
    }

    /// Hashes `count` leaves and compares what was stored with them. Returns how many there are.
    fn stride(&mut self, from: u64, count: u64) -> Result<u64, LogError> {
        let leaves = self.store.leaves(from, usize::try_from(count).unwrap_or(usize::MAX))?;
        let mut hashes = Vec::with_capacity(leaves.len());
        for (leaf, index) in leaves.iter().zip(from..) {
            let hash = leaf_hash(leaf);
            hashes.push(hash);
            let place = self.store.place(&hash)?;
            if place.is_none_or(|(found, _)| found != index) {
                self.find(format!("leaf {index} is not found by its hash"));
            }
            self.payload(leaf, index, place.is_some_and(|(_, has_payload)| has_payload))?;
        }
        let Some(delta) = Delta::append(from, &self.frontier, &hashes) else {
            return Err(LogError::Damaged("the tree's frontier does not fit its size".to_owned()));
        };
        let (store, mut wrong) = (self.store, Vec::new());
        add_to_tiles(&mut self.partial, &delta, |level, index, hashes| {
            if store.tile(level, index)?.as_deref() != Some(hashes) {
                wrong.push(format!("tile {level}/{index} is not what its leaves give"));
            }
            Ok(())
        })?;
        for finding in wrong {
            self.find(finding);
        }
        self.frontier = delta.frontier();
        self.root = delta.edge().root();
        Ok(u64::try_from(hashes.len()).unwrap_or(count))
    }

    /// Checks that a payload is there if one was given and not erased, that the leaf speaks of it, and folds its views.
    fn payload(&mut self, leaf: &[u8], index: u64, given: bool) -> Result<(), LogError> {
        let payload = self.store.payload(index)?;
        for row in views::rows(leaf, payload.as_deref()) {
            self.rows.add(&row_key(&row, index));
        }
        let Some(payload) = payload else {
            if given && !self.store.is_erased(index)? {
                self.find(format!("the payload of entry {index} is missing"));
            }
            return Ok(());
        };
        self.report.payloads += 1;
        if let Some(recorded) = facts::recorded_digest(leaf)
            && facts::signed_digest(&payload).is_some_and(|signed| signed != recorded)
        {
            self.find(format!("the payload of entry {index} is not the one that its leaf records"));
        }
        Ok(())
    }

    fn finish(mut self, at: u64) -> Result<Report, LogError> {
        if let Some(problem) = views::problem(self.store)? {
            self.find(problem);
        }
        if at == self.head.size && self.root != self.head.root {
            self.find("the leaves give another root than the signed checkpoint".to_owned());
        }
        let mut stored = RowSum::default();
        self.store.each_row(|row| {
            // Rows of a batch that is committed and not published yet are not audited.
            if row_index(row).is_none_or(|index| index < self.head.size) {
                stored.add(row);
            }
        })?;
        if stored != self.rows {
            self.find(format!("views hold {} rows that are not the {} rebuilt from payloads", stored.0, self.rows.0));
        }
        if self.store.dedup_rows()? < self.head.size {
            self.find("the table of leaf hashes has fewer rows than the log".to_owned());
        }
        self.report.rows = self.rows.0;
        self.report.root = hex::encode(self.root);
        Ok(self.report)
    }
}
