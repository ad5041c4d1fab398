//! What clients were told. It is kept by the process that survives, so it needs no disk to survive the crash.

use std::collections::{BTreeMap, HashMap};

use countersign::tlog::{Checkpoint, Hash, VerifierKey};
use serde::{Deserialize, Serialize};

use super::key;

/// The origin of every log of the programme.
pub const ORIGIN: &str = "crash.example";
/// Numbers from here on are those of entries that an audit appends.
pub const PROBES: u64 = 1 << 40;

/// Every acknowledgement and every checkpoint that left a log during its whole life, over all its crashes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Ledger {
    /// What the log's entries are made from.
    pub life: u64,
    /// Acknowledged: index -> entry.
    entries: BTreeMap<u64, u64>,
    /// The same the other way round.
    indexes: HashMap<u64, u64>,
    /// Published: size -> root.
    roots: BTreeMap<u64, Hash>,
    verifier: VerifierKey,
}

impl Ledger {
    pub fn new(life: u64) -> Self {
        let verifier = VerifierKey::new(ORIGIN, key::public()).unwrap();
        Self { life, entries: BTreeMap::new(), indexes: HashMap::new(), roots: BTreeMap::new(), verifier }
    }

    /// Takes in a checkpoint that somebody saw. Returns its size.
    ///
    /// # Errors
    /// I3 broken: another root was signed for this size; or it is no checkpoint of the log.
    pub fn saw(&mut self, checkpoint: &str) -> Result<u64, String> {
        let Checkpoint { size, root, .. } = Checkpoint::verify(checkpoint, &self.verifier)
            .map_err(|source| format!("what was served as a checkpoint is none: {source}"))?;
        if *self.roots.entry(size).or_insert(root) == root {
            Ok(size)
        } else {
            Err(format!("I3: two checkpoints of size {size} with different roots were signed and shown"))
        }
    }

    /// Takes in that entries (number, index) were acknowledged under a checkpoint.
    ///
    /// # Errors
    /// I1 or I7 broken: an index was given to two entries, an entry has two indexes, or what [`Self::saw`] names.
    pub fn acknowledged(&mut self, checkpoint: &str, entries: &[(u64, u64)]) -> Result<(), String> {
        let size = self.saw(checkpoint)?;
        for (n, index) in entries {
            if *index >= size {
                return Err(format!("entry {n} was acknowledged at {index} under a checkpoint of size {size}"));
            }
            if *self.entries.entry(*index).or_insert(*n) != *n {
                return Err(format!("I1: index {index} was given to entry {n} and to another"));
            }
            if *self.indexes.entry(*n).or_insert(*index) != *index {
                return Err(format!("I7: entry {n} was acknowledged at {index} and at another index"));
            }
        }
        Ok(())
    }

    /// Acknowledged entries, as (index, number).
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        self.entries.iter().map(|(index, n)| (*index, *n))
    }

    /// The number of the entry that was acknowledged at an index.
    pub fn entry_at(&self, index: u64) -> Option<u64> {
        self.entries.get(&index).copied()
    }

    /// Published sizes and their roots.
    pub fn roots(&self) -> impl Iterator<Item = (u64, Hash)> {
        self.roots.iter().map(|(size, root)| (*size, *root))
    }

    /// The largest size that anybody was shown.
    pub fn size(&self) -> u64 {
        self.roots.last_key_value().map_or(0, |(size, _)| *size)
    }

    /// The number from which on no entry was acknowledged. What an audit appends is numbered from [`PROBES`] on.
    pub fn next(&self) -> u64 {
        self.indexes.keys().filter(|n| **n < PROBES).max().map_or(0, |n| n + 1)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of it, to be kept beside a log that did not hold it.
    pub fn text(&self) -> String {
        let entries = self.entries().map(|(index, n)| format!("{index} entry {n}\n")).collect::<String>();
        let roots = self.roots().map(|(size, root)| format!("{size} root {}\n", hex::encode(root))).collect::<String>();
        format!("life {:#x}\n{entries}{roots}", self.life)
    }
}

/// A ledger on its way to another process.
#[derive(Serialize, Deserialize)]
struct Saved {
    life: u64,
    entries: Vec<(u64, u64)>,
    roots: Vec<(u64, Hash)>,
}

impl From<Saved> for Ledger {
    fn from(saved: Saved) -> Self {
        let mut ledger = Self::new(saved.life);
        ledger.indexes = saved.entries.iter().map(|(index, n)| (*n, *index)).collect();
        ledger.entries = saved.entries.into_iter().collect();
        ledger.roots = saved.roots.into_iter().collect();
        ledger
    }
}

impl From<Ledger> for Saved {
    fn from(ledger: Ledger) -> Self {
        Self { life: ledger.life, entries: ledger.entries().collect(), roots: ledger.roots().collect() }
    }
}
