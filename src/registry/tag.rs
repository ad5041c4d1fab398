//! Writing the fallback tag of a subject (OCI distribution specification 1.1, "Referrers Tag Schema").
//!
//! Registries have no conditional writes (`If-Match` is ignored where it is known at all), so adding to the index is
//! read, append, write, and another writer can undo ours in between. In this process one writer at a time works on a
//! tag. Against others: after each write the tag is read again, at once and after a random pause of a few times what our
//! own read and write took, until two readings in a row are the same and hold what we added and whatever else we ever
//! saw there. What is missing is written again, after a pause that grows. A writer that dawdles between its read and its
//! write for longer than we look can still undo ours; nothing on this side can help against that. When the tag does not
//! come to rest within the time or the attempts, the caller is told so: then our entry may be there, and may be lost
//! again.
//!
//! A descriptor that somebody deletes in those moments may come back. It then names a manifest that is not there, which
//! readers pass over.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use http::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    RegistryError, manifest, push,
    referrers::fallback_tag,
    transport::{Transport, half_random, pause},
};
use crate::model::{Digest, ImageName, image_manifest::OCI_INDEX, limits};

/// Writes of a fallback tag before we give up, as a count; others then write faster than we can.
const WRITES: u32 = 24;
/// Readings of a fallback tag before we give up, as a count.
const LOOKS: u32 = 160;
/// Half of it is the shortest time between two readings: a writer across the world dawdles about as long.
const SHORTEST_REST: Duration = Duration::from_millis(500);
/// The longest time between two readings.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Locks for tags, as a count; two tags may share one.
const LOCKS: usize = 64;

/// Who may write the fallback tag of a subject in a repository: one at a time.
#[derive(Debug)]
pub(super) struct Locks(Vec<Mutex<()>>);

impl Locks {
    pub(super) fn new() -> Self {
        Self(std::iter::repeat_with(|| Mutex::new(())).take(LOCKS).collect())
    }

    async fn hold(&self, name: &ImageName, subject: &Digest) -> Option<MutexGuard<'_, ()>> {
        let mut hasher = DefaultHasher::new();
        (name, subject).hash(&mut hasher);
        let own = hasher.finish() % u64::try_from(self.0.len()).unwrap_or(1);
        let own = usize::try_from(own).unwrap_or_default();
        Some(self.0.get(own)?.lock().await)
    }
}

/// The fallback tag of one subject.
pub(super) struct Tag<'a> {
    pub(super) http: &'a Transport,
    pub(super) locks: &'a Locks,
    pub(super) name: &'a ImageName,
    pub(super) subject: &'a Digest,
    pub(super) deadline: Instant,
}

/// What stands at the tag.
struct Index {
    document: Value,
    /// The digest of its bytes; `None` when there is no such tag.
    digest: Option<Digest>,
}

impl Index {
    fn entries(&self) -> &[Value] {
        self.document.get("manifests").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn lacks(&self, entry: &Value) -> bool {
        let digest = entry.get("digest");
        !self.entries().iter().any(|known| known.get("digest") == digest)
    }
}

impl Tag<'_> {
    /// Adds descriptors, each once, keeping what others wrote, and comes back when they are seen to stay.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] when something stands at the tag that is no index or is full;
    /// [`RegistryError::Unavailable`] and [`RegistryError::Deadline`] when it could not be ascertained that they stay.
    pub(super) async fn add(&self, descriptors: &[Value]) -> Result<(), RegistryError> {
        let lock = tokio::time::timeout_at(self.deadline.into(), self.locks.hold(self.name, self.subject)).await;
        let Ok(_held) = lock else { return Err(self.out_of_time()) };
        let tag = fallback_tag(self.subject);
        let mut wanted = descriptors.to_vec();
        let (mut writes, mut rested, mut pace, mut last) = (0, false, Duration::ZERO, None);
        for _ in 0..LOOKS {
            let began = Instant::now();
            let index = self.read(&tag).await?;
            let missing: Vec<Value> = wanted.iter().filter(|entry| index.lacks(entry)).cloned().collect();
            learn(&mut wanted, index.entries());
            if missing.is_empty() {
                if writes == 0 || last == index.digest {
                    return Ok(());
                }
                last = index.digest;
                self.sleep(half_random((pace * 4).clamp(SHORTEST_REST, LONGEST_REST))).await?;
                continue;
            }
            last = None;
            if writes > 0 && !rested {
                tracing::debug!(name = %self.name, %tag, writes, "another writer undid entries in the fallback tag");
                rested = true;
                self.sleep(pause(writes.min(3))).await?;
                continue;
            }
            if writes >= WRITES {
                break;
            }
            self.write(&tag, index, missing).await?;
            (writes, rested, pace) = (writes + 1, false, began.elapsed());
        }
        let detail = format!(
            "the tag {tag} does not come to rest: others keep writing to it ({writes} writes of ours), so whether our entry \
             stays could not be ascertained; try again when they are done"
        );
        Err(RegistryError::unavailable(&self.name.registry, detail))
    }

