//! Search: entries that fit all parts of a filter, in the order of the log, page by page.
//!
//! Every term of a filter has its rows in the order of the log, so the intersection is a walk in which each term, in
//! turn, jumps to its first row at or after where the others stand: the rarest term sets the pace. A range of times takes
//! part like a term (`times`).
//!
//! The work of one page is bounded. A page whose bound is reached ends early, perhaps with nothing found, and says where
//! to go on. That place is an index, so pages are stable while the log grows: what is appended later has a higher index,
//! which oldest-first comes at the end, and newest-first before the first page.

use std::sync::{Arc, Mutex};

pub use super::times::TimeRange;
use super::{
    Log, LogError, View,
    times::{BLOCK, Spans, Times},
    views,
};
use crate::store::views::Cursor;
pub use crate::store::views::Order;

/// Rows that one page looks at, together, unless a test says otherwise.
const WORK: u64 = 100_000;
/// With less than this a page might not get past one entry: one block of times and some searches.
const LEAST_WORK: u64 = 2 * BLOCK;
/// What a search among rows costs, counted in rows that are read one after the other.
const SEARCH: u64 = 4;

/// What an entry must be: every view it must stand in, and when it must have been made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The entry stands in each of them.
    pub views: Vec<View>,
    /// Its time is known and lies in this range.
    pub times: Option<TimeRange>,
}

/// A part of the answer to a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries, in the asked order.
    pub indexes: Vec<u64>,
    /// The size of the log that was searched: of the entries below it, none that fits and lies between the page's start
    /// and `next` is missing.
    pub complete_to_size: u64,
    /// Where the next page starts; `None` when this one reached the end.
    pub next: Option<u64>,
    /// Entries on the way that fit the views and have no known time, so that nobody can say whether they fit the range.
    pub without_time: u64,
}

/// Searches one log, and remembers what spans of time its blocks cover. Clones share that.
#[derive(Debug, Clone)]
pub struct Finder {
    log: Log,
    spans: Arc<Mutex<Spans>>,
    work: u64,
}

/// What a walk came to.
enum Step {
    At(u64),
    End,
    /// The bound was reached; everything before this place is decided.
    Pause(u64),
}

impl Finder {
    /// A finder over `log`.
    pub fn new(log: Log) -> Self {
        Self::with_work(log, WORK)
    }

    /// A finder whose pages look at about `work` rows.
    pub fn with_work(log: Log, work: u64) -> Self {
        Self { log, spans: Arc::default(), work: work.max(LEAST_WORK) }
    }

    /// The log that is searched.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// One page of at most `limit` entries. Oldest first it begins at `from` (else at 0), newest first below `from`
    /// (else at the end). Reads the store: call it off the async threads.
    pub fn page(&self, filter: &Filter, from: Option<u64>, limit: usize, order: Order) -> Result<Page, LogError> {
        // The size first: what is published while we look may be seen, but the answer does not claim it.
        let size = self.log.size();
        let mut page = Page { complete_to_size: size, ..Page::default() };
        let start = match order {
            Order::OldestFirst => Some(from.unwrap_or(0)).filter(|from| *from < size),
            Order::NewestFirst => from.unwrap_or(size).min(size).checked_sub(1),
        };
        if let Some(start) = start {
            let place = Walk::new(self, filter, size, order)?.run(start, limit, &mut page)?;
            page.next = place.map(|at| if order == Order::OldestFirst { at } else { at.saturating_add(1) });
        }
        Ok(page)
    }
}

/// One page under way.
struct Walk<'a> {
    terms: Vec<Cursor<'a>>,
    times: Option<Times<'a>>,
    size: u64,
    order: Order,
    work: u64,
}

impl<'a> Walk<'a> {
    fn new(finder: &'a Finder, filter: &Filter, size: u64, order: Order) -> Result<Self, LogError> {
        let store = &finder.log.0.shared.store;
        let prefixes = filter.views.iter().filter_map(views::prefix);
        let terms = prefixes.map(|prefix| store.cursor(&prefix, size)).collect::<Result<_, _>>()?;
        let times = filter.times.map(|range| Times::new(store, &finder.spans, range, size)).transpose()?;
        Ok(Self { terms, times, size, order, work: finder.work })
    }

    /// Fills the page from `at` on. Returns where the next one starts, if there may be more.
    fn run(mut self, mut at: u64, limit: usize, page: &mut Page) -> Result<Option<u64>, LogError> {
        loop {
            match self.agree(at)? {
                Step::At(index) if self.has_time() => {
                    page.indexes.push(index);
                    at = index;
                }
                Step::At(index) => {
                    // The first entry of every log is its birth certificate, which nobody misses in a range of times.
                    page.without_time += u64::from(index != 0);
                    at = index;
                }
                Step::End => return Ok(None),
                Step::Pause(resume) => return Ok(Some(resume)),
            }
            match self.order.after(at).filter(|next| *next < self.size) {
                Some(next) => at = next,
                None => return Ok(None),
            }
            if page.indexes.len() >= limit {
                return Ok(Some(at));
            }
        }
    }

    /// Whether the entry that was agreed on is known to lie in the range of times.
    fn has_time(&self) -> bool {
        self.times.as_ref().is_none_or(|times| !times.is_unknown())
    }

    /// The first entry at or after `at` on which all parts of the filter agree.
    fn agree(&mut self, mut at: u64) -> Result<Step, LogError> {
        let parts = self.terms.len() + usize::from(self.times.is_some());
        let (mut agreed, mut turn) = (0, 0);
        while agreed < parts {
            if self.work == 0 {
                return Ok(Step::Pause(at));
            }
            let found = match self.terms.get_mut(turn) {
                Some(term) => {
                    self.work = self.work.saturating_sub(SEARCH);
                    term.seek(at, self.order)?.map_or(Step::End, |(index, _)| Step::At(index))
                }
                None => self.times(at)?,
            };
            match found {
                Step::At(index) if index == at => agreed += 1,
                Step::At(index) => (at, agreed) = (index, 1),
                other => return Ok(other),
            }
            turn = (turn + 1) % parts;
        }
        Ok(Step::At(at))
    }

    fn times(&mut self, at: u64) -> Result<Step, LogError> {
        let Some(times) = &mut self.times else { return Ok(Step::End) };
        Ok(match times.seek(at, self.order, &mut self.work)? {
            None => Step::End,
            Some((at, true)) => Step::At(at),
            Some((at, false)) => Step::Pause(at),
        })
    }
}
