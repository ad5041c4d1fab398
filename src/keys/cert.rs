//! X.509 certificates: the parts that all our authorities share. RFC 5280.

use std::time::Duration;

use aws_lc_rs::rand;
use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::rfc5912::{ID_KP_CODE_SIGNING, SECP_256_R_1},
};
use der::{
    Decode as _, Encode,
    asn1::{BitString, GeneralizedTime, OctetString, UtcTime},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use sha2::{Digest as _, Sha256};
use spki::SubjectPublicKeyInfoOwned;
use x509_cert::{
    Certificate, TbsCertificate, Version,
    attr::AttributeTypeAndValue,
    ext::{
        Extension,
        pkix::{AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    name::{Name, RdnSequence, RelativeDistinguishedName},
    serial_number::SerialNumber,
    time::{Time, Validity},
};

use super::{
    KeyError,
    ec::{Curve, EcKey},
};

/// From when to when a certificate is good: what is signed under it at another time, verifiers do not believe.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    from: Timestamp,
    until: Timestamp,
}

impl Life {
    pub(super) fn of(certificate: &TbsCertificate) -> Result<Self, KeyError> {
        let Validity { not_before, not_after } = certificate.validity;
        let at = |time: Time| {
            let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok();
            let at = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
            at.ok_or(KeyError::Crypto("read the life of a certificate"))
        };
        Ok(Self { from: at(not_before)?, until: at(not_after)? })
    }

    /// # Errors
    /// [`KeyError::OutOfLife`], with `whose` certificate it is.
    pub(super) fn check(self, whose: &'static str, now: Timestamp) -> Result<(), KeyError> {
        let Self { from, until } = self;
        if (from..=until).contains(&now) { Ok(()) } else { Err(KeyError::OutOfLife { whose, from, until, now }) }
    }
}

/// A certificate and the key that signs under it.
#[derive(Debug)]
pub(super) struct Authority {
    key: EcKey,
    life: Life,
    der: Vec<u8>,
    name: Name,
    key_id: OctetString,
}

/// What an authority is asked to certify.
pub(super) struct Request<'a> {
    pub(super) subject: Name,
    pub(super) spki: &'a [u8],
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Beside the key identifiers, which are always there.
    pub(super) extensions: Vec<Extension>,
}

impl Authority {
    /// Makes a self-signed root over `key` that may have `path_len` authorities below it.
    pub(super) fn root(
        key: EcKey,
        host: &str,
        common_name: &str,
        from: Timestamp,
        until: Timestamp,
        path_len: u8,
    ) -> Result<Self, KeyError> {
        let subject = name(host, common_name)?;
        let spki = SubjectPublicKeyInfoOwned::from_der(key.spki())?;
        let mut extensions = ca_extensions(path_len)?;
        extensions.push(extension(false, &SubjectKeyIdentifier(key_id(&spki)?))?);
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: serial()?,
            signature: key.curve().algorithm(),
            issuer: subject.clone(),
            validity: Validity { not_before: time(from)?, not_after: time(until)? },
            subject,
            subject_public_key_info: spki,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let der = sign(&key, tbs)?;
        Self::new(key, der)
    }

    /// Makes an authority over `key` below this one that certifies code-signing leaves only.
    pub(super) fn intermediate(
        &self,
        key: EcKey,
        host: &str,
        common_name: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Self, KeyError> {
        let mut extensions = ca_extensions(0)?;
        extensions.push(extension(false, &ExtendedKeyUsage(vec![ID_KP_CODE_SIGNING]))?);
        let subject = name(host, common_name)?;
        let der = self.certify(Request { subject, spki: key.spki(), from, until, extensions })?;
        Self::new(key, der)
    }

    /// An authority from its parts; the certificate must be over the key.
    pub(super) fn new(key: EcKey, der: Vec<u8>) -> Result<Self, KeyError> {
        let tbs = Certificate::from_der(&der)?.tbs_certificate;
        if tbs.subject_public_key_info.to_der()? != key.spki() {
            return Err(KeyError::PublicKey("the certificate is over another key"));
        }
        let (life, key_id) = (Life::of(&tbs)?, key_id(&tbs.subject_public_key_info)?);
        Ok(Self { key_id, life, name: tbs.subject, key, der })
    }

    /// The curve of a certificate's key: ours are P-256, or P-384.
    pub(super) fn curve_of(der: &[u8]) -> Result<Curve, KeyError> {
        let spki = Certificate::from_der(der)?.tbs_certificate.subject_public_key_info;
        let curve = spki.algorithm.parameters.and_then(|named| named.decode_as::<ObjectIdentifier>().ok());
        Ok(if curve == Some(SECP_256_R_1) { Curve::P256 } else { Curve::P384 })
    }

    pub(super) fn key(&self) -> &EcKey {
        &self.key
    }

    /// When its certificate is good.
    pub(super) fn life(&self) -> Life {
        self.life
    }

    /// The certificate, DER.
    pub(super) fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// Certifies: a signed certificate, DER.
    pub(super) fn certify(&self, request: Request<'_>) -> Result<Vec<u8>, KeyError> {
        sign(&self.key, self.prepare(request)?)
    }

    /// Everything of a certificate but the signature.
    pub(super) fn prepare(&self, request: Request<'_>) -> Result<TbsCertificate, KeyError> {
        let spki = SubjectPublicKeyInfoOwned::from_der(request.spki)?;
        let mut extensions = request.extensions;
        extensions.push(extension(false, &SubjectKeyIdentifier(key_id(&spki)?))?);
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(self.key_id.clone()),
            authority_cert_issuer: None,
            authority_cert_serial_number: None,
        };
        extensions.push(extension(false, &authority)?);
        Ok(TbsCertificate {
            version: Version::V3,
            serial_number: serial()?,
            signature: self.key.curve().algorithm(),
            issuer: self.name.clone(),
            validity: Validity { not_before: time(request.from)?, not_after: time(request.until)? },
            subject: request.subject,
            subject_public_key_info: spki,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        })
    }
}

/// Signs `tbs`: a certificate, DER.
pub(super) fn sign(key: &EcKey, tbs: TbsCertificate) -> Result<Vec<u8>, KeyError> {
    let signature = BitString::from_bytes(&key.sign(&tbs.to_der()?)?)?;
    let signature_algorithm = key.curve().algorithm();
    Ok(Certificate { tbs_certificate: tbs, signature_algorithm, signature }.to_der()?)
}

/// One extension.
pub(super) fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, KeyError> {
    raw_extension(T::OID, critical, value.to_der()?)
}

/// One extension whose value is already encoded.
pub(super) fn raw_extension(oid: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Result<Extension, KeyError> {
    Ok(Extension { extn_id: oid, critical, extn_value: OctetString::new(value)? })
}

/// Exactly one organization, as `gh` demands, and a common name.
pub(super) fn name(organization: &str, common_name: &str) -> Result<Name, KeyError> {
    let mut rdns = Vec::new();
    for (oid, value) in [(const_oid::db::rfc4519::O, organization), (const_oid::db::rfc4519::CN, common_name)] {
        let value = der::Any::encode_from(&value.to_owned())?;
        let attribute = AttributeTypeAndValue { oid, value };
        rdns.push(RelativeDistinguishedName::from(der::asn1::SetOfVec::try_from(vec![attribute])?));
    }
    Ok(RdnSequence(rdns))
}

/// A time as certificates write it, in whole seconds.
pub(super) fn time(at: Timestamp) -> Result<Time, KeyError> {
    let since_epoch = unix(at)?;
    Ok(if at.to_zoned(TimeZone::UTC).year() < 2050 {
        Time::UtcTime(UtcTime::from_unix_duration(since_epoch)?)
    } else {
        Time::GeneralTime(GeneralizedTime::from_unix_duration(since_epoch)?)
    })
}

/// A time before or after another.
pub(super) fn shift(at: Timestamp, by: SignedDuration) -> Result<Timestamp, KeyError> {
    at.checked_add(by).map_err(|_source| KeyError::Time(at))
}

/// Whole seconds since 1970.
pub(super) fn unix(at: Timestamp) -> Result<Duration, KeyError> {
    u64::try_from(at.as_second()).map(Duration::from_secs).map_err(|_source| KeyError::Time(at))
}

/// A random positive number of 159 bits, so that its encoding has 20 octets at most.
pub(super) fn serial() -> Result<SerialNumber, KeyError> {
    let mut bytes = [0; 20];
    rand::fill(&mut bytes).map_err(|_source| KeyError::Crypto("draw random bytes"))?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::new(&bytes)?)
}

/// The leftmost 160 bits of SHA-256 over the public key's bits (RFC 7093, method 1).
fn key_id(spki: &SubjectPublicKeyInfoOwned) -> Result<OctetString, KeyError> {
    let digest = Sha256::digest(spki.subject_public_key.raw_bytes());
    let id: Vec<u8> = digest.iter().take(20).copied().collect();
    Ok(OctetString::new(id)?)
}

fn ca_extensions(path_len: u8) -> Result<Vec<Extension>, KeyError> {
    Ok(vec![
        extension(true, &BasicConstraints { ca: true, path_len_constraint: Some(path_len) })?,
        extension(true, &KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign))?,
    ])
}
