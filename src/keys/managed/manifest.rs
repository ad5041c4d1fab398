//! What there is of managed keys, and in which state: one file, authenticated under the key-encryption key.

use std::{collections::BTreeMap, fs, io::ErrorKind, path::Path};

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ManagedKey, vault};
use crate::{
    keys::{Kek, KeyError},
    model::{Digest, KeyName, limits},
};

pub(super) const MANIFEST: &str = "manifest.json";
const NEW_MANIFEST: &str = "manifest.json.new";
const FORMAT: u64 = 1;

/// Whether a key signs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// It does.
    #[default]
    Enabled,
    /// Not now.
    Disabled,
    /// Never again.
    Revoked,
}

impl KeyState {
    /// The lower-case word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVersion {
    /// When it was made.
    pub made_at: Timestamp,
    /// The digest of its `SubjectPublicKeyInfo` in DER: what policies and revocations name.
    pub key: Digest,
    /// Its public key, PEM.
    pub public_key: String,
}

/// A key under its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Named {
    pub(super) state: KeyState,
    pub(super) versions: Vec<KeyVersion>,
}

/// What `manifest.json` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Manifest {
    format: u64,
    /// Tells a wrong key-encryption key from a changed file.
    kek_id: String,
    keys: BTreeMap<KeyName, Named>,
    /// File name to content digest.
    files: BTreeMap<String, Digest>,
    /// HMAC-SHA256 over the manifest with this field empty, hexadecimal.
    mac: String,
}

impl Manifest {
    /// One without keys.
    pub(super) fn empty(kek: &Kek) -> Result<Self, KeyError> {
        let (keys, files) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { format: FORMAT, kek_id: vault::kek_id(kek)?, keys, files, mac: String::new() })
    }

    /// Reads the manifest in `dir` and checks it and every file that it names. Where nothing was ever made it is empty.
    pub(super) fn read(dir: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let path = dir.join(MANIFEST);
        let damaged = |problem| KeyError::Damaged { path: path.clone(), problem };
        let json = match fs::read(&path) {
            Ok(json) if json.len() <= limits::GRPC_MESSAGE => json,
            Ok(_long) => return Err(damaged("is longer than any that this version writes")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // A crash between making the directory and its first manifest leaves nothing else in it.
                let named =
                    |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != NEW_MANIFEST);
                let lost = fs::read_dir(dir).is_ok_and(|mut entries| entries.any(named));
                return if lost { Err(damaged("is missing")) } else { Self::empty(kek) };
            }
            Err(source) => return Err(vault::io("read", &path, source)),
        };
        let value: serde_json::Value = serde_json::from_slice(&json).map_err(|_source| damaged("is not valid JSON"))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            found => return Err(KeyError::Format { path, found: found.unwrap_or(0) }),
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|_source| damaged("is not a manifest of this format"))?;
        if manifest.kek_id != vault::kek_id(kek)? {
            return Err(KeyError::WrongKek(dir.to_owned()));
        }
        let mac = hex::decode(&manifest.mac).map_err(|_source| damaged("was changed"))?;
        hmac::verify(&mac_key(kek)?, &manifest.authenticated()?, &mac).map_err(|_source| damaged("was changed"))?;
        for (name, digest) in &manifest.files {
            let path = dir.join(name);
            match fs::read(&path) {
                Ok(bytes) if Digest::of(&bytes) == *digest => {}
                Ok(_changed) => return Err(KeyError::Damaged { path, problem: "was changed" }),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(KeyError::Damaged { path, problem: "is missing" });
                }
                Err(source) => return Err(vault::io("read", &path, source)),
            }
        }
        Ok(manifest)
    }

    /// Writes it in the place of the one before; the files that it names are durable then.
    pub(super) fn write(&self, dir: &Path, kek: &Kek) -> Result<(), KeyError> {
        let mut signed = self.clone();
        signed.mac = hex::encode(hmac::sign(&mac_key(kek)?, &self.authenticated()?));
        let json = serde_json::to_vec_pretty(&signed).map_err(|_source| KeyError::Crypto("write the manifest"))?;
        let (path, temporary) = (dir.join(MANIFEST), dir.join(NEW_MANIFEST));
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(vault::io("remove", &temporary, error)),
            _ => vault::write_new(&temporary, &json)?,
        }
        vault::sync_dir(dir)?;
        fs::rename(&temporary, &path).map_err(|source| vault::io("rename", &path, source))?;
        vault::sync_dir(dir)
    }

    fn authenticated(&self) -> Result<Vec<u8>, KeyError> {
        let fields = (self.format, &self.kek_id, &self.keys, &self.files);
        serde_json::to_vec(&fields).map_err(|_source| KeyError::Crypto("write the manifest"))
    }

    /// What tells this manifest from others; empty for one that was never written.
    pub(super) fn mac(&self) -> &str {
        &self.mac
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn named(&self, name: &KeyName) -> Option<Named> {
        self.keys.get(name).cloned()
    }

    pub(super) fn key(&self, name: &KeyName) -> Option<ManagedKey> {
        self.keys.get(name).map(|named| public(name, named))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ManagedKey> {
        self.keys.iter().map(|(name, named)| public(name, named))
    }

    pub(super) fn put(&mut self, name: &KeyName, named: Named) {
        self.keys.insert(name.clone(), named);
    }

    pub(super) fn name_file(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), Digest::of(bytes));
    }
}

fn public(name: &KeyName, named: &Named) -> ManagedKey {
    ManagedKey { name: name.clone(), state: named.state, versions: named.versions.clone() }
}

fn mac_key(kek: &Kek) -> Result<hmac::Key, KeyError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, kek.derive("managed manifest")?.as_slice()))
}
