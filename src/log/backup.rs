//! Backup, restore and erasure.
//!
//! A backup is made while the log goes on. It does not open as a log: the log may go on after the backup was made, and
//! writing on from the backup would then sign another history under the same key. [`restore`] makes a log of it, once it
//! was told how the copy catches up: by the newest checkpoint that anybody holds, or by a newer copy or mirror that has
//! the missing entries. Only the caller can know that there is nothing newer, and has to say so.

use std::path::Path;

use super::{Draft, Entry, Head, Log, LogError, Options, opening, sequencer::add_to_tiles, views};
use crate::{
    store::{self, Batch, NewEntry, Store, Tail, anchor::Anchor},
    tlog::{Checkpoint, Delta, Hash, VerifierKey, leaf_hash, root_of},
};

/// Entries asked for at once while catching up.
const STRIDE: u64 = 256;

/// Where a copy finds what it misses.
pub trait Source {
    /// The newest signed checkpoint there.
    fn checkpoint(&mut self) -> Result<String, LogError>;

    /// `count` entries from index `from` on, in order.
    fn entries(&mut self, from: u64, count: u64) -> Result<Vec<Draft>, LogError>;
}

/// How a copy learns that nothing is missing, or gets it.
pub enum CatchUp<'a> {
    /// The newest signed checkpoint that is known anywhere: of a witness, a mirror, a client.
    Checkpoint(&'a str),
    /// A newer copy or a mirror.
    Source(&'a mut dyn Source),
    /// The caller says that nothing was recorded after the copy was made. If that is wrong, the log forks.
    NothingNewerUnsafe,
}

impl std::fmt::Debug for CatchUp<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Checkpoint(_) => "Checkpoint",
            Self::Source(_) => "Source",
            Self::NothingNewerUnsafe => "NothingNewerUnsafe",
        })
    }
}

/// What a restored log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its head.
    pub head: Head,
    /// How many entries it caught up with.
    pub added: u64,
}

impl Log {
    /// Copies the log as it is published now into the new directory `to`, and opens the copy to see that it is whole.
    /// Blocks for as long as the disk takes; the log goes on meanwhile.
    pub fn backup(&self, to: &Path) -> Result<Head, LogError> {
        let head = self.head();
        self.0.shared.store.backup(to, head.size, head.root)?;
        let (store, anchor) = Store::open_read_only(to)?;
        let (copied, _) = opening::recover(&store, &self.0.key, Some(&anchor))?;
        Ok(copied.head)
    }

    /// Erases the payload of the entry at `index`, from every file; its leaf and all proofs stay. Blocks.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::NoPayload`].
    pub fn erase(&self, index: u64) -> Result<(), LogError> {
        let Entry { leaf, payload, .. } = self.entry(index)?;
        let payload = payload.ok_or(LogError::NoPayload(index))?;
        self.check_writable()?;
        Ok(self.0.shared.store.erase(index, &views::rows_of_payload(&leaf, &payload))?)
    }
}

/// Makes the copy in `dir` the log: from now on it opens there. The log's service must not run, here or elsewhere.
///
/// # Errors
/// [`LogError::Behind`] where entries are missing, [`LogError::Forked`] where the copy has another history.
pub fn restore(dir: &Path, catch_up: CatchUp<'_>) -> Result<Restored, LogError> {
    let (store, mut anchor) = Store::open_copy_unsafe(dir, Options::default().room, Tail::Whole)?;
    let key = opening::key_of(&store)?;
    let (snapshot, frontier) = opening::recover_head(&store, &key, Some(&anchor))?;
    let mine = snapshot.head.clone();
    // What an earlier attempt left behind the head.
    store.drop_unsigned(mine.size, leaf_hash, views::rows)?;
    let restored = match catch_up {
        CatchUp::NothingNewerUnsafe => Restored { head: mine, added: 0 },
        CatchUp::Checkpoint(note) => {
            let newest = Checkpoint::verify(note, &key)?;
            if newest.size > mine.size {
                return Err(LogError::Behind { size: mine.size, newest: newest.size });
            }
            if root_of(newest.size, &snapshot.reader(&store))? != newest.root {
                return Err(LogError::Forked(newest.size));
            }
            Restored { head: mine, added: 0 }
        }
        CatchUp::Source(source) => {
            let copy = Copy { store: &store, key: &key, partial: snapshot.partial.clone(), frontier, size: mine.size };
            copy.catch_up(mine, source)?
        }
    };
    opening::check_last_leaf(&store, restored.head.size)?;
    settle(&mut anchor, &restored.head)?;
    Ok(restored)
}

