//! Registries for tests, on loopback and over real HTTP.
//!
//! [`FakeRegistry`] keeps manifests and blobs in memory and shows on demand what a healthy registry never shows: see
//! [`Knob`]. [`DockerRegistry`] is Debian's `docker-registry`, which has no referrers API.
#![allow(dead_code, reason = "a tool box for several test modules")]

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::Response,
    serve::Listener,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::model::Digest;
use http::{Method, StatusCode, header};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub const IMAGE_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const UPLOAD_MAX: usize = 64 * 1024 * 1024;

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

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each knob that is on or off")]
struct State {
    host: String,
    blobs: HashMap<(String, String), Bytes>,
    manifests: HashMap<(String, String), (String, Bytes)>,
    order: Vec<(String, String)>,
    tags: HashMap<(String, String), String>,
    tokens: HashSet<String>,
    issued: usize,
    log: Vec<Seen>,
    referrers: Referrers,
    oci_subject: OciSubject,
    auth: Auth,
    realm: Option<String>,
    failures: Vec<(u16, Option<String>)>,
    latency: Duration,
    silent: bool,
    truncated: bool,
    endless: bool,
    oversized: bool,
    shifting: Option<usize>,
    wrong_digest_header: bool,
    redirect: Option<String>,
    lose_tag_writes: usize,
    undo_after: Option<usize>,
    /// A tag, its digest before, and how many reads still see the digest written last.
    undo: Option<((String, String), Option<String>, usize)>,
    identity_token: Option<String>,
    down: bool,
}

#[derive(Debug)]
enum Auth {
    None,
    Basic(String),
    Bearer { lifetime_seconds: u64, account: Option<String> },
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
        let state = Arc::new(Mutex::new(State {
            host,
            blobs: HashMap::new(),
            manifests: HashMap::new(),
            order: Vec::new(),
            tags: HashMap::new(),
            tokens: HashSet::new(),
            issued: 0,
            log: Vec::new(),
            referrers: Referrers::Native,
            oci_subject: OciSubject::Honest,
            auth: Auth::None,
            realm: None,
            failures: Vec::new(),
            latency: Duration::ZERO,
            silent: false,
            truncated: false,
            endless: false,
            oversized: false,
            shifting: None,
            wrong_digest_header: false,
            redirect: None,
            lose_tag_writes: 0,
            undo_after: None,
            undo: None,
            identity_token: None,
            down: false,
        }));
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

impl State {
    fn store(&mut self, repo: &str, tag: Option<&str>, media_type: &str, bytes: &Bytes) {
        let digest = Digest::of(bytes).to_string();
        let key = (repo.to_owned(), digest.clone());
        if self.manifests.insert(key.clone(), (media_type.to_owned(), bytes.clone())).is_none() {
            self.order.push(key);
        }
        if let Some(tag) = tag {
            self.tags.insert((repo.to_owned(), tag.to_owned()), digest);
        }
    }

    fn find(&self, repo: &str, reference: &str) -> Option<(String, String, Bytes)> {
        let digest = if reference.starts_with("sha256:") {
            reference.to_owned()
        } else {
            self.tags.get(&(repo.to_owned(), reference.to_owned()))?.clone()
        };
        let mut key = (repo.to_owned(), digest);
        if self.shifting.is_some() && !self.manifests.contains_key(&key) {
            // A digest that this registry made up earlier.
            key = self.order.iter().find(|(known, _)| known == repo)?.clone();
        }
        let (media_type, bytes) = self.manifests.get(&key)?;
        Some((key.1, media_type.clone(), bytes.clone()))
    }

    fn is_native(&self) -> bool {
        matches!(
            self.referrers,
            Referrers::Native | Referrers::Paged(_) | Referrers::Unfiltered | Referrers::WrongArtifactType
        )
    }

    /// 401 with a challenge, unless the request may pass.
    fn challenge(&self, repo: &str, authorization: Option<&str>) -> Option<Response> {
        let challenge = match &self.auth {
            Auth::None => return None,
            Auth::Basic(expected) if authorization == Some(expected) => return None,
            Auth::Basic(_) => "Basic realm=\"fake\"".to_owned(),
            Auth::Bearer { .. } => {
                let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
                if token.is_some_and(|token| self.tokens.contains(token)) {
                    return None;
                }
                let realm = self.realm.clone().unwrap_or_else(|| format!("http://{}/token", self.host));
                format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"repository:{repo}:pull\"")
            }
        };
        Some(answer(401, &[("www-authenticate", &challenge)], error_json("UNAUTHORIZED")))
    }

