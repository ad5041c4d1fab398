//! Where a private key is: in a sealed file, or on a token.
//!
//! [`Custody`] says which roles' new keys are made on the token, and reaches those that are there already; which ones
//! those are stands in each role's sealed file. Everything above asks for signatures and never for a private key, so a
//! third place (a cloud's key management, a transit engine) is a third variant of `Holder` in `ec` and `log_key`, and a
//! third scheme beside `pkcs11:` in the sealed file; nothing else would know of it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    KeyError,
    ec::{Curve, EcKey},
    log_key::LogKey,
    pkcs11::{Kind, Token},
};
use crate::model::key_uri::{KeyUri, SCHEME};

/// A role whose key can be on a token. The local TLS authority's cannot: it issues certificates for clients offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenRole {
    /// The root of the certificate authority.
    CaRoot,
    /// The authority that signs certificates.
    Ca,
    /// The key that signs certificate timestamps.
    Sct,
    /// The log's key; Ed25519, which not every token has.
    Log,
    /// The root of the time-stamp authority.
    TsaRoot,
    /// The key that signs timestamps.
    Tsa,
    /// Named keys that are managed for callers.
    Managed,
}

impl TokenRole {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::CaRoot, Self::Ca, Self::Sct, Self::Log, Self::TsaRoot, Self::Tsa, Self::Managed];

    /// Its name in configuration and arguments.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaRoot => "ca-root",
            Self::Ca => "ca",
            Self::Sct => "sct",
            Self::Log => "log",
            Self::TsaRoot => "tsa-root",
            Self::Tsa => "tsa",
            Self::Managed => "managed",
        }
    }

    /// The role that a sealed file is of: `ca` of `ca` and of a later generation, `ca-2`; `managed` of `managed/…`.
    fn of(role: &str) -> Option<Self> {
        let base = match role.rsplit_once('-') {
            Some((base, number)) if number.parse::<u32>().is_ok() => base,
            _ => role,
        };
        base.split('/').next().unwrap_or(base).parse().ok()
    }
}

impl fmt::Display for TokenRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a role whose key can be on a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key that can be on a token; those are ca-root, ca, sct, log, tsa-root, tsa, managed")]
pub struct UnknownTokenRole(String);

impl FromStr for TokenRole {
    type Err = UnknownTokenRole;

    fn from_str(text: &str) -> Result<Self, UnknownTokenRole> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| UnknownTokenRole(text.chars().take(64).collect()))
    }
}

/// Where new keys go, and how those on a token are reached. The default is sealed files alone.
#[derive(Debug, Clone, Default)]
pub struct Custody {
    token: Option<Token>,
    on_token: BTreeSet<TokenRole>,
}

impl Custody {
    /// With a token, on which new keys of these roles are made.
    ///
    /// # Errors
    /// [`KeyError::Token`] if the log's key is to be there, and the token has no Ed25519.
    pub fn with_token(token: Token, on_token: impl IntoIterator<Item = TokenRole>) -> Result<Self, KeyError> {
        let on_token: BTreeSet<_> = on_token.into_iter().collect();
        if on_token.contains(&TokenRole::Log) {
            token.require_ed25519()?;
        }
        Ok(Self { token: Some(token), on_token })
    }

    /// The token on which new keys of this role are made, if they are.
    fn token_for(&self, role: &str) -> Option<&Token> {
        self.token.as_ref().filter(|_| TokenRole::of(role).is_some_and(|role| self.on_token.contains(&role)))
    }

    /// Makes an ECDSA key for a role of the instance of this host.
    pub(super) fn new_ec(&self, host: &str, role: &str, curve: Curve) -> Result<EcKey, KeyError> {
        match self.token_for(role) {
            None => EcKey::generate(curve),
            Some(token) => {
                let uri = token.generate(Kind::Ecdsa(curve), &object(host, role))?;
                EcKey::on_token(curve, uri, Some(token.clone()))
            }
        }
    }

    /// Makes an Ed25519 key for a log of the instance of this host.
    pub(super) fn new_log_key(&self, host: &str, role: &str) -> Result<LogKey, KeyError> {
        match self.token_for(role) {
            None => LogKey::generate(),
            Some(token) => LogKey::on_token(token.generate(Kind::Ed25519, &object(host, role))?, Some(token.clone())),
        }
    }

    /// Opens what a sealed file of an ECDSA key holds. A key on a token is not looked for yet.
    pub(super) fn ec(&self, curve: Curve, sealed: &[u8]) -> Result<EcKey, KeyError> {
        match self.uri(sealed)? {
            None => EcKey::from_pkcs8(curve, sealed),
            Some(uri) => EcKey::on_token(curve, uri, self.token.clone()),
        }
    }

    /// Opens what a sealed file of a log's key holds.
    pub(super) fn log_key(&self, sealed: &[u8]) -> Result<LogKey, KeyError> {
        match self.uri(sealed)? {
            None => LogKey::from_pkcs8(sealed),
            Some(uri) => LogKey::on_token(uri, self.token.clone()),
        }
    }

    /// Where the key is, if it is not in the file itself.
    fn uri(&self, sealed: &[u8]) -> Result<Option<KeyUri>, KeyError> {
        if !sealed.starts_with(SCHEME.as_bytes()) {
            return Ok(None);
        }
        let uri = KeyUri::parse(sealed).ok_or(KeyError::Crypto("read which key on which token is meant"))?;
        match &self.token {
            Some(token) if token.label() != uri.token => Err(KeyError::Token {
                token: uri.token,
                problem: format!("has the key {:?}, and [pkcs11] names the token {:?}", uri.object, token.label()),
            }),
            _ => Ok(Some(uri)),
        }
    }
}

/// `CKA_LABEL`: instances that share a token do not get into each other's way.
fn object(host: &str, role: &str) -> String {
    format!("countersign:{host}:{role}")
}

/// A private key as it is sealed: PKCS#8 in DER, or where it is.
pub(super) type Sealable = Zeroizing<Vec<u8>>;

/// The refusal of a key on a token when none is configured.
pub(super) fn no_token(uri: &KeyUri) -> KeyError {
    KeyError::Token {
        token: uri.token.clone(),
        problem: format!(
            "has the key {:?}, and no token is configured; set module, token and a PIN under [pkcs11]",
            uri.object
        ),
    }
}
