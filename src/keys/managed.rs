//! Named keys that the service holds for its callers: `Sign` with `key = "release"`.
//!
//! A key has versions. The newest signs; the older ones stay, as what they signed is verified by them. *Disabled* it signs
//! nothing until it is enabled again; *revoked* never again. All keys are ECDSA on P-256: of the log's entries (Rekor v2,
//! `hashedrekord` 0.0.2) that is the one kind that every stock client verifies.
//!
//! ```text
//! DIR/managed/                  0700, each file 0600
//!   NAME.1.key  NAME.1.pem      sealed like the keys beside them, or naming a key on a token; the public key
//!   NAME.2.key  NAME.2.pem      after a rotation
//!   manifest.json               states and versions, and the digest of every file; authenticated
//! ```
//!
//! A change is planned ([`ManagedKeys::create`] and its siblings), and does nothing before [`ManagedKeys::commit`]: what
//! grants something can be recorded in the log in between. Committing writes the new files first and then the manifest, by
//! a rename, and reads everything back; a crash before the rename leaves the old manifest and files that nobody names.
//!
//! What no file can show: a directory that was set back to an older copy of itself, in which a revoked key is not
//! revoked. The revocation in the log is what verifiers go by.
//!
//! Not here: who may use or change a key (rules, faces), what is signed with it (`signing`).

mod manifest;

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;

pub use self::manifest::{KeyState, KeyVersion};
use self::manifest::{MANIFEST, Manifest, Named};
use super::{
    Custody, Kek, KekSource, KeyError,
    ec::{Curve, EcKey},
    seal, vault,
};
use crate::model::{Digest, KeyName};

/// Keys that there may be.
const MOST_KEYS: usize = 1_024;
/// Versions that one key may have.
const MOST_VERSIONS: usize = 1_024;

/// Why a key is not used, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefusal {
    /// There is none of that name.
    #[error("there is no key {0}; an admin makes one with `countersign key create {0}`")]
    Unknown(KeyName),
    /// There is one of that name.
    #[error("the key {0} is there already; give it a new version with `countersign key rotate {0}`")]
    Exists(KeyName),
    /// It is disabled.
    #[error("the key {0} is disabled; an admin enables it with `countersign key enable {0}`")]
    Disabled(KeyName),
    /// It is revoked.
    #[error("the key {0} is revoked, for good; use another one")]
    Revoked(KeyName),
    /// There may be no more.
    #[error("{0}")]
    TooMany(String),
    /// The keys were changed by somebody else since the change was planned.
    #[error("the keys were changed meanwhile; try again")]
    Raced,
    /// It cannot be made, opened, written or used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It was made.
    Created,
    /// It has a new version.
    Rotated,
    /// It signs nothing for now.
    Disabled,
    /// It signs again.
    Enabled,
    /// It signs nothing any more.
    Revoked,
}

impl Event {
    /// The lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Rotated => "rotated",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Revoked => "revoked",
        }
    }

    /// Whether more can be signed after it than before: such an event is recorded before it happens.
    pub const fn grants(self) -> bool {
        matches!(self, Self::Created | Self::Rotated | Self::Enabled)
    }
}

/// The public side of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedKey {
    /// Its name.
    pub name: KeyName,
    /// Whether it signs.
    pub state: KeyState,
    /// Oldest first; the last one signs. Never empty.
    pub versions: Vec<KeyVersion>,
}

impl ManagedKey {
    /// The version that signs, if anything does.
    pub fn newest(&self) -> Option<&KeyVersion> {
        self.versions.last()
    }
}

/// A change that was planned; see [`ManagedKeys::commit`].
#[derive(Debug)]
pub struct Change {
    /// What will have happened.
    pub event: Event,
    /// The key as it will be.
    pub key: ManagedKey,
    /// Whether it is so already, and nothing needs to be written.
    pub is_done: bool,
    manifest: Manifest,
    files: Vec<(String, Vec<u8>)>,
    /// The manifest that it was planned on.
    base: String,
}

/// The version of a key that signs, opened.
#[derive(Debug)]
pub struct SigningKey {
    name: KeyName,
    version: usize,
    key: EcKey,
}

impl SigningKey {
    /// The key's name.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The version, from 1.
    pub fn version(&self) -> usize {
        self.version
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> &[u8] {
        self.key.spki()
    }

    /// What bundles say of the key, as cosign and sigstore-go do: the digest of its `SubjectPublicKeyInfo`, in base64.
    pub fn hint(&self) -> String {
        STANDARD.encode(Digest::of(self.spki()).as_bytes())
    }

    /// ECDSA over a SHA-256 digest, ASN.1 DER.
    ///
    /// # Errors
    /// [`KeyError::Token`] if the key is on a token that does not sign; [`KeyError::Crypto`] if the library refuses.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        self.key.sign_digest(digest)
    }
}