fn settle(anchor: &mut Anchor, head: &Head) -> Result<(), LogError> {
    Ok(anchor.settle(head.size, head.root).map_err(store::StoreError::from)?)
}

/// A copy that grows to what its source has.
struct Copy<'a> {
    store: &'a Store,
    key: &'a VerifierKey,
    partial: Vec<Vec<Hash>>,
    frontier: Vec<Hash>,
    size: u64,
}

impl Copy<'_> {
    /// Adds the source's entries beyond ours. Leaves are written first and the head last, when the root is the one that
    /// the source's checkpoint signs: a crash before leaves a copy that can be restored again.
    fn catch_up(mut self, mine: Head, source: &mut dyn Source) -> Result<Restored, LogError> {
        let note = source.checkpoint()?;
        let newest = Checkpoint::verify(&note, self.key)?;
        if newest.size < mine.size {
            return Err(LogError::Behind { size: newest.size, newest: mine.size });
        }
        let mut root = mine.root;
        while self.size < newest.size {
            let count = STRIDE.min(newest.size - self.size);
            let entries = source.entries(self.size, count)?;
            if u64::try_from(entries.len()).unwrap_or(0) != count {
                return Err(LogError::Invalid(format!("the source has no {count} entries from {} on", self.size)));
            }
            root = self.add(&entries)?;
        }
        if root != newest.root {
            return Err(LogError::Forked(newest.size));
        }
        let mut batch = Batch::default();
        self.store.put_meta(&mut batch, "head", note.as_bytes())?;
        self.store.commit(batch)?;
        let head = Head { size: newest.size, root, checkpoint: note.into() };
        Ok(Restored { added: head.size - mine.size, head })
    }

    fn add(&mut self, entries: &[Draft]) -> Result<Hash, LogError> {
        let mut batch = Batch::default();
        let hashes: Vec<Hash> = entries.iter().map(|entry| leaf_hash(&entry.leaf)).collect();
        for ((entry, hash), index) in entries.iter().zip(&hashes).zip(self.size..) {
            let Draft { leaf, payload } = entry;
            let rows = views::rows(leaf, Some(payload));
            let new = NewEntry { leaf, hash, payload, payload_sum: store::sum(payload), rows: &rows };
            self.store.put_entry(&mut batch, index, &new)?;
        }
        let delta = Delta::append(self.size, &self.frontier, &hashes)
            .ok_or_else(|| LogError::Damaged("the tree's frontier does not fit its size".to_owned()))?;
        let store = self.store;
        add_to_tiles(&mut self.partial, &delta, |level, index, hashes| {
            Ok(store.put_tile(&mut batch, level, index, hashes)?)
        })?;
        store.commit(batch)?;
        (self.frontier, self.size) = (delta.frontier(), delta.edge().size());
        Ok(delta.edge().root())
    }
}

/// Another directory with a copy of the same log, which no process has open.
#[derive(Debug)]
pub struct Directory(Store);

impl Directory {
    /// Opens the copy in `dir` to read from it.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        Ok(Self(Store::open_read_only(dir)?.0))
    }
}

impl Source for Directory {
    fn checkpoint(&mut self) -> Result<String, LogError> {
        Ok(opening::head_of(&self.0, &opening::key_of(&self.0)?)?.checkpoint.to_string())
    }

    fn entries(&mut self, from: u64, count: u64) -> Result<Vec<Draft>, LogError> {
        let leaves = self.0.leaves(from, usize::try_from(count).unwrap_or(usize::MAX))?;
        let with_payload = |(leaf, index)| Ok(Draft { leaf, payload: self.0.payload(index)?.unwrap_or_default() });
        leaves.into_iter().zip(from..).map(with_payload).collect()
    }
}
