//! Docker's `config.json`: who we are to which registry.
//!
//! Entries are found by registry host and repository prefix, the longest first, not by full image name. Where there is
//! none, a credential program (`credHelpers`, then `credsStore`) is to be asked, whose answer is read here too. Not here:
//! where the file is, and how a program is run. Of what is wrong, nothing that may be a secret is
//! quoted.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{image::ImageName, json::is_object, limits};

/// What a program answers in place of a user name when the secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reply {
    username: String,
    secret: String,
}

/// A user and password, or a token to be exchanged for access tokens.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// For Basic authentication, or to be exchanged for a token.
    Password {
        /// The user's name.
        user: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// To be exchanged for access tokens.
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
    /// Reads what a credential program says; `None` when that is not a name and a secret.
    pub fn of_program(output: &[u8]) -> Option<Self> {
        // As text first: serde passes over whatever stands in fields that nobody reads.
        let text = str::from_utf8(output).ok().filter(|_| is_object(output))?;
        let reply: Reply = serde_json::from_str(text).ok()?;
        let secret = Zeroizing::new(reply.secret);
        Some(match reply.username.as_str() {
            TOKEN_USER => Self::IdentityToken(secret),
            _ => Self::Password { user: reply.username, password: secret },
        })
    }

    /// The value of an `Authorization` header for Basic authentication, if this is a password.
    pub fn basic(&self) -> Option<Zeroizing<String>> {
        let Self::Password { user, password } = self else { return None };
        let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
        Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes()))))
    }
}

/// The parts of the file that speak of credentials. Debug hides them.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DockerConfig {
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

/// A question to a credential program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What follows `docker-credential-`.
    pub program: String,
    /// The server, as the program's store knows it.
    pub server: String,
}

/// What the configuration has for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The credential itself.
    Credential(Credential),
    /// A program that may have it.
    Program(Question),
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DockerConfig(..)")
    }
}

impl DockerConfig {
    /// Reads the file's text. The error is the line in which it is not valid.
    pub fn parse(text: &str) -> Result<Self, usize> {
        serde_json::from_str(text).map_err(|source| source.line())
    }

    /// What there is for a repository.
    ///
    /// # Errors
    /// A sentence that names the entry which cannot be used.
    pub fn find(&self, name: &ImageName) -> Result<Found, String> {
        let own = canonical_host(&name.registry);
        let full = format!("{own}/{}", name.repository);
        let entry = self
            .auths
            .iter()
            .map(|(key, entry)| (canonical_key(key), entry))
            .filter(|(key, _)| full == *key || full.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with('/')))
            .max_by_key(|(key, _)| key.len());
        if let Some((key, entry)) = entry
            && let Some(credential) =
                entry.credential().map_err(|problem| format!("auths entry {}: {problem}", limits::quoted(&key)))?
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
        let Some((server, program)) = helper.or(store) else { return Ok(Found::Nothing) };
        // A program is run by this name, and told the server through a pipe, which holds so much without being read.
        if server.len() > limits::NAME || program.len() > limits::NAME {
            return Err(format!("a credential program or its server has a name of more than {} bytes", limits::NAME));
        }
        Ok(Found::Program(Question { program: program.to_owned(), server: server.to_owned() }))
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
