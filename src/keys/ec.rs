//! ECDSA keys: P-256 with SHA-256 and P-384 with SHA-384, signatures in ASN.1 DER. In the process, or on a token.

use std::fmt;

use aws_lc_rs::{
    digest::{self, SHA256, SHA384},
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
use zeroize::Zeroizing;

use super::{
    KeyError,
    custody::{Sealable, no_token},
    pkcs11::{Kind, Token},
};
use crate::model::{PublicKey, key_uri::KeyUri};

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

    fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::P256 => &SHA256,
            Self::P384 => &SHA384,
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

/// Where a private key is.
enum Holder {
    /// In this process.
    Here(EcdsaKeyPair),
    /// On a token. Without one, its public side is known and it signs nothing.
    Token { uri: KeyUri, token: Option<Token> },
}

/// A private key with its public half.
pub(super) struct EcKey {
    holder: Holder,
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
        Ok(Self { spki: spki.as_ref().to_vec(), holder: Holder::Here(pair), curve })
    }

    /// A key on a token; nothing is asked of it yet.
    pub(super) fn on_token(curve: Curve, uri: KeyUri, token: Option<Token>) -> Result<Self, KeyError> {
        PublicKey::from_spki(&uri.spki).map_err(|_source| KeyError::PublicKey("that of the token cannot be read"))?;
        Ok(Self { spki: uri.spki.clone(), holder: Holder::Token { uri, token }, curve })
    }

    /// PKCS#8 DER of a key that is in this process; wiped when dropped.
    pub(super) fn to_pkcs8(&self) -> Result<Document, KeyError> {
        match &self.holder {
            Holder::Here(pair) => pair.to_pkcs8v1().map_err(|_source| KeyError::Crypto("write a private key")),
            Holder::Token { .. } => Err(KeyError::Crypto("write a private key that is on a token")),
        }
    }

    /// What its sealed file holds: the key, or where it is.
    pub(super) fn to_sealable(&self) -> Result<Sealable, KeyError> {
        match &self.holder {
            Holder::Here(_) => Ok(Zeroizing::new(self.to_pkcs8()?.as_ref().to_vec())),
            Holder::Token { uri, .. } => Ok(Zeroizing::new(uri.to_string().into_bytes())),
        }
    }

    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn curve(&self) -> Curve {
        self.curve
    }

    /// Refuses if the key is on a token, and cannot be used there.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        match &self.holder {
            Holder::Here(_) => Ok(()),
            Holder::Token { uri, token: Some(token) } => token.check(Kind::Ecdsa(self.curve), uri),
            Holder::Token { uri, token: None } => Err(no_token(uri)),
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        if let Holder::Here(pair) = &self.holder {
            let signature = pair.sign(&SystemRandom::new(), message).map_err(|_source| KeyError::Crypto("sign"))?;
            return Ok(signature.as_ref().to_vec());
        }
        self.sign_digest(digest::digest(self.curve.hash(), message).as_ref())
    }

    /// Signs a digest by the curve's hash that was computed elsewhere.
    pub(super) fn sign_digest(&self, digest: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.holder {
            Holder::Here(pair) => {
                let failed = |_source| KeyError::Crypto("sign a digest");
                let digest = digest::Digest::import_less_safe(digest, self.curve.hash()).map_err(failed)?;
                Ok(pair.sign_digest(&digest).map_err(failed)?.as_ref().to_vec())
            }
            Holder::Token { uri, token: Some(token) } => {
                let signature = token.sign_digest(uri, digest)?;
                let key = PublicKey::from_spki(&self.spki);
                match key.and_then(|key| key.verify_digest(digest, &signature)) {
                    Ok(()) => Ok(signature),
                    Err(_refused) => Err(token.signed_wrongly(uri)),
                }
            }
            Holder::Token { uri, token: None } => Err(no_token(uri)),
        }
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
        self.0.sign_digest(digest)
    }
}
