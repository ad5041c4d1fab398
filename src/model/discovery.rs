//! An OIDC discovery document (OpenID Connect Discovery 1.0 §4), reduced to where the issuer's keys are.
//!
//! Not here: fetching it, and the keys (`identity`, [`super::key_set`]).

use std::net::IpAddr;

use serde::Deserialize;
use url::Url;

use super::limits;

/// What an issuer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Where its key set is: as [`check_url`] wants it.
    pub jwks_uri: String,
}

#[derive(Deserialize)]
struct Wire {
    issuer: String,
    jwks_uri: String,
}

impl Discovery {
    /// Reads the document of the issuer whose configured URL is `issuer`; for `plain_http` see [`check_url`].
    ///
    /// # Errors
    /// A sentence about the document.
    pub fn parse(json: &[u8], issuer: &str, plain_http: bool) -> Result<Self, String> {
        if json.len() > limits::JWKS {
            return Err(format!("it has {} bytes; the limit is {}", json.len(), limits::JWKS));
        }
        let wire: Wire = serde_json::from_slice(json).map_err(|source| limits::quoted(&source))?;
        if wire.issuer != issuer {
            return Err("its issuer is not the configured URL, letter by letter".to_owned());
        }
        check_url(&wire.jwks_uri, plain_http).map_err(|problem| format!("jwks_uri {problem}"))?;
        Ok(Self { jwks_uri: wire.jwks_uri })
    }
}

/// An absolute `https` URL; `http` only to a loopback address, and only when allowed.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn check_url(text: &str, plain_http: bool) -> Result<(), String> {
    if text.len() > limits::URI {
        return Err(format!("is longer than {} characters", limits::URI));
    }
    let shown = limits::quoted(&text);
    let url: Url = text.parse().map_err(|source| format!("{shown:?} is not a URL: {source}"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("must have neither user, query nor fragment".to_owned());
    }
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if plain_http && loopback => Ok(()),
        "http" if plain_http => Err(format!("{shown:?} is plain HTTP to another machine; use https")),
        _ => Err(format!("{shown:?} must start with https://")),
    }
}
