//! One token, after its signature: [`check_claims`] holds what it claims against the issuer's settings and the time.
//! Reading it, and checking its signature, is in [`crate::model::token`].

use jiff::Timestamp;
use serde_json::Value;

use super::{Issuer, Refusal};
use crate::model::token::{Claims, TokenError};

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::TooLarge => Self::TooLarge,
            TokenError::Malformed(what) => Self::Malformed(what),
            TokenError::Algorithm => Self::Algorithm,
            TokenError::Signature => Self::Signature,
        }
    }
}

/// Holds verified claims against the issuer's settings and the time. The second from which on the token is expired.
pub(super) fn check_claims(claims: &Claims, issuer: &Issuer, now: Timestamp) -> Result<i64, Refusal> {
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

fn check_times(claims: &Claims, issuer: &Issuer, now: Timestamp) -> Result<i64, Refusal> {
    let skew = i64::from(issuer.clock_skew_s);
    let now = now.as_second();
    let expires =
        seconds(claims, "exp")?.ok_or_else(|| Refusal::claim("exp", "is missing; every token must expire"))?;
    let ends = expires.saturating_add(skew);
    if ends <= now {
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
    Ok(ends)
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
