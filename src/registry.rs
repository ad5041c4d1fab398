//! OCI registries: tag to digest, referrers, bundles, blob probes, attach, copy (OCI distribution specification 1.1).
//!
//! Whatever comes from a registry is a stranger's: any user of a cluster can name a registry they run. So every body
//! and list is bounded ([`limits`]), every manifest and bundle is read by digest and its digest computed again, and a
//! tag is resolved once. Errors keep apart what is *definitely not there* ([`RegistryError::NotFound`]) from *could not
//! be asked* (everything else): only the first may weigh in a verdict.
//!
//! This is a client of its own over reqwest rather than `oci-client`, because that one has no `Retry-After` (throttling
//! is text there), reads unbounded bodies, does not keep the fallback tag when it pushes a referrer, follows no pages of
//! referrers and has no limits or breaker per registry. It is a dev-dependency, as the foreign reader of what we attach.
//!
//! What this is not: a cache (the evidence service keeps facts, and sees to it that concurrent questions about one
//! digest cause one set of reads), a verifier (bundles are returned as bytes, nothing in them is believed), or a puller
//! of images (layers are probed, and streamed from one registry to another, never unpacked).

mod attach;
mod auth;
pub mod copy;
mod credential_program;
mod credentials;
mod host;
mod legacy;
mod manifest;
mod probe;
mod push;
mod referrers;
mod settings;
mod tag;
mod transport;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

pub use settings::Settings;

pub use crate::model::image_manifest::ManifestKind;
use crate::model::{Digest, ImageName, ImageRef, legacy::Legacy, limits};

/// Why a registry gave no answer that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The registry was asked and says that it has no such thing.
    #[error("{0} is not in the registry")]
    NotFound(String),
    /// Our credentials are missing, wrong or do not suffice.
    #[error("registry {registry} refused our credentials: {detail}")]
    Unauthorized {
        /// The registry's host.
        registry: String,
        /// What was refused, and where to put credentials.
        detail: String,
    },
    /// 429 until the attempts or the time ran out.
    #[error("registry {registry} throttles us")]
    Throttled {
        /// The registry's host.
        registry: String,
        /// How long it asked us to wait, if it did.
        retry_after: Option<Duration>,
    },
    /// Connection failures and server errors until the attempts ran out, or the breaker is open. Also unusable
    /// [`Settings`], with the registry `(settings)`.
    #[error("registry {registry} could not be asked: {detail}")]
    Unavailable {
        /// The registry's host.
        registry: String,
        /// The last failure.
        detail: String,
    },
    /// An answer that breaks the specification, a digest or a limit. Never retried.
    #[error("registry {registry} sent something that is not acceptable: {detail}")]
    Malformed {
        /// The registry's host.
        registry: String,
        /// What was wrong with it.
        detail: String,
    },
    /// The caller's deadline passed first.
    #[error("the time allowed ran out while asking registry {registry}")]
    Deadline {
        /// The registry's host.
        registry: String,
    },
}

impl RegistryError {
    /// Whether the registry gave a definite no (as against: could not tell).
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    fn malformed(registry: &str, detail: impl fmt::Display) -> Self {
        Self::Malformed { registry: registry.to_owned(), detail: detail.to_string() }
    }

    fn unavailable(registry: &str, detail: impl Into<String>) -> Self {
        Self::Unavailable { registry: registry.to_owned(), detail: detail.into() }
    }
}

/// What a digest turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Digest of the manifest's bytes, computed here.
    pub digest: Digest,
    /// Media type that the manifest says it has; the `Content-Type` where it says nothing.
    pub media_type: String,
    /// Size in bytes.
    pub size: u64,
    /// Index or image.
    pub kind: ManifestKind,
}

/// Which parts of an image are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Platforms of the index; empty for a single image, whose manifest does not say.
    pub platforms: Vec<String>,
    /// Configs and layers that were asked for, each once.
    pub blobs: usize,
    /// What is definitely gone, as a person would name it: `layer sha256:… (linux/arm64)`.
    pub missing: Vec<String>,
}

