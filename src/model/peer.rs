//! Whom a client certificate names: its subject alternative names, never its common name.
//!
//! Not here: signature, chain and usage of the certificate, which TLS verified, and what its subjects may do (`identity`).

use der::Decode as _;
use jiff::Timestamp;
use x509_cert::{
    Certificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
    time::Validity,
};

use super::{limits, spiffe::is_spiffe_id};

/// Why a client certificate names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Over [`limits::LEAF`].
    #[error("it is longer than {limit} bytes", limit = limits::LEAF)]
    TooLarge,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYetValid,
    /// It cannot be read, or does not have exactly one usable name.
    #[error("{0}")]
    Unusable(&'static str),
}

/// The subject of a leaf certificate (DER) that TLS has verified already.
///
/// A SPIFFE ID wins over other URIs, and URIs over DNS names (written `dns:<name>`). Of the kind that wins there must be
/// exactly one: two names are no name. The validity is checked again, as a connection may outlive its certificate.
///
/// # Errors
/// The first [`PeerError`].
pub fn subject_of(leaf: &[u8], now: Timestamp) -> Result<String, PeerError> {
    if leaf.len() > limits::LEAF {
        return Err(PeerError::TooLarge);
    }
    let certificate = Certificate::from_der(leaf).map_err(|_source| PeerError::Unusable("it cannot be parsed"))?;
    let tbs = &certificate.tbs_certificate;
    check_validity(&tbs.validity, now)?;
    let names = tbs
        .get::<SubjectAltName>()
        .map_err(|_source| PeerError::Unusable("its subject alternative names cannot be parsed"))?
        .map(|(_critical, names)| names.0)
        .unwrap_or_default();
    subject(&names)
}

fn check_validity(validity: &Validity, now: Timestamp) -> Result<(), PeerError> {
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(PeerError::Expired);
    }
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(PeerError::NotYetValid);
    }
    Ok(())
}

fn subject(names: &[GeneralName]) -> Result<String, PeerError> {
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
        .collect();
    let hosts: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DnsName(host) => Some(host.as_str()),
            _ => None,
        })
        .collect();
    let claims_spiffe = |uri: &&&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    let spiffe: Vec<&str> = uris.iter().filter(claims_spiffe).copied().collect();
    // A DNS name is written like this, so a URI of this scheme would be taken for one.
    let claims_dns = |uri: &&str| uri.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dns:"));
    let usable = |text: &&str| text.len() <= limits::NAME && text.bytes().all(|b| b.is_ascii_graphic());
    match (spiffe.as_slice(), uris.as_slice(), hosts.as_slice()) {
        ([id], _, _) if is_spiffe_id(id) => Ok((*id).to_owned()),
        ([_], _, _) => Err(PeerError::Unusable("its SPIFFE ID is not a valid one")),
        ([], [uri], _) if usable(uri) && uri.contains(':') && !claims_dns(uri) => Ok((*uri).to_owned()),
        ([], [], [host]) if usable(host) && is_host(host) => Ok(format!("dns:{}", host.to_ascii_lowercase())),
        ([], [], []) => Err(PeerError::Unusable("it has neither a URI nor a DNS name as subject alternative name")),
        ([], [_], _) | ([], [], [_]) => Err(PeerError::Unusable("its subject alternative name is not usable")),
        _ => Err(PeerError::Unusable("it has several subject alternative names of one kind; exactly one is needed")),
    }
}

/// Whether the name is one host, not a pattern for many.
fn is_host(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    })
}
