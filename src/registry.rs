//! STUB: the registry's owner replaces this file; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use crate::model::{Digest, ImageName, ImageRef};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    #[error("{0} is not in the registry")]
    NotFound(String),
    #[error("registry {registry} refused our credentials: {detail}")]
    Unauthorized { registry: String, detail: String },
    #[error("registry {registry} throttles us")]
    Throttled { registry: String, retry_after: Option<Duration> },
    #[error("registry {registry} could not be asked: {detail}")]
    Unavailable { registry: String, detail: String },
    #[error("registry {registry} sent something that is not acceptable: {detail}")]
    Malformed { registry: String, detail: String },
    #[error("the time allowed ran out while asking registry {registry}")]
    Deadline { registry: String },
}
impl RegistryError {
    /// Whether the registry gave a definite no (as against: could not tell).
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}
/// What a digest turned out to be.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
    pub kind: ManifestKind,
}
#[derive(Debug, Clone)]
pub enum ManifestKind {
    Index { platforms: Vec<(String, Digest)> },
    Image { config: Digest, layers: Vec<Digest> },
}
/// Which parts of an image are there.
#[derive(Debug, Clone)]
pub struct Probe {
    pub platforms: Vec<String>,
    pub blobs: usize,
    pub missing: Vec<String>,
}
#[derive(Debug, Clone)]
pub struct Registry;
impl Registry {
    /// Tag to digest, once; the digest is recomputed from the manifest's bytes. A pinned reference is answered as it is.
    pub async fn resolve(&self, image: &ImageRef, deadline: Instant) -> Result<Digest, RegistryError> {
        unimplemented!()
    }
    pub async fn manifest(
        &self,
        name: &ImageName,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Manifest, RegistryError> {
        unimplemented!()
    }
    /// Every Sigstore bundle that refers to the digest: referrers API, else fallback tag.
    pub async fn bundles(
        &self,
        name: &ImageName,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, RegistryError> {
        unimplemented!()
    }
    /// HEADs the manifest, its platforms, configs and layers. Ok with `missing` non-empty: definitely gone.
    pub async fn probe(&self, name: &ImageName, digest: &Digest, deadline: Instant) -> Result<Probe, RegistryError> {
        unimplemented!()
    }
    /// Pushes a bundle as a referrer of `subject`; keeps the fallback tag where the registry has no referrers API.
    pub async fn attach(
        &self,
        name: &ImageName,
        subject: &Digest,
        bundle: &[u8],
        predicate_type: &str,
        now: jiff::Timestamp,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        unimplemented!()
    }
}
