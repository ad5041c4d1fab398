//! The transparency log: queue, sequencer, commit, witnesses, proofs, views, audit. Design §3, RFC 6962, C2SP `tlog-tiles`.
//!
//! Callers hand in leaves and get back index, inclusion proof and signed checkpoint, once everything is on disk. The
//! way of an entry is told in `sequencer`, the argument for the anchor in [`store::anchor`].
//! What a leaf means is not decided here, except that [`views`] knows how to find Sigstore bundles again.

pub mod audit;
pub mod backup;
mod bundle;
pub mod chain;
mod opening;
mod queue;
pub mod rebuild;
pub mod search;
mod sequencer;
mod snapshot;
mod state;
mod tiles;
mod times;
pub mod views;
pub mod witnessing;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{oneshot, watch};

pub use crate::model::facts;
use crate::{
    model::limits,
    store::{self, NoRoom, Room, StoreError},
    tlog::{
        CheckpointError, Hash, HashReader as _, NodeId, NoteError, ProofError, VerifierKey, check_inclusion, leaf_hash,
        proof, prove_consistency, prove_inclusion, root_of,
    },
};
pub use chain::{Logs, Position};
use queue::{Prepared, Request};
use sequencer::Answer;
pub use sequencer::{Damage, Fault, Skips, Step};
pub use snapshot::Head;
use snapshot::Snapshot;
use state::Shared;
pub use state::Stats;
pub use views::View;
use witnessing::Witnessing;

/// Payloads together from this size on are parsed off the async threads, in bytes.
const LARGE: usize = 128 * 1024;

/// A leaf and its payload, ready to be appended.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The canonical leaf, 1 to 65,535 bytes.
    pub leaf: Vec<u8>,
    /// What is kept beside it: the bundle without log entries. Empty for none.
    pub payload: Vec<u8>,
}

/// Where a leaf stands, with proof under a signed checkpoint.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The leaf's index.
    pub index: u64,
    /// The size of the tree that the proof is for.
    pub tree_size: u64,
    /// That tree's root.
    pub root: [u8; 32],
    /// The inclusion proof.
    pub proof: Vec<[u8; 32]>,
    /// The signed checkpoint of that tree.
    pub checkpoint: Arc<str>,
}

/// A recorded entry.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// Its leaf.
    pub leaf: Vec<u8>,
    /// Its payload, if one was given and not erased.
    pub payload: Option<Vec<u8>>,
}

/// What the log refuses or suffers from.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A write failed, so that nobody knows what is on disk.
    #[error("log is broken and writes nothing more until the service is restarted: {0}")]
    Broken(String),
    /// Too much waits already.
    #[error("log queue is full; try again shortly")]
    Full,
    /// The disk is too full to write safely. Nothing was recorded.
    #[error(transparent)]
    DiskFull(NoRoom),
    /// The log's key did not sign: it is on a token that cannot be used now. Nothing was recorded.
    #[error("the log's key cannot be used now, so that nothing is recorded; see the service's log, and try again")]
    Unsigned,
    /// The log is being closed.
    #[error("log is closed")]
    Closed,
    /// The log was ended for good, and another one takes its place.
    #[error("this log is frozen at its last checkpoint; {0} succeeds it, append there")]
    Frozen(String),
    /// No entry, tile or size of that number.
    #[error("no such entry")]
    NotFound,
    /// The entry has no payload: none was given, or it was erased.
    #[error("entry {0} has no payload; it was erased, or none was given")]
    NoPayload(u64),
    /// The entry's payload is not a bundle that can be completed.
    #[error("the bundle of entry {0} cannot be put together: {1}")]
    Bundle(u64, String),
    /// The caller's input cannot be recorded.
    #[error("cannot be recorded: {0}")]
    Invalid(String),
    /// The key is not the one that the log was made with.
    #[error("this key did not make this log; give the key that `countersign init` made with it")]
    WrongKey,
    /// Durable, and not to be shown before a quorum of witnesses has cosigned.
    #[error(
        "recorded, but not witnessed yet, so that nothing is shown of it: {0}. Ask again with the same leaf: it keeps its \
         index"
    )]
    Unwitnessed(String),
    /// The database lost acknowledged entries.
    #[error(
        "log holds {found} entries, but {acknowledged} were acknowledged: the database lost its tail or is an older \
         copy. Nothing is served, so that no fork is signed. Restore the newest copy of the whole log directory; if \
         there is none, start a new log under another origin"
    )]
    Lost {
        /// Entries in the database.
        found: u64,
        /// Entries in the anchor.
        acknowledged: u64,
    },
    /// The database holds another history than the one that was acknowledged.
    #[error(
        "log has another root at size {0} than the one acknowledged there: this is another history. Restore the \
         matching copy of the whole log directory"
    )]
    Forked(u64),
    /// A copy, or its source, misses entries.
    #[error(
        "it holds {size} entries and a signed checkpoint speaks of {newest}: the rest is missing. Catch up from a copy \
         or mirror that has them"
    )]
    Behind {
        /// What is there.
        size: u64,
        /// What was signed.
        newest: u64,
    },
    /// Stored bytes contradict each other.
    #[error("log is damaged: {0}; stop the service, run `countersign log fsck`, and restore from a backup")]
    Damaged(String),
    /// The rows by which entries are found are not all there, or of another format.
    #[error(
        "this log cannot be used as it is: {0}. Stop the service and run `countersign log rebuild-views --data DIR`"
    )]
    Views(String),
    /// A proof cannot be made.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The stored checkpoint does not verify.
    #[error("stored checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault that a test asked for, or the system's refusal to do I/O.
    #[error("input or output failed: {0}")]
    Io(#[from] std::io::Error),
}

