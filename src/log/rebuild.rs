//! `countersign log rebuild-views`: makes every row of the views anew from leaves and payloads, offline.
//!
//! 1. The log is opened for writing, so that no other process has it, and held against head and anchor as for serving.
//! 2. One synced batch removes all rows and says that the views are being rebuilt, from entry 0 on. Crash before: the
//!    old rows are whole. From here on no version that knows this state opens the log for serving.
//! 3. Entries are read in order; each synced batch holds the rows of some of them and says how far it got. Crash: the
//!    next run goes on from there.
//! 4. One synced batch says that the views are complete. Crash before: the next run has nothing left to do but this.
//!
//! The tree is not touched: no leaf, tile or checkpoint is written, and nothing is signed.

use std::{ops::ControlFlow, path::Path};

use super::{LogError, opening, views};
use crate::{
    store::{Batch, Room, Store, Tail, views::ViewsState},
    tlog::leaf_hash,
};

/// Entries of one batch.
const STRIDE: u64 = 1_024;

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rebuilt {
    /// The log's origin.
    pub origin: String,
    /// Entries whose rows were made, in this run.
    pub entries: u64,
    /// Where this run began: more than 0 when an earlier one was interrupted.
    pub from: u64,
    /// Rows that were made, in this run.
    pub rows: u64,
    /// Payloads that are missing although they were given and not erased, in this run: nothing is found by them. The
    /// audit names them.
    pub missing: u64,
    /// Whether it is finished.
    pub complete: bool,
}

/// Rebuilds the views of the log in `dir`, which no process has open. `progress` gets entries done and entries in all, and
/// may end the work early; the next run goes on where this one stopped.
pub fn rebuild(dir: &Path, mut progress: impl FnMut(u64, u64) -> ControlFlow<()>) -> Result<Rebuilt, LogError> {
    let (store, anchor) = Store::open(dir, Room::default(), Tail::Whole)?;
    let key = opening::key_of(&store)?;
    let (snapshot, _frontier) = opening::recover(&store, &key, Some(&anchor))?;
    let size = snapshot.head.size;
    let from = begin(&store, size)?;
    let mut done = Rebuilt { origin: key.name().to_owned(), entries: 0, from, rows: 0, missing: 0, complete: false };
    let mut at = from;
    while at < size {
        let next = size.min(at.saturating_add(STRIDE));
        stride(&store, at, next, &mut done)?;
        done.entries += next - at;
        at = next;
        if progress(at, size).is_break() {
            return Ok(done);
        }
    }
    let mut batch = Batch::default();
    store.put_views_state(&mut batch, views::COMPLETE)?;
    store.commit(batch)?;
    done.complete = true;
    store.compact_rows()?;
    store.stop();
    Ok(done)
}

/// Where to begin: where an interrupted rebuild of this format stopped, else at 0 with all rows gone.
fn begin(store: &Store, size: u64) -> Result<u64, LogError> {
    if let Some(Ok(ViewsState::Rebuilding { format: views::FORMAT, next })) = store.views_state()?
        && next <= size
    {
        return Ok(next);
    }
    let mut batch = Batch::default();
    store.clear_rows(&mut batch)?;
    store.put_views_state(&mut batch, ViewsState::Rebuilding { format: views::FORMAT, next: 0 })?;
    store.commit(batch)?;
    Ok(0)
}

/// Writes the rows of the entries `from..to`.
fn stride(store: &Store, from: u64, to: u64, done: &mut Rebuilt) -> Result<(), LogError> {
    let leaves = store.leaves(from, usize::try_from(to - from).unwrap_or(usize::MAX))?;
    let (mut batch, mut at) = (Batch::default(), from);
    for leaf in &leaves {
        let payload = store.payload(at)?;
        if payload.is_none() && store.place(&leaf_hash(leaf))?.is_some_and(|(_, given)| given) {
            done.missing += u64::from(!store.is_erased(at)?);
        }
        let rows = views::rows(leaf, payload.as_deref());
        store.put_rows(&mut batch, at, &rows)?;
        done.rows += u64::try_from(rows.len()).unwrap_or(0);
        at += 1;
    }
    if at != to {
        return Err(LogError::Damaged(format!("leaf {at} is missing")));
    }
    store.put_views_state(&mut batch, ViewsState::Rebuilding { format: views::FORMAT, next: to })?;
    store.commit(batch)?;
    Ok(())
}
