//! Manifests: reading them by tag or digest, and what is in them (OCI image specification 1.1, Docker schema 2).
//!
//! The structs are our own and lenient: fields that we do not use may be missing or unknown, as they are in the wild.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    ManifestKind, RegistryError,
    transport::{Answer, Call, Transport},
};
use crate::model::{Digest, ImageName, limits, statement::check_json_depth};

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_IMAGE: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// What we accept for a manifest, in one header.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// A manifest's bytes, whose digest was computed here.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
    content_type: Option<String>,
}

/// An image manifest or an index; which of them, [`Document::kind`] says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    schema_version: Option<u32>,
    media_type: Option<String>,
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
    pub(super) subject: Option<Descriptor>,
}

/// What points at a blob or manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    /// As written: entries with digests other than sha256 must not make a whole list unreadable.
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
    /// Values that are no text are passed over.
    pub(super) annotations: Option<Map<String, Value>>,
    #[serde(default)]
    urls: Vec<String>,
}

/// The platform of an entry in an index.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    pub(super) variant: Option<String>,
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
    pub(super) fn digest(&self, registry: &str) -> Result<Digest, RegistryError> {
        self.digest.parse().map_err(|error| {
            let shown: String = self.digest.chars().take(limits::NAME).collect();
            RegistryError::malformed(registry, format!("a descriptor names {shown:?}: {error}"))
        })
    }

    /// The platform's name; `unknown` for an entry without one.
    pub(super) fn platform_name(&self) -> String {
        self.platform.as_ref().map_or_else(|| "unknown".to_owned(), Platform::name)
    }

    /// Whether no runtime pulls this: `BuildKit` keeps attestations under the platform `unknown/unknown`. The
    /// annotation that it also writes is not looked at, as it could hide a real platform.
    pub(super) fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|p| p.os == "unknown" && p.architecture == "unknown")
    }

    /// Whether the registry need not have the blob (foreign and non-distributable layers).
    pub(super) fn is_foreign(&self) -> bool {
        !self.urls.is_empty() || self.media_type.contains(".foreign.") || self.media_type.contains(".nondistributable.")
    }
}

impl Raw {
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// The media type the document says it has; else the header's.
    pub(super) fn media_type(&self, document: &Document) -> String {
        let own = document.media_type.clone().or_else(|| self.content_type.clone());
        own.unwrap_or_else(|| if document.manifests.is_some() { OCI_INDEX } else { OCI_IMAGE }.to_owned())
    }

    /// Parses and checks that it is an index or an image, and not both at once (CVE-2021-41190).
    pub(super) fn parse(&self, registry: &str) -> Result<Document, RegistryError> {
        let wrong = |detail: &str| RegistryError::malformed(registry, format!("manifest {}: {detail}", self.digest));
        check_json_depth(&self.bytes, limits::JSON_DEPTH).map_err(|error| wrong(&error.to_string()))?;
        let document: Document =
            serde_json::from_slice(&self.bytes).map_err(|error| wrong(&format!("not a manifest: {error}")))?;
        if document.schema_version != Some(2) {
            return Err(wrong("schema version 2 is the only one supported; push the image again with a current tool"));
        }
        let is_image = document.config.is_some() || document.layers.is_some();
        match (is_image, document.manifests.is_some()) {
            (true, true) => return Err(wrong("it is an image and an index at once")),
            (false, false) => return Err(wrong("it is neither an image nor an index")),
            (true, false) | (false, true) => {}
        }
        let media_type = self.media_type(&document);
        let names_index = [OCI_INDEX, DOCKER_LIST].contains(&media_type.as_str());
        let names_image = [OCI_IMAGE, DOCKER_IMAGE].contains(&media_type.as_str());
        if (names_index && is_image) || (names_image && !is_image) {
            return Err(wrong("it is not what its media type says"));
        }
        Ok(document)
    }
}

impl Document {
    /// Index or image, with every part's digest.
    pub(super) fn kind(&self, registry: &str) -> Result<ManifestKind, RegistryError> {
        if let Some(entries) = &self.manifests {
            bounded(registry, "platforms", entries.len())?;
            let real = entries.iter().filter(|entry| !entry.is_attestation());
            let platforms =
                real.map(|entry| Ok((entry.platform_name(), entry.digest(registry)?))).collect::<Result<_, _>>()?;
            return Ok(ManifestKind::Index { platforms });
        }
        let layers = self.layers.as_deref().unwrap_or_default();
        bounded(registry, "layers", layers.len())?;
        let Some(config) = &self.config else {
            return Err(RegistryError::malformed(registry, "an image manifest without config"));
        };
        Ok(ManifestKind::Image {
            config: config.digest(registry)?,
            layers: layers.iter().map(|layer| layer.digest(registry)).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) fn bounded(registry: &str, what: &str, count: usize) -> Result<(), RegistryError> {
    if count > limits::IMAGE_PARTS {
        let detail = format!("an image of {count} {what} (at most {})", limits::IMAGE_PARTS);
        return Err(RegistryError::malformed(registry, detail));
    }
    Ok(())
}

/// The manifest with this digest; anything else that the registry sends is refused.
pub(super) async fn fetch(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    deadline: Instant,
) -> Result<Raw, RegistryError> {
    let raw = read(http, name, &digest.to_string(), deadline).await?;
    if raw.digest != *digest {
        let detail = format!("asked for manifest {digest}, it sent one with the digest {}", raw.digest);
        return Err(RegistryError::malformed(&name.registry, detail));
    }
    Ok(raw)
}

/// The manifest at a tag, and the digest of its bytes.
pub(super) async fn fetch_tag(
    http: &Transport,
    name: &ImageName,
    tag: &str,
    deadline: Instant,
) -> Result<Raw, RegistryError> {
    if !tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) || tag.trim_matches('.').is_empty() {
        return Err(RegistryError::malformed(&name.registry, format!("{tag:?} is no tag")));
    }
    read(http, name, tag, deadline).await
}

async fn read(http: &Transport, name: &ImageName, reference: &str, deadline: Instant) -> Result<Raw, RegistryError> {
    let call = Call::new(name, Method::GET, format!("manifests/{reference}"), deadline).accept(ACCEPT);
    let answer = http.send(call).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            let separator = if reference.contains(':') { '@' } else { ':' };
            return Err(RegistryError::NotFound(format!("{name}{separator}{reference}")));
        }
        _ => return Err(answer.unexpected(&name.registry, &format!("a question for manifest {reference}"))),
    }
    let digest = Digest::of(&answer.body);
    agrees(name, &answer, &digest)?;
    let content_type = answer.header("content-type").and_then(|text| text.split(';').next());
    let content_type = content_type.map(|text| text.trim().to_owned());
    Ok(Raw { digest, content_type, bytes: answer.body })
}

/// A `Docker-Content-Digest` of sha256 must be the digest of the bytes.
fn agrees(name: &ImageName, answer: &Answer, digest: &Digest) -> Result<(), RegistryError> {
    match answer.header("docker-content-digest").map(str::parse::<Digest>) {
        Some(Ok(said)) if said != *digest => {
            let detail = format!("its header says {said}, the manifest it sent has {digest}");
            Err(RegistryError::malformed(&name.registry, detail))
        }
        _ => Ok(()),
    }
}
