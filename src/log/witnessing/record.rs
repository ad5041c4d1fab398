//! The newest checkpoint that met the quorum, on disk: what a log that requires witnesses may show after a restart.
//!
//! `<log>/witnessed` holds the signed note. It is written whole under another name, synced, renamed, and the directory
//! synced, before the checkpoint is published: what anybody saw is shown again after a crash. Missing it is harmless
//! (the head is witnessed anew); it is held against the database when the log opens.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::store::StoreError;

const FILE: &str = "witnessed";
const TEMPORARY: &str = "witnessed.new";

/// The file.
#[derive(Debug)]
pub(super) struct Record {
    dir: PathBuf,
}

impl Record {
    /// The record of the log in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The note, if one was recorded.
    pub(super) fn read(&self) -> Result<Option<String>, StoreError> {
        let path = self.dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    /// Records a note, durably.
    pub(super) fn write(&self, note: &str) -> Result<(), StoreError> {
        let (path, temporary) = (self.dir.join(FILE), self.dir.join(TEMPORARY));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(note.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| StoreError::Io { path: path.clone(), source })
    }
}
