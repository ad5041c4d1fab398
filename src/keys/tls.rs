//! Certificates for TLS from the local authority: servers and, for mutual TLS, clients.

use std::net::IpAddr;

use const_oid::{
    ObjectIdentifier,
    db::rfc5912::{ID_KP_CLIENT_AUTH, ID_KP_SERVER_AUTH},
};
use der::asn1::{Ia5String, OctetString};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_cert::{
    ext::{
        Extension,
        pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, name::GeneralName},
    },
    name::RdnSequence,
};
use zeroize::Zeroizing;

use super::{
    AUTHORITY_BACKDATE, KeyError,
    cert::{Authority, Request, extension, shift},
    ec::{Curve, EcKey},
    vault::to_pem,
};
use crate::model::limits;

/// The longest that public authorities may give, and what some clients enforce.
const SERVER_LIFE: SignedDuration = SignedDuration::from_hours(24 * 397);

/// A server certificate for `names`, and its key.
pub(super) fn server(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), KeyError> {
    let names = names.iter().map(|name| server_name(name)).collect::<Result<Vec<_>, _>>()?;
    if names.is_empty() {
        return Err(refuse("", "a server needs at least one DNS name or IP address"));
    }
    let key = EcKey::generate(Curve::P256)?;
    let extensions = extensions(ID_KP_SERVER_AUTH, names)?;
    let leaf = issue(authority, &key, extensions, now, SERVER_LIFE)?;
    let key = PrivatePkcs8KeyDer::from(key.to_pkcs8()?.as_ref().to_vec());
    Ok((vec![CertificateDer::from(leaf)], PrivateKeyDer::from(key)))
}

/// A client certificate that names a SPIFFE URI or a DNS name, and its key; PEM.
pub(super) fn client(
    authority: &Authority,
    name: &str,
    now: Timestamp,
    days: u16,
) -> Result<(String, Zeroizing<String>), KeyError> {
    if days == 0 {
        return Err(refuse(name, "a certificate must be valid for at least one day"));
    }
    let key = EcKey::generate(Curve::P256)?;
    let extensions = extensions(ID_KP_CLIENT_AUTH, vec![client_name(name)?])?;
    let leaf = issue(authority, &key, extensions, now, SignedDuration::from_hours(24 * i64::from(days)))?;
    let key = Zeroizing::new(to_pem("PRIVATE KEY", key.to_pkcs8()?.as_ref())?);
    Ok((to_pem("CERTIFICATE", &leaf)?, key))
}

fn issue(
    authority: &Authority,
    key: &EcKey,
    extensions: Vec<Extension>,
    now: Timestamp,
    life: SignedDuration,
) -> Result<Vec<u8>, KeyError> {
    authority.certify(Request {
        subject: RdnSequence::default(),
        spki: key.spki(),
        from: shift(now, -AUTHORITY_BACKDATE)?,
        until: shift(now, life)?,
        extensions,
    })
}

fn extensions(usage: ObjectIdentifier, names: Vec<GeneralName>) -> Result<Vec<Extension>, KeyError> {
    Ok(vec![
        extension(true, &BasicConstraints { ca: false, path_len_constraint: None })?,
        extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
        extension(false, &ExtendedKeyUsage(vec![usage]))?,
        extension(true, &SubjectAltName(names))?,
    ])
}

fn server_name(name: &str) -> Result<GeneralName, KeyError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        let octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        return Ok(GeneralName::IpAddress(OctetString::new(octets)?));
    }
    dns_name(name)
}

fn client_name(name: &str) -> Result<GeneralName, KeyError> {
    let Some(id) = name.strip_prefix("spiffe://") else {
        return dns_name(name);
    };
    let path_ok = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let (domain, path) = id.split_once('/').unwrap_or((id, ""));
    let segments_ok = path.is_empty() || path.split('/').all(|segment| !["", ".", ".."].contains(&segment));
    if domain.is_empty() || name.len() > limits::NAME || !id.chars().all(path_ok) || !segments_ok {
        return Err(refuse(name, "it is not a SPIFFE ID such as spiffe://example.org/build/linux"));
    }
    Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(name)?))
}

fn dns_name(name: &str) -> Result<GeneralName, KeyError> {
    if DnsName::try_from(name).is_err() {
        return Err(refuse(name, "it is not a DNS name"));
    }
    Ok(GeneralName::DnsName(Ia5String::new(name)?))
}

fn refuse(name: &str, problem: &'static str) -> KeyError {
    KeyError::Identity { subject: name.chars().take(128).collect(), problem }
}
