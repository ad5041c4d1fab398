//! Rows of the views: their keys, cursors over them, and what is known of them as a whole.
//!
//! A *term* row is a prefix and the entry's index: all entries of one term stand together, in the order of the log. A
//! *fact* row is a kind from [`FACT`] on, the entry's index and then the fact, so that a fact of an entry is found by
//! its index. Values are empty. What prefixes and facts mean is decided in `log`.

use std::{fmt, str::FromStr};

use rocksdb::{DBRawIterator, ReadOptions};

use super::{Batch, Store, StoreError, VIEWS, u64_of};

/// The first kind of fact rows; kinds below it are of term rows.
pub const FACT: u8 = 0x80;
/// Beyond every row.
const END: [u8; 1] = [0xff];
/// What stands beyond every row of one index: no fact is as long.
const BEYOND: [u8; 32] = [0xff; 32];
/// The name of the state under `meta`.
const STATE: &str = "views";

/// The key under which `row` of the entry at `index` is stored.
pub fn row_key(row: &[u8], index: u64) -> Vec<u8> {
    let index = index.to_be_bytes();
    match row.split_first() {
        Some((kind, fact)) if *kind >= FACT => [&[*kind], index.as_slice(), fact].concat(),
        _ => [row, &index].concat(),
    }
}

/// The index of the entry that a row's key belongs to.
pub fn row_index(key: &[u8]) -> Option<u64> {
    match key.split_first() {
        Some((kind, rest)) if *kind >= FACT => rest.first_chunk::<8>(),
        _ => key.last_chunk::<8>(),
    }
    .map(|bytes| u64::from_be_bytes(*bytes))
}

/// Whether the rows that are there are all that should be there, and in which format they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViewsState {
    /// Every entry has its rows.
    Complete {
        /// The format of the rows.
        format: u32,
    },
    /// They are being rebuilt, or a rebuild was interrupted.
    Rebuilding {
        /// The format of the rows.
        format: u32,
        /// Entries below this index have their rows, the others have none.
        next: u64,
    },
}

impl fmt::Display for ViewsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete { format } => write!(f, "{format} complete"),
            Self::Rebuilding { format, next } => write!(f, "{format} rebuilding {next}"),
        }
    }
}

impl FromStr for ViewsState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (format, rest) = text.split_once(' ').ok_or(())?;
        let format = format.parse().map_err(|_source| ())?;
        match rest.split_once(' ') {
            None if rest == "complete" => Ok(Self::Complete { format }),
            Some(("rebuilding", next)) => Ok(Self::Rebuilding { format, next: next.parse().map_err(|_source| ())? }),
            _ => Err(()),
        }
    }
}

/// The direction in which a cursor looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Towards higher indexes.
    OldestFirst,
    /// Towards lower indexes.
    NewestFirst,
}

impl Order {
    /// The index after `index` in this order, if there is one.
    pub const fn after(self, index: u64) -> Option<u64> {
        match self {
            Self::OldestFirst => index.checked_add(1),
            Self::NewestFirst => index.checked_sub(1),
        }
    }
}

/// Where a cursor stands: an index, and the fact there (empty in term rows).
pub type Row<'a> = (u64, &'a [u8]);

/// A cursor over the rows of one term, or over the facts of one kind. It sees the rows that were there when it was
/// made.
pub struct Cursor<'a> {
    rows: DBRawIterator<'a>,
    prefix: Vec<u8>,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("prefix", &hex::encode(&self.prefix)).finish_non_exhaustive()
    }
}

impl Cursor<'_> {
    /// The first row at `at` or after it in `order`. Where rows lie side by side it steps instead of searching.
    pub fn seek(&mut self, at: u64, order: Order) -> Result<Option<Row<'_>>, StoreError> {
        if !self.step(at, order) {
            let mut key = [self.prefix.as_slice(), &at.to_be_bytes()].concat();
            match order {
                Order::OldestFirst => self.rows.seek(&key),
                Order::NewestFirst => {
                    key.extend_from_slice(&BEYOND);
                    self.rows.seek_for_prev(&key);
                }
            }
        }
        if !self.rows.valid() {
            self.rows.status()?;
        }
        Ok(self.row())
    }

    /// Moves to the neighbour if that is what a search for `at` would find; whether it was.
    fn step(&mut self, at: u64, order: Order) -> bool {
        let Some((here, _)) = self.row() else { return false };
        let neighbour = match order {
            Order::OldestFirst if here.checked_add(1) == Some(at) => {
                self.rows.next();
                true
            }
            Order::NewestFirst if here.checked_sub(1) == Some(at) => {
                self.rows.prev();
                true
            }
            _ => return here == at,
        };
        // The neighbour may be a second fact of the same index: then search after all.
        neighbour && self.row().is_some_and(|(found, _)| found != here)
    }

    fn row(&self) -> Option<Row<'_>> {
        let rest = self.rows.key()?.strip_prefix(self.prefix.as_slice())?;
        let (index, fact) = rest.split_at_checked(8)?;
        Some((u64_of(index)?, fact))
    }
}

impl Store {
    /// A cursor over the rows under `prefix` (a whole term, or the kind of a fact) of entries below `below`.
    pub fn cursor(&self, prefix: &[u8], below: u64) -> Result<Cursor<'_>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(prefix);
        options.set_iterate_upper_bound([prefix, &below.to_be_bytes()].concat());
        let rows = self.db.raw_iterator_cf_opt(self.family(VIEWS)?, options);
        Ok(Cursor { rows, prefix: prefix.to_owned() })
    }

    /// What is known of the rows as a whole; `None` in a log that was made before that was recorded.
    pub fn views_state(&self) -> Result<Option<Result<ViewsState, String>>, StoreError> {
        Ok(self.meta(STATE)?.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.parse().map_err(|()| text)
        }))
    }

    /// Says what holds of the rows once the batch is committed.
    pub fn put_views_state(&self, batch: &mut Batch, state: ViewsState) -> Result<(), StoreError> {
        self.put_meta(batch, STATE, state.to_string().as_bytes())
    }

    /// Removes every row.
    pub fn clear_rows(&self, batch: &mut Batch) -> Result<(), StoreError> {
        batch.delete_range(self.into(VIEWS)?, &[], &END);
        Ok(())
    }

    /// Adds rows of the entry at `index`.
    pub fn put_rows(&self, batch: &mut Batch, index: u64, rows: &[Vec<u8>]) -> Result<(), StoreError> {
        let views = self.into(VIEWS)?;
        for row in rows {
            batch.put(views, &row_key(row, index), &[]);
        }
        Ok(())
    }

    /// Gives back the space of removed rows.
    pub fn compact_rows(&self) -> Result<(), StoreError> {
        self.db.compact_range_cf(self.family(VIEWS)?, None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }
}
