//! Statements that must be there, and what they must say.

use serde_json::Value;

use super::{
    entries,
    standing::{Case, Finding, Sorted, newest, signers},
};
use crate::model::{
    Verified, limits,
    policy::{Age, Check, Globs, Predicate, Provenance, Scan, Vsa, VulnerabilityLimits},
    predicate,
    verdict::Code,
};

/// Names what is wrong with one statement.
type Objection = (Code, String);

pub(super) fn check(case: &Case<'_>, wanted: &Predicate) -> Vec<Finding> {
    let sorted = case.sorted(&wanted.types, &wanted.signers);
    match &wanted.check {
        Check::Present => vec![any(case, wanted, &sorted, &what(wanted), |_statement| None)],
        Check::Provenance(limits) => {
            vec![any(case, wanted, &sorted, "provenance", |one| provenance(limits, one.statement().predicate()))]
        }
        Check::Vulnerabilities(limits) => newest_only(case, wanted, &sorted, "vulnerability scan", |one| {
            vulnerabilities(case, limits, one, wanted.max_age)
        }),
        Check::Tests => newest_only(case, wanted, &sorted, "test result", |one| vec![tests(case, one, wanted.max_age)]),
        Check::Vsa(limits) => {
            let verifier = |one: &Verified| {
                text(one.statement().predicate(), "/verifier/id").is_some_and(|id| limits.verifiers.matches(id))
            };
            let sorted = Sorted {
                live: sorted.live.into_iter().filter(|one| verifier(one)).collect(),
                void: sorted.void.into_iter().filter(|void| verifier(void.statement)).collect(),
                others: sorted.others,
            };
            newest_only(case, wanted, &sorted, "verification summary", |one| {
                vec![vsa(case, limits, one, wanted.max_age)]
            })
        }
    }
}

/// One good statement is enough.
fn any(
    case: &Case<'_>,
    wanted: &Predicate,
    sorted: &Sorted<'_>,
    what: &str,
    objection: impl Fn(&Verified) -> Option<Objection>,
) -> Finding {
    let good: Vec<&Verified> = sorted.live.iter().copied().filter(|one| objection(one).is_none()).collect();
    let fresh: Vec<&Verified> = good.iter().copied().filter(|one| case.fresh(one, wanted.max_age)).collect();
    if !fresh.is_empty() {
        return case.holds(what, fresh);
    }
    if let Some(newest) = newest(good) {
        return Finding::Undecided(case.stale(Code::EvidenceStale, what, newest, wanted.max_age));
    }
    if let Some(void) = sorted.void.iter().rev().find(|void| objection(void.statement).is_none()) {
        return Finding::Missing(case.voided(what, *void));
    }
    let objected = newest(sorted.live.iter().copied()).and_then(|one| Some((one, objection(one)?)));
    if let Some((statement, (code, message))) = objected {
        let reason = case.reason(code, message, "build where the policy allows it, or allow this in the policy");
        return Finding::Missing(reason.with_evidence(entries([statement])));
    }
    absent(case, wanted, sorted, what)
}

/// Only the newest statement counts; a void one does not uncover an older one.
fn newest_only(
    case: &Case<'_>,
    wanted: &Predicate,
    sorted: &Sorted<'_>,
    what: &str,
    findings: impl Fn(&Verified) -> Vec<Finding>,
) -> Vec<Finding> {
    let all = case.of_types(&wanted.types).filter(|one| {
        let live = sorted.live.iter().any(|known| std::ptr::eq(*known, *one));
        live || sorted.void.iter().any(|void| std::ptr::eq(void.statement, *one))
    });
    let Some(newest) = newest(all) else {
        return vec![absent(case, wanted, sorted, what)];
    };
    match sorted.void.iter().find(|void| std::ptr::eq(void.statement, newest)) {
        Some(void) => vec![Finding::Missing(case.voided(&format!("the newest {what}"), *void))],
        None => findings(newest),
    }
}

