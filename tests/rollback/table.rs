//! The decision table: one row for what can be found, with the answer and the code that must stand for it.

use countersign::model::{
    Digest,
    deployment::{Deployment, Record, Status},
    readiness::{Check, Class, Fact, Readiness, Safety, Severity},
    revocation::Target,
    verdict::Code,
};

use super::{
    APPROVED, BUILDER, BUILT, SCANNED, SIGNED, World, YOUNG, ago, approved, built, deployed, deployed_by, enforced,
    identity, new, no_match, old, policies, reported, scan, signed, there, unlogged, workload,
};

/// A name, what is different from a safe world, the answer, and the code of a check that has this weight.
type Row = (&'static str, World, Safety, Code);

fn with(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::safe();
    change(&mut world);
    world
}

fn under(policies: &str, change: impl FnOnce(&mut World)) -> World {
    let mut world = World::under(enforced(policies));
    change(&mut world);
    world
}

/// Whether a check weighs what the answer says.
fn decides(check: &Check, safety: Safety) -> bool {
    match safety {
        Safety::Unsafe => check.class == Class::Verdict && check.severity == Severity::Blocker,
        Safety::Unknown => check.class == Class::CouldNotRun,
        Safety::SafeWithWarnings => check.class == Class::Verdict && check.severity == Severity::Warning,
        Safety::Safe => check.class == Class::Verdict && check.severity == Severity::Passed,
    }
}

fn check(rows: Vec<Row>) {
    for (name, world, safety, code) in rows {
        let answer = world.answer();
        assert_eq!(answer.verdict, safety, "{name}: {}\n{:#?}", answer.sentence, answer.checks);
        let found = answer.checks.iter().any(|check| check.code == code && decides(check, safety));
        assert!(found, "{name}: no {code} that decides\n{:#?}", answer.checks);
        says_what_to_do(name, &answer);
    }
}

/// What stands in the way or could not be told says what to do; what to run is said only when it is safe.
fn says_what_to_do(name: &str, answer: &Readiness) {
    for check in answer.checks.iter().filter(|check| check.severity == Severity::Blocker) {
        assert!(!check.remedy.is_empty() && !check.message.is_empty(), "{name}: {check:?}");
    }
    assert!(!answer.sentence.is_empty(), "{name}");
    assert_eq!(answer.image.is_some(), answer.verdict.is_yes(), "{name}");
    assert!(answer.command.is_none() || answer.verdict.is_yes(), "{name}");
}

#[test]
fn ran_here_and_was_healthy() {
    let only = |records: Vec<Record>| with(|world| world.records = records);
    let asked = |digest: Digest| with(|world| world.asked = digest);
    check(vec![
        ("safe", World::safe(), Safety::Safe, Code::UnhealthyLastTime),
        ("never ran", asked(Digest::of(b"else")), Safety::Unsafe, Code::NeverLiveHere),
        ("nothing recorded", only(vec![]), Safety::Unknown, Code::NeverLiveHere),
        (
            "never came up",
            only(vec![deployed(1, old(), Status::Failed, 48), deployed(2, new(), Status::Live, 24)]),
            Safety::Unsafe,
            Code::NeverLiveHere,
        ),
        (
            "unhealthy",
            with(|world| world.records.push(reported(4, old(), false))),
            Safety::Unsafe,
            Code::UnhealthyLastTime,
        ),
        (
            "healthy again",
            with(|world| world.records.extend([reported(4, old(), false), reported(5, old(), true)])),
            Safety::Safe,
            Code::UnhealthyLastTime,
        ),
        (
            "failed the last time",
            with(|world| world.records.push(deployed(4, old(), Status::Failed, 1))),
            Safety::Unsafe,
            Code::UnhealthyLastTime,
        ),
        (
            "nobody reported",
            only(vec![deployed(1, old(), Status::Live, 48), deployed(3, new(), Status::Live, 24)]),
            Safety::Unknown,
            Code::HealthUnknown,
        ),
        (
            "rolled back from before",
            only(vec![
                deployed(1, old(), Status::Live, 48),
                reported(2, old(), true),
                deployed(3, old(), Status::RolledBack, 30),
                deployed(4, new(), Status::Live, 24),
            ]),
            Safety::SafeWithWarnings,
            Code::UnhealthyLastTime,
        ),
        (
            "runs now",
            with(|world| {
                world.records.truncate(2);
            }),
            Safety::SafeWithWarnings,
            Code::Other,
        ),
    ]);
}

#[test]
fn signature_and_provenance_under_todays_policy() {
    check(vec![
        ("signed", World::safe(), Safety::Safe, Code::AdmissionWouldDeny),
        ("unsigned", with(|world| world.target.clear()), Safety::Unsafe, Code::SignatureMissing),
        (
            "by another",
            with(|world| world.target = vec![signed("eve", old())]),
            Safety::Unsafe,
            Code::IdentityNotAllowed,
        ),
        ("young enough", under(YOUNG, |_| {}), Safety::Safe, Code::AdmissionWouldDeny),
        (
            "too old is not known",
            under("signers: {anyOf: [{name: ci}]}\nmaxAge: 2h", |_| {}),
            Safety::Unknown,
            Code::EvidenceStale,
        ),
        (
            "registry cannot be read",
            with(|world| (world.target, world.has_gap) = (vec![], true)),
            Safety::Unknown,
            Code::RegistryUnavailable,
        ),
        ("no provenance", under(BUILT, |_| {}), Safety::Unsafe, Code::ProvenanceMissing),
        (
            "provenance",
            under(BUILT, |world| world.target.push(built("ci", old(), BUILDER))),
            Safety::Safe,
            Code::AdmissionWouldDeny,
        ),
        (
            "another builder",
            under(BUILT, |world| world.target.push(built("ci", old(), "https://evil.example.com"))),
            Safety::Unsafe,
            Code::BuilderNotAllowed,
        ),
    ]);
}

#[test]
fn nothing_revoked() {
    let artifact =
        |digest: Digest, hours: i64| with(|world| world.revoked.push((Target::Artifact { digest }, ago(hours))));
    let key = |name: &str, hours: i64| {
        let target = Target::Key { key: Digest::of(name.as_bytes()) };
        with(|world| world.revoked.push((target, ago(hours))))
    };
    let person = |name: &str, hours: i64| {
        let target = Target::Identity { identity: identity(name) };
        with(|world| world.revoked.push((target, ago(hours))))
    };
    let mut second = person("eve", 6);
    second.target.push(signed("eve", old()));
    check(vec![
        ("artifact, long ago", artifact(old(), 500), Safety::Unsafe, Code::ArtifactRevoked),
        ("artifact, from now on", artifact(old(), 0), Safety::Unsafe, Code::ArtifactRevoked),
        ("artifact, from later on", artifact(old(), -1), Safety::Safe, Code::ArtifactRevoked),
        ("another artifact", artifact(new(), 500), Safety::Safe, Code::ArtifactRevoked),
        ("key, before it signed", key("ci", 6), Safety::Unsafe, Code::KeyRevoked),
        ("key, at the moment it signed", key("ci", 5), Safety::Unsafe, Code::KeyRevoked),
        ("key, after it signed", key("ci", 4), Safety::Safe, Code::AdmissionWouldDeny),
        ("another key", key("boss", 500), Safety::Safe, Code::AdmissionWouldDeny),
        ("identity, before it signed", person("ci", 6), Safety::Unsafe, Code::IdentityRevoked),
        ("identity, after it signed", person("ci", 4), Safety::Safe, Code::AdmissionWouldDeny),
        ("identity that nothing rests on", second, Safety::SafeWithWarnings, Code::IdentityRevoked),
    ]);
}

#[test]
fn log_inclusion() {
    check(vec![
        ("logged", World::safe(), Safety::Safe, Code::LogInclusionMissing),
        (
            "not logged",
            with(|world| world.target = vec![unlogged("ci", old())]),
            Safety::Unsafe,
            Code::LogInclusionMissing,
        ),
        (
            "not known whether",
            with(|world| (world.target, world.has_gap) = (vec![], true)),
            Safety::Unknown,
            Code::LogInclusionMissing,
        ),
        (
            "nobody wants evidence",
            with(|world| (world.target, world.policies) = (vec![], no_match("allow"))),
            Safety::SafeWithWarnings,
            Code::LogInclusionMissing,
        ),
    ]);
}

#[test]
fn every_part_is_in_the_registry() {
    let without = |part: &'static str| with(|world| world.availability = there(&[part]));
    let nameless = |record: &mut Record| {
        if let Record::Deployment(Deployment { image, .. }, ..) = record {
            image.clear();
        }
    };
    check(vec![
        ("all of it", World::safe(), Safety::Safe, Code::BlobMissing),
        ("manifest", without("manifest sha256:…"), Safety::Unsafe, Code::BlobMissing),
        ("platform", without("manifest sha256:… (linux/arm64)"), Safety::Unsafe, Code::BlobMissing),
        ("layer", without("layer sha256:… (linux/amd64)"), Safety::Unsafe, Code::BlobMissing),
        (
            "registry does not answer",
            with(|world| world.availability = Fact::unknown("registry r did not answer in time", "ask again")),
            Safety::Unknown,
            Code::RegistryUnavailable,
        ),
        (
            "nobody said which image",
            with(|world| world.records.iter_mut().for_each(nameless)),
            Safety::Unknown,
            Code::AdmissionWouldDeny,
        ),
    ]);
}

#[test]
fn the_newest_scan_within_age_and_limits() {
    let none: &[(&str, &str)] = &[];
    let high: &[(&str, &str)] = &[("CVE-9", "high")];
    let scanned = |mode, target, running| World::scanned(mode, target, running);
    let replaced = |mode, replaced: Option<_>| {
        let mut world = scanned(mode, none, none);
        world.target.truncate(1);
        world.target.extend(replaced);
        world
    };
    let mut uncompared = scanned("enforce", high, none);
    uncompared.running.truncate(1);
    let mut revoked = scanned("enforce", none, none);
    revoked.target[0] = signed("ci", old());
    revoked.revoked.push((Target::Identity { identity: identity("ci") }, ago(4)));
    check(vec![
        ("clean", scanned("enforce", none, none), Safety::Safe, Code::ScanStale),
        ("below the limit", scanned("enforce", &[("CVE-8", "6.9")], none), Safety::Safe, Code::ScanStale),
        ("ignored for a time", scanned("enforce", &[("CVE-1", "critical")], none), Safety::Safe, Code::ScanStale),
        ("comes in again", scanned("enforce", high, none), Safety::Unsafe, Code::VulnerabilityReintroduced),
        ("unrated comes in", scanned("enforce", &[("X", "?")], none), Safety::Unsafe, Code::VulnerabilityReintroduced),
        ("nothing to compare with", uncompared, Safety::Unsafe, Code::VulnerabilityReintroduced),
        ("no worse, but admission", scanned("enforce", high, high), Safety::Unsafe, Code::AdmissionWouldDeny),
        ("no worse", scanned("warn", high, high), Safety::SafeWithWarnings, Code::VulnerabilityLimit),
        ("worse where policy warns", scanned("warn", high, none), Safety::Unsafe, Code::VulnerabilityReintroduced),
        ("worse, audited", scanned("audit", high, none), Safety::SafeWithWarnings, Code::VulnerabilityReintroduced),
        ("no scan", replaced("enforce", None), Safety::Unknown, Code::PredicateMissing),
        ("no scan where policy warns", replaced("warn", None), Safety::Unknown, Code::PredicateMissing),
        ("no scan, audited", replaced("audit", None), Safety::Safe, Code::LogInclusionMissing),
        (
            "a scan by somebody else",
            replaced("enforce", Some(scan("eve", old(), none, 3, 4))),
            Safety::Unknown,
            Code::IdentityNotAllowed,
        ),
        ("old scan", replaced("enforce", Some(scan("ci", old(), none, 24 * 8, 4))), Safety::Unknown, Code::ScanStale),
        (
            "old scan, warned",
            replaced("warn", Some(scan("ci", old(), none, 24 * 8, 4))),
            Safety::Unknown,
            Code::ScanStale,
        ),
        (
            "old database",
            replaced("enforce", Some(scan("ci", old(), none, 3, 24 * 3))),
            Safety::Unknown,
            Code::ScanStale,
        ),
        ("by a revoked scanner", revoked, Safety::Unsafe, Code::IdentityRevoked),
    ]);
}

/// A scan that is known to be bad weighs, and taking it away makes it unknown, never a yes.
#[test]
fn a_bad_scan_taken_away_is_no_yes() {
    for mode in ["enforce", "warn"] {
        let mut world = World::scanned(mode, &[("CVE-9", "critical")], &[]);
        assert_eq!(world.answer().verdict, Safety::Unsafe, "{mode}");
        world.target.truncate(1);
        assert_eq!(world.answer().verdict, Safety::Unknown, "{mode}");
        assert_eq!(world.answer().verdict.exit_code(false), 2, "{mode}");
    }
}

/// Where no policy asks for scans, they are shown and decide nothing.
#[test]
fn scans_that_nobody_asks_for() {
    let scans = |target: &[(&str, &str)], running: Option<&[(&str, &str)]>| {
        with(|world| {
            world.target.push(scan("eve", old(), target, 3, 4));
            world.running.extend(running.map(|running| scan("eve", new(), running, 3, 4)));
        })
    };
    check(vec![
        ("none", World::safe(), Safety::Safe, Code::AdmissionWouldDeny),
        (
            "nothing comes in",
            scans(&[("CVE-9", "high")], Some(&[("CVE-9", "high")])),
            Safety::Safe,
            Code::VulnerabilityReintroduced,
        ),
        (
            "something comes in",
            scans(&[("CVE-9", "low")], Some(&[])),
            Safety::SafeWithWarnings,
            Code::VulnerabilityReintroduced,
        ),
        (
            "nothing to compare with",
            scans(&[("CVE-9", "high")], None),
            Safety::SafeWithWarnings,
            Code::VulnerabilityReintroduced,
        ),
        ("nothing to compare with, and nothing found", scans(&[], None), Safety::Safe, Code::VulnerabilityReintroduced),
    ]);
    let delta =
        scans(&[("CVE-1", "low"), ("CVE-2", "high"), ("CVE-3", "high")], Some(&[("CVE-3", "low"), ("CVE-4", "high")]))
            .answer()
            .delta
            .unwrap();
    let ids = |findings: &[countersign::model::policy::Finding]| {
        findings.iter().map(|one| one.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&delta.introduced), ["CVE-2", "CVE-1"], "worst first");
    assert_eq!((ids(&delta.removed), ids(&delta.kept)), (vec!["CVE-4".to_owned()], vec!["CVE-3".to_owned()]));
}

#[test]
fn approval_where_policy_asks() {
    let by = |name: &str, environment: &str, expires: Option<i64>| {
        let approval = approved(name, environment, expires.map(ago));
        under(APPROVED, |world| world.target.push(approval))
    };
    check(vec![
        ("none", under(APPROVED, |_| {}), Safety::Unsafe, Code::ApprovalMissing),
        ("approved", by("boss", "production", None), Safety::Safe, Code::AdmissionWouldDeny),
        ("still valid", by("boss", "production", Some(-1)), Safety::Safe, Code::AdmissionWouldDeny),
        ("expired", by("boss", "production", Some(1)), Safety::Unsafe, Code::ApprovalMissing),
        ("elsewhere", by("boss", "staging", None), Safety::Unsafe, Code::ApprovalMissing),
        ("by somebody else", by("ci", "production", None), Safety::Unsafe, Code::ApprovalMissing),
    ]);
}

#[test]
fn a_deployment_under_way() {
    let begun = |digest: Digest, minutes: i64| {
        let mut record = deployed(4, digest, Status::InProgress, 0);
        if let Record::Deployment(_, _, time) = &mut record {
            *time = super::now() - jiff::SignedDuration::from_mins(minutes);
        }
        with(|world| world.records.push(record))
    };
    let third = Digest::of(b"third");
    let mut ended = begun(third, 5);
    ended.records.push(deployed(5, third, Status::Failed, 0));
    check(vec![
        ("another", begun(third, 5), Safety::Unsafe, Code::DeployInProgress),
        ("of what runs", begun(new(), 5), Safety::Unsafe, Code::DeployInProgress),
        ("of the target itself", begun(old(), 5), Safety::Safe, Code::DeployInProgress),
        ("forgotten", begun(third, 61), Safety::Safe, Code::DeployInProgress),
        ("ended", ended, Safety::Safe, Code::DeployInProgress),
    ]);
}

#[test]
fn admission_would_deny() {
    let mode = |mode: &str| {
        let mut world = World::under(policies(mode, super::EVERYTHING, SIGNED));
        world.target = vec![signed("eve", old())];
        world
    };
    let by_namespace = |recorded: Option<&str>| {
        let mut world = World::under(policies("enforce", "{namespaces: [production]}", SIGNED));
        let runs = recorded.map(|namespace| workload(namespace, "shop", "app"));
        world.records[2] = deployed_by(3, new(), Status::Live, 24, runs);
        world
    };
    check(vec![
        ("enforced", mode("enforce"), Safety::Unsafe, Code::AdmissionWouldDeny),
        ("warned", mode("warn"), Safety::SafeWithWarnings, Code::AdmissionWouldDeny),
        ("audited", mode("audit"), Safety::SafeWithWarnings, Code::AdmissionWouldDeny),
        ("no policy, denied", World::under(no_match("deny")), Safety::Unsafe, Code::NoPolicyMatched),
        ("no policy, unknown", World::under(no_match("unknown")), Safety::Unknown, Code::NoPolicyMatched),
        ("no policy, warned", World::under(no_match("warn")), Safety::SafeWithWarnings, Code::NoPolicyMatched),
        ("no policy, allowed", World::under(no_match("allow")), Safety::Safe, Code::AdmissionWouldDeny),
        ("a policy of namespaces, none recorded", by_namespace(None), Safety::Unknown, Code::AdmissionWouldDeny),
        ("a policy of namespaces", by_namespace(Some("production")), Safety::Safe, Code::AdmissionWouldDeny),
        ("a policy of other namespaces", by_namespace(Some("else")), Safety::Unsafe, Code::NoPolicyMatched),
    ]);
}

/// Said in one place: what the scan checks say is not said again by the judge's own.
#[test]
fn one_reason_is_said_once() {
    for (target, running) in
        [(&[("CVE-9", "high")][..], &[][..]), (&[("CVE-9", "high")], &[("CVE-9", "high")]), (&[], &[])]
    {
        let checks = World::scanned("enforce", target, running).answer().checks;
        let limits = [Code::VulnerabilityLimit, Code::VulnerabilityReintroduced];
        assert!(checks.iter().filter(|check| limits.contains(&check.code)).count() <= 1, "{checks:#?}");
    }
    let mut missing = World::scanned("enforce", &[], &[]);
    missing.target.truncate(1);
    let checks = missing.answer().checks;
    assert_eq!(checks.iter().filter(|check| check.code == Code::PredicateMissing).count(), 1, "{checks:#?}");
    assert!(SCANNED.contains("vulnerabilities"));
}

#[test]
fn no_check_is_no_yes() {
    assert_eq!(Safety::of(&[]), Safety::Unknown);
}
