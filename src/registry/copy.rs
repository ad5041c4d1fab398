//! Promotion: an image with all its evidence, from one repository to another.
//!
//! What goes over: the manifest or index with everything it names, then, for it and each of its manifests, whatever
//! refers to them (referrers API and fallback tag alike, referrers of referrers too), then cosign's legacy tags, and the
//! tag last. Each manifest follows what it names, so at no moment does anything point at what is not there, and by tag
//! nothing is visible that lacks its evidence. Bytes are never changed: what is at the destination has the digest that
//! it had, and a signature over it stays good. When anything could not be copied, the tag is not set.
//!
//! A copy that was cut short is taken up by asking for it again: what is there is not sent twice.
//!
//! What this is not: a judge (it copies evidence that does not verify, too), or a mirror (nothing is deleted at the
//! destination).

mod blob;
mod evidence;
mod tree;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;

use self::tree::Node;
use super::{
    RegistryError, manifest, push,
    tag::Locks,
    transport::{Call, Transport},
};
use crate::model::{
    Digest, ImageName,
    image_manifest::{ACCEPT, Descriptor},
};

/// What is to be copied, and where.
#[derive(Debug, Clone)]
pub struct Order {
    /// Where the image is.
    pub from: ImageName,
    /// The image, resolved.
    pub digest: Digest,
    /// Where it goes.
    pub to: ImageName,
    /// The tag that is set at the end; without one the image is there by its digest alone.
    pub tag: Option<String>,
    /// Whether cosign's legacy tags (`.sig`, `.att`, `.sbom`) go along.
    pub legacy: bool,
}

/// How far a copy is; whoever started it may look at any time.
#[derive(Debug, Default)]
pub struct Meter {
    /// Blobs known so far, as a count.
    pub blobs: AtomicU64,
    /// Blobs that are there.
    pub blobs_done: AtomicU64,
    /// Bytes of the blobs known so far.
    pub bytes: AtomicU64,
    /// Bytes that are there, were mounted or were sent.
    pub bytes_done: AtomicU64,
    /// Artifacts of evidence that are there, as a count.
    pub evidence: AtomicU64,
}

impl Meter {
    fn add(count: &AtomicU64, more: u64) {
        count.fetch_add(more, Ordering::Relaxed);
    }
}

/// How evidence is found at the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The destination's referrers API lists it.
    Referrers,
    /// The index at the subject's fallback tag lists it.
    FallbackTag,
    /// It stands at a tag of cosign's legacy layout.
    LegacyTag,
}

/// One artifact of evidence that is at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// What it is about.
    pub subject: Digest,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its artifact type; the legacy tag for evidence of that layout.
    pub kind: String,
    /// How it is found there.
    pub found: Found,
}

/// Something that is not at the destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What it is, in words.
    pub what: String,
    /// Why not.
    pub why: String,
    /// Whether that is certain; else it could not be told, and asking again may help.
    pub definite: bool,
}

/// What a copy came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// Manifests of the image, its index included, that were sent.
    pub manifests_sent: usize,
    /// Those that were there.
    pub manifests_present: usize,
    /// Blobs that were sent, as a count.
    pub blobs_sent: usize,
    /// Blobs that the registry took over from the other repository.
    pub blobs_mounted: usize,
    /// Blobs that were there.
    pub blobs_present: usize,
    /// Bytes of the blobs that were sent.
    pub bytes_sent: u64,
    /// Layers that no registry need have, left where they are.
    pub foreign_layers: usize,
    /// The evidence that is at the destination now.
    pub evidence: Vec<Piece>,
    /// Listed at the source as evidence, and not there either: nothing to copy.
    pub gone: Vec<Digest>,
    /// What is missing at the destination. Then the tag was not set.
    pub problems: Vec<Problem>,
    /// Whether the tag points at the image; false without a tag.
    pub tagged: bool,
    /// What the tag pointed at before, if at something else.
    pub tag_before: Option<Digest>,
}

