//! A range of times as a part of a search: the entries of the range in the order of the log.
//!
//! Times stand under the index, as facts, and need not grow with it, so nothing is found by bisection. Instead the log is
//! taken in blocks of 1,024 entries. When a block turns out to hold a time outside of the range, its earliest and latest
//! time are read, once for ever (a full block does not change, except that entries are erased, which makes a span too wide
//! and never too narrow); blocks that lie outside of a range are passed over from then on. A clock that jumps spoils the
//! blocks in which it jumped, and no others.

use std::sync::{Mutex, PoisonError};

use super::{LogError, views::TIME};
use crate::store::{
    Store,
    views::{Cursor, Order},
};

/// Entries of one block.
pub(super) const BLOCK: u64 = 1_024;

/// Times from `since` on and before `until`, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first second.
    pub since: u64,
    /// The second after the last one; `u64::MAX` for no end.
    pub until: u64,
}

impl TimeRange {
    const fn contains(self, time: u64) -> bool {
        self.since <= time && time < self.until
    }

    const fn overlaps(self, (first, last): (u64, u64)) -> bool {
        self.since <= last && first < self.until
    }
}

/// Earliest and latest time of a block; `None` when no entry of it has a time.
type Span = Option<(u64, u64)>;

/// What was read of full blocks: 24 bytes for each, and only what searches came across.
#[derive(Debug, Default)]
pub(super) struct Spans(Vec<Option<Span>>);

impl Spans {
    fn get(&self, block: u64) -> Option<Span> {
        self.0.get(usize::try_from(block).ok()?).copied().flatten()
    }

    fn set(&mut self, block: u64, span: Span) {
        let Ok(slot) = usize::try_from(block) else { return };
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        if let Some(known) = self.0.get_mut(slot) {
            *known = Some(span);
        }
    }
}

/// One search's walk over the times.
pub(super) struct Times<'a> {
    facts: Cursor<'a>,
    /// Reads whole blocks, so that `facts` stays where it is.
    blocks: Cursor<'a>,
    spans: &'a Mutex<Spans>,
    range: TimeRange,
    size: u64,
    unknown: bool,
}

impl<'a> Times<'a> {
    pub(super) fn new(
        store: &'a Store,
        spans: &'a Mutex<Spans>,
        range: TimeRange,
        size: u64,
    ) -> Result<Self, LogError> {
        let (facts, blocks) = (store.cursor(&[TIME], size)?, store.cursor(&[TIME], size)?);
        Ok(Self { facts, blocks, spans, range, size, unknown: false })
    }

    /// Whether the entry that was found last has no known time.
    pub(super) const fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// The first entry at or after `at` that is in the range, or may be. `false` beside it: not found yet, go on there.
    pub(super) fn seek(&mut self, mut at: u64, order: Order, work: &mut u64) -> Result<Option<(u64, bool)>, LogError> {
        while at < self.size {
            if *work == 0 {
                return Ok(Some((at, false)));
            }
            let block = at / BLOCK;
            let next = if self.is_outside(block) {
                *work = work.saturating_sub(1);
                match order {
                    Order::OldestFirst => block.checked_add(1).and_then(|next| next.checked_mul(BLOCK)),
                    Order::NewestFirst => (block * BLOCK).checked_sub(1),
                }
            } else {
                *work = work.saturating_sub(1);
                let time =
                    self.facts.seek(at, order)?.filter(|(index, _)| *index == at).and_then(|(_, fact)| time(fact));
                self.unknown = time.is_none();
                if time.is_none_or(|time| self.range.contains(time)) {
                    return Ok(Some((at, true)));
                }
                self.learn(block, work)?;
                order.after(at)
            };
            match next {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every time of the block is known and outside of the range. Entries without a time among them are taken to
    /// be of the same age. A block without any time is never outside.
    fn is_outside(&self, block: u64) -> bool {
        self.known().get(block).flatten().is_some_and(|span| !self.range.overlaps(span))
    }

    /// Reads the span of a full block, if that was not done before.
    fn learn(&mut self, block: u64, work: &mut u64) -> Result<(), LogError> {
        let first = block * BLOCK;
        let end = first.saturating_add(BLOCK);
        if end > self.size || self.known().get(block).is_some() {
            return Ok(());
        }
        let (mut span, mut at): (Span, u64) = (None, first);
        while let Some((index, fact)) = self.blocks.seek(at, Order::OldestFirst)?.filter(|(index, _)| *index < end) {
            if let Some(time) = time(fact) {
                span = Some(span.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
            }
            *work = work.saturating_sub(1);
            at = index.saturating_add(1);
        }
        self.known().set(block, span);
        Ok(())
    }
}

fn time(fact: &[u8]) -> Option<u64> {
    fact.try_into().ok().map(u64::from_be_bytes)
}
