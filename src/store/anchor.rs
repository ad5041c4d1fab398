//! The anchor: the last acknowledged size and root, in a small file outside the database.
//!
//! **What it catches.** A database that comes back shorter than what was acknowledged, or with another history: its
//! recovery dropped a tail quietly, somebody restored an older copy, or the disk lied.
//!
//! **The order, and why it is sound.** The anchor of a batch is written and synced *after* the batch is synced and
//! *before* anybody gets an answer. So every acknowledged batch is covered by an anchor on disk, and every anchor on
//! disk covers only batches that were on disk before it. A crash in between leaves the database ahead of the anchor by
//! batches that nobody heard of; that is harmless, and opening moves the anchor up. The other order, or writing both
//! at the same time, is not sound: after a crash "the anchor is one batch ahead" would mean either a batch that was
//! never acknowledged or one that was acknowledged and lost, and nothing could tell them apart.
//!
//! **The cost.** One `fdatasync` of one preallocated sector more in the latency of each batch. It costs no throughput:
//! the sequencer commits the next batch while the anchor of the last one is being synced, by another thread.
//!
//! **The file.** Two slots of 4 KiB, written in turn, each in one sector: magic, size, root, SHA-256 of those. The valid
//! slot with the larger size counts. A torn slot is one whose write never finished, so nobody was answered on it. (If
//! the newest slot rots on disk *and* the database loses its last batch too, that batch goes unnoticed. It takes both.)
//!
//! The open file also carries the advisory lock that keeps a second process off the log.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The file's name inside the log's directory.
pub const FILE: &str = "anchor";
/// Bytes from one slot to the next.
const SLOT: u64 = 4096;
/// Magic, size and root.
const BODY: usize = 8 + 8 + 32;
/// Body and its SHA-256.
const RECORD: usize = BODY + 32;
/// The first bytes of a slot.
const MAGIC: &[u8; 8] = b"CSANCHR1";

/// Why the anchor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Another process holds the log.
    #[error("{0} is locked: another process has this log open; stop that service first")]
    Locked(PathBuf),
    /// Neither slot is valid.
    #[error(
        "the anchor {0} is unreadable, so nothing says how much was acknowledged; restore the log's whole directory \
         from a backup, and check it with `countersign log fsck`"
    )]
    Unreadable(PathBuf),
    /// The file system refuses.
    #[error("cannot use the anchor {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The anchor file, open and locked.
#[derive(Debug)]
pub struct Anchor {
    file: File,
    path: PathBuf,
    size: u64,
    root: [u8; 32],
    /// Which slot is written next: not the one that holds `size`.
    next: u64,
}

fn encode(size: u64, root: &[u8; 32]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD);
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&size.to_be_bytes());
    record.extend_from_slice(root);
    let sum = Sha256::digest(&record);
    record.extend_from_slice(&sum);
    record
}

fn decode(record: &[u8; RECORD]) -> Option<(u64, [u8; 32])> {
    let (body, sum) = record.split_at_checked(BODY)?;
    if Sha256::digest(body).as_slice() != sum {
        return None;
    }
    let (size, root) = body.strip_prefix(MAGIC.as_slice())?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*size), root.try_into().ok()?))
}

impl Anchor {
    /// Makes the file in `directory`, both slots at the same size and root.
    pub fn create(directory: &Path, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        let path = directory.join(FILE);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            let (block, record) = (usize::try_from(SLOT).unwrap_or(4096), encode(size, &root));
            let mut content = record.clone();
            content.resize(block, 0);
            content.extend_from_slice(&record);
            content.resize(2 * block, 0);
            file.write_all_at(&content, 0)?;
            file.sync_all()
        };
        write().map_err(|source| AnchorError::Io { path: path.clone(), source })
    }

    /// Opens and locks the file.
    pub fn open(directory: &Path) -> Result<Self, AnchorError> {
        let path = directory.join(FILE);
        let io = |source| AnchorError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AnchorError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut newest: Option<(u64, [u8; 32], u64)> = None;
        for slot in 0..2 {
            let mut record = [0; RECORD];
            file.read_exact_at(&mut record, slot * SLOT).map_err(io)?;
            if let Some((size, root)) = decode(&record)
                && newest.is_none_or(|(known, _, _)| size > known)
            {
                newest = Some((size, root, slot));
            }
        }
        let (size, root, slot) = newest.ok_or_else(|| AnchorError::Unreadable(path.clone()))?;
        Ok(Self { file, path, size, root, next: 1 - slot })
    }

    /// The acknowledged size.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root at that size.
    pub const fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// Moves the anchor to a larger size, and syncs it to disk.
    pub fn advance(&mut self, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        let io = |source| AnchorError::Io { path: self.path.clone(), source };
        self.file.write_all_at(&encode(size, &root), self.next * SLOT).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        (self.size, self.root, self.next) = (size, root, 1 - self.next);
        Ok(())
    }
}
