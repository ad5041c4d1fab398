//! Is it safe to go back to this digest, here and now?
//!
//! The service collects facts (history, evidence, the judge's word, what the registry has) for the last revisions at
//! once and inside one deadline, and lets [`readiness::assess`] decide. Facts are cached with their age, verdicts never;
//! [`Rollback::keep_warm`] collects before anyone asks. Nothing is rolled back here. Spec: design §7.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::{
    evidence::EvidenceService,
    model::{
        Digest, Evidence, LogRef, Revocations,
        deployment::{History, Reported, Revision},
        policy::PolicySet,
        readiness::{self, Check, Facts, Readiness, Severity, TargetFacts, Weighing},
        verdict::Code,
    },
    registry::Registry,
    release::{Release, ReleaseError},
    signing::Signing,
};

mod collect;
mod record;
mod warm;

pub use record::statements;

use collect::{Asking, Collector};

/// What the service may be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many earlier revisions are looked at.
    pub candidates: usize,
    /// Time for an answer when the caller names none.
    pub timeout: Duration,
    /// How long an answer of the registry counts.
    pub max_probe_age: SignedDuration,
    /// After how long a deployment under way counts as forgotten.
    pub deployment_max_age: SignedDuration,
    /// What is kept back of the deadline for recording the answer.
    pub recording_reserve: Duration,
    /// An answer that says the same as the one recorded within this time is not recorded again.
    pub record_again_after: SignedDuration,
    /// How often the facts about a place are collected that was touched a moment ago; rarer the longer nothing
    /// happens there. Zero: only when somebody asks.
    pub warm_every: Duration,
    /// How many places are kept warm, those touched last.
    pub warm_places: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            candidates: 8,
            timeout: Duration::from_millis(1_800),
            max_probe_age: SignedDuration::from_secs(30),
            deployment_max_age: SignedDuration::from_hours(1),
            recording_reserve: Duration::from_millis(200),
            record_again_after: SignedDuration::from_mins(5),
            warm_every: Duration::from_secs(20),
            warm_places: 64,
        }
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Question {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// The digest to go back to; the best earlier revision when absent.
    pub target: Option<Digest>,
    /// Ask the registry again, however young the last answer is.
    pub fresh: bool,
    /// Record the answer in the log.
    pub record: bool,
}

/// An answer, and where it was recorded.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub readiness: Readiness,
    /// The readiness statement, then the verification summary if the answer was yes or no; empty when not recorded.
    pub recorded: Vec<LogRef>,
}

/// A revision that one could go back to.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The revision.
    pub revision: Revision,
    /// Its newest health report here.
    pub health: Option<Reported>,
    /// What stands against it or could not be checked, without asking the registry.
    pub obstacles: Vec<Check>,
}

/// The rollback service.
#[derive(Debug)]
pub struct Rollback {
    release: Arc<Release>,
    signing: Arc<Signing>,
    policies: Arc<PolicySet>,
    collector: Collector,
    recorded: record::Recorded,
    warm: warm::Warm,
    settings: Settings,
}

impl Rollback {
    /// A service over these parts.
    pub fn new(
        release: Arc<Release>,
        evidence: Arc<EvidenceService>,
        registry: Registry,
        policies: Arc<PolicySet>,
        signing: Arc<Signing>,
        settings: Settings,
    ) -> Self {
        let warm = warm::Warm::new(&settings);
        let collector = Collector::new(evidence, registry);
        Self { release, signing, policies, collector, recorded: record::Recorded::default(), warm, settings }
    }

