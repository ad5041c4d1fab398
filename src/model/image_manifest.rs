//! What a registry sends for an image: manifests and indexes (OCI image specification 1.1, Docker schema 2).
//!
//! The structs are our own and lenient: fields that we do not use may be missing or unknown, as they are in the wild. Not
//! here: whether the bytes are those that were asked for, which their digest decides.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    digest::{Digest, DigestError},
    json::{TooDeep, check_json_depth, is_object},
    limits,
};

/// The media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of an OCI image manifest.
pub const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What we accept for a manifest, in one header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// Why bytes are no manifest that we can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageManifestError {
    /// Over [`limits::JSON_DEPTH`].
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// Not a JSON object, or other fields than a manifest's: what serde says, cut.
    #[error("not a manifest: {0}")]
    Syntax(String),
    /// Docker's schema 1, or none.
    #[error("schema version 2 is the only one supported; push the image again with a current tool")]
    SchemaVersion,
    /// CVE-2021-41190.
    #[error("it is an image and an index at once")]
    Both,
    /// Another document.
    #[error("it is neither an image nor an index")]
    Neither,
    /// An index that says it is an image, or an image that says it is an index.
    #[error("it is not what its media type says")]
    OtherMediaType,
    /// Its media type is over [`limits::NAME`].
    #[error("its media type has more than {} bytes", limits::NAME)]
    LongMediaType,
    /// The digest of something that must be followed cannot be.
    #[error("a descriptor names {shown:?}: {source}")]
    Digest {
        /// What stands there, cut.
        shown: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// Over [`limits::IMAGE_PARTS`].
    #[error("an image of {count} {what} (at most {limit})", limit = limits::IMAGE_PARTS)]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// Nothing to run.
    #[error("an image manifest without config")]
    NoConfig,
}

/// An image manifest or an index; which of them, [`Document::kind`] says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    /// What the artifact says it is.
    pub artifact_type: Option<String>,
    /// An image's configuration.
    pub config: Option<Descriptor>,
    /// An image's layers, lowest first.
    pub layers: Option<Vec<Descriptor>>,
    /// An index's entries.
    pub manifests: Option<Vec<Descriptor>>,
    /// To what the artifact refers.
    pub subject: Option<Descriptor>,
}

/// What points at a blob or manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type; empty where none is given.
    #[serde(default)]
    pub media_type: String,
    /// As written: entries with digests other than sha256 must not make a whole list unreadable.
    pub digest: String,
    /// In bytes; 0 where none is given.
    #[serde(default)]
    pub size: u64,
    /// For which platform, in an index.
    pub platform: Option<Platform>,
    /// Values that are no text are passed over.
    pub annotations: Option<Map<String, Value>>,
    #[serde(default)]
    urls: Vec<String>,
}

/// The platform of an entry in an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// The operating system, as Go names it.
    #[serde(default)]
    pub os: String,
    /// The processor, as Go names it.
    #[serde(default)]
    pub architecture: String,
    /// Which of its kind.
    pub variant: Option<String>,
}

/// The two kinds of manifest that we know, in their OCI and Docker spellings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// A list of manifests, one for each platform.
    Index {
        /// `os/architecture[/variant]` and manifest. Entries for `unknown/unknown` (where `BuildKit` keeps its
        /// attestations, and which no runtime pulls) are left out.
        platforms: Vec<(String, Digest)>,
    },
    /// One image or artifact.
    Image {
        /// The configuration blob.
        config: Digest,
        /// The layers, lowest first.
        layers: Vec<Digest>,
    },
}

impl Platform {
    fn name(&self) -> String {
        let Self { os, architecture, variant } = self;
        match variant.as_deref().filter(|variant| !variant.is_empty()) {
            Some(variant) => format!("{os}/{architecture}/{variant}"),
            None => format!("{os}/{architecture}"),
        }
    }
}

