//! The Ed25519 key that signs a log's checkpoints: in the process, or on a token.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{
    KeyError,
    custody::{Sealable, no_token},
    pkcs11::{Kind, Token},
    public_key, trust,
};
use crate::model::key_uri::KeyUri;

/// Where it is.
#[derive(Clone)]
enum Holder {
    Here(Arc<Ed25519KeyPair>),
    Token { uri: Arc<KeyUri>, token: Option<Token> },
}

/// The Ed25519 key that signs a log's checkpoints.
#[derive(Clone)]
pub struct LogKey {
    holder: Holder,
    public: [u8; 32],
}

impl LogKey {
    pub(super) fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_source| KeyError::Crypto("generate the log key"))?;
        Ok(Self { public: public_key(&pair)?, holder: Holder::Here(Arc::new(pair)) })
    }

    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_source| KeyError::Crypto("read the log key"))?;
        Ok(Self { public: public_key(&pair)?, holder: Holder::Here(Arc::new(pair)) })
    }

    /// A key on a token; nothing is asked of it yet.
    pub(super) fn on_token(uri: KeyUri, token: Option<Token>) -> Result<Self, KeyError> {
        let public = trust::ed25519_of(&uri.spki).ok_or(KeyError::PublicKey("that of the token is not Ed25519"))?;
        Ok(Self { public, holder: Holder::Token { uri: Arc::new(uri), token } })
    }

    /// What its sealed file holds: PKCS#8 in DER, or where the key is.
    pub(super) fn to_sealable(&self) -> Result<Sealable, KeyError> {
        match &self.holder {
            Holder::Here(pair) => {
                let pkcs8 = pair.to_pkcs8v1().map_err(|_source| KeyError::Crypto("write the log key"))?;
                Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
            }
            Holder::Token { uri, .. } => Ok(Zeroizing::new(uri.to_string().into_bytes())),
        }
    }

    /// The public side as `SubjectPublicKeyInfo`, DER.
    pub(super) fn spki(&self) -> Vec<u8> {
        trust::ed25519_spki(&self.public)
    }

    /// Refuses if the key is on a token, and cannot be used there.
    pub(super) fn check(&self) -> Result<(), KeyError> {
        match &self.holder {
            Holder::Here(_) => Ok(()),
            Holder::Token { uri, token: Some(token) } => token.check(Kind::Ed25519, uri),
            Holder::Token { uri, token: None } => Err(no_token(uri)),
        }
    }

    /// The 32-byte public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Signs `message` (Ed25519, RFC 8032). `None` when the key is on a token that does not sign now; why goes to the
    /// service's log. A key in the process always signs.
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        match self.try_sign(message) {
            Ok(signature) => Some(signature),
            Err(error) => {
                tracing::error!(%error, "the log's key cannot sign");
                None
            }
        }
    }

    fn try_sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let unfit = |_source| KeyError::Crypto("sign as the log");
        match &self.holder {
            Holder::Here(pair) => pair.sign(message).as_ref().try_into().map_err(unfit),
            Holder::Token { uri, token: Some(token) } => {
                let signature = token.sign_ed25519(uri, message)?;
                let verified = UnparsedPublicKey::new(&ED25519, self.public.as_slice()).verify(message, &signature);
                verified.map_err(|_refused| token.signed_wrongly(uri))?;
                signature.as_slice().try_into().map_err(unfit)
            }
            Holder::Token { uri, token: None } => Err(no_token(uri)),
        }
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogKey").field("public", &hex::encode(self.public)).finish_non_exhaustive()
    }
}
