//! Views: a pure fold from one entry to the rows under which it can be found.
//!
//! A row is a prefix (made here) and the entry's index (added by the store). The prefix is a kind and its parts, each
//! part after its length, so that no prefix is the beginning of another. What cannot be parsed gives no rows: such an
//! entry is found by its index alone.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::{Decode as _, asn1::Utf8StringRef};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use x509_cert::{
    Certificate,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::View;
use crate::model::{
    Digest, Identity, Statement, limits, predicate,
    statement::{PAYLOAD_TYPE, check_json_depth},
};

/// Certificate extension with the issuer that vouched for the identity, as a DER UTF-8 string.
const ISSUER: const_oid::ObjectIdentifier = const_oid::ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
/// Longest part that stands in a row as it is, in bytes; a longer one is replaced by its digest.
const LONGEST_PART: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle<'a> {
    #[serde(borrow)]
    verification_material: Option<Material<'a>>,
    #[serde(borrow)]
    dsse_envelope: Option<Envelope<'a>>,
    #[serde(borrow)]
    message_signature: Option<MessageSignature<'a>>,
}

#[derive(Deserialize)]
struct Material<'a> {
    #[serde(borrow)]
    certificate: Option<RawBytes<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBytes<'a> {
    #[serde(borrow)]
    raw_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageSignature<'a> {
    #[serde(borrow)]
    message_digest: MessageDigest<'a>,
}

#[derive(Deserialize)]
struct MessageDigest<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

/// The row prefixes of an entry with this payload: a Sigstore bundle v0.3 without log entries.
pub fn rows(payload: &[u8]) -> Vec<Vec<u8>> {
    views(payload).map_or_else(Vec::new, |views| {
        let mut rows: Vec<Vec<u8>> = views.iter().filter_map(prefix).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    })
}

fn parse(payload: &[u8]) -> Option<Bundle<'_>> {
    check_json_depth(payload, limits::JSON_DEPTH).ok()?;
    serde_json::from_slice(payload).ok()
}

fn views(payload: &[u8]) -> Option<Vec<View>> {
    let bundle = parse(payload)?;
    let mut views = Vec::new();
    if let Some(envelope) = &bundle.dsse_envelope {
        if envelope.payload_type != PAYLOAD_TYPE {
            return None;
        }
        of_statement(&Statement::parse(&decode(&envelope.payload)?).ok()?, &mut views);
    } else {
        let digest = message_digest(bundle.message_signature.as_ref()?)?;
        views.extend([View::Digest(digest), View::Evidence(digest)]);
        views.push(View::PredicateType(predicate::SIGN.to_owned()));
    }
    let certificate = bundle.verification_material.and_then(|material| material.certificate);
    views.extend(certificate.and_then(|certificate| identity(&decode(&certificate.raw_bytes)?)).map(View::Identity));
    Some(views)
}

fn of_statement(statement: &Statement, views: &mut Vec<View>) {
    let is_evidence = is_evidence(statement);
    for subject in statement.subjects() {
        views.push(View::Digest(subject.digest));
        if is_evidence {
            views.push(View::Evidence(subject.digest));
        }
        if !subject.name.is_empty() {
            views.push(View::Name(subject.name.clone()));
        }
    }
    let predicate_type = statement.predicate_type();
    views.push(View::PredicateType(predicate_type.to_owned()));
    let ours = [predicate::DEPLOYMENT, predicate::HEALTH, predicate::APPROVAL, predicate::READINESS];
    let field = |name: &str| statement.predicate().get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    if ours.contains(&predicate_type)
        && let (Some(service), Some(environment)) = (field("service"), field("environment"))
    {
        views.push(View::Service { service, environment });
    }
}

/// Whether the judge may rest on it. Our own records about a digest (where it ran, how it was, what we answered) are
/// found by service and environment; there may be so many that they would bury the signatures.
fn is_evidence(statement: &Statement) -> bool {
    match statement.predicate_type() {
        predicate::DEPLOYMENT | predicate::HEALTH | predicate::READINESS | predicate::REVOCATION => false,
        predicate::VSA => statement.predicate().get(predicate::READINESS).is_none(),
        _ => true,
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn message_digest(signature: &MessageSignature<'_>) -> Option<Digest> {
    Some(Digest::from_bytes(decode(&signature.message_digest.digest)?.try_into().ok()?))
}

/// Subject alternative name and issuer of a signing certificate.
fn identity(certificate: &[u8]) -> Option<Identity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, names) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
    let subject = names.0.iter().find_map(|name| match name {
        GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        _ => None,
    })?;
    let extensions = certificate.tbs_certificate.extensions.as_ref()?;
    let issuer = extensions.iter().find(|extension| extension.extn_id == ISSUER)?;
    let issuer = Utf8StringRef::from_der(issuer.extn_value.as_bytes()).ok()?.as_str().to_owned();
    Some(Identity { subject, issuer })
}

/// The row prefix of a view; `None` for [`View::All`], which needs no rows.
pub fn prefix(view: &View) -> Option<Vec<u8>> {
    let (kind, parts): (u8, Vec<&[u8]>) = match view {
        View::All => return None,
        View::Digest(digest) => (1, vec![digest.as_bytes()]),
        View::Evidence(digest) => (6, vec![digest.as_bytes()]),
        View::Name(name) => (2, vec![name.as_bytes()]),
        View::Identity(identity) => (3, vec![identity.issuer.as_bytes(), identity.subject.as_bytes()]),
        View::PredicateType(predicate_type) => (4, vec![predicate_type.as_bytes()]),
        View::Service { service, environment } => (5, vec![environment.as_bytes(), service.as_bytes()]),
    };
    let mut row = vec![kind];
    for part in parts {
        match u16::try_from(part.len()) {
            Ok(length) if part.len() <= LONGEST_PART => {
                row.extend_from_slice(&length.to_be_bytes());
                row.extend_from_slice(part);
            }
            _ => {
                row.extend_from_slice(&u16::MAX.to_be_bytes());
                row.extend_from_slice(&Sha256::digest(part));
            }
        }
    }
    Some(row)
}

/// The digest that the payload's signature is over: of the DSSE pre-authentication encoding, or of the file.
pub(super) fn signed_digest(payload: &[u8]) -> Option<Digest> {
    let bundle = parse(payload)?;
    let Some(envelope) = bundle.dsse_envelope else {
        return message_digest(&bundle.message_signature?);
    };
    let body = decode(&envelope.payload)?;
    let mut encoding =
        format!("DSSEv1 {} {} {} ", envelope.payload_type.len(), envelope.payload_type, body.len()).into_bytes();
    encoding.extend_from_slice(&body);
    Some(Digest::of(&encoding))
}

/// The digest that a hashedrekord leaf records.
pub(super) fn leaf_digest(leaf: &[u8]) -> Option<Digest> {
    let leaf: serde_json::Value = serde_json::from_slice(leaf).ok()?;
    let digest = leaf.pointer("/spec/hashedRekordV002/data/digest")?.as_str()?;
    Some(Digest::from_bytes(decode(digest)?.try_into().ok()?))
}