impl LogError {
    /// What signing a checkpoint failed with.
    fn of_signing(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Note(NoteError::Unsigned(_)) => Self::Unsigned,
            other => Self::Checkpoint(other),
        }
    }

    /// After which time trying again makes sense, if it does.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(Duration::from_millis(100)),
            Self::DiskFull(_) | Self::Unsigned => Some(Duration::from_secs(5)),
            Self::Unwitnessed(_) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

/// Bounds of the queue and of one batch.
#[derive(Clone)]
pub struct Options {
    /// Entries that may wait.
    pub queue_entries: usize,
    /// Bytes that may wait.
    pub queue_bytes: usize,
    /// Entries committed at once.
    pub batch_entries: usize,
    /// Bytes committed at once.
    pub batch_bytes: usize,
    /// What must stay free on the disk.
    pub room: Room,
    /// Where a test makes the log fail; `None` in production.
    pub fault: Option<Fault>,
    /// Where a test breaks the memory of a batch; `None` in production.
    pub damage: Option<Damage>,
    /// What a negative control leaves out; nothing in production.
    pub skips: Skips,
    /// Who cosigns the log's checkpoints; `None` for nobody.
    pub witness: Option<Witnessing>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_entries: 16 * 1024,
            queue_bytes: 128 * 1024 * 1024,
            batch_entries: 4096,
            batch_bytes: 32 * 1024 * 1024,
            room: Room::default(),
            fault: None,
            damage: None,
            skips: Skips::default(),
            witness: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("queue_entries", &self.queue_entries)
            .field("batch_entries", &self.batch_entries)
            .field("fault", &self.fault.is_some())
            .field("skips", &self.skips)
            .field("witness", &self.witness.is_some())
            .finish_non_exhaustive()
    }
}

struct Inner {
    shared: Arc<Shared>,
    key: VerifierKey,
    /// The key's name.
    origin: Arc<str>,
    /// Taken by whoever closes.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    fn close(&self) {
        self.shared.queue.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return;
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        if !self.shared.is_broken()
            && let Err(error) = self.shared.store.flush()
        {
            // Everything is in the write-ahead log; the next opening takes a little longer.
            tracing::warn!(%error, "the log was closed without a flush");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        self.shared.store.stop();
    }
}

/// An open log; clones are the same log. Reads block on disk for microseconds, rarely more.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("origin", &self.origin()).field("size", &self.size()).finish()
    }
}

impl Log {
    /// Makes a log in the new directory `dir`, with a genesis entry at index 0.
    ///
    /// `origin` is the host name that Sigstore clients know the log by, `public_key` the Ed25519 key of `sign`.
    pub fn create<S: Into<Option<[u8; 64]>>>(
        dir: &Path,
        origin: &str,
        public_key: [u8; 32],
        sign: impl Fn(&[u8]) -> S,
    ) -> Result<(), LogError> {
        opening::create(dir, origin, public_key, sign)
    }

