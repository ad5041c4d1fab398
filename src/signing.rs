//! STUB: replaced; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use crate::model::{Digest, Identity, LogRef, Statement};
use jiff::Timestamp;
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error(transparent)]
    Key(#[from] crate::keys::KeyError),
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    #[error("{0}")]
    Other(String),
}
/// A signed and logged statement.
#[derive(Debug, Clone)]
pub struct Signed {
    pub bundle: Vec<u8>,
    pub entry: LogRef,
}
#[derive(Debug)]
pub struct Signing;
impl Signing {
    /// Signs each statement under a certificate for `identity`, timestamps and logs it; one log commit for all.
    pub async fn attest(
        &self,
        statements: Vec<Statement>,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        unimplemented!()
    }
    /// The identity under which the service signs what it says itself (readiness, VSAs, admitted deployments).
    pub fn own_identity(&self) -> &Identity {
        unimplemented!()
    }
    /// The bundle of a log entry with a fresh proof.
    pub fn bundle_of(&self, index: u64) -> Result<Vec<u8>, SigningError> {
        unimplemented!()
    }
}
