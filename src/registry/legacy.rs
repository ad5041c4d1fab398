//! Reading what cosign 1 and 2 wrote: the tags `sha256-<hex>.sig` (signatures) and `sha256-<hex>.att` (attestations).
//!
//! Each is an image manifest with one layer per signature; certificate, chain and log entry are annotations of the
//! layer. Here they are read and bounded; what they prove is for [`crate::model::legacy`] and the verifier. A layer that
//! cannot be read is handed on with the reason, so that nobody takes it as absent. Never written: current layouts carry
//! more (an inclusion proof, a time-stamp).

use std::{collections::BTreeMap, time::Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};

use super::{
    RegistryError, manifest,
    referrers::{fallback_tag, fetch_blob},
    transport::Transport,
};
use crate::model::{
    Digest, ImageName,
    image_manifest::Descriptor,
    legacy::{Kind, Legacy},
    limits,
};

/// The suffixes of the layout's tags. `.sbom` holds bare documents that nobody signed: copied, never read as evidence.
pub(super) const TAGS: [&str; 3] = ["sig", "att", "sbom"];
/// Layers read at the same time, as a count.
const AT_ONCE: usize = 4;

/// All legacy signatures and attestations of a digest, in the order of their layers.
pub(super) async fn read(
    http: &Transport,
    name: &ImageName,
    subject: &Digest,
    deadline: Instant,
) -> Result<Vec<Legacy>, RegistryError> {
    let tag = |kind| Tag { http, name, subject, deadline, kind };
    let (signatures, attestations) = (tag(Kind::Signature), tag(Kind::Attestation));
    let (mut signatures, attestations) = future::try_join(signatures.read(), attestations.read()).await?;
    signatures.extend(attestations);
    Ok(signatures)
}

struct Tag<'a> {
    http: &'a Transport,
    name: &'a ImageName,
    subject: &'a Digest,
    deadline: Instant,
    kind: Kind,
}

impl Tag<'_> {
    async fn read(&self) -> Result<Vec<Legacy>, RegistryError> {
        let registry = &self.name.registry;
        let suffix = match self.kind {
            Kind::Signature => "sig",
            Kind::Attestation => "att",
        };
        let tag = format!("{}.{suffix}", fallback_tag(self.subject));
        let raw = match manifest::fetch_tag(self.http, self.name, &tag, self.deadline).await {
            Ok(raw) => raw,
            Err(RegistryError::NotFound(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let Some(layers) = raw.parse(registry)?.layers else {
            return Err(RegistryError::malformed(registry, format!("the tag {tag} is not a list of signatures")));
        };
        if layers.len() > limits::REFERRERS {
            let detail = format!("the tag {tag} has {} signatures (at most {})", layers.len(), limits::REFERRERS);
            return Err(RegistryError::malformed(registry, detail));
        }
        let mut reading = stream::iter(layers).map(|layer| self.layer(layer)).buffered(AT_ONCE);
        let (mut found, mut total) = (Vec::new(), 0_usize);
        while let Some(legacy) = reading.try_next().await? {
            total = total.saturating_add(legacy.payload.len());
            if total > limits::REFERRER_BYTES {
                let detail = format!("the tag {tag} holds over {} bytes", limits::REFERRER_BYTES);
                return Err(RegistryError::malformed(registry, detail));
            }
            found.push(legacy);
        }
        Ok(found)
    }

    async fn layer(&self, layer: Descriptor) -> Result<Legacy, RegistryError> {
        let annotations: BTreeMap<String, String> = layer
            .annotations
            .iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        let mut legacy =
            Legacy { kind: self.kind, layer: layer.digest.clone(), payload: Vec::new(), annotations, problem: None };
        let most = match self.kind {
            Kind::Signature => limits::LEGACY,
            Kind::Attestation => limits::BUNDLE,
        };
        let mut unusable = |why: String| {
            legacy.problem = Some(why);
            Ok(legacy.clone())
        };
        if layer.media_type != self.kind.media_type() {
            let shown: String = layer.media_type.chars().take(limits::NAME).collect();
            return unusable(format!("of the type {shown:?} instead of {}", self.kind.media_type()));
        }
        let Ok(digest) = layer.digest() else {
            return unusable("whose payload has no sha256 digest".to_owned());
        };
        if usize::try_from(layer.size).map_or(true, |size| size > most) {
            return unusable(format!("with a payload of {} bytes (at most {most})", layer.size));
        }
        match fetch_blob(self.http, self.name, &digest, self.deadline).await {
            Ok(payload) => legacy.payload = payload,
            Err(RegistryError::NotFound(_)) => return unusable("whose payload is not in the registry".to_owned()),
            Err(error) => return Err(error),
        }
        Ok(legacy)
    }
}