impl Descriptor {
    /// The digest, for what we must be able to follow.
    ///
    /// # Errors
    /// [`ImageManifestError::Digest`].
    pub fn digest(&self) -> Result<Digest, ImageManifestError> {
        self.digest.parse().map_err(|source| ImageManifestError::Digest { shown: limits::quoted(&self.digest), source })
    }

    /// The platform's name, cut; `unknown` for an entry without one.
    pub fn platform_name(&self) -> String {
        self.platform.as_ref().map_or_else(|| "unknown".to_owned(), |platform| limits::quoted(&platform.name()))
    }

    /// Whether no runtime pulls this: `BuildKit` keeps attestations under the platform `unknown/unknown`. The
    /// annotation that it also writes is not looked at, as it could hide a real platform.
    pub fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }

    /// Whether the registry need not have the blob (foreign and non-distributable layers).
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable.")
    }
}

impl Document {
    /// Parses, and checks that it is an index or an image, and not both at once (CVE-2021-41190). `content_type` is that of
    /// the answer, for manifests that do not say theirs.
    ///
    /// # Errors
    /// An [`ImageManifestError`] about the document as a whole; that its parts can be followed, [`Document::kind`] says.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ImageManifestError> {
        check_json_depth(bytes, limits::JSON_DEPTH)?;
        if !is_object(bytes) {
            return Err(ImageManifestError::Syntax("it is not a JSON object".to_owned()));
        }
        let document: Self =
            serde_json::from_slice(bytes).map_err(|source| ImageManifestError::Syntax(limits::quoted(&source)))?;
        if document.schema_version != Some(2) {
            return Err(ImageManifestError::SchemaVersion);
        }
        let is_image = document.config.is_some() || document.layers.is_some();
        match (is_image, document.manifests.is_some()) {
            (true, true) => return Err(ImageManifestError::Both),
            (false, false) => return Err(ImageManifestError::Neither),
            (true, false) | (false, true) => {}
        }
        let media_type = document.media_type(content_type);
        let names_index = [OCI_INDEX, DOCKER_LIST].contains(&media_type);
        let names_image = [OCI_IMAGE, DOCKER_IMAGE].contains(&media_type);
        if (names_index && is_image) || (names_image && !is_image) {
            return Err(ImageManifestError::OtherMediaType);
        }
        if media_type.len() > limits::NAME {
            return Err(ImageManifestError::LongMediaType);
        }
        Ok(document)
    }

    /// The media type that the document says it has; else the answer's; else what it looks like.
    pub fn media_type<'a>(&'a self, content_type: Option<&'a str>) -> &'a str {
        let own = self.media_type.as_deref().or(content_type);
        own.unwrap_or(if self.manifests.is_some() { OCI_INDEX } else { OCI_IMAGE })
    }

    /// Index or image, with every part's digest.
    ///
    /// # Errors
    /// An [`ImageManifestError`] when a part cannot be followed, or when there are too many.
    pub fn kind(&self) -> Result<ManifestKind, ImageManifestError> {
        if let Some(entries) = &self.manifests {
            within("platforms", entries.len())?;
            let named = |entry: &Descriptor| Ok::<_, ImageManifestError>((entry.platform_name(), entry.digest()?));
            let real = entries.iter().filter(|entry| !entry.is_attestation());
            return Ok(ManifestKind::Index { platforms: real.map(named).collect::<Result<_, _>>()? });
        }
        let layers = self.layers.as_deref().unwrap_or_default();
        within("layers", layers.len())?;
        let config = self.config.as_ref().ok_or(ImageManifestError::NoConfig)?.digest()?;
        Ok(ManifestKind::Image { config, layers: layers.iter().map(Descriptor::digest).collect::<Result<_, _>>()? })
    }
}

/// Refuses more than [`limits::IMAGE_PARTS`] of something.
///
/// # Errors
/// [`ImageManifestError::TooMany`].
pub fn within(what: &'static str, count: usize) -> Result<(), ImageManifestError> {
    if count > limits::IMAGE_PARTS { Err(ImageManifestError::TooMany { what, count }) } else { Ok(()) }
}