    fn token(&mut self, authorization: Option<&str>, form: &Bytes) -> Response {
        if let Some(token) = &self.identity_token {
            let form = String::from_utf8_lossy(form);
            if !form.contains("grant_type=refresh_token") || !form.contains(&format!("refresh_token={token}")) {
                return answer(401, &[], error_json("WRONG_TOKEN"));
            }
        }
        let Auth::Bearer { lifetime_seconds, account } = &self.auth else {
            return answer(404, &[], error_json("NO_TOKENS_HERE"));
        };
        if account.is_some() && account.as_deref() != authorization {
            return answer(401, &[], error_json("WRONG_PASSWORD"));
        }
        self.issued += 1;
        let token = format!("token-{}", self.issued);
        let body = json!({"token": token, "expires_in": lifetime_seconds});
        self.tokens.insert(token);
        answer(200, &[("content-type", "application/json")], body.to_string())
    }

    fn referrers(&self, repo: &str, subject: &str, query: &HashMap<String, String>) -> Response {
        match self.referrers {
            Referrers::Missing => return answer(404, &[("content-type", "text/plain")], "404 page not found"),
            Referrers::NotAllowed => return answer(405, &[], error_json("UNSUPPORTED")),
            Referrers::NotAnIndex => return answer(200, &[("content-type", "text/html")], "<html>hello</html>"),
            _ => {}
        }
        let mut descriptors: Vec<Value> = self
            .order
            .iter()
            .filter(|(name, _)| name == repo && self.referrers != Referrers::AlwaysEmpty)
            .filter_map(|key| {
                let (media_type, bytes) = &self.manifests[key];
                let manifest: Value = serde_json::from_slice(bytes).ok()?;
                (manifest["subject"]["digest"] == subject).then(|| self.descriptor(key, media_type, bytes, &manifest))
            })
            .collect();
        let mut headers = vec![("content-type", INDEX_TYPE.to_owned())];
        if let Some(wanted) = query.get("artifactType")
            && !matches!(self.referrers, Referrers::Unfiltered | Referrers::WrongArtifactType)
        {
            descriptors.retain(|descriptor| descriptor["artifactType"] == json!(wanted));
            headers.push(("oci-filters-applied", "artifactType".to_owned()));
        }
        let from: usize = query.get("from").map_or(0, |from| from.parse().unwrap());
        let next = |from: usize| format!("</v2/{repo}/referrers/{subject}?from={from}>; rel=\"next\"");
        if let Referrers::Paged(size) = self.referrers {
            if from + size < descriptors.len() {
                headers.push(("link", next(from + size)));
            }
            descriptors = descriptors.into_iter().skip(from).take(size).collect();
        } else if self.referrers == Referrers::PagedForever {
            headers.push(("link", next(from + 1)));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": descriptors});
        answer(200, &headers, index.to_string())
    }

    fn descriptor(&self, key: &(String, String), media_type: &str, bytes: &Bytes, manifest: &Value) -> Value {
        let mut descriptor = json!({"mediaType": media_type, "digest": key.1, "size": bytes.len()});
        let config_type = manifest["config"]["mediaType"].clone();
        if self.referrers == Referrers::WrongArtifactType {
            descriptor["artifactType"] = config_type;
        } else {
            let own = manifest["artifactType"].clone();
            descriptor["artifactType"] = if own.is_null() { config_type } else { own };
            descriptor["annotations"] = manifest["annotations"].clone();
        }
        descriptor
    }

    fn read_manifest(&mut self, method: &Method, repo: &str, reference: &str) -> Response {
        if let Some((tag, before, reads)) = &mut self.undo
            && *tag == (repo.to_owned(), reference.to_owned())
        {
            if let Some(left) = reads.checked_sub(1) {
                *reads = left;
            } else {
                match before {
                    Some(digest) => self.tags.insert(tag.clone(), digest.clone()),
                    None => self.tags.remove(tag),
                };
                self.undo = None;
            }
        }
        let Some((digest, media_type, mut bytes)) = self.find(repo, reference) else {
            return answer(404, &[], error_json("MANIFEST_UNKNOWN"));
        };
        let mut digest_header = digest;
        if let Some(turn) = &mut self.shifting {
            *turn += 1;
            let spaces = " ".repeat(*turn);
            bytes = [&bytes[..], spaces.as_bytes()].concat().into();
            digest_header = Digest::of(&bytes).to_string();
        }
        if self.oversized {
            bytes = [&bytes[..], &vec![b' '; 8 * 1024 * 1024]].concat().into();
            digest_header = Digest::of(&bytes).to_string();
        }
        if self.wrong_digest_header {
            digest_header = Digest::of(b"something else").to_string();
        }
        let length = bytes.len().to_string();
        let headers = [
            ("content-type", media_type.as_str()),
            ("docker-content-digest", digest_header.as_str()),
            ("content-length", length.as_str()),
        ];
        self.body(method, &headers, bytes)
    }

    fn read_blob(&self, method: &Method, repo: &str, digest: &str) -> Response {
        let Some(bytes) = self.blobs.get(&(repo.to_owned(), digest.to_owned())) else {
            return answer(404, &[], error_json("BLOB_UNKNOWN"));
        };
        if let Some(host) = &self.redirect {
            let location = format!("http://{host}/v2/{repo}/blobs/{digest}");
            return answer(307, &[("location", &location)], "");
        }
        let length = bytes.len().to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", digest),
            ("content-length", length.as_str()),
        ];
        self.body(method, &headers, bytes.clone())
    }