/// Why there is nothing.
fn absent(case: &Case<'_>, wanted: &Predicate, sorted: &Sorted<'_>, what: &str) -> Finding {
    let names = wanted.signers.iter().map(|signer| signer.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(void) = sorted.void.last() {
        return Finding::Missing(case.voided(what, *void));
    }
    if !sorted.others.is_empty() {
        let others = || sorted.others.iter().copied();
        let message = format!("{what} is signed by {}, and it wants {names}", signers(others()));
        let reason =
            case.reason(Code::IdentityNotAllowed, message, "attest as one of those, or name this signer in the policy");
        return Finding::Missing(reason.with_evidence(entries(others())));
    }
    let code = match wanted.check {
        Check::Provenance(_) => Code::ProvenanceMissing,
        _ if wanted.types.iter().any(|one| one == predicate::SLSA_PROVENANCE) => Code::ProvenanceMissing,
        _ => Code::PredicateMissing,
    };
    let message = format!("no {what} of {} by {names}", case.question.digest);
    let kind = wanted.types.first().map(String::as_str).unwrap_or_default();
    Finding::Missing(case.reason(code, message, format!("run countersign attest with a predicate of type {kind}")))
}

fn what(wanted: &Predicate) -> String {
    format!("statement of type {}", wanted.types.join(" or "))
}

fn text<'a>(predicate: &'a Value, pointer: &str) -> Option<&'a str> {
    predicate.pointer(pointer).and_then(Value::as_str)
}

/// Where provenance, of version 1 or 0.2, names its source: any of these must be allowed, and all that name a
/// repository of the build itself.
fn sources(predicate: &Value) -> Vec<&str> {
    const OWN: [&str; 4] = [
        "/buildDefinition/externalParameters/workflow/repository",
        "/buildDefinition/externalParameters/source/uri",
        "/buildDefinition/externalParameters/source",
        "/invocation/configSource/uri",
    ];
    let own: Vec<_> = OWN.iter().filter_map(|pointer| text(predicate, pointer)).collect();
    if !own.is_empty() {
        return own;
    }
    let resolved = predicate.pointer("/buildDefinition/resolvedDependencies").and_then(Value::as_array);
    resolved.into_iter().flatten().filter_map(|one| text(one, "/uri")).filter(|uri| uri.starts_with("git+")).collect()
}

/// A source without what varies: `git+https://host/repo@refs/heads/main` is `https://host/repo`.
fn repository(source: &str) -> &str {
    let plain = source.strip_prefix("git+").unwrap_or(source);
    let plain = plain.split_once('#').map_or(plain, |(plain, _fragment)| plain);
    // An at sign before the path belongs to the user part, as in ssh://git@host/repo.
    let path = plain.find("://").map_or(0, |scheme| scheme + 3);
    let slash = plain.get(path..).and_then(|rest| rest.find('/')).map_or(plain.len(), |at| path + at);
    let end = plain.get(slash..).and_then(|rest| rest.find('@')).map_or(plain.len(), |at| slash + at);
    plain.get(..end).unwrap_or(plain)
}

fn provenance(wanted: &Provenance, predicate: &Value) -> Option<Objection> {
    let refused = |allowed: Option<&Globs>, found: Option<&str>, what: &str, code: Code| {
        let allowed = allowed.filter(|globs| !found.is_some_and(|text| globs.matches(text)))?;
        let found = limits::quoted(&found.unwrap_or("none"));
        Some((code, format!("provenance names {what} {found}, and it wants {}", allowed.list())))
    };
    let builder = text(predicate, "/runDetails/builder/id").or_else(|| text(predicate, "/builder/id"));
    let build_type = text(predicate, "/buildDefinition/buildType").or_else(|| text(predicate, "/buildType"));
    refused(wanted.builders.as_ref(), builder, "builder", Code::BuilderNotAllowed)
        .or_else(|| refused(wanted.build_types.as_ref(), build_type, "build type", Code::BuilderNotAllowed))
        .or_else(|| {
            let found = sources(predicate);
            let allowed = wanted.sources.as_ref()?;
            let bad = found.iter().copied().find(|one| !allowed.matches(repository(one)) && !allowed.matches(one));
            match (bad, found.is_empty()) {
                (None, false) => None,
                (bad, _) => refused(Some(allowed), bad, "source", Code::SourceNotAllowed),
            }
        })
}