    /// Time for an answer when the caller names none.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// The revisions that ran there before, newest first.
    pub async fn targets(
        &self,
        service: &str,
        environment: &str,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, ReleaseError> {
        let frame = self.frame(service, environment, now).await?;
        let revisions: Vec<Revision> = frame.history.earlier().take(self.settings.candidates).cloned().collect();
        Ok(join_all(revisions.into_iter().map(|revision| self.candidate(&frame, revision))).await)
    }

    async fn candidate(&self, frame: &Frame, revision: Revision) -> Candidate {
        let target = self.collector.recorded(frame, revision.digest, Some(revision.clone())).await;
        let readiness = readiness::assess(&frame.facts(target));
        let stands = |check: &Check| check.severity == Severity::Blocker && check.code != Code::RegistryUnavailable;
        let obstacles = readiness.checks.into_iter().filter(stands).collect();
        Candidate { health: revision.health.clone(), revision, obstacles }
    }

    /// Answers one question before `deadline`, whatever the registry does.
    ///
    /// # Errors
    /// Only when our own log cannot be read: then nothing at all is known.
    pub async fn check(&self, question: &Question, now: Timestamp, deadline: Instant) -> Result<Answer, ReleaseError> {
        let (service, environment) = (question.service.as_str(), question.environment.as_str());
        let frame = self.frame(service, environment, now).await?;
        let within = (!question.fresh).then_some(self.settings.max_probe_age);
        let until = deadline.checked_sub(self.settings.recording_reserve).unwrap_or(deadline);
        let all = self.assess(&frame, question.target, Asking { within, until }).await;
        if frame.is_known() {
            self.warm.asked(service, environment);
        }
        let is_wanted = |readiness: &&Readiness| readiness.to.as_ref().map(|to| to.digest) == question.target;
        let chosen = match question.target {
            Some(_) => all.iter().find(is_wanted),
            None => Readiness::best(&all),
        };
        let readiness = chosen.cloned().map_or_else(|| frame.without_target(), |readiness| readiness.among(&all));
        let answer = if question.record {
            self.record(readiness, now, deadline).await
        } else {
            Answer { readiness, recorded: Vec::new() }
        };
        audit(&answer.readiness);
        Ok(answer)
    }

    /// The readiness of the last revisions, newest first, and of the wanted digest.
    async fn assess(&self, frame: &Frame, wanted: Option<Digest>, asking: Asking) -> Vec<Readiness> {
        let collect = self.digests(&frame.history, wanted).into_iter().map(|digest| {
            let revision = frame.history.revision(&digest).cloned();
            self.collector.collect(frame, digest, revision, asking)
        });
        let targets = join_all(collect).await;
        targets.into_iter().map(|target| readiness::assess(&frame.facts(target))).collect()
    }

    /// The digests to look at, newest first: the last revisions, and the wanted one.
    fn digests(&self, history: &History, wanted: Option<Digest>) -> Vec<Digest> {
        let mut digests: Vec<_> =
            history.earlier().map(|revision| revision.digest).take(self.settings.candidates).collect();
        if let Some(wanted) = wanted
            && !digests.contains(&wanted)
        {
            digests.push(wanted);
        }
        digests
    }

    /// What our own log says at this moment. Read anew for every question: a revocation or deployment that was recorded
    /// a moment ago counts, whatever is kept warm.
    async fn frame(&self, service: &str, environment: &str, now: Timestamp) -> Result<Frame, ReleaseError> {
        let history = self.release.history(service, environment).await?;
        let revocations = self.release.revocations_now().await?;
        let running = history.running.and_then(|digest| history.revision(&digest)).cloned();
        let running_evidence = match &running {
            Some(running) => self.collector.known_of(&running.digest, now).await,
            None => None,
        };
        Ok(Frame {
            service: service.to_owned(),
            environment: environment.to_owned(),
            now,
            under_way: history.under_way(now, self.settings.deployment_max_age).cloned().collect(),
            running,
            running_evidence,
            history,
            revocations,
            policies: Arc::clone(&self.policies),
        })
    }
}

/// What is the same for all candidates of one question.
#[derive(Debug)]
struct Frame {
    service: String,
    environment: String,
    now: Timestamp,
    history: Arc<History>,
    running: Option<Revision>,
    running_evidence: Option<Evidence>,
    under_way: Vec<crate::model::deployment::Progress>,
    revocations: Arc<Revocations>,
    policies: Arc<PolicySet>,
}

impl Frame {
    fn is_known(&self) -> bool {
        !self.history.revisions.is_empty()
    }

    fn weighing<'a>(&'a self, revision: Option<&'a Revision>) -> Weighing<'a> {
        Weighing {
            policies: &self.policies,
            revocations: &self.revocations,
            service: &self.service,
            environment: &self.environment,
            namespace: namespace(self.running.as_ref()).or_else(|| namespace(revision)),
            running: self.running_evidence.as_ref(),
            now: self.now,
        }
    }

    fn facts(&self, target: TargetFacts) -> Facts {
        Facts {
            service: self.service.clone(),
            environment: self.environment.clone(),
            now: self.now,
            is_known_place: self.is_known(),
            running: self.running.clone(),
            running_scan: self.weighing(None).running_scan(),
            under_way: self.under_way.clone(),
            target,
            policy: self.policies.digest(),
        }
    }

    fn without_target(&self) -> Readiness {
        let place = (self.service.as_str(), self.environment.as_str());
        let policy = self.policies.digest();
        Readiness::without_target(place, self.now, self.is_known(), self.running.as_ref(), policy)
    }
}

/// The namespace in which a revision was recorded to run, if it is one.
fn namespace(revision: Option<&Revision>) -> Option<&str> {
    let mut names = revision?.workloads.iter().map(crate::model::deployment::Workload::namespace);
    let first = names.next()?;
    names.all(|other| other == first).then_some(first)
}

fn audit(readiness: &Readiness) {
    let digest = readiness.to.as_ref().map(|to| to.digest.to_string()).unwrap_or_default();
    tracing::info!(
        target: "audit",
        service = readiness.service,
        environment = readiness.environment,
        digest,
        verdict = %readiness.verdict,
        reason = readiness.sentence,
        "rollback checked"
    );
}
