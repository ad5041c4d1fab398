//! Credentials from docker's `config.json`.
//!
//! Entries are found by registry host and repository prefix, the longest first, not by full image name. Where there is
//! none, a credential program (`credHelpers`, then `credsStore`) is to be asked: see [`helper`].

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::helper;
use crate::model::{ImageName, limits};

/// A user and password, or a token to be exchanged for access tokens.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Password { user: String, password: Zeroizing<String> },
    IdentityToken(Zeroizing<String>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(..)",
            Self::IdentityToken(_) => "IdentityToken(..)",
        })
    }
}

impl Credential {
    /// The value of an `Authorization` header for Basic authentication, if this is a password.
    pub(super) fn basic(&self) -> Option<Zeroizing<String>> {
        let Self::Password { user, password } = self else { return None };
        let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
        Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Where docker's configuration is: the setting, else docker's own rules. The flag says that it must be there.
fn location(setting: Option<&Path>) -> Option<(PathBuf, bool)> {
    if let Some(path) = setting {
        return Some((path.to_owned(), true));
    }
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker")))?;
    Some((dir.join("config.json"), false))
}

/// What the configuration has for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// The credential itself.
    Credential(Credential),
    /// A program that may have it.
    Program(helper::Question),
}

/// What the configuration has for a repository. Blocks on the file; runs no credential program.
///
/// # Errors
/// A sentence about the file; never with what it holds.
pub(super) fn find(setting: Option<&Path>, name: &ImageName) -> Result<Found, String> {
    config(setting)?.find(name)
}

/// Whether the configuration can be read; runs no credential program.
pub(super) fn check(setting: &Path) -> Result<(), String> {
    config(Some(setting)).map(drop)
}

fn config(setting: Option<&Path>) -> Result<DockerConfig, String> {
    let Some((path, required)) = location(setting) else { return Ok(DockerConfig::default()) };
    let text = match read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(DockerConfig::default()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    // serde_json's message could quote a secret, so only the place is told.
    serde_json::from_str(&text).map_err(|error| format!("{} is not valid at line {}", path.display(), error.line()))
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    if std::fs::metadata(path)?.len() > u64::try_from(limits::DOCUMENT).unwrap_or(u64::MAX) {
        return Err(io::Error::other(format!("larger than {} bytes", limits::DOCUMENT)));
    }
    std::fs::read_to_string(path).map(Zeroizing::new)
}

impl DockerConfig {
    fn find(&self, name: &ImageName) -> Result<Found, String> {
        let own = canonical_host(&name.registry);
        let full = format!("{own}/{}", name.repository);
        let entry = self
            .auths
            .iter()
            .map(|(key, entry)| (canonical_key(key), entry))
            .filter(|(key, _)| full == *key || full.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with('/')))
            .max_by_key(|(key, _)| key.len());
        if let Some((key, entry)) = entry
            && let Some(credential) = entry.credential().map_err(|problem| format!("auths entry {key}: {problem}"))?
        {
            return Ok(Found::Credential(credential));
        }
        let helper = self
            .cred_helpers
            .iter()
            .find(|(key, _)| canonical_key(key) == own)
            .map(|(key, program)| (key.as_str(), program.as_str()));
        let store = self.creds_store.as_deref().filter(|program| !program.is_empty()).map(|program| {
            // Docker keeps Docker Hub's under this key in stores.
            (if own == "docker.io" { "https://index.docker.io/v1/" } else { name.registry.as_str() }, program)
        });
        Ok(helper.or(store).map_or(Found::Nothing, |(server, program)| {
            Found::Program(helper::Question { program: program.to_owned(), server: server.to_owned() })
        }))
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::IdentityToken(Zeroizing::new(token.clone()))));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credential::Password { user: user.clone(), password: Zeroizing::new(password.clone()) }));
        }
        let Some(auth) = self.auth.as_deref().map(str::trim).filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let pair = STANDARD_NO_PAD
            .decode(auth.trim_end_matches('='))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Zeroizing::new)
            .ok_or("its auth is not base64 of user:password")?;
        let (user, password) = pair.split_once(':').ok_or("its auth is not base64 of user:password")?;
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        Ok(Some(Credential::Password { user: user.to_owned(), password }))
    }
}

fn canonical_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    match bare.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_host(host)),
        None => canonical_host(bare).to_owned(),
    }
}

fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}
