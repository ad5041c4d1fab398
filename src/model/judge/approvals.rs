//! People who must have said yes to this digest, in this environment.

use super::{
    entries,
    signatures::different,
    standing::{Case, Finding, signers},
};
use crate::model::{
    Verified,
    policy::{Approvals, SLSA_PROVENANCE_V0_2, SignerRule},
    predicate,
    verdict::Code,
};

pub(super) fn check(case: &Case<'_>, wanted: &Approvals) -> Option<Finding> {
    let Some(environment) = case.question.environment else {
        let message = "an approval is for an environment, and the question names none";
        return Some(Finding::Undecided(case.reason(Code::ApprovalMissing, message, "ask with an environment")));
    };
    if wanted.environments.as_ref().is_some_and(|globs| !globs.matches(environment)) {
        return None;
    }
    let sorted = case.sorted(&[predicate::APPROVAL], &wanted.approvers);
    let builders = builders(case, wanted);
    let meant = |one: &Verified| {
        let stands_for =
            |field: &str, asked: Option<&str>| asked.is_none_or(|asked| field_of(one, field) == Some(asked));
        stands_for("environment", Some(environment))
            && stands_for("service", case.question.service)
            && !expired(case, one)
    };
    let apart = |one: &Verified| !builders.iter().any(|builder| builder.signer() == one.signer());
    let meant_live: Vec<&Verified> = sorted.live.iter().copied().filter(|one| meant(one)).collect();
    let live: Vec<&Verified> = meant_live.iter().copied().filter(|one| apart(one)).collect();
    let fresh: Vec<&Verified> = live.iter().copied().filter(|one| case.fresh(one, wanted.max_age)).collect();
    let have = people(wanted, &fresh);
    if have >= wanted.count {
        return Some(case.holds("approved", fresh));
    }
    if people(wanted, &live) >= wanted.count
        && let Some(newest) = super::standing::newest(live.iter().copied())
    {
        return Some(Finding::Undecided(case.stale(Code::EvidenceStale, "approval", newest, wanted.max_age)));
    }
    if let Some(void) = sorted.void.iter().rev().find(|void| meant(void.statement) && apart(void.statement)) {
        return Some(Finding::Missing(case.voided("an approval", *void)));
    }
    let mut message = format!("{have} of {} approvals for {environment} by {}", wanted.count, names(&wanted.approvers));
    if meant_live.len() > live.len() {
        let own = meant_live.iter().copied().filter(|one| !apart(one));
        message = format!("{message}; {} signed the provenance and cannot approve it", signers(own));
    }
    let remedy = format!("run countersign approve for {} in {environment}", case.question.digest);
    let reason = case.reason(Code::ApprovalMissing, message, remedy).with_evidence(entries(live));
    Some(Finding::Missing(reason))
}

/// Whoever signed provenance, void or not, if duties are to be separate.
fn builders<'a>(case: &Case<'a>, wanted: &Approvals) -> Vec<&'a Verified> {
    if !wanted.separate_duties {
        return Vec::new();
    }
    case.of_types(&[predicate::SLSA_PROVENANCE, SLSA_PROVENANCE_V0_2]).collect()
}

/// How many different people approved: a rule may describe many (`.*@example.com`), each of whom counts once.
fn people(wanted: &Approvals, approvals: &[&Verified]) -> usize {
    let mut people: Vec<&Verified> = Vec::new();
    for approval in approvals {
        if different(&wanted.approvers, &[approval]) > 0 && !people.iter().any(|one| one.signer() == approval.signer())
        {
            people.push(approval);
        }
    }
    people.len()
}

fn field_of<'a>(approval: &'a Verified, field: &str) -> Option<&'a str> {
    approval.statement().predicate().get(field).and_then(serde_json::Value::as_str)
}

/// Whether the approval says until when it counts, and that is over (or unreadable).
fn expired(case: &Case<'_>, approval: &Verified) -> bool {
    approval.statement().predicate().get("expiresAt").is_some_and(|until| {
        let until = until.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        until.is_none_or(|until| until <= case.question.now)
    })
}

fn names(rules: &[SignerRule]) -> String {
    rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ")
}
