//! Policy and the judge: which evidence meets which requirement, and what is said when it does not.

use std::sync::Arc;

use countersign::model::{
    Decision, Digest, Evidence, Identity, ImageRef, LogRef, Outcome, Rejection, Revocation, Revocations, Signer,
    Source, Statement, Subject, Verified,
    evidence::Rejected,
    judge::{Judgement, Question, demands, judge},
    policy::{Age, Mode, PolicyError, PolicySet},
    predicate,
    revocation::Target,
    verdict::Code,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

const ISSUER: &str = "https://sso.example.com";
const IMAGE: &str = "registry.example.com/shop/web:1.0";

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

fn digest() -> Digest {
    Digest::of(b"image")
}

fn identity(name: &str) -> Identity {
    Identity { subject: format!("{name}@example.com"), issuer: ISSUER.to_owned() }
}

fn at(index: u64) -> LogRef {
    LogRef { origin: "log.example.com".to_owned(), index }
}

/// A statement as if it had been verified.
fn said(name: &str, kind: &str, predicate: Value, signed: Timestamp) -> Arc<Verified> {
    let subject = Subject { name: String::new(), digest: digest() };
    let statement = Statement::new(vec![subject], kind, predicate).unwrap();
    let key = Digest::of(name.as_bytes());
    Arc::new(Verified::assume_unsafe(statement, Signer::Identity(identity(name)), key, Some(signed), Some(at(7))))
}

fn signed(name: &str) -> Arc<Verified> {
    said(name, predicate::SIGN, json!({}), ago(1))
}

fn built(name: &str, builder: &str, source: &str) -> Arc<Verified> {
    let predicate = json!({
        "buildDefinition": {
            "buildType": "https://example.com/build/v1",
            "externalParameters": {"workflow": {"repository": source}},
        },
        "runDetails": {"builder": {"id": builder}},
    });
    said(name, predicate::SLSA_PROVENANCE, predicate, ago(1))
}

fn good_build(name: &str) -> Arc<Verified> {
    built(name, "https://builder.example.com/1", "https://git.example.com/shop/web")
}

fn scan(name: &str, findings: &Value, finished: Timestamp, database: Timestamp) -> Arc<Verified> {
    let predicate = json!({
        "scanner": {"uri": "pkg:scanner", "db": {"lastUpdate": database.to_string()}, "result": findings},
        "metadata": {"scanFinishedOn": finished.to_string()},
    });
    said(name, predicate::VULNS, predicate, finished)
}

fn finding(id: &str, severity: &str) -> Value {
    json!({"id": id, "severity": [{"method": "nvd", "score": severity}]})
}

fn tested(result: &str, when: Timestamp) -> Arc<Verified> {
    said("ci", predicate::TEST_RESULT, json!({"result": result, "configuration": []}), when)
}

fn summary(result: &str, levels: &Value) -> Arc<Verified> {
    let predicate = json!({
        "verifier": {"id": "https://verifier.example.com"}, "timeVerified": "2026-11-24T10:00:00Z",
        "resourceUri": "registry.example.com/shop/web", "policy": {"uri": "https://example.com/policy"},
        "verificationResult": result, "verifiedLevels": levels,
    });
    said("ci", predicate::VSA, predicate, ago(2))
}

fn approved(name: &str, environment: &str, when: Timestamp) -> Arc<Verified> {
    said(name, predicate::APPROVAL, json!({"service": "web", "environment": environment}), when)
}

/// A policy document around what is required.
fn policy(require: &str) -> String {
    let indented = require.trim_matches('\n').replace('\n', "\n      ");
    format!(
        "apiVersion: countersign.dev/v1\nidentities:\n  \
         - {{name: ci, issuer: '{ISSUER}', subject: ci@example.com}}\n  \
         - {{name: boss, issuer: '{ISSUER}', subject: boss@example.com}}\n  \
         - {{name: lead, issuer: '{ISSUER}', subject: lead@example.com}}\n\
         policies:\n  - name: shop\n    match: {{images: ['registry.example.com/**']}}\n    require:\n      {indented}\n"
    )
}

fn parse(require: &str) -> PolicySet {
    let text = policy(require);
    PolicySet::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn complete(statements: Vec<Arc<Verified>>) -> Evidence {
    let mut evidence = Evidence::new(digest());
    evidence.statements = statements;
    evidence.sources.push((Source::Log, Outcome::Complete(now())));
    evidence
}

fn with_gap(statements: Vec<Arc<Verified>>) -> Evidence {
    let mut evidence = complete(statements);
    evidence.sources.push((Source::Registry, Outcome::Unavailable("throttled".to_owned())));
    evidence
}

fn ask(policies: &PolicySet, evidence: &Evidence, revocations: &Revocations) -> Judgement {
    let image: ImageRef = IMAGE.parse().unwrap();
    let question = Question {
        image: Some(&image),
        digest: digest(),
        namespace: Some("shop"),
        environment: Some("production"),
        service: Some("web"),
        now: now(),
    };
    judge(policies, &question, evidence, revocations)
}

fn outcome(require: &str, evidence: &Evidence) -> (Decision, Option<Code>) {
    let verdict = ask(&parse(require), evidence, &Revocations::default()).verdict;
    (verdict.decision, verdict.reasons.first().map(|reason| reason.code))
}

fn revoke(target: Target, since: Timestamp) -> Revocations {
    let mut revocations = Revocations::default();
    revocations.insert(Revocation { target, since, reason: "stolen".to_owned() }, at(99));
    revocations
}

const SIGNERS: &str = "signers: {anyOf: [{name: ci}]}";
const TWO: &str = "signers: {threshold: 2, anyOf: [{name: ci}, {name: boss}]}";
const AGED: &str = "signers: {anyOf: [{name: ci}]}\nmaxAge: 24h";
const BUILT: &str = "predicates: [{signers: [ci], provenance: {builders: ['https://builder.example.com/*'], \
                     sources: ['https://git.example.com/shop/*']}}]";
const SCANNED: &str = "predicates: [{signers: [ci], vulnerabilities: {maxSeverity: medium, maxAge: 7d, \
                       maxDatabaseAge: 2d, ignore: [{id: CVE-1, until: 2026-12-01}, {id: CVE-2, until: 2026-11-01}]}}]";
const TESTED: &str = "predicates: [{signers: [ci], tests: {maxAge: 7d}}]";
const SBOM: &str = "predicates: [{signers: [ci], sbom: {formats: [spdx, cyclonedx]}}]";
const VSA: &str = "predicates: [{signers: [ci], vsa: {verifiers: ['https://verifier.example.com'], \
                   levels: [SLSA_BUILD_LEVEL_2]}}]";
const APPROVED: &str =
    "approvals: {count: 2, approvers: [{name: boss}, {name: lead}, {name: ci}], separateDuties: true, maxAge: 7d}";

/// A name, what is required, what is known, and what is expected.
type Row = (&'static str, &'static str, Vec<Arc<Verified>>, Decision, Code);

#[test]
fn each_requirement_says_what_it_lacks() {
    let key = said("other", predicate::SIGN, json!({}), ago(1));
    let old = said("ci", predicate::SIGN, json!({}), ago(48));
    let none = json!([]);
    let fresh = |findings: Value| scan("ci", &findings, ago(1), ago(2));
    let bom = |kind: &str| said("ci", kind, json!({"bomFormat": "CycloneDX", "specVersion": "1.5"}), ago(1));
    let expired = said(
        "lead",
        predicate::APPROVAL,
        json!({"service": "web", "environment": "production", "expiresAt": "2026-11-24T11:00:00Z"}),
        ago(5),
    );
    let yes = |name: &str| approved(name, "production", ago(5));
    let cases: Vec<Row> = vec![
        ("signed", SIGNERS, vec![signed("ci")], Decision::Allow, Code::Satisfied),
        ("unsigned", SIGNERS, vec![], Decision::Deny, Code::SignatureMissing),
        ("by another", SIGNERS, vec![key], Decision::Deny, Code::IdentityNotAllowed),
        ("provenance is no signature", SIGNERS, vec![good_build("ci")], Decision::Deny, Code::SignatureMissing),
        ("one of two", TWO, vec![signed("ci")], Decision::Deny, Code::ThresholdNotMet),
        ("twice the same", TWO, vec![signed("ci"), signed("ci")], Decision::Deny, Code::ThresholdNotMet),
        ("two of two", TWO, vec![signed("ci"), signed("boss")], Decision::Allow, Code::Satisfied),
        ("signature too old", AGED, vec![old], Decision::Unknown, Code::EvidenceStale),
        ("no provenance", BUILT, vec![signed("ci")], Decision::Deny, Code::ProvenanceMissing),
        ("provenance", BUILT, vec![good_build("ci")], Decision::Allow, Code::Satisfied),
        ("provenance by another", BUILT, vec![good_build("eve")], Decision::Deny, Code::IdentityNotAllowed),
        (
            "other builder",
            BUILT,
            vec![built("ci", "https://evil.example.com/1", "https://git.example.com/shop/web")],
            Decision::Deny,
            Code::BuilderNotAllowed,
        ),
        (
            "other source",
            BUILT,
            vec![built("ci", "https://builder.example.com/1", "https://git.example.com/fork/web")],
            Decision::Deny,
            Code::SourceNotAllowed,
        ),
        (
            "glob stays in one element",
            BUILT,
            vec![built("ci", "https://builder.example.com/1", "https://git.example.com/shop/web/evil")],
            Decision::Deny,
            Code::SourceNotAllowed,
        ),
        ("no scan", SCANNED, vec![], Decision::Deny, Code::PredicateMissing),
        ("clean scan", SCANNED, vec![fresh(none.clone())], Decision::Allow, Code::Satisfied),
        ("medium", SCANNED, vec![fresh(json!([finding("CVE-9", "6.9")]))], Decision::Allow, Code::Satisfied),
        ("high", SCANNED, vec![fresh(json!([finding("CVE-9", "7.0")]))], Decision::Deny, Code::VulnerabilityLimit),
        ("unrated", SCANNED, vec![fresh(json!([{"id": "CVE-9"}]))], Decision::Deny, Code::VulnerabilityLimit),
        ("ignored", SCANNED, vec![fresh(json!([finding("CVE-1", "high")]))], Decision::Allow, Code::Satisfied),
        (
            "no longer ignored",
            SCANNED,
            vec![fresh(json!([finding("CVE-2", "high")]))],
            Decision::Deny,
            Code::VulnerabilityLimit,
        ),
        ("old scan", SCANNED, vec![scan("ci", &none, ago(24 * 8), ago(1))], Decision::Unknown, Code::ScanStale),
        ("old database", SCANNED, vec![scan("ci", &none, ago(1), ago(24 * 3))], Decision::Unknown, Code::ScanStale),
        ("future scan", SCANNED, vec![scan("ci", &none, ago(-24), ago(1))], Decision::Unknown, Code::ScanStale),
        ("tests passed", TESTED, vec![tested("PASSED", ago(1))], Decision::Allow, Code::Satisfied),
        ("tests failed", TESTED, vec![tested("FAILED", ago(1))], Decision::Deny, Code::TestsFailed),
        (
            "the newest result counts",
            TESTED,
            vec![tested("FAILED", ago(1)), tested("PASSED", ago(2))],
            Decision::Deny,
            Code::TestsFailed,
        ),
        ("tests too old", TESTED, vec![tested("PASSED", ago(24 * 8))], Decision::Unknown, Code::EvidenceStale),
        ("no SBOM", SBOM, vec![], Decision::Deny, Code::PredicateMissing),
        ("SBOM", SBOM, vec![bom("https://cyclonedx.org/bom/v1.5")], Decision::Allow, Code::Satisfied),
        ("VSA", VSA, vec![summary("PASSED", &json!(["SLSA_BUILD_LEVEL_3"]))], Decision::Allow, Code::Satisfied),
        ("VSA level", VSA, vec![summary("PASSED", &json!(["SLSA_BUILD_LEVEL_1"]))], Decision::Deny, Code::Other),
        ("VSA failed", VSA, vec![summary("FAILED", &json!(["SLSA_BUILD_LEVEL_3"]))], Decision::Deny, Code::Other),
        ("no approval", APPROVED, vec![yes("boss")], Decision::Deny, Code::ApprovalMissing),
        ("approved", APPROVED, vec![yes("boss"), yes("lead")], Decision::Allow, Code::Satisfied),
        ("approved twice by one", APPROVED, vec![yes("boss"), yes("boss")], Decision::Deny, Code::ApprovalMissing),
        ("approval expired", APPROVED, vec![yes("boss"), expired], Decision::Deny, Code::ApprovalMissing),
        (
            "approved elsewhere",
            APPROVED,
            vec![yes("boss"), approved("lead", "staging", ago(5))],
            Decision::Deny,
            Code::ApprovalMissing,
        ),
        ("builder approves", APPROVED, vec![yes("boss"), yes("ci")], Decision::Allow, Code::Satisfied),
        (
            "builder approves own build",
            APPROVED,
            vec![yes("boss"), yes("ci"), good_build("ci")],
            Decision::Deny,
            Code::ApprovalMissing,
        ),
        ("no digest", "digestRequired: true", vec![], Decision::Deny, Code::DigestRequired),
    ];
    for (name, require, statements, decision, code) in cases {
        assert_eq!(outcome(require, &complete(statements)), (decision, Some(code)), "{name}");
    }
}

#[test]
fn what_is_missing_is_unknown_while_a_source_cannot_be_read() {
    for (name, require, statements) in [
        ("unsigned", SIGNERS, vec![]),
        ("by another", SIGNERS, vec![signed("eve")]),
        ("no provenance", BUILT, vec![]),
        ("other builder", BUILT, vec![built("ci", "https://evil.example.com", "https://git.example.com/shop/web")]),
        ("no approval", APPROVED, vec![]),
    ] {
        assert_eq!(outcome(require, &complete(statements.clone())).0, Decision::Deny, "{name}");
        let (decision, code) = outcome(require, &with_gap(statements));
        assert_eq!((decision, code), (Decision::Unknown, Some(Code::RegistryUnavailable)), "{name}");
    }
    // What is there is enough, and what is known to be wrong stays wrong.
    assert_eq!(outcome(SIGNERS, &with_gap(vec![signed("ci")])).0, Decision::Allow);
    assert_eq!(outcome("digestRequired: true", &with_gap(vec![])).0, Decision::Deny);
    assert_eq!(outcome(TESTED, &with_gap(vec![tested("FAILED", ago(1))])).1, Some(Code::TestsFailed));
    let both = format!("{SIGNERS}\n{TESTED}");
    let verdict = ask(&parse(&both), &with_gap(vec![tested("FAILED", ago(1))]), &Revocations::default()).verdict;
    let codes: Vec<_> = verdict.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!((verdict.decision, codes), (Decision::Deny, vec![Code::TestsFailed, Code::RegistryUnavailable]));
}

#[test]
fn nothing_signed_says_why() {
    let mut evidence = complete(vec![]);
    evidence.signed_under_tag = Some((Digest::of(b"before"), at(3)));
    let verdict = ask(&parse(SIGNERS), &evidence, &Revocations::default()).verdict;
    let reason = &verdict.reasons[0];
    assert_eq!((reason.code, &reason.evidence), (Code::TagMoved, &vec![at(3)]));
    for named in [Digest::of(b"before").to_string(), digest().to_string(), IMAGE.to_owned()] {
        assert!(reason.message.contains(&named), "{}", reason.message);
    }
    let reason = Rejection::Signature("flipped bit".to_owned());
    evidence.rejected.push(Rejected { source: Source::Registry, bundle: Digest::of(b"b"), reason });
    let verdict = ask(&parse(SIGNERS), &evidence, &Revocations::default()).verdict;
    assert_eq!(verdict.reasons[0].code, Code::SignatureInvalid);
    assert!(verdict.reasons[0].message.contains("flipped bit"));
}

#[test]
fn revocation_is_named_where_it_decides() {
    let who = |name: &str| Target::Identity { identity: identity(name) };
    let key = |name: &str| Target::Key { key: Digest::of(name.as_bytes()) };
    let artifact = Target::Artifact { digest: digest() };
    let clean = scan("ci", &json!([]), ago(1), ago(1));
    for (name, require, statements, target, since, decision, code) in [
        ("artifact", SIGNERS, vec![signed("ci")], artifact.clone(), ago(0), Decision::Deny, Code::ArtifactRevoked),
        ("artifact, later", SIGNERS, vec![signed("ci")], artifact, ago(-1), Decision::Allow, Code::Satisfied),
        ("identity", SIGNERS, vec![signed("ci")], who("ci"), ago(2), Decision::Deny, Code::IdentityRevoked),
        ("key", SIGNERS, vec![signed("ci")], key("ci"), ago(2), Decision::Deny, Code::KeyRevoked),
        ("signed before", SIGNERS, vec![signed("ci")], who("ci"), ago(0), Decision::Allow, Code::Satisfied),
        ("another", SIGNERS, vec![signed("ci")], who("eve"), ago(9), Decision::Allow, Code::Satisfied),
        ("of two", TWO, vec![signed("ci"), signed("boss")], who("boss"), ago(9), Decision::Deny, Code::IdentityRevoked),
        ("builder", BUILT, vec![good_build("ci")], key("ci"), ago(9), Decision::Deny, Code::KeyRevoked),
        ("scanner", SCANNED, vec![clean], who("ci"), ago(9), Decision::Deny, Code::IdentityRevoked),
    ] {
        let verdict = ask(&parse(require), &complete(statements), &revoke(target, since)).verdict;
        let reason = &verdict.reasons[0];
        assert_eq!((verdict.decision, reason.code), (decision, code), "{name}: {}", reason.message);
        if decision == Decision::Deny {
            assert_eq!(reason.evidence, vec![at(99)], "{name}");
        }
    }
    // Whoever built it cannot approve it, also when what proves that is void by now.
    let evidence =
        complete(vec![approved("boss", "production", ago(5)), approved("ci", "production", ago(5)), good_build("ci")]);
    let verdict = ask(&parse(APPROVED), &evidence, &revoke(who("ci"), ago(2))).verdict;
    assert_eq!(verdict.reasons[0].code, Code::ApprovalMissing);
    // A void result does not uncover an older, kinder one.
    let evidence = complete(vec![tested("PASSED", ago(3)), tested("FAILED", ago(1))]);
    let verdict = ask(&parse(TESTED), &evidence, &revoke(who("ci"), ago(2))).verdict;
    assert_eq!(verdict.reasons[0].code, Code::IdentityRevoked);
}

#[test]
fn evidence_about_another_digest_is_none() {
    let subject = Subject { name: String::new(), digest: Digest::of(b"another image") };
    let statement = Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap();
    let who = Signer::Identity(identity("ci"));
    let other = Verified::assume_unsafe(statement, who, Digest::of(b"ci"), Some(ago(1)), None);
    assert_eq!(outcome(SIGNERS, &complete(vec![Arc::new(other)])).1, Some(Code::SignatureMissing));
}

#[test]
fn no_match_and_modes() {
    let text = |setting: &str| {
        format!(
            "apiVersion: countersign.dev/v1\n{setting}policies:\n  - name: a\n    match: {{images: ['docker.io/**']}}\n    \
             require: {{digestRequired: true}}\n"
        )
    };
    for (setting, decision, warned) in [
        ("", Decision::Deny, false),
        ("noMatch: deny\n", Decision::Deny, false),
        ("noMatch: allow\n", Decision::Allow, false),
        ("noMatch: warn\n", Decision::Allow, true),
        ("noMatch: unknown\n", Decision::Unknown, false),
    ] {
        let policies = PolicySet::parse(&text(setting)).unwrap();
        let judgement = ask(&policies, &complete(vec![]), &Revocations::default());
        let found = if warned { &judgement.verdict.warnings } else { &judgement.verdict.reasons };
        assert_eq!((judgement.verdict.decision, found[0].code), (decision, Code::NoPolicyMatched), "{setting}");
        // A revoked artifact is refused whatever policies say.
        let target = Target::Artifact { digest: digest() };
        let judgement = ask(&policies, &complete(vec![]), &revoke(target, ago(1)));
        assert_eq!((judgement.verdict.decision, judgement.mode), (Decision::Deny, Mode::Enforce), "{setting}");
    }
    let two = |first: &str, second: &str| {
        let policies = format!(
            "{}  - name: pinned\n    mode: {second}\n    match: {{}}\n    require: {{digestRequired: true}}\n",
            policy(SIGNERS).replace("match:", &format!("mode: {first}\n    match:"))
        );
        ask(&PolicySet::parse(&policies).unwrap(), &complete(vec![signed("ci")]), &Revocations::default())
    };
    let judgement = two("enforce", "enforce");
    assert_eq!((judgement.verdict.decision, judgement.mode), (Decision::Deny, Mode::Enforce));
    let judgement = two("enforce", "warn");
    assert_eq!((judgement.verdict.decision, judgement.mode), (Decision::Allow, Mode::Enforce));
    assert_eq!(judgement.verdict.warnings[0].code, Code::DigestRequired);
    let judgement = two("enforce", "audit");
    assert_eq!((judgement.verdict.decision, judgement.verdict.warnings.len()), (Decision::Allow, 0));
    assert_eq!(judgement.audited[0].code, Code::DigestRequired);
    let judgement = two("audit", "warn");
    assert_eq!((judgement.verdict.decision, judgement.mode), (Decision::Deny, Mode::Warn));
}

#[test]
fn rules() {
    let rule = |expression: &str| {
        format!("{SIGNERS}\nrules:\n  - name: r\n    expression: {}\n    message: said no\n", json!(expression))
    };
    let provenance = good_build("ci");
    let evidence = complete(vec![signed("ci"), provenance, good_build("eve")]);
    for (expression, decision, code) in [
        ("image.tag == '1.0'", Decision::Allow, Code::Satisfied),
        ("image.repository.startsWith('shop/')", Decision::Allow, Code::Satisfied),
        ("image.tag == 'latest'", Decision::Deny, Code::RuleFailed),
        (
            "request.namespace == 'shop' && environment == 'production' && service == 'web'",
            Decision::Allow,
            Code::Satisfied,
        ),
        ("digest.matches('^sha256:[0-9a-f]{64}$')", Decision::Allow, Code::Satisfied),
        ("now > timestamp('2026-11-24T11:00:00Z')", Decision::Allow, Code::Satisfied),
        ("now - provenance.signedAt < duration('2h')", Decision::Allow, Code::Satisfied),
        ("provenance.predicate.runDetails.builder.id.contains('builder')", Decision::Allow, Code::Satisfied),
        (
            "attestations.exists(a, a.signer.subject == 'ci@example.com' && a.logIndex == 7)",
            Decision::Allow,
            Code::Satisfied,
        ),
        // Whom the policy does not name is not shown.
        ("attestations.exists(a, a.signer.subject == 'eve@example.com')", Decision::Deny, Code::RuleFailed),
        ("size(attestations) == 2", Decision::Allow, Code::Satisfied),
        (
            "size(attestations) > 0 && attestations.all(a, a.signer.issuer == 'https://sso.example.com')",
            Decision::Allow,
            Code::Satisfied,
        ),
        ("attestations.exists(a, a.predicateType == 'x') || image.nothing == 1", Decision::Unknown, Code::RuleError),
        ("provenance.predicate.missing == 1", Decision::Unknown, Code::RuleError),
        ("image.tag", Decision::Unknown, Code::RuleError),
        ("1 / (size(attestations) - 2) == 1", Decision::Unknown, Code::RuleError),
    ] {
        assert_eq!(outcome(&rule(expression), &evidence), (decision, Some(code)), "{expression}");
    }
    let verdict = ask(&parse(&rule("provenance == null")), &evidence, &Revocations::default()).verdict;
    assert_eq!((verdict.decision, verdict.reasons[0].code), (Decision::Deny, Code::RuleFailed));
    assert!(verdict.reasons[0].message.contains("said no"));
    // What a rule rests on was revoked; what a rule objects to stays, revoked or not.
    let revoked = revoke(Target::Identity { identity: identity("ci") }, ago(9));
    let verdict = ask(&parse(&rule("provenance != null")), &evidence, &revoked).verdict;
    assert!(
        verdict.reasons.iter().any(|reason| reason.code == Code::IdentityRevoked && reason.message.contains("rule r"))
    );
    let verdict = ask(&parse(&rule("provenance == null")), &evidence, &revoked).verdict;
    assert!(verdict.reasons.iter().any(|reason| reason.code == Code::RuleFailed));
}

#[test]
fn rules_that_are_refused_at_load() {
    let nested = format!("{}true{}", "(".repeat(100), ")".repeat(100));
    let long = format!("digest == '{}'", "x".repeat(5_000));
    let chain = format!("image{}", ".a".repeat(1_000));
    for (expression, problem) in [
        ("", "CEL"),
        ("image.tag ==", "not a CEL expression"),
        ("pod.name == 'x'", "unknown variable \"pod\""),
        ("a.tag == 'x' && attestations.exists(a, true)", "unknown variable \"a\""),
        ("fetch(digest)", "unknown function \"fetch\""),
        ("attestations.all(a, a.logIndex > 0)", "all(…) is true of an empty list"),
        ("size(digest) > 0 && attestations.all(a, a.logIndex > 0)", "all(…) is true of an empty list"),
        ("attestations.exists(a, attestations.exists(b, attestations.exists(c, true)))", "deeper than 2 levels"),
        (nested.as_str(), "nested deeper"),
        (chain.as_str(), "nested deeper"),
        (long.as_str(), "bytes; the limit"),
    ] {
        let require = format!("{SIGNERS}\nrules: [{{name: r, message: m, expression: {}}}]", json!(expression));
        match PolicySet::parse(&policy(&require)) {
            Err(PolicyError::Invalid { policy, path, problem: found }) => {
                assert_eq!((policy.as_str(), path.as_str()), ("shop", "require.rules[0].expression"));
                assert!(found.contains(problem), "{expression}: {found}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
    let alone = "rules: [{name: r, message: m, expression: 'attestations.exists(a, true)'}]";
    let error = PolicySet::parse(&policy(alone)).unwrap_err().to_string();
    assert!(error.contains("names no signers whose to show it"), "{error}");
}

/// A text, and whether an error is the one that is expected.
type Refused = (String, fn(&PolicyError) -> bool);

#[test]
fn documents_that_are_refused() {
    let signer = |fields: &str| format!("signers: {{anyOf: [{{name: x, {fields}}}]}}");
    let invalid: Vec<(String, &str)> = vec![
        (signer("subject: a"), "needs issuer and subject together"),
        (signer("issuer: a"), "needs issuer and subject together"),
        (signer("issuer: a, subject: b, key: 'sha256:00'"), "not both"),
        (signer("issuer: a, subject: b, subjectRegexp: c"), "not both"),
        (signer("issuer: a, subjectRegexp: '('"), "unclosed"),
        (signer("issuer: a, subjectRegexp: 'a)|(b'"), "unopened"),
        (signer("key: nonsense"), "PEM public key"),
        ("signers: {anyOf: [{name: nobody}]}".to_owned(), "no identity is called \"nobody\""),
        ("signers: {threshold: 2, anyOf: [{name: ci}]}".to_owned(), "threshold"),
        ("signers: {threshold: 0, anyOf: [{name: ci}]}".to_owned(), "threshold"),
        ("maxAge: 7d".to_owned(), "needs signers"),
        (format!("{SIGNERS}\nmaxAge: 7 days"), "is not an age"),
        ("predicates: [{type: vulns}]".to_owned(), "anyone could sign it"),
        ("predicates: [{signers: [nobody], type: vulns}]".to_owned(), "nobody"),
        ("predicates: [{signers: [ci], type: nonsense}]".to_owned(), "neither a URI nor a known alias"),
        ("predicates: [{signers: [ci]}]".to_owned(), "needs a type"),
        ("predicates: [{signers: [ci], type: spdx, tests: {}}]".to_owned(), "has not the fields"),
        ("predicates: [{signers: [ci], tests: {}, sbom: {formats: [spdx]}}]".to_owned(), "more than one"),
        ("predicates: [{signers: [ci], vulnerabilities: {}}]".to_owned(), "limits nothing"),
        (
            "predicates: [{signers: [ci], vulnerabilities: {maxSeverity: low, ignore: [{id: A, until: never}]}}]"
                .to_owned(),
            "must be a date",
        ),
        ("predicates: [{signers: [ci], provenance: {builders: ['[']}}]".to_owned(), "unclosed character class"),
        ("digestRequired: false".to_owned(), "requires nothing"),
    ];
    for (require, problem) in invalid {
        let error = PolicySet::parse(&policy(&require)).unwrap_err();
        assert!(matches!(&error, PolicyError::Invalid { policy, .. } if policy == "shop"), "{require}: {error:?}");
        assert!(error.to_string().contains(problem), "{require}: {error}");
    }
    for require in [
        "signers: {anyOf: []}",
        "signers: {anyOf: [{name: ci}], accept: []}",
        "predicates: []",
        "predicates: [{signers: [], type: vulns}]",
        "predicates: [{signers: [ci], provenance: {builders: []}}]",
        "predicates: [{signers: [ci], sbom: {formats: []}}]",
        "predicates: [{signers: [ci], vsa: {verifiers: [], levels: [A]}}]",
        "approvals: {approvers: []}",
        "digestRequired: true\nrules: []",
    ] {
        let error = PolicySet::parse(&policy(require)).unwrap_err();
        assert!(matches!(error, PolicyError::EmptyList { .. }), "{require}: {error:?}");
    }
    let base = policy(SIGNERS);
    let others: Vec<Refused> = vec![
        (String::new(), |error| matches!(error, PolicyError::NoPolicies)),
        ("x".repeat(2 << 20), |error| matches!(error, PolicyError::TooLarge(_))),
        ("a: [".to_owned(), |error| matches!(error, PolicyError::Yaml(_))),
        (base.replace("require:", "requires:"), |error| matches!(error, PolicyError::Yaml(_))),
        (base.replace("name: shop", "name: shop\n    name: shop"), |error| matches!(error, PolicyError::Yaml(_))),
        (base.replace("anyOf", "oneOf"), |error| matches!(error, PolicyError::Yaml(_))),
        (base.replace("countersign.dev/v1", "countersign.dev/v9"), |error| matches!(error, PolicyError::ApiVersion(_))),
        (format!("{base}---\n{base}"), |error| matches!(error, PolicyError::Duplicate { .. })),
        (base.replace("['registry.example.com/**']", "[]"), |error| matches!(error, PolicyError::EmptyList { .. })),
        (base.replace("registry.example.com/**", "web"), |error| matches!(error, PolicyError::Invalid { .. })),
        (base.replace("registry.example.com/**", "a/b@sha256:00"), |error| {
            matches!(error, PolicyError::Invalid { .. })
        }),
    ];
    PolicySet::parse(&base).unwrap();
    for (text, expected) in others {
        let error = PolicySet::parse(&text).unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

#[test]
fn regular_expressions_cover_the_whole_text() {
    let require = format!("signers: {{anyOf: [{{name: x, issuer: '{ISSUER}', subjectRegexp: 'ci@example[.]com|x'}}]}}");
    assert_eq!(outcome(&require, &complete(vec![signed("ci")])).0, Decision::Allow);
    for name in ["evilci", "ci@example.com.evil"] {
        assert_eq!(outcome(&require, &complete(vec![signed(name)])).1, Some(Code::IdentityNotAllowed), "{name}");
    }
}

#[test]
fn one_identity_is_not_two_signers() {
    let require = format!(
        "signers: {{threshold: 2, anyOf: [{{name: any, issuer: '{ISSUER}', subjectRegexp: '.*'}}, {{name: ci}}]}}"
    );
    assert_eq!(outcome(&require, &complete(vec![signed("ci")])).1, Some(Code::ThresholdNotMet));
    assert_eq!(outcome(&require, &complete(vec![signed("boss"), signed("eve")])).1, Some(Code::ThresholdNotMet));
    assert_eq!(outcome(&require, &complete(vec![signed("ci"), signed("eve")])).0, Decision::Allow);
}

#[test]
fn ages() {
    for (text, back) in [("90s", "90s"), ("60s", "1m"), ("24h", "1d"), ("7d", "1w"), ("36h", "36h")] {
        assert_eq!(text.parse::<Age>().unwrap().to_string(), back);
    }
    for text in ["", "7", "d", "0d", "-1d", "1.5h", "7 d", "7y", "99999999999999999999d", "1000000w", "7д"] {
        assert!(text.parse::<Age>().is_err(), "{text}");
    }
}

/// What the rollback check compares is what the judge reads: same scan, same limits, same words.
#[test]
fn limits_for_the_rollback_check() {
    let policies = parse(SCANNED);
    let image: ImageRef = IMAGE.parse().unwrap();
    let mut question = Question {
        image: Some(&image),
        digest: digest(),
        namespace: None,
        environment: None,
        service: None,
        now: now(),
    };
    let bad = scan("ci", &json!([finding("CVE-9", "high"), finding("CVE-8", "low")]), ago(2), ago(2));
    let kinder = scan("eve", &json!([]), ago(1), ago(1));
    let evidence = complete(vec![bad, kinder]);
    let mut revocations = Revocations::default();
    let ask = |question: &Question<'_>, revocations: &Revocations| {
        demands(&policies, question, &evidence, revocations, Some(&evidence))
    };
    let demand = ask(&question, &revocations).remove(0);
    assert_eq!((demand.policy.as_str(), demand.mode), ("shop", Mode::Enforce));
    assert_eq!(demand.over.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["CVE-9"]);
    assert_eq!((demand.scan.clone().unwrap().finished, demand.before), (Some(ago(2)), demand.scan));
    assert_eq!(demand.said[0].0, Decision::Deny);
    assert!(judge(&policies, &question, &evidence, &revocations).verdict.reasons.contains(&demand.said[0].1));
    // A revoked scanner's bad news still counts; its news of the other digest excuses nothing.
    revocations = revoke(Target::Identity { identity: identity("ci") }, ago(100));
    let demand = ask(&question, &revocations).remove(0);
    assert_eq!((demand.over.len(), demand.before), (1, None));
    assert_eq!(demand.said[0].1.code, Code::IdentityRevoked);
    question.image = None;
    assert_eq!(ask(&question, &revocations).len(), 0);
}

/// A policy that speaks of namespaces cannot be asked without one, and that is noticed only where it would speak.
#[test]
fn a_policy_that_wants_a_namespace_is_named() {
    let with = |scope: &str| {
        let text = policy("digestRequired: true").replace("{images: ['registry.example.com/**']}", scope);
        PolicySet::parse(&text).unwrap()
    };
    let image: ImageRef = IMAGE.parse().unwrap();
    let mut question = Question {
        image: Some(&image),
        digest: digest(),
        namespace: None,
        environment: Some("production"),
        service: Some("web"),
        now: now(),
    };
    for (scope, wanted) in [
        ("{namespaces: [shop]}", true),
        ("{namespaces: [shop], images: ['registry.example.com/**'], environments: [production]}", true),
        ("{namespaces: [shop], images: ['else.example.com/**']}", false),
        ("{namespaces: [shop], environments: [staging]}", false),
        ("{namespaces: [shop], exclude: {services: [web]}}", false),
        ("{images: ['registry.example.com/**']}", false),
    ] {
        assert_eq!(with(scope).wants_namespace(&question).is_some(), wanted, "{scope}");
    }
    question.namespace = Some("shop");
    assert!(with("{namespaces: [shop]}").wants_namespace(&question).is_none());
}

#[test]
fn the_example_parses() {
    let policies = PolicySet::parse(include_str!("../deploy/policy.example.yaml")).unwrap();
    assert_eq!(policies.iter().count(), 3);
}

/// Everything that a statement can be in these properties.
fn any_statement() -> impl Strategy<Value = Arc<Verified>> {
    let name = prop_oneof![Just("ci"), Just("boss"), Just("lead"), Just("eve")];
    (name, 0..7_usize, 0..12_i64).prop_map(|(name, kind, hours)| {
        let when = ago(hours * 20);
        let low = json!([finding("CVE-8", "low")]);
        let high = json!([finding("CVE-9", "high")]);
        match kind {
            0 => said(name, predicate::SIGN, json!({}), when),
            1 => built(name, "https://builder.example.com/1", "https://git.example.com/shop/web"),
            2 => built(name, "https://evil.example.com/1", "https://git.example.com/shop/web"),
            3 => approved(name, "production", when),
            4 => tested(if hours % 2 == 0 { "PASSED" } else { "FAILED" }, when),
            5 => scan(name, if hours % 2 == 0 { &low } else { &high }, when, when),
            _ => said(name, predicate::SPDX, json!({"spdxVersion": "SPDX-2.3"}), when),
        }
    })
}

fn any_revocation() -> impl Strategy<Value = (Target, Timestamp)> {
    let name = prop_oneof![Just("ci"), Just("boss"), Just("lead"), Just("eve")];
    (name, 0..3_usize, -5..150_i64).prop_map(|(name, kind, hours)| {
        let target = match kind {
            0 => Target::Identity { identity: identity(name) },
            1 => Target::Key { key: Digest::of(name.as_bytes()) },
            _ => Target::Artifact { digest: if name == "eve" { digest() } else { Digest::of(b"else") } },
        };
        (target, ago(hours))
    })
}

fn rank(decision: Decision) -> u8 {
    match decision {
        Decision::Allow => 0,
        Decision::Unknown => 1,
        Decision::Deny => 2,
    }
}

/// Requirements that one good statement meets: taking evidence away cannot help.
const POSITIVE: [&str; 6] =
    [SIGNERS, TWO, AGED, BUILT, SBOM, "approvals: {count: 1, approvers: [{name: boss}, {name: lead}]}"];
/// Requirements in which the newest statement counts, and those that look at who built.
const NEWEST: [&str; 3] = [SCANNED, TESTED, APPROVED];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_revocation_never_improves_a_verdict(
        statements in prop::collection::vec(any_statement(), 0..7),
        before in prop::collection::vec(any_revocation(), 0..3),
        (target, since) in any_revocation(),
        which in 0..9_usize,
        gap in any::<bool>(),
    ) {
        let require = POSITIVE.iter().chain(&NEWEST).nth(which).unwrap();
        let policies = parse(require);
        let evidence = if gap { with_gap(statements) } else { complete(statements) };
        let mut revocations = Revocations::default();
        for (target, since) in before {
            revocations.insert(Revocation { target, since, reason: "r".to_owned() }, at(1));
        }
        let first = ask(&policies, &evidence, &revocations).verdict;
        revocations.insert(Revocation { target, since, reason: "r".to_owned() }, at(2));
        let second = ask(&policies, &evidence, &revocations).verdict;
        prop_assert!(first.decision == Decision::Allow || second.decision != Decision::Allow, "{require}\n{first:?}\n{second:?}");
        prop_assert_eq!(&second, &ask(&policies, &evidence, &revocations).verdict);
    }

    #[test]
    fn less_evidence_never_makes_a_yes(
        statements in prop::collection::vec(any_statement(), 1..7),
        revoked in prop::collection::vec(any_revocation(), 0..2),
        index in any::<prop::sample::Index>(),
        which in 0..6_usize,
        gap in any::<bool>(),
    ) {
        let require = POSITIVE[which];
        let policies = parse(require);
        let mut revocations = Revocations::default();
        for (target, since) in revoked {
            revocations.insert(Revocation { target, since, reason: "r".to_owned() }, at(1));
        }
        let mut fewer = statements.clone();
        fewer.remove(index.index(fewer.len()));
        let (all, fewer) = if gap { (with_gap(statements), with_gap(fewer)) } else { (complete(statements), complete(fewer)) };
        let first = ask(&policies, &all, &revocations).verdict.decision;
        let second = ask(&policies, &fewer, &revocations).verdict.decision;
        prop_assert!(first == Decision::Allow || second != Decision::Allow, "{require}: {first} {second}");
        // Nor does a source that falls silent make a verdict kinder than unknown.
        let silent = ask(&policies, &with_gap(all.statements.clone()), &revocations).verdict.decision;
        prop_assert!(silent == Decision::Allow || rank(silent) >= rank(Decision::Unknown));
        prop_assert!((silent == Decision::Allow) == (first == Decision::Allow));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
        let _ = PolicySet::parse(&text);
        let require = format!("digestRequired: true\nrules: [{{name: r, message: m, expression: {}}}]", json!(text));
        let _ = PolicySet::parse(&policy(&require));
    }
}

/// Whoever signs may write as much as a statement holds; a reason quotes the beginning of it.
#[test]
fn reasons_are_short() {
    let long = format!("https://evil.example.com/{}", "x".repeat(100_000));
    let good = "https://builder.example.com/1";
    let of = |resource: &str| {
        let mut predicate = summary("PASSED", &json!(["SLSA_BUILD_LEVEL_2"])).statement().predicate().clone();
        predicate["resourceUri"] = json!(resource);
        said("ci", predicate::VSA, predicate, ago(2))
    };
    let listed = VSA.replace("vsa: {", "vsa: {resources: ['registry.example.com/**'], ");
    for (require, statement) in [
        (BUILT, built("ci", &long, "https://git.example.com/shop/web")),
        (BUILT, built("ci", good, &long)),
        (VSA, summary("PASSED", &json!([long]))),
        (&listed, of(&long)),
    ] {
        let verdict = ask(&parse(require), &complete(vec![statement]), &Revocations::default()).verdict;
        assert_eq!(verdict.decision, Decision::Deny);
        let message = &verdict.reasons[0].message;
        assert!(message.contains("https://evil.example.com/x"), "{message}");
        assert!(message.len() < 1_000, "{} bytes", message.len());
    }
}
