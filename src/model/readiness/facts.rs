//! What is known about a possible target, and how it follows from evidence, policy and revocations. Pure: who reads
//! logs and asks registries hands in what they said.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    Evidence, Outcome, Revocations, Verified,
    deployment::{Progress, Revision},
    digest::Digest,
    image::ImageRef,
    judge::{Demand, Question, demands, judge},
    policy::{Mode, PolicySet, Scan},
    predicate,
    revocation::Revocation,
    verdict::{Code, LogRef, Verdict},
};

/// Something that was asked of the outside: what it said and when, or why it could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<T> {
    /// What it said.
    Known {
        /// The answer.
        value: T,
        /// As of when.
        as_of: Timestamp,
    },
    /// There is no answer.
    Unknown {
        /// Why, in one sentence.
        why: String,
        /// What to do about it.
        remedy: String,
    },
}

impl<T> Fact<T> {
    /// No answer.
    pub fn unknown(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unknown { why: why.into(), remedy: remedy.into() }
    }

    /// The answer, if there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// As of when, if there is an answer.
    pub const fn as_of(&self) -> Option<Timestamp> {
        match self {
            Self::Known { as_of, .. } => Some(*as_of),
            Self::Unknown { .. } => None,
        }
    }
}

/// What the judge said of the target, and whether that would keep it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The verdict under today's policy.
    pub verdict: Verdict,
    /// What admission does with a verdict that is not `Allow`.
    pub mode: Mode,
    /// What each limit on vulnerabilities came to; the reasons stand in the verdict too.
    pub demands: Vec<Demand>,
}

/// What the registry has of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Platforms of the index.
    pub platforms: Vec<String>,
    /// Manifests, configs and layers that were asked for.
    pub blobs: usize,
    /// What is definitely gone.
    pub missing: Vec<String>,
}

/// What is known about a possible target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFacts {
    /// Its digest.
    pub digest: Digest,
    /// Its past in this service and environment, if it has one.
    pub revision: Option<Revision>,
    /// What the judge says of it.
    pub judged: Fact<Judged>,
    /// Its own revocation, if it counts now.
    pub revoked: Option<(Revocation, LogRef)>,
    /// Revoked keys and identities among those that signed statements about it.
    pub signers_revoked: Vec<(Code, Revocation, LogRef)>,
    /// Where the statements about it stand in trusted logs, our own records of it not counted.
    pub logged: Vec<LogRef>,
    /// Digests of the bundles behind those statements, in the same order.
    pub bundles: Vec<Digest>,
    /// What the registry has.
    pub availability: Fact<Availability>,
    /// The newest scan, whoever signed it: to be shown, and not to decide.
    pub scan: Option<Scan>,
    /// The digest of the trusted root under which the evidence was proven.
    pub root: Option<Digest>,
}

/// Everything [`assess`](super::assess) may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// When the question was asked.
    pub now: Timestamp,
    /// Whether anything was ever recorded to be deployed here.
    pub is_known_place: bool,
    /// What runs now.
    pub running: Option<Revision>,
    /// The newest scan of what runs now, by a signer who is not revoked: to be shown.
    pub running_scan: Option<Scan>,
    /// Deployments under way.
    pub under_way: Vec<Progress>,
    /// The target.
    pub target: TargetFacts,
    /// The digest of the policies in force.
    pub policy: Digest,
}

/// Everything but the target by which evidence about one becomes facts.
#[derive(Debug, Clone, Copy)]
pub struct Weighing<'a> {
    /// The policies in force.
    pub policies: &'a PolicySet,
    /// What was taken back, as of now.
    pub revocations: &'a Revocations,
    /// The service.
    pub service: &'a str,
    /// The environment.
    pub environment: &'a str,
    /// The namespace in which it runs, if that was recorded.
    pub namespace: Option<&'a str>,
    /// The evidence about what runs now, to compare with.
    pub running: Option<&'a Evidence>,
    /// When the question was asked.
    pub now: Timestamp,
}

