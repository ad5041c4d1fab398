//! Reading manifests by tag or digest. What is in them, [`crate::model::image_manifest`] says.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    RegistryError,
    transport::{Answer, Call, Transport},
};
use crate::model::{
    Digest, ImageName,
    image_manifest::{ACCEPT, Document, ImageManifestError},
};

/// A manifest's bytes, whose digest was computed here.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) digest: Digest,
    pub(super) bytes: Bytes,
    content_type: Option<String>,
}

impl Raw {
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// The media type the document says it has; else the header's.
    pub(super) fn media_type<'a>(&'a self, document: &'a Document) -> &'a str {
        document.media_type(self.content_type.as_deref())
    }

    /// Parses and checks that it is an index or an image, and not both at once.
    pub(super) fn parse(&self, registry: &str) -> Result<Document, RegistryError> {
        Document::parse(&self.bytes, self.content_type.as_deref())
            .map_err(|error| RegistryError::malformed(registry, format!("manifest {}: {error}", self.digest)))
    }
}

/// What a manifest that we cannot use is to whoever asked this registry.
pub(super) fn refused(registry: &str) -> impl Fn(ImageManifestError) -> RegistryError {
    move |error| RegistryError::malformed(registry, error)
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
