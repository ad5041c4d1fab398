//! Public keys of other people's signatures: which kinds are accepted, and the verification of a signature with one.
//!
//! A key stands for one *scheme*, the algorithm and hash that Sigstore clients derive from a key of its kind
//! (`PublicKeyDetails` of the Sigstore protobufs): a log entry that named another would be refused by them. An Ed25519 key
//! stands for Ed25519ph, as entries hold digests. Not here: private keys, certificates and whom a key belongs to.

use aws_lc_rs::{
    digest::{self, SHA256, SHA384, SHA512},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use const_oid::db::{
    rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1},
    rfc8410::ID_ED_25519,
};
use der::{Decode as _, Encode as _, Reader as _, SliceReader, asn1::UintRef};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::Certificate;

mod ed25519ph;

/// A `SubjectPublicKeyInfo` longer than this is not read: RSA with 4,096 bits has 550 bytes.
const LONGEST: usize = 1_024;

/// Why a key or a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a key, or longer than any that is accepted.
    #[error("not a public key: a SubjectPublicKeyInfo in DER (or PEM, BEGIN PUBLIC KEY) is wanted")]
    Malformed,
    /// Not a certificate.
    #[error("not an X.509 certificate in DER")]
    Certificate,
    /// A kind of key that is not accepted.
    #[error("{0}; use ECDSA on P-256, P-384 or P-521, RSA with 2048, 3072 or 4096 bits, or Ed25519")]
    Unsupported(&'static str),
    /// The digest has not the length of the scheme's hash.
    #[error("digest has {found} bytes; a signature with this key is over a digest of {wanted} bytes")]
    DigestLength {
        /// Its length.
        found: usize,
        /// The length of the scheme's hash.
        wanted: usize,
    },
    /// The signature does not verify.
    #[error("signature does not verify with this key")]
    Signature,
}

/// Algorithm and hash, as Sigstore derives them from a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// ECDSA on P-256 with SHA-256.
    P256Sha256,
    /// ECDSA on P-384 with SHA-384.
    P384Sha384,
    /// ECDSA on P-521 with SHA-512.
    P521Sha512,
    /// RSA PKCS#1 v1.5, 2048 bits, with SHA-256.
    Rsa2048Sha256,
    /// RSA PKCS#1 v1.5, 3072 bits, with SHA-256.
    Rsa3072Sha256,
    /// RSA PKCS#1 v1.5, 4096 bits, with SHA-256.
    Rsa4096Sha256,
    /// Ed25519ph: Ed25519 over a SHA-512.
    Ed25519Ph,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::P256Sha256,
        Self::P384Sha384,
        Self::P521Sha512,
        Self::Rsa2048Sha256,
        Self::Rsa3072Sha256,
        Self::Rsa4096Sha256,
        Self::Ed25519Ph,
    ];

    /// Its name in `PublicKeyDetails`.
    pub const fn details(self) -> &'static str {
        match self {
            Self::P256Sha256 => "PKIX_ECDSA_P256_SHA_256",
            Self::P384Sha384 => "PKIX_ECDSA_P384_SHA_384",
            Self::P521Sha512 => "PKIX_ECDSA_P521_SHA_512",
            Self::Rsa2048Sha256 => "PKIX_RSA_PKCS1V15_2048_SHA256",
            Self::Rsa3072Sha256 => "PKIX_RSA_PKCS1V15_3072_SHA256",
            Self::Rsa4096Sha256 => "PKIX_RSA_PKCS1V15_4096_SHA256",
            Self::Ed25519Ph => "PKIX_ED25519_PH",
        }
    }

    /// Its number in `PublicKeyDetails`.
    pub const fn number(self) -> i32 {
        match self {
            Self::P256Sha256 => 5,
            Self::Ed25519Ph => 8,
            Self::Rsa2048Sha256 => 9,
            Self::Rsa3072Sha256 => 10,
            Self::Rsa4096Sha256 => 11,
            Self::P384Sha384 => 12,
            Self::P521Sha512 => 13,
        }
    }

    /// The scheme of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.details() == name)
    }

    /// The scheme of this number.
    pub fn of_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|scheme| scheme.number() == number)
    }

    /// The name of its hash in `HashAlgorithm`.
    pub const fn hash(self) -> &'static str {
        match self {
            Self::P384Sha384 => "SHA2_384",
            Self::P521Sha512 | Self::Ed25519Ph => "SHA2_512",
            Self::P256Sha256 | Self::Rsa2048Sha256 | Self::Rsa3072Sha256 | Self::Rsa4096Sha256 => "SHA2_256",
        }
    }

    /// The length of its digests, in bytes.
    pub fn hash_length(self) -> usize {
        self.algorithm().output_len()
    }

    /// The message's digest by its hash.
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), message).as_ref().to_vec()
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::P384Sha384 => &SHA384,
            Self::P521Sha512 | Self::Ed25519Ph => &SHA512,
            Self::P256Sha256 | Self::Rsa2048Sha256 | Self::Rsa3072Sha256 | Self::Rsa4096Sha256 => &SHA256,
        }
    }

    /// How `aws-lc-rs` verifies it; `None` of Ed25519ph, which it does not have.
    fn verification(self) -> Option<&'static dyn VerificationAlgorithm> {
        match self {
            Self::P256Sha256 => Some(&ECDSA_P256_SHA256_ASN1),
            Self::P384Sha384 => Some(&ECDSA_P384_SHA384_ASN1),
            Self::P521Sha512 => Some(&ECDSA_P521_SHA512_ASN1),
            Self::Rsa2048Sha256 | Self::Rsa3072Sha256 | Self::Rsa4096Sha256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Ed25519Ph => None,
        }
    }
}

