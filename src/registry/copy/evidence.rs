//! The evidence about an image, on its way.
//!
//! What cannot be copied is a [`Problem`] and not the end: the rest still goes over, and a second run has less to do.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use super::{Copied, Found, Job, Meter, Piece, Problem, tree::Node};
use crate::{
    model::{Digest, limits},
    registry::{
        RegistryError,
        legacy::TAGS,
        manifest,
        referrers::{Read, fallback_tag},
        tag::Tag,
    },
};

impl Problem {
    fn of(what: String, error: &RegistryError) -> Self {
        // What breaks a digest, a limit or the specification does so again; what is not there is not there.
        let definite = matches!(error, RegistryError::NotFound(_) | RegistryError::Malformed { .. });
        Self { what, why: error.to_string(), definite }
    }
}

impl Job<'_> {
    /// Copies what refers to these manifests, and what refers to that.
    pub(super) async fn evidence(&self, image: Vec<Digest>, copied: &mut Copied) {
        let mut seen: HashSet<Digest> = image.iter().copied().collect();
        let mut queue: VecDeque<(Digest, usize)> = image.into_iter().map(|digest| (digest, 0)).collect();
        while let Some((subject, depth)) = queue.pop_front() {
            let found = match self.referrers(&subject, copied).await {
                Ok(found) => found,
                Err(error) => {
                    copied.problems.push(Problem::of(format!("evidence about {subject}"), &error));
                    Vec::new()
                }
            };
            for digest in found {
                if !seen.insert(digest) {
                    continue;
                }
                if depth >= limits::REFERRER_DEPTH || seen.len() > limits::COPY_MANIFESTS {
                    copied.problems.push(Problem {
                        what: format!("evidence about {digest}"),
                        why: format!(
                            "evidence about evidence is followed for {} levels and up to {} manifests",
                            limits::REFERRER_DEPTH,
                            limits::COPY_MANIFESTS
                        ),
                        definite: true,
                    });
                    return;
                }
                queue.push_back((digest, depth + 1));
            }
            if self.order.legacy && depth == 0 {
                self.legacy(&subject, copied).await;
            }
        }
    }

    /// Copies all that refers to one subject, and attaches it; what it copied.
    async fn referrers(&self, subject: &Digest, copied: &mut Copied) -> Result<Vec<Digest>, RegistryError> {
        let mut artifacts = Vec::new();
        for digest in self.listed(subject).await? {
            let tree = match self.tree(&digest).await {
                Ok(tree) => tree,
                Err(RegistryError::NotFound(_)) if self.is_gone(&digest).await? => {
                    copied.gone.push(digest);
                    continue;
                }
                Err(error) => {
                    copied.problems.push(Problem::of(format!("the referrer {digest} of {subject}"), &error));
                    continue;
                }
            };
            let Some(root) = tree.last().filter(|root| refers(root, subject)) else { continue };
            if let Err(error) = self.send(&tree, &mut Copied::default()).await {
                copied.problems.push(Problem::of(format!("the referrer {digest} of {subject}"), &error));
                continue;
            }
            artifacts.push((digest, root.artifact_type().unwrap_or_default().to_owned(), descriptor(root)));
        }
        if !artifacts.is_empty() {
            self.attach(subject, &artifacts, copied).await?;
        }
        Ok(artifacts.into_iter().map(|(digest, _, _)| digest).collect())
    }

    /// What the source lists for a subject, by its referrers API and at the fallback tag, each once. Where it came to
    /// have the API after clients had used the tag, both hold some.
    async fn listed(&self, subject: &Digest) -> Result<Vec<Digest>, RegistryError> {
        let read = Read { http: self.http, name: &self.order.from, subject, deadline: self.deadline };
        let mut listed = read.list().await?.unwrap_or_default();
        listed.extend(read.list_fallback().await?);
        let mut seen = HashSet::new();
        listed
            .iter()
            .map(|entry| entry.digest().map_err(manifest::refused(&self.order.from.registry)))
            .filter(|digest| digest.as_ref().map_or(true, |digest| seen.insert(*digest)))
            .collect()
    }

    /// Whether a listed manifest itself is not there, as against a part of it.
    async fn is_gone(&self, digest: &Digest) -> Result<bool, RegistryError> {
        match manifest::fetch(self.http, &self.order.from, digest, self.deadline).await {
            Ok(_) => Ok(false),
            Err(RegistryError::NotFound(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that the destination lists the artifacts. Whether it does so by itself is asked, not believed: what its
    /// referrers API does not list goes to the fallback tag.
    async fn attach(
        &self,
        subject: &Digest,
        artifacts: &[(Digest, String, Value)],
        copied: &mut Copied,
    ) -> Result<(), RegistryError> {
        let (http, deadline, name) = (self.http, self.deadline, &self.order.to);
        let listed = Read { http, name, subject, deadline }.list().await?.unwrap_or_default();
        let listed: HashSet<Digest> = listed.iter().filter_map(|entry| entry.digest.parse().ok()).collect();
        let rest: Vec<Value> = artifacts
            .iter()
            .filter(|(digest, _, _)| !listed.contains(digest))
            .map(|(_, _, descriptor)| descriptor.clone())
            .collect();
        if !rest.is_empty() {
            Tag { http, locks: self.locks, name, subject, deadline }.add(&rest).await?;
        }
        Meter::add(&self.meter.evidence, u64::try_from(artifacts.len()).unwrap_or_default());
        copied.evidence.extend(artifacts.iter().map(|(digest, kind, _)| Piece {
            subject: *subject,
            digest: *digest,
            kind: kind.clone(),
            found: if listed.contains(digest) { Found::Referrers } else { Found::FallbackTag },
        }));
        Ok(())
    }

    /// Copies what stands at the tags of cosign's legacy layout.
    async fn legacy(&self, subject: &Digest, copied: &mut Copied) {
        for suffix in TAGS {
            let tag = format!("{}.{suffix}", fallback_tag(subject));
            match self.legacy_tag(&tag).await {
                Ok(Some(digest)) => {
                    Meter::add(&self.meter.evidence, 1);
                    copied.evidence.push(Piece { subject: *subject, digest, kind: tag, found: Found::LegacyTag });
                }
                Ok(None) => {}
                Err(error) => copied.problems.push(Problem::of(format!("the legacy tag {tag}"), &error)),
            }
        }
    }

    async fn legacy_tag(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let digest = match manifest::fetch_tag(self.http, &self.order.from, tag, self.deadline).await {
            Ok(raw) => raw.digest,
            Err(RegistryError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.tag_at_destination(tag).await? {
            Some(there) if there == digest => return Ok(Some(digest)),
            Some(there) => {
                let detail = format!(
                    "{tag} points at {there} there, at {digest} here: signatures of the legacy layout cannot be added \
                     to others without changing them; sign in the current layout, or delete one"
                );
                return Err(RegistryError::malformed(&self.order.to.registry, detail));
            }
            None => {}
        }
        let tree = self.tree(&digest).await?;
        self.send(&tree, &mut Copied::default()).await?;
        if let Some(root) = tree.last() {
            self.put(root, tag).await?;
        }
        Ok(Some(digest))
    }
}

/// A manifest without subject counts where it is listed, as it does when bundles are read.
fn refers(root: &Node, subject: &Digest) -> bool {
    root.document.subject.as_ref().is_none_or(|named| named.digest == subject.to_string())
}

/// The descriptor of an artifact for the index at a fallback tag: with its artifact type, and its annotations lifted.
fn descriptor(root: &Node) -> Value {
    let own: Value = serde_json::from_slice(&root.raw.bytes).unwrap_or_default();
    let mut descriptor = json!({
        "mediaType": root.raw.media_type(&root.document),
        "size": root.raw.size(),
        "digest": root.raw.digest,
    });
    if let Some(fields) = descriptor.as_object_mut() {
        if let Some(annotations) = own.get("annotations").filter(|annotations| annotations.is_object()) {
            fields.insert("annotations".to_owned(), annotations.clone());
        }
        if let Some(kind) = root.artifact_type() {
            fields.insert("artifactType".to_owned(), json!(kind));
        }
    }
    descriptor
}
