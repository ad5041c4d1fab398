//! Room on the disk: a log that fills its disk stops *before* it is full, and goes on by itself when there is room.
//!
//! A write that fails half-way is final (nobody knows what is on disk), so it must not come to that. Before a batch is
//! sealed, the free space is held against a reserve that is larger than everything `RocksDB` may still have to write in
//! the background: memtables, their blob files, a compaction. Below the reserve every batch is refused, and nothing of
//! it has happened. Reads, proofs and tiles go on.
//!
//! Others may fill the disk further, down to nothing. Then the *ballast*, a preallocated file, is given back, so that a
//! flush that is under way can end. It is laid out again when there is room. Leaving the state needs a quarter of the
//! reserve more than entering it, and a write that the database accepts: it may itself be recovering.
//!
//! What this cannot do: if somebody takes the whole reserve between the check and the end of one batch, the write fails,
//! and the log is broken until it is opened again. Nothing acknowledged is lost by that.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// The ballast's name inside the log's directory.
const BALLAST: &str = "ballast";
/// How often a batch may come to be written: the write-ahead log, a flush, a compaction.
const TIMES_WRITTEN: u64 = 3;

/// What must stay free on the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Below this nothing is written. More than the memtables and what a compaction needs; 0 for no check at all.
    pub reserve: u64,
    /// The size of the ballast; 0 for none.
    pub ballast: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self { reserve: 256 * 1024 * 1024, ballast: 0 }
    }
}

/// The disk is too full to write safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of {} has {} MiB free and the log writes only while {} MiB are; nothing was recorded, reads go on. Make \
     room there: writing resumes by itself",
    .path.display(), .free / MIB, .needed / MIB
)]
pub struct NoRoom {
    /// The log's directory.
    pub path: PathBuf,
    /// Bytes free now.
    pub free: u64,
    /// Bytes that must be free.
    pub needed: u64,
}

const MIB: u64 = 1024 * 1024;

/// Watches the room on the disk of one log.
#[derive(Debug)]
pub(super) struct Headroom {
    path: PathBuf,
    room: Room,
    /// Whether the last check found too little. Set by whoever checks.
    full: Mutex<bool>,
}

impl Headroom {
    /// For a store that is only read.
    pub(super) fn none(path: &Path) -> Self {
        Self { path: path.to_owned(), room: Room { reserve: 0, ballast: 0 }, full: Mutex::new(false) }
    }

    pub(super) fn open(path: &Path, room: Room) -> Self {
        let headroom = Self { path: path.to_owned(), room, full: Mutex::new(false) };
        if headroom.free().is_ok_and(|free| free >= room.reserve.saturating_add(room.ballast)) {
            headroom.lay_ballast();
        }
        headroom
    }

    fn free(&self) -> io::Result<u64> {
        let disk = statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Checks that `bytes` can be written; after a full disk, `accepts` must say that the database takes writes again.
    pub(super) fn check(&self, bytes: usize, accepts: impl FnOnce() -> bool) -> Result<(), NoRoom> {
        if self.room.reserve == 0 {
            return Ok(());
        }
        // If the system cannot tell, the write itself will.
        let Ok(free) = self.free() else { return Ok(()) };
        let batch = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(TIMES_WRITTEN);
        let enter = self.room.reserve.saturating_add(batch);
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = if *full { enter.saturating_add(self.room.reserve / 4) } else { enter };
        if free >= needed && (!*full || accepts()) {
            if std::mem::take(&mut *full) {
                tracing::info!(free, "there is room on the disk again: the log writes");
                self.lay_ballast();
            }
            return Ok(());
        }
        if !std::mem::replace(&mut *full, true) {
            tracing::error!(free, needed, path = %self.path.display(), "the disk is too full: the log refuses to write");
        }
        if free < self.room.reserve / 4 {
            self.drop_ballast();
        }
        Err(NoRoom { path: self.path.clone(), free, needed })
    }

    fn lay_ballast(&self) {
        let path = self.path.join(BALLAST);
        if self.room.ballast == 0 || fs::metadata(&path).is_ok_and(|file| file.len() == self.room.ballast) {
            return;
        }
        let laid = fs::File::create(&path)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, self.room.ballast)?));
        if let Err(error) = laid {
            tracing::warn!(%error, path = %path.display(), "no ballast could be laid out");
            self.drop_ballast();
        }
    }

    fn drop_ballast(&self) {
        let path = self.path.join(BALLAST);
        match fs::remove_file(&path) {
            Ok(()) => tracing::warn!(path = %path.display(), "the ballast was given back to the disk"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(%error, path = %path.display(), "the ballast could not be given back"),
        }
    }
}
