//! Registries for tests, on loopback and over real HTTP.
//!
//! [`FakeRegistry`] keeps manifests and blobs in memory and shows on demand what a healthy registry never shows: see
//! [`Knob`]. [`DockerRegistry`] is Debian's `docker-registry`, which has no referrers API.
#![allow(dead_code, reason = "a tool box for several test modules")]

mod docker;
mod serving;
mod tls;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{body::Bytes, extract::Request, serve::Listener};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::model::Digest;
pub use docker::DockerRegistry;
use http::Method;
use serde_json::{Value, json};
use serving::{Auth, State, serve};
use tls::Tls;
use tokio::{net::TcpListener, task::JoinHandle};

pub const IMAGE_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// How the referrers API behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Referrers {
    /// As the specification says, filter included.
    Native,
    /// Native, so many descriptors to a page.
    Paged(usize),
    /// Native, without the filter and its header.
    Unfiltered,
    /// Native, with the config's media type as artifact type and no annotations (go-containerregistry).
    WrongArtifactType,
    /// An endless chain of pages.
    PagedForever,
    /// 404: not supported.
    Missing,
    /// 405: not supported either.
    NotAllowed,
    /// 200 with something that is not an index.
    NotAnIndex,
    /// Always an empty index, whatever was pushed (seen at GHCR).
    AlwaysEmpty,
}

/// What the reply to a manifest with a subject says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OciSubject {
    /// `OCI-Subject` where the referrers API is native, nothing elsewhere.
    Honest,
    /// No header, whatever the referrers API does.
    Absent,
    /// The header, whatever the referrers API does (seen at ECR).
    Always,
}

/// One switch of the fake. Each stays until set again, except those that count.
#[derive(Debug, Clone)]
pub enum Knob {
    Referrers(Referrers),
    OciSubject(OciSubject),
    /// Bearer tokens that live so many seconds; with a user and password, or anonymous.
    Tokens {
        lifetime_seconds: u64,
        account: Option<(String, String)>,
    },
    /// Basic authentication.
    Basic {
        user: String,
        password: String,
    },
    /// The realm that a challenge names, instead of our own token endpoint.
    Realm(String),
    /// Forgets all tokens handed out so far.
    ExpireTokens,
    /// 429 for the next so many requests.
    Throttle {
        times: usize,
        retry_after: Option<String>,
    },
    /// 503 for the next so many requests.
    ServerErrors(usize),
    /// This status for the next so many requests.
    Status {
        code: u16,
        times: usize,
    },
    /// A wait before every answer.
    Latency(Duration),
    /// Never answers.
    Silent(bool),
    /// Bodies of manifests and blobs break off in the middle.
    Truncated(bool),
    /// Bodies of manifests and blobs never end.
    Endless(bool),
    /// Manifests are padded beyond every limit, with a matching digest in the header.
    Oversized(bool),
    /// Each read of a manifest gives other bytes.
    Shifting(bool),
    /// `Docker-Content-Digest` names another digest than the body has.
    WrongDigestHeader(bool),
    /// Blob reads are redirected to this host.
    RedirectBlobs(Option<String>),
    /// Accepts the next so many writes of a tag, and drops them (as a concurrent writer would).
    LoseTagWrites(usize),
    /// Undoes the next write of a tag after so many reads of it (a concurrent writer who is late).
    UndoTagWriteAfter(usize),
    /// Each write of a tag waits for up to so long before it is done, each for another time: writers overtake each other.
    DawdleTagWrites(Duration),
    /// The next so many uploads find their session gone.
    LoseUploads(usize),
    /// Blobs are not taken over from other repositories.
    RefuseMounts(bool),
    /// The next so many manifests are refused because of a blob that is there: its storage is behind.
    Behind(usize),
    /// A manifest is refused while something that it names is not there.
    Strict(bool),
    /// Blobs have other bytes than their digest says, as many as they should.
    WrongBlobs(bool),
    /// The token endpoint takes this refresh token by POST, and nothing else.
    IdentityToken(String),
}

/// One request that the fake saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    pub status: u16,
}

