//! A copy of the store while it goes on: a checkpoint of the database (hard links where they can be), and an anchor
//! that says "this is a backup".

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;

use super::{
    Batch, DATABASE, DEDUP, LEAVES, PAYLOADS, Store, StoreError, VIEWS, anchor::Anchor, make_directory, sync_directory,
    views::row_key,
};

impl Store {
    /// Copies the store into the new directory `to`; `size` and `root` are a published head that it surely holds.
    ///
    /// The anchor is written last: a copy without one is not whole, and is refused.
    pub fn backup(&self, to: &Path, size: u64, root: [u8; 32]) -> Result<(), StoreError> {
        if to.exists() {
            return Err(StoreError::Exists(to.to_owned()));
        }
        make_directory(to)?;
        Checkpoint::new(&self.db)?.create_checkpoint(to.join(DATABASE))?;
        Anchor::create_backup(to, size, root)?;
        sync_directory(to)
    }

    /// Deletes entries from index `from` on, which no head ever spoke of: what an interrupted restore left. `hash` and
    /// `rows` say under what an entry is found.
    pub fn drop_unsigned(
        &self,
        mut from: u64,
        hash: impl Fn(&[u8]) -> [u8; 32],
        rows: impl Fn(&[u8], Option<&[u8]>) -> Vec<Vec<u8>>,
    ) -> Result<(), StoreError> {
        loop {
            let leaves = self.leaves(from, 256)?;
            let Some(last) = u64::try_from(leaves.len()).ok().filter(|count| *count > 0) else { return Ok(()) };
            let mut batch = Batch::default();
            for (leaf, index) in leaves.iter().zip(from..) {
                let key = index.to_be_bytes();
                if self.index_of(&hash(leaf))? == Some(index) {
                    batch.delete(self.into(DEDUP)?, &hash(leaf));
                }
                for row in rows(leaf, self.payload(index)?.as_deref()) {
                    batch.delete(self.into(VIEWS)?, &row_key(&row, index));
                }
                batch.delete(self.into(PAYLOADS)?, &key);
                batch.delete(self.into(LEAVES)?, &key);
            }
            self.commit(batch)?;
            from = from.saturating_add(last);
        }
    }
}
