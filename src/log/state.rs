//! What callers, sequencer, writer and publisher share, and what they count.

use std::sync::{
    Arc, OnceLock, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use super::{
    Options,
    queue::Queue,
    sequencer::{Damage, Fault, Skips, Step},
    snapshot::Snapshot,
};
use crate::store::Store;

/// Counts since the log was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) anchors: AtomicU64,
    pub(super) appended: AtomicU64,
    pub(super) duplicates: AtomicU64,
}

impl Counters {
    pub(super) fn entries(&self, asked: usize, new: usize) {
        let (asked, new) = (u64::try_from(asked).unwrap_or(0), u64::try_from(new).unwrap_or(0));
        self.appended.fetch_add(new, Ordering::Relaxed);
        self.duplicates.fetch_add(asked.saturating_sub(new), Ordering::Relaxed);
    }

    pub(super) fn commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn anchor(&self) {
        self.anchors.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the log counted since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Entries that wait now.
    pub queued: usize,
    /// Batches committed.
    pub commits: u64,
    /// Syncs to disk: one for each batch, and one for each anchor.
    pub fsyncs: u64,
    /// Entries that were new.
    pub appended: u64,
    /// Entries that were there already.
    pub duplicates: u64,
}

/// What callers, sequencer and publisher share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) queue: Queue,
    /// Set by the publisher; where there are witnesses, also by the thread that asks them.
    pub(super) published: RwLock<Arc<Snapshot>>,
    pub(super) sizes: watch::Sender<u64>,
    pub(super) broken: OnceLock<String>,
    /// The successor's origin. Set when the log is frozen or opened so.
    pub(super) frozen: OnceLock<String>,
    pub(super) counters: Counters,
    pub(super) fault: Option<Fault>,
    pub(super) damage: Option<Damage>,
    pub(super) skips: Skips,
}

impl Shared {
    pub(super) fn new(store: Store, snapshot: Arc<Snapshot>, options: Options) -> Self {
        Self {
            store,
            queue: Queue::new(&options),
            sizes: watch::Sender::new(snapshot.head.size),
            published: RwLock::new(snapshot),
            broken: OnceLock::new(),
            frozen: OnceLock::new(),
            counters: Counters::default(),
            fault: options.fault,
            damage: options.damage,
            skips: options.skips,
        }
    }

    pub(super) fn published(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn publish(&self, snapshot: Arc<Snapshot>) {
        let size = snapshot.head.size;
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
        self.sizes.send_replace(size);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    pub(super) fn broken_reason(&self) -> String {
        self.broken.get().cloned().unwrap_or_else(|| "the service is stopping".to_owned())
    }

    pub(super) fn set_broken(&self, reason: &str) {
        if self.broken.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "the log is broken: nothing more is written until the service is restarted");
        }
    }

    pub(super) fn fault(&self, step: Step) -> std::io::Result<()> {
        self.fault.as_ref().map_or(Ok(()), |fault| fault(step))
    }
}
