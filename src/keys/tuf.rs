//! The keys of the TUF repository: the root key, and the online key that signs everything else.
//!
//! The root key is unsealed only to sign a root, and may be kept elsewhere: see [`super::take_tuf_root_offline`]. The
//! documents themselves are `model::tuf`; when they are signed is decided in `tuf`.

use std::path::Path;

use zeroize::Zeroizing;

use super::{
    Kek, KeyError, Keyring, Rotating,
    ec::{Curve, EcKey},
    vault::{NewKey, Vault, generation_role},
};
use crate::model::tuf::{Key, MetadataError};

const ROOT: &str = "tuf-root";
const ONLINE: &str = "tuf";

/// The public side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TufKeys {
    /// Signs roots.
    pub root: Key,
    /// Signs the other three documents.
    pub online: Key,
    /// How many online keys there were, this one counted.
    pub number: u32,
    /// Which root key this is, from 1.
    pub root_number: u32,
}

impl TufKeys {
    /// `None` for a directory of an older version, which has none yet.
    pub(super) fn from_vault(vault: &Vault<'_>) -> Result<Option<Self>, KeyError> {
        if !vault.has("tuf.pem") {
            return Ok(None);
        }
        let (number, root_number) = newest(vault);
        let key = |role: &str, number| -> Result<Key, KeyError> {
            let role = generation_role(role, number);
            Key::from_spki(&vault.public(&role)?).map_err(|_source| vault.damaged(&role, "is not a P-256 key"))
        };
        Ok(Some(Self { root: key(ROOT, root_number)?, online: key(ONLINE, number)?, number, root_number }))
    }
}

/// The numbers of the newest online key and of the newest root key.
pub(super) fn newest(vault: &Vault<'_>) -> (u32, u32) {
    vault.generations(Rotating::Tuf.name()).last().map_or((1, 1), |last| (last.number, last.root.unwrap_or(1)))
}

/// The first two keys.
pub(super) fn new_keys() -> Result<[NewKey; 2], KeyError> {
    Ok([new_key(ROOT, 1)?, new_key(ONLINE, 1)?])
}

/// The n-th key of a role.
pub(super) fn new_key(role: &str, number: u32) -> Result<NewKey, KeyError> {
    let key = EcKey::generate(Curve::P256)?;
    let secret = Zeroizing::new(key.to_pkcs8()?.as_ref().to_vec());
    Ok(NewKey { role: generation_role(role, number), secret, label: "PUBLIC KEY", public: key.spki().to_vec() })
}

/// The online key, opened.
pub(super) struct TufSigner {
    id: String,
    key: EcKey,
}

impl TufSigner {
    pub(super) fn open(vault: &Vault<'_>, public: Option<&TufKeys>) -> Result<Option<Self>, KeyError> {
        let Some(public) = public else { return Ok(None) };
        let role = generation_role(ONLINE, public.number);
        let (id, key) = open_one(vault, &role, &vault.key(&role)?)?;
        Ok(Some(Self { id, key }))
    }
}

/// A key of a role with its id; it must be the one whose public half is there.
fn open_one(vault: &Vault<'_>, role: &str, pkcs8: &[u8]) -> Result<(String, EcKey), KeyError> {
    let key = EcKey::from_pkcs8(Curve::P256, pkcs8)?;
    if key.spki() != vault.public(role)? {
        return Err(vault.damaged(role, "does not fit its public key"));
    }
    let id = Key::from_spki(key.spki()).map_err(|_source| vault.damaged(role, "is not a P-256 key"))?;
    Ok((id.id().to_owned(), key))
}

/// Whether the key that signs TUF roots lies in this data directory.
///
/// # Errors
/// As [`super::Public::open`].
pub fn tuf_root_is_here(dir: &Path) -> Result<bool, KeyError> {
    let vault = Vault::open_public(dir)?;
    let (_, root) = newest(&vault);
    Ok(vault.has(&format!("{}.key", generation_role(ROOT, root))))
}

/// The role names of all root keys that there were, the newest last.
pub(super) fn root_roles(vault: &Vault<'_>) -> Vec<String> {
    let (_, newest) = newest(vault);
    (1..=newest).map(|number| generation_role(ROOT, number)).collect()
}

