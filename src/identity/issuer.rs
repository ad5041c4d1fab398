//! One configured issuer and its keys: from a file, or fetched by OIDC discovery and cached.
//!
//! How fetched keys live, with the settings of [`Issuer`]:
//! - Until `refresh_after_s` a known key is used as it is.
//! - After that, one caller fetches; the others go on with what is known.
//! - A key id that nobody knows causes one fetch for all who wait, and at most one in `retry_after_s`.
//! - While the issuer cannot be asked, known keys count until `stale_for_s`. An unknown key id is then
//!   [`Refusal::IssuerUnavailable`]: the issuer may have rotated, we cannot tell.
//!
//! Time is passed in by the callers, so that all of this is told by their clock. A fetch runs in a task of its own: a
//! caller that hangs up does not take it down for the others.

use std::{
    fs,
    io::Read as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Certificate, Client, StatusCode, redirect};

use super::{Issuer, Refusal};
use crate::model::{
    discovery::{Discovery, check_url},
    key_set::{KeySet, Lookup},
    limits,
};

/// For one request to an issuer, from connect to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// An issuer, ready to give keys.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(KeySet),
    Remote(Arc<Remote>),
}

#[derive(Debug)]
struct Remote {
    settings: Issuer,
    client: Client,
    /// Held for a moment, never across an await.
    state: Mutex<State>,
    /// Whoever holds it may fetch.
    flight: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Timestamp)>,
    attempted: Option<Timestamp>,
    failed: bool,
}

/// Why keys could not be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{url}: {source}")]
    Http { url: String, source: reqwest::Error },
    #[error("{url} answered {status}")]
    Status { url: String, status: StatusCode },
    #[error("{url} sent more than {limit} bytes", limit = limits::JWKS)]
    TooLarge { url: String },
    #[error("{url} is not a discovery document: {problem}")]
    Discovery { url: String, problem: String },
    #[error("{url} is not a usable key set: {problem}")]
    Keys { url: String, problem: String },
}

impl Keys {
    /// Checks the settings and reads the files that they name; nothing is fetched yet.
    pub(super) fn open(settings: &Issuer) -> Result<Self, String> {
        check_url(&settings.url, settings.plain_http_unsafe).map_err(|problem| format!("url {problem}"))?;
        if settings.retry_after_s == 0 || settings.stale_for_s < settings.refresh_after_s {
            return Err("retry_after_s must be at least 1, and stale_for_s at least refresh_after_s".to_owned());
        }
        if let Some(path) = &settings.jwks_file {
            let set =
                KeySet::parse(&read(path)?).map_err(|source| format!("jwks_file {}: {source}", path.display()))?;
            return Ok(Self { source: Source::File(set) });
        }
        let remote = Remote {
            settings: settings.clone(),
            client: client(settings)?,
            state: Mutex::default(),
            flight: Arc::default(),
        };
        Ok(Self { source: Source::Remote(Arc::new(remote)) })
    }

