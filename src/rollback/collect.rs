//! Facts about one target: from the log first, the registry where that is needed, and a cache with ages between.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::Frame;
use crate::{
    evidence::EvidenceService,
    model::{
        Digest, Evidence, ImageName, ImageRef,
        deployment::Revision,
        judge::{self, judge},
        policy::PolicySet,
        predicate,
        readiness::{Availability, Fact, Judged, Scan, TargetFacts},
        verdict::Decision,
    },
    registry::Registry,
};

/// Probes remembered, as a count.
const PROBES: u64 = 10_000;

/// Collects facts.
#[derive(Debug)]
pub(super) struct Collector {
    evidence: Arc<EvidenceService>,
    registry: Registry,
    policies: Arc<PolicySet>,
    max_probe_age: SignedDuration,
    /// What the registry said, and when. A failure to ask is never kept.
    probes: moka::future::Cache<(ImageName, Digest), (Availability, Timestamp)>,
}

impl Collector {
    pub(super) fn new(
        evidence: Arc<EvidenceService>,
        registry: Registry,
        policies: Arc<PolicySet>,
        max_probe_age: Duration,
    ) -> Self {
        let max_probe_age = SignedDuration::try_from(max_probe_age).unwrap_or(SignedDuration::ZERO);
        Self { evidence, registry, policies, max_probe_age, probes: moka::future::Cache::new(PROBES) }
    }

    /// Everything, the registry included, before `deadline`.
    pub(super) async fn collect(
        &self,
        frame: &Frame,
        digest: Digest,
        revision: Option<Revision>,
        fresh: bool,
        deadline: Instant,
    ) -> TargetFacts {
        let image = image_of(revision.as_ref(), digest);
        let (availability, evidence) = tokio::join!(
            self.availability(image.as_ref(), digest, fresh, frame.now, deadline),
            self.evidence(frame, digest, image.as_ref(), deadline),
        );
        facts(frame, digest, revision, availability, evidence)
    }

    /// What the log alone says.
    pub(super) async fn recorded(&self, frame: &Frame, digest: Digest, revision: Option<Revision>) -> TargetFacts {
        let image = image_of(revision.as_ref(), digest);
        let evidence = self.evidence.from_log(&digest, image.as_ref(), frame.now).await;
        let judged = evidence.map_err(|error| error.to_string()).map(|evidence| {
            let judged = self.judge(frame, digest, image.as_ref(), &evidence);
            (evidence, judged)
        });
        facts(frame, digest, revision, Fact::Unknown("the registry was not asked".to_owned()), judged)
    }

    /// The newest scan of `digest` that our log knows.
    pub(super) async fn scan(&self, digest: &Digest, now: Timestamp) -> Option<Scan> {
        let evidence = self.evidence.from_log(digest, None, now).await.ok()?;
        Scan::newest(evidence.statements.iter().map(AsRef::as_ref))
    }

    /// The log's evidence when that is enough for a yes, and the registry's with it when not.
    async fn evidence(
        &self,
        frame: &Frame,
        digest: Digest,
        image: Option<&ImageRef>,
        deadline: Instant,
    ) -> Result<(Evidence, Judged), String> {
        let known = self.evidence.from_log(&digest, image, frame.now).await.map_err(|error| error.to_string())?;
        let judged = self.judge(frame, digest, image, &known);
        if judged.verdict.decision == Decision::Allow || image.is_none() {
            return Ok((known, judged));
        }
        let gather = self.evidence.gather(&digest, image, frame.now, deadline);
        let gathered = match tokio::time::timeout_at(deadline.into(), gather).await {
            Ok(gathered) => gathered.map_err(|error| error.to_string())?,
            Err(_elapsed) => return Err("the registry did not answer in time".to_owned()),
        };
        let judged = self.judge(frame, digest, image, &gathered);
        Ok((gathered, judged))
    }

    fn judge(&self, frame: &Frame, digest: Digest, image: Option<&ImageRef>, evidence: &Evidence) -> Judged {
        let question = judge::Question {
            image,
            digest,
            namespace: None,
            environment: Some(&frame.environment),
            service: Some(&frame.service),
            now: frame.now,
        };
        let judgement = judge(&self.policies, &question, evidence, &frame.revocations);
        Judged { verdict: judgement.verdict, mode: judgement.mode }
    }

    async fn availability(
        &self,
        image: Option<&ImageRef>,
        digest: Digest,
        fresh: bool,
        now: Timestamp,
        deadline: Instant,
    ) -> Fact<Availability> {
        let Some(image) = image else {
            return Fact::Unknown("no record says in which registry it is".to_owned());
        };
        let key = (image.name.clone(), digest);
        if !fresh
            && let Some((value, as_of)) = self.probes.get(&key).await
            && now.duration_since(as_of) <= self.max_probe_age
        {
            return Fact::Known { value, as_of };
        }
        let probe = self.registry.probe(&image.name, &digest, deadline);
        let value = match tokio::time::timeout_at(deadline.into(), probe).await {
            Ok(Ok(probe)) => Availability { platforms: probe.platforms, blobs: probe.blobs, missing: probe.missing },
            Ok(Err(error)) if error.is_definite() => {
                Availability { platforms: Vec::new(), blobs: 0, missing: vec![format!("manifest {digest}")] }
            }
            Ok(Err(error)) => return Fact::Unknown(error.to_string()),
            Err(_elapsed) => {
                return Fact::Unknown(format!("registry {} did not answer in time", image.name.registry));
            }
        };
        self.probes.insert(key, (value.clone(), now)).await;
        Fact::Known { value, as_of: now }
    }
}

fn image_of(revision: Option<&Revision>, digest: Digest) -> Option<ImageRef> {
    let image: ImageRef = revision?.image.parse().ok()?;
    Some(image.pinned(digest))
}

fn facts(
    frame: &Frame,
    digest: Digest,
    revision: Option<Revision>,
    availability: Fact<Availability>,
    evidence: Result<(Evidence, Judged), String>,
) -> TargetFacts {
    let revoked =
        frame.revocations.artifact(&digest, frame.now).map(|(revocation, at)| (revocation.clone(), at.clone()));
    let mut facts = TargetFacts {
        digest,
        revision,
        judged: Fact::Unknown(String::new()),
        revoked,
        signers_revoked: Vec::new(),
        logged: Vec::new(),
        bundles: Vec::new(),
        availability,
        scan: None,
        root: None,
    };
    let (evidence, judged) = match evidence {
        Ok(found) => found,
        Err(why) => {
            facts.judged = Fact::Unknown(why);
            return facts;
        }
    };
    facts.judged = Fact::Known { value: judged, as_of: frame.now };
    facts.scan = Scan::newest(evidence.statements.iter().map(AsRef::as_ref));
    for verified in &evidence.statements {
        let kind = verified.statement().predicate_type();
        if predicate::RESERVED.contains(&kind) || kind == predicate::VSA {
            continue;
        }
        facts.root = facts.root.or(Some(verified.root()));
        if let Some((code, revocation, at)) = frame.revocations.signer(verified) {
            facts.signers_revoked.push((code, revocation.clone(), at.clone()));
        }
        if let Some(at) = verified.log() {
            facts.logged.push(at.clone());
            facts.bundles.push(verified.bundle());
        }
    }
    facts.signers_revoked.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
    facts.signers_revoked.dedup();
    facts
}
