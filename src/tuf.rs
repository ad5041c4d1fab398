//! The trust material as a TUF repository: signed again long before anything expires, and kept in files.
//!
//! [`Repository::refresh`] compares what is handed out with what should be, and signs what is missing, changed or half
//! through its life; it is called at the start, every few seconds, and after every rotation. It never takes away what is
//! there: if it fails, the old documents are served on, with the second half of their lives to go, and [`Repository::warnings`]
//! says so. Versions other than the root's are seconds since 1970, so that a repository that was lost or comes from an old
//! backup does not look to clients like an attack with old documents. Roots count 1, 2, 3 …, as clients walk them one by
//! one, and are all kept.
//!
//! The root key is wanted for a new root alone: when it or the online key is rotated, and once in years. If it is kept
//! elsewhere, everything else goes on; a root that was signed there comes in by [`Repository::publish_root`].
//!
//! Not here: the documents (`model::tuf`), keys (`keys`), HTTP (`server`).

mod files;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use self::files::Files;
use crate::{
    keys::{Kek, KeyError, Keyring, Public, TufKeys, TufRoot, tuf_root_is_here},
    model::tuf::{self, Kind, Metadata, MetadataError},
};

/// The trusted root among the targets; clients ask for it by this name.
pub const TRUSTED_ROOT: &str = "trusted_root.json";
/// The signing configuration among the targets.
pub const SIGNING_CONFIG: &str = "signing_config.v0.2.json";
/// How long before its end a root is warned of: time to fetch the key from where it is kept.
const ROOT_WARNING: SignedDuration = SignedDuration::from_hours(24 * 365);

/// How the key-encryption key is had when a root must be signed.
pub type LoadKek = Arc<dyn Fn() -> Result<Kek, KeyError> + Send + Sync>;

/// Why something could not be signed or kept.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// A key could not do its work, or is kept elsewhere.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A document could not be made.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A root that was signed elsewhere is not the next one.
    #[error("the root is not accepted: {0}")]
    Root(&'static str),
    /// Reading or writing failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// The documents that are in force.
#[derive(Debug, Clone, Default)]
struct Documents {
    root: Option<Metadata>,
    targets: Option<Metadata>,
    snapshot: Option<Metadata>,
    timestamp: Option<Metadata>,
}

impl Documents {
    fn all(&self) -> impl Iterator<Item = &Metadata> {
        [&self.root, &self.targets, &self.snapshot, &self.timestamp].into_iter().flatten()
    }
}

/// What is served, by path below `/tuf/`.
#[derive(Debug, Default)]
struct Served {
    documents: Documents,
    files: BTreeMap<String, Bytes>,
}

/// Version and end of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Which document.
    pub kind: Kind,
    /// Its version.
    pub version: u64,
    /// Until when clients take it.
    pub expires: Timestamp,
}

/// The repository of one instance.
pub struct Repository {
    data: PathBuf,
    files: Files,
    keyring: Arc<Keyring>,
    load_kek: LoadKek,
    /// Where clients find the instance, for the signing configuration.
    base_url: String,
    /// Replaced as a whole by whoever holds `signing`.
    served: RwLock<Arc<Served>>,
    /// One signs at a time.
    signing: Mutex<()>,
    /// Why the last refresh failed, if it did.
    trouble: Mutex<Option<String>>,
    failures: AtomicU64,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("data", &self.data).field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl Repository {
    /// Reads what is in `data/tuf`, which may not be there yet. What cannot be used is passed over: a refresh signs it anew.
    pub fn open(data: &Path, keyring: Arc<Keyring>, load_kek: LoadKek, base_url: String) -> Self {
        let files = Files::new(data.join("tuf"));
        let served = Served { documents: files.documents(), files: files.all() };
        Self {
            data: data.to_owned(),
            files,
            keyring,
            load_kek,
            base_url,
            served: RwLock::new(Arc::new(served)),
            signing: Mutex::new(()),
            trouble: Mutex::new(None),
            failures: AtomicU64::new(0),
        }
    }

    /// Signs what is missing, changed or half through its life, and says whether that was anything.
    ///
    /// # Errors
    /// A [`TufError`]; what was there is served on. The failure is counted, and [`Self::warnings`] tells of it.
    pub fn refresh(&self, now: Timestamp) -> Result<bool, TufError> {
        // Not below, where whoever rotates a key holds the directory's lock.
        let made = if self.keyring.public().tuf().is_none() { self.make_keys() } else { Ok(()) };
        self.noted(made.and_then(|()| self.try_refresh(&self.keyring.public(), now)))
    }

    /// The same for a public side that is about to be in force, with the keys that are in force.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub fn refresh_to(&self, public: &Public, now: Timestamp) -> Result<bool, TufError> {
        self.noted(self.try_refresh(public, now))
    }

