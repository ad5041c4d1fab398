//! `RocksDB` for the log: column families, key encoding, one atomic commit; and the [`anchor`] beside it.
//!
//! Narrow on purpose: read a leaf, a tile or a payload, look a row up, commit a batch. What a batch means is decided
//! in `log`. Nothing here hashes, signs or proves.
//!
//! ```text
//! <dir>/            0700
//!   anchor          see anchor.rs; its lock is what keeps a second process out
//!   db/             RocksDB
//!     meta          format, origin, key, head (the signed checkpoint), the state of the views
//!     leaves        u64be index -> leaf bytes
//!     tiles         u8 level, u64be index -> 8 KiB; full tiles only, each written once. Partial tiles are derived.
//!     payloads      u64be index -> payload; over 4 KiB in blob files, which compaction never rewrites
//!     views         term, u64be index -> nothing; or kind of fact, u64be index, fact -> nothing; see views.rs
//!     dedup         leaf hash -> u64be index, u8 whether a payload was given
//!     erased        u64be index -> nothing; whose payload was erased
//! ```
//!
//! # Durability: the argument
//!
//! *Claim.* Whatever an append was answered with is there for ever, at that index, under every later checkpoint; or the
//! log refuses to open and says why. It never serves a shorter or another history quietly.
//!
//! **Write order.** One batch is one write with `sync`: `RocksDB` appends it to the write-ahead log as one record with a
//! checksum, syncs the file, and only then applies it to the memtables. Then the [`anchor`] is written and synced. Then,
//! and only then, callers are answered and readers see the new head. Nothing is answered that is not behind two syncs.
//!
//! **What a crash leaves**, by its moment:
//!
//! | moment | write-ahead log | anchor | opening |
//! |---|---|---|---|
//! | before the write | nothing of the batch | before | as before; nobody was answered |
//! | within the write | a torn record | before | the torn tail is cut off; nobody was answered |
//! | written, not synced | the record, or a part, or nothing | before | either of the two above or the next |
//! | synced, anchor not | the record | before | the batch is there, and stays; nobody was answered |
//! | anchor torn | the record | before, in the other slot | the same |
//! | anchor synced | the record | with the batch | the batch is there; callers may have been answered |
//!
//! **Recovery** first takes a write-ahead log whose last record was cut off, and no other corruption ([`Tail::Whole`]).
//! That is what `kill -9` leaves. A power cut may leave more of what was not synced: the end of a record and not its
//! middle, or what lay on the disk before, and that looks like damage. So where that mode refuses, the log is looked at
//! without writing, as it was before the first record that does not read. If that holds everything that the anchor
//! speaks of, the rest was never acknowledged, and the log is opened there ([`Tail::Torn`]). If not, it is damage, it is
//! refused, and nothing was changed: opening to write would throw away what can still be read behind it.
//!
//! What both modes let through is a write-ahead log that was cut, at a record's boundary or within what was synced, or
//! one that is gone: the head that comes back is older than the anchor, and opening refuses
//! ([`Lost`](crate::log::LogError::Lost)). A database of another history has another root at the anchor's size
//! ([`Forked`](crate::log::LogError::Forked)). Bytes that rotted below are found by the database's checksums, and in the
//! end by the hashes: opening recomputes the right edge, no proof leaves that does not verify, no leaf that does not hash
//! to its node, and the audit recomputes everything.
//!
//! **A failed write or sync is final.** After one, nobody knows what the disk holds, and the kernel may call the same
//! pages clean the next time. So the log writes nothing more until it is opened again. A disk that fills up must not
//! come to that: it is refused before ([`Room`]).
//!
//! **Two processes** are kept apart by the anchor's lock, before the database is looked at. **A copy** (a restored
//! backup, another disk) is refused until it was told how to catch up ([`anchor`], `log::backup`). **The clock** has no
//! say in any of this: no order, index or checkpoint depends on time.
//!
//! *What it rests on*: that a sync which succeeded is one. A disk that lies about it can lose the newest batches; the
//! anchor, synced after them, shows it, unless the disk loses both. Tests hold all of this against a file system that
//! keeps any subset of what was not synced, and show that they go red without the sync, without the anchor, and without
//! hashing again.
//!
//! # Why it is laid out so
//!
//! Leaves, tiles and payloads are written in the order of their keys, so compaction moves their files and never rewrites
//! them. Only `dedup` and `views` are rewritten, and they are small. Payloads over 4 KiB go to blob files. The write-ahead
//! log is neither compressed nor recycled: recovery then takes valid logs for torn ones.

