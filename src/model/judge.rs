//! `evidence + policy + now -> verdict`: one pure function behind every door. Design §5.
//!
//! Every policy that speaks about the question must hold, and all of its requirements. What is known not to hold is
//! `Deny`, with a code that says what. What is *missing* is `Deny` when everything was read, and `Unknown` when a source
//! could not be read ([`Evidence::gap`]): it may stand there. What is too old, or cannot be evaluated, is `Unknown`
//! as well: it does not say that anything is wrong. Unknown is never dressed up as Deny, nor as Allow.
//!
//! Revocation (see [`super::revocation`]): a revoked artifact is `Deny`, whatever policies say. Statements of a revoked
//! signer are void; when one of them would have met the requirement, the reason says that it was revoked, rather than
//! that it is missing.
//!
//! Two properties, which tests hold: *adding a revocation never improves a verdict* (so the newest scan, test or
//! verification summary counts even when it is void: it does not uncover an older, kinder one), and *taking evidence away
//! never turns a no into a yes*. The second has limits, which come from what is asked: where the newest statement
//! counts, hiding it uncovers an older one (give `maxAge`), hiding one of several provenances uncovers fewer people
//! for `separateDuties`, and a CEL rule may ask for absence.
//!
//! A policy in mode `warn` or `audit` never makes a stricter one's verdict worse: see [`Judgement`].

mod approvals;
mod predicates;
mod rules;
mod scans;
mod signatures;
mod standing;

use jiff::Timestamp;

pub use self::scans::{Demand, demands};
use self::standing::{Case, Finding};
use super::{
    Decision, Digest, Evidence, ImageRef, LogRef, Reason, Revocations, Source, Verdict,
    policy::{Mode, NoMatch, Policy, PolicySet},
    verdict::Code,
};

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// The reference, as the caller gave it.
    pub image: Option<&'a ImageRef>,
    /// The digest that is judged: all evidence must name it.
    pub digest: Digest,
    /// The Kubernetes namespace, if there is one.
    pub namespace: Option<&'a str>,
    /// The environment, if it is known.
    pub environment: Option<&'a str>,
    /// The service, if it is known.
    pub service: Option<&'a str>,
    /// The time for which the answer is given.
    pub now: Timestamp,
}

/// The answer of every policy that speaks about the question.
///
/// `mode` is the strictest mode among those policies, and `verdict` joins those of that mode. What milder policies
/// object to rides along: of `warn` as warnings in the verdict, of `audit` in `audited`, for the audit log only.
#[derive(Debug, Clone)]
pub struct Judgement {
    /// Yes, no or could not tell, with reasons.
    pub verdict: Verdict,
    /// What follows from a verdict that is not `Allow`.
    pub mode: Mode,
    /// What policies in mode `audit` object to, beside stricter ones.
    pub audited: Vec<Reason>,
}

/// `evidence + policy + now -> verdict`; pure.
pub fn judge(
    policies: &PolicySet,
    question: &Question<'_>,
    evidence: &Evidence,
    revocations: &Revocations,
) -> Judgement {
    let selected: Vec<&Policy> = policies.select(question).collect();
    let mode = selected.iter().map(|policy| policy.mode).min_by_key(|mode| strictness(*mode)).unwrap_or_default();
    let mut verdict = Verdict {
        decision: Decision::Allow,
        reasons: Vec::new(),
        warnings: Vec::new(),
        policies: selected.iter().map(|policy| (policy.name.clone(), policies.digest())).collect(),
    };
    let mut audited = Vec::new();
    if let Some(reason) = revoked(question, revocations) {
        return Judgement {
            verdict: Verdict { decision: Decision::Deny, reasons: vec![reason], ..verdict },
            mode,
            audited,
        };
    }
    if selected.is_empty() {
        return Judgement { verdict: unmatched(policies.no_match(), question, verdict), mode, audited };
    }
    let (mut held, mut against) = (Vec::new(), Vec::new());
    for policy in selected {
        let case = Case { policy, question, evidence, revocations };
        for finding in examine(&case) {
            let (decision, reason) = decide(finding, evidence);
            match (decision, policy.mode) {
                (Decision::Allow, _) => held.push(reason),
                (decision, own) if own == mode => {
                    verdict.decision = verdict.decision.and(decision);
                    against.push((decision, reason));
                }
                (_, Mode::Audit) => audited.push(reason),
                (_, Mode::Warn | Mode::Enforce) => verdict.warnings.push(reason),
            }
        }
    }
    // What is known not to hold stands before what could not be told.
    against.sort_by_key(|(decision, _)| *decision != Decision::Deny);
    verdict.reasons = if against.is_empty() { held } else { against.into_iter().map(|(_, reason)| reason).collect() };
    Judgement { verdict, mode, audited }
}

const fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Enforce => 0,
        Mode::Warn => 1,
        Mode::Audit => 2,
    }
}

/// Everything that one policy has to say.
fn examine(case: &Case<'_>) -> Vec<Finding> {
    let require = &case.policy.require;
    let mut findings = Vec::new();
    if require.digest_required {
        findings.extend(digest_required(case));
    }
    if let Some(signers) = &require.signers {
        findings.push(signatures::check(case, signers));
    }
    for predicate in &require.predicates {
        findings.extend(predicates::check(case, predicate));
    }
    if let Some(approvals) = &require.approvals {
        findings.extend(approvals::check(case, approvals));
    }
    findings.extend(rules::check(case));
    findings
}

/// What a finding means, given how completely evidence could be read.
fn decide(finding: Finding, evidence: &Evidence) -> (Decision, Reason) {
    match finding {
        Finding::Holds(reason) => (Decision::Allow, reason),
        Finding::Fails(reason) => (Decision::Deny, reason),
        Finding::Undecided(reason) => (Decision::Unknown, reason),
        Finding::Missing(reason) => match evidence.gap() {
            None => (Decision::Deny, reason),
            Some((source, why)) => (Decision::Unknown, unread(source, why, reason)),
        },
    }
}

fn unread(source: Source, why: &str, missing: Reason) -> Reason {
    let (code, place) = match source {
        Source::Registry => (Code::RegistryUnavailable, "the registry"),
        Source::Log => (Code::Other, "the log"),
        Source::Given => (Code::Other, "the bundle that was handed in"),
    };
    Reason {
        code,
        message: format!("{}; but {place} could not be read, and it may be there: {why}", missing.message),
        evidence: missing.evidence,
        remedy: format!("ask again when {place} can be read"),
    }
}

fn revoked(question: &Question<'_>, revocations: &Revocations) -> Option<Reason> {
    let (revocation, at) = revocations.artifact(&question.digest, question.now)?;
    let message = format!("{} is revoked since {}: {}", question.digest, revocation.since, revocation.reason);
    Some(
        Reason::new(Code::ArtifactRevoked, message, "run another digest; a revocation is not taken back")
            .with_evidence(vec![at.clone()]),
    )
}

fn unmatched(no_match: NoMatch, question: &Question<'_>, mut verdict: Verdict) -> Verdict {
    let what = question.image.map_or_else(|| question.digest.to_string(), ToString::to_string);
    let reason = Reason::new(
        Code::NoPolicyMatched,
        format!("no policy speaks about {what}"),
        "add a policy that matches it, or set noMatch",
    );
    match no_match {
        NoMatch::Deny => verdict.decision = Decision::Deny,
        NoMatch::Unknown => verdict.decision = Decision::Unknown,
        NoMatch::Allow => {}
        NoMatch::Warn => {
            verdict.warnings.push(reason);
            return verdict;
        }
    }
    verdict.reasons.push(reason);
    verdict
}

fn digest_required(case: &Case<'_>) -> Option<Finding> {
    let image = case.question.image?;
    let name = &case.policy.name;
    Some(if image.digest.is_some() {
        Finding::Holds(Reason::new(Code::Satisfied, format!("policy {name}: the reference names a digest"), ""))
    } else {
        Finding::Fails(Reason::new(
            Code::DigestRequired,
            format!("policy {name}: {image} names no digest"),
            format!("write {}", image.pinned(case.question.digest)),
        ))
    })
}

/// The log entries of these, for a reason.
fn entries<'a>(statements: impl IntoIterator<Item = &'a super::Verified>) -> Vec<LogRef> {
    let mut entries: Vec<_> = statements.into_iter().filter_map(|one| one.log().cloned()).collect();
    entries.sort();
    entries.dedup();
    entries
}
