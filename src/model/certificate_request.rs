//! Certification requests, PKCS#10 (RFC 2986): a key, and the proof that whoever wants it certified holds it.
//!
//! The key and the signature count. Subject and attributes are covered by the signature and otherwise passed over, as
//! Fulcio does: whom a certificate names comes from a token, and what it may be used for is our profile.

use const_oid::{
    ObjectIdentifier,
    db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, SHA_256_WITH_RSA_ENCRYPTION},
};
use der::{AnyRef, Decode as _, Reader as _, SliceReader, Tag, TagNumber, Tagged as _, asn1::BitStringRef};
use spki::AlgorithmIdentifierRef;

use super::{
    limits,
    public_key::{PublicKey, PublicKeyError, Scheme},
};

/// The tag of the attributes: `[0]`, which holds others.
const ATTRIBUTES: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber::N0 };

/// Why a certificate request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRequestError {
    /// Over [`limits::CERTIFICATE_REQUEST`].
    #[error("certificate request has {0} bytes; the limit is {limit}", limit = limits::CERTIFICATE_REQUEST)]
    TooLarge(usize),
    /// Not a request.
    #[error("not a certificate request: PKCS#10 in PEM (BEGIN CERTIFICATE REQUEST) is wanted")]
    Malformed,
    /// A key that is not accepted.
    #[error("key of the certificate request: {0}")]
    Key(#[from] PublicKeyError),
    /// Signed by an algorithm with which its signature could not be logged.
    #[error("certificate request is not signed with {0}, which goes with its key; sign it so")]
    Algorithm(&'static str),
    /// For a key whose requests cannot be logged: of Ed25519 the log takes the pre-hashed form alone, and X.509 has none.
    #[error(
        "a certificate request for an Ed25519 key cannot be logged; show possession by publicKeyRequest, with an Ed25519ph \
         signature over the token's claim"
    )]
    NotPrehashed,
    /// The signature does not verify.
    #[error("signature of the certificate request does not verify with the key that it is for")]
    Signature,
}

/// A request whose signature was verified with its own key: only [`Self::from_pem`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    key: PublicKey,
    digest: Vec<u8>,
    signature: Vec<u8>,
}

impl CertificateRequest {
    /// Reads a request in PEM (RFC 7468 section 7) and verifies its signature.
    ///
    /// # Errors
    /// A [`CertificateRequestError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateRequestError> {
        if pem.len() > limits::CERTIFICATE_REQUEST {
            return Err(CertificateRequestError::TooLarge(pem.len()));
        }
        match der::pem::decode_vec(pem.trim_ascii()) {
            Ok(("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST", der)) => Self::from_der(&der),
            Ok(_) | Err(_) => Err(CertificateRequestError::Malformed),
        }
    }

    /// The same from DER.
    ///
    /// # Errors
    /// A [`CertificateRequestError`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateRequestError> {
        if der.len() > limits::CERTIFICATE_REQUEST {
            return Err(CertificateRequestError::TooLarge(der.len()));
        }
        let malformed = |_source| CertificateRequestError::Malformed;
        let (info, algorithm, signature) = parts(der).map_err(malformed)?;
        let key = PublicKey::from_spki(public_key(info).map_err(malformed)?)?;
        let (wanted, name) = algorithm_of(key.scheme()).ok_or(CertificateRequestError::NotPrehashed)?;
        if algorithm != wanted {
            return Err(CertificateRequestError::Algorithm(name));
        }
        let signature = signature.as_bytes().ok_or(CertificateRequestError::Malformed)?;
        let digest = key.scheme().digest(info);
        key.verify_digest(&digest, signature).map_err(|_source| CertificateRequestError::Signature)?;
        Ok(Self { signature: signature.to_vec(), key, digest })
    }

    /// The key that is to be certified.
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The digest, by the hash of the key's scheme, of what the signature is over: the `CertificationRequestInfo`.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// `CertificationRequest`: what is signed as it stands there, the algorithm, the signature.
fn parts(der: &[u8]) -> der::Result<(&[u8], ObjectIdentifier, BitStringRef<'_>)> {
    let mut outer = SliceReader::new(der)?;
    let parts = outer.sequence(|request| {
        let info = request.tlv_bytes()?;
        let algorithm = AlgorithmIdentifierRef::decode(request)?;
        Ok((info, algorithm.oid, BitStringRef::decode(request)?))
    })?;
    outer.finish(parts)
}

/// The key in a `CertificationRequestInfo`.
fn public_key(info: &[u8]) -> der::Result<&[u8]> {
    let mut outer = SliceReader::new(info)?;
    let key = outer.sequence(|info| {
        let version = u8::decode(info)?;
        let subject = AnyRef::decode(info)?;
        let key = info.tlv_bytes()?;
        let attributes = AnyRef::decode(info)?;
        if version != 0 {
            return Err(Tag::Integer.value_error());
        }
        subject.tag().assert_eq(Tag::Sequence)?;
        attributes.tag().assert_eq(ATTRIBUTES)?;
        Ok(key)
    })?;
    outer.finish(key)
}

/// How a request is signed whose signature can be logged under its key, if there is such a way.
const fn algorithm_of(scheme: Scheme) -> Option<(ObjectIdentifier, &'static str)> {
    match scheme {
        Scheme::P256Sha256 => Some((ECDSA_WITH_SHA_256, "ECDSA and SHA-256")),
        Scheme::P384Sha384 => Some((ECDSA_WITH_SHA_384, "ECDSA and SHA-384")),
        Scheme::P521Sha512 => Some((ECDSA_WITH_SHA_512, "ECDSA and SHA-512")),
        Scheme::Rsa2048Sha256 | Scheme::Rsa3072Sha256 | Scheme::Rsa4096Sha256 => {
            Some((SHA_256_WITH_RSA_ENCRYPTION, "RSA PKCS#1 v1.5 and SHA-256"))
        }
        Scheme::Ed25519Ph => None,
    }
}
