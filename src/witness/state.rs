//! What a witness keeps: one small file for each log, the checkpoint that it cosigned last.
//!
//! ```text
//! DIR/             0700
//!   keys/          see keys/cosigner.rs
//!   logs/
//!     lock         held while the witness runs: a second one on the same state would cosign a second history
//!     <hex>        the signed note with our own cosignatures; hex is SHA-256 of the origin
//!     <hex>.new    being written
//! ```
//!
//! **Writing.** The new note goes whole into `<hex>.new`, which is synced, then takes the name of the old one, then the
//! directory is synced. A crash before the rename leaves the old checkpoint and a stray file that the next write
//! truncates; a crash after it leaves either, whole. Only after the last step is anybody answered, so every cosignature
//! that left is of the checkpoint on disk, or of one before it.
//!
//! **Reading.** A file must carry our own cosignature over its text, or the witness does not start: it is what makes a
//! changed or exchanged file visible. A *missing* file means that nothing was cosigned yet, and no file system can tell
//! that from one that was deleted: back nothing up that you would restore, see the module above.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    keys::Cosigner,
    store,
    tlog::{Checkpoint, Hash, Note, witness::MOST_REQUEST},
};

const DIRECTORY: &str = "logs";
const LOCK: &str = "lock";
/// A request's note with our two lines added is not longer.
const LONGEST: usize = 2 * MOST_REQUEST;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no witness here.
    #[error("{0} does not exist: this is no witness's directory; make one with `countersign witness init`")]
    Missing(PathBuf),
    /// Another process is this witness.
    #[error("{0} is locked: another process runs this witness; stop it first")]
    Locked(PathBuf),
    /// A file that is not as we wrote it.
    #[error(
        "{path} is not a checkpoint that this witness cosigned ({problem}); do not delete it, as the witness would then \
         forget what it cosigned. Retire the witness and make a new one, unless you know what changed the file"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The file system refuses.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The checkpoint that was cosigned last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) size: u64,
    pub(super) root: Hash,
    /// When, in seconds since 1970.
    pub(super) time: u64,
    pub(super) note: Arc<str>,
}

/// The directory, open and locked.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    /// Kept open: the lock is its.
    _lock: File,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { path, source }
}

impl Files {
    pub(super) fn create(dir: &Path) -> Result<(), StateError> {
        let dir = dir.join(DIRECTORY);
        DirBuilder::new().mode(0o700).create(&dir).map_err(io_error(&dir))?;
        let lock = dir.join(LOCK);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock);
        made.and_then(|file| file.sync_all()).map_err(io_error(&lock))?;
        sync_directory(&dir)?;
        dir.parent().map_or(Ok(()), sync_directory)
    }

    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let dir = dir.join(DIRECTORY);
        let path = dir.join(LOCK);
        let lock = match OpenOptions::new().write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(StateError::Missing(path)),
            opened => opened.map_err(io_error(&path))?,
        };
        match store::lock(&lock) {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked(path)),
            Err(TryLockError::Error(source)) => Err(io_error(&path)(source)),
        }
    }

    /// Reads the file of the log `origin`, if there is one.
    pub(super) fn read(&self, id: &str, origin: &str, cosigner: &Cosigner) -> Result<Option<Last>, StateError> {
        let path = self.dir.join(id);
        let damaged = |problem: String| StateError::Damaged { path: path.clone(), problem };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > u64::try_from(LONGEST).unwrap_or(u64::MAX) => {
                return Err(damaged("it is too long".to_owned()));
            }
            _ => fs::read(&path).map_err(io_error(&path))?,
        };
        let text = String::from_utf8(bytes).map_err(|_source| damaged("it is not text".to_owned()))?;
        let note = Note::parse(&text).map_err(|source| damaged(source.to_string()))?;
        let [key, _] = cosigner.keys();
        let time = key.verify(&note).map_err(|source| damaged(source.to_string()))?;
        let head: String = note.text_unsafe().split_inclusive('\n').take(3).collect();
        let checkpoint = Checkpoint::parse(&head).map_err(|source| damaged(source.to_string()))?;
        if checkpoint.origin != origin {
            return Err(damaged(format!("it is of the log {:?}", checkpoint.origin)));
        }
        Ok(Some(Last { size: checkpoint.size, root: checkpoint.root, time, note: text.into() }))
    }

    /// Puts `note` in the place of the log's last one, durably.
    pub(super) fn write(&self, id: &str, note: &str) -> Result<(), StateError> {
        let (path, temporary) = (self.dir.join(id), self.dir.join(format!("{id}.new")));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io_error(&temporary))?;
        file.write_all(note.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error(&temporary))?;
        fs::rename(&temporary, &path).map_err(io_error(&path))?;
        sync_directory(&self.dir)
    }
}

fn sync_directory(path: &Path) -> Result<(), StateError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(io_error(path))
}