/// A public key of an accepted kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: Vec<u8>,
    /// What stands in the `subjectPublicKey`: the point, an `RSAPublicKey`, or the 32 bytes of an Ed25519 key.
    bits: Vec<u8>,
    scheme: Scheme,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`, DER (RFC 5280 section 4.1.2.7).
    ///
    /// # Errors
    /// [`PublicKeyError::Malformed`] or [`PublicKeyError::Unsupported`].
    pub fn from_spki(der: &[u8]) -> Result<Self, PublicKeyError> {
        if der.len() > LONGEST {
            return Err(PublicKeyError::Malformed);
        }
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_source| PublicKeyError::Malformed)?;
        let bits = spki.subject_public_key.as_bytes().ok_or(PublicKeyError::Malformed)?;
        let scheme = match spki.algorithm.oid {
            ID_EC_PUBLIC_KEY => {
                let curve = spki.algorithm.parameters_oid().map_err(|_source| PublicKeyError::Malformed)?;
                ecdsa(curve, bits)?
            }
            RSA_ENCRYPTION => rsa(bits)?,
            ID_ED_25519 if ed25519ph::is_key(bits) => Scheme::Ed25519Ph,
            ID_ED_25519 => return Err(PublicKeyError::Malformed),
            _ => return Err(PublicKeyError::Unsupported("this kind of key is not accepted")),
        };
        Ok(Self { spki: der.to_vec(), bits: bits.to_vec(), scheme })
    }

    /// Reads a `SubjectPublicKeyInfo` in PEM, `BEGIN PUBLIC KEY` (RFC 7468 section 13).
    ///
    /// # Errors
    /// As [`Self::from_spki`].
    pub fn from_pem(pem: &str) -> Result<Self, PublicKeyError> {
        // Base64 with its line ends and the two boundary lines.
        if pem.len() > LONGEST * 2 {
            return Err(PublicKeyError::Malformed);
        }
        match der::pem::decode_vec(pem.trim().as_bytes()) {
            Ok(("PUBLIC KEY", der)) => Self::from_spki(&der),
            Ok(_) | Err(_) => Err(PublicKeyError::Malformed),
        }
    }

    /// The key of a certificate, DER. Nothing else of it is looked at.
    ///
    /// # Errors
    /// [`PublicKeyError::Certificate`], or as [`Self::from_spki`].
    pub fn from_certificate(der: &[u8]) -> Result<Self, PublicKeyError> {
        let certificate = Certificate::from_der(der).map_err(|_source| PublicKeyError::Certificate)?;
        let spki = certificate.tbs_certificate.subject_public_key_info.to_der();
        Self::from_spki(&spki.map_err(|_source| PublicKeyError::Certificate)?)
    }

    /// The `SubjectPublicKeyInfo`, DER, as it was given.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// How it signs.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Verifies a signature over `message`: ECDSA in ASN.1 DER, RSA PKCS#1 v1.5, or Ed25519ph.
    ///
    /// # Errors
    /// [`PublicKeyError::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), PublicKeyError> {
        self.verify_digest(&self.scheme.digest(message), signature)
    }

    /// Verifies a signature over a digest that was computed elsewhere, by the scheme's hash.
    ///
    /// # Errors
    /// [`PublicKeyError::DigestLength`] or [`PublicKeyError::Signature`].
    pub fn verify_digest(&self, digest: &[u8], signature: &[u8]) -> Result<(), PublicKeyError> {
        let algorithm = self.scheme.algorithm();
        let length = || PublicKeyError::DigestLength { found: digest.len(), wanted: algorithm.output_len() };
        let verified = if let Some(verification) = self.scheme.verification() {
            let imported = digest::Digest::import_less_safe(digest, algorithm).map_err(|_source| length())?;
            UnparsedPublicKey::new(verification, &self.bits).verify_digest(&imported, signature).is_ok()
        } else {
            let digest = digest.try_into().map_err(|_source| length())?;
            ed25519ph::verifies(&self.bits, digest, signature)
        };
        if verified { Ok(()) } else { Err(PublicKeyError::Signature) }
    }
}

