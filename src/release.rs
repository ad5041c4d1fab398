//! STUB: the operator door's owner replaces this file; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use std::sync::Arc;
use jiff::Timestamp;
use crate::model::{Caller, Digest, ImageRef, Identity, LogRef, Revocations};

#[derive(Debug, thiserror::Error)]
pub enum ReleaseError { #[error("{0}")] Other(String) }
/// A digest that was put to run as a service in an environment.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Deployment { pub service: String, pub environment: String, pub digest: Digest, pub image: String, pub status: String, pub deployed_by: String }
#[derive(Debug)]
pub struct Release;
impl Release {
    /// All revocations at the current log size; kept in memory, renewed as the log grows.
    pub fn revocations(&self) -> Arc<Revocations> { unimplemented!() }
    /// What the webhook saw admitted: recorded as a deployment unless the same digest is already the newest one there.
    pub async fn record_admitted(&self, deployment: Deployment, now: Timestamp) -> Result<Option<LogRef>, ReleaseError> { unimplemented!() }
}
