//! What admission asks of the rest of the house, as five questions.
//!
//! In the service these are the evidence service, the registry, the judge and the release service; a test answers
//! them itself.

use std::{fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::break_glass::BreakGlass;
use crate::{
    evidence::{EvidenceError, EvidenceService},
    model::{
        Digest, Evidence, ImageRef, LogRef,
        judge::{Judgement, Question, judge},
        policy::PolicySet,
    },
    registry::{Registry, RegistryError},
    release::{Deployment, Release, ReleaseError},
};

type Future<T> = BoxFuture<'static, T>;
/// Tag to digest.
pub type Resolve = Box<dyn Fn(ImageRef, Instant) -> Future<Result<Digest, RegistryError>> + Send + Sync>;
/// What our log knows of a digest.
pub type FromLog = Box<dyn Fn(Digest, ImageRef, Timestamp) -> Future<Result<Evidence, EvidenceError>> + Send + Sync>;
/// What log and registry know of a digest.
pub type Gather =
    Box<dyn Fn(Digest, ImageRef, Timestamp, Instant) -> Future<Result<Evidence, EvidenceError>> + Send + Sync>;
/// Policy and revocations, applied.
pub type Judge = Box<dyn Fn(&Question<'_>, &Evidence) -> Judgement + Send + Sync>;
/// Remembers what was admitted.
pub type Record = Box<dyn Fn(Deployment, Timestamp) -> Future<Result<Option<LogRef>, ReleaseError>> + Send + Sync>;
/// Puts a broken glass where it is not forgotten; the error is one sentence.
pub type RecordBreakGlass = Box<dyn Fn(BreakGlass, Timestamp) -> Future<Result<(), String>> + Send + Sync>;

/// The questions.
pub struct Parts {
    /// Tag to digest, at the registry.
    pub resolve: Resolve,
    /// Evidence without network.
    pub from_log: FromLog,
    /// Evidence from everywhere.
    pub gather: Gather,
    /// The judge.
    pub judge: Judge,
    /// Records an admitted deployment.
    pub record: Record,
    /// Records a broken glass, if there is somewhere to record it beside the audit line.
    pub record_break_glass: Option<RecordBreakGlass>,
    /// The digest of the policies that the judge applies.
    pub policy: Digest,
}

impl Parts {
    /// The real ones.
    pub fn new(
        evidence: Arc<EvidenceService>,
        registry: Registry,
        policies: Arc<PolicySet>,
        release: Arc<Release>,
    ) -> Self {
        let policy = policies.digest();
        let log = Arc::clone(&evidence);
        let revocations = Arc::clone(&release);
        Self {
            resolve: Box::new(move |image, deadline| {
                let registry = registry.clone();
                Box::pin(async move { registry.resolve(&image, deadline).await })
            }),
            from_log: Box::new(move |digest, image, now| {
                let evidence = Arc::clone(&log);
                Box::pin(async move { evidence.from_log(&digest, Some(&image), now).await })
            }),
            gather: Box::new(move |digest, image, now, deadline| {
                let evidence = Arc::clone(&evidence);
                Box::pin(async move { Box::pin(evidence.gather(&digest, Some(&image), now, deadline)).await })
            }),
            judge: Box::new(move |question, evidence| judge(&policies, question, evidence, &revocations.revocations())),
            record: Box::new(move |deployment, now| {
                let release = Arc::clone(&release);
                Box::pin(async move { release.record_admitted(deployment, now).await })
            }),
            record_break_glass: None,
            policy,
        }
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("policy", &self.policy).finish_non_exhaustive()
    }
}
