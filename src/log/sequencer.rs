//! The sequencer: one thread that owns the tree, and one that owns the anchor.
//!
//! What a batch goes through, and what a crash after each step means:
//!
//! 1. The sequencer drains the queue. Crash: nobody was answered, nothing is there.
//! 2. It finds duplicates, gives out indexes, builds the batch and computes the new nodes. Then it hashes every leaf
//!    again from the finished batch, the very bytes about to be stored. A hash that differs means broken memory: the log
//!    stops before anything is signed.
//! 3. It signs the checkpoint. Nobody sees it yet, so another one of the same size after a crash is harmless.
//! 4. It writes one synced batch: leaves, tiles, payloads, views, head. Crash: the batch is there or not, whole; nobody
//!    was answered either way.
//! 5. The publisher writes and syncs the anchor, while the sequencer is at the next batch already. Crash before: the
//!    database is ahead of the anchor, which opening accepts (see `store::anchor`).
//! 6. The publisher makes the head visible and answers. From here on the batch may never be missing.
//!
//! After a step failed the log is *broken*: nothing more is written, every append is refused, reads go on with the last
//! published head. Opening anew decides from what is on disk.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

use tokio::sync::oneshot;

use super::{
    LogError, Shared,
    queue::Request,
    snapshot::{Head, Snapshot},
};
use crate::{
    store::{Batch, NewEntry, Store, anchor::Anchor},
    tlog::{
        Checkpoint, Delta, Hash, VerifierKey, leaf_hash,
        tile::{HEIGHT, WIDTH},
    },
};

/// Where a test may make the log fail. Each step is named by what has *not* been done yet when the fault is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Before the batch is written: failed, and did not persist.
    Commit,
    /// After the batch was written: failed, and persisted.
    Committed,
    /// Before the anchor is written.
    Anchor,
    /// After the anchor was written, before anybody is answered.
    Anchored,
}

/// A test's say over whether a step fails; never set in production.
pub type Fault = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// A test's hand on a finished batch before it is checked: broken memory. Never set in production.
pub type Damage = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Guards that a negative control leaves out, to show that the tests notice. None is left out in production.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skips {
    /// Batches are written and not synced.
    pub sync_unsafe: bool,
    /// The anchor is neither written nor held against the database.
    pub anchor_unsafe: bool,
    /// Leaves are not hashed again before the checkpoint is signed.
    pub recompute_unsafe: bool,
}

/// What signs checkpoints.
pub(super) type Sign = Box<dyn Fn(&[u8]) -> [u8; 64] + Send + Sync>;

/// What a caller's request came to; the caller computes its own proofs from it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) indexes: Vec<u64>,
    pub(super) snapshot: Arc<Snapshot>,
    /// The nodes that the batch added, if it added any.
    pub(super) delta: Option<Arc<Delta>>,
}

type Reply = oneshot::Sender<Result<Answer, LogError>>;

/// A batch that is on disk, on its way to the publisher.
pub(super) struct Committed {
    snapshot: Arc<Snapshot>,
    delta: Option<Arc<Delta>>,
    replies: Vec<(Reply, Vec<u64>)>,
}

/// Owned by the sequencer's thread alone.
pub(super) struct Sequencer {
    pub(super) shared: Arc<Shared>,
    pub(super) key: VerifierKey,
    pub(super) sign: Sign,
    /// The newest committed state, published or not.
    pub(super) snapshot: Arc<Snapshot>,
    /// The hashes of its frontier, low to high.
    pub(super) frontier: Vec<Hash>,
    pub(super) publisher: SyncSender<Committed>,
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("snapshot", &self.snapshot.head).finish_non_exhaustive()
    }
}

/// Refuses whatever still waits when a thread ends, even by a panic.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.queue.close();
        if std::thread::panicking() {
            self.0.set_broken("a thread of the log panicked; see the service's log, then restart");
            while let Some(requests) = self.0.queue.drain() {
                refuse(&self.0.broken_reason(), requests.into_iter().map(|request| request.reply));
            }
        }
    }
}

fn refuse(reason: &str, replies: impl IntoIterator<Item = Reply>) {
    for reply in replies {
        // A caller that went away needs no answer.
        drop(reply.send(Err(LogError::Broken(reason.to_owned()))));
    }
}

/// What a batch added, if anything, and by request the index of each entry.
type Batched = (Option<Arc<Delta>>, Vec<Vec<u64>>);