pub mod anchor;
mod backup;
mod batch;
mod erase;
mod lock;
mod options;
mod room;
mod shim;
pub mod views;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rocksdb::{ColumnFamily, DB, Direction, ErrorKind, FlushOptions, IteratorMode, ReadOptions, WriteOptions};

use anchor::{Anchor, AnchorError};
pub use batch::{Batch, sum};
use batch::{Family, id_of};
pub use lock::lock;
pub use options::Tail;
use room::Headroom;
pub use room::{NoRoom, Room};

/// What stands under `meta/format`.
const FORMAT: &[u8] = b"countersign-log-1";
/// The directory of the database inside the log's directory.
const DATABASE: &str = "db";
/// The ending of a directory that is being made.
const MAKING: &str = "making";

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no log at the path.
    #[error("there is no log in {0}; check the path, or make a new one with `countersign init`")]
    Missing(PathBuf),
    /// Making the log there was not finished.
    #[error("{0} is a half-made log; nothing was ever recorded in it: delete it and run `countersign init` again")]
    HalfMade(PathBuf),
    /// The log is there already.
    #[error("{0} exists already; a log is never made over something else")]
    Exists(PathBuf),
    /// The directory holds something else, or a log of which parts are gone.
    #[error("{path} is not a complete log: {problem}; restore the whole directory from a backup")]
    Incomplete {
        /// The log's directory.
        path: PathBuf,
        /// What is missing or strange.
        problem: String,
    },
    /// Another process has it open.
    #[error("the log in {0} is open in another process; stop that service first")]
    Locked(PathBuf),
    /// The anchor cannot be used.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// A batch is no longer what was put into it.
    #[error("bytes changed in memory before they were stored; nothing was written. Check this machine's memory")]
    Memory,
    /// The database cannot be used.
    #[error("the log's database failed: {0}")]
    Database(#[from] rocksdb::Error),
    /// The file system refuses.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the database met bytes that it cannot read: damage, or what a power cut left of the last writes.
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Database(source) if source.kind() == ErrorKind::Corruption)
    }
}

/// Column families.
const META: &str = "meta";
const LEAVES: &str = "leaves";
const TILES: &str = "tiles";
const PAYLOADS: &str = "payloads";
const VIEWS: &str = "views";
const DEDUP: &str = "dedup";
const ERASED: &str = "erased";
const FAMILIES: [&str; 7] = [META, LEAVES, TILES, PAYLOADS, VIEWS, DEDUP, ERASED];

/// The opened database.
pub struct Store {
    db: DB,
    path: PathBuf,
    /// How a batch names each column family.
    ids: [u32; FAMILIES.len()],
    headroom: Headroom,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

fn tile_key(level: u8, index: u64) -> [u8; 9] {
    let mut key = [level; 9];
    let (_, tail) = key.split_at_mut(1);
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}

/// The directory in which a log at `path` is made before it is renamed into place.
fn making(path: &Path) -> PathBuf {
    path.with_extension(MAKING)
}

impl Store {
    /// Makes an empty store, lets `fill` make its first batch and anchor, and only then gives it its name.
    ///
    /// A crash before the end leaves `<path>.making`, which [`Store::open`] names.
    pub fn create(
        path: &Path,
        fill: impl FnOnce(&Self, &mut Batch) -> Result<(u64, [u8; 32]), StoreError>,
    ) -> Result<(), StoreError> {
        if path.exists() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        let temporary = making(path);
        if temporary.exists() {
            return Err(StoreError::HalfMade(temporary));
        }
        make_directory(&temporary)?;
        make_directory(&temporary.join(DATABASE))?;
        {
            let mut options = options::database(Tail::Whole);
            options.create_if_missing(true);
            options.create_missing_column_families(true);
            let families = options::families(&FAMILIES);
            let db = DB::open_cf_descriptors(&options, temporary.join(DATABASE), families)?;
            let store = Self::new(db, &temporary)?;
            let mut batch = Batch::default();
            store.put(&mut batch, META, b"format", FORMAT)?;
            let (size, root) = fill(&store, &mut batch)?;
            store.commit(batch)?;
            Anchor::create(&temporary, size, root)?;
        }
        sync_directory(&temporary)?;
        fs::rename(&temporary, path).map_err(io_error(path))?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync_directory(parent),
            None => sync_directory(Path::new(".")),
        }
    }

