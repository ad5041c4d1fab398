//! The repository's directory, as it is served: `N.root.json`, `N.targets.json`, `N.snapshot.json`, `timestamp.json`, and
//! `targets/<sha256>.<name>`.
//!
//! Each file is written under another name, synced, and renamed. What a crash leaves of a refresh is named by no timestamp,
//! and a later refresh writes other versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{Documents, TufError};
use crate::model::{
    Digest,
    tuf::{Kind, Metadata},
};

/// Versions of targets and snapshots that stay: for clients that are between two questions.
const KEPT: usize = 4;
/// Roots that are looked for.
const MOST_ROOTS: u64 = 10_000;

/// The directory.
#[derive(Debug)]
pub(super) struct Files(PathBuf);

fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> TufError + 'a {
    move |source| TufError::Io { what, path: path.to_owned(), source }
}

fn name_of(document: &Metadata) -> String {
    match document.kind() {
        Kind::Timestamp => "timestamp.json".to_owned(),
        kind => format!("{}.{}.json", document.version(), kind.name()),
    }
}

impl Files {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The documents in force: the timestamp, what it points to, and the last root. What is not there, or is not what its
    /// name says, is left out.
    pub(super) fn documents(&self) -> Documents {
        let read = |name: String, kind: Kind| {
            let document = fs::read(self.0.join(&name)).ok().and_then(|bytes| Metadata::parse(&bytes).ok())?;
            (document.kind() == kind && name_of(&document) == name).then_some(document)
        };
        let timestamp = read("timestamp.json".to_owned(), Kind::Timestamp);
        let next = |document: &Option<Metadata>, kind: Kind| {
            let version = document.as_ref()?.points_to(kind)?;
            read(format!("{version}.{}.json", kind.name()), kind)
        };
        let snapshot = next(&timestamp, Kind::Snapshot);
        let targets = next(&snapshot, Kind::Targets);
        // A target that is not there any more is signed and written again with the next version.
        let whole = targets.as_ref().is_some_and(|targets| {
            targets.target_files().iter().all(|file| self.0.join("targets").join(file).is_file())
        });
        let root = (1..MOST_ROOTS).map_while(|version| read(format!("{version}.root.json"), Kind::Root)).last();
        Documents { root, targets: targets.filter(|_| whole), snapshot, timestamp }
    }

    /// All files, by path below the directory.
    pub(super) fn all(&self) -> BTreeMap<String, Bytes> {
        let mut files = BTreeMap::new();
        for prefix in ["", "targets/"] {
            for name in self.names(prefix) {
                let path = format!("{prefix}{name}");
                match fs::read(self.0.join(&path)) {
                    Ok(bytes) => drop(files.insert(path, Bytes::from(bytes))),
                    Err(error) => tracing::warn!(%error, path, "a file of the TUF repository is not served"),
                }
            }
        }
        files
    }

    /// Writes a root; never over another one, as clients may have that.
    pub(super) fn put_root(&self, root: &Metadata) -> Result<(), TufError> {
        let path = self.0.join(name_of(root));
        if path.exists() {
            return Err(TufError::Root("a root of that version is there already and cannot be read; move it away"));
        }
        self.put(root)
    }

    /// Writes the targets, and what they are.
    pub(super) fn put_targets(&self, targets: &Metadata, contents: &BTreeMap<&str, &[u8]>) -> Result<(), TufError> {
        for (name, content) in contents {
            self.write("targets", &format!("{}.{name}", Digest::of(content).hex()), content)?;
        }
        self.put(targets)
    }

    /// Writes a document.
    pub(super) fn put(&self, document: &Metadata) -> Result<(), TufError> {
        self.write("", &name_of(document), document.bytes())
    }

    fn write(&self, below: &str, name: &str, bytes: &[u8]) -> Result<(), TufError> {
        let directory = self.0.join(below);
        fs::create_dir_all(&directory).map_err(io("make", &directory))?;
        let (path, making) = (directory.join(name), directory.join(format!(".{name}.new")));
        let written = File::create(&making).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(io("write", &making))?;
        fs::rename(&making, &path).map_err(io("rename", &path))?;
        for directory in [&directory, &self.0] {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("sync", directory))?;
        }
        Ok(())
    }

    /// Removes older targets and snapshots, and what a crash left. Failing to is no failure.
    pub(super) fn tidy(&self, snapshot: &Metadata, targets: &Metadata) {
        let mut wanted: BTreeSet<String> = targets.target_files().into_iter().collect();
        for (kind, present) in [(Kind::Snapshot, snapshot), (Kind::Targets, targets)] {
            let ending = format!(".{}.json", kind.name());
            let names = self.names("");
            let mut versions: Vec<u64> =
                names.iter().filter_map(|name| name.strip_suffix(&ending)?.parse().ok()).collect();
            versions.sort_unstable();
            let (old, kept) = versions.split_at(versions.len().saturating_sub(KEPT));
            for version in old.iter().filter(|version| **version != present.version()) {
                self.remove(&format!("{version}{ending}"));
            }
            for version in kept.iter().filter(|_| kind == Kind::Targets) {
                let bytes = fs::read(self.0.join(format!("{version}{ending}"))).unwrap_or_default();
                wanted.extend(Metadata::parse(&bytes).map(|targets| targets.target_files()).unwrap_or_default());
            }
        }
        for name in self.names("targets/").iter().filter(|name| !wanted.contains(*name)) {
            self.remove(&format!("targets/{name}"));
        }
    }

    fn remove(&self, path: &str) {
        if let Err(error) = fs::remove_file(self.0.join(path))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, path, "an old file of the TUF repository was not removed");
        }
    }

    /// The names of the files below a prefix; without those that are being written.
    fn names(&self, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(prefix)).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}