/// The root keys, unsealed: the newest, and those before it as far as they are there.
pub struct TufRoot(Vec<(String, EcKey)>);

impl TufRoot {
    /// Opens those in `dir/keys`.
    ///
    /// # Errors
    /// [`KeyError::TufRoot`] if the newest is kept elsewhere; else as [`Keyring::open`].
    pub fn open(dir: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let vault = Vault::open(dir, kek)?;
        let roles = root_roles(&vault);
        let here = |role: &String| vault.has(&format!("{role}.key"));
        if !roles.last().is_some_and(here) {
            return Err(offline());
        }
        let keys = roles.iter().filter(|role| here(role)).map(|role| open_one(&vault, role, &vault.key(role)?));
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Keys that were unsealed elsewhere, PKCS#8.
    pub(super) fn from_secrets(secrets: &[Zeroizing<Vec<u8>>]) -> Result<Self, KeyError> {
        let open = |pkcs8: &Zeroizing<Vec<u8>>| -> Result<(String, EcKey), KeyError> {
            let key = EcKey::from_pkcs8(Curve::P256, pkcs8)?;
            let id = Key::from_spki(key.spki()).map_err(|_source| KeyError::Crypto("name a TUF root key"))?;
            Ok((id.id().to_owned(), key))
        };
        Ok(Self(secrets.iter().map(open).collect::<Result<_, _>>()?))
    }

    /// Refuses keys of which none has this public half.
    pub(super) fn must_be(&self, spki: &[u8]) -> Result<(), KeyError> {
        if self.0.iter().any(|(_, key)| key.spki() == spki) {
            return Ok(());
        }
        Err(KeyError::TufRoot("in the file is another one than this instance has".to_owned()))
    }

    /// Signs the canonical form of a root with those of the keys that count for it: key id and signature each.
    ///
    /// # Errors
    /// [`KeyError::TufRoot`] if none of them counts.
    pub fn sign(&self, message: &[u8], counting: &[Key]) -> Result<Vec<(String, Vec<u8>)>, KeyError> {
        let counts = |(id, _): &&(String, EcKey)| counting.iter().any(|key| key.id() == id);
        let signed: Vec<_> = self
            .0
            .iter()
            .filter(counts)
            .map(|(id, key)| Ok((id.clone(), key.sign(message)?)))
            .collect::<Result<_, KeyError>>()?;
        if signed.is_empty() {
            return Err(KeyError::TufRoot("that was given is not one that the present root names".to_owned()));
        }
        Ok(signed)
    }
}

impl std::fmt::Debug for TufRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// What is said where the root key is wanted and kept elsewhere.
pub(super) fn offline() -> KeyError {
    KeyError::TufRoot(
        "is kept offline, and only a new root needs it: sign one with `countersign trust tuf sign-root --key FILE`, or \
         bring the key back with `countersign trust tuf bring-root-back --key FILE`"
            .to_owned(),
    )
}

impl From<MetadataError> for KeyError {
    fn from(_error: MetadataError) -> Self {
        Self::Crypto("write TUF metadata")
    }
}

impl Keyring {
    /// Signs the canonical form of a document with the online key: key id and signature (ASN.1 DER).
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if there is no such key yet; see [`Self::add_tuf`].
    pub fn sign_tuf(&self, message: &[u8]) -> Result<(String, Vec<u8>), KeyError> {
        let current = self.current();
        let signer = current.tuf.as_ref().ok_or(KeyError::Crypto("sign TUF metadata without a key for it"))?;
        Ok((signer.id.clone(), signer.key.sign(message)?))
    }

    /// Makes the keys of the TUF repository in a directory of an older version; nothing if they are there.
    ///
    /// # Errors
    /// As [`Self::open`], or an input/output failure.
    pub fn add_tuf(&self, dir: &Path, kek: &Kek) -> Result<(), KeyError> {
        let mut vault = Vault::open_to_change(dir, kek)?;
        if !vault.has("tuf.pem") {
            vault.add(&new_keys()?, None)?;
        }
        self.replace(super::Current::open(&vault, &self.custody)?);
        Ok(())
    }
}
