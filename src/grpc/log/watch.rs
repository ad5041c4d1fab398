//! One watcher: entries from an index on, as they are published, one at a time.
//!
//! Nothing is read ahead of what the transport asks for, so a watcher that does not read holds one entry and its place.
//! How many watchers there may be, in all and of one caller, is bounded.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{LogFace, messages, off_thread, status};
use crate::{
    grpc::v1,
    log::search::{Filter, Finder, Order},
    model::{Identity, limits},
};

/// Indexes that are found at a time.
const FOUND: usize = 256;

/// Who watches now.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<Identity, usize>>);

/// A watcher's place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    of: Arc<Watchers>,
    who: Identity,
}

impl Watchers {
    /// A place for one more watcher.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when the caller, or all together, have too many.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    pub(super) fn admit(self: &Arc<Self>, who: Identity) -> Result<Slot, Status> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (open.values().sum::<usize>(), open.get(&who).copied().unwrap_or(0));
        let refused = if own >= limits::WATCHERS_EACH {
            Some(format!("{who} has {own} watches open, which is the limit; end one of them"))
        } else if all >= limits::WATCHERS {
            Some(format!("{all} watches are open, which is the limit; try again later, or use Search"))
        } else {
            None
        };
        if let Some(message) = refused {
            return Err(status::with_info(Code::ResourceExhausted, &message, "TOO_MANY_WATCHES", HashMap::new()));
        }
        open.insert(who.clone(), own + 1);
        Ok(Slot { of: Arc::clone(self), who })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.who) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                open.remove(&self.who);
            }
        }
    }
}

/// A watch under way, owned by its stream.
pub(super) struct Watch {
    finder: Finder,
    filter: Filter,
    with_payload: bool,
    silence: Duration,
    /// What was found and not sent.
    found: VecDeque<u64>,
    /// Everything below was looked at.
    looked_to: u64,
    without_time: u64,
    sizes: tokio::sync::watch::Receiver<u64>,
    stopping: tokio::sync::watch::Receiver<bool>,
    /// When the last message was sent.
    told: Instant,
    ended: bool,
    _slot: Slot,
}

impl Watch {
    pub(super) fn new(
        face: &LogFace,
        finder: Finder,
        filter: Filter,
        from: u64,
        with_payload: bool,
        slot: Slot,
    ) -> Self {
        let (sizes, stopping) = (finder.log().watch(), face.stopping.clone());
        Self {
            finder,
            filter,
            with_payload,
            silence: face.silence,
            found: VecDeque::new(),
            looked_to: from,
            without_time: 0,
            sizes,
            stopping,
            told: Instant::now(),
            ended: false,
            _slot: slot,
        }
    }

    /// The next message; after an error, nothing more.
    pub(super) async fn step(mut self) -> Option<(Result<v1::WatchResponse, Status>, Self)> {
        if self.ended {
            return None;
        }
        let message = self.message().await;
        self.ended = message.is_err();
        self.told = Instant::now();
        Some((message, self))
    }

    async fn message(&mut self) -> Result<v1::WatchResponse, Status> {
        loop {
            if *self.stopping.borrow_and_update() {
                return Err(stopping(self.resume_index()));
            }
            if let Some(index) = self.found.pop_front() {
                return self.entry(index).await;
            }
            let size = *self.sizes.borrow_and_update();
            if self.told.elapsed() >= self.silence {
                return Ok(self.progress(size));
            }
            if self.looked_to < size {
                self.look().await?;
                continue;
            }
            let log = self.finder.log();
            if let Some(successor) = log.successor() {
                // Whatever was published at the last moment was published before the log was called frozen.
                if self.looked_to < log.size() {
                    continue;
                }
                return Err(frozen(self.resume_index(), successor));
            }
            let news = tokio::select! {
                changed = self.sizes.changed() => changed,
                changed = self.stopping.changed() => changed,
                () = sleep_until(self.told + self.silence) => Ok(()),
            };
            if news.is_err() {
                return Err(stopping(self.resume_index()));
            }
        }
    }

    /// Where a watch would have to begin to go on from here.
    fn resume_index(&self) -> u64 {
        self.found.front().copied().unwrap_or(self.looked_to)
    }

    async fn look(&mut self) -> Result<(), Status> {
        let (finder, filter, from) = (self.finder.clone(), self.filter.clone(), self.looked_to);
        let page = off_thread(move || finder.page(&filter, Some(from), FOUND, Order::OldestFirst)).await?;
        self.looked_to = page.next.unwrap_or(page.complete_to_size);
        self.without_time = self.without_time.saturating_add(page.without_time);
        self.found = page.indexes.into();
        Ok(())
    }

    async fn entry(&mut self, index: u64) -> Result<v1::WatchResponse, Status> {
        let log = self.finder.log().clone();
        let found = off_thread(move || log.entry(index)).await?;
        let size = *self.sizes.borrow();
        let message = self.progress(size);
        let summary = Some(messages::summary(&found));
        Ok(v1::WatchResponse { summary, entry: Some(messages::entry(found, self.with_payload)), ..message })
    }

    fn progress(&mut self, size: u64) -> v1::WatchResponse {
        let without_time = std::mem::take(&mut self.without_time);
        v1::WatchResponse { entry: None, size, resume_index: self.resume_index(), summary: None, without_time }
    }
}

/// The end of a watch that did nothing wrong.
fn stopping(resume_index: u64) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
    let metadata: HashMap<String, String> = [("resume_index".to_owned(), resume_index.to_string())].into();
    details.set_error_info("STOPPING", status::DOMAIN, metadata);
    let message = format!("the service is stopping; watch again from index {resume_index}");
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The end of a log: there will be nothing more, and another log goes on.
fn frozen(resume_index: u64, successor: &str) -> Status {
    let metadata = [("resume_index", resume_index.to_string()), ("successor", successor.to_owned())];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value)).into();
    let message = format!("this log is frozen, and all of it was sent; watch its successor {successor} from index 0");
    status::with_info(Code::OutOfRange, &message, "LOG_FROZEN", metadata)
}
