//! `TrustService`: the public side of the keys, and their rotation. Translates and delegates.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tonic::{Code, Request, Response, Status};

use super::{
    auth::authorize,
    status,
    v1::{
        Expiry, GetClientTrustConfigRequest, GetClientTrustConfigResponse, GetStatusRequest, GetStatusResponse,
        GetTrustedRootRequest, GetTrustedRootResponse, KeyGeneration, KeyKind, PublishTufRootRequest,
        PublishTufRootResponse, RotateRequest, RotateResponse, TufDocument, TufStatus, trust_service_server,
    },
};
use crate::{
    keys::{KeyError, Keyring, Public, Rotated, Rotating, Rotation},
    model::{Digest, Role, limits},
    tuf::{Repository, Standing, TufError},
};

/// Only whoever holds this role may change keys.
const ADMIN: [Role; 1] = [Role::Admin];

/// Makes a new key take the place of another one, and everyone here and outside know of it.
pub type Rotate = Arc<dyn Fn(Rotation) -> Result<Rotated, KeyError> + Send + Sync>;

/// The face of `TrustService`.
#[derive(Clone)]
pub struct Trust {
    keys: Arc<Keyring>,
    repository: Arc<Repository>,
    rotate: Rotate,
    base_url: String,
    clock: fn() -> Timestamp,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("keys", &self.keys).field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl Trust {
    /// `base_url` is where clients find the instance, `https://host[:port]`.
    pub fn new(
        keys: Arc<Keyring>,
        repository: Arc<Repository>,
        rotate: Rotate,
        base_url: String,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self { keys, repository, rotate, base_url, clock }
    }
}

#[tonic::async_trait]
impl trust_service_server::TrustService for Trust {
    async fn get_trusted_root(
        &self,
        request: Request<GetTrustedRootRequest>,
    ) -> Result<Response<GetTrustedRootResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let trusted_root = self.keys.trusted_root();
        let digest = Digest::of(trusted_root.as_bytes()).to_string();
        Ok(Response::new(GetTrustedRootResponse { trusted_root: trusted_root.as_bytes().to_vec().into(), digest }))
    }

    async fn get_client_trust_config(
        &self,
        request: Request<GetClientTrustConfigRequest>,
    ) -> Result<Response<GetClientTrustConfigResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let given = request.into_inner().base_url;
        let base_url = if given.is_empty() { &self.base_url } else { check_base_url(&given)? };
        let client_trust_config = self.keys.client_trust_config(base_url).into();
        Ok(Response::new(GetClientTrustConfigResponse { client_trust_config }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let (now, public) = ((self.clock)(), self.keys.public());
        let mut expiries = public.expiries(now);
        expiries.extend(self.repository.expiries());
        expiries.sort_by_key(|(_, not_after)| *not_after);
        let expiries = expiries
            .into_iter()
            .map(|(name, not_after)| Expiry { name, not_after: Some(timestamp(not_after)) })
            .collect();
        let mut warnings = public.warnings(now);
        warnings.extend(self.repository.warnings(now));
        Ok(Response::new(GetStatusResponse {
            origin: public.host().to_owned(),
            log_id: public.log_id().to_vec().into(),
            log_public_key: public.log_key().to_vec().into(),
            trusted_root_digest: Digest::of(self.keys.trusted_root().as_bytes()).to_string(),
            expiries,
            now: Some(timestamp(now)),
            generations: generations(&public),
            tuf: Some(TufStatus {
                documents: self.repository.standings().into_iter().map(document).collect(),
                root_key_here: self.repository.root_key_is_here(),
                root: self.repository.file("root.json").unwrap_or_default(),
            }),
            warnings,
        }))
    }

    async fn rotate(&self, request: Request<RotateRequest>) -> Result<Response<RotateResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let rotation = rotation(request.get_ref())?;
        let rotate = Arc::clone(&self.rotate);
        let done = tokio::task::spawn_blocking(move || rotate(rotation)).await;
        let Rotated { number, signs_from } =
            done.map_err(|lost| status::internal(&lost))?.map_err(|error| refusal(&error))?;
        tracing::warn!(target: "audit", action = "rotate", caller = %caller.identity, key = rotation.kind.name(), number,
            new_root = rotation.new_root, %signs_from, "a key takes the place of another one");
        Ok(Response::new(RotateResponse {
            number,
            signs_from: Some(timestamp(signs_from)),
            trusted_root_digest: Digest::of(self.keys.trusted_root().as_bytes()).to_string(),
        }))
    }

