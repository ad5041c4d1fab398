//! The certificate authority: ten-minute code-signing certificates in the profile of Fulcio, with embedded SCT.
//!
//! One certificate costs two signatures: one for the SCT, one for the certificate. The SCT (RFC 6962 §3.2) is
//! over the certificate without the SCT extension, so the body is built once and encoded twice. Our own key makes
//! the SCT in the process: clients verify its signature, and none asks a log for it.
//!
//! The subject is empty. One critical alternative name says whom the certificate is for: an e-mail address, a URI, or a
//! user name in an `otherName`. What the token said besides stands in [`Extensions`].

use const_oid::{ObjectIdentifier, db::rfc5912::ID_KP_CODE_SIGNING};
use der::{
    Any, Encode as _,
    asn1::{Ia5String, OctetString, Utf8StringRef},
};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use x509_cert::{
    ext::{
        Extension,
        pkix::{
            ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            name::{GeneralName, OtherName},
        },
    },
    name::RdnSequence,
};

use super::{
    KeyError,
    cert::{self, Authority, Request, extension, raw_extension},
    ec::EcKey,
};
use crate::model::{
    Extensions, Identity, PublicKey, PublicKeyError,
    certificate::{ISSUER_V1, ISSUER_V2, USER_NAME},
    limits,
};

const SCT_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11129.2.4.2");
const LIFE: SignedDuration = SignedDuration::from_mins(10);
/// A timestamp of the same second must not lie before the certificate.
const BACKDATE: SignedDuration = SignedDuration::from_secs(5);

/// The intermediate authority.
#[derive(Debug)]
pub(super) struct Issuer {
    authority: Authority,
    key_hash: [u8; 32],
}

/// The key that signs certificate timestamps.
#[derive(Debug)]
pub(super) struct SctKey {
    key: EcKey,
    log_id: [u8; 32],
}

impl SctKey {
    pub(super) fn new(key: EcKey) -> Self {
        Self { log_id: Sha256::digest(key.spki()).into(), key }
    }

    /// Refuses if the key cannot be used where it is.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        self.key.check()
    }
}

impl Issuer {
    pub(super) fn new(authority: Authority) -> Self {
        Self { key_hash: Sha256::digest(authority.key().spki()).into(), authority }
    }

    /// Refuses if the key cannot be used where it is.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        self.authority.key().check()
    }

    /// A certificate, DER.
    pub(super) fn issue(
        &self,
        sct: &SctKey,
        identity: &Identity,
        said: &Extensions,
        spki: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, KeyError> {
        check_public_key(spki)?;
        self.authority.life().check("signing", now)?;
        let extensions = leaf_extensions(identity, said)?;
        let from = cert::shift(now, -BACKDATE)?;
        let until = cert::shift(from, LIFE)?;
        let request = Request { subject: RdnSequence::default(), spki, from, until, extensions };
        let mut tbs = self.authority.prepare(request)?;
        let list = self.sct_list(sct, &tbs.to_der()?, now)?;
        let value = OctetString::new(list)?.to_der()?;
        tbs.extensions.get_or_insert_default().push(raw_extension(SCT_LIST, false, value)?);
        cert::sign(self.authority.key(), tbs)
    }

    /// `SignedCertificateTimestampList` with one SCT over the precertificate's body.
    fn sct_list(&self, by: &SctKey, tbs: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        let millis = u64::try_from(now.as_millisecond()).map_err(|_source| KeyError::Time(now))?.to_be_bytes();
        let too_long = |_source| KeyError::Crypto("encode a certificate timestamp");
        let length = u32::try_from(tbs.len()).map_err(too_long)?.to_be_bytes();
        let [_, length @ ..] = length;
        // digitally-signed: version v1, certificate_timestamp, time, precert_entry, issuer, body, no extensions
        let signed = [&[0, 0], millis.as_slice(), &[0, 1], &self.key_hash, &length, tbs, &[0, 0]].concat();
        let signature = by.key.sign(&signed)?;
        let signature_length = u16::try_from(signature.len()).map_err(too_long)?.to_be_bytes();
        // SHA-256 (4) with ECDSA (3)
        let sct = [&[0], by.log_id.as_slice(), &millis, &[0, 0], &[4, 3], &signature_length, &signature].concat();
        let inner = u16::try_from(sct.len()).map_err(too_long)?;
        let outer = inner.checked_add(2).ok_or(KeyError::Crypto("encode a certificate timestamp"))?;
        Ok([outer.to_be_bytes().as_slice(), &inner.to_be_bytes(), &sct].concat())
    }
}

fn leaf_extensions(identity: &Identity, said: &Extensions) -> Result<Vec<Extension>, KeyError> {
    let issuer = &identity.issuer;
    if issuer.is_empty() || issuer.len() > limits::URI || issuer.chars().any(char::is_control) {
        let problem = "its issuer is empty, too long or has control characters";
        return Err(KeyError::Identity { subject: identity.subject.clone(), problem });
    }
    let (raw, encoded): (Vec<_>, Vec<_>) = said.iter().partition(|(extension, _)| extension.is_raw());
    let mut all = vec![
        extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
        extension(false, &ExtendedKeyUsage(vec![ID_KP_CODE_SIGNING]))?,
        // Critical, because the subject is empty (RFC 5280 §4.2.1.6).
        extension(true, &SubjectAltName(vec![alternative_name(&identity.subject)?]))?,
        raw_extension(ISSUER_V1, false, issuer.as_bytes().to_vec())?,
    ];
    for (extension, text) in raw {
        all.push(raw_extension(extension.oid(), false, text.as_bytes().to_vec())?);
    }
    all.push(raw_extension(ISSUER_V2, false, issuer.to_der()?)?);
    for (extension, text) in encoded {
        all.push(raw_extension(extension.oid(), false, Utf8StringRef::new(text)?.to_der()?)?);
    }
    Ok(all)
}

/// An e-mail address, a URI or a user name; nothing else is an identity here.
fn alternative_name(subject: &str) -> Result<GeneralName, KeyError> {
    let refuse = |problem| KeyError::Identity { subject: subject.chars().take(128).collect(), problem };
    if subject.len() > limits::URI {
        return Err(refuse("it is longer than 1,024 characters"));
    }
    if !subject.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refuse("it has characters that are not printable ASCII"));
    }
    if is_uri(subject) {
        return Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(subject)?));
    }
    if is_user_name(subject) {
        let value = Any::encode_from(&Utf8StringRef::new(subject)?)?;
        return Ok(GeneralName::OtherName(OtherName { type_id: USER_NAME, value }));
    }
    match subject.split_once('@') {
        Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => {
            Ok(GeneralName::Rfc822Name(Ia5String::new(subject)?))
        }
        _ => Err(refuse("it is neither an e-mail address nor a URI nor a user name such as alice!example.org")),
    }
}

/// Whether it is `<name>!<domain>`, and can be nothing else.
fn is_user_name(text: &str) -> bool {
    text.split_once('!').is_some_and(|(name, domain)| {
        !name.is_empty() && !domain.is_empty() && !domain.contains('!') && !text.contains(['@', ':', '/'])
    })
}

/// Whether the text starts with a scheme and has something after it (RFC 3986 §3.1).
fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// What the log and the clients take: ECDSA on a NIST curve, or RSA.
fn check_public_key(spki: &[u8]) -> Result<(), KeyError> {
    PublicKey::from_spki(spki).map(drop).map_err(|refused| match refused {
        PublicKeyError::Unsupported(problem) => KeyError::PublicKey(problem),
        _ => KeyError::PublicKey("it is not a SubjectPublicKeyInfo in DER"),
    })
}
