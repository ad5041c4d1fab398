//! The time-stamp authority: RFC 3161 responses, CMS `SignedData` (RFC 5652) with `ESSCertIDv2` (RFC 5816).
//!
//! A response is bound to one leaf certificate by issuer and serial number and by its hash; the certificate is
//! embedded only if the request asks for it, as verifiers find it in the trusted root. `genTime` has whole seconds.

use aws_lc_rs::rand;
use cms::{
    cert::{CertificateChoices, IssuerAndSerialNumber},
    content_info::{CmsVersion, ContentInfo},
    signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos},
};
use const_oid::{
    ObjectIdentifier,
    db::{
        rfc5911::{ID_AA_SIGNING_CERTIFICATE_V_2, ID_CONTENT_TYPE, ID_MESSAGE_DIGEST, ID_SIGNED_DATA},
        rfc5912::{ID_KP_TIME_STAMPING, ID_SHA_256},
    },
};
use der::{
    Any, Decode as _, Encode as _, EncodeValue, Sequence, Tagged,
    asn1::{GeneralizedTime, Int, OctetString, SetOfVec},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{
    Certificate,
    attr::Attribute,
    ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages},
};
use x509_tsp::{TspVersion, TstInfo};

use super::{
    KeyError,
    cert::{self, Authority, Life, Request, extension},
    ec::EcKey,
};
use crate::model::{
    stamp_refusal::{Failure, StampRefusal},
    stamp_request::{Imprint, POLICY, StampRequest},
};

/// `id-ct-TSTInfo`.
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");

/// `TimeStampResp` of a granted request. `x509-tsp` has it too, but its status type is in a crate that we do not need.
#[derive(Sequence)]
struct Granted {
    status: Status,
    token: ContentInfo,
}

/// `PKIStatusInfo` with nothing but the status.
#[derive(Sequence)]
struct Status {
    status: u8,
}

/// `ESSCertIDv2` with the default hash, SHA-256.
#[derive(Sequence)]
struct EssCertId {
    hash: OctetString,
}

/// `SigningCertificateV2`.
#[derive(Sequence)]
struct SigningCertificate {
    certs: Vec<EssCertId>,
}

/// Makes the certificate of the leaf over `key`: end entity, time stamping only, critical.
pub(super) fn leaf(
    key: &EcKey,
    root: &Authority,
    host: &str,
    common_name: &str,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<u8>, KeyError> {
    let extensions = vec![
        extension(true, &KeyUsage(KeyUsages::DigitalSignature.into()))?,
        extension(true, &ExtendedKeyUsage(vec![ID_KP_TIME_STAMPING]))?,
    ];
    let subject = cert::name(host, common_name)?;
    root.certify(Request { subject, spki: key.spki(), from, until, extensions })
}

/// The leaf's key with everything that is the same in all its responses.
#[derive(Debug)]
pub(super) struct Stamper {
    key: EcKey,
    life: Life,
    certificate: Certificate,
    signer: SignerIdentifier,
    content_type: Attribute,
    signing_certificate: Attribute,
}

impl Stamper {
    pub(super) fn new(key: EcKey, certificate: &[u8]) -> Result<Self, KeyError> {
        let parsed = Certificate::from_der(certificate)?;
        if parsed.tbs_certificate.subject_public_key_info.to_der()? != key.spki() {
            return Err(KeyError::PublicKey("the time-stamp certificate is over another key"));
        }
        let hash = OctetString::new(Sha256::digest(certificate).to_vec())?;
        Ok(Self {
            key,
            life: Life::of(&parsed.tbs_certificate)?,
            signer: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
                issuer: parsed.tbs_certificate.issuer.clone(),
                serial_number: parsed.tbs_certificate.serial_number.clone(),
            }),
            content_type: attribute(ID_CONTENT_TYPE, &TST_INFO)?,
            signing_certificate: attribute(
                ID_AA_SIGNING_CERTIFICATE_V_2,
                &SigningCertificate { certs: vec![EssCertId { hash }] },
            )?,
            certificate: parsed,
        })
    }

    /// Refuses if its key cannot be used where it is.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        self.key.check()
    }

    /// A whole response over SHA-256 of `message`, without nonce and certificate.
    pub(super) fn stamp(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.life.check("time-stamp", now)?;
        self.respond(Imprint::of(message)?, None, false, now)
    }

    /// A whole response to a request; outside of the certificate's life that is a rejection, as RFC 3161 has it.
    pub(super) fn answer(&self, request: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        let request = StampRequest::from_der(request)?;
        if self.life.check("time-stamp", now).is_err() {
            let problem = "the clock here is outside of the life of the time-stamp certificate; correct the one or renew the other";
            return Err(StampRefusal::new(Failure::TimeNotAvailable, problem).into());
        }
        self.respond(request.imprint()?, request.nonce().cloned(), request.wants_certificate(), now)
    }

    fn respond(
        &self,
        imprint: Imprint,
        nonce: Option<Int>,
        with_certificate: bool,
        now: Timestamp,
    ) -> Result<Vec<u8>, KeyError> {
        let info = TstInfo {
            version: TspVersion::V1,
            policy: POLICY,
            message_imprint: imprint.into(),
            serial_number: serial()?,
            gen_time: GeneralizedTime::from_unix_duration(cert::unix(now)?)?,
            accuracy: None,
            ordering: false,
            nonce,
            tsa: None,
            extensions: None,
        }
        .to_der()?;
        let certificates = if with_certificate {
            let choice = CertificateChoices::Certificate(self.certificate.clone());
            Some(CertificateSet(SetOfVec::try_from(vec![choice])?))
        } else {
            None
        };
        let signed = SignedData {
            version: CmsVersion::V3,
            digest_algorithms: SetOfVec::try_from(vec![algorithm(ID_SHA_256)])?,
            signer_infos: SignerInfos(SetOfVec::try_from(vec![self.sign(&info)?])?),
            encap_content_info: EncapsulatedContentInfo {
                econtent_type: TST_INFO,
                econtent: Some(Any::encode_from(&OctetString::new(info)?)?),
            },
            certificates,
            crls: None,
        };
        let token = ContentInfo { content_type: ID_SIGNED_DATA, content: Any::encode_from(&signed)? };
        Ok(Granted { status: Status { status: 0 }, token }.to_der()?)
    }

    fn sign(&self, info: &[u8]) -> Result<SignerInfo, KeyError> {
        let digest = attribute(ID_MESSAGE_DIGEST, &OctetString::new(Sha256::digest(info).to_vec())?)?;
        let attributes = SetOfVec::try_from(vec![self.content_type.clone(), digest, self.signing_certificate.clone()])?;
        // Signed as a SET OF, although the message carries it under an implicit tag (RFC 5652 §5.4).
        let signature = self.key.sign(&attributes.to_der()?)?;
        Ok(SignerInfo {
            version: CmsVersion::V1,
            sid: self.signer.clone(),
            digest_alg: algorithm(ID_SHA_256),
            signed_attrs: Some(attributes),
            signature_algorithm: self.key.curve().algorithm(),
            signature: OctetString::new(signature)?,
            unsigned_attrs: None,
        })
    }
}

/// A hash algorithm; parameters absent (RFC 5754 §2).
fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid, parameters: None }
}

fn attribute<T: EncodeValue + Tagged>(oid: ObjectIdentifier, value: &T) -> Result<Attribute, KeyError> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![Any::encode_from(value)?])? })
}

/// A random positive number of 127 bits: unique without a counter that would have to be durable.
fn serial() -> Result<Int, KeyError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_source| KeyError::Crypto("draw random bytes"))?;
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(Int::new(&bytes)?)
}
