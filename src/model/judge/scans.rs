//! What each policy that limits vulnerabilities makes of the newest scan, apart from its other requirements: for
//! whoever has to compare two digests. The words are the judge's own, so that nothing is read twice or otherwise.

use super::{Question, decide, predicates, standing::Case, standing::newest};
use crate::model::{
    Decision, Evidence, Reason, Revocations, Verified,
    policy::{Check, Finding, Mode, PolicySet, Predicate, Scan},
};

/// One requirement of a policy that limits vulnerabilities, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The policy's name.
    pub policy: String,
    /// The policy's mode.
    pub mode: Mode,
    /// The newest scan by a signer whom the policy names, revoked or not.
    pub scan: Option<Scan>,
    /// Its findings over a limit. A revoked signer's bad news still counts.
    pub over: Vec<Finding>,
    /// The newest scan of the digest to compare with, by such a signer, none of it revoked.
    pub before: Option<Scan>,
    /// What the judge says of the requirement; the same decisions and reasons as in its verdict.
    pub said: Vec<(Decision, Reason)>,
}

/// Every limit on vulnerabilities in the policies that speak about the question, whatever their mode. `before` is the
/// evidence about another digest, to compare with.
pub fn demands(
    policies: &PolicySet,
    question: &Question<'_>,
    evidence: &Evidence,
    revocations: &Revocations,
    before: Option<&Evidence>,
) -> Vec<Demand> {
    let mut found = Vec::new();
    for policy in policies.select(question) {
        let case = Case { policy, question, evidence, revocations };
        for wanted in &policy.require.predicates {
            let Check::Vulnerabilities(limits) = &wanted.check else { continue };
            let scan = newest(named(&case, wanted)).map(Scan::of);
            let over = scan.iter().flat_map(|scan| limits.over(scan, question.now));
            let over = over.flat_map(|(_severity, findings)| findings).cloned().collect();
            let said = predicates::check(&case, wanted).into_iter().map(|finding| decide(finding, evidence)).collect();
            found.push(Demand {
                policy: policy.name.clone(),
                mode: policy.mode,
                scan,
                over,
                before: before.and_then(|before| unrevoked(&case, wanted, before)),
                said,
            });
        }
    }
    found
}

/// The scans by signers whom the requirement names.
fn named<'a>(case: &Case<'a>, wanted: &Predicate) -> impl Iterator<Item = &'a Verified> {
    case.of_types(&wanted.types).filter(|one| wanted.signers.iter().any(|signer| signer.signed(one)))
}

/// The newest scan of another digest that counts for the requirement. Its age does not matter: what it found is there.
fn unrevoked(case: &Case<'_>, wanted: &Predicate, evidence: &Evidence) -> Option<Scan> {
    let question = Question { digest: evidence.digest, ..case.question.clone() };
    let case = Case { question: &question, evidence, ..*case };
    newest(named(&case, wanted)).filter(|one| case.void(one).is_none()).map(Scan::of)
}