/// An uncompressed point (SEC 1 section 2.3.3): other forms would give one key several encodings.
fn ecdsa(curve: const_oid::ObjectIdentifier, point: &[u8]) -> Result<Scheme, PublicKeyError> {
    let (scheme, length) = match curve {
        SECP_256_R_1 => (Scheme::P256Sha256, 65),
        SECP_384_R_1 => (Scheme::P384Sha384, 97),
        SECP_521_R_1 => (Scheme::P521Sha512, 133),
        _ => return Err(PublicKeyError::Unsupported("this curve is not accepted")),
    };
    let uncompressed = point.len() == length && point.first() == Some(&4);
    if uncompressed { Ok(scheme) } else { Err(PublicKeyError::Malformed) }
}

/// An `RSAPublicKey` (RFC 8017 section A.1.1) with the usual exponent.
fn rsa(key: &[u8]) -> Result<Scheme, PublicKeyError> {
    let parse = || -> der::Result<(usize, bool)> {
        let mut outer = SliceReader::new(key)?;
        let numbers = outer.sequence(|inner| Ok((UintRef::decode(inner)?, UintRef::decode(inner)?)))?;
        outer.finish(numbers).map(|(modulus, exponent)| (bits(modulus.as_bytes()), exponent.as_bytes() == [1, 0, 1]))
    };
    let (bits, usual) = parse().map_err(|_source| PublicKeyError::Malformed)?;
    if !usual {
        return Err(PublicKeyError::Unsupported("RSA keys with an exponent other than 65537 are not accepted"));
    }
    match bits {
        2048 => Ok(Scheme::Rsa2048Sha256),
        3072 => Ok(Scheme::Rsa3072Sha256),
        4096 => Ok(Scheme::Rsa4096Sha256),
        _ => Err(PublicKeyError::Unsupported("RSA keys of this size are not accepted")),
    }
}

/// The number of bits of a big-endian number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    let leading = number.first().map_or(0, |first| usize::try_from(first.leading_zeros()).unwrap_or(0));
    number.len() * 8 - leading
}
