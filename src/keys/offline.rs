//! The TUF root key outside of the data directory: a file that is carried away, and comes back if need be.
//!
//! The file is JSON with the host and, by role, the sealed keys as they lay in the directory. Without the key-encryption key
//! it says nothing, so whoever signs a root offline needs both.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    Kek, KeyError, TufRoot, seal,
    tuf::{offline, root_roles},
    vault::{Vault, io, sync_dir, write_new},
};
use crate::model::limits;

const MEDIA_TYPE: &str = "application/vnd.countersign.tuf-root-key.v1+json";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RootKeyFile {
    media_type: String,
    host: String,
    /// By role, base64.
    keys: BTreeMap<String, String>,
}

/// Moves the TUF root key out of `dir/keys` into a new file, which must not lie in the data directory.
///
/// A crash in between leaves the key in both places: do it again with another file.
///
/// # Errors
/// [`KeyError::TufRoot`] if it is not there any more, or the file would lie beside it; an input/output failure.
pub fn take_tuf_root_offline(dir: &Path, kek: &Kek, out: &Path) -> Result<(), KeyError> {
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| fs::canonicalize(path).map_err(|source| io("find", path, source));
    if real(parent)?.starts_with(real(dir)?) {
        let problem = "must not lie in the data directory: choose an --out elsewhere, say on a stick";
        return Err(KeyError::TufRoot(problem.to_owned()));
    }
    let mut vault = Vault::open_to_change(dir, kek)?;
    let mut roles = root_roles(&vault);
    roles.retain(|role| vault.has(&format!("{role}.key")));
    if roles.is_empty() {
        return Err(KeyError::TufRoot("is offline already".to_owned()));
    }
    let keys = roles
        .iter()
        .map(|role| Ok((role.clone(), STANDARD.encode(vault.sealed(role)?))))
        .collect::<Result<_, KeyError>>()?;
    let file = RootKeyFile { media_type: MEDIA_TYPE.to_owned(), host: vault.host().to_owned(), keys };
    let text = serde_json::to_vec_pretty(&file).map_err(|_source| KeyError::Crypto("write the TUF root key"))?;
    write_new(out, &text)?;
    sync_dir(parent)?;
    vault.remove_keys(&roles)
}

/// Takes the TUF root key back into `dir/keys`. The file stays where it is.
///
/// # Errors
/// [`KeyError::TufRoot`] for a file that is none, or of another instance; [`KeyError::Damaged`] for a key that does not
/// open with this key-encryption key.
pub fn bring_tuf_root_back(dir: &Path, kek: &Kek, file: &Path) -> Result<(), KeyError> {
    let file = read(file)?;
    let mut vault = Vault::open_to_change(dir, kek)?;
    let wanted: Vec<String> =
        root_roles(&vault).into_iter().filter(|role| !vault.has(&format!("{role}.key"))).collect();
    let Some(newest) = wanted.last() else {
        return Err(KeyError::TufRoot("is here already".to_owned()));
    };
    if file.host != vault.host() || !file.keys.contains_key(newest) {
        return Err(KeyError::TufRoot(format!("in the file is not {newest} of {}", vault.host())));
    }
    let mut sealed = Vec::new();
    for (role, text) in file.keys.iter().filter(|(role, _)| wanted.contains(role)) {
        let secret = unseal(kek, role, text)?;
        TufRoot::from_secrets(&[secret])?.must_be(&vault.public(role)?)?;
        sealed.push((role.clone(), decode(text)?));
    }
    vault.put_back(&sealed)
}

impl TufRoot {
    /// Opens the keys in a file that [`take_tuf_root_offline`] made.
    ///
    /// # Errors
    /// [`KeyError::TufRoot`] for a file that is none, or was sealed with another key-encryption key.
    pub fn from_file(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let file = read(path)?;
        let secrets: Vec<_> = file.keys.iter().map(|(role, text)| unseal(kek, role, text)).collect::<Result<_, _>>()?;
        if secrets.is_empty() { Err(offline()) } else { Self::from_secrets(&secrets) }
    }
}

fn read(path: &Path) -> Result<RootKeyFile, KeyError> {
    let size = fs::metadata(path).map_err(|source| io("read", path, source))?.len();
    let refuse = |problem: &str| KeyError::TufRoot(format!("is not in {}: {problem}", path.display()));
    if size > u64::try_from(limits::DOCUMENT).unwrap_or(u64::MAX) {
        return Err(refuse("it has more than a mebibyte"));
    }
    let bytes = fs::read(path).map_err(|source| io("read", path, source))?;
    let file: RootKeyFile = serde_json::from_slice(&bytes)
        .map_err(|_source| refuse("give the file that `countersign trust tuf take-root-offline` made"))?;
    if file.media_type != MEDIA_TYPE {
        return Err(refuse("it is of another version"));
    }
    Ok(file)
}

fn decode(text: &str) -> Result<Vec<u8>, KeyError> {
    STANDARD.decode(text).map_err(|_source| KeyError::TufRoot("in the file is not base64".to_owned()))
}

fn unseal(kek: &Kek, role: &str, text: &str) -> Result<zeroize::Zeroizing<Vec<u8>>, KeyError> {
    let opened = seal::open(kek, role, &decode(text)?)?;
    opened.ok_or_else(|| {
        KeyError::TufRoot("in the file cannot be unsealed: give the key-encryption key of its instance".to_owned())
    })
}
