//! One token, step by step: [`Unverified::parse`] reads it, [`Unverified::verify`] checks the signature and yields the
//! claims, [`check_claims`] holds them against the issuer's settings and the time.
//!
//! JWS compact serialisation (RFC 7515) of a JWT (RFC 7519), with the rules of RFC 8725: the algorithm comes from a list
//! that knows neither `none` nor HMAC, and nothing in the header chooses a key but its id.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::{Issuer, Refusal, rules::Claims};
use crate::model::limits;

/// A token of which nothing is believed yet.
pub(super) struct Unverified<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
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
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > limits::TOKEN {
            return Err(Refusal::TooLarge);
        }
        let malformed = || Refusal::Malformed("it is not three base64url parts with dots between");
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        if header.is_empty() || payload.is_empty() || payload.contains('.') {
            return Err(malformed());
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_source| malformed())?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_source| Refusal::Malformed("its header is not a JOSE header"))?;
        let algorithm = algorithm(&header.alg).ok_or(Refusal::Algorithm)?;
        if header.crit.is_some() {
            return Err(Refusal::Malformed("its header demands an extension (crit) that is not known here"));
        }
        if header.typ.is_some_and(|typ| !is_jwt(&typ)) {
            return Err(Refusal::Malformed("its type (typ) is not JWT"));
        }
        if header.kid.as_ref().is_some_and(|kid| kid.len() > limits::NAME) {
            return Err(Refusal::Malformed("its key id is too long"));
        }
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_source| malformed())?;
        let claims = serde_json::from_slice(&payload)
            .map_err(|_source| Refusal::Malformed("its claims are not a JSON object"))?;
        Ok(Self { algorithm, kid: header.kid, message, signature, claims })
    }

    /// Who the token says issued it: only good for choosing whose keys to verify it with.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// The claims, once the signature by `key` is found good.
    pub(super) fn verify(self, key: &DecodingKey) -> Result<Claims, Refusal> {
        match jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm) {
            Ok(true) => Ok(self.claims),
            Ok(false) | Err(_) => Err(Refusal::Signature),
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

/// Holds verified claims against the issuer's settings and the time.
pub(super) fn check_claims(claims: &Claims, issuer: &Issuer, now: Timestamp) -> Result<(), Refusal> {
    if claims.get("iss").and_then(Value::as_str) != Some(issuer.url.as_str()) {
        return Err(Refusal::UnknownIssuer);
    }
    let addressed = match claims.get("aud") {
        Some(Value::String(audience)) => issuer.audience.contains(audience),
        Some(Value::Array(audiences)) => {
            audiences.iter().any(|one| issuer.audience.iter().any(|wanted| one.as_str() == Some(wanted.as_str())))
        }
        _ => false,
    };
    if !addressed {
        return Err(Refusal::Audience { wanted: issuer.audience.join(" or ") });
    }
    check_times(claims, issuer, now)
}

fn check_times(claims: &Claims, issuer: &Issuer, now: Timestamp) -> Result<(), Refusal> {
    let skew = i64::from(issuer.clock_skew_s);
    let now = now.as_second();
    let expires =
        seconds(claims, "exp")?.ok_or_else(|| Refusal::claim("exp", "is missing; every token must expire"))?;
    if expires <= now.saturating_sub(skew) {
        return Err(Refusal::Expired);
    }
    let since = seconds(claims, "iat")?;
    let not_before = seconds(claims, "nbf")?;
    let latest = now.saturating_add(skew);
    if since.is_some_and(|at| at > latest) || not_before.is_some_and(|at| at > latest) {
        return Err(Refusal::NotYetValid);
    }
    if expires.saturating_sub(since.or(not_before).unwrap_or(now)) > i64::from(issuer.max_lifetime_s) {
        return Err(Refusal::claim("exp", "is too far from the time of issue; ask for a token with a shorter life"));
    }
    Ok(())
}

/// A `NumericDate`: seconds since 1970, perhaps with a fraction, which is dropped.
fn seconds(claims: &Claims, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_i64().or_else(|| {
        let text = value.as_f64().filter(|number| number.is_finite() && number.abs() < 1e15)?.trunc().to_string();
        text.parse().ok()
    });
    whole.map(Some).ok_or_else(|| Refusal::claim(name, "must be a number of seconds since 1970"))
}
