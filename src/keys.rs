//! STUB: the keys' owner replaces this file; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use crate::model::Identity;
use jiff::Timestamp;
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{0}")]
    Other(String),
}
/// An ephemeral P-256 key: made for one signature or batch, then dropped.
#[derive(Debug)]
pub struct EphemeralKey;
impl EphemeralKey {
    pub fn generate() -> Result<Self, KeyError> {
        unimplemented!()
    }
    /// SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        unimplemented!()
    }
    /// ECDSA over SHA-256 of `message`, ASN.1 DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        unimplemented!()
    }
    /// ECDSA over a SHA-256 digest computed elsewhere, ASN.1 DER.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Result<Vec<u8>, KeyError> {
        unimplemented!()
    }
}
/// All private keys of one instance, opened.
#[derive(Debug)]
pub struct Keyring;
impl Keyring {
    /// Issues a ten-minute code-signing certificate (DER) for `identity` over `spki`, with embedded SCT.
    pub fn issue(&self, identity: &Identity, spki: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        unimplemented!()
    }
    /// RFC 3161: a whole TimeStampResp (DER) over SHA-256 of `message`.
    pub fn timestamp(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        unimplemented!()
    }
    /// `trusted_root.json`, v0.1.
    pub fn trusted_root(&self) -> &str {
        unimplemented!()
    }
}
