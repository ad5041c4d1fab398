//! Attaching a bundle to an image, in the layout of cosign 3 (an OCI 1.1 artifact with a `subject`).
//!
//! Where the registry does not say that it processed the subject (`OCI-Subject`), or says so without having a
//! referrers API, the client maintains the fallback tag: read the index, append, push. Registries have no conditional
//! writes, so another writer can undo ours in between: one writer at a time per subject in this process, and two looks
//! after each write whether our entry is there, with a jittered repetition when it is not. That leaves a writer that
//! dawdles between its read and its write for longer than we look; nothing on this side can help against that.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    RegistryError,
    manifest::{self, OCI_IMAGE, OCI_INDEX},
    referrers::{fallback_tag, is_native},
    transport::{Call, Transport, pause},
};
use crate::model::{Digest, ImageName, limits};

/// What cosign 3 writes and every current client reads.
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
/// Writes of a fallback tag before we give up, as a count; others then write faster than we can.
const WRITES: u32 = 16;
/// The longest time until the second look at a fallback tag.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// Locks for subjects, as a count; two subjects may share one.
const LOCKS: usize = 64;

/// Who may write the fallback tag of a subject: one at a time.
#[derive(Debug)]
pub(super) struct Locks(Vec<Mutex<()>>);

impl Locks {
    pub(super) fn new() -> Self {
        Self(std::iter::repeat_with(|| Mutex::new(())).take(LOCKS).collect())
    }

    async fn hold(&self, name: &ImageName, subject: &Digest) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        (name, subject).hash(&mut hasher);
        let own = usize::try_from(hasher.finish() % 64).unwrap_or_default();
        Some(self.0.get(own)?.lock().await)
    }
}

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
        let subject_type = subject.media_type(&subject.parse(registry)?);
        let blob = self.push_blob(Bytes::copy_from_slice(bundle)).await?;
        let config = self.push_blob(Bytes::from_static(EMPTY)).await?;
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
        let processed = self.put_manifest(&digest.to_string(), OCI_IMAGE, bytes).await?;
        // ECR has sent the header without having the API.
        if !processed || !is_native(self.http, self.name, self.subject, self.deadline).await? {
            self.keep_fallback_tag(&digest, descriptor).await?;
        }
        Ok(digest)
    }

    /// Pushes a blob, unless it is there.
    async fn push_blob(&self, bytes: Bytes) -> Result<Digest, RegistryError> {
        let digest = Digest::of(&bytes);
        let registry = &self.name.registry;
        let head = Call::new(self.name, Method::HEAD, format!("blobs/{digest}"), self.deadline).pushing();
        if self.http.send(head).await?.status == StatusCode::OK {
            return Ok(digest);
        }
        // A repeated PUT may find its upload session used up by an earlier one whose answer was lost: start again.
        for last in [false, true] {
            let start = Call::new(self.name, Method::POST, "blobs/uploads/", self.deadline).pushing();
            let answer = self.http.send(start).await?;
            if answer.status != StatusCode::ACCEPTED {
                return Err(answer.unexpected(registry, "the start of an upload"));
            }
            let Some(location) = answer.header("location") else {
                return Err(RegistryError::malformed(registry, "the start of an upload without a location"));
            };
            let mut url = self.http.follow(self.name, location)?;
            url.query_pairs_mut().append_pair("digest", &digest.to_string());
            let put = Call::new(self.name, Method::PUT, "", self.deadline).pushing().at(url);
            let answer = self.http.send(put.body("application/octet-stream", bytes.clone())).await?;
            match answer.status {
                StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => return Ok(digest),
                StatusCode::NOT_FOUND if !last => {}
                _ => return Err(answer.unexpected(registry, &format!("an upload of blob {digest}"))),
            }
        }
        Err(RegistryError::unavailable(registry, "its upload sessions vanish"))
    }

    /// Puts a manifest at a tag or its digest; says whether the registry processed its subject.
    async fn put_manifest(
        &self,
        reference: &str,
        media_type: &'static str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        let call = Call::new(self.name, Method::PUT, format!("manifests/{reference}"), self.deadline);
        let answer = self.http.send(call.pushing().body(media_type, bytes)).await?;
        if answer.status != StatusCode::CREATED {
            let what = format!("the manifest {reference}: {}", message(&answer.body));
            return Err(answer.unexpected(&self.name.registry, &what));
        }
        Ok(answer.header("oci-subject").is_some_and(|subject| subject == self.subject.to_string()))
    }

    async fn keep_fallback_tag(&self, digest: &Digest, descriptor: Value) -> Result<(), RegistryError> {
        let registry = &self.name.registry;
        let lock = tokio::time::timeout_at(self.deadline.into(), self.locks.hold(self.name, self.subject)).await;
        let Ok(_held) = lock else { return Err(RegistryError::Deadline { registry: registry.clone() }) };
        let tag = fallback_tag(self.subject);
        for attempt in 1..=WRITES {
            let began = Instant::now();
            let Some(index) = self.with_entry(&tag, digest, &descriptor).await? else { return Ok(()) };
            self.put_manifest(&tag, OCI_INDEX, index.to_string().into()).await?;
            if self.with_entry(&tag, digest, &descriptor).await?.is_none() {
                // Somebody who read before our write may still write after our look. What took us this long takes
                // them about as long, so a second look after twice the time sees them.
                self.sleep((began.elapsed() * 2).min(LONGEST_LOOK)).await?;
                if self.with_entry(&tag, digest, &descriptor).await?.is_none() {
                    return Ok(());
                }
            }
            tracing::debug!(name = %self.name, %tag, attempt, "another writer undid our entry in the fallback tag");
            self.sleep(pause(attempt.min(4))).await?;
        }
        let detail = format!("the tag {tag} loses what is written to it ({WRITES} times)");
        Err(RegistryError::unavailable(registry, detail))
    }

    async fn sleep(&self, time: Duration) -> Result<(), RegistryError> {
        if Instant::now() + time >= self.deadline {
            return Err(RegistryError::Deadline { registry: self.name.registry.clone() });
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    /// The index at the tag with our entry added, everything else as it was; `None` when the entry is there.
    async fn with_entry(&self, tag: &str, digest: &Digest, descriptor: &Value) -> Result<Option<Value>, RegistryError> {
        let registry = &self.name.registry;
        let mut index = match manifest::fetch_tag(self.http, self.name, tag, self.deadline).await {
            Ok(raw) => {
                raw.parse(registry)?;
                serde_json::from_slice(&raw.bytes).unwrap_or_default()
            }
            Err(RegistryError::NotFound(_)) => {
                json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
            }
            Err(error) => return Err(error),
        };
        let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
            return Err(RegistryError::malformed(registry, format!("the tag {tag} is not an index")));
        };
        let own = json!(digest);
        if entries.iter().any(|entry| entry.get("digest") == Some(&own)) {
            return Ok(None);
        }
        let mut seen = std::collections::HashSet::new();
        entries.retain(|entry| entry.get("digest").is_none_or(|digest| seen.insert(digest.clone())));
        if entries.len() >= limits::REFERRERS {
            let detail = format!("{} has {} referrers already; delete some", self.subject, entries.len());
            return Err(RegistryError::malformed(registry, detail));
        }
        entries.push(descriptor.clone());
        Ok(Some(index))
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

/// The first error code and message of a registry's refusal, cut short.
fn message(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| parsed.pointer(&format!("/errors/0/{field}")).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}", text("code"), text("message")).chars().take(limits::NAME).collect()
}
