//! Who signed the artifact: N different ones of the listed signers.

use std::collections::BTreeMap;

use super::{
    entries,
    standing::{Case, Finding, Sorted, newest, signers},
};
use crate::model::{
    ImageRef, Reason, Verified,
    policy::{SignerRule, Signers},
    verdict::Code,
};

pub(super) fn check(case: &Case<'_>, wanted: &Signers) -> Finding {
    let max_age = case.policy.require.max_age;
    let sorted = case.sorted(&wanted.accept, &wanted.any_of);
    let fresh: Vec<&Verified> = sorted.live.iter().copied().filter(|one| case.fresh(one, max_age)).collect();
    let met = |statements: &[&Verified]| different(&wanted.any_of, statements) >= wanted.threshold;
    if met(&fresh) {
        return case.holds("signed", fresh);
    }
    if met(&sorted.live)
        && let Some(newest) = newest(sorted.live.iter().copied())
    {
        return Finding::Undecided(case.stale(Code::EvidenceStale, "signature", newest, max_age));
    }
    let mut with_void: Vec<&Verified> = sorted.live.clone();
    with_void.extend(sorted.void.iter().map(|void| void.statement));
    if let Some(void) = sorted.void.last()
        && (sorted.live.is_empty() || met(&with_void))
    {
        return Finding::Missing(case.voided("a signature", *void));
    }
    Finding::Missing(absent(case, wanted, &sorted))
}

/// Why nothing meets the requirement, when nothing was revoked.
fn absent(case: &Case<'_>, wanted: &Signers, sorted: &Sorted<'_>) -> Reason {
    let names = names(&wanted.any_of);
    if !sorted.live.is_empty() {
        let have = different(&wanted.any_of, &sorted.live);
        return case
            .reason(
                Code::ThresholdNotMet,
                format!(
                    "{have} of the {} signers it needs signed ({}); it names {names}",
                    wanted.threshold,
                    signers(sorted.live.iter().copied())
                ),
                format!("have {} more of them sign", wanted.threshold.saturating_sub(have)),
            )
            .with_evidence(entries(sorted.live.iter().copied()));
    }
    if !sorted.others.is_empty() {
        return case
            .reason(
                Code::IdentityNotAllowed,
                format!("signed by {}, and it wants {names}", signers(sorted.others.iter().copied())),
                "sign as one of those, or name this signer in the policy",
            )
            .with_evidence(entries(sorted.others.iter().copied()));
    }
    let digest = case.question.digest;
    if let Some(rejected) = case.evidence.rejected.first() {
        return case.reason(
            Code::SignatureInvalid,
            format!("what claims to sign {digest} does not verify: {}", rejected.reason),
            "sign it again; if you did not push that bundle, find out who did",
        );
    }
    if let Some((other, at)) = &case.evidence.signed_under_tag {
        let tag = case.question.image.and_then(ImageRef::tagged_name).unwrap_or_else(|| "the tag".to_owned());
        return case
            .reason(
                Code::TagMoved,
                format!("{tag} points to {digest}, which nobody signed; {other} was signed under that tag"),
                format!("run {other}, or sign {digest} if the tag was moved on purpose"),
            )
            .with_evidence(vec![at.clone()]);
    }
    case.reason(
        Code::SignatureMissing,
        format!("nothing that verifies signs {digest}; it wants {names}"),
        format!("run countersign sign for {digest} as one of those"),
    )
}

fn names(rules: &[SignerRule]) -> String {
    rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// How many of `rules` can be met by different signers at once: a maximum matching, so that one identity that two
/// rules describe counts once, and so does one rule that describes two identities.
pub(super) fn different(rules: &[SignerRule], statements: &[&Verified]) -> usize {
    let mut signers: Vec<&Verified> = Vec::new();
    for statement in statements {
        if !signers.iter().any(|known| known.signer() == statement.signer()) {
            signers.push(statement);
        }
    }
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    (0..rules.len()).filter(|rule| augment(rules, &signers, *rule, &mut vec![false; signers.len()], &mut taken)).count()
}

/// Finds `rule` a signer of its own, moving others to another one where needed (Kuhn's algorithm).
fn augment(
    rules: &[SignerRule],
    signers: &[&Verified],
    rule: usize,
    seen: &mut [bool],
    taken: &mut BTreeMap<usize, usize>,
) -> bool {
    for (index, signer) in signers.iter().enumerate() {
        let fits = rules.get(rule).is_some_and(|rule| rule.signed(signer));
        let Some(visited) = seen.get_mut(index) else { continue };
        if !fits || std::mem::replace(visited, true) {
            continue;
        }
        let free = match taken.get(&index).copied() {
            None => true,
            Some(holder) => augment(rules, signers, holder, seen, taken),
        };
        if free {
            taken.insert(index, rule);
            return true;
        }
    }
    false
}
