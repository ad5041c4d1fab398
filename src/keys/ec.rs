//! ECDSA keys: P-256 with SHA-256 and P-384 with SHA-384, signatures in ASN.1 DER.

use std::fmt;

use aws_lc_rs::{
    digest::{self, SHA256},
    encoding::AsDer as _,
    pkcs8::Document,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        KeyPair as _,
    },
};
use const_oid::db::rfc5912::{ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384};
use spki::AlgorithmIdentifierOwned;

use super::KeyError;

/// The curves that we sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
}

impl Curve {
    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        }
    }

    /// The signature algorithm, as certificates name it.
    pub(super) fn algorithm(self) -> AlgorithmIdentifierOwned {
        let oid = match self {
            Self::P256 => ECDSA_WITH_SHA_256,
            Self::P384 => ECDSA_WITH_SHA_384,
        };
        AlgorithmIdentifierOwned { oid, parameters: None }
    }
}

/// A private key with its public half.
pub(super) struct EcKey {
    pair: EcdsaKeyPair,
    curve: Curve,
    spki: Vec<u8>,
}

impl EcKey {
    pub(super) fn generate(curve: Curve) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(curve.signing()).map_err(|_source| KeyError::Crypto("generate a key"))?;
        Self::new(pair, curve)
    }

    pub(super) fn from_pkcs8(curve: Curve, pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), pkcs8)
            .map_err(|_source| KeyError::Crypto("read a private key"))?;
        Self::new(pair, curve)
    }

    fn new(pair: EcdsaKeyPair, curve: Curve) -> Result<Self, KeyError> {
        let spki = pair.public_key().as_der().map_err(|_source| KeyError::Crypto("write a public key"))?;
        Ok(Self { spki: spki.as_ref().to_vec(), pair, curve })
    }

    /// PKCS#8 DER; wiped when dropped.
    pub(super) fn to_pkcs8(&self) -> Result<Document, KeyError> {
        self.pair.to_pkcs8v1().map_err(|_source| KeyError::Crypto("write a private key"))
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn curve(&self) -> Curve {
        self.curve
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_source| KeyError::Crypto("sign"))?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for EcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcKey").field("curve", &self.curve).finish_non_exhaustive()
    }
}

/// An ephemeral P-256 key: made for one signature or batch, then dropped.
#[derive(Debug)]
pub struct EphemeralKey(EcKey);

impl EphemeralKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the library has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        EcKey::generate(Curve::P256).map(Self)
    }

    /// `SubjectPublicKeyInfo`, DER.
    pub fn spki(&self) -> Vec<u8> {
        self.0.spki.clone()
    }

    /// ECDSA over SHA-256 of `message`, ASN.1 DER.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.sign(message)
    }

    /// ECDSA over a SHA-256 digest computed elsewhere, ASN.1 DER.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if the library refuses.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        let failed = |_source| KeyError::Crypto("sign a digest");
        let digest = digest::Digest::import_less_safe(digest, &SHA256).map_err(failed)?;
        let signature = self.0.pair.sign_digest(&digest).map_err(failed)?;
        Ok(signature.as_ref().to_vec())
    }
}
