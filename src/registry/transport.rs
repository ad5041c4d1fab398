//! Requests to registries: connections, authentication, attempts, bounded bodies.
//!
//! One [`Call`] is one question. It is asked again after network errors, 429 and 5xx, with `Retry-After` or a growing
//! and jittered pause between, as long as the caller's deadline allows; never after any other answer. Redirects are
//! followed (reqwest takes the credentials off when host, port or scheme change), but never to plain HTTP on a host
//! that the settings do not list.

mod stream;

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use moka::future::Cache;
use reqwest::{RequestBuilder, Url, redirect};
use tokio::time::timeout_at;

use super::{
    RegistryError, Settings,
    auth::{self, Access, Scope, Tokens},
    credentials,
    host::{Admission, Host},
};
use crate::model::{ImageName, limits, retry_after};

/// Registry hosts remembered at once, as a count; beyond it the least used are forgotten.
const HOSTS: u64 = 4_096;
/// Redirects followed for one request, as a count.
const REDIRECTS: usize = 5;
/// The pause before the second attempt; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause that we choose ourselves.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A deadline that passes after at least this time of waiting for an answer counts as a failure of the registry.
const SILENCE: Duration = Duration::from_millis(500);

/// Connections to all registries, and what is remembered about each.
pub(super) struct Transport {
    client: reqwest::Client,
    plain_http: Arc<HashSet<String>>,
    hosts: Cache<String, Arc<Host>>,
    tokens: Tokens,
    settings: Settings,
    /// The pool for bodies that are sent as a stream; made when it is first needed.
    uploads: OnceLock<reqwest::Client>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Empty when [`Call::unread`] was asked for and the status is 200.
    pub(super) body: Bytes,
    /// The body still to be read, in that case.
    pub(super) rest: Option<reqwest::Response>,
}

impl Answer {
    /// A header as text, if it is there and is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error for a status that answers nothing.
    pub(super) fn unexpected(&self, registry: &str, what: &str) -> RegistryError {
        RegistryError::unavailable(registry, format!("it answered {} to {what}", self.status.as_u16()))
    }
}

/// One question to one registry.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    name: &'a ImageName,
    method: Method,
    target: Target,
    access: Access,
    beside: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    most: usize,
    unread: bool,
    deadline: Instant,
}

#[derive(Debug, Clone)]
enum Target {
    /// After `/v2/<repository>/`.
    Path(String),
    /// What a `Location` or `Link` header said.
    Url(Url),
}

impl<'a> Call<'a> {
    /// A question about `path` below the repository. Answers longer than [`limits::MANIFEST`] are refused.
    pub(super) fn new(name: &'a ImageName, method: Method, path: impl Into<String>, deadline: Instant) -> Self {
        Self {
            name,
            method,
            target: Target::Path(path.into()),
            access: Access::Pull,
            beside: None,
            headers: Vec::new(),
            body: Bytes::new(),
            most: limits::MANIFEST,
            unread: false,
            deadline,
        }
    }

    pub(super) fn at(self, url: Url) -> Self {
        Self { target: Target::Url(url), ..self }
    }

    pub(super) fn accept(mut self, types: &'static str) -> Self {
        self.headers.push((header::ACCEPT, HeaderValue::from_static(types)));
        self
    }

    pub(super) fn most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    /// The body of a good answer is left for the caller to read, in [`Answer::rest`].
    pub(super) fn unread(self) -> Self {
        Self { unread: true, ..self }
    }

    pub(super) fn pushing(self) -> Self {
        Self { access: Access::Push, ..self }
    }

    /// The request also reads from another repository of the registry.
    pub(super) fn beside(self, repository: &str) -> Self {
        Self { beside: Some(repository.to_owned()), ..self }
    }

    fn scope(&self) -> Scope {
        Scope { name: self.name.clone(), access: self.access, beside: self.beside.clone() }
    }

