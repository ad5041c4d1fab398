//! Who a client certificate names: its subject alternative names, never its common name.

use der::Decode as _;
use jiff::Timestamp;
use x509_cert::{
    Certificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{Refusal, subject::is_spiffe_id};
use crate::model::{Identity, limits};

/// The identity of a leaf certificate (DER) that TLS has verified already.
///
/// A SPIFFE ID wins over other URIs, and URIs over DNS names (written `dns:<name>`). Of the kind that wins there must be
/// exactly one: two names are no name. The validity is checked again, as a connection may outlive its certificate.
///
/// # Errors
/// [`Refusal::Certificate`], [`Refusal::Expired`] or [`Refusal::NotYetValid`].
pub fn peer_identity(leaf: &[u8], issuer: &str, now: Timestamp) -> Result<Identity, Refusal> {
    if leaf.len() > limits::LEAF {
        return Err(Refusal::TooLarge);
    }
    let certificate = Certificate::from_der(leaf).map_err(|_source| Refusal::Certificate("it cannot be parsed"))?;
    let tbs = &certificate.tbs_certificate;
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    if now > tbs.validity.not_after.to_unix_duration().as_secs() {
        return Err(Refusal::Expired);
    }
    if now < tbs.validity.not_before.to_unix_duration().as_secs() {
        return Err(Refusal::NotYetValid);
    }
    let names = tbs
        .get::<SubjectAltName>()
        .map_err(|_source| Refusal::Certificate("its subject alternative names cannot be parsed"))?
        .map(|(_critical, names)| names.0)
        .unwrap_or_default();
    Ok(Identity { subject: subject(&names)?, issuer: issuer.to_owned() })
}

fn subject(names: &[GeneralName]) -> Result<String, Refusal> {
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
    let usable = |text: &&str| text.len() <= limits::NAME && text.bytes().all(|b| b.is_ascii_graphic());
    match (spiffe.as_slice(), uris.as_slice(), hosts.as_slice()) {
        ([id], _, _) if is_spiffe_id(id) => Ok((*id).to_owned()),
        ([_], _, _) => Err(Refusal::Certificate("its SPIFFE ID is not a valid one")),
        ([], [uri], _) if usable(uri) && uri.contains(':') => Ok((*uri).to_owned()),
        ([], [], [host]) if usable(host) && is_host(host) => Ok(format!("dns:{}", host.to_ascii_lowercase())),
        ([], [], []) => Err(Refusal::Certificate("it has neither a URI nor a DNS name as subject alternative name")),
        ([], [_], _) | ([], [], [_]) => Err(Refusal::Certificate("its subject alternative name is not usable")),
        _ => Err(Refusal::Certificate("it has several subject alternative names of one kind; exactly one is needed")),
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