/// What is served: the manifest as it is on disk, and the keys that sign.
#[derive(Debug)]
struct State {
    manifest: Manifest,
    signing: BTreeMap<KeyName, Arc<SigningKey>>,
}

/// All managed keys of one instance.
pub struct ManagedKeys {
    dir: PathBuf,
    source: KekSource,
    custody: Custody,
    host: String,
    /// Replaced as a whole when a change is committed.
    current: RwLock<Arc<State>>,
    /// Held while a change is written.
    writing: Mutex<()>,
}

impl fmt::Debug for ManagedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedKeys").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl ManagedKeys {
    /// Opens the keys below `data`, of the instance of this host; there may be none yet. The key-encryption key is read
    /// now and for each change, and not kept.
    ///
    /// # Errors
    /// [`KeyError::WrongKek`], [`KeyError::Damaged`], [`KeyError::Format`], or those of the source.
    pub fn open(data: &Path, source: KekSource, custody: Custody, host: &str) -> Result<Self, KeyError> {
        let dir = data.join("managed");
        let current = State::load(&dir, &source.load()?, &custody)?;
        Ok(Self {
            dir,
            source,
            custody,
            host: host.to_owned(),
            current: RwLock::new(Arc::new(current)),
            writing: Mutex::default(),
        })
    }

    fn current(&self) -> Arc<State> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All keys, by name.
    pub fn list(&self) -> Vec<ManagedKey> {
        self.current().manifest.keys().collect()
    }

    /// One key.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`].
    pub fn get(&self, name: &KeyName) -> Result<ManagedKey, KeyRefusal> {
        self.current().manifest.key(name).ok_or_else(|| KeyRefusal::Unknown(name.clone()))
    }

    /// What signs under this name.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`], [`KeyRefusal::Disabled`] or [`KeyRefusal::Revoked`].
    pub fn signer(&self, name: &KeyName) -> Result<Arc<SigningKey>, KeyRefusal> {
        let current = self.current();
        match current.manifest.key(name).map(|key| key.state) {
            None => Err(KeyRefusal::Unknown(name.clone())),
            Some(KeyState::Disabled) => Err(KeyRefusal::Disabled(name.clone())),
            Some(KeyState::Revoked) => Err(KeyRefusal::Revoked(name.clone())),
            Some(KeyState::Enabled) => {
                current.signing.get(name).cloned().ok_or_else(|| KeyRefusal::Unknown(name.clone()))
            }
        }
    }

    /// Refuses if a key that signs is on a token, and cannot be used there: asks the token, and may take seconds.
    ///
    /// # Errors
    /// [`KeyError::Token`], [`KeyError::Pin`].
    pub fn check_custody(&self) -> Result<(), KeyError> {
        self.current().signing.values().try_for_each(|signing| signing.key.check())
    }

    /// Plans a new key.
    ///
    /// # Errors
    /// [`KeyRefusal::Exists`], [`KeyRefusal::TooMany`], or what making a key came to.
    pub fn create(&self, name: &KeyName, now: Timestamp) -> Result<Change, KeyRefusal> {
        let current = self.current();
        if current.manifest.key(name).is_some() {
            return Err(KeyRefusal::Exists(name.clone()));
        }
        if current.manifest.len() >= MOST_KEYS {
            return Err(KeyRefusal::TooMany(format!("there are {MOST_KEYS} keys already, which is the most")));
        }
        self.with_version(&current, name, Named::default(), Event::Created, now)
    }

    /// Plans a new version of a key, which signs from then on.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`], [`KeyRefusal::Disabled`], [`KeyRefusal::Revoked`], or what making a key came to.
    pub fn rotate(&self, name: &KeyName, now: Timestamp) -> Result<Change, KeyRefusal> {
        self.signer(name)?;
        let current = self.current();
        let named = current.manifest.named(name).ok_or_else(|| KeyRefusal::Unknown(name.clone()))?;
        if named.versions.len() >= MOST_VERSIONS {
            return Err(KeyRefusal::TooMany(format!("the key {name} has {MOST_VERSIONS} versions, which is the most")));
        }
        self.with_version(&current, name, named, Event::Rotated, now)
    }

    /// Plans that a key signs nothing for now.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`], [`KeyRefusal::Revoked`].
    pub fn disable(&self, name: &KeyName) -> Result<Change, KeyRefusal> {
        self.with_state(name, KeyState::Disabled, Event::Disabled)
    }

    /// Plans that a disabled key signs again.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`], [`KeyRefusal::Revoked`].
    pub fn enable(&self, name: &KeyName) -> Result<Change, KeyRefusal> {
        self.with_state(name, KeyState::Enabled, Event::Enabled)
    }

    /// Plans that a key signs nothing any more, for good.
    ///
    /// # Errors
    /// [`KeyRefusal::Unknown`].
    pub fn revoke(&self, name: &KeyName) -> Result<Change, KeyRefusal> {
        self.with_state(name, KeyState::Revoked, Event::Revoked)
    }

    fn with_version(
        &self,
        current: &State,
        name: &KeyName,
        mut named: Named,
        event: Event,
        now: Timestamp,
    ) -> Result<Change, KeyRefusal> {
        let number = named.versions.len() + 1;
        let key = self.custody.new_ec(&self.host, &role(name, number), Curve::P256)?;
        let sealed = seal::seal(&self.source.load()?, &role(name, number), &key.to_sealable()?)?;
        let pem = vault::to_pem("PUBLIC KEY", key.spki())?;
        named.versions.push(KeyVersion { made_at: now, key: Digest::of(key.spki()), public_key: pem.clone() });
        let mut manifest = current.manifest.clone();
        let files = vec![(file(name, number, "key"), sealed), (file(name, number, "pem"), pem.into_bytes())];
        for (name, bytes) in &files {
            manifest.name_file(name, bytes);
        }
        manifest.put(name, named);
        Ok(planned(current, manifest, name, event, files)?)
    }

    fn with_state(&self, name: &KeyName, state: KeyState, event: Event) -> Result<Change, KeyRefusal> {
        let current = self.current();
        let mut named = current.manifest.named(name).ok_or_else(|| KeyRefusal::Unknown(name.clone()))?;
        if named.state == KeyState::Revoked && state != KeyState::Revoked {
            return Err(KeyRefusal::Revoked(name.clone()));
        }
        let mut manifest = current.manifest.clone();
        named.state = state;
        manifest.put(name, named);
        Ok(planned(&current, manifest, name, event, Vec::new())?)
    }

    /// Makes a planned change: on disk first, then for everyone who asks.
    ///
    /// # Errors
    /// [`KeyRefusal::Raced`], or an input/output failure, after which the change may have been made or not.
    pub fn commit(&self, change: Change) -> Result<ManagedKey, KeyRefusal> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if change.base != self.current().manifest.mac() {
            return Err(KeyRefusal::Raced);
        }
        if change.is_done {
            return Ok(change.key);
        }
        let kek = self.source.load()?;
        make_dir(&self.dir, &kek)?;
        for (name, bytes) in &change.files {
            let path = self.dir.join(name);
            // Left by a change that did not get to its manifest.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(vault::io("remove", &path, error).into());
                }
                _ => vault::write_new(&path, bytes)?,
            }
        }
        change.manifest.write(&self.dir, &kek)?;
        let renewed = State::load(&self.dir, &kek, &self.custody)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(change.key)
    }
}