/// All registries, through one pool of connections. Clones share it.
#[derive(Clone)]
pub struct Registry {
    http: Arc<transport::Transport>,
    locks: Arc<tag::Locks>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Reads the CA file and the docker configuration that `settings` name; asks no registry yet. Blocks on files.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] with the registry `(settings)` when a file named there cannot be used.
    pub fn new(settings: Settings) -> Result<Self, RegistryError> {
        Ok(Self { http: Arc::new(transport::Transport::new(settings)?), locks: Arc::new(tag::Locks::new()) })
    }

    /// Tag to digest, once. The digest is recomputed from the manifest's bytes; a header that says otherwise is
    /// refused. A pinned reference is answered as it is, without asking.
    pub async fn resolve(&self, image: &ImageRef, deadline: Instant) -> Result<Digest, RegistryError> {
        if let Some(digest) = image.digest {
            return Ok(digest);
        }
        let tag = image.tag.as_deref().unwrap_or("latest");
        let raw = manifest::fetch_tag(&self.http, &image.name, tag, deadline).await?;
        // A tag that points at something else than a manifest is no image.
        raw.parse(&image.name.registry)?;
        Ok(raw.digest)
    }

    /// Reads and classifies the manifest with this digest.
    pub async fn manifest(
        &self,
        name: &ImageName,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Manifest, RegistryError> {
        let raw = manifest::fetch(&self.http, name, digest, deadline).await?;
        let document = raw.parse(&name.registry)?;
        let kind = document.kind().map_err(manifest::refused(&name.registry))?;
        Ok(Manifest { digest: raw.digest, media_type: raw.media_type(&document).to_owned(), size: raw.size(), kind })
    }

    /// Every Sigstore bundle that refers to the digest, from the referrers API, else from the fallback tag.
    ///
    /// Referrers that are definitely no usable bundles (deleted, another type, over [`limits::BUNDLE`]) are passed
    /// over; an empty answer means that there are none.
    pub async fn bundles(
        &self,
        name: &ImageName,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, RegistryError> {
        referrers::bundles(&self.http, name, digest, deadline).await
    }

    /// What stands about the digest at the tags of cosign's legacy layout (`.sig`, `.att`); two requests at once where
    /// there is nothing. A layer that cannot be read is listed with the reason.
    pub async fn legacy(
        &self,
        name: &ImageName,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<Vec<Legacy>, RegistryError> {
        legacy::read(&self.http, name, digest, deadline).await
    }

    /// Copies an image with all its evidence to another repository, here or elsewhere: see [`copy`].
    ///
    /// # Errors
    /// What kept the image itself from being copied; what is missing of its evidence is in [`copy::Copied::problems`].
    pub async fn copy(
        &self,
        order: &copy::Order,
        meter: &Arc<copy::Meter>,
        deadline: Instant,
    ) -> Result<copy::Copied, RegistryError> {
        copy::copy(&self.http, &self.locks, order, meter, deadline).await
    }

    /// Asks for the manifest, its platforms, configs and layers. `Ok` with `missing` non-empty: definitely gone.
    ///
    /// # Errors
    /// Whatever kept the registry from giving a definite answer about one of the parts.
    pub async fn probe(&self, name: &ImageName, digest: &Digest, deadline: Instant) -> Result<Probe, RegistryError> {
        probe::probe(&self.http, name, digest, deadline).await
    }

    /// Pushes a bundle as a referrer of `subject`; keeps the fallback tag where the registry has no referrers API.
    /// Answers with the digest of the referrer's manifest.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the subject is not in the registry.
    pub async fn attach(
        &self,
        name: &ImageName,
        subject: &Digest,
        bundle: &[u8],
        predicate_type: &str,
        now: jiff::Timestamp,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        if bundle.len() > limits::BUNDLE {
            let detail = format!("refusing to attach a bundle of {} bytes (at most {})", bundle.len(), limits::BUNDLE);
            return Err(RegistryError::malformed(&name.registry, detail));
        }
        let push = attach::Push { http: &self.http, locks: &self.locks, name, subject, deadline };
        push.attach(bundle, predicate_type, now).await
    }

    /// How many answers each registry gave, by host and status; status 0 counts requests without an answer.
    pub fn requests(&self) -> BTreeMap<(String, u16), u64> {
        self.http.requests()
    }

    /// Registries whose breaker is open at this moment.
    pub fn open_breakers(&self) -> Vec<String> {
        self.http.open_breakers()
    }
}