/// A registry in this process. Stops when dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl FakeRegistry {
    /// A conformant registry without authentication, on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        Self::on(listener, host)
    }

    /// The same over TLS, with a certificate of its own that it leaves as `cert.pem` in `dir`.
    pub async fn start_tls(dir: &Path) -> Self {
        let listener = Tls::bind(dir).await;
        let host = listener.tcp.local_addr().unwrap().to_string();
        Self::on(listener, host)
    }

    fn on<L: Listener<Addr: std::fmt::Debug>>(listener: L, host: String) -> Self {
        let state = Arc::new(Mutex::new(State::new(host)));
        let shared = Arc::clone(&state);
        let app = axum::Router::new().fallback(move |request: Request| serve(Arc::clone(&shared), request));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { state, server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.state().host.clone()
    }

    /// Refuses connections from now on, and breaks those that are open.
    pub fn stop(&self) {
        self.server.abort();
        self.state().down = true;
    }

    pub fn set(&self, knob: Knob) {
        let mut state = self.state();
        match knob {
            Knob::Referrers(mode) => state.referrers = mode,
            Knob::OciSubject(mode) => state.oci_subject = mode,
            Knob::Tokens { lifetime_seconds, account } => {
                let account = account.map(|(user, password)| basic(&user, &password));
                state.auth = Auth::Bearer { lifetime_seconds, account };
            }
            Knob::Basic { user, password } => state.auth = Auth::Basic(basic(&user, &password)),
            Knob::Realm(realm) => state.realm = Some(realm),
            Knob::ExpireTokens => state.tokens.clear(),
            Knob::Throttle { times, retry_after } => state.failures = vec![(429, retry_after); times],
            Knob::ServerErrors(times) => state.failures = vec![(503, None); times],
            Knob::Status { code, times } => state.failures = vec![(code, None); times],
            Knob::Latency(wait) => state.latency = wait,
            Knob::Silent(on) => state.silent = on,
            Knob::Truncated(on) => state.truncated = on,
            Knob::Endless(on) => state.endless = on,
            Knob::Oversized(on) => state.oversized = on,
            Knob::Shifting(on) => state.shifting = on.then_some(0),
            Knob::WrongDigestHeader(on) => state.wrong_digest_header = on,
            Knob::RedirectBlobs(host) => state.redirect = host,
            Knob::LoseTagWrites(times) => state.lose_tag_writes = times,
            Knob::UndoTagWriteAfter(reads) => state.undo_after = Some(reads),
            Knob::DawdleTagWrites(most) => state.dawdle = most,
            Knob::LoseUploads(times) => state.lose_uploads = times,
            Knob::RefuseMounts(on) => state.refuse_mounts = on,
            Knob::Behind(times) => state.behind = times,
            Knob::Strict(on) => state.strict = on,
            Knob::WrongBlobs(on) => state.wrong_blobs = on,
            Knob::IdentityToken(token) => state.identity_token = Some(token),
        }
    }

    /// What was asked so far, in order of the answers.
    pub fn requests(&self) -> Vec<Seen> {
        self.state().log.clone()
    }

    pub fn clear_requests(&self) {
        self.state().log.clear();
    }

    /// Stores an image for `linux/amd64` with these layers.
    pub fn push_image(&self, repo: &str, tag: &str, layers: &[&[u8]]) -> Digest {
        let (manifest, blobs) = image(layers);
        for blob in blobs {
            self.put_blob(repo, &blob);
        }
        self.put_manifest(repo, Some(tag), IMAGE_TYPE, &serde_json::to_vec(&manifest).unwrap())
    }

    /// Stores an index over manifests that are there; platforms are written `os/architecture`.
    pub fn push_index(&self, repo: &str, tag: &str, platforms: &[(&str, Digest)]) -> Digest {
        let manifests: Vec<Value> = platforms
            .iter()
            .map(|(platform, digest)| {
                let (os, architecture) = platform.split_once('/').unwrap();
                let size = self.state().manifests[&(repo.to_owned(), digest.to_string())].1.len();
                json!({"mediaType": IMAGE_TYPE, "digest": digest, "size": size,
                       "platform": {"os": os, "architecture": architecture}})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
        self.put_manifest(repo, Some(tag), INDEX_TYPE, &serde_json::to_vec(&index).unwrap())
    }

    /// Stores any bytes as a manifest.
    pub fn put_manifest(&self, repo: &str, tag: Option<&str>, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state().store(repo, tag, media_type, &Bytes::copy_from_slice(bytes));
        digest
    }

    /// The stored bytes of a manifest, by tag or digest.
    pub fn manifest(&self, repo: &str, reference: &str) -> Option<Vec<u8>> {
        self.state().find(repo, reference).map(|(_, _, bytes)| bytes.to_vec())
    }

    pub fn put_blob(&self, repo: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.state().blobs.insert((repo.to_owned(), digest.to_string()), Bytes::copy_from_slice(bytes));
        digest
    }

    /// Deletes a blob; says whether it was there.
    pub fn delete_blob(&self, repo: &str, digest: &Digest) -> bool {
        self.state().blobs.remove(&(repo.to_owned(), digest.to_string())).is_some()
    }

    /// Deletes a manifest, leaving tags that point at it dangling; says whether it was there.
    pub fn delete_manifest(&self, repo: &str, digest: &Digest) -> bool {
        let mut state = self.state();
        let key = (repo.to_owned(), digest.to_string());
        state.order.retain(|known| *known != key);
        state.manifests.remove(&key).is_some()
    }

    /// Whether a blob is there.
    pub fn has_blob(&self, repo: &str, digest: &Digest) -> bool {
        self.state().blobs.contains_key(&(repo.to_owned(), digest.to_string()))
    }

    /// What a tag points at.
    pub fn tagged(&self, repo: &str, tag: &str) -> Option<Digest> {
        self.state().find(repo, tag).map(|(digest, ..)| digest.parse().unwrap())
    }

    /// Moves a tag to another digest.
    pub fn tag(&self, repo: &str, tag: &str, digest: &Digest) {
        self.state().tags.insert((repo.to_owned(), tag.to_owned()), digest.to_string());
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A manifest for `linux/amd64`, and the blobs that it names, config first.
pub fn image(layers: &[&[u8]]) -> (Value, Vec<Vec<u8>>) {
    let config = serde_json::to_vec(&json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| Digest::of(l)).collect::<Vec<_>>()},
    }))
    .unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": Digest::of(&config), "size": config.len()},
        "layers": layers.iter().map(|l| json!({"mediaType": LAYER_TYPE, "digest": Digest::of(l), "size": l.len()}))
            .collect::<Vec<_>>(),
    });
    let blobs = std::iter::once(config).chain(layers.iter().map(|l| l.to_vec())).collect();
    (manifest, blobs)
}