    /// Opens the log in `dir`, which must be there, be whole, be made with this key, and hold what was acknowledged.
    ///
    /// `sign` gives a signature, or none if the key cannot be used now.
    pub fn open<S: Into<Option<[u8; 64]>>>(
        dir: &Path,
        public_key: [u8; 32],
        sign: impl Fn(&[u8]) -> S + Send + Sync + 'static,
        options: Options,
    ) -> Result<Self, LogError> {
        opening::open(dir, public_key, sign, options)
    }

    /// The log's name: a host name.
    pub fn origin(&self) -> &str {
        self.0.key.name()
    }

    /// The log's name, shared.
    pub fn shared_origin(&self) -> Arc<str> {
        Arc::clone(&self.0.origin)
    }

    /// The log id of Rekor v2: the note key's whole hash.
    pub fn log_id(&self) -> [u8; 32] {
        self.0.key.hash()
    }

    /// The public side of the key that signs checkpoints.
    pub fn key(&self) -> &VerifierKey {
        &self.0.key
    }

    /// Appends, and returns when everything is on disk and anchored; receipts in the order of the drafts.
    ///
    /// A leaf that is there already gets its old index with a fresh proof; its first payload stays.
    ///
    /// # Errors
    /// [`LogError::Invalid`], [`LogError::Full`], [`LogError::Closed`]: nothing was recorded. [`LogError::Broken`]: it
    /// may have been.
    pub async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, LogError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        check_drafts(&drafts)?;
        if let Some(reason) = self.0.shared.broken.get() {
            return Err(LogError::Broken(reason.clone()));
        }
        let large = drafts.iter().map(|draft| draft.payload.len()).sum::<usize>() > LARGE;
        let prepare_all = move || drafts.into_iter().map(prepare).collect::<Vec<_>>();
        let entries = if large { off_thread(prepare_all).await? } else { prepare_all() };
        let hashes: Vec<Hash> = entries.iter().map(|entry| entry.hash).collect();
        let (reply, answer) = oneshot::channel();
        if let Err(error) = self.0.shared.queue.push(Request { entries, reply }) {
            return Err(self.successor().map_or(error, |origin| LogError::Frozen(origin.to_owned())));
        }
        let answer = answer.await.map_err(|_gone| LogError::Broken(self.0.shared.broken_reason()))??;
        if let Some(receipts) = from_delta(&answer) {
            return receipts;
        }
        let log = self.clone();
        off_thread(move || {
            let proven = answer.indexes.iter().zip(&hashes);
            proven.map(|(index, hash)| log.receipt_under(&answer.snapshot, *index, Some(hash))).collect()
        })
        .await?
    }

    /// The receipt of an entry under the newest head.
    pub fn receipt(&self, index: u64) -> Result<Receipt, LogError> {
        self.receipt_under(&self.0.shared.published(), index, None)
    }

    fn receipt_under(&self, snapshot: &Snapshot, index: u64, leaf: Option<&Hash>) -> Result<Receipt, LogError> {
        let Head { size, root, checkpoint } = &snapshot.head;
        if index >= *size {
            return Err(LogError::NotFound);
        }
        let reader = snapshot.reader(&self.0.shared.store);
        let proof = prove_inclusion(index, *size, &reader)?;
        let stored = reader.read_hashes(&[NodeId { level: 0, index }])?;
        let leaf = leaf.or(stored.first()).ok_or(ProofError::Missing)?;
        // Nothing leaves that does not verify: stored tiles may have rotted.
        check_inclusion(leaf, index, *size, &proof, root)
            .map_err(|source| LogError::Damaged(format!("the proof of entry {index} does not hold: {source}")))?;
        Ok(Receipt { index, tree_size: *size, root: *root, proof, checkpoint: Arc::clone(checkpoint) })
    }

    /// An entry with its payload; the leaf is held against its hash in the tree.
    pub fn entry(&self, index: u64) -> Result<Entry, LogError> {
        let snapshot = self.0.shared.published();
        if index >= snapshot.head.size {
            return Err(LogError::NotFound);
        }
        let store = &self.0.shared.store;
        let leaf = store.leaf(index)?.ok_or_else(|| LogError::Damaged(format!("leaf {index} is missing")))?;
        let hashes = snapshot.reader(store).read_hashes(&[NodeId { level: 0, index }])?;
        if hashes.first() != Some(&leaf_hash(&leaf)) {
            return Err(LogError::Damaged(format!("leaf {index} is not the one that was hashed")));
        }
        Ok(Entry { index, leaf, payload: store.payload(index)? })
    }

    /// The number of published entries.
    pub fn size(&self) -> u64 {
        self.0.shared.published().head.size
    }

    /// The newest published head.
    pub fn head(&self) -> Head {
        self.0.shared.published().head.clone()
    }

    /// The root that the log had at `size`.
    pub fn root_at(&self, size: u64) -> Result<Hash, LogError> {
        let snapshot = self.0.shared.published();
        if size > snapshot.head.size {
            return Err(LogError::NotFound);
        }
        root_of(size, &snapshot.reader(&self.0.shared.store))
    }

    /// Proves that the log at `from` is a prefix of the log at `to`, both at most the size.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, LogError> {
        let snapshot = self.0.shared.published();
        if to > snapshot.head.size {
            return Err(LogError::NotFound);
        }
        prove_consistency(from, to, &snapshot.reader(&self.0.shared.store))
    }

    /// Follows the published size.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.shared.sizes.subscribe()
    }

    /// Whether appends can succeed: not broken, not closed, and room on the disk.
    pub fn is_writable(&self) -> bool {
        self.check_writable().is_ok()
    }

    /// Why appends cannot succeed, if they cannot.
    ///
    /// # Errors
    /// [`LogError::Broken`], [`LogError::Closed`] or [`LogError::DiskFull`].
    pub fn check_writable(&self) -> Result<(), LogError> {
        let shared = &self.0.shared;
        if let Some(reason) = shared.broken.get() {
            return Err(LogError::Broken(reason.clone()));
        }
        if let Some(successor) = self.successor() {
            return Err(LogError::Frozen(successor.to_owned()));
        }
        if shared.queue.is_closed() {
            return Err(LogError::Closed);
        }
        shared.store.check_room(0).map_err(LogError::DiskFull)
    }

    /// What the log counted since it was opened.
    pub fn stats(&self) -> Stats {
        let counters = &self.0.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queued: self.0.shared.queue.depth(),
            commits: read(&counters.commits),
            fsyncs: read(&counters.commits) + read(&counters.anchors),
            appended: read(&counters.appended),
            duplicates: read(&counters.duplicates),
        }
    }

    /// Audits everything up to the published size. Reads every leaf: run it off the async threads.
    pub fn fsck(&self, progress: impl FnMut(u64, u64)) -> Result<audit::Report, LogError> {
        audit::fsck_open(self, progress)
    }

    /// Lets nothing more in, commits and answers what waits, and ends the threads. Blocks until then.
    ///
    /// Reads go on; the database and its lock are released when the last clone is dropped.
    pub fn close(&self) {
        self.0.close();
    }
}