    /// Remembers why it failed, if it did.
    fn noted(&self, done: Result<bool, TufError>) -> Result<bool, TufError> {
        let trouble = done.as_ref().err().map(|error| format!("TUF metadata could not be signed again: {error}"));
        if trouble.is_some() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        done
    }

    /// Takes the next root, which was signed where the root key is.
    ///
    /// # Errors
    /// [`TufError::Root`] for one that is not the next, or not signed by the root key.
    pub fn publish_root(&self, bytes: &[u8], now: Timestamp) -> Result<Standing, TufError> {
        let _one = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.served().documents.clone();
        let old = present.root.as_ref().ok_or(TufError::Root("there is no root yet that it could follow"))?;
        let next = Metadata::parse(bytes)?;
        next.may_follow(old, now).map_err(TufError::Root)?;
        let standing = standing(&next);
        self.files.put_root(&next)?;
        self.serve(Documents { root: Some(next), ..present });
        Ok(standing)
    }

    /// A file by its path below `/tuf/`; also `root.json`, the newest root, and targets by their plain names.
    pub fn file(&self, path: &str) -> Option<Bytes> {
        let served = self.served();
        if path == "root.json" {
            return served.documents.root.as_ref().map(|root| Bytes::copy_from_slice(root.bytes()));
        }
        if let Some(file) = served.files.get(path) {
            return Some(file.clone());
        }
        let name = path.strip_prefix("targets/").filter(|name| [TRUSTED_ROOT, SIGNING_CONFIG].contains(name))?;
        let files = served.documents.targets.as_ref()?.target_files();
        let file = files.iter().find(|file| file.split_once('.').is_some_and(|(_, of)| of == name))?;
        served.files.get(&format!("targets/{file}")).cloned()
    }

    /// Version and end of each document that is there.
    pub fn standings(&self) -> Vec<Standing> {
        self.served().documents.all().map(standing).collect()
    }

    /// What will expire, and when: `tuf-root`, `tuf-targets`, `tuf-snapshot`, `tuf-timestamp`.
    pub fn expiries(&self) -> Vec<(String, Timestamp)> {
        self.standings().into_iter().map(|one| (format!("tuf-{}", one.kind.name()), one.expires)).collect()
    }

    /// Refreshes that failed, since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether the key that signs roots lies in the data directory.
    pub fn root_key_is_here(&self) -> bool {
        tuf_root_is_here(&self.data).unwrap_or(false)
    }

