//! Deployments, health, approvals and revocations: statements in, views out.
//!
//! Each record is a statement signed under the identity of whoever made it and appended to the log; what is read back
//! is a fold over the log. The folds are kept in memory and renewed from the index where they ended, so that reading
//! costs nothing while nothing was written. Who may record what is decided by the face; that a stranger's statement of
//! a [`predicate::RESERVED`] type never reaches the log is decided where statements are taken in.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::json;
use tokio::sync::broadcast;

use crate::{
    evidence::{EvidenceError, EvidenceService},
    log::{LogError, Logs},
    model::{
        Caller, Digest, Identity, LogRef, Revocation, Revocations, Statement, StatementError, Subject,
        deployment::{self, Approval, Health, History, Revision, Status, Workload},
        limits, predicate,
        revocation::Target,
    },
    signing::{Signing, SigningError},
};

mod blast;
mod fold;

pub use blast::{Blast, Hit};

use fold::Folds;

/// Why a record could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The record is not a valid statement.
    #[error("the record is not valid: {0}")]
    Statement(#[from] StatementError),
    /// It could not be signed or logged.
    #[error("the record could not be written: {0}")]
    Signing(#[from] SigningError),
    /// The log could not be read.
    #[error("the log could not be read: {0}")]
    Log(#[from] LogError),
    /// Evidence could not be read.
    #[error("evidence could not be read: {0}")]
    Evidence(#[from] EvidenceError),
    /// Something that should not happen.
    #[error("{0}")]
    Other(String),
}

/// What the webhook saw admitted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Deployment {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// What was admitted.
    pub digest: Digest,
    /// The image's name.
    pub image: String,
    /// How it stands; anything that is no [`Status`] counts as live.
    pub status: String,
    /// The object that runs it.
    pub workload: Option<Workload>,
    /// Who created the object.
    pub deployed_by: String,
}

/// Something that was recorded, and that may change an answer given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A deployment, health report or approval here.
    Place {
        /// The service.
        service: String,
        /// The environment.
        environment: String,
    },
    /// A revocation, which may touch any place.
    Revocation,
}

/// Changes that a listener may lag behind before it loses some, as a count.
const CHANGES: usize = 1_024;

/// The release service.
#[derive(Debug)]
pub struct Release {
    signing: Arc<Signing>,
    evidence: Arc<EvidenceService>,
    folds: Arc<Folds>,
    /// What `record_admitted` is writing now, so that two replicas admitted at once make one record.
    writing: Mutex<HashSet<Admitted>>,
    /// Whoever keeps answers warm listens; nobody need.
    changes: broadcast::Sender<Change>,
}

impl Release {
    /// Opens the service over `log` and loads every revocation; reads the log, so call it off the async threads.
    pub fn new(
        logs: impl Into<Logs>,
        signing: Arc<Signing>,
        evidence: Arc<EvidenceService>,
    ) -> Result<Self, ReleaseError> {
        let folds = Arc::new(Folds::new(logs.into()));
        folds.renew_revocations()?;
        Ok(Self { signing, evidence, folds, writing: Mutex::default(), changes: broadcast::Sender::new(CHANGES) })
    }

    /// Tells of everything that is recorded from now on. A listener that lags loses the oldest, and is told so.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// All revocations at the current log size; kept in memory, renewed as the log grows. When the log cannot be
    /// read, those known so far: a log that cannot be read also fails readiness.
    pub fn revocations(&self) -> Arc<Revocations> {
        if let Err(error) = self.folds.renew_revocations() {
            tracing::error!(%error, "revocations could not be renewed");
        }
        self.folds.revocations()
    }

    /// All revocations at the current log size.
    ///
    /// # Errors
    /// When the log cannot be read: for an answer that must not miss one.
    pub async fn revocations_now(&self) -> Result<Arc<Revocations>, ReleaseError> {
        self.read(|folds| folds.renew_revocations().map(|()| folds.revocations())).await
    }

    /// The history of a service in an environment, at the current log size.
    pub async fn history(&self, service: &str, environment: &str) -> Result<Arc<History>, ReleaseError> {
        let (service, environment) = (service.to_owned(), environment.to_owned());
        self.read(move |folds| folds.history(&service, &environment)).await
    }

    /// Every service and environment in which something was deployed, at most [`limits::SERVICES`].
    pub async fn services(&self) -> Result<Vec<(String, String)>, ReleaseError> {
        Ok(self.read(Folds::services).await?.into_keys().collect())
    }

    /// The services and environments in which something was deployed last, at most `most`, newest first.
    pub async fn recent_services(&self, most: usize) -> Result<Vec<(String, String)>, ReleaseError> {
        let mut places: Vec<_> = self.read(Folds::services).await?.into_iter().collect();
        places.sort_by_key(|(_place, index)| std::cmp::Reverse(*index));
        Ok(places.into_iter().take(most).map(|(place, _index)| place).collect())
    }

    /// Records a deployment under the caller's identity.
    pub async fn record_deployment(
        &self,
        deployment: &deployment::Deployment,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<LogRef, ReleaseError> {
        let entry = self.write(deployment.to_statement(now)?, &caller.identity, now).await?;
        let (service, environment, digest, status) =
            (&deployment.service, &deployment.environment, &deployment.digest, deployment.status);
        tracing::info!(target: "audit", by = %caller.identity, service, environment, %digest, %status, %entry, "deployment recorded");
        self.changed(service, environment);
        Ok(entry)
    }

    /// Records a health report under the caller's identity.
    pub async fn record_health(
        &self,
        health: &Health,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<LogRef, ReleaseError> {
        let entry = self.write(health.to_statement(now)?, &caller.identity, now).await?;
        let (service, environment, digest) = (&health.service, &health.environment, &health.digest);
        tracing::info!(target: "audit", by = %caller.identity, service, environment, %digest, healthy = health.healthy, %entry, "health recorded");
        self.changed(service, environment);
        Ok(entry)
    }

    /// Records an approval under the caller's identity.
    pub async fn approve(&self, approval: &Approval, caller: &Caller, now: Timestamp) -> Result<LogRef, ReleaseError> {
        let entry = self.write(approval.to_statement(now)?, &caller.identity, now).await?;
        let (service, environment, digest) = (&approval.service, &approval.environment, &approval.digest);
        tracing::info!(target: "audit", by = %caller.identity, service, environment, %digest, %entry, "approved");
        self.changed(service, environment);
        Ok(entry)
    }

    /// Records a revocation under the caller's identity; it counts for every decision that begins afterwards.
    pub async fn revoke(
        &self,
        revocation: &Revocation,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<LogRef, ReleaseError> {
        let statement = revocation_statement(revocation, &caller.identity, now)?;
        let entry = self.write(statement, &caller.identity, now).await?;
        self.read(Folds::renew_revocations).await?;
        tracing::warn!(target: "audit", by = %caller.identity, target = ?revocation.target, since = %revocation.since, reason = revocation.reason, %entry, "revoked");
        drop(self.changes.send(Change::Revocation));
        Ok(entry)
    }

    /// What the webhook saw admitted: recorded as a deployment, under the service's own identity, unless the same
    /// digest is already the newest one there, and known to be run by this workload.
    pub async fn record_admitted(
        &self,
        deployment: Deployment,
        now: Timestamp,
    ) -> Result<Option<LogRef>, ReleaseError> {
        let place = (deployment.service.clone(), deployment.environment.clone());
        let key = (place, deployment.digest, deployment.workload.clone());
        let Some(_writing) = Writing::begin(&self.writing, key) else { return Ok(None) };
        let history = self.history(&deployment.service, &deployment.environment).await?;
        let newest = history.newest.and_then(|digest| history.revision(&digest));
        let stands = |status: Status| matches!(status, Status::Live | Status::InProgress);
        let knows = |newest: &Revision| match &deployment.workload {
            None => true,
            Some(workload) => newest.workloads.contains(workload) || newest.workloads.len() >= limits::WORKLOADS,
        };
        if newest.is_some_and(|newest| newest.digest == deployment.digest && stands(newest.status) && knows(newest)) {
            return Ok(None);
        }
        let record = deployment::Deployment {
            status: deployment.status.parse().unwrap_or(Status::Live),
            service: deployment.service,
            environment: deployment.environment,
            digest: deployment.digest,
            image: deployment.image,
            version: None,
            region: None,
            workload: deployment.workload,
            by: deployment.deployed_by,
        };
        let entry = self.write(record.to_statement(now)?, self.signing.own_identity(), now).await?;
        let (service, environment, digest) = (&record.service, &record.environment, &record.digest);
        tracing::info!(target: "audit", by = record.by, service, environment, %digest, %entry, "admitted deployment recorded");
        self.changed(service, environment);
        Ok(Some(entry))
    }

    /// What a revocation would hit: services that run it, or could go back to it.
    pub async fn blast(&self, target: &Target, since: Timestamp, now: Timestamp) -> Result<Blast, ReleaseError> {
        blast::of(self, target, since, now).await
    }

    /// Tells whoever listens; nobody listening is no failure.
    fn changed(&self, service: &str, environment: &str) {
        drop(self.changes.send(Change::Place { service: service.to_owned(), environment: environment.to_owned() }));
    }

    async fn write(&self, statement: Statement, by: &Identity, now: Timestamp) -> Result<LogRef, ReleaseError> {
        let signed = self.signing.attest(vec![statement], by, now).await?;
        let first = signed.into_iter().next().map(|signed| signed.entry);
        first.ok_or_else(|| ReleaseError::Other("signing answered nothing".to_owned()))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Folds) -> Result<T, ReleaseError> + Send + 'static,
    ) -> Result<T, ReleaseError> {
        let folds = Arc::clone(&self.folds);
        tokio::task::spawn_blocking(move || read(&folds))
            .await
            .map_err(|source| ReleaseError::Other(format!("reading the log was interrupted: {source}")))?
    }
}

/// The statement that records a revocation. A key or an identity has as subject the digest of its canonical JSON.
fn revocation_statement(revocation: &Revocation, by: &Identity, now: Timestamp) -> Result<Statement, StatementError> {
    let json = |source: serde_json::Error| StatementError::Json(source.to_string());
    let digest = match &revocation.target {
        Target::Artifact { digest } => *digest,
        target @ (Target::Key { .. } | Target::Identity { .. }) => {
            let sorted: BTreeMap<String, serde_json::Value> =
                serde_json::from_value(serde_json::to_value(target).map_err(json)?).map_err(json)?;
            Digest::of(&serde_json::to_vec(&sorted).map_err(json)?)
        }
    };
    let mut predicate = serde_json::to_value(revocation).map_err(json)?;
    if let Some(fields) = predicate.as_object_mut() {
        fields.insert("revokedBy".to_owned(), json!(by.to_string()));
        fields.insert("recordedAt".to_owned(), json!(now));
    }
    Statement::new(vec![Subject { name: String::new(), digest }], predicate::REVOCATION, predicate)
}

/// Service and environment, what was admitted there, and the object that runs it.
type Admitted = ((String, String), Digest, Option<Workload>);

/// Holds a place in the set of what is being written.
struct Writing<'a> {
    set: &'a Mutex<HashSet<Admitted>>,
    key: Admitted,
}

impl<'a> Writing<'a> {
    fn begin(set: &'a Mutex<HashSet<Admitted>>, key: Admitted) -> Option<Self> {
        let mut writing = set.lock().unwrap_or_else(PoisonError::into_inner);
        (writing.len() < limits::SERVICES && writing.insert(key.clone())).then_some(())?;
        drop(writing);
        Some(Self { set, key })
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
