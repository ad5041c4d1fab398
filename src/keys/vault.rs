//! The directory of sealed keys and public certificates.
//!
//! Making it: each file is written new, with mode 0600, and synced; the manifest comes last, under a temporary name
//! that is then renamed. A crash before the rename leaves a directory without manifest, which is refused as half
//! made. The manifest names the digest of every file and is itself authenticated under the key-encryption key, so
//! a changed certificate or host name is noticed, and not only a changed key. How it changes later: [`changes`].

mod changes;

pub(super) use changes::NewKey;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::hmac;
use der::pem::{self, LineEnding};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Kek, KeyError, seal};
use crate::model::Digest;

/// The format of the directory that this version writes and reads.
pub(super) const FORMAT: u64 = 1;
const MANIFEST: &str = "manifest.json";
const NEW_MANIFEST: &str = "manifest.json.new";

/// What `manifest.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    format: u64,
    host: String,
    /// From when on the certificates and keys are valid.
    valid_from: Timestamp,
    /// Tells a wrong key-encryption key from a changed file.
    kek_id: String,
    /// The logs that succeeded the first one, in order; absent where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Successor>,
    /// The keys that took the place of others, in order; absent where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    generations: Vec<Generation>,
    /// File name to content digest.
    files: BTreeMap<String, Digest>,
    /// HMAC-SHA256 over the manifest with this field empty, hexadecimal.
    mac: String,
}

/// A log that succeeded another one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Successor {
    pub(super) origin: String,
    /// From when on its key is valid; the key before is valid until then.
    pub(super) valid_from: Timestamp,
}

/// A key that took the place of another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Generation {
    /// `ca`, `sct`, `tsa` or `tuf`.
    pub(super) role: String,
    /// From 2.
    pub(super) number: u32,
    /// Which root it stands under; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<u32>,
    /// From when on it signs.
    pub(super) signs_from: Timestamp,
}

/// The role of the n-th key, from 1, of those that take each other's place: `ca`, `ca-2`, `ca-3`.
pub(super) fn generation_role(role: &str, number: u32) -> String {
    if number <= 1 { role.to_owned() } else { format!("{role}-{number}") }
}

/// The role of the n-th log's key, from 0.
pub(super) fn log_role(number: usize) -> String {
    if number == 0 { "log".to_owned() } else { format!("log-{}", number + 1) }
}

/// The directory, being made or opened.
#[derive(Debug)]
pub(super) struct Vault<'kek> {
    dir: PathBuf,
    kek: Option<&'kek Kek>,
    manifest: Manifest,
    /// Held while the directory is changed, so that two processes do not do that at a time; see [`changes`].
    _lock: Option<File>,
}

