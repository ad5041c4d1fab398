//! The first admission of a digest, as a SLSA verification summary in the log (design §5).
//!
//! One for each digest, digest of the policies and result: what is admitted again, or by another replica of the same
//! Deployment, adds nothing, and a log that has the summary already is not asked for another. An image that no policy
//! speaks about was not verified, so there is nothing to summarise; an answer of could not tell is neither `PASSED` nor
//! `FAILED`. What was admitted against a no (mode `warn` or `audit`, a failure mode that is open, a broken glass) is
//! summarised as what it was: `FAILED`.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Effect, Judged};
use crate::model::{
    Decision, Digest, Evidence, Identity, LogRef, Signer, Statement, StatementError, Subject, Verified, predicate,
};

/// What is ours in the predicate: where it was admitted, and what became of it.
pub const EXTENSION: &str = "https://countersign.dev/admission";

/// The verdict on one image of an admitted object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The image as it is written.
    pub image: String,
    /// What was judged.
    pub digest: Digest,
    /// `Allow` or `Deny`.
    pub decision: Decision,
    /// The policies that spoke about it, as a digest over all.
    pub policy: Digest,
    /// Their names.
    pub policies: Vec<String>,
    /// The codes of the reasons.
    pub reasons: Vec<String>,
    /// The namespace.
    pub namespace: String,
    /// The environment.
    pub environment: String,
    /// What became of the image.
    pub effect: Effect,
    /// The evidence that was looked at: where it is logged, if it is, and the digest of its bundle.
    pub inputs: Vec<(Option<LogRef>, Digest)>,
    /// The trusted roots under which it was proven.
    pub roots: BTreeSet<Digest>,
}

/// What there may be one summary of: a digest, the policies, and whether it passed.
pub(super) type Key = (Digest, Digest, bool);

/// What a summary of this image would be one of; `None` where there is nothing to summarise.
pub(super) fn key(judged: &Judged, policy: Digest) -> Option<Key> {
    let verdict = &judged.verdict;
    let is_judged = verdict.decision != Decision::Unknown && !verdict.policies.is_empty();
    let digest = judged.digest.filter(|_| is_judged && judged.evidence.is_some())?;
    Some((digest, policy, verdict.decision == Decision::Allow))
}

impl Summary {
    /// What the judge said of an image; `None` where there is nothing to summarise, or the log has it already.
    pub(super) fn of(judged: &Judged, policy: Digest, place: (&str, &str), own: &Identity) -> Option<Self> {
        let (digest, ..) = key(judged, policy)?;
        let (verdict, evidence) = (&judged.verdict, judged.evidence.as_ref()?);
        let summary = Self {
            image: judged.image.clone(),
            digest,
            decision: verdict.decision,
            policy,
            policies: verdict.policies.iter().map(|(name, _)| name.clone()).collect(),
            reasons: verdict.reasons.iter().map(|reason| reason.code.to_string()).collect(),
            namespace: place.0.to_owned(),
            environment: place.1.to_owned(),
            effect: judged.effect,
            inputs: evidence.statements.iter().map(|one| (one.log().cloned(), one.bundle())).collect(),
            roots: evidence.statements.iter().map(|one| one.root()).collect(),
        };
        (!summary.is_known(evidence, own)).then_some(summary)
    }

    fn has_passed(&self) -> bool {
        self.decision == Decision::Allow
    }

    const fn result(passed: bool) -> &'static str {
        if passed { "PASSED" } else { "FAILED" }
    }

    /// Whether the evidence holds this summary, by ourselves.
    fn is_known(&self, evidence: &Evidence, own: &Identity) -> bool {
        let same = |one: &Verified| {
            let text = |pointer: &str| one.statement().predicate().pointer(pointer).and_then(Value::as_str);
            *one.signer() == Signer::Identity(own.clone())
                && text("/policy/digest/sha256") == Some(self.policy.hex().as_str())
                && text("/verificationResult") == Some(Self::result(self.has_passed()))
        };
        evidence.of_type(predicate::VSA).any(same)
    }

    /// The statement for the log; `verifier` says who judged.
    pub fn statement(&self, verifier: &str, now: Timestamp) -> Result<Statement, StatementError> {
        let passed = self.has_passed();
        let level = if passed { "SLSA_BUILD_LEVEL_UNEVALUATED" } else { "FAILED" };
        let name = super::without_tag(&self.image);
        let resource = if name.is_empty() { self.digest.to_string() } else { format!("{name}@{}", self.digest) };
        let inputs: Vec<Value> = self.inputs.iter().map(input).collect();
        let roots: Vec<Value> = self.roots.iter().map(|root| json!({"sha256": root.hex()})).collect();
        let effect = serde_json::to_value(self.effect).unwrap_or(Value::Null);
        let predicate = json!({
            "verifier": {"id": verifier},
            "timeVerified": now,
            "resourceUri": resource,
            "policy": {"uri": "countersign:policies", "digest": {"sha256": self.policy.hex()}},
            "inputAttestations": inputs,
            "verificationResult": Self::result(passed),
            "verifiedLevels": [level],
            "slsaVersion": "1.1",
            EXTENSION: {
                "namespace": self.namespace,
                "environment": self.environment,
                "policies": self.policies,
                "reasons": self.reasons,
                "effect": effect,
                "trustedRoots": roots,
            },
        });
        Statement::new(vec![Subject { name, digest: self.digest }], predicate::VSA, predicate)
    }
}

fn input((at, bundle): &(Option<LogRef>, Digest)) -> Value {
    let digest = json!({"sha256": bundle.hex()});
    match at {
        Some(at) => json!({"uri": format!("log:{at}"), "digest": digest}),
        None => json!({"digest": digest}),
    }
}