/// A copy under way.
struct Job<'a> {
    http: &'a Transport,
    locks: &'a Locks,
    order: &'a Order,
    meter: &'a Arc<Meter>,
    deadline: Instant,
    /// Blobs that are there or on their way; owned by [`Job::claim`].
    claimed: Mutex<HashSet<Digest>>,
}

/// Copies an image; [`Copied::problems`] says what of its evidence is not there.
///
/// # Errors
/// What kept the image itself from being copied: then nothing was tagged.
pub(super) async fn copy(
    http: &Transport,
    locks: &Locks,
    order: &Order,
    meter: &Arc<Meter>,
    deadline: Instant,
) -> Result<Copied, RegistryError> {
    let job = Job { http, locks, order, meter, deadline, claimed: Mutex::default() };
    let mut copied = Copied::default();
    let image = job.tree(&order.digest).await?;
    job.send(&image, &mut copied).await?;
    let subjects: Vec<Digest> = image.iter().rev().map(|node| node.raw.digest).collect();
    job.evidence(subjects, &mut copied).await;
    if copied.problems.is_empty()
        && let (Some(tag), Some(root)) = (&order.tag, image.last())
    {
        job.set_tag(tag, root, &mut copied).await?;
    }
    Ok(copied)
}

impl Job<'_> {
    /// Whether a blob is still to be seen to; each is claimed once.
    fn claim(&self, digest: Digest) -> bool {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(digest)
    }

    /// Sends manifests, children first, each after its blobs; what is there is not sent.
    async fn send(&self, nodes: &[Node], copied: &mut Copied) -> Result<(), RegistryError> {
        let descriptors: Vec<&Descriptor> = nodes.iter().flat_map(Node::blobs).collect();
        self.blobs(&descriptors, copied).await?;
        for node in nodes {
            let digest = node.raw.digest.to_string();
            if self.has_manifest(&digest).await? {
                copied.manifests_present += 1;
                continue;
            }
            self.put(node, &digest).await?;
            copied.manifests_sent += 1;
        }
        Ok(())
    }

    async fn has_manifest(&self, digest: &str) -> Result<bool, RegistryError> {
        let to = &self.order.to;
        let head = Call::new(to, Method::HEAD, format!("manifests/{digest}"), self.deadline).pushing().accept(ACCEPT);
        let answer = self.http.send(head).await?;
        Ok(answer.status == StatusCode::OK)
    }

    /// Puts a manifest's own bytes at its digest or a tag.
    async fn put(&self, node: &Node, reference: &str) -> Result<(), RegistryError> {
        let media_type = node.raw.media_type(&node.document);
        let Ok(content_type) = HeaderValue::from_str(media_type) else {
            let detail = format!("manifest {} has a media type that does not fit into a header", node.raw.digest);
            return Err(RegistryError::malformed(&self.order.from.registry, detail));
        };
        let call = push::to(&self.order.to, Method::PUT, format!("manifests/{reference}"), self.deadline);
        let call = call.typed_body(content_type, node.raw.bytes.clone());
        push::manifest(self.http, &self.order.to, reference, call).await?;
        Ok(())
    }

    /// What a tag of the destination points at.
    async fn tag_at_destination(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        match manifest::fetch_tag(self.http, &self.order.to, tag, self.deadline).await {
            Ok(raw) => Ok(Some(raw.digest)),
            Err(RegistryError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last step. Reads the tag back: only then it is set.
    async fn set_tag(&self, tag: &str, root: &Node, copied: &mut Copied) -> Result<(), RegistryError> {
        let wanted = Some(root.raw.digest);
        let before = self.tag_at_destination(tag).await?;
        if before != wanted {
            copied.tag_before = before;
            self.put(root, tag).await?;
            let after = self.tag_at_destination(tag).await?;
            if after != wanted {
                let found = after.map_or_else(|| "nothing".to_owned(), |digest| digest.to_string());
                copied.problems.push(Problem {
                    what: format!("the tag {tag}"),
                    why: format!("it was set, and points at {found}: somebody else writes to it"),
                    definite: true,
                });
                return Ok(());
            }
        }
        copied.tagged = true;
        Ok(())
    }
}