fn vulnerabilities(case: &Case<'_>, limits: &VulnerabilityLimits, one: &Verified, age: Option<Age>) -> Vec<Finding> {
    const SHOWN: usize = 5;
    let scan = Scan::of(one);
    let mut findings: Vec<Finding> = limits
        .over(&scan, case.question.now)
        .into_iter()
        .map(|(severity, found)| {
            let ids: Vec<_> = found.iter().take(SHOWN).map(|finding| finding.id.as_str()).collect();
            let more = if found.len() > SHOWN { ", …" } else { "" };
            let most = limits.most.get(&severity).copied().unwrap_or_default();
            let message = format!(
                "the newest scan has {} {severity} findings, and {most} may be there: {}{more}",
                found.len(),
                ids.join(", ")
            );
            let remedy = "fix them and scan again, or ignore one by id and date in the policy";
            Finding::Fails(case.reason(Code::VulnerabilityLimit, message, remedy).with_evidence(entries([one])))
        })
        .collect();
    if let Some(message) = limits.stale(&scan, case.question.now) {
        let reason = case.reason(Code::ScanStale, message, "scan again with a current database");
        findings.push(Finding::Undecided(reason.with_evidence(entries([one]))));
    } else if !case.fresh(one, age) {
        findings.push(Finding::Undecided(case.stale(Code::ScanStale, "vulnerability scan", one, age)));
    }
    if findings.is_empty() {
        findings.push(case.holds("scan within the limits", [one]));
    }
    findings
}

fn tests(case: &Case<'_>, one: &Verified, age: Option<Age>) -> Finding {
    let result = text(one.statement().predicate(), "/result").unwrap_or("nothing");
    if result != "PASSED" {
        let message = format!("the newest test result says {result}");
        let reason = case.reason(Code::TestsFailed, message, "make the tests pass and record the result");
        return Finding::Fails(reason.with_evidence(entries([one])));
    }
    if !case.fresh(one, age) {
        return Finding::Undecided(case.stale(Code::EvidenceStale, "test result", one, age));
    }
    case.holds("tests passed", [one])
}

fn vsa(case: &Case<'_>, wanted: &Vsa, one: &Verified, age: Option<Age>) -> Finding {
    let predicate = one.statement().predicate();
    let fails = |message: String| {
        let reason = case.reason(Code::Other, message, "verify the artifact again, and record a summary that passes");
        Finding::Fails(reason.with_evidence(entries([one])))
    };
    let result = text(predicate, "/verificationResult").unwrap_or("nothing");
    if result != "PASSED" {
        return fails(format!("the newest verification summary says {result}"));
    }
    let resource = text(predicate, "/resourceUri").unwrap_or_default();
    if wanted.resources.as_ref().is_some_and(|globs| !globs.matches(resource)) {
        return fails(format!("the newest verification summary is about {:?}", limits::quoted(&resource)));
    }
    let verified: Vec<&str> = predicate
        .pointer("/verifiedLevels")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if let Some(lacking) = wanted.levels.iter().find(|level| !verified.iter().any(|have| reaches(have, level))) {
        return fails(format!(
            "the newest verification summary does not reach {lacking}; it has {}",
            limits::quoted(&verified.join(", "))
        ));
    }
    if !case.fresh(one, age) {
        return Finding::Undecided(case.stale(Code::EvidenceStale, "verification summary", one, age));
    }
    case.holds("verification summary", [one])
}

/// Whether a level is the wanted one, or a higher one of the same track (`SLSA_BUILD_LEVEL_3` for `…_2`).
fn reaches(have: &str, wanted: &str) -> bool {
    let number = |text: &str| {
        let (track, level) = text.rsplit_once("_LEVEL_")?;
        Some((track.to_owned(), level.parse::<u8>().ok()?))
    };
    have == wanted
        || matches!((number(have), number(wanted)), (Some((track, have)), Some((same, wanted))) if track == same && have >= wanted)
}