fn check_drafts(drafts: &[Draft]) -> Result<(), LogError> {
    if drafts.len() > limits::BATCH {
        return Err(LogError::Invalid(format!("{} leaves at once; the limit is {}", drafts.len(), limits::BATCH)));
    }
    for draft in drafts {
        if draft.leaf.is_empty() || draft.leaf.len() > limits::LEAF {
            let problem = format!("a leaf has {} bytes; 1 to {} are allowed", draft.leaf.len(), limits::LEAF);
            return Err(LogError::Invalid(problem));
        }
        if draft.payload.len() > limits::BUNDLE {
            let problem = format!("a payload has {} bytes; the limit is {}", draft.payload.len(), limits::BUNDLE);
            return Err(LogError::Invalid(problem));
        }
    }
    Ok(())
}

fn prepare(draft: Draft) -> Prepared {
    let Draft { leaf, payload } = draft;
    let rows = views::rows(&leaf, Some(&payload));
    Prepared { hash: leaf_hash(&leaf), payload_sum: store::sum(&payload), rows, leaf, payload }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| LogError::Damaged(format!("a task of the log did not finish: {source}")))
}

/// The receipts, if all entries are new in the answer's batch: then its nodes suffice, and no disk is read.
fn from_delta(answer: &Answer) -> Option<Result<Vec<Receipt>, LogError>> {
    let delta = answer.delta.as_ref()?;
    if answer.indexes.iter().any(|index| *index < delta.old_size()) {
        return None;
    }
    let head = &answer.snapshot.head;
    let receipt = |index: &u64| {
        let proof = proof::inclusion_under(*index, delta.edge(), |node| delta.node(node))?;
        let checkpoint = Arc::clone(&head.checkpoint);
        Ok(Receipt { index: *index, tree_size: head.size, root: head.root, proof, checkpoint })
    };
    Some(answer.indexes.iter().map(receipt).collect())
}
