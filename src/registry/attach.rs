//! Attaching a bundle to an image, in the layout of cosign 3 (an OCI 1.1 artifact with a `subject`).
//!
//! Where the registry does not say that it processed the subject (`OCI-Subject`), or says so without having a
//! referrers API, the client maintains the fallback tag ([`super::tag`]).

use std::time::Instant;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    RegistryError, manifest, push,
    referrers::is_native,
    tag::{Locks, Tag},
    transport::Transport,
};
use crate::model::{Digest, ImageName, image_manifest::OCI_IMAGE};

/// What cosign 3 writes and every current client reads.
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// One bundle on its way to a registry.
pub(super) struct Push<'a> {
    pub(super) http: &'a Transport,
    pub(super) locks: &'a Locks,
    pub(super) name: &'a ImageName,
    pub(super) subject: &'a Digest,
    pub(super) deadline: Instant,
}

impl Push<'_> {
    /// Blobs first, then the manifest that names them, then (if need be) the tag that names the manifest: a crash in
    /// between leaves nothing that points at something missing.
    pub(super) async fn attach(
        &self,
        bundle: &[u8],
        predicate_type: &str,
        now: Timestamp,
    ) -> Result<Digest, RegistryError> {
        let registry = &self.name.registry;
        let subject = manifest::fetch(self.http, self.name, self.subject, self.deadline).await?;
        let document = subject.parse(registry)?;
        let subject_type = subject.media_type(&document);
        let blob = push::blob(self.http, self.name, Bytes::copy_from_slice(bundle), self.deadline).await?;
        let config = push::blob(self.http, self.name, Bytes::from_static(EMPTY), self.deadline).await?;
        let annotations = annotations(bundle, predicate_type, now);
        let document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "artifactType": BUNDLE_TYPE,
            "config": {"mediaType": EMPTY_TYPE, "size": EMPTY.len(), "digest": config},
            "layers": [{"mediaType": BUNDLE_TYPE, "size": bundle.len(), "digest": blob}],
            "annotations": annotations,
            "subject": {"mediaType": subject_type, "size": subject.size(), "digest": self.subject},
        });
        let bytes = Bytes::from(document.to_string());
        let digest = Digest::of(&bytes);
        let descriptor = json!({
            "mediaType": OCI_IMAGE,
            "size": bytes.len(),
            "digest": digest,
            "annotations": annotations,
            "artifactType": BUNDLE_TYPE,
        });
        let call = push::to(self.name, Method::PUT, format!("manifests/{digest}"), self.deadline);
        let call = call.body(OCI_IMAGE, bytes);
        let answer = push::manifest(self.http, self.name, &digest.to_string(), call).await?;
        let processed = answer.header("oci-subject").is_some_and(|subject| subject == self.subject.to_string());
        // ECR has sent the header without having the API.
        if !processed || !is_native(self.http, self.name, self.subject, self.deadline).await? {
            let Self { http, locks, name, subject, deadline } = *self;
            Tag { http, locks, name, subject, deadline }.add(&[descriptor]).await?;
        }
        Ok(digest)
    }
}

/// The annotations that cosign writes, on the manifest and on its descriptor.
fn annotations(bundle: &[u8], predicate_type: &str, now: Timestamp) -> Map<String, Value> {
    let parsed: Value = serde_json::from_slice(bundle).unwrap_or_default();
    let content = if parsed.get("messageSignature").is_some() { "message-signature" } else { "dsse-envelope" };
    let mut annotations = Map::new();
    annotations.insert("dev.sigstore.bundle.content".to_owned(), json!(content));
    if content == "dsse-envelope" {
        annotations.insert("dev.sigstore.bundle.predicateType".to_owned(), json!(predicate_type));
    }
    let created = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    annotations.insert("org.opencontainers.image.created".to_owned(), json!(created));
    annotations
}