impl Sequencer {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while let Some(requests) = shared.queue.drain() {
            if !shared.is_broken() {
                match self.commit(&requests) {
                    Ok((delta, indexes)) => {
                        let replies = requests.into_iter().map(|request| request.reply).zip(indexes).collect();
                        let committed = Committed { snapshot: Arc::clone(&self.snapshot), delta, replies };
                        if let Err(lost) = self.publisher.send(committed) {
                            shared.set_broken("the thread that writes the anchor ended; restart the service");
                            refuse(&shared.broken_reason(), lost.0.replies.into_iter().map(|(reply, _)| reply));
                        }
                        continue;
                    }
                    Err(error) => shared.set_broken(&error.to_string()),
                }
            }
            refuse(&shared.broken_reason(), requests.into_iter().map(|request| request.reply));
        }
    }

    /// Steps 2 to 4. Returns what the batch added and, by request, the index of each entry.
    fn commit(&mut self, requests: &[Request]) -> Result<Batched, LogError> {
        let store = &self.shared.store;
        let old = self.snapshot.head.size;
        let (mut batch, mut hashes) = (Batch::default(), Vec::new());
        let mut seen: HashMap<Hash, u64> = HashMap::new();
        let mut next = old;
        let mut indexes = Vec::with_capacity(requests.len());
        for request in requests {
            let mut of_request = Vec::with_capacity(request.entries.len());
            for entry in &request.entries {
                let known = match seen.get(&entry.hash) {
                    Some(index) => Some(*index),
                    None => store.index_of(&entry.hash)?,
                };
                if let Some(index) = known {
                    of_request.push(index);
                    continue;
                }
                let new = NewEntry { leaf: &entry.leaf, hash: &entry.hash, payload: &entry.payload, rows: &entry.rows };
                store.put_entry(&mut batch, next, &new)?;
                seen.insert(entry.hash, next);
                hashes.push(entry.hash);
                of_request.push(next);
                next += 1;
            }
            indexes.push(of_request);
        }
        self.shared.counters.entries(requests.iter().map(|request| request.entries.len()).sum(), hashes.len());
        if hashes.is_empty() {
            return Ok((None, indexes));
        }
        let delta = Delta::append(old, &self.frontier, &hashes)
            .ok_or_else(|| LogError::Damaged("the tree's frontier does not fit its size".to_owned()))?;
        self.write(batch, &delta)?;
        Ok((Some(Arc::new(delta)), indexes))
    }

    fn write(&mut self, mut batch: Batch, delta: &Delta) -> Result<(), LogError> {
        let store = &self.shared.store;
        let mut partial = self.snapshot.partial.clone();
        add_to_tiles(
            &mut partial,
            delta,
            |level, index, hashes| Ok(store.put_tile(&mut batch, level, index, hashes)?),
        )?;
        if let Some(damage) = &self.shared.damage {
            batch.damage_unsafe(damage.as_ref());
        }
        if !self.shared.skips.recompute_unsafe {
            recompute(store, &batch, delta)?;
        }
        let (size, root) = (delta.edge().size(), delta.edge().root());
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root }.sign(&self.key, &self.sign)?;
        store.put_meta(&mut batch, "head", checkpoint.as_bytes())?;
        self.shared.fault(Step::Commit)?;
        if self.shared.skips.sync_unsafe {
            store.commit_unsafe(batch)?;
        } else {
            store.commit(batch)?;
        }
        self.shared.counters.commit();
        self.shared.fault(Step::Committed)?;
        self.frontier = delta.frontier();
        self.snapshot = Arc::new(Snapshot { head: Head { size, root, checkpoint: checkpoint.into() }, partial });
        Ok(())
    }
}

/// Hashes the leaves of a finished batch again and holds them against the nodes about to be signed.
fn recompute(store: &Store, batch: &Batch, delta: &Delta) -> Result<(), LogError> {
    let mut expected = (delta.old_size()..).zip(delta.new_nodes(0));
    let mut same = true;
    store.each_leaf(batch, |index, leaf| same &= expected.next() == Some((index, &leaf_hash(leaf))));
    if same && expected.next().is_none() {
        Ok(())
    } else {
        Err(LogError::Damaged("a leaf changed in memory before it was stored".to_owned()))
    }
}

/// Adds a batch's nodes to the partial tiles; calls `full` with each tile that became full, and starts the next.
pub(super) fn add_to_tiles(
    partial: &mut Vec<Vec<Hash>>,
    delta: &Delta,
    mut full: impl FnMut(u8, u64, &[Hash]) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let levels = (64 - delta.edge().size().leading_zeros()).div_ceil(HEIGHT);
    for level in 0..levels {
        let slot = usize::try_from(level).unwrap_or(usize::MAX);
        if partial.len() <= slot {
            partial.push(Vec::new());
        }
        let Some(tile) = partial.get_mut(slot) else { continue };
        let mut index = delta.old_size().checked_shr(level * HEIGHT).unwrap_or(0) / 256;
        for hash in delta.new_nodes(level * HEIGHT) {
            tile.push(*hash);
            if tile.len() == WIDTH {
                full(u8::try_from(level).unwrap_or(u8::MAX), index, tile)?;
                tile.clear();
                index += 1;
            }
        }
    }
    Ok(())
}

/// Owned by the publisher's thread alone: steps 5 and 6.
pub(super) struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) anchor: Anchor,
    pub(super) committed: Receiver<Committed>,
}

impl Publisher {
    /// Runs until the sequencer is gone and everything it committed is published.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while let Ok(first) = self.committed.recv() {
            // One anchor covers all batches that are committed by now.
            let mut waiting = vec![first];
            waiting.extend(self.committed.try_iter());
            let newest = waiting.last().map(|committed| Arc::clone(&committed.snapshot));
            if !shared.is_broken()
                && let Some(snapshot) = newest
            {
                match self.anchor(&snapshot) {
                    Ok(()) => shared.publish(snapshot),
                    Err(error) => shared.set_broken(&error.to_string()),
                }
            }
            for committed in waiting {
                if shared.published().head.size < committed.snapshot.head.size {
                    refuse(&shared.broken_reason(), committed.replies.into_iter().map(|(reply, _)| reply));
                    continue;
                }
                for (reply, indexes) in committed.replies {
                    let snapshot = Arc::clone(&committed.snapshot);
                    // A caller that went away needs no answer.
                    drop(reply.send(Ok(Answer { indexes, snapshot, delta: committed.delta.clone() })));
                }
            }
        }
    }

    fn anchor(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        if snapshot.head.size > self.anchor.size() && !self.shared.skips.anchor_unsafe {
            self.shared.fault(Step::Anchor)?;
            self.anchor.advance(snapshot.head.size, snapshot.head.root).map_err(crate::store::StoreError::from)?;
            self.shared.counters.anchor();
            self.shared.fault(Step::Anchored)?;
        }
        Ok(())
    }
}