    /// A body as the knobs want it.
    fn body(&self, method: &Method, headers: &[(&str, &str)], bytes: Bytes) -> Response {
        if *method == Method::HEAD {
            return answer(200, headers, Body::empty());
        }
        if self.endless {
            let forever = futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 8192])));
            let without_length: Vec<_> =
                headers.iter().filter(|(name, _)| *name != "content-length").copied().collect();
            return answer(200, &without_length, Body::from_stream(forever));
        }
        if self.truncated {
            let half = bytes.slice(..bytes.len() / 2);
            let broken = [Ok(half), Err(std::io::Error::other("broken off"))];
            return answer(200, headers, Body::from_stream(futures_util::stream::iter(broken)));
        }
        answer(200, headers, bytes)
    }

    fn write_manifest(&mut self, repo: &str, reference: &str, media_type: &str, bytes: &Bytes) -> Response {
        let Ok(manifest) = serde_json::from_slice::<Value>(bytes) else {
            return answer(400, &[], error_json("MANIFEST_INVALID"));
        };
        let digest = Digest::of(bytes).to_string();
        if reference.starts_with("sha256:") && reference != digest {
            return answer(400, &[], error_json("DIGEST_INVALID"));
        }
        let tag = (!reference.starts_with("sha256:")).then_some(reference);
        if tag.is_some() && self.lose_tag_writes > 0 {
            self.lose_tag_writes -= 1;
        } else {
            if let (Some(tag), Some(reads)) = (tag, self.undo_after.take_if(|_| tag.is_some())) {
                let tag = (repo.to_owned(), tag.to_owned());
                self.undo = Some((tag.clone(), self.tags.get(&tag).cloned(), reads));
            }
            self.store(repo, tag, media_type, bytes);
        }
        let location = format!("/v2/{repo}/manifests/{digest}");
        let mut headers = vec![("location", location.as_str()), ("docker-content-digest", &digest)];
        let subject = manifest["subject"]["digest"].as_str();
        let says_subject = match self.oci_subject {
            OciSubject::Honest => self.is_native(),
            OciSubject::Absent => false,
            OciSubject::Always => true,
        };
        if let Some(subject) = subject.filter(|_| says_subject) {
            headers.push(("oci-subject", subject));
        }
        answer(201, &headers, "")
    }

    fn write_blob(&mut self, repo: &str, query: &HashMap<String, String>, bytes: &Bytes) -> Response {
        let digest = Digest::of(bytes).to_string();
        if query.get("digest") != Some(&digest) {
            return answer(400, &[], error_json("DIGEST_INVALID"));
        }
        self.blobs.insert((repo.to_owned(), digest.clone()), bytes.clone());
        answer(201, &[("location", &format!("/v2/{repo}/blobs/{digest}"))], "")
    }

    fn route(&mut self, seen: &Seen, content_type: &str, query: &HashMap<String, String>, bytes: &Bytes) -> Response {
        let path = seen.path.split('?').next().unwrap();
        let authorization = seen.authorization.as_deref();
        if path == "/token" {
            return self.token(authorization, bytes);
        }
        let Some(rest) = path.strip_prefix("/v2/") else { return answer(404, &[], "") };
        let (repo, kind, reference) = split(rest);
        if let Some(challenge) = self.challenge(repo, authorization) {
            return challenge;
        }
        match (&seen.method, kind) {
            (&Method::GET | &Method::HEAD, "") => answer(200, &[], "{}"),
            (&Method::GET, "referrers") => self.referrers(repo, reference, query),
            (&Method::GET | &Method::HEAD, "manifests") => self.read_manifest(&seen.method, repo, reference),
            (&Method::PUT, "manifests") => self.write_manifest(repo, reference, content_type, bytes),
            (&Method::POST, "blobs") => {
                answer(202, &[("location", &format!("/v2/{repo}/blobs/uploads/1?state=abc"))], "")
            }
            (&Method::PUT, "blobs") => self.write_blob(repo, query, bytes),
            (&Method::GET | &Method::HEAD, "blobs") => self.read_blob(&seen.method, repo, reference),
            _ => answer(405, &[], error_json("UNSUPPORTED")),
        }
    }
}

