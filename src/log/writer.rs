//! The writer and the publisher: what is sealed becomes durable, then anchored, then visible. Steps 4 to 6 of
//! [`sequencer`](super::sequencer), each on its own thread, so that two syncs of neighbouring batches overlap.

use std::sync::{
    Arc,
    mpsc::{Receiver, SyncSender},
};

use super::{
    LogError, Shared,
    sequencer::{Answer, Ending, Reply, Step, refuse},
    snapshot::Snapshot,
    witnessing,
};
use crate::{
    store::{Batch, StoreError, anchor::Anchor},
    tlog::Delta,
};

/// A batch on its way to the disk, or behind it to the publisher.
pub(super) struct Sealed {
    /// Nothing once it is on disk, and where every entry was there already.
    pub(super) batch: Option<Batch>,
    /// The state of the log with it.
    pub(super) snapshot: Arc<Snapshot>,
    /// The nodes that it adds, if any.
    pub(super) delta: Option<Arc<Delta>>,
    /// By request: who waits, and the index of each entry.
    pub(super) replies: Vec<(Reply, Vec<u64>)>,
}

impl Sealed {
    pub(super) fn refuse(self, reason: &str) {
        refuse(reason, self.replies.into_iter().map(|(reply, _)| reply));
    }

    /// Whether it adds nothing, and all its entries are below this size.
    fn is_known_at(&self, size: u64) -> bool {
        let mut indexes = self.replies.iter().flat_map(|(_, indexes)| indexes);
        self.delta.is_none() && indexes.all(|index| *index < size)
    }

    /// Answers everybody under `self.snapshot`.
    pub(super) fn answer(self) {
        for (reply, indexes) in self.replies {
            let (snapshot, delta) = (Arc::clone(&self.snapshot), self.delta.clone());
            // A caller that went away needs no answer.
            drop(reply.send(Ok(Answer { indexes, snapshot, delta })));
        }
    }
}

/// Owned by the writer's thread alone: step 4.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) sealed: Receiver<Sealed>,
    pub(super) publisher: SyncSender<Sealed>,
}

impl Writer {
    /// Runs until the sequencer is gone and everything it sealed is written.
    pub(super) fn run(self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while let Ok(mut sealed) = self.sealed.recv() {
            if !shared.is_broken()
                && let Some(batch) = sealed.batch.take()
                && let Err(error) = self.write(batch)
            {
                shared.set_broken(&error.to_string());
            }
            if shared.is_broken() {
                sealed.refuse(&shared.broken_reason());
            } else if let Err(lost) = self.publisher.send(sealed) {
                shared.set_broken("the thread that writes the anchor ended; restart the service");
                lost.0.refuse(&shared.broken_reason());
            }
            shared.queue.writer_is_free();
        }
    }

    fn write(&self, batch: Batch) -> Result<(), LogError> {
        self.shared.fault(Step::Commit)?;
        if self.shared.skips.sync_unsafe {
            self.shared.store.commit_unsafe(batch)?;
        } else {
            self.shared.store.commit(batch)?;
        }
        self.shared.counters.commit();
        self.shared.fault(Step::Committed)?;
        Ok(())
    }
}

/// Owned by the publisher's thread alone: steps 5 and 6.
pub(super) struct Publisher {
    pub(super) shared: Arc<Shared>,
    pub(super) anchor: Anchor,
    pub(super) written: Receiver<Sealed>,
    pub(super) witnessing: Option<witnessing::Handle>,
}

impl Publisher {
    /// Runs until the writer is gone and everything it wrote is published.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _ending = Ending(&shared);
        while let Ok(first) = self.written.recv() {
            // One anchor covers all batches that are on disk by now.
            let mut waiting = vec![first];
            waiting.extend(self.written.try_iter());
            // Whoever asks for what is published already waits for nobody: neither anchor nor witnesses.
            let published = shared.published();
            let (known, rest) =
                waiting.into_iter().partition::<Vec<_>, _>(|sealed| sealed.is_known_at(published.head.size));
            waiting = rest;
            for sealed in known {
                Sealed { snapshot: Arc::clone(&published), ..sealed }.answer();
            }
            let newest = waiting.last().map(|sealed| Arc::clone(&sealed.snapshot));
            // After a failed sync of the anchor it is not tried again: nobody knows what the disk holds.
            if !shared.is_broken()
                && let Some(snapshot) = newest
            {
                match self.anchor(&snapshot) {
                    Ok(()) => match &self.witnessing {
                        Some(stage) if stage.requires() => match stage.hand_over(waiting) {
                            Ok(()) => continue,
                            Err(back) => waiting = back,
                        },
                        // The same head again (nothing was new) must not take the place of one with cosignatures.
                        _ if snapshot.head.size == shared.published().head.size => {}
                        _ => shared.publish(snapshot),
                    },
                    Err(error) => shared.set_broken(&error.to_string()),
                }
            }
            for sealed in waiting {
                if shared.published().head.size < sealed.snapshot.head.size {
                    sealed.refuse(&shared.broken_reason());
                } else {
                    sealed.answer();
                }
            }
        }
    }

    fn anchor(&mut self, snapshot: &Snapshot) -> Result<(), LogError> {
        if snapshot.head.size > self.anchor.size() && !self.shared.skips.anchor_unsafe {
            self.shared.fault(Step::Anchor)?;
            self.anchor.advance(snapshot.head.size, snapshot.head.root).map_err(StoreError::from)?;
            self.shared.counters.anchor();
            self.shared.fault(Step::Anchored)?;
        }
        Ok(())
    }
}
