//! The fake's side of the distribution API, faults included.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use countersign::model::Digest;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use super::{INDEX_TYPE, OciSubject, Referrers, Seen};

const UPLOAD_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each knob that is on or off")]
/// What is stored, and how each knob stands.
pub(super) struct State {
    pub(super) host: String,
    pub(super) blobs: HashMap<(String, String), Bytes>,
    pub(super) manifests: HashMap<(String, String), (String, Bytes)>,
    pub(super) order: Vec<(String, String)>,
    pub(super) tags: HashMap<(String, String), String>,
    pub(super) tokens: HashSet<String>,
    pub(super) issued: usize,
    pub(super) log: Vec<Seen>,
    pub(super) referrers: Referrers,
    pub(super) oci_subject: OciSubject,
    pub(super) auth: Auth,
    pub(super) realm: Option<String>,
    pub(super) failures: Vec<(u16, Option<String>)>,
    pub(super) latency: Duration,
    pub(super) silent: bool,
    pub(super) truncated: bool,
    pub(super) endless: bool,
    pub(super) oversized: bool,
    pub(super) shifting: Option<usize>,
    pub(super) wrong_digest_header: bool,
    pub(super) redirect: Option<String>,
    pub(super) lose_tag_writes: usize,
    pub(super) undo_after: Option<usize>,
    /// A tag, its digest before, and how many reads still see the digest written last.
    pub(super) undo: Option<((String, String), Option<String>, usize)>,
    pub(super) dawdle: Duration,
    pub(super) lose_uploads: usize,
    pub(super) refuse_mounts: bool,
    pub(super) behind: usize,
    pub(super) strict: bool,
    pub(super) wrong_blobs: bool,
    pub(super) identity_token: Option<String>,
    pub(super) down: bool,
}

#[derive(Debug)]
pub(super) enum Auth {
    None,
    Basic(String),
    Bearer { lifetime_seconds: u64, account: Option<String> },
}

impl State {
    pub(super) fn new(host: String) -> Self {
        Self {
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
            dawdle: Duration::ZERO,
            lose_uploads: 0,
            refuse_mounts: false,
            behind: 0,
            strict: false,
            wrong_blobs: false,
            identity_token: None,
            down: false,
        }
    }

    pub(super) fn store(&mut self, repo: &str, tag: Option<&str>, media_type: &str, bytes: &Bytes) {
        let digest = Digest::of(bytes).to_string();
        let key = (repo.to_owned(), digest.clone());
        if self.manifests.insert(key.clone(), (media_type.to_owned(), bytes.clone())).is_none() {
            self.order.push(key);
        }
        if let Some(tag) = tag {
            self.tags.insert((repo.to_owned(), tag.to_owned()), digest);
        }
    }

    pub(super) fn find(&self, repo: &str, reference: &str) -> Option<(String, String, Bytes)> {
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
        let next = |from: usize| {
            format!("</v2/other>; rel=\"prev\", </v2/{repo}/referrers/{subject}?from={from}>; rel=\"next\"")
        };
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
        let mut bytes = bytes.clone();
        if self.wrong_blobs {
            bytes = bytes.iter().map(|byte| byte ^ 1).collect::<Vec<u8>>().into();
        }
        let length = bytes.len().to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("docker-content-digest", digest),
            ("content-length", length.as_str()),
        ];
        self.body(method, &headers, bytes)
    }

    /// What a manifest names and is not there.
    fn lacks(&self, repo: &str, manifest: &Value) -> Option<String> {
        let named = |value: &Value| value["digest"].as_str().map(str::to_owned);
        let list = |field: &str| manifest[field].as_array().cloned().unwrap_or_default();
        let key = |digest: String| (repo.to_owned(), digest);
        let blobs = list("layers").into_iter().chain([manifest["config"].clone()]);
        let blob = blobs.filter_map(|one| named(&one)).find(|digest| !self.blobs.contains_key(&key(digest.clone())));
        let child = list("manifests").into_iter().filter_map(|one| named(&one));
        blob.or_else(|| child.into_iter().find(|digest| !self.manifests.contains_key(&key(digest.clone()))))
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
        if let Some(left) = self.behind.checked_sub(1) {
            self.behind = left;
            return answer(400, &[], error_json("DIGEST_INVALID"));
        }
        if self.strict && self.lacks(repo, &manifest).is_some() {
            return answer(400, &[], error_json("MANIFEST_BLOB_UNKNOWN"));
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

    /// Takes a blob over from another repository, if it is there.
    fn mount(&mut self, repo: &str, query: &HashMap<String, String>) -> bool {
        let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) else { return false };
        let Some(bytes) = self.blobs.get(&(from.clone(), digest.clone())).filter(|_| !self.refuse_mounts) else {
            return false;
        };
        let bytes = bytes.clone();
        self.blobs.insert((repo.to_owned(), digest.clone()), bytes).is_none()
    }

    fn write_blob(&mut self, repo: &str, query: &HashMap<String, String>, bytes: &Bytes) -> Response {
        if let Some(left) = self.lose_uploads.checked_sub(1) {
            self.lose_uploads = left;
            return answer(404, &[], error_json("BLOB_UPLOAD_UNKNOWN"));
        }
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
            (&Method::POST, "blobs") if self.mount(repo, query) => answer(201, &[], ""),
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

pub(super) async fn serve(state: Arc<Mutex<State>>, request: Request) -> Response {
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
    let (latency, silent, dawdle) = {
        let state = state.lock().unwrap();
        (state.latency, state.silent, state.dawdle)
    };
    if !dawdle.is_zero() && seen.method == Method::PUT && seen.path.contains("/manifests/sha256-") {
        let part = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1_000;
        tokio::time::sleep(dawdle.mul_f64(part as f64 / 1_000.0)).await;
    }
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
