//! The sequencer: the one thread that owns the tree. Behind it the writer, which owns the disk, and the publisher,
//! which owns the anchor.
//!
//! What an entry goes through, and what a crash after each step means:
//!
//! 1. The caller hashes its leaf, folds its rows and puts both into the queue. Crash: nobody was answered, nothing is
//!    there.
//! 2. The sequencer finds duplicates, gives out an index and adds the entry to the *open* batch, which grows as long as
//!    the writer is busy with the batch before. Crash: the same.
//! 3. When the writer is free, the batch is *sealed*: the sequencer computes the new nodes, and hashes every leaf again
//!    from the finished batch, the very bytes about to be stored. A hash that differs means broken memory: the log stops
//!    before anything is signed. Then it signs the checkpoint. Nobody sees it yet, so another one of the same size after
//!    a crash is harmless.
//! 4. The writer sums the whole batch up (see `store::batch`), so that no other row of it changed in memory either, and
//!    writes one synced batch: leaves, tiles, payloads, views, head. Crash: the batch is there or not, whole; nobody was
//!    answered either way. The sequencer is at the next open batch already.
//! 5. The publisher writes and syncs the anchor, while the writer is at the next batch. Crash before: the database is
//!    ahead of the anchor, which opening accepts (see `store::anchor`).
//! 6. The publisher makes the head visible and answers. From here on the batch may never be missing. The caller makes
//!    its own proof from the nodes of the batch, which all callers of the batch share, and reads no disk for it. Where
//!    witnesses are required, the publisher hands the batch over instead, and `witnessing` does this once it has a quorum.
//!
//! After a step failed the log is *broken*: nothing more is written, every append is refused, reads go on with the last
//! published head. Opening anew decides from what is on disk. A disk that is too full is not a failure: it is noticed
//! before step 3, when nothing has happened yet (see `store::headroom`). Nor is a key on a token that does not sign now:
//! the batch is dropped in step 3, everyone in it is told, and the log goes on with the next.

use std::{collections::HashMap, fmt, io, sync::Arc, sync::mpsc::SyncSender};

use tokio::sync::oneshot;

use super::{
    LogError, Shared,
    queue::{Amount, Prepared, Request},
    snapshot::{Head, Snapshot},
    writer::Sealed,
};
use crate::{
    store::{Batch, NewEntry, Store},
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
#[expect(clippy::struct_excessive_bools, reason = "each stands for a guard of its own, and none excludes another")]
pub struct Skips {
    /// Batches are written and not synced.
    pub sync_unsafe: bool,
    /// The anchor is neither written nor held against the database.
    pub anchor_unsafe: bool,
    /// Leaves are not hashed again before the checkpoint is signed, nor is the batch summed up before it is written.
    pub recompute_unsafe: bool,
    /// A copy of a log is opened as if it were the log itself.
    pub home_unsafe: bool,
}

/// What signs checkpoints; nothing, where a token does not sign now.
pub(super) type Sign = Box<dyn Fn(&[u8]) -> Option<[u8; 64]> + Send + Sync>;

/// What a caller's request came to; the caller computes its own proofs from it.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) indexes: Vec<u64>,
    pub(super) snapshot: Arc<Snapshot>,
    /// The nodes that the batch added, if it added any.
    pub(super) delta: Option<Arc<Delta>>,
}

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, LogError>>;

/// The batch that grows while the writer is busy.
#[derive(Debug, Default)]
struct Open {
    batch: Batch,
    /// The leaf hashes of its entries, in order.
    hashes: Vec<Hash>,
    /// Their indexes.
    seen: HashMap<Hash, u64>,
    /// By request: who waits, and the index of each entry.
    replies: Vec<(Reply, Vec<u64>)>,
    amount: Amount,
}

/// Owned by the sequencer's thread alone.
pub(super) struct Sequencer {
    pub(super) shared: Arc<Shared>,
    pub(super) key: VerifierKey,
    pub(super) sign: Sign,
    /// The newest sealed state, on disk or on its way there.
    snapshot: Arc<Snapshot>,
    /// The hashes of its frontier, low to high.
    frontier: Vec<Hash>,
    open: Open,
    /// The entries of the batch that was sealed last, which the database may not show yet.
    sealed: HashMap<Hash, u64>,
    writer: SyncSender<Sealed>,
}

impl fmt::Debug for Sequencer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequencer").field("snapshot", &self.snapshot.head).finish_non_exhaustive()
    }
}

/// Refuses whatever still waits when a thread ends, even by a panic.
pub(super) struct Ending<'a>(pub(super) &'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.queue.close();
        if std::thread::panicking() {
            self.0.set_broken("a thread of the log panicked; see the service's log, then restart");
            self.0.queue.writer_is_free();
            while let Some(work) = self.0.queue.next(Amount::default()) {
                self.0.queue.writer_is_free();
                refuse(&self.0.broken_reason(), work.requests.into_iter().map(|request| request.reply));
            }
        }
    }
}

/// Tells everyone that the log is broken.
pub(super) fn refuse(reason: &str, replies: impl IntoIterator<Item = Reply>) {
    for reply in replies {
        // A caller that went away needs no answer.
        drop(reply.send(Err(LogError::Broken(reason.to_owned()))));
    }
}

