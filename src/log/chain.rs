//! The chain of logs of one instance: the frozen ones, oldest first, and the present one.
//!
//! A log that has grown too large, or whose key is to be replaced, is succeeded by a new one under another origin: the
//! new log is opened first, then the old one is *frozen*: what it was given is committed and answered, its last
//! checkpoint is final, and it says so to whoever still appends. Old receipts and bundles stay valid, as both logs are
//! trusted. Nobody gets a virtual index: a place is an origin and an index in that log.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Draft, Head, Log, LogError, Receipt, View};
use crate::store::Batch;

/// The name under which a frozen log remembers its successor.
pub(super) const FROZEN: &str = "frozen";

/// A place in the chain; places of later logs are larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which log, from the oldest.
    pub log: usize,
    /// The index in it, or its size.
    pub index: u64,
}

/// All logs of one instance; clones are the same chain. Never empty.
#[derive(Debug, Clone)]
pub struct Logs(Arc<RwLock<Vec<Log>>>);

impl Logs {
    /// The chain of `frozen` logs, oldest first, and the present one.
    pub fn new(mut frozen: Vec<Log>, present: Log) -> Self {
        frozen.push(present);
        Self(Arc::new(RwLock::new(frozen)))
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Log> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one that takes entries.
    #[expect(clippy::expect_used, reason = "a chain is made with one log and never loses one")]
    pub fn present(&self) -> Log {
        self.0.read().unwrap_or_else(PoisonError::into_inner).last().cloned().expect("a chain is never empty")
    }

    /// Appends to the present log, and to the next one if the log was succeeded meanwhile; with the log that took the
    /// entries. `drafts` is asked once for each attempt.
    ///
    /// # Errors
    /// Those of [`Log::append`].
    pub async fn append(&self, drafts: impl Fn() -> Vec<Draft>) -> Result<(Log, Vec<Receipt>), LogError> {
        loop {
            let log = self.present();
            match log.append(drafts()).await {
                Err(LogError::Frozen(_) | LogError::Closed) if self.present().origin() != log.origin() => {}
                receipts => return Ok((log, receipts?)),
            }
        }
    }

    /// The log of this origin.
    pub fn of(&self, origin: &str) -> Option<Log> {
        self.all().into_iter().find(|log| log.origin() == origin)
    }

    /// The end of the chain as it is published now.
    pub fn end(&self) -> Position {
        let logs = self.all();
        Position { log: logs.len().saturating_sub(1), index: logs.last().map_or(0, Log::size) }
    }

    /// Calls `each` with log and index of every entry of the view from `from` to below `to`, oldest first, `page` at a
    /// time.
    pub fn each<E: From<LogError>>(
        &self,
        view: &View,
        from: Position,
        to: Position,
        page: usize,
        mut each: impl FnMut(&Log, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for (number, log) in self.all().iter().enumerate().take(to.log.saturating_add(1)).skip(from.log) {
            let mut next = if number == from.log { from.index } else { 0 };
            let end = if number == to.log { to.index } else { log.size() };
            while next < end {
                let found = log.find(view, next, page)?;
                for index in found.iter().copied().filter(|index| *index < end) {
                    each(log, index)?;
                }
                match found.last() {
                    Some(last) if found.len() == page => next = last.saturating_add(1),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Makes `next` the present log, and freezes the one before. Blocks until that has answered everybody.
    ///
    /// # Errors
    /// Those of [`Log::freeze`]. The new log is the present one even then.
    pub fn succeed(&self, next: Log) -> Result<Head, LogError> {
        let (old, origin) = (self.present(), next.origin().to_owned());
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(next);
        old.freeze(&origin)
    }

    /// Closes all of them; see [`Log::close`].
    pub fn close(&self) {
        self.all().iter().for_each(Log::close);
    }
}

impl From<Log> for Logs {
    fn from(present: Log) -> Self {
        Self::new(Vec::new(), present)
    }
}

impl Log {
    /// Ends the log for good: lets nothing more in, commits and answers what waits, and remembers its successor's
    /// origin. Its last head is final; it can be read and proven for ever. Blocks until then.
    ///
    /// # Errors
    /// [`LogError::Broken`] if the log cannot write, [`LogError::Unwitnessed`] if its last head was not cosigned in time;
    /// it is closed then, and not frozen.
    pub fn freeze(&self, successor: &str) -> Result<Head, LogError> {
        self.close();
        let shared = &self.0.shared;
        if shared.is_broken() {
            return Err(LogError::Broken(shared.broken_reason()));
        }
        self.check_all_shown()?;
        let mut batch = Batch::default();
        shared.store.put_meta(&mut batch, FROZEN, successor.as_bytes())?;
        shared.store.commit(batch)?;
        // Set once: a log is frozen once.
        let successor = shared.frozen.get_or_init(|| successor.to_owned());
        tracing::info!(origin = self.origin(), successor, size = self.size(), "the log is frozen");
        Ok(self.head())
    }

    /// The origin of the log that succeeds this one, if it is frozen.
    pub fn successor(&self) -> Option<&str> {
        self.0.shared.frozen.get().map(String::as_str)
    }
}
