//! The bounded queue between callers and the sequencer. Full means refused at once: nobody waits for room.
//!
//! The queue also knows whether the writer is free. The sequencer asks for its next piece of work and is told in one
//! answer what came in and whether to seal the open batch now: while the writer syncs a batch, the next one grows;
//! the moment the writer is free it is sealed. So batches follow the load, with no timer.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{LogError, Options, sequencer::Answer};
use crate::tlog::Hash;

/// An entry whose hash and rows were computed by its caller.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) leaf: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// The payload's checksum, made by the caller.
    pub(super) payload_sum: u32,
    pub(super) hash: Hash,
    pub(super) rows: Vec<Vec<u8>>,
}

/// A number of entries and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Amount {
    pub(super) const fn plus(self, other: Self) -> Self {
        Self { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }

    const fn minus(self, other: Self) -> Self {
        Self { entries: self.entries.saturating_sub(other.entries), bytes: self.bytes.saturating_sub(other.bytes) }
    }

    const fn fits(self, most: Self) -> bool {
        self.entries <= most.entries && self.bytes <= most.bytes
    }
}

/// What one caller wants appended, and where the answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) entries: Vec<Prepared>,
    pub(super) reply: oneshot::Sender<Result<Answer, LogError>>,
}

impl Request {
    pub(super) fn amount(&self) -> Amount {
        let bytes = self.entries.iter().map(|entry| entry.leaf.len() + entry.payload.len()).sum();
        Amount { entries: self.entries.len(), bytes }
    }
}

/// The sequencer's next piece of work.
#[derive(Debug)]
pub(super) struct Work {
    /// What came in and fits into the open batch.
    pub(super) requests: Vec<Request>,
    /// The writer is free and now reserved: seal the open batch and hand it over.
    pub(super) seal: bool,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    waiting: Amount,
    closed: bool,
    writer_busy: bool,
}

/// Owned by the callers (who push), the sequencer (who asks for work) and the writer (who says that it is free).
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: Amount,
    batch: Amount,
}

impl Queue {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            most: Amount { entries: options.queue_entries, bytes: options.queue_bytes },
            batch: Amount { entries: options.batch_entries, bytes: options.batch_bytes },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in, or refuses it.
    pub(super) fn push(&self, request: Request) -> Result<(), LogError> {
        let amount = request.amount();
        let mut state = self.state();
        if state.closed {
            return Err(LogError::Closed);
        }
        // A request that is larger than the whole queue still gets in when the queue is empty.
        let fits = state.waiting.plus(amount).fits(self.most);
        if !fits && !state.requests.is_empty() || self.most.entries == 0 {
            return Err(LogError::Full);
        }
        state.waiting = state.waiting.plus(amount);
        let was_empty = state.requests.is_empty();
        state.requests.push_back(request);
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until there is something to do for a sequencer whose open batch has grown to `open`. `None` once the queue
    /// is closed, empty, and nothing is open.
    pub(super) fn next(&self, open: Amount) -> Option<Work> {
        let mut state = self.state();
        loop {
            let requests = self.take(&mut state, open);
            let seal = (open.entries > 0 || !requests.is_empty()) && !state.writer_busy;
            if seal || !requests.is_empty() {
                state.writer_busy |= seal;
                return Some(Work { requests, seal });
            }
            if state.closed && state.requests.is_empty() && open.entries == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes requests from the front as long as they fit beside `open`; one always fits into an empty batch.
    fn take(&self, state: &mut State, mut open: Amount) -> Vec<Request> {
        let mut taken = Vec::new();
        while let Some(request) = state.requests.front() {
            let amount = request.amount();
            if open.entries > 0 && !open.plus(amount).fits(self.batch) {
                break;
            }
            open = open.plus(amount);
            state.waiting = state.waiting.minus(amount);
            taken.extend(state.requests.pop_front());
        }
        taken
    }

    /// The writer (or a sequencer that reserved it and has nothing to hand over) is free.
    pub(super) fn writer_is_free(&self) {
        self.state().writer_busy = false;
        self.changed.notify_all();
    }

    /// Lets nothing more in; what is in will still be worked off.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Whether [`Queue::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Entries that wait.
    pub(super) fn depth(&self) -> usize {
        self.state().waiting.entries
    }
}
