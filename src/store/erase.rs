//! Erasing a payload: the row, the rows that were folded from it, and every byte of them in any file.
//!
//! A deletion alone leaves the bytes in the write-ahead log, in table files and in blob files until they happen to be
//! rewritten. So all memtables are flushed, which lets the old write-ahead logs go, and the few files that hold the keys
//! are rewritten at once, their blobs too. Leaves and tiles are not touched: every proof stays as it is.

use rocksdb::{BottommostLevelCompaction, CompactOptions};

use super::{Batch, ERASED, META, PAYLOADS, Store, StoreError, VIEWS, views::row_key};

impl Store {
    /// Deletes the payload of entry `index` and its view rows (`rows`, without the index), synced, and remembers that.
    pub fn erase(&self, index: u64, rows: &[Vec<u8>]) -> Result<(), StoreError> {
        let key = index.to_be_bytes();
        let mut batch = Batch::default();
        batch.delete(self.into(PAYLOADS)?, &key);
        for row in rows {
            batch.delete(self.into(VIEWS)?, &row_key(row, index));
        }
        batch.put(self.into(ERASED)?, &key, &[]);
        self.commit(batch)?;
        self.purge(index, rows)
    }

    /// Whether the payload of entry `index` was erased.
    pub fn is_erased(&self, index: u64) -> Result<bool, StoreError> {
        Ok(self.read(ERASED, &index.to_be_bytes())?.is_some())
    }

    /// Rewrites the files that may still hold the deleted rows.
    fn purge(&self, index: u64, rows: &[Vec<u8>]) -> Result<(), StoreError> {
        let key = index.to_be_bytes();
        self.flush()?;
        let mut compact = CompactOptions::default();
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        compact.set_exclusive_manual_compaction(false);
        // Blobs are never collected otherwise; now those of the rewritten table files are.
        let payloads = self.family(PAYLOADS)?;
        self.db.set_options_cf(
            payloads,
            &[("enable_blob_garbage_collection", "true"), ("blob_garbage_collection_age_cutoff", "1.0")],
        )?;
        self.db.compact_range_cf_opt(payloads, Some(&key), Some(&key), &compact);
        self.db.set_options_cf(payloads, &[("enable_blob_garbage_collection", "false")])?;
        for row in rows {
            let row = row_key(row, index);
            self.db.compact_range_cf_opt(self.family(VIEWS)?, Some(&row), Some(&row), &compact);
        }
        // A write-ahead log goes when nothing in it is needed: a synced row in the newest one makes the old ones old.
        let mut batch = Batch::default();
        self.put(&mut batch, META, b"purged", &key)?;
        self.commit(batch)
    }
}
