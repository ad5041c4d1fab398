//! Finding Sigstore bundles that refer to a digest: the referrers API, else the fallback tag.
//!
//! The listing is unsigned and often wrong (artifact types of the config, annotations dropped, filters not applied), so
//! it only says which manifests to read: what a referrer is, its manifest decides. The server's filter is not used, as
//! it goes by those artifact types.

use std::{collections::BTreeSet, time::Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode, header::LINK};

use super::{
    RegistryError, manifest,
    transport::{Answer, Call, Transport},
};
use crate::model::{
    Digest, ImageName,
    image_manifest::{Descriptor, Document, OCI_INDEX},
    limits, referrers,
};

/// What every version of the Sigstore bundle's media type starts with.
pub(super) const BUNDLE_TYPE_PREFIX: &str = "application/vnd.dev.sigstore.bundle";
/// Referrers read at the same time, as a count.
const AT_ONCE: usize = 4;

/// `sha256-<hex>`, where the referrers of a digest are listed without referrers API.
pub(super) fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

/// Bundles that refer to `subject`, in the order of the listing.
pub(super) async fn bundles(
    http: &Transport,
    name: &ImageName,
    subject: &Digest,
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, RegistryError> {
    let read = Read { http, name, subject, deadline };
    if let Some(listed) = read.list().await? {
        let bundles = read.fetch_all(listed).await?;
        // Some registries answer with an empty list, although their referrers stand at the tag.
        if !bundles.is_empty() {
            return Ok(bundles);
        }
    }
    let listed = read.list_fallback().await?;
    read.fetch_all(listed).await
}

/// Whether the registry has a referrers API: the only proof is an index as its answer.
pub(super) async fn is_native(
    http: &Transport,
    name: &ImageName,
    subject: &Digest,
    deadline: Instant,
) -> Result<bool, RegistryError> {
    let call = Call::new(name, Method::GET, format!("referrers/{subject}"), deadline).accept(OCI_INDEX);
    Ok(page(&name.registry, &http.send(call).await?)?.is_some())
}

/// Reading what refers to one digest.
pub(super) struct Read<'a> {
    pub(super) http: &'a Transport,
    pub(super) name: &'a ImageName,
    pub(super) subject: &'a Digest,
    pub(super) deadline: Instant,
}

