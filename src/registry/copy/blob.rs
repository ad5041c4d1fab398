//! One blob from one repository to another: there already, mounted, or streamed.
//!
//! A stream is read, hashed and sent piece by piece; never is more of it in memory than the connections hold. The last
//! piece is kept back until the digest of everything is right, so the destination never gets a whole blob with another.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::{Copied, Job, Meter};
use crate::{
    model::{Digest, image_manifest::Descriptor},
    registry::{
        RegistryError, manifest, push,
        transport::{Call, pause},
    },
};

/// Blobs on their way at the same time, as a count.
const AT_ONCE: usize = 4;
/// How often one blob is begun, as a count.
const ATTEMPTS: u32 = 5;
/// A destination that takes nothing for this long has failed.
const STANDSTILL: Duration = Duration::from_mins(1);

/// How a blob came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Present,
    Mounted,
    Sent,
}

/// A blob to see to.
#[derive(Debug, Clone, Copy)]
struct Blob {
    digest: Digest,
    size: u64,
}

impl Job<'_> {
    /// Sees to it that the destination has these blobs; foreign layers are left where they are.
    pub(super) async fn blobs(&self, descriptors: &[&Descriptor], copied: &mut Copied) -> Result<(), RegistryError> {
        let mut blobs = Vec::new();
        for descriptor in descriptors {
            if descriptor.is_foreign() {
                copied.foreign_layers += 1;
                continue;
            }
            let digest = descriptor.digest().map_err(manifest::refused(&self.order.from.registry))?;
            if self.claim(digest) {
                blobs.push(Blob { digest, size: descriptor.size });
            }
        }
        Meter::add(&self.meter.blobs, u64::try_from(blobs.len()).unwrap_or_default());
        Meter::add(&self.meter.bytes, blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add));
        let mut on_their_way = stream::iter(blobs).map(|blob| self.blob(blob)).buffer_unordered(AT_ONCE);
        while let Some((blob, way)) = on_their_way.try_next().await? {
            Meter::add(&self.meter.blobs_done, 1);
            match way {
                Way::Present => copied.blobs_present += 1,
                Way::Mounted => copied.blobs_mounted += 1,
                Way::Sent => {
                    copied.blobs_sent += 1;
                    copied.bytes_sent = copied.bytes_sent.saturating_add(blob.size);
                }
            }
            if way != Way::Sent {
                Meter::add(&self.meter.bytes_done, blob.size);
            }
        }
        Ok(())
    }

    async fn blob(&self, blob: Blob) -> Result<(Blob, Way), RegistryError> {
        let (from, to) = (&self.order.from, &self.order.to);
        if push::has_blob(self.http, to, &blob.digest, self.deadline).await? {
            return Ok((blob, Way::Present));
        }
        let mut session = None;
        if from.registry == to.registry && from.repository != to.repository {
            match self.mount(&blob.digest).await? {
                Mount::Done => return Ok((blob, Way::Mounted)),
                Mount::Session(url) => session = Some(url),
                Mount::Refused => {}
            }
        }
        let mut attempt = 1;
        loop {
            let failure = match self.stream(blob, session.take()).await {
                Ok(()) => return Ok((blob, Way::Sent)),
                Err(failure) => failure,
            };
            let wait = match &failure {
                RegistryError::Throttled { retry_after: Some(wait), .. } => *wait,
                // A token may have run out on the way.
                RegistryError::Throttled { .. }
                | RegistryError::Unavailable { .. }
                | RegistryError::Unauthorized { .. } => pause(attempt),
                _ => return Err(failure),
            };
            let in_time = Instant::now().checked_add(wait).is_some_and(|then| then < self.deadline);
            if attempt >= ATTEMPTS || !in_time {
                return Err(failure);
            }
            tracing::debug!(digest = %blob.digest, attempt, %failure, "sending the blob again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Asks the registry to take the blob over from its other repository. It may begin an upload instead.
    async fn mount(&self, digest: &Digest) -> Result<Mount, RegistryError> {
        let (from, to) = (&self.order.from, &self.order.to);
        let path = format!("blobs/uploads/?mount={digest}&from={}", from.repository);
        let call = push::to(to, Method::POST, path, self.deadline).beside(&from.repository);
        let answer = match self.http.send(call).await {
            // Whoever may not mount may still send.
            Err(RegistryError::Unauthorized { .. }) => return Ok(Mount::Refused),
            answer => answer?,
        };
        match answer.status {
            StatusCode::CREATED => Ok(Mount::Done),
            StatusCode::ACCEPTED => Ok(Mount::Session(push::session(self.http, to, digest, &answer)?)),
            _ => Ok(Mount::Refused),
        }
    }

    /// One attempt.
    async fn stream(&self, blob: Blob, session: Option<reqwest::Url>) -> Result<(), RegistryError> {
        let (from, to, digest) = (&self.order.from, &self.order.to, blob.digest);
        let malformed = |detail: String| RegistryError::malformed(&from.registry, detail);
        let get = Call::new(from, Method::GET, format!("blobs/{digest}"), self.deadline).unread();
        let answer = self.http.send(get).await?;
        let response = match (answer.status, answer.rest) {
            (StatusCode::OK, Some(response)) => response,
            (StatusCode::NOT_FOUND, _) => return Err(RegistryError::NotFound(format!("{from}@{digest}"))),
            (status, _) => {
                let detail = format!("it answered {} to a question for blob {digest}", status.as_u16());
                return Err(RegistryError::unavailable(&from.registry, detail));
            }
        };
        if let Some(length) = response.content_length().filter(|length| *length != blob.size) {
            return Err(malformed(format!("blob {digest} has {length} bytes instead of {}", blob.size)));
        }
        let url = match session {
            Some(url) => url,
            None => push::begin(self.http, to, &digest, self.deadline).await?,
        };
        let pipe = Pipe {
            registry: from.registry.clone(),
            blob,
            meter: Arc::clone(self.meter),
            sent: Arc::default(),
            failure: Arc::default(),
        };
        let (sent, failure) = (Arc::clone(&pipe.sent), Arc::clone(&pipe.failure));
        let body = reqwest::Body::wrap_stream(pipe.checked(response));
        let put = push::to(to, Method::PUT, "", self.deadline).at(url);
        let put = put.typed_body(http::HeaderValue::from_static("application/octet-stream"), Bytes::new());
        let outcome = tokio::select! {
            outcome = self.http.pour(put, blob.size, body) => outcome,
            () = standstill(&sent) => {
                Err(RegistryError::unavailable(&to.registry, format!("it takes no more of blob {digest}")))
            }
        };
        // What the source did wrong comes back as a failure of the destination; the cause was written down.
        if let Some(cause) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.unsend(&sent);
            return Err(cause);
        }
        let answer = outcome.inspect_err(|_| self.unsend(&sent))?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => {
                self.unsend(&sent);
                Err(answer.unexpected(&to.registry, &format!("an upload of blob {digest}")))
            }
        }
    }

    /// What was sent in vain is not done.
    fn unsend(&self, sent: &AtomicU64) {
        self.meter.bytes_done.fetch_sub(sent.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What a registry makes of the wish to mount a blob.
enum Mount {
    Done,
    Session(reqwest::Url),
    Refused,
}

/// Comes back when nothing was sent for a while.
async fn standstill(sent: &AtomicU64) {
    let mut last = None;
    loop {
        let now = Some(sent.load(Ordering::Relaxed));
        if now == last {
            return;
        }
        last = now;
        tokio::time::sleep(STANDSTILL).await;
    }
}

/// The way of a body from one connection to the other.
struct Pipe {
    registry: String,
    blob: Blob,
    meter: Arc<Meter>,
    sent: Arc<AtomicU64>,
    /// What the source did wrong.
    failure: Arc<Mutex<Option<RegistryError>>>,
}

struct Flow {
    pipe: Pipe,
    response: reqwest::Response,
    hasher: Option<Sha256>,
    read: u64,
    held: Option<Bytes>,
}

impl Pipe {
    /// The body's pieces, the last one only when size and digest are right.
    fn checked(self, response: reqwest::Response) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let flow = Flow { pipe: self, response, hasher: Some(Sha256::new()), read: 0, held: None };
        stream::try_unfold(flow, |mut flow| async move {
            let piece = flow.next().await.map_err(|failure| flow.pipe.broken(failure))?;
            Ok(piece.map(|piece| (piece, flow)))
        })
    }

    fn broken(&self, failure: RegistryError) -> io::Error {
        let error = io::Error::other(failure.to_string());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        error
    }
}

impl Flow {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let Blob { digest, size } = self.pipe.blob;
        let wrong = |registry: &str, detail: String| RegistryError::malformed(registry, detail);
        while let Some(hasher) = &mut self.hasher {
            let chunk = self.response.chunk().await.map_err(|error| {
                let detail = format!("blob {digest} broke off: {}", error.without_url());
                RegistryError::unavailable(&self.pipe.registry, detail)
            })?;
            let Some(chunk) = chunk else {
                let hasher = self.hasher.take().unwrap_or_default();
                if self.read != size || Digest::from_bytes(hasher.finalize().into()) != digest {
                    let detail = format!("asked for blob {digest}, it sent {} bytes with another digest", self.read);
                    return Err(wrong(&self.pipe.registry, detail));
                }
                break;
            };
            if chunk.is_empty() {
                continue;
            }
            hasher.update(&chunk);
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            self.read = self.read.saturating_add(length);
            if self.read > size {
                return Err(wrong(&self.pipe.registry, format!("blob {digest} has more than its {size} bytes")));
            }
            if let Some(piece) = self.held.replace(chunk) {
                return Ok(Some(self.count(piece)));
            }
        }
        let last = self.held.take();
        Ok(last.map(|piece| self.count(piece)))
    }

    fn count(&self, piece: Bytes) -> Bytes {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        Meter::add(&self.pipe.sent, length);
        Meter::add(&self.pipe.meter.bytes_done, length);
        piece
    }
}
