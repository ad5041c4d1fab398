//! STUB: replaced; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use crate::model::{Digest, Evidence, ImageRef, Verified};
use jiff::Timestamp;
use std::{sync::Arc, time::Instant};

#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("{0}")]
    Log(String),
}
#[derive(Debug)]
pub struct EvidenceService;
impl EvidenceService {
    /// Everything known about `digest`: our log first; then, when `image` is given, its registry. Never fails because a
    /// source cannot be read: that is recorded as a gap.
    pub async fn gather(
        &self,
        digest: &Digest,
        image: Option<&ImageRef>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Evidence, EvidenceError> {
        unimplemented!()
    }
    /// From our log alone; no network.
    pub async fn from_log(
        &self,
        digest: &Digest,
        image: Option<&ImageRef>,
        now: Timestamp,
    ) -> Result<Evidence, EvidenceError> {
        unimplemented!()
    }
    /// One log entry as verified evidence about `digest`.
    pub fn entry(&self, index: u64, digest: &Digest) -> Result<Verified, EvidenceError> {
        unimplemented!()
    }
}