    /// Opens a store for writing. Never makes one. The anchor's lock keeps every other process out.
    ///
    /// # Errors
    /// [`AnchorError::Copied`] where the directory is a copy that was not restored.
    pub fn open(path: &Path, room: Room, tail: Tail) -> Result<(Self, Anchor), StoreError> {
        Self::check_shape(path)?;
        let anchor = Anchor::open(path)?;
        Ok((Self::open_database(path, room, tail)?, anchor))
    }

    /// Opens a store for writing, also a copy that may be behind the log: to restore it. Elsewhere this invites a fork.
    pub fn open_copy_unsafe(path: &Path, room: Room, tail: Tail) -> Result<(Self, Anchor), StoreError> {
        Self::check_shape(path)?;
        let anchor = Anchor::open_anywhere(path)?;
        Ok((Self::open_database(path, room, tail)?, anchor))
    }

    fn open_database(path: &Path, room: Room, tail: Tail) -> Result<Self, StoreError> {
        let db = DB::open_cf_descriptors(&options::database(tail), path.join(DATABASE), options::families(&FAMILIES))
            .map_err(|source| explain(path, source))?;
        let mut store = Self::checked(db, path)?;
        store.headroom = Headroom::open(path, room);
        Ok(store)
    }

    /// Opens a store that no process has open, to look and change nothing; also a backup, or one with a torn tail.
    pub fn open_read_only(path: &Path) -> Result<(Self, Anchor), StoreError> {
        Self::check_shape(path)?;
        let anchor = Anchor::open_anywhere(path)?;
        let families = options::families(&FAMILIES);
        let db =
            DB::open_cf_descriptors_read_only(&options::database(Tail::Torn), path.join(DATABASE), families, false)
                .map_err(|source| explain(path, source))?;
        Self::checked(db, path).map(|store| (store, anchor))
    }

    fn check_shape(path: &Path) -> Result<(), StoreError> {
        if !path.exists() {
            let temporary = making(path);
            return Err(if temporary.exists() {
                StoreError::HalfMade(temporary)
            } else {
                StoreError::Missing(path.to_owned())
            });
        }
        let incomplete = |problem: &str| StoreError::Incomplete { path: path.to_owned(), problem: problem.to_owned() };
        if !path.join(DATABASE).join("CURRENT").is_file() {
            return Err(incomplete("it has no database (db/CURRENT)"));
        }
        if !path.join(anchor::FILE).is_file() {
            return Err(incomplete("it has no anchor, which says how much was recorded"));
        }
        Ok(())
    }

    fn checked(db: DB, path: &Path) -> Result<Self, StoreError> {
        let store = Self::new(db, path)?;
        match store.meta("format")? {
            Some(format) if format == FORMAT => Ok(store),
            Some(format) => {
                let problem =
                    format!("its format is {:?}, which this version does not know", String::from_utf8_lossy(&format));
                Err(StoreError::Incomplete { path: path.to_owned(), problem })
            }
            None => Err(StoreError::Incomplete { path: path.to_owned(), problem: "it names no format".to_owned() }),
        }
    }

    fn new(db: DB, path: &Path) -> Result<Self, StoreError> {
        let mut store = Self { db, path: path.to_owned(), ids: [0; FAMILIES.len()], headroom: Headroom::none(path) };
        let ids = FAMILIES.iter().map(|name| Ok(id_of(store.family(name)?))).collect::<Result<Vec<_>, StoreError>>()?;
        store.ids.copy_from_slice(&ids);
        Ok(store)
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or_else(|| StoreError::Incomplete {
            path: self.path.clone(),
            problem: format!("the column family {name} is missing"),
        })
    }