fn planned(
    current: &State,
    manifest: Manifest,
    name: &KeyName,
    event: Event,
    files: Vec<(String, Vec<u8>)>,
) -> Result<Change, KeyError> {
    let key = manifest.key(name).ok_or(KeyError::Crypto("find the key that was changed"))?;
    let is_done = current.manifest.key(name).is_some_and(|before| before == key);
    Ok(Change { event, key, is_done, manifest, files, base: current.manifest.mac().to_owned() })
}

impl State {
    /// Reads everything; opens the keys that sign.
    fn load(dir: &Path, kek: &Kek, custody: &Custody) -> Result<Self, KeyError> {
        let manifest = Manifest::read(dir, kek)?;
        let mut signing = BTreeMap::new();
        for key in manifest.keys().filter(|key| key.state == KeyState::Enabled) {
            let (name, version) = (key.name.clone(), key.versions.len());
            let path = dir.join(file(&name, version, "key"));
            let damaged = |problem| KeyError::Damaged { path: path.clone(), problem };
            let sealed = fs::read(&path).map_err(|source| vault::io("read", &path, source))?;
            let secret = seal::open(kek, &role(&name, version), &sealed)?;
            let opened = custody.ec(Curve::P256, &secret.ok_or_else(|| damaged("cannot be unsealed"))?)?;
            if key.newest().is_none_or(|newest| newest.key != Digest::of(opened.spki())) {
                return Err(damaged("does not fit its public key"));
            }
            signing.insert(name.clone(), Arc::new(SigningKey { name, version, key: opened }));
        }
        Ok(Self { manifest, signing })
    }
}

/// Makes the directory with an empty manifest, so that one without a manifest is always one that lost it.
fn make_dir(dir: &Path, kek: &Kek) -> Result<(), KeyError> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => vault::sync_dir(dir.parent().unwrap_or(dir))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(source) => return Err(vault::io("make", dir, source)),
    }
    if dir.join(MANIFEST).exists() { Ok(()) } else { Manifest::empty(kek)?.write(dir, kek) }
}

/// The role under which a version is sealed, and labelled on a token.
fn role(name: &KeyName, number: usize) -> String {
    format!("managed/{name}/{number}")
}

fn file(name: &KeyName, number: usize, ending: &str) -> String {
    format!("{name}.{number}.{ending}")
}