    fn out_of_time(&self) -> RegistryError {
        RegistryError::Deadline { registry: self.name.registry.clone() }
    }

    async fn sleep(&self, time: Duration) -> Result<(), RegistryError> {
        if Instant::now() + time >= self.deadline {
            return Err(self.out_of_time());
        }
        tokio::time::sleep(time).await;
        Ok(())
    }

    async fn read(&self, tag: &str) -> Result<Index, RegistryError> {
        let registry = &self.name.registry;
        let raw = match manifest::fetch_tag(self.http, self.name, tag, self.deadline).await {
            Ok(raw) => raw,
            Err(RegistryError::NotFound(_)) => {
                let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
                return Ok(Index { document, digest: None });
            }
            Err(error) => return Err(error),
        };
        raw.parse(registry)?;
        let document: Value = serde_json::from_slice(&raw.bytes).unwrap_or_default();
        let index = Index { document, digest: Some(raw.digest) };
        if index.document.get("manifests").is_none_or(|entries| !entries.is_array()) {
            return Err(RegistryError::malformed(registry, format!("the tag {tag} is not an index")));
        }
        Ok(index)
    }

    /// Writes the index with `missing` added: as an OCI index, whatever it was, every digest once.
    async fn write(&self, tag: &str, index: Index, missing: Vec<Value>) -> Result<(), RegistryError> {
        let registry = &self.name.registry;
        let mut document = index.document;
        let Some(fields) = document.as_object_mut() else {
            return Err(RegistryError::malformed(registry, format!("the tag {tag} is not an index")));
        };
        fields.insert("mediaType".to_owned(), json!(OCI_INDEX));
        if let Some(entries) = fields.get_mut("manifests").and_then(Value::as_array_mut) {
            let mut seen = HashSet::new();
            entries.retain(|entry| entry.get("digest").is_none_or(|digest| seen.insert(digest.clone())));
            if entries.len().saturating_add(missing.len()) > limits::REFERRERS {
                let detail = format!(
                    "{} has {} referrers already (at most {}); delete some",
                    self.subject,
                    entries.len(),
                    limits::REFERRERS
                );
                return Err(RegistryError::malformed(registry, detail));
            }
            entries.extend(missing);
        }
        let call = push::to(self.name, Method::PUT, format!("manifests/{tag}"), self.deadline);
        push::manifest(self.http, self.name, tag, call.body(OCI_INDEX, document.to_string().into())).await?;
        Ok(())
    }
}

/// Remembers what others wrote, so that it is put back when a third writer undoes it.
fn learn(wanted: &mut Vec<Value>, entries: &[Value]) {
    for entry in entries.iter().take(limits::REFERRERS) {
        let digest = entry.get("digest");
        if digest.is_some() && !wanted.iter().any(|known| known.get("digest") == digest) {
            wanted.push(entry.clone());
        }
    }
}