    pub(super) fn body(self, content_type: &'static str, body: Bytes) -> Self {
        self.typed_body(HeaderValue::from_static(content_type), body)
    }

    pub(super) fn typed_body(mut self, content_type: HeaderValue, body: Bytes) -> Self {
        self.headers.push((header::CONTENT_TYPE, content_type));
        Self { body, ..self }
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Result<Self, RegistryError> {
        let unusable = |detail: String| RegistryError::unavailable("(settings)", detail);
        if let Some(path) = &settings.docker_config {
            credentials::check(path).map_err(|problem| unusable(format!("docker_config: {problem}")))?;
        }
        let plain_http: Arc<HashSet<String>> = Arc::new(settings.plain_http.iter().cloned().collect());
        let client = client(&settings, &plain_http).map_err(unusable)?;
        let tokens = Tokens::new(&settings);
        Ok(Self { client, plain_http, hosts: Cache::new(HOSTS), tokens, settings, uploads: OnceLock::new() })
    }

    /// The pool, for requests to token services.
    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The address, if we may speak to it: HTTPS, or HTTP on a host that is listed.
    pub(super) fn permitted(&self, address: &str) -> Option<Url> {
        Url::parse(address).ok().filter(|url| is_permitted(url, &self.plain_http))
    }

    /// What a `Location` or `Link` header points at, relative to a path of this repository.
    pub(super) fn follow(&self, name: &ImageName, location: &str) -> Result<Url, RegistryError> {
        let url = self.base(name)?.join(location).ok().filter(|url| is_permitted(url, &self.plain_http));
        url.ok_or_else(|| RegistryError::malformed(&name.registry, "it points at an address that is not permitted"))
    }

    /// Answers counted, by host and status.
    pub(super) fn requests(&self) -> BTreeMap<(String, u16), u64> {
        let hosts = self.hosts.iter().map(|(_, host)| host);
        hosts
            .flat_map(|host| {
                let name = host.name.clone();
                host.answers().into_iter().map(move |(status, count)| ((name.clone(), status), count))
            })
            .collect()
    }

    pub(super) fn open_breakers(&self) -> Vec<String> {
        let now = Instant::now();
        self.hosts.iter().filter(|(_, host)| host.is_open(now)).map(|(_, host)| host.name.clone()).collect()
    }

    /// `scheme://host/v2/<repository>/`.
    fn base(&self, name: &ImageName) -> Result<Url, RegistryError> {
        let clean = |text: &str, others: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
        };
        let ImageName { registry, repository } = name;
        if !clean(registry, ".-:[]")
            || !clean(repository, "._-/")
            || repository.split('/').any(|p| p.trim_matches('.').is_empty())
        {
            return Err(RegistryError::malformed(registry, "its name is no registry and repository"));
        }
        let endpoint = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if self.plain_http.contains(registry) { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{endpoint}/v2/{repository}/"))
            .map_err(|error| RegistryError::malformed(registry, format!("its name is no address: {error}")))
    }

    /// Asks, until there is an answer that is neither 429 nor 5xx, or the attempts or the time run out. 401 and 403
    /// become [`RegistryError::Unauthorized`]; every other status is the caller's to judge.
    pub(super) async fn send(&self, call: Call<'_>) -> Result<Answer, RegistryError> {
        let registry = &call.name.registry;
        let host = self.hosts.get_with_by_ref(registry, async { Arc::new(Host::new(registry, &self.settings)) }).await;
        let mut attempt = 1;
        loop {
            let failure = match self.attempt(&host, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = match &failure {
                RegistryError::Throttled { retry_after: Some(wait), .. } => *wait,
                RegistryError::Throttled { .. } | RegistryError::Unavailable { .. } => pause(attempt),
                _ => return Err(failure),
            };
            let in_time = Instant::now().checked_add(pause).is_some_and(|then| then < call.deadline);
            if attempt >= self.settings.attempts || !in_time || host.is_open(Instant::now()) {
                return Err(failure);
            }
            tracing::debug!(registry, attempt, ?pause, %failure, "asking the registry again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// One attempt, within the deadline, the breaker and the number of requests allowed at once.
    async fn attempt(&self, host: &Host, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let out_of_time = || RegistryError::Deadline { registry: host.name.clone() };
        match host.admit(Instant::now())? {
            Admission::Go => {}
            Admission::Wait(wait) if Instant::now() + wait < call.deadline => tokio::time::sleep(wait).await,
            Admission::Wait(wait) => {
                return Err(RegistryError::Throttled { registry: host.name.clone(), retry_after: Some(wait) });
            }
        }
        let deadline = call.deadline.into();
        let Ok(permit) = timeout_at(deadline, host.permits.acquire()).await else { return Err(out_of_time()) };
        let began = Instant::now();
        let result = timeout_at(deadline, self.ask(host, call)).await;
        drop(permit);
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => {
                match &failure {
                    RegistryError::Throttled { retry_after: Some(wait), .. } => host.throttled(Instant::now(), *wait),
                    RegistryError::Unavailable { .. } => host.failed(Instant::now()),
                    _ => {}
                }
                Err(failure)
            }
            Err(_) => {
                host.unanswered();
                if began.elapsed() >= SILENCE {
                    host.failed(Instant::now());
                }
                Err(out_of_time())
            }
        }
    }

    /// Sends once, and once more with authorization when there is a challenge.
    async fn ask(&self, host: &Host, call: &Call<'_>) -> Result<Answer, RegistryError> {
        let (url, ours) = self.address(call)?;
        let scope = call.scope();
        let mut authorization = match host.challenge().filter(|_| ours) {
            Some(challenge) => self.tokens.authorize(self, &scope, &challenge).await?,
            None => None,
        };
        let mut renewed = false;
        loop {
            let mut request = self.client.request(call.method.clone(), url.clone()).body(call.body.clone());
            for (name, value) in &call.headers {
                request = request.header(name, value);
            }
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, authorization.header());
            }
            let answer = self.exchange_with(host, request, call.most, call.unread).await?;
            if answer.status == StatusCode::FORBIDDEN
                || (answer.status == StatusCode::UNAUTHORIZED && (renewed || !ours))
            {
                return Err(refused(host, &answer, authorization.is_some()));
            }
            if answer.status != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let Some(challenge) = auth::challenge(&answer.headers) else {
                return Err(refused(host, &answer, authorization.is_some()));
            };
            host.set_challenge(&challenge);
            if authorization.is_some() {
                self.tokens.forget(&scope).await;
            }
            authorization = self.tokens.authorize(self, &scope, &challenge).await?;
            if authorization.is_none() {
                return Err(refused(host, &answer, false));
            }
            renewed = true;
        }
    }

    /// Where a call goes, and whether that is the registry itself (and so may see our credentials).
    fn address(&self, call: &Call<'_>) -> Result<(Url, bool), RegistryError> {
        let base = self.base(call.name)?;
        let url = match &call.target {
            Target::Path(path) => base.join(path).map_err(|error| {
                RegistryError::malformed(&call.name.registry, format!("{path} is no path: {error}"))
            })?,
            Target::Url(url) => url.clone(),
        };
        let ours = url.origin() == base.origin();
        Ok((url, ours))
    }

    /// One request for the benefit of `registry` (its token service, say), counted under its host.
    pub(super) async fn exchange(
        &self,
        registry: &str,
        request: RequestBuilder,
        most: usize,
    ) -> Result<Answer, RegistryError> {
        let host = self.hosts.get_with_by_ref(registry, async { Arc::new(Host::new(registry, &self.settings)) }).await;
        self.exchange_with(&host, request, most, false).await
    }

    async fn exchange_with(
        &self,
        host: &Host,
        request: RequestBuilder,
        most: usize,
        unread: bool,
    ) -> Result<Answer, RegistryError> {
        let failed = |error: reqwest::Error| {
            host.unanswered();
            failure(&host.name, &error)
        };
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status == StatusCode::TOO_MANY_REQUESTS {
            host.answered(status.as_u16());
            return Err(RegistryError::Throttled { registry: host.name.clone(), retry_after: retry_after(&headers) });
        }
        if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
            host.answered(status.as_u16());
            let detail = format!("it answered {}", status.as_u16());
            return Err(RegistryError::unavailable(&host.name, detail));
        }
        if unread && status == StatusCode::OK {
            host.answered(status.as_u16());
            return Ok(Answer { status, headers, body: Bytes::new(), rest: Some(response) });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > most {
                host.answered(status.as_u16());
                return Err(RegistryError::malformed(&host.name, format!("an answer of more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        host.answered(status.as_u16());
        Ok(Answer { status, headers, body: body.into(), rest: None })
    }
}

/// The pool of connections. Trusts the system's certificate authorities and those of `ca_file`; on a system that has
/// none it trusts nobody, so that registries in plain HTTP still work there.
fn client(settings: &Settings, plain_http: &Arc<HashSet<String>>) -> Result<reqwest::Client, String> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .redirect(redirects(Arc::clone(plain_http)))
            .referer(false)
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .read_timeout(Duration::from_millis(settings.read_timeout_ms))
    };
    let Some(path) = &settings.ca_file else {
        return builder().build().or_else(|error| {
            let cause = chain(&error);
            tracing::warn!(cause, "registries over TLS will be refused: install ca-certificates, or set ca_file");
            builder().tls_certs_only([]).build().map_err(|error| chain(&error))
        });
    };
    let pem = std::fs::read(path).map_err(|error| format!("ca_file: cannot read {}: {error}", path.display()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| format!("ca_file: {} is not PEM: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("ca_file: {} holds no certificate", path.display()));
    }
    builder().tls_certs_merge(certificates).build().map_err(|error| chain(&error))
}

fn redirects(plain_http: Arc<HashSet<String>>) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if is_permitted(attempt.url(), &plain_http) {
            attempt.follow()
        } else {
            attempt.error("redirected to plain HTTP on a host that is not in plain_http")
        }
    })
}

fn is_permitted(url: &Url, plain_http: &HashSet<String>) -> bool {
    let Some(host) = url.host_str() else { return false };
    match url.scheme() {
        "https" => true,
        "http" => match url.port() {
            Some(port) => plain_http.contains(&format!("{host}:{port}")),
            None => plain_http.contains(host) || plain_http.contains(&format!("{host}:80")),
        },
        _ => false,
    }
}

fn refused(host: &Host, answer: &Answer, authorized: bool) -> RegistryError {
    let whose = if authorized { "what our credentials give" } else { "a caller without credentials" };
    let status = answer.status.as_u16();
    let detail = format!("it answered {status} to {whose}; see docker_config in the registry settings");
    RegistryError::Unauthorized { registry: host.name.clone(), detail }
}

fn failure(registry: &str, error: &reqwest::Error) -> RegistryError {
    // A redirect that we refuse is the registry's doing, and would be refused again.
    if error.is_redirect() {
        return RegistryError::malformed(registry, chain(error));
    }
    RegistryError::unavailable(registry, chain(error))
}

/// An error and its causes, without the address, which may carry a signature in its query.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}

/// The answer's `Retry-After`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    retry_after::retry_after(text(header::RETRY_AFTER)?, text(header::DATE))
}

/// Grows with each attempt.
pub(super) fn pause(attempt: u32) -> Duration {
    half_random(FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST_PAUSE))
}

/// Half fixed and half random, so that callers who failed together do not come back together.
pub(super) fn half_random(full: Duration) -> Duration {
    // The standard library's hash keys are the randomness at hand; nothing secret hangs on it.
    let part = u32::try_from(RandomState::new().build_hasher().finish() % 1_000).unwrap_or_default();
    full / 2 + full / 2 * part / 1_000
}