    /// The key of this id for this algorithm.
    pub(super) async fn key(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<DecodingKey, Refusal> {
        match &self.source {
            Source::File(set) => pick(set, kid, algorithm)?.ok_or(Refusal::UnknownKey),
            Source::Remote(remote) => remote.key(kid, algorithm, now).await,
        }
    }
}

/// `None` when no key has this id.
fn pick(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> Result<Option<DecodingKey>, Refusal> {
    match set.find(kid, algorithm) {
        Lookup::Found(key) => Ok(Some(key.clone())),
        Lookup::WrongAlgorithm => Err(Refusal::Algorithm),
        Lookup::Ambiguous => Err(Refusal::Malformed("it has no key id (kid), and its issuer has several keys")),
        Lookup::Unknown => Ok(None),
    }
}

impl Remote {
    async fn key(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<DecodingKey, Refusal> {
        let cached = match self.known(now) {
            Some((set, Age::Fresh)) => match pick(&set, kid, algorithm)? {
                Some(key) => return Ok(key),
                None => None,
            },
            Some((set, Age::Old)) => pick(&set, kid, algorithm).ok().flatten(),
            None => None,
        };
        let guard = match (cached, Arc::clone(&self.flight).try_lock_owned()) {
            (_, Ok(guard)) => guard,
            // Known but old, and somebody is asking already: nobody waits for another's question.
            (Some(key), Err(_)) => return Ok(key),
            (None, Err(_)) => Arc::clone(&self.flight).lock_owned().await,
        };
        self.refresh(guard, now).await;
        let Some((set, _)) = self.known(now) else { return Err(self.unavailable()) };
        match pick(&set, kid, algorithm)? {
            Some(key) => Ok(key),
            None if self.state().failed => Err(self.unavailable()),
            None => Err(Refusal::UnknownKey),
        }
    }

    /// The keys that still count.
    fn known(&self, now: Timestamp) -> Option<(Arc<KeySet>, Age)> {
        let state = self.state();
        let (set, fetched) = state.keys.as_ref()?;
        let age = now.as_second().saturating_sub(fetched.as_second());
        let age = if age < i64::from(self.settings.refresh_after_s) {
            Age::Fresh
        } else if age <= i64::from(self.settings.stale_for_s) {
            Age::Old
        } else {
            return None;
        };
        Some((Arc::clone(set), age))
    }

    /// Fetches, unless somebody just did.
    async fn refresh(self: &Arc<Self>, guard: tokio::sync::OwnedMutexGuard<()>, now: Timestamp) {
        {
            let mut state = self.state();
            let wait = i64::from(self.settings.retry_after_s);
            // Either way round: callers' clocks are read before they get here, and may be set back.
            let too_soon = |at: Timestamp| now.as_second().saturating_sub(at.as_second()).abs() < wait;
            if state.attempted.is_some_and(too_soon) {
                return;
            }
            state.attempted = Some(now);
        }
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let fetched = this.fetch().await;
            let mut state = this.state();
            state.failed = fetched.is_err();
            match fetched {
                Ok(set) => state.keys = Some((Arc::new(set), now)),
                Err(error) => {
                    tracing::warn!(issuer = %this.settings.url, %error, "cannot fetch the keys of an OIDC issuer");
                }
            }
            drop(state);
            drop(guard);
        });
        if task.await.is_err() {
            self.state().failed = true;
        }
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.settings.url.trim_end_matches('/'));
        let body = self.get(&url).await?;
        let discovery = Discovery::parse(&body, &self.settings.url, self.settings.plain_http_unsafe)
            .map_err(|problem| FetchError::Discovery { url: url.clone(), problem })?;
        let body = self.get(&discovery.jwks_uri).await?;
        KeySet::parse(&body)
            .map_err(|source| FetchError::Keys { url: discovery.jwks_uri.clone(), problem: source.to_string() })
    }

    /// The body of a 200, bounded; redirects are not followed.
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let http = |source: reqwest::Error| FetchError::Http { url: url.to_owned(), source: source.without_url() };
        let mut response = self.client.get(url).send().await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status { url: url.to_owned(), status: response.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            if body.len() + chunk.len() > limits::JWKS {
                return Err(FetchError::TooLarge { url: url.to_owned() });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self) -> Refusal {
        Refusal::IssuerUnavailable { issuer: self.settings.url.clone() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Fresh,
    Old,
}

fn client(settings: &Issuer) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(REQUEST_TIMEOUT)
        .https_only(!settings.plain_http_unsafe)
        .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &settings.ca_file {
        let authorities = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|source| format!("ca_file {}: {source}", path.display()))?;
        if authorities.is_empty() {
            return Err(format!("ca_file {} holds no certificate", path.display()));
        }
        builder = builder.tls_certs_only(authorities);
    } else if settings.plain_http_unsafe {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|source| format!("cannot be asked over TLS: {source}"))
}

/// A file that the settings name, bounded.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |source: std::io::Error| format!("cannot read {}: {source}", path.display());
    let mut bytes = Vec::new();
    let most = u64::try_from(limits::JWKS).unwrap_or(u64::MAX);
    fs::File::open(path).map_err(cannot)?.take(most + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > limits::JWKS {
        return Err(format!("{} has more than {} bytes", path.display(), limits::JWKS));
    }
    Ok(bytes)
}
