//! A token as it was sent: JWS compact serialisation (RFC 7515) of a JWT (RFC 7519), with the rules of RFC 8725: the
//! algorithm comes from a list that knows neither `none` nor HMAC, and nothing in the header chooses a key but its id.
//!
//! [`Unverified::parse`] reads it, [`Unverified::verify`] checks the signature and yields the claims. Not here: whose key
//! that is, for whom the token is meant, and when (`identity`).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::limits;

/// Why a token is not read, or not believed. Nothing of the token is quoted: it may be good elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Over [`limits::TOKEN`].
    #[error("it is too large")]
    TooLarge,
    /// Not a token that can be read.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// The signature algorithm is not on the list.
    #[error("its algorithm is not accepted")]
    Algorithm,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    Signature,
}

/// What a token says: the JSON of its payload.
pub type Claims = Map<String, Value>;

/// The claim of this name, or the nested one at this dotted path. Names may hold dots themselves (`kubernetes.io`):
/// the longest name that is there wins on each level.
pub fn claim<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| {
        let (name, rest) = (path.get(..at)?, path.get(at + 1..)?);
        claim(claims.get(name)?.as_object()?, rest)
    })
}

/// A token of which nothing is believed yet.
pub struct Unverified<'a> {
    /// The algorithm that its header names; one of the list.
    pub algorithm: Algorithm,
    /// The id of the key that its header names.
    pub kid: Option<String>,
    message: &'a str,
    signature: &'a str,
    claims: Claims,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl<'a> Unverified<'a> {
    /// Reads a token in compact form.
    ///
    /// # Errors
    /// A [`TokenError`].
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > limits::TOKEN {
            return Err(TokenError::TooLarge);
        }
        let malformed = || TokenError::Malformed("it is not three base64url parts with dots between");
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(malformed());
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_source| malformed())?;
        // As text first: serde passes over whatever stands in fields that nobody reads.
        let header = str::from_utf8(&header).ok().and_then(|header| serde_json::from_str::<Header>(header).ok());
        let header = header.ok_or(TokenError::Malformed("its header is not a JOSE header"))?;
        let algorithm = algorithm(&header.alg).ok_or(TokenError::Algorithm)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed("its header demands an extension (crit) that is not known here"));
        }
        if header.typ.is_some_and(|typ| !is_jwt(&typ)) {
            return Err(TokenError::Malformed("its type (typ) is not JWT"));
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > limits::NAME) {
            return Err(TokenError::Malformed("its key id is too long"));
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_source| malformed())?;
        let claims = serde_json::from_slice(&payload)
            .map_err(|_source| TokenError::Malformed("its claims are not a JSON object"))?;
        Ok(Self { algorithm, kid: header.kid, message, signature, claims })
    }

    /// Who the token says issued it: only good for choosing whose keys to verify it with.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The SHA-256 of what was signed, header and claims: which token this is, however its signature is written.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.message.as_bytes()).into()
    }

    /// The claims, once the signature by `key` is found good.
    ///
    /// # Errors
    /// [`TokenError::Signature`].
    pub fn verify(self, key: &DecodingKey) -> Result<Claims, TokenError> {
        match jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm) {
            Ok(true) => Ok(self.claims),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }
}

/// Only what is listed; RFC 8725 §3.1.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

fn is_jwt(typ: &str) -> bool {
    // An access token (RFC 9068) serves as well as an ID token; a logout or DPoP token does not.
    ["jwt", "at+jwt", "application/jwt", "application/at+jwt"].iter().any(|known| typ.eq_ignore_ascii_case(known))
}

/// A token is a secret.
impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