impl Sequencer {
    pub(super) fn new(
        shared: Arc<Shared>,
        key: VerifierKey,
        sign: Sign,
        (snapshot, frontier): (Arc<Snapshot>, Vec<Hash>),
        writer: SyncSender<Sealed>,
    ) -> Self {
        Self { shared, key, sign, snapshot, frontier, open: Open::default(), sealed: HashMap::new(), writer }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while let Some(work) = shared.queue.next(self.open.amount) {
            for request in work.requests {
                if shared.is_broken() {
                    refuse(&shared.broken_reason(), [request.reply]);
                } else if let Err(error) = self.add(request) {
                    shared.set_broken(&error.to_string());
                }
            }
            if work.seal {
                self.hand_over(&shared);
            }
            if shared.is_broken() {
                let open = std::mem::take(&mut self.open);
                refuse(&shared.broken_reason(), open.replies.into_iter().map(|(reply, _)| reply));
            }
        }
    }

    /// Seals the open batch and gives it to the writer, which is free and reserved.
    fn hand_over(&mut self, shared: &Shared) {
        let sealed = if shared.is_broken() { Ok(None) } else { self.seal() };
        match sealed {
            Ok(Some(sealed)) => {
                if let Err(lost) = self.writer.send(sealed) {
                    shared.set_broken("the thread that writes to disk ended; restart the service");
                    lost.0.refuse(&shared.broken_reason());
                }
                return;
            }
            Ok(None) => {}
            Err(error) => shared.set_broken(&error.to_string()),
        }
        shared.queue.writer_is_free();
    }

    /// Step 2. After an error the open batch is of no use.
    fn add(&mut self, request: Request) -> Result<(), LogError> {
        let amount = request.amount();
        let mut indexes = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            let known = match self.open.seen.get(&entry.hash).or_else(|| self.sealed.get(&entry.hash)) {
                Some(index) => Some(*index),
                None => self.shared.store.index_of(&entry.hash)?,
            };
            if let Some(index) = known {
                indexes.push(index);
                continue;
            }
            let index = self.next_index();
            let Prepared { leaf, payload, payload_sum, hash, rows } = entry;
            let new = NewEntry { leaf, hash, payload, payload_sum: *payload_sum, rows };
            self.shared.store.put_entry(&mut self.open.batch, index, &new)?;
            self.open.seen.insert(entry.hash, index);
            self.open.hashes.push(entry.hash);
            indexes.push(index);
        }
        self.open.replies.push((request.reply, indexes));
        self.open.amount = self.open.amount.plus(amount);
        Ok(())
    }

    fn next_index(&self) -> u64 {
        self.snapshot.head.size.saturating_add(u64::try_from(self.open.hashes.len()).unwrap_or(u64::MAX))
    }

    /// Step 3. `None` if there was no room on the disk or no signature: everyone was told, and nothing happened.
    fn seal(&mut self) -> Result<Option<Sealed>, LogError> {
        let mut open = std::mem::take(&mut self.open);
        self.shared.counters.entries(open.amount.entries, open.hashes.len());
        if open.hashes.is_empty() {
            return Ok(Some(Sealed {
                batch: None,
                snapshot: Arc::clone(&self.snapshot),
                delta: None,
                replies: open.replies,
            }));
        }
        if let Err(full) = self.shared.store.check_room(open.amount.bytes) {
            for (reply, _) in open.replies {
                drop(reply.send(Err(LogError::DiskFull(full.clone()))));
            }
            return Ok(None);
        }
        let (snapshot, delta) = match self.seal_batch(&mut open) {
            Ok(sealed) => sealed,
            Err(LogError::Unsigned) => {
                for (reply, _) in open.replies {
                    drop(reply.send(Err(LogError::Unsigned)));
                }
                return Ok(None);
            }
            Err(error) => {
                self.open.replies = open.replies; // Refused by `run`, with the reason.
                return Err(error);
            }
        };
        self.frontier = delta.frontier();
        self.snapshot = Arc::clone(&snapshot);
        self.sealed = open.seen;
        Ok(Some(Sealed { batch: Some(open.batch), snapshot, delta: Some(Arc::new(delta)), replies: open.replies }))
    }

    /// Adds tiles and signed head to the batch.
    fn seal_batch(&self, open: &mut Open) -> Result<(Arc<Snapshot>, Delta), LogError> {
        let store = &self.shared.store;
        let delta = Delta::append(self.snapshot.head.size, &self.frontier, &open.hashes)
            .ok_or_else(|| LogError::Damaged("the tree's frontier does not fit its size".to_owned()))?;
        let mut partial = self.snapshot.partial.clone();
        add_to_tiles(&mut partial, &delta, |level, index, hashes| {
            Ok(store.put_tile(&mut open.batch, level, index, hashes)?)
        })?;
        if let Some(damage) = &self.shared.damage {
            open.batch.damage_unsafe(damage.as_ref());
        }
        if self.shared.skips.recompute_unsafe {
            open.batch.unchecked_unsafe();
        } else {
            recompute(store, &open.batch, &delta)?;
        }
        let (size, root) = (delta.edge().size(), delta.edge().root());
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root }.sign(&self.key, &self.sign);
        let checkpoint = checkpoint.map_err(LogError::of_signing)?;
        store.put_meta(&mut open.batch, "head", checkpoint.as_bytes())?;
        Ok((Arc::new(Snapshot { head: Head { size, root, checkpoint: checkpoint.into() }, partial }), delta))
    }
}

/// Hashes the leaves of a finished batch again and holds them against the nodes about to be signed.
fn recompute(store: &Store, batch: &Batch, delta: &Delta) -> Result<(), LogError> {
    let mut expected = (delta.old_size()..).zip(delta.new_nodes(0));
    let mut same = true;
    store.each_leaf(batch, |index, leaf| same &= expected.next() == Some((index, &leaf_hash(leaf))))?;
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
