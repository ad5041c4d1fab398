//! The bounded queue between callers and the sequencer. Full means refused at once: nobody waits for room.

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
    pub(super) hash: Hash,
    pub(super) rows: Vec<Vec<u8>>,
}

impl Prepared {
    fn bytes(&self) -> usize {
        self.leaf.len() + self.payload.len()
    }
}

/// What one caller wants appended, and where the answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) entries: Vec<Prepared>,
    pub(super) reply: oneshot::Sender<Result<Answer, LogError>>,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    entries: usize,
    bytes: usize,
    closed: bool,
}

/// Owned by the callers (who push) and the sequencer (who drains).
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    most_entries: usize,
    most_bytes: usize,
    batch_entries: usize,
    batch_bytes: usize,
}

impl Queue {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            most_entries: options.queue_entries,
            most_bytes: options.queue_bytes,
            batch_entries: options.batch_entries,
            batch_bytes: options.batch_bytes,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in, or refuses it.
    pub(super) fn push(&self, request: Request) -> Result<(), LogError> {
        let (entries, bytes) = (request.entries.len(), request.entries.iter().map(Prepared::bytes).sum::<usize>());
        let mut state = self.state();
        if state.closed {
            return Err(LogError::Closed);
        }
        // A request that is larger than the whole queue still gets in when the queue is empty.
        let fits = state.entries + entries <= self.most_entries && state.bytes + bytes <= self.most_bytes;
        if !fits && !state.requests.is_empty() || self.most_entries == 0 {
            return Err(LogError::Full);
        }
        state.entries += entries;
        state.bytes += bytes;
        state.requests.push_back(request);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for requests and takes what is there, up to one batch. `None` once closed and empty.
    pub(super) fn drain(&self) -> Option<Vec<Request>> {
        let mut state = self
            .filled
            .wait_while(self.state(), |state| state.requests.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut taken, mut entries, mut bytes) = (Vec::new(), 0, 0);
        while let Some(request) = state.requests.pop_front() {
            let of_request = request.entries.iter().map(Prepared::bytes).sum::<usize>();
            let full = entries + request.entries.len() > self.batch_entries || bytes + of_request > self.batch_bytes;
            if full && !taken.is_empty() {
                state.requests.push_front(request);
                break;
            }
            entries += request.entries.len();
            bytes += of_request;
            taken.push(request);
        }
        state.entries -= entries;
        state.bytes -= bytes;
        (!taken.is_empty()).then_some(taken)
    }

    /// Lets nothing more in; what is in will still be drained.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
    }

    /// Whether [`Queue::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Entries that wait.
    pub(super) fn depth(&self) -> usize {
        self.state().entries
    }
}
