//! A manifest and everything below it, as it is at the source.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Job;
use crate::{
    model::{
        Digest,
        image_manifest::{Descriptor, Document, within},
    },
    registry::{
        RegistryError,
        manifest::{self, Raw},
    },
};

/// Manifests read at the same time, as a count.
const AT_ONCE: usize = 4;
/// How deep indexes may stand in indexes, as a count.
const NESTING: usize = 3;

/// One manifest.
pub(super) struct Node {
    pub(super) raw: Raw,
    pub(super) document: Document,
    children: Vec<Digest>,
}

impl Node {
    /// The config and the layers.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.document.config.iter().chain(self.document.layers.iter().flatten())
    }

    /// What it says it is: its artifact type, else the media type of its config.
    pub(super) fn artifact_type(&self) -> Option<&str> {
        let config = self.document.config.as_ref().map(|config| config.media_type.as_str());
        self.document.artifact_type.as_deref().or(config).filter(|text| !text.is_empty())
    }
}

impl Job<'_> {
    /// The manifest with this digest and all below it, each before whatever names it; the root is last. `BuildKit`'s
    /// attestations are manifests as others.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when a part is not at the source; [`RegistryError::Malformed`] over a limit.
    pub(super) async fn tree(&self, root: &Digest) -> Result<Vec<Node>, RegistryError> {
        let from = &self.order.from;
        let (mut level, mut seen, mut nodes) = (vec![*root], HashSet::from([*root]), Vec::new());
        for _ in 0..=NESTING {
            let reading = stream::iter(level).map(|digest| self.node(digest)).buffered(AT_ONCE);
            let found: Vec<Node> = reading.try_collect().await?;
            level = found.iter().flat_map(|node| &node.children).copied().filter(|child| seen.insert(*child)).collect();
            within("manifests", seen.len()).map_err(manifest::refused(&from.registry))?;
            nodes.extend(found);
            if level.is_empty() {
                return Ok(children_first(nodes));
            }
        }
        Err(RegistryError::malformed(&from.registry, format!("indexes in indexes, more than {NESTING} deep")))
    }

    async fn node(&self, digest: Digest) -> Result<Node, RegistryError> {
        let from = &self.order.from;
        let refused = manifest::refused(&from.registry);
        let raw = manifest::fetch(self.http, from, &digest, self.deadline).await?;
        let document = raw.parse(&from.registry)?;
        let children = document.manifests.iter().flatten().map(Descriptor::digest);
        let children: Vec<Digest> = children.collect::<Result<_, _>>().map_err(&refused)?;
        within("platforms", children.len()).map_err(&refused)?;
        within("layers", document.layers.as_deref().unwrap_or_default().len()).map_err(&refused)?;
        Ok(Node { raw, document, children })
    }
}

/// Orders so that every manifest stands behind all that it names. Digests cannot go in circles.
fn children_first(mut pending: Vec<Node>) -> Vec<Node> {
    let (mut ordered, mut done) = (Vec::with_capacity(pending.len()), HashSet::new());
    while !pending.is_empty() {
        let before = ordered.len();
        let (ready, rest): (Vec<Node>, Vec<Node>) =
            pending.into_iter().partition(|node| node.children.iter().all(|child| done.contains(child)));
        done.extend(ready.iter().map(|node| node.raw.digest));
        ordered.extend(ready);
        pending = rest;
        if ordered.len() == before {
            ordered.append(&mut pending);
        }
    }
    ordered
}
