//! Authentication: the answers to challenges, the token protocol of the distribution project, Basic.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use moka::{Expiry, future::Cache};
use zeroize::Zeroizing;

use super::{RegistryError, Settings, credential_program, credentials};
use crate::model::{
    ImageName,
    challenge::Challenge,
    docker_config::{Credential, Found},
    limits,
    token_reply::{DEFAULT_LIFETIME, LONGEST_LIFETIME, TokenReply},
};

/// Authorizations kept at once, as a count.
const KEPT: u64 = 4_096;
/// What a request is going to do; becomes the scope of its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Access {
    Pull,
    Push,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope {
    pub(super) name: ImageName,
    pub(super) access: Access,
    /// Another repository of the same registry, from which a blob is to be taken over.
    pub(super) beside: Option<String>,
}

impl Scope {
    /// As the token protocol writes it: one entry for each repository.
    fn texts(&self) -> impl Iterator<Item = String> {
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.name.repository);
        std::iter::once(own).chain(self.beside.as_ref().map(|beside| format!("repository:{beside}:pull")))
    }
}

/// The value of an `Authorization` header. Debug hides it.
#[derive(Clone)]
pub(super) struct Authorization {
    value: HeaderValue,
    lifetime: Duration,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(..)")
    }
}

impl Authorization {
    pub(super) fn header(&self) -> HeaderValue {
        self.value.clone()
    }

    fn new(registry: &str, text: &Zeroizing<String>, lifetime: Duration) -> Result<Option<Self>, RegistryError> {
        let Ok(mut value) = HeaderValue::from_str(text) else {
            return Err(RegistryError::malformed(registry, "its token does not fit into a header"));
        };
        value.set_sensitive(true);
        Ok(Some(Self { value, lifetime }))
    }
}

/// Authorizations by what they are for. One fetch at a time for each: moka makes the others wait for it.
pub(super) struct Tokens {
    cache: Cache<Scope, Option<Authorization>>,
    docker_config: Option<PathBuf>,
    program_time: Duration,
}

struct Lifetime;

impl<K> Expiry<K, Option<Authorization>> for Lifetime {
    fn expire_after_create(&self, _: &K, value: &Option<Authorization>, _: Instant) -> Option<Duration> {
        Some(value.as_ref().map_or(DEFAULT_LIFETIME, |authorization| authorization.lifetime))
    }
}

impl Tokens {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            cache: Cache::builder().max_capacity(KEPT).expire_after(Lifetime).build(),
            docker_config: settings.docker_config.clone(),
            program_time: Duration::from_millis(settings.credential_program_timeout_ms),
        }
    }

    /// Drops an authorization that was refused.
    pub(super) async fn forget(&self, scope: &Scope) {
        self.cache.invalidate(scope).await;
    }

    /// The authorization that answers a challenge; `None` when we have no credentials and the registry wants Basic.
    pub(super) async fn authorize(
        &self,
        http: &super::transport::Transport,
        scope: &Scope,
        challenge: &Challenge,
    ) -> Result<Option<Authorization>, RegistryError> {
        let name = &scope.name;
        let fetch = async {
            let credential = self.credential(name).await?;
            match challenge {
                Challenge::Basic => match credential.and_then(|credential| credential.basic()) {
                    Some(text) => Authorization::new(&name.registry, &text, LONGEST_LIFETIME),
                    None => Ok(None),
                },
                Challenge::Bearer { realm, service } => {
                    let request = TokenRequest { scope, realm, service: service.as_deref(), credential };
                    request.send(http).await
                }
            }
        };
        let result = self.cache.try_get_with(scope.clone(), fetch).await;
        result.map_err(|error: Arc<RegistryError>| Arc::unwrap_or_clone(error))
    }

    async fn credential(&self, name: &ImageName) -> Result<Option<Credential>, RegistryError> {
        let (setting, owned) = (self.docker_config.clone(), name.clone());
        let found = tokio::task::spawn_blocking(move || credentials::find(setting.as_deref(), &owned)).await;
        let problem = match found {
            Ok(Ok(Found::Nothing)) => return Ok(None),
            Ok(Ok(Found::Credential(credential))) => return Ok(Some(credential)),
            Ok(Ok(Found::Program(question))) => match credential_program::ask(&question, self.program_time).await {
                Ok(credential) => return Ok(credential),
                Err(problem) => problem,
            },
            Ok(Err(problem)) => problem,
            Err(_) => "reading the credentials was cut short".to_owned(),
        };
        Err(RegistryError::Unauthorized { registry: name.registry.clone(), detail: problem })
    }
}

struct TokenRequest<'a> {
    scope: &'a Scope,
    realm: &'a str,
    service: Option<&'a str>,
    credential: Option<Credential>,
}

impl TokenRequest<'_> {
    async fn send(self, http: &super::transport::Transport) -> Result<Option<Authorization>, RegistryError> {
        let registry = &self.scope.name.registry;
        let Some(realm) = http.permitted(self.realm) else {
            let detail = format!(
                "its token realm {:?} is not an https address; list its host in plain_http if that is meant",
                self.realm.chars().take(limits::NAME).collect::<String>()
            );
            return Err(RegistryError::malformed(registry, detail));
        };
        // Our own scope, whatever the challenge says: a registry has no say in what our token may do.
        let mut query: Vec<_> = self.scope.texts().map(|text| ("scope", text)).collect();
        query.extend(self.service.map(|service| ("service", service.to_owned())));
        let request = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                query.push(("grant_type", "refresh_token".to_owned()));
                query.push(("client_id", "countersign".to_owned()));
                query.push(("refresh_token", token.to_string()));
                http.client().post(realm).form(&query)
            }
            Some(password) => {
                let request = http.client().get(realm).query(&query);
                match password.basic() {
                    Some(value) => request.header(http::header::AUTHORIZATION, value.as_str()),
                    None => request,
                }
            }
            None => http.client().get(realm).query(&query),
        };
        let answer = http.exchange(registry, request, limits::JWKS).await?;
        if !answer.status.is_success() {
            let whose = if self.credential.is_some() { "our credentials" } else { "a caller without credentials" };
            let detail = format!("its token service answered {} to {whose}", answer.status.as_u16());
            return Err(RegistryError::Unauthorized { registry: registry.clone(), detail });
        }
        let TokenReply { token, lifetime } =
            TokenReply::parse(&answer.body).map_err(|error| RegistryError::malformed(registry, error))?;
        Authorization::new(registry, &Zeroizing::new(format!("Bearer {}", *token)), lifetime)
    }
}

/// The challenge that we can answer best, out of all `WWW-Authenticate` headers.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    Challenge::parse(headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()))
}
