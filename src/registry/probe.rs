//! Is every part of an image still in its registry? Answers with what is gone, or not at all.

use std::{collections::BTreeSet, time::Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};

use super::{
    Probe, RegistryError, manifest,
    transport::{Call, Transport},
};
use crate::model::{
    Digest, ImageName,
    image_manifest::{Descriptor, Document, within},
    limits,
};

/// Parts asked for at the same time, as a count.
const AT_ONCE: usize = 8;
/// How deep indexes may stand in indexes, as a count.
const NESTING: usize = 3;

/// One blob to ask for.
struct Part {
    what: &'static str,
    digest: Digest,
    size: u64,
    platform: String,
}

impl Part {
    fn missing(&self, detail: &str) -> String {
        let Self { what, digest, platform, .. } = self;
        let place = if platform.is_empty() { String::new() } else { format!(" ({platform})") };
        format!("{what} {digest}{place}{detail}")
    }
}

/// Reads the manifests, then asks for each config and layer once. Foreign layers and `BuildKit`'s attestations are not
/// asked for: the image runs without them.
pub(super) async fn probe(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    deadline: Instant,
) -> Result<Probe, RegistryError> {
    let mut walk = Walk { http, name, deadline, platforms: Vec::new(), parts: Vec::new(), missing: Vec::new() };
    walk.manifests(digest).await?;
    let mut seen = BTreeSet::new();
    let parts: Vec<Part> = walk.parts.into_iter().filter(|part| seen.insert(part.digest)).collect();
    let blobs = parts.len();
    let gone: Vec<Option<String>> =
        stream::iter(parts).map(|part| gone(http, name, part, deadline)).buffered(AT_ONCE).try_collect().await?;
    let mut missing = walk.missing;
    missing.extend(gone.into_iter().flatten());
    Ok(Probe { platforms: walk.platforms, blobs, missing })
}

struct Walk<'a> {
    http: &'a Transport,
    name: &'a ImageName,
    deadline: Instant,
    platforms: Vec<String>,
    parts: Vec<Part>,
    missing: Vec<String>,
}

impl Walk<'_> {
    /// From the root down, one level of manifests after the other.
    async fn manifests(&mut self, root: &Digest) -> Result<(), RegistryError> {
        let registry = &self.name.registry;
        let (mut level, mut seen) = (vec![(*root, String::new())], BTreeSet::from([*root]));
        for _ in 0..=NESTING {
            let (http, name, deadline) = (self.http, self.name, self.deadline);
            let read = |(digest, platform): (Digest, String)| async move {
                match manifest::fetch(http, name, &digest, deadline).await {
                    Ok(raw) => Ok((digest, platform, Some(raw))),
                    Err(RegistryError::NotFound(_)) => Ok((digest, platform, None)),
                    Err(error) => Err(error),
                }
            };
            let found: Vec<_> = stream::iter(level).map(read).buffered(AT_ONCE).try_collect().await?;
            level = Vec::new();
            for (digest, platform, raw) in found {
                let Some(raw) = raw else {
                    let part = Part { what: "manifest", digest, size: 0, platform };
                    self.missing.push(part.missing(""));
                    continue;
                };
                let document = raw.parse(registry)?;
                // Refuses lists that are too long, and digests that cannot be followed.
                document.kind().map_err(manifest::refused(registry))?;
                let Some(entries) = &document.manifests else {
                    self.image(&document, &platform)?;
                    continue;
                };
                for entry in entries.iter().filter(|entry| !entry.is_attestation()) {
                    let child = entry.digest().map_err(manifest::refused(registry))?;
                    self.platforms.push(entry.platform_name());
                    if seen.insert(child) {
                        level.push((child, entry.platform_name()));
                    }
                }
                within("platforms", seen.len()).map_err(manifest::refused(registry))?;
            }
            if level.is_empty() {
                return Ok(());
            }
        }
        Err(RegistryError::malformed(registry, format!("indexes in indexes, more than {NESTING} deep")))
    }

    fn image(&mut self, document: &Document, platform: &str) -> Result<(), RegistryError> {
        let registry = &self.name.registry;
        let mut add = |what, descriptor: &Descriptor| {
            let digest = descriptor.digest().map_err(manifest::refused(registry))?;
            self.parts.push(Part { what, digest, size: descriptor.size, platform: platform.to_owned() });
            Ok::<_, RegistryError>(())
        };
        if let Some(config) = &document.config {
            add("config", config)?;
        }
        for layer in document.layers.iter().flatten().filter(|layer| !layer.is_foreign()) {
            add("layer", layer)?;
        }
        if self.parts.len() > limits::IMAGE_PARTS * 8 {
            return Err(RegistryError::malformed(registry, "an image of too many parts over all its platforms"));
        }
        Ok(())
    }
}

/// What to say about a blob that is not there as described; `None` when it is.
async fn gone(
    http: &Transport,
    name: &ImageName,
    part: Part,
    deadline: Instant,
) -> Result<Option<String>, RegistryError> {
    let answer = http.send(Call::new(name, Method::HEAD, format!("blobs/{}", part.digest), deadline)).await?;
    match answer.status {
        StatusCode::OK => {
            let length: Option<u64> = answer.header("content-length").and_then(|text| text.parse().ok());
            let other = length.filter(|length| part.size > 0 && *length != part.size);
            Ok(other.map(|length| part.missing(&format!(": {length} bytes instead of {}", part.size))))
        }
        StatusCode::NOT_FOUND => Ok(Some(part.missing(""))),
        _ => Err(answer.unexpected(&name.registry, &format!("a question for {} {}", part.what, part.digest))),
    }
}