impl Weighing<'_> {
    /// What the same judge says as behind every other door. Without the image's name or a namespace that a policy asks
    /// for, nobody can say which policies speak about it: that is no answer, rather than a no.
    pub fn judge(&self, image: Option<&ImageRef>, evidence: &Evidence) -> Fact<Judged> {
        let Some(image) = image else {
            return Fact::unknown(
                "no record says which image it is, so policy cannot be asked",
                "record it with `countersign deployment record --image registry/repository@sha256:…`",
            );
        };
        let question = Question {
            image: Some(image),
            digest: evidence.digest,
            namespace: self.namespace,
            environment: Some(self.environment),
            service: Some(self.service),
            now: self.now,
        };
        if let Some(policy) = self.policies.wants_namespace(&question) {
            return Fact::unknown(
                format!(
                    "policy {} speaks of namespaces, and no record says in which one {} runs",
                    policy.name, self.service
                ),
                "record it with `countersign deployment record … --namespace NAME --workload KIND/NAME --container NAME`",
            );
        }
        let judgement = judge(self.policies, &question, evidence, self.revocations);
        let demands = demands(self.policies, &question, evidence, self.revocations, self.running);
        let value = Judged { verdict: judgement.verdict, mode: judgement.mode, demands };
        Fact::Known { value, as_of: oldest(evidence).unwrap_or(self.now) }
    }

    /// The facts about a target. `evidence` is why there is none, if there is none.
    pub fn target(
        &self,
        digest: Digest,
        image: Option<&ImageRef>,
        revision: Option<Revision>,
        evidence: Result<&Evidence, String>,
        availability: Fact<Availability>,
    ) -> TargetFacts {
        let revoked = self.revocations.artifact(&digest, self.now);
        let mut facts = TargetFacts {
            digest,
            revision,
            judged: Fact::unknown("", ""),
            revoked: revoked.map(|(revocation, at)| (revocation.clone(), at.clone())),
            signers_revoked: Vec::new(),
            logged: Vec::new(),
            bundles: Vec::new(),
            availability,
            scan: None,
            root: None,
        };
        match evidence {
            Ok(evidence) => {
                facts.judged = self.judge(image, evidence);
                facts.scan = newest_scan(evidence, |_one| true);
                self.standing(&mut facts, evidence);
            }
            Err(why) => {
                facts.judged = Fact::unknown(format!("evidence could not be read: {why}"), "ask again");
            }
        }
        facts
    }

    /// The newest scan of what runs now, by a signer who is not revoked.
    pub fn running_scan(&self) -> Option<Scan> {
        newest_scan(self.running?, |one| self.revocations.signer(one).is_none())
    }

    /// Where what is said of it stands, and who of those that said it was revoked.
    fn standing(&self, facts: &mut TargetFacts, evidence: &Evidence) {
        for verified in &evidence.statements {
            let kind = verified.statement().predicate_type();
            if predicate::RESERVED.contains(&kind) || kind == predicate::VSA {
                continue;
            }
            facts.root = facts.root.or(Some(verified.root()));
            if let Some((code, revocation, at)) = self.revocations.signer(verified) {
                facts.signers_revoked.push((code, revocation.clone(), at.clone()));
            }
            if let Some(at) = verified.log() {
                facts.logged.push(at.clone());
                facts.bundles.push(verified.bundle());
            }
        }
        facts.signers_revoked.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        facts.signers_revoked.dedup();
    }
}

/// The oldest reading among the sources that were read.
fn oldest(evidence: &Evidence) -> Option<Timestamp> {
    evidence
        .sources
        .iter()
        .filter_map(|(_source, outcome)| match outcome {
            Outcome::Complete(at) => Some(*at),
            Outcome::Unavailable(_) => None,
        })
        .min()
}

fn newest_scan(evidence: &Evidence, counts: impl Fn(&Verified) -> bool) -> Option<Scan> {
    let scans = evidence.of_type(predicate::VULNS).filter(|one| counts(one));
    scans.max_by_key(|one| one.signed_at()).map(Scan::of)
}
