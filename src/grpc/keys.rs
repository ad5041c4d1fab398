//! `KeyService`: managed keys. Translates and delegates.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use tokio::sync::Mutex;
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    release,
    signing::{self, key_refusal},
    status,
    v1::{self, key_service_server},
};
use crate::{
    keys::{KeyVersion, ManagedKey},
    model::{Caller, Digest, KeyName, LogRef, Revocation, Role, limits},
    release::Release,
    signing::{KeyChange, KeyChangeError, Signing},
};

/// Only whoever holds no other role than this may change keys.
const ADMIN: [Role; 1] = [Role::Admin];

/// The face of `KeyService`.
#[derive(Debug, Clone)]
pub struct KeyFace {
    signing: Arc<Signing>,
    release: Arc<Release>,
    /// One change at a time, so that none is planned on what another one is about to change.
    one: Arc<Mutex<()>>,
    clock: fn() -> Timestamp,
}

impl KeyFace {
    /// A face of the managed keys that `signing` signs with.
    pub fn new(signing: Arc<Signing>, release: Arc<Release>, clock: fn() -> Timestamp) -> Self {
        Self { signing, release, one: Arc::default(), clock }
    }

    /// As a tonic service.
    pub fn into_server(self) -> key_service_server::KeyServiceServer<Self> {
        key_service_server::KeyServiceServer::new(self)
    }

    async fn change(
        &self,
        caller: &Caller,
        name: &str,
        change: KeyChange,
        reason: &str,
    ) -> Result<v1::KeyChangeResponse, Status> {
        let name: KeyName = name.parse().map_err(|source| status::invalid("name", &source))?;
        if reason.len() > limits::TEXT || reason.chars().any(char::is_control) {
            let problem = format!("at most {} characters, none of them control characters", limits::TEXT);
            return Err(status::invalid("reason", &problem));
        }
        let _one = self.one.lock().await;
        let changed = self.signing.change_key(&name, change, reason, caller, (self.clock)()).await;
        let (key, entry) = changed.map_err(|error| refusal(&error))?;
        Ok(v1::KeyChangeResponse {
            key: Some(managed(key, caller)),
            entry: entry.map(Into::into),
            revocations: Vec::new(),
        })
    }

    /// Revokes each version that is not revoked as of that time already.
    async fn revoke_versions(
        &self,
        keys: Vec<String>,
        request: &v1::RevokeKeyRequest,
        caller: &Caller,
    ) -> Result<Vec<LogRef>, Status> {
        let now = (self.clock)();
        let known = self.release.revocations_now().await.map_err(|error| release::failed(&error))?;
        let mut entries = Vec::new();
        for key in keys {
            let target = v1::revoke_request::Target::Key(key);
            let revocation = release::revocation_of(revoke_request(target, request), now)?;
            let covers = |known: &Revocation| known.target == revocation.target && known.since <= revocation.since;
            if known.iter().any(|(known, _)| covers(known)) {
                continue;
            }
            let entry = self.release.revoke(&revocation, caller, now).await;
            entries.push(entry.map_err(|error| release::failed(&error))?);
        }
        Ok(entries)
    }
}

#[tonic::async_trait]
impl key_service_server::KeyService for KeyFace {
    async fn list_keys(&self, request: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let caller = authorize(&request, &Role::ALL)?;
        let keys = self.signing.managed().map(|keys| keys.list()).unwrap_or_default();
        let keys = keys.into_iter().map(|key| managed(key, &caller)).collect();
        Ok(Response::new(v1::ListKeysResponse { keys }))
    }

    async fn get_key(&self, request: Request<v1::GetKeyRequest>) -> Result<Response<v1::GetKeyResponse>, Status> {
        let caller = authorize(&request, &Role::ALL)?;
        let name: KeyName = request.into_inner().name.parse().map_err(|source| status::invalid("name", &source))?;
        let keys = self.signing.managed().ok_or_else(|| refusal(&KeyChangeError::NoStore))?;
        let key = keys.get(&name).map_err(|refused| key_refusal(&refused))?;
        Ok(Response::new(v1::GetKeyResponse { key: Some(managed(key, &caller)) }))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::KeyChangeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let name = request.into_inner().name;
        self.change(&caller, &name, KeyChange::Create, "").await.map(Response::new)
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::KeyChangeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let v1::RotateKeyRequest { name, reason } = request.into_inner();
        self.change(&caller, &name, KeyChange::Rotate, &reason).await.map(Response::new)
    }

    async fn disable_key(
        &self,
        request: Request<v1::DisableKeyRequest>,
    ) -> Result<Response<v1::KeyChangeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let v1::DisableKeyRequest { name, reason } = request.into_inner();
        self.change(&caller, &name, KeyChange::Disable, &reason).await.map(Response::new)
    }

    async fn enable_key(
        &self,
        request: Request<v1::EnableKeyRequest>,
    ) -> Result<Response<v1::KeyChangeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let v1::EnableKeyRequest { name, reason } = request.into_inner();
        self.change(&caller, &name, KeyChange::Enable, &reason).await.map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::KeyChangeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let request = request.into_inner();
        // Before anything is done: what cannot be recorded must not leave a key half revoked.
        let any = v1::revoke_request::Target::Key(Digest::of(b"").to_string());
        release::revocation_of(revoke_request(any, &request), (self.clock)())?;
        let mut answer = self.change(&caller, &request.name, KeyChange::Revoke, &request.reason).await?;
        let versions: BTreeSet<String> =
            answer.key.iter().flat_map(|key| &key.versions).map(|version| version.key.clone()).collect();
        let entries = self.revoke_versions(versions.into_iter().collect(), &request, &caller).await?;
        answer.revocations = entries.into_iter().map(Into::into).collect();
        Ok(Response::new(answer))
    }
}

fn revoke_request(target: v1::revoke_request::Target, request: &v1::RevokeKeyRequest) -> v1::RevokeRequest {
    let v1::RevokeKeyRequest { reason, since, .. } = request.clone();
    v1::RevokeRequest { target: Some(target), since, reason, dry_run: false }
}

fn managed(key: ManagedKey, caller: &Caller) -> v1::ManagedKey {
    v1::ManagedKey {
        yours: caller.keys.contains(&key.name),
        name: key.name.to_string(),
        state: key.state.as_str().to_owned(),
        versions: key.versions.into_iter().zip(1..).map(version).collect(),
    }
}

fn version((version, number): (KeyVersion, u32)) -> v1::ManagedKeyVersion {
    v1::ManagedKeyVersion {
        number,
        made_at: version.made_at.to_string(),
        key: version.key.to_string(),
        public_key: version.public_key,
    }
}

fn refusal(error: &KeyChangeError) -> Status {
    match error {
        KeyChangeError::Refused(refused) => key_refusal(refused),
        KeyChangeError::NoStore => status::not_found(&error.to_string()),
        KeyChangeError::Signing(error) => signing::refusal(error),
        KeyChangeError::Statement(_) | KeyChangeError::Interrupted => status::internal(error),
    }
}
