//! A batch, and the checksum that its bytes must still have when they are written.
//!
//! Between the moment a caller hands in an entry and the moment its bytes are in the write-ahead log (which has its own
//! checksums), they lie in memory, and memory breaks. Leaves are hashed again before anything is signed (`log::sequencer`);
//! but nothing is signed over payloads, views, tiles and the table of known leaves. So a batch sums up every row as it is
//! put in, a payload by the sum that its caller made, and the finished bytes are summed up again right before they are
//! written. A batch that differs is not written. This guards against broken memory, not against an attacker: CRC-32.

use rocksdb::{ColumnFamily, WriteBatch, WriteBatchIteratorCf};

use super::StoreError;

/// A column family and how a batch names it.
#[derive(Clone, Copy)]
pub(super) struct Family<'a> {
    pub(super) handle: &'a ColumnFamily,
    pub(super) id: u32,
}

/// Everything that one commit writes; nothing of it is there before [`Store::commit`](super::Store::commit), all of it
/// after.
#[derive(Default)]
pub struct Batch {
    pub(super) rows: WriteBatch,
    sum: RowSum,
    is_unchecked: bool,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (rows, bytes) = (self.rows.len(), self.rows.size_in_bytes());
        f.debug_struct("Batch").field("rows", &rows).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// The checksum of a value, as a caller makes it before the value goes its way.
pub fn sum(value: &[u8]) -> u32 {
    crc32fast::hash(value)
}

impl Batch {
    /// Adds a row.
    pub(super) fn put(&mut self, family: Family<'_>, key: &[u8], value: &[u8]) {
        self.put_summed(family, key, value, sum(value));
    }

    /// Adds a row whose value had the given sum when it came.
    pub(super) fn put_summed(&mut self, family: Family<'_>, key: &[u8], value: &[u8], sum: u32) {
        self.sum.add(family.id, key, Some(sum));
        self.rows.put_cf(family.handle, key, value);
    }

    /// Deletes a row.
    pub(super) fn delete(&mut self, family: Family<'_>, key: &[u8]) {
        self.sum.add(family.id, key, None);
        self.rows.delete_cf(family.handle, key);
    }

    /// Deletes all rows of a column family from `from` to below `to`. Such a batch cannot be visited, and is written as it
    /// is: only views are cleared so, and they are folded anew.
    pub(super) fn delete_range(&mut self, family: Family<'_>, from: &[u8], to: &[u8]) {
        self.is_unchecked = true;
        self.rows.delete_range_cf(family.handle, from, to);
    }

    /// Calls `visit` with key and value of every row that the finished batch puts into a column family.
    pub(super) fn each(&self, family: u32, visit: impl FnMut(&[u8], &[u8])) {
        self.rows.iterate_cf(&mut Visitor { family, visit });
    }

    /// Sums the finished bytes up again.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let mut again = RowSum::default();
        self.rows.iterate_cf(&mut again);
        // The batch also counts its rows; the database would write a wrong count, and refuse to read it.
        let counted = u64::try_from(self.rows.len()).ok();
        if self.is_unchecked || again.same_as(&self.sum) && counted == Some(again.rows) {
            Ok(())
        } else {
            Err(StoreError::Memory)
        }
    }

    /// Lets the batch be written whatever became of its bytes. For negative controls alone.
    pub fn unchecked_unsafe(&mut self) {
        self.is_unchecked = true;
    }

    /// Lets `damage` change the finished batch's bytes, as broken memory would. For tests alone.
    pub fn damage_unsafe(&mut self, damage: &dyn Fn(&mut [u8])) {
        let mut bytes = self.rows.data().to_vec();
        damage(&mut bytes);
        self.rows = WriteBatch::from_data(&bytes);
    }
}

/// A checksum over rows in their order: family, key, and the value's own sum; none for a deletion.
#[derive(Default)]
struct RowSum {
    hasher: crc32fast::Hasher,
    rows: u64,
}

impl RowSum {
    fn add(&mut self, family: u32, key: &[u8], value: Option<u32>) {
        self.hasher.update(&family.to_be_bytes());
        self.hasher.update(&key.len().to_be_bytes());
        self.hasher.update(key);
        self.hasher.update(&[u8::from(value.is_some())]);
        self.hasher.update(&value.unwrap_or_default().to_be_bytes());
        self.rows += 1;
    }

    fn same_as(&self, other: &Self) -> bool {
        self.rows == other.rows && self.hasher.clone().finalize() == other.hasher.clone().finalize()
    }
}

impl WriteBatchIteratorCf for RowSum {
    fn put_cf(&mut self, family: u32, key: &[u8], value: &[u8]) {
        self.add(family, key, Some(sum(value)));
    }

    fn delete_cf(&mut self, family: u32, key: &[u8]) {
        self.add(family, key, None);
    }

    fn merge_cf(&mut self, _family: u32, _key: &[u8], _value: &[u8]) {
        // We never merge: this was something else.
        self.rows += 1;
    }
}

/// Visits the rows of one column family.
struct Visitor<F> {
    family: u32,
    visit: F,
}

impl<F: FnMut(&[u8], &[u8])> WriteBatchIteratorCf for Visitor<F> {
    fn put_cf(&mut self, family: u32, key: &[u8], value: &[u8]) {
        if family == self.family {
            (self.visit)(key, value);
        }
    }

    fn delete_cf(&mut self, _family: u32, _key: &[u8]) {}

    fn merge_cf(&mut self, _family: u32, _key: &[u8], _value: &[u8]) {}
}

/// How batches name a column family.
#[derive(Default)]
struct FamilyId(u32);

/// Asks a batch how it names a column family.
pub(super) fn id_of(handle: &ColumnFamily) -> u32 {
    let (mut probe, mut id) = (WriteBatch::default(), FamilyId::default());
    probe.put_cf(handle, [], []);
    probe.iterate_cf(&mut id);
    id.0
}

impl WriteBatchIteratorCf for FamilyId {
    fn put_cf(&mut self, family: u32, _key: &[u8], _value: &[u8]) {
        self.0 = family;
    }

    fn delete_cf(&mut self, _family: u32, _key: &[u8]) {}

    fn merge_cf(&mut self, _family: u32, _key: &[u8], _value: &[u8]) {}
}