/// `team/app/manifests/latest` to repository, kind and reference.
fn split(rest: &str) -> (&str, &str, &str) {
    for kind in ["manifests", "blobs", "referrers"] {
        if let Some((repo, reference)) = rest.split_once(&format!("/{kind}/")) {
            return (repo, kind, reference);
        }
    }
    ("", "", "")
}

async fn serve(state: Arc<Mutex<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, UPLOAD_MAX).await.unwrap_or_default();
    let header = |name: header::HeaderName| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let mut seen = Seen {
        method: parts.method.clone(),
        path: parts.uri.path_and_query().unwrap().to_string(),
        authorization: header(header::AUTHORIZATION),
        status: 0,
    };
    let query: HashMap<String, String> = axum::extract::Query::try_from_uri(&parts.uri).unwrap().0;
    let (latency, silent) = {
        let state = state.lock().unwrap();
        (state.latency, state.silent)
    };
    if silent {
        state.lock().unwrap().log.push(seen);
        return std::future::pending().await;
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let mut state = state.lock().unwrap();
    let response = if state.down {
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("down"))]);
        answer(503, &[("content-length", "10")], Body::from_stream(broken))
    } else if let Some((code, retry_after)) = state.failures.pop() {
        let headers: Vec<_> = retry_after.iter().map(|value| ("retry-after", value.as_str())).collect();
        answer(code, &headers, error_json("INJECTED"))
    } else {
        state.route(&seen, &header(header::CONTENT_TYPE).unwrap_or_default(), &query, &bytes)
    };
    seen.status = response.status().as_u16();
    state.log.push(seen);
    response
}

fn error_json(code: &str) -> String {
    json!({"errors": [{"code": code, "message": "from the fake", "detail": null}]}).to_string()
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

/// TLS connections; those that fail are dropped.
struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    async fn bind(dir: &Path) -> Self {
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=fake".split(' '))
            .args("-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE".split(' '))
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(&certificate).unwrap()],
                PrivateKeyDer::from_pem_file(&key).unwrap(),
            )
            .unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Debian's registry (distribution 2.8), in a temporary directory. Killed when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

impl DockerRegistry {
    const PROGRAM: &str = "/usr/bin/docker-registry";

    /// Starts it and waits until it answers. `None` where the package is not installed; there the test is to return
    /// early, unless `CI_REQUIRE_REGISTRY=1` says that it must be there.
    pub async fn start() -> Option<Self> {
        if !Path::new(Self::PROGRAM).exists() {
            let required = std::env::var("CI_REQUIRE_REGISTRY").is_ok_and(|value| value == "1");
            assert!(!required, "{} is missing: apt-get install docker-registry", Self::PROGRAM);
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = dir.path().join("config.yml");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"{host}\"}}\n",
                dir.path().join("data").display()
            ),
        )
        .unwrap();
        let child = Command::new(Self::PROGRAM)
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { child, host, _dir: dir };
        let until = Instant::now() + Duration::from_secs(20);
        while reqwest::get(format!("http://{}/v2/", registry.host)).await.is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry ended at once");
            assert!(Instant::now() < until, "docker-registry does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(registry)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.host.clone()
    }

    /// Kills it; connections are refused from now on.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Pushes an image for `linux/amd64` with these layers.
    pub async fn push_image(&self, repo: &str, tag: &str, layers: &[&[u8]]) -> Digest {
        push_image(&self.host, repo, tag, layers).await
    }

    /// Deletes a blob through the registry's own API.
    pub async fn delete_blob(&self, repo: &str, digest: &Digest) {
        let url = format!("http://{}/v2/{repo}/blobs/{digest}", self.host);
        let status = reqwest::Client::new().delete(url).send().await.unwrap().status();
        assert_eq!(status, StatusCode::ACCEPTED);
    }
}

/// Pushes an image to any registry on loopback that asks for no credentials.
pub async fn push_image(host: &str, repo: &str, tag: &str, layers: &[&[u8]]) -> Digest {
    let client = reqwest::Client::new();
    let (manifest, blobs) = image(layers);
    for blob in blobs {
        let start = client.post(format!("http://{host}/v2/{repo}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(start.status(), StatusCode::ACCEPTED);
        let location = start.headers()["location"].to_str().unwrap();
        let location = if location.starts_with('/') { format!("http://{host}{location}") } else { location.to_owned() };
        let digest = Digest::of(&blob).to_string();
        let put = client.put(location).query(&[("digest", digest)]).body(blob).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let digest = Digest::of(&bytes);
    let put = client
        .put(format!("http://{host}/v2/{repo}/manifests/{tag}"))
        .header("content-type", IMAGE_TYPE)
        .body(bytes)
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
    digest
}