    /// What somebody should know of, one sentence each; none when all is well.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.trouble.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        for Standing { kind, expires, .. } in self.standings() {
            let left = expires.duration_since(now);
            if kind == Kind::Root && left < ROOT_WARNING {
                let how = if self.root_key_is_here() {
                    "it could not be signed again; the service's log says why"
                } else {
                    "its key is kept offline: sign the next one with `countersign trust tuf sign-root --key FILE`"
                };
                warnings.push(format!("the TUF root expires at {expires}: {how}"));
            } else if kind != Kind::Root && left < kind.life() / 3 {
                warnings.push(format!("the TUF {} expires at {expires} and was not signed again", kind.name()));
            }
        }
        warnings
    }

    fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn serve(&self, documents: Documents) {
        let served = Served { documents, files: self.files.all() };
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(served);
    }

    fn try_refresh(&self, public: &Public, now: Timestamp) -> Result<bool, TufError> {
        let _one = self.signing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = public.tuf().ok_or(KeyError::Crypto("sign TUF metadata without keys for it"))?;
        let present = self.served().documents.clone();
        let (root, new_root) = self.root(keys, present.root, now)?;
        let (trusted_root, signing_config) = (public.trusted_root(), public.signing_config(&self.base_url));
        let contents =
            BTreeMap::from([(SIGNING_CONFIG, signing_config.as_bytes()), (TRUSTED_ROOT, trusted_root.as_bytes())]);
        let good = |document: &Metadata| !document.is_due(now) && document.is_signed_by(&[&keys.online]);

        let points = |document: &Metadata, to: &Metadata| document.points_to(to.kind()) == Some(to.version());
        let (targets, new_targets) = self.renewed(
            Kind::Targets,
            present.targets,
            now,
            |old| good(old) && old.lists(&contents),
            |version, end| tuf::targets(version, end, &contents),
        )?;
        let (snapshot, new_snapshot) = self.renewed(
            Kind::Snapshot,
            present.snapshot,
            now,
            |old| !new_targets && good(old) && points(old, &targets),
            |version, end| tuf::snapshot(version, end, &targets),
        )?;
        let (timestamp, new_timestamp) = self.renewed(
            Kind::Timestamp,
            present.timestamp,
            now,
            |old| !new_snapshot && good(old) && points(old, &snapshot),
            |version, end| tuf::timestamp(version, end, &snapshot),
        )?;
        if !(new_root || new_timestamp) {
            return Ok(false);
        }
        // Each before the one that points to it; the timestamp, which nothing points to, last. The root stands for itself.
        if new_targets {
            self.files.put_targets(&targets, &contents)?;
        }
        if new_snapshot {
            self.files.put(&snapshot)?;
        }
        if new_root {
            self.files.put_root(&root)?;
        }
        if new_timestamp {
            self.files.put(&timestamp)?;
        }
        self.files.tidy(&snapshot, &targets);
        self.serve(Documents {
            root: Some(root),
            targets: Some(targets),
            snapshot: Some(snapshot),
            timestamp: Some(timestamp),
        });
        Ok(true)
    }

    /// The document that is there if it may be kept, else a new one; and whether it is a new one.
    fn renewed(
        &self,
        kind: Kind,
        present: Option<Metadata>,
        now: Timestamp,
        may_be_kept: impl Fn(&Metadata) -> bool,
        body: impl FnOnce(u64, Timestamp) -> serde_json::Value,
    ) -> Result<(Metadata, bool), TufError> {
        match present {
            Some(old) if may_be_kept(&old) => Ok((old, false)),
            before => Ok((self.sign(kind, before.as_ref(), now, body)?, true)),
        }
    }

    /// Makes the keys in a data directory of an older version, which has none.
    fn make_keys(&self) -> Result<(), TufError> {
        Ok(self.keyring.add_tuf(&self.data, &(self.load_kek)()?)?)
    }

    /// The root that should be in force, and whether it is a new one.
    fn root(&self, keys: &TufKeys, present: Option<Metadata>, now: Timestamp) -> Result<(Metadata, bool), TufError> {
        let Some(old) = present else {
            return Ok((self.sign_root(1, keys, None, now)?, true));
        };
        let names = |kind, key| old.keys_of(kind).is_ok_and(|named| named == [key]);
        let fits = names(Kind::Root, keys.root.clone()) && names(Kind::Timestamp, keys.online.clone());
        // Half through its life it is still good for years: without its key, the warnings tell of it in time.
        if fits && !(old.is_due(now) && self.root_key_is_here()) {
            return Ok((old, false));
        }
        match self.sign_root(old.version().saturating_add(1), keys, Some(&old), now) {
            Ok(next) => Ok((next, true)),
            Err(error) if fits => {
                tracing::debug!(%error, "the TUF root is half through its life and was not signed again");
                Ok((old, false))
            }
            Err(error) => Err(error),
        }
    }

    fn sign_root(
        &self,
        version: u64,
        keys: &TufKeys,
        before: Option<&Metadata>,
        now: Timestamp,
    ) -> Result<Metadata, TufError> {
        let signer = TufRoot::open(&self.data, &(self.load_kek)()?)?;
        let body = tuf::root(version, Kind::Root.expires(now)?, &keys.root, &keys.online);
        // The root before must vouch for it as well as its own key.
        let mut counting = vec![keys.root.clone()];
        if let Some(before) = before {
            counting.extend(before.keys_of(Kind::Root)?);
        }
        let signatures = signer.sign(&tuf::canonical(&body)?, &counting)?;
        let next = Metadata::new(body, signatures)?;
        let by_one_of = |keys: &[tuf::Key]| next.is_signed_by(&keys.iter().collect::<Vec<_>>());
        if let Some(before) = before
            && !by_one_of(&before.keys_of(Kind::Root)?)
        {
            return Err(TufError::Root("the key of the root before is not here, so clients would not follow"));
        }
        Ok(next)
    }

    fn sign(
        &self,
        kind: Kind,
        before: Option<&Metadata>,
        now: Timestamp,
        body: impl FnOnce(u64, Timestamp) -> serde_json::Value,
    ) -> Result<Metadata, TufError> {
        let next = before.map_or(1, |before| before.version().saturating_add(1));
        let version = next.max(u64::try_from(now.as_second()).unwrap_or(1));
        let body = body(version, kind.expires(now)?);
        let signature = self.keyring.sign_tuf(&tuf::canonical(&body)?)?;
        Ok(Metadata::new(body, vec![signature])?)
    }
}

fn standing(document: &Metadata) -> Standing {
    Standing { kind: document.kind(), version: document.version(), expires: document.expires() }
}