    async fn publish_tuf_root(
        &self,
        request: Request<PublishTufRootRequest>,
    ) -> Result<Response<PublishTufRootResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let (repository, now, bytes) = (Arc::clone(&self.repository), (self.clock)(), request.into_inner().root);
        let done = tokio::task::spawn_blocking(move || repository.publish_root(&bytes, now)).await;
        let standing = done.map_err(|lost| status::internal(&lost))?.map_err(|error| match &error {
            TufError::Root(_) | TufError::Metadata(_) => status::invalid("root", &error),
            TufError::Key(key) => refusal(key),
            TufError::Io { .. } => status::internal(&error),
        })?;
        tracing::warn!(target: "audit", action = "publish-tuf-root", caller = %caller.identity, version = standing.version,
            "a TUF root came in");
        Ok(Response::new(PublishTufRootResponse { root: Some(document(standing)) }))
    }
}

/// The status of a rotation that was not done.
fn refusal(error: &KeyError) -> Status {
    let (message, none) = (error.to_string(), std::collections::HashMap::new);
    match error {
        KeyError::Rotation { .. } => status::with_info(Code::FailedPrecondition, &message, "ROTATION_REFUSED", none()),
        KeyError::TufRoot(_) => status::with_info(Code::FailedPrecondition, &message, "TUF_ROOT_KEY_OFFLINE", none()),
        KeyError::Kek { .. } | KeyError::WrongKek(_) => {
            status::with_info(Code::FailedPrecondition, &message, "KEK_UNUSABLE", none())
        }
        _ => status::internal(error),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn rotation(request: &RotateRequest) -> Result<Rotation, Status> {
    let kind = match request.kind() {
        KeyKind::Ca => Rotating::Ca,
        KeyKind::Sct => Rotating::Sct,
        KeyKind::Tsa => Rotating::Tsa,
        KeyKind::Tuf => Rotating::Tuf,
        KeyKind::Unspecified => return Err(status::invalid("kind", &"name the key: ca, sct, tsa or tuf")),
    };
    let given = request.activate_in.unwrap_or_default();
    if given.nanos.unsigned_abs() >= 1_000_000_000 {
        return Err(status::invalid("activate_in", &"its nanos are a second or more"));
    }
    Ok(Rotation { kind, new_root: request.new_root, activate_in: SignedDuration::new(given.seconds, given.nanos) })
}

/// Every key that the trusted root names.
fn generations(public: &Public) -> Vec<KeyGeneration> {
    let mut all = Vec::new();
    for kind in [Rotating::Ca, Rotating::Sct, Rotating::Tsa] {
        all.extend(public.generations(kind).into_iter().map(|one| KeyGeneration {
            kind: kind.name().to_owned(),
            number: one.number,
            signs_from: Some(timestamp(one.signs_from)),
            valid_from: Some(timestamp(one.valid_from)),
            valid_until: one.valid_until.map(timestamp),
            not_after: one.ends.map(timestamp),
            root: one.root.map_or(0, |(number, _)| number),
            origin: String::new(),
        }));
    }
    all.extend(public.logs().iter().zip(1..).map(|(log, number)| KeyGeneration {
        kind: "log".to_owned(),
        number,
        signs_from: Some(timestamp(log.valid_from)),
        valid_from: Some(timestamp(log.valid_from)),
        valid_until: log.valid_until.map(timestamp),
        not_after: None,
        root: 0,
        origin: log.origin.clone(),
    }));
    all
}

fn document(Standing { kind, version, expires }: Standing) -> TufDocument {
    TufDocument { name: kind.name().to_owned(), version, expires: Some(timestamp(expires)) }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn check_base_url(url: &str) -> Result<&str, Status> {
    let refuse = |problem: &str| Err(status::invalid("base_url", &problem));
    if url.len() > limits::URI {
        return refuse("more than 1,024 characters");
    }
    let parsed = url.parse::<http::Uri>().ok().filter(|url| url.host().is_some());
    match parsed.as_ref().and_then(http::Uri::scheme_str) {
        Some("https" | "http") => Ok(url),
        _ => refuse("must be a URL such as https://sign.example.org"),
    }
}