impl<'kek> Vault<'kek> {
    /// Makes `dir/keys`, empty.
    pub(super) fn create(dir: &Path, kek: &'kek Kek) -> Result<Self, KeyError> {
        let keys = dir.join("keys");
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| io("make", dir, source))?;
        match DirBuilder::new().mode(0o700).create(&keys) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let finished = keys.join(MANIFEST).exists();
                return Err(if finished { KeyError::Exists(keys) } else { KeyError::HalfMade(keys) });
            }
            Err(source) => return Err(io("make", &keys, source)),
        }
        sync_dir(dir)?;
        let manifest = Manifest {
            format: FORMAT,
            host: String::new(),
            valid_from: Timestamp::UNIX_EPOCH,
            kek_id: kek_id(kek)?,
            logs: Vec::new(),
            generations: Vec::new(),
            files: BTreeMap::new(),
            mac: String::new(),
        };
        Ok(Self { dir: keys, kek: Some(kek), manifest, _lock: None })
    }

    /// Seals `secret` into `role.key`.
    pub(super) fn put_key(&mut self, role: &str, secret: &[u8]) -> Result<(), KeyError> {
        let sealed = seal::seal(self.kek()?, role, secret)?;
        self.put(format!("{role}.key"), &sealed)
    }

    /// Writes something public to `role.pem`.
    pub(super) fn put_public(&mut self, role: &str, label: &'static str, der: &[u8]) -> Result<(), KeyError> {
        self.put(format!("{role}.pem"), to_pem(label, der)?.as_bytes())
    }

    /// Writes the manifest: from now on the directory is whole.
    pub(super) fn finish(mut self, host: &str, valid_from: Timestamp) -> Result<(), KeyError> {
        host.clone_into(&mut self.manifest.host);
        self.manifest.valid_from = valid_from;
        self.write_manifest()
    }

    fn write_manifest(&mut self) -> Result<(), KeyError> {
        self.manifest.mac = hex::encode(hmac::sign(&mac_key(self.kek()?)?, &self.manifest.authenticated()?));
        let temporary = self.dir.join(NEW_MANIFEST);
        write_new(&temporary, &self.manifest.to_json()?)?;
        // The files are named durably before the manifest that vouches for them is.
        sync_dir(&self.dir)?;
        let path = self.dir.join(MANIFEST);
        fs::rename(&temporary, &path).map_err(|source| io("rename", &path, source))?;
        sync_dir(&self.dir)
    }

    /// Opens `dir/keys` and checks the manifest and every file it names.
    pub(super) fn open(dir: &Path, kek: &'kek Kek) -> Result<Self, KeyError> {
        let vault = Self { kek: Some(kek), ..Self::open_public(dir)? };
        if vault.manifest.kek_id != kek_id(kek)? {
            return Err(KeyError::WrongKek(vault.dir));
        }
        let path = vault.dir.join(MANIFEST);
        let changed = || KeyError::Damaged { path: path.clone(), problem: "was changed" };
        let mac = hex::decode(&vault.manifest.mac).map_err(|_source| changed())?;
        hmac::verify(&mac_key(kek)?, &vault.manifest.authenticated()?, &mac).map_err(|_source| changed())?;
        for name in vault.manifest.files.keys() {
            vault.read(name)?;
        }
        Ok(vault)
    }

    /// Opens `dir/keys` for what is public in it: no key-encryption key, and the manifest is taken as it is.
    pub(super) fn open_public(dir: &Path) -> Result<Self, KeyError> {
        let keys = dir.join("keys");
        let path = keys.join(MANIFEST);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(if keys.exists() { KeyError::HalfMade(keys) } else { KeyError::Missing(keys) });
            }
            Err(source) => return Err(io("read", &path, source)),
        };
        let value: serde_json::Value = serde_json::from_slice(&json)
            .map_err(|_source| KeyError::Damaged { path: path.clone(), problem: "is not valid JSON" })?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            found => return Err(KeyError::Format { path, found: found.unwrap_or(0) }),
        }
        let manifest = serde_json::from_value(value)
            .map_err(|_source| KeyError::Damaged { path, problem: "is not a manifest of this format" })?;
        Ok(Self { dir: keys, kek: None, manifest, _lock: None })
    }

    pub(super) fn host(&self) -> &str {
        &self.manifest.host
    }

    /// The logs that succeeded the first one, in order.
    pub(super) fn successors(&self) -> &[Successor] {
        &self.manifest.logs
    }

    pub(super) fn valid_from(&self) -> Timestamp {
        self.manifest.valid_from
    }

    /// The keys of one role that took the place of others, in order.
    pub(super) fn generations(&self, role: &str) -> impl Iterator<Item = &Generation> {
        self.manifest.generations.iter().filter(move |generation| generation.role == role)
    }

    /// Whether the manifest names this file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.manifest.files.contains_key(name)
    }

    /// Unseals `role.key`: PKCS#8 DER.
    pub(super) fn key(&self, role: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let sealed = self.read(&format!("{role}.key"))?;
        seal::open(self.kek()?, role, &sealed)?.ok_or_else(|| self.damaged(role, "cannot be unsealed"))
    }

    /// The DER in `role.pem`.
    pub(super) fn public(&self, role: &str) -> Result<Vec<u8>, KeyError> {
        let name = format!("{role}.pem");
        let text = self.read(&name)?;
        let damaged = || KeyError::Damaged { path: self.dir.join(&name), problem: "is not PEM" };
        pem::decode_vec(&text).map(|(_label, der)| der).map_err(|_source| damaged())
    }

    /// The refusal for a damaged key file.
    pub(super) fn damaged(&self, role: &str, problem: &'static str) -> KeyError {
        KeyError::Damaged { path: self.dir.join(format!("{role}.key")), problem }
    }

    fn kek(&self) -> Result<&'kek Kek, KeyError> {
        self.kek.ok_or(KeyError::Crypto("unseal a key without a key-encryption key"))
    }

    fn put(&mut self, name: String, bytes: &[u8]) -> Result<(), KeyError> {
        write_new(&self.dir.join(&name), bytes)?;
        self.manifest.files.insert(name, Digest::of(bytes));
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, KeyError> {
        let path = self.dir.join(name);
        let Some(expected) = self.manifest.files.get(name) else {
            return Err(KeyError::Damaged { path, problem: "is not in the manifest" });
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(KeyError::Damaged { path, problem: "is missing" });
            }
            Err(source) => return Err(io("read", &path, source)),
        };
        if Digest::of(&bytes) != *expected {
            return Err(KeyError::Damaged { path, problem: "was changed" });
        }
        Ok(bytes)
    }
}

impl Manifest {
    fn to_json(&self) -> Result<Vec<u8>, KeyError> {
        serde_json::to_vec_pretty(self).map_err(|_source| KeyError::Crypto("write the manifest"))
    }

    fn authenticated(&self) -> Result<Vec<u8>, KeyError> {
        let fields = (self.format, &self.host, self.valid_from, &self.kek_id, &self.files);
        // Without what came later to the format, the bytes are those of its first version.
        let bytes = match (self.logs.is_empty(), self.generations.is_empty()) {
            (true, true) => serde_json::to_vec(&fields),
            (false, true) => serde_json::to_vec(&(fields, &self.logs)),
            (_, false) => serde_json::to_vec(&(fields, &self.logs, &self.generations)),
        };
        bytes.map_err(|_source| KeyError::Crypto("write the manifest"))
    }
}

/// PEM of `der`.
pub(super) fn to_pem(label: &'static str, der: &[u8]) -> Result<String, KeyError> {
    pem::encode_string(label, LineEnding::LF, der).map_err(|_source| KeyError::Crypto("write PEM"))
}

pub(super) fn kek_id(kek: &Kek) -> Result<String, KeyError> {
    let id = kek.derive("identify")?;
    Ok(hex::encode(id.iter().take(8).copied().collect::<Vec<u8>>()))
}

fn mac_key(kek: &Kek) -> Result<hmac::Key, KeyError> {
    Ok(hmac::Key::new(hmac::HMAC_SHA256, kek.derive("manifest")?.as_slice()))
}

pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|source| io("write", path, source))
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), KeyError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| io("sync", dir, source))
}

pub(super) fn io(what: &'static str, path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { what, path: path.to_owned(), source }
}