impl Read<'_> {
    fn too_many(&self) -> RegistryError {
        let detail = format!("{} has more than {} referrers", self.subject, limits::REFERRERS);
        RegistryError::malformed(&self.name.registry, detail)
    }

    /// All pages of the referrers API; `None` where there is none.
    pub(super) async fn list(&self) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut listed = Vec::new();
        let mut call =
            Call::new(self.name, Method::GET, format!("referrers/{}", self.subject), self.deadline).accept(OCI_INDEX);
        for number in 0..limits::REFERRER_PAGES {
            let answer = self.http.send(call.clone()).await?;
            match page(&self.name.registry, &answer)? {
                Some(descriptors) => listed.extend(descriptors),
                None if number == 0 => return Ok(None),
                None => return Err(answer.unexpected(&self.name.registry, "a question for more referrers")),
            }
            if listed.len() > limits::REFERRERS {
                return Err(self.too_many());
            }
            let Some(next) = next_page(&answer) else { return Ok(Some(listed)) };
            call = call.at(self.http.follow(self.name, next)?);
        }
        let detail = format!("more than {} pages of referrers", limits::REFERRER_PAGES);
        Err(RegistryError::malformed(&self.name.registry, detail))
    }

    /// The index at the fallback tag; nothing where there is no such tag.
    pub(super) async fn list_fallback(&self) -> Result<Vec<Descriptor>, RegistryError> {
        let tag = fallback_tag(self.subject);
        let raw = match manifest::fetch_tag(self.http, self.name, &tag, self.deadline).await {
            Ok(raw) => raw,
            Err(RegistryError::NotFound(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let Some(listed) = raw.parse(&self.name.registry)?.manifests else {
            return Err(RegistryError::malformed(&self.name.registry, format!("the tag {tag} is not an index")));
        };
        if listed.len() > limits::REFERRERS {
            return Err(self.too_many());
        }
        Ok(listed)
    }

    async fn fetch_all(&self, listed: Vec<Descriptor>) -> Result<Vec<Vec<u8>>, RegistryError> {
        let mut seen = BTreeSet::new();
        // What has no sha256 digest cannot be followed, so it is no evidence either.
        let digests: Vec<Digest> =
            listed.iter().filter_map(|entry| entry.digest.parse().ok()).filter(|digest| seen.insert(*digest)).collect();
        let mut fetches = stream::iter(digests).map(|digest| self.fetch(digest)).buffered(AT_ONCE);
        let (mut bundles, mut total) = (Vec::new(), 0_usize);
        while let Some(bundle) = fetches.try_next().await? {
            let Some(bundle) = bundle else { continue };
            total = total.saturating_add(bundle.len());
            if total > limits::REFERRER_BYTES {
                let detail = format!("the bundles of {} are over {} bytes", self.subject, limits::REFERRER_BYTES);
                return Err(RegistryError::malformed(&self.name.registry, detail));
            }
            bundles.push(bundle);
        }
        Ok(bundles)
    }

    /// The bundle of one referrer; `None` when it definitely has none for us.
    async fn fetch(&self, digest: Digest) -> Result<Option<Vec<u8>>, RegistryError> {
        let skip = |why: &str| {
            tracing::debug!(name = %self.name, referrer = %digest, why, "not read as a bundle");
            Ok(None)
        };
        let raw = match manifest::fetch(self.http, self.name, &digest, self.deadline).await {
            Ok(raw) => raw,
            Err(RegistryError::NotFound(_)) => return skip("listed, but not there"),
            Err(error) => return Err(error),
        };
        // The digest is right, so these are the referrer's own bytes and will stay as unusable as they are.
        let Ok(document) = raw.parse(&self.name.registry) else { return skip("not an artifact manifest") };
        let Some(layer) = bundle_layer(&document) else { return skip("not a bundle") };
        let refers = document.subject.as_ref().is_none_or(|subject| subject.digest == self.subject.to_string());
        if !refers {
            return skip("refers to another subject");
        }
        let Ok(blob) = layer.digest() else { return skip("its digest is not sha256") };
        if usize::try_from(layer.size).map_or(true, |size| size > limits::BUNDLE) {
            return skip("larger than a bundle may be");
        }
        match fetch_blob(self.http, self.name, &blob, self.deadline).await {
            Err(RegistryError::NotFound(_)) => skip("its blob is not there"),
            other => other.map(Some),
        }
    }
}

/// A small blob, whose digest was computed here.
pub(super) async fn fetch_blob(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    deadline: Instant,
) -> Result<Vec<u8>, RegistryError> {
    let call = Call::new(name, Method::GET, format!("blobs/{digest}"), deadline).most(limits::BUNDLE);
    let answer = http.send(call).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(RegistryError::NotFound(format!("{name}@{digest}"))),
        _ => return Err(answer.unexpected(&name.registry, "a question for a bundle")),
    }
    if Digest::of(&answer.body) != *digest {
        let detail = format!("asked for blob {digest}, it sent one with another digest");
        return Err(RegistryError::malformed(&name.registry, detail));
    }
    Ok(answer.body.into())
}

/// The layer with the bundle, if this is a bundle's manifest.
fn bundle_layer(document: &Document) -> Option<&Descriptor> {
    let layer = document.layers.as_deref()?.first()?;
    let says = |media_type: &str| media_type.starts_with(BUNDLE_TYPE_PREFIX);
    (says(&layer.media_type) || document.artifact_type.as_deref().is_some_and(says)).then_some(layer)
}

/// The descriptors on one page; `None` when this is not how a referrers API answers.
fn page(registry: &str, answer: &Answer) -> Result<Option<Vec<Descriptor>>, RegistryError> {
    match answer.status.as_u16() {
        200 => {}
        400 | 404 | 405 | 406 => return Ok(None),
        _ => return Err(answer.unexpected(registry, "a question for referrers")),
    }
    referrers::page(&answer.body)
        .map_err(|error| RegistryError::malformed(registry, format!("its list of referrers: {error}")))
}

/// The target of the link to the next page.
fn next_page(answer: &Answer) -> Option<&str> {
    answer.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()).find_map(referrers::next)
}