    /// A column family, to put rows into it.
    fn into(&self, name: &str) -> Result<Family<'_>, StoreError> {
        let ids = FAMILIES.iter().zip(self.ids);
        let id = ids.into_iter().find(|(known, _)| **known == name).map(|(_, id)| id).unwrap_or_default();
        Ok(Family { handle: self.family(name)?, id })
    }

    fn put(&self, batch: &mut Batch, family: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        batch.put(self.into(family)?, key, value);
        Ok(())
    }

    fn read(&self, family: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(family)?, key)?)
    }

    /// Adds a named value.
    pub fn put_meta(&self, batch: &mut Batch, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.put(batch, META, name.as_bytes(), value)
    }

    /// Adds an entry: its leaf, payload (unless empty), rows and the way back from its leaf hash.
    pub fn put_entry(&self, batch: &mut Batch, index: u64, entry: &NewEntry<'_>) -> Result<(), StoreError> {
        let key = index.to_be_bytes();
        self.put(batch, LEAVES, &key, entry.leaf)?;
        let mut place = [0; 9];
        let (index_part, has_payload) = place.split_at_mut(8);
        index_part.copy_from_slice(&key);
        has_payload.fill(u8::from(!entry.payload.is_empty()));
        self.put(batch, DEDUP, entry.hash, &place)?;
        if !entry.payload.is_empty() {
            batch.put_summed(self.into(PAYLOADS)?, &key, entry.payload, entry.payload_sum);
        }
        self.put_rows(batch, index, entry.rows)
    }

    /// Adds a full tile.
    pub fn put_tile(&self, batch: &mut Batch, level: u8, index: u64, hashes: &[[u8; 32]]) -> Result<(), StoreError> {
        self.put(batch, TILES, &tile_key(level, index), hashes.as_flattened())
    }

    /// Writes a batch, all or nothing, and syncs it to disk.
    ///
    /// # Errors
    /// [`StoreError::Memory`] if its bytes are no longer those that were put in: nothing was written.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(batch, true)
    }

    /// Writes a batch without syncing it: a crash of the machine may lose it. For negative controls alone.
    pub fn commit_unsafe(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(batch, false)
    }

    fn write(&self, batch: Batch, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        batch.check()?;
        Ok(self.db.write_opt(batch.rows, &options)?)
    }

    /// Calls `visit` with index and bytes of every leaf of a finished batch, read back from the very bytes that
    /// [`Store::commit`] will write.
    pub fn each_leaf(&self, batch: &Batch, mut visit: impl FnMut(u64, &[u8])) -> Result<(), StoreError> {
        batch.each(self.into(LEAVES)?.id, |key, leaf| {
            if let Some(index) = u64_of(key) {
                visit(index, leaf);
            }
        });
        Ok(())
    }

    /// Whether a batch of `bytes` can be written without the disk becoming full.
    ///
    /// # Errors
    /// [`NoRoom`] says how much is missing. It goes away by itself when there is room again.
    pub fn check_room(&self, bytes: usize) -> Result<(), NoRoom> {
        // After the disk was full the database may be recovering from a failed flush: an empty write tells.
        self.headroom.check(bytes, || self.commit(Batch::default()).is_ok())
    }

    /// A named value.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(META, name.as_bytes())
    }

    /// A leaf's bytes.
    pub fn leaf(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(LEAVES, &index.to_be_bytes())
    }

    /// Up to `limit` leaves from `from` on, in order and without gap: it ends where the next one is missing.
    pub fn leaves(&self, from: u64, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let start = from.to_be_bytes();
        let mut leaves = Vec::new();
        let rows = self.db.iterator_cf(self.family(LEAVES)?, IteratorMode::From(&start, Direction::Forward));
        for (row, expected) in rows.zip(from..).take(limit) {
            let (key, value) = row?;
            if u64_of(&key) != Some(expected) {
                break;
            }
            leaves.push(value.into_vec());
        }
        Ok(leaves)
    }

    /// The highest index of a leaf.
    pub fn last_leaf(&self) -> Result<Option<u64>, StoreError> {
        let mut rows = self.db.iterator_cf(self.family(LEAVES)?, IteratorMode::End);
        rows.next().transpose().map(|row| row.and_then(|(key, _)| u64_of(&key))).map_err(StoreError::from)
    }

    /// A payload, if it was given and not erased.
    pub fn payload(&self, index: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(PAYLOADS, &index.to_be_bytes())
    }

    /// A full tile's hashes; `None` if it is not there or has another length.
    pub fn tile(&self, level: u8, index: u64) -> Result<Option<Vec<[u8; 32]>>, StoreError> {
        let bytes = self.db.get_pinned_cf(self.family(TILES)?, tile_key(level, index))?;
        Ok(bytes.and_then(|bytes| match bytes.as_chunks::<32>() {
            (hashes, []) if hashes.len() == 256 => Some(hashes.to_vec()),
            _ => None,
        }))
    }

    /// The index of the leaf with this hash.
    pub fn index_of(&self, leaf_hash: &[u8; 32]) -> Result<Option<u64>, StoreError> {
        Ok(self.place(leaf_hash)?.map(|(index, _)| index))
    }

    /// The index of the leaf with this hash, and whether a payload was given with it.
    pub fn place(&self, leaf_hash: &[u8; 32]) -> Result<Option<(u64, bool)>, StoreError> {
        let value = self.db.get_pinned_cf(self.family(DEDUP)?, leaf_hash)?;
        Ok(value.and_then(|value| {
            let (index, has_payload) = value.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*index), has_payload == [1]))
        }))
    }

    /// Indexes under a row prefix in `from..to`, at most `limit`: ascending, or descending from the end.
    pub fn rows(
        &self,
        prefix: &[u8],
        from: u64,
        to: u64,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<u64>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (low, high) = ([prefix, &from.to_be_bytes()].concat(), [prefix, &to.to_be_bytes()].concat());
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(low);
        options.set_iterate_upper_bound(high);
        let mode = if newest_first { IteratorMode::End } else { IteratorMode::Start };
        let mut indexes = Vec::new();
        for row in self.db.iterator_cf_opt(self.family(VIEWS)?, options, mode).take(limit) {
            let (key, _) = row?;
            indexes.extend(key.get(prefix.len()..).and_then(u64_of));
        }
        Ok(indexes)
    }

    /// Reads all table files and checks their checksums.
    ///
    /// # Errors
    /// What the database says is wrong.
    pub fn verify_checksums(&self) -> Result<(), String> {
        shim::verify_checksums(&self.db)
    }

    /// Calls `visit` with every row of the views, in key order.
    pub fn each_row(&self, mut visit: impl FnMut(&[u8])) -> Result<(), StoreError> {
        for row in self.db.iterator_cf(self.family(VIEWS)?, IteratorMode::Start) {
            visit(&row?.0);
        }
        Ok(())
    }

    /// The number of rows in the dedup table.
    pub fn dedup_rows(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for row in self.db.iterator_cf(self.family(DEDUP)?, IteratorMode::Start) {
            row?;
            count += 1;
        }
        Ok(count)
    }

    /// Writes all memtables to table files, so that the next opening has no write-ahead log to replay. Nothing depends
    /// on it.
    pub fn flush(&self) -> Result<(), StoreError> {
        let families = FAMILIES.iter().map(|name| self.family(name)).collect::<Result<Vec<_>, _>>()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        Ok(self.db.flush_cfs_opt(&families, &options)?)
    }

    /// Stops background work; the database itself closes when the last reader lets go of it.
    pub fn stop(&self) {
        self.db.cancel_all_background_work(true);
    }
}

/// One entry as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The leaf's bytes.
    pub leaf: &'a [u8],
    /// The leaf's hash.
    pub hash: &'a [u8; 32],
    /// The payload; empty for none.
    pub payload: &'a [u8],
    /// The payload's [`sum`] when its caller handed it in.
    pub payload_sum: u32,
    /// Rows of the views, without the index.
    pub rows: &'a [Vec<u8>],
}

fn explain(path: &Path, source: rocksdb::Error) -> StoreError {
    match source.kind() {
        ErrorKind::IOError if source.to_string().contains("lock") => StoreError::Locked(path.to_owned()),
        _ => StoreError::Database(source),
    }
}

fn make_directory(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path).map_err(io_error(path))
}

fn sync_directory(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error(path))
}
