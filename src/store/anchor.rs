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
//! Nor is there a cleverer order with one round of syncs. Whatever is made durable in that round looks the same after
//! "both were durable, everybody was answered, then the database lost the batch" as after "the anchor was durable first
//! and then the power failed". To tell the two apart, something must become durable *because* the batch was, and that
//! is a second sync, one after the other. What can be had is that nobody waits for it but the callers of that batch.
//!
//! **The cost.** One `fdatasync` of one preallocated sector more in the latency of each batch. It costs no throughput:
//! the writer writes the next batch while the anchor of the last one is being synced, by another thread, and one anchor
//! covers all batches that are on disk by then.
//!
//! **The file.** Two slots of 4 KiB, written in turn, each in one sector: magic, size, root, home, SHA-256 of those. The
//! valid slot with the larger size counts. A torn slot is one whose write never finished, so nobody was answered on it.
//! (If the newest slot rots on disk *and* the database loses its last batch too, that batch goes unnoticed. It takes
//! both.)
//!
//! **Home.** A restored backup agrees with its own anchor, and still is a danger: the log may have gone on after the
//! backup was made, and writing on would sign a fork. So the anchor also records which file it is, by inode and time of
//! birth. In a copy (a backup, another disk) they differ, and the log does not open until `countersign log restore` was
//! told how to catch up. What no file can show is a disk that was itself set back, a snapshot of a volume or of a virtual
//! machine: for that there are witnesses, who remember a larger size.
//!
//! The open file also carries the advisory lock that keeps a second process off the log.

use std::{
    fs::{File, Metadata, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use super::lock::lock;

/// The file's name inside the log's directory.
pub const FILE: &str = "anchor";
/// Bytes from one slot to the next.
const SLOT: u64 = 4096;
/// Magic, size, root and home.
const BODY: usize = 8 + 8 + 32 + 16;
/// Body and its SHA-256.
const RECORD: usize = BODY + 32;
/// The first bytes of a slot.
const MAGIC: &[u8; 8] = b"CSANCHR2";

/// Why the anchor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// Another process holds the log.
    #[error("{0} is locked: another process has this log open; stop that service first")]
    Locked(PathBuf),
    /// The anchor says that it is another file: the directory is a copy.
    #[error(
        "the log in {0} is a copy: it was restored from a backup or moved to another disk, and the log may have gone on \
         since the copy was made. Writing here could contradict what was signed there. Say how it catches up with \
         `countersign log restore`; see its --help"
    )]
    Copied(PathBuf),
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
    mark: Mark,
    /// Which slot is written next: not the one that holds `mark`.
    next: u64,
}

/// What one slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    size: u64,
    root: [u8; 32],
    home: Home,
}

/// Which file this is: inode, and nanoseconds of its birth (0 where the file system does not tell).
type Home = [u64; 2];

/// The home of a backup, which no file has.
const NOWHERE: Home = [0, 0];

fn home_of(file: &Metadata) -> Home {
    let born = file.created().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    [file.ino(), born.and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0)]
}

fn encode(mark: &Mark) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD);
    record.extend_from_slice(MAGIC);
    record.extend_from_slice(&mark.size.to_be_bytes());
    record.extend_from_slice(&mark.root);
    record.extend(mark.home.iter().flat_map(|part| part.to_be_bytes()));
    let sum = Sha256::digest(&record);
    record.extend_from_slice(&sum);
    record
}

fn decode(record: &[u8; RECORD]) -> Option<Mark> {
    let (body, sum) = record.split_at_checked(BODY)?;
    if Sha256::digest(body).as_slice() != sum {
        return None;
    }
    let (size, rest) = body.strip_prefix(MAGIC.as_slice())?.split_first_chunk::<8>()?;
    let (root, home) = rest.split_first_chunk::<32>()?;
    let (inode, born) = home.split_first_chunk::<8>()?;
    let home = [u64::from_be_bytes(*inode), u64::from_be_bytes(born.try_into().ok()?)];
    Some(Mark { size: u64::from_be_bytes(*size), root: *root, home })
}

