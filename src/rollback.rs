//! Is it safe to go back to this digest, here and now?
//!
//! The service collects facts (history, evidence, the judge's word, what the registry has) for the last revisions at
//! once and inside one deadline, and lets [`readiness::assess`] decide. Facts are cached with their age, verdicts never.
//! Nothing is rolled back here. Spec: design §7.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::{
    evidence::EvidenceService,
    model::{
        Digest, LogRef,
        deployment::{History, Reported, Revision},
        policy::PolicySet,
        readiness::{self, Check, Facts, Readiness, Rules, Severity},
        verdict::Code,
    },
    registry::Registry,
    release::{Release, ReleaseError},
    signing::Signing,
};

mod collect;
mod record;

pub use record::statements;

use collect::Collector;

/// What the service may be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many earlier revisions are looked at.
    pub candidates: usize,
    /// How long an answer of the registry counts.
    pub max_probe_age: Duration,
    /// After how long a deployment under way counts as forgotten.
    pub deployment_max_age: SignedDuration,
    /// What is kept back of the deadline for recording the answer.
    pub recording_reserve: Duration,
    /// An answer that says the same as the one recorded within this time is not recorded again.
    pub record_again_after: SignedDuration,
    /// Age and level limits beside the policy.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            candidates: 8,
            max_probe_age: Duration::from_secs(30),
            deployment_max_age: SignedDuration::from_hours(1),
            recording_reserve: Duration::from_millis(200),
            record_again_after: SignedDuration::from_mins(5),
            rules: Rules::default(),
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
        let collector = Collector::new(evidence, registry, Arc::clone(&policies), settings.max_probe_age);
        Self { release, signing, policies, collector, recorded: record::Recorded::default(), settings }
    }

    /// The revisions that ran there before, newest first.
    pub async fn targets(
        &self,
        service: &str,
        environment: &str,
        now: Timestamp,
    ) -> Result<Vec<Candidate>, ReleaseError> {
        let history = self.release.history(service, environment).await?;
        let frame = self.frame(service, environment, &history, now).await;
        let revisions: Vec<Revision> = history.earlier().take(self.settings.candidates).cloned().collect();
        Ok(join_all(revisions.into_iter().map(|revision| self.candidate(&frame, revision))).await)
    }

    async fn candidate(&self, frame: &Frame, revision: Revision) -> Candidate {
        let target = self.collector.recorded(frame, revision.digest, Some(revision.clone())).await;
        let readiness = readiness::assess(&frame.facts(target), &self.settings.rules);
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
        let history = self.release.history(service, environment).await?;
        let frame = self.frame(service, environment, &history, now).await;
        let collect_until = deadline.checked_sub(self.settings.recording_reserve).unwrap_or(deadline);
        let digests = self.digests(&history, question.target);
        let collect = digests.iter().map(|digest| {
            let revision = history.revision(digest).cloned();
            self.collector.collect(&frame, *digest, revision, question.fresh, collect_until)
        });
        let all: Vec<Readiness> = join_all(collect)
            .await
            .into_iter()
            .map(|target| readiness::assess(&frame.facts(target), &self.settings.rules))
            .collect();
        let is_wanted = |readiness: &&Readiness| readiness.to.as_ref().map(|to| to.digest) == question.target;
        let chosen = match question.target {
            Some(_) => all.iter().find(is_wanted),
            None => Readiness::best(&all),
        };
        let readiness = chosen.cloned().map_or_else(
            || Readiness::without_target((service, environment), now, frame.running.as_ref(), self.policies.digest()),
            |readiness| readiness.among(&all),
        );
        let answer = if question.record {
            self.record(readiness, now, deadline).await
        } else {
            Answer { readiness, recorded: Vec::new() }
        };
        audit(&answer.readiness);
        Ok(answer)
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

    async fn frame(&self, service: &str, environment: &str, history: &History, now: Timestamp) -> Frame {
        let running = history.running.and_then(|digest| history.revision(&digest)).cloned();
        let running_scan = match &running {
            Some(running) => self.collector.scan(&running.digest, now).await,
            None => None,
        };
        Frame {
            service: service.to_owned(),
            environment: environment.to_owned(),
            now,
            under_way: history.under_way(now, self.settings.deployment_max_age).cloned().collect(),
            running,
            running_scan,
            revocations: self.release.revocations(),
            policy: self.policies.digest(),
        }
    }
}

/// What is the same for all candidates of one question.
#[derive(Debug)]
struct Frame {
    service: String,
    environment: String,
    now: Timestamp,
    running: Option<Revision>,
    running_scan: Option<readiness::Scan>,
    under_way: Vec<crate::model::deployment::Progress>,
    revocations: Arc<crate::model::Revocations>,
    policy: Digest,
}

impl Frame {
    fn facts(&self, target: readiness::TargetFacts) -> Facts {
        Facts {
            service: self.service.clone(),
            environment: self.environment.clone(),
            now: self.now,
            running: self.running.clone(),
            running_scan: self.running_scan.clone(),
            under_way: self.under_way.clone(),
            target,
            policy: self.policy,
        }
    }
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
