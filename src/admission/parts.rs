//! What admission asks of the rest of the house, as seven questions.
//!
//! In the service these are the evidence service, the registry, the judge, the release and the signing service; a test
//! answers them itself.

use std::{fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{break_glass::BreakGlass, summary::Summary};
use crate::{
    evidence::{EvidenceError, EvidenceService},
    log::LogError,
    model::{
        Digest, Evidence, Identity, ImageRef, LogRef, Statement, StatementError,
        judge::{Judgement, Question, judge},
        policy::PolicySet,
    },
    registry::{Registry, RegistryError},
    release::{Deployment, Release, ReleaseError},
    signing::{Signing, SigningError},
};

/// How often a full queue of the log is asked again for something that must not be lost.
const ATTEMPTS: usize = 50;

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
/// Puts a broken glass into the log; the error is one sentence.
pub type RecordBreakGlass = Box<dyn Fn(BreakGlass, Timestamp) -> Future<Result<LogRef, String>> + Send + Sync>;
/// Puts verification summaries into the log, all in one commit; the error is one sentence.
pub type RecordSummaries = Box<dyn Fn(Vec<Summary>, Timestamp) -> Future<Result<(), String>> + Send + Sync>;

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
    /// Records a broken glass.
    pub record_break_glass: RecordBreakGlass,
    /// Records what was judged of digests that were admitted for the first time.
    pub record_summaries: RecordSummaries,
    /// The digest of the policies that the judge applies.
    pub policy: Digest,
    /// Who signs what is recorded here.
    pub own: Identity,
}

impl Parts {
    /// The real ones.
    pub fn new(
        evidence: Arc<EvidenceService>,
        registry: Registry,
        policies: Arc<PolicySet>,
        release: Arc<Release>,
        signing: &Arc<Signing>,
    ) -> Self {
        let policy = policies.digest();
        let own = signing.own_identity().clone();
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
            record_break_glass: record_break_glass(Arc::clone(signing), policy),
            record_summaries: record_summaries(Arc::clone(signing)),
            policy,
            own,
        }
    }
}

fn record_break_glass(signing: Arc<Signing>, policy: Digest) -> RecordBreakGlass {
    Box::new(move |glass, now| {
        let signing = Arc::clone(&signing);
        Box::pin(async move {
            let statement = glass.statement(policy).map_err(|error| error.to_string())?;
            let entries = write(&signing, vec![statement], now, ATTEMPTS).await?;
            entries.into_iter().next().ok_or_else(|| "signing answered nothing".to_owned())
        })
    })
}

fn record_summaries(signing: Arc<Signing>) -> RecordSummaries {
    Box::new(move |summaries, now| {
        let signing = Arc::clone(&signing);
        Box::pin(async move {
            let verifier = &signing.own_identity().subject;
            let statements = summaries.iter().map(|summary| summary.statement(verifier, now));
            let statements = statements.collect::<Result<_, StatementError>>().map_err(|error| error.to_string())?;
            write(&signing, statements, now, 1).await.map(drop)
        })
    })
}

/// Signs under the service's own identity and logs; one commit for all.
async fn write(
    signing: &Signing,
    statements: Vec<Statement>,
    now: Timestamp,
    attempts: usize,
) -> Result<Vec<LogRef>, String> {
    let mut attempt = 1;
    loop {
        match signing.attest(statements.clone(), signing.own_identity(), now).await {
            Ok(signed) => return Ok(signed.into_iter().map(|one| one.entry).collect()),
            Err(SigningError::Log(full @ LogError::Full)) if attempt < attempts => {
                tokio::time::sleep(full.retry_after().unwrap_or_default()).await;
                attempt += 1;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("policy", &self.policy).finish_non_exhaustive()
    }
}