impl Anchor {
    /// Makes the file in `directory`, both slots at the same size and root.
    pub fn create(directory: &Path, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        Self::lay(directory, size, root, home_of)
    }

    /// Makes the file of a backup: it has no home, so that the backup does not open as a log before it was restored.
    pub fn create_backup(directory: &Path, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        Self::lay(directory, size, root, |_| NOWHERE)
    }

    fn lay(directory: &Path, size: u64, root: [u8; 32], home: fn(&Metadata) -> Home) -> Result<(), AnchorError> {
        let path = directory.join(FILE);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            let record = encode(&Mark { size, root, home: home(&file.metadata()?) });
            let block = usize::try_from(SLOT).unwrap_or(4096);
            let mut content = record.clone();
            content.resize(block, 0);
            content.extend_from_slice(&record);
            content.resize(2 * block, 0);
            file.write_all_at(&content, 0)?;
            file.sync_all()
        };
        write().map_err(|source| AnchorError::Io { path: path.clone(), source })
    }

    /// Opens and locks the file of a log that is at home.
    ///
    /// # Errors
    /// [`AnchorError::Copied`] in a copy, and those of [`Anchor::open_anywhere`].
    pub fn open(directory: &Path) -> Result<Self, AnchorError> {
        let anchor = Self::open_anywhere(directory)?;
        if anchor.is_at_home()? { Ok(anchor) } else { Err(AnchorError::Copied(directory.to_owned())) }
    }

    /// Opens and locks the file, whether or not the directory is a copy: to look, or to restore.
    pub fn open_anywhere(directory: &Path) -> Result<Self, AnchorError> {
        let path = directory.join(FILE);
        let io = |source| AnchorError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AnchorError::Locked(path)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let mut newest: Option<(Mark, u64)> = None;
        for slot in 0..2 {
            let mut record = [0; RECORD];
            file.read_exact_at(&mut record, slot * SLOT).map_err(io)?;
            if let Some(mark) = decode(&record)
                && newest.is_none_or(|(known, _)| mark.size > known.size)
            {
                newest = Some((mark, slot));
            }
        }
        let (mark, slot) = newest.ok_or_else(|| AnchorError::Unreadable(path.clone()))?;
        Ok(Self { file, path, mark, next: 1 - slot })
    }

    /// Whether this is the file that it says it is, and not a copy.
    pub fn is_at_home(&self) -> Result<bool, AnchorError> {
        Ok(self.home()? == self.mark.home)
    }

    /// Makes this file the log's home. The caller knows that nothing was recorded elsewhere since it was copied.
    pub fn settle(&mut self, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        self.mark.home = self.home()?;
        self.advance(size, root)?;
        // Both slots: the old one still tells of the old home.
        self.advance(size, root)
    }

    fn home(&self) -> Result<Home, AnchorError> {
        let found = self.file.metadata().map_err(|source| AnchorError::Io { path: self.path.clone(), source })?;
        Ok(home_of(&found))
    }

    /// The acknowledged size.
    pub const fn size(&self) -> u64 {
        self.mark.size
    }

    /// The root at that size.
    pub const fn root(&self) -> &[u8; 32] {
        &self.mark.root
    }

    /// Moves the anchor to a larger size, and syncs it to disk.
    pub fn advance(&mut self, size: u64, root: [u8; 32]) -> Result<(), AnchorError> {
        let io = |source| AnchorError::Io { path: self.path.clone(), source };
        let mark = Mark { size, root, home: self.mark.home };
        self.file.write_all_at(&encode(&mark), self.next * SLOT).map_err(io)?;
        self.file.sync_data().map_err(io)?;
        (self.mark, self.next) = (mark, 1 - self.next);
        Ok(())
    }
}
