//! What can never happen, whatever the facts: tried on thousands of worlds.
//!
//! Where the newest statement of a kind counts (scans, tests), hiding it uncovers an older one; nobody can tell an
//! older scan from the only one. So a digest has at most one scan here, and one health report.

use std::sync::Arc;

use countersign::model::{
    Digest, Verified,
    deployment::Status,
    policy::PolicySet,
    readiness::{Check, Class, Fact, Readiness, Safety, Severity},
    revocation::Target,
    verdict::Code,
};
use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    APPROVED, BUILDER, BUILT, EVERYTHING, SCANNED, SIGNED, World, YOUNG, ago, approved, built, deployed, identity, new,
    no_match, old, policies, reported, scan, signed, there, unlogged,
};

fn any_policies() -> impl Strategy<Value = Arc<PolicySet>> {
    let mode = prop_oneof![3 => Just("enforce"), 2 => Just("warn"), 1 => Just("audit")];
    let require = prop_oneof![Just(SIGNED), Just(YOUNG), Just(BUILT), Just(APPROVED), Just(SCANNED), Just(SCANNED)];
    prop_oneof![
        8 => (mode, require).prop_map(|(mode, require)| policies(mode, EVERYTHING, require)),
        1 => prop_oneof![Just("deny"), Just("unknown"), Just("warn"), Just("allow")].prop_map(no_match),
    ]
}

fn any_name() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just("ci"), 1 => Just("boss"), 1 => Just("eve")]
}

fn any_statement() -> impl Strategy<Value = Arc<Verified>> {
    (any_name(), 0..5_usize, -3..3_i64).prop_map(|(name, kind, hours)| match kind {
        0 => signed(name, old()),
        1 => unlogged(name, old()),
        2 => built(name, old(), BUILDER),
        3 => built(name, old(), "https://evil.example.com"),
        _ => approved(name, if hours == 0 { "staging" } else { "production" }, Some(ago(hours))),
    })
}

fn any_scan(about: Digest) -> impl Strategy<Value = Option<Arc<Verified>>> {
    let finding =
        (prop_oneof![Just("CVE-1"), Just("CVE-2"), Just("CVE-3")], prop_oneof![Just("low"), Just("critical")]);
    let age = prop_oneof![4 => Just(3_i64), 1 => Just(24 * 8)];
    let found = prop::collection::vec(finding, 0..3);
    let one = (any_name(), found, age).prop_map(move |(name, found, age)| scan(name, about, &found, age, 4));
    prop_oneof![1 => Just(None), 4 => one.prop_map(Some)]
}

fn any_revocation() -> impl Strategy<Value = (Target, Timestamp)> {
    (any_name(), 0..3_usize, 0..12_i64).prop_map(|(name, kind, hours)| {
        let target = match kind {
            0 => Target::Identity { identity: identity(name) },
            1 => Target::Key { key: Digest::of(name.as_bytes()) },
            _ => Target::Artifact { digest: if name == "boss" { old() } else { new() } },
        };
        (target, ago(hours))
    })
}

prop_compose! {
    fn any_world()(
        policies in any_policies(),
        statements in prop::collection::vec(any_statement(), 0..4),
        is_signed in prop::bool::weighted(0.8),
        scan in any_scan(old()),
        running_scan in any_scan(new()),
        has_gap in prop::bool::weighted(0.2),
        revoked in prop::collection::vec(any_revocation(), 0..2),
        health in prop_oneof![4 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)],
        under_way in prop::bool::weighted(0.1),
        registry in 0..8_usize,
    ) -> World {
        let mut world = World { policies, has_gap, revoked, ..World::safe() };
        world.target = statements;
        world.target.extend(is_signed.then(|| signed("ci", old())));
        world.target.extend(scan);
        world.running.extend(running_scan);
        world.records = vec![deployed(1, old(), Status::Live, 48), deployed(3, new(), Status::Live, 24)];
        world.records.extend(health.map(|healthy| reported(4, old(), healthy)));
        world.records.extend(under_way.then(|| deployed(5, Digest::of(b"third"), Status::InProgress, 0)));
        world.availability = match registry {
            0 => there(&["layer sha256:…"]),
            1 => Fact::unknown("throttled", "ask again"),
            _ => there(&[]),
        };
        world
    }
}

/// One thing less that is known.
#[derive(Debug, Clone)]
enum Loss {
    Statement(prop::sample::Index),
    OfRunning(prop::sample::Index),
    Registry,
    Availability,
    Health,
}

fn any_loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(Loss::Statement),
        2 => any::<prop::sample::Index>().prop_map(Loss::OfRunning),
        1 => Just(Loss::Registry),
        1 => Just(Loss::Availability),
        1 => Just(Loss::Health),
    ]
}

fn lose(world: &World, loss: &Loss) -> World {
    let mut less = world.clone();
    match loss {
        Loss::Statement(index) if !less.target.is_empty() => {
            less.target.remove(index.index(world.target.len()));
        }
        Loss::OfRunning(index) if !less.running.is_empty() => {
            less.running.remove(index.index(world.running.len()));
        }
        Loss::Statement(_) | Loss::OfRunning(_) => {}
        Loss::Registry => less.has_gap = true,
        Loss::Availability => less.availability = Fact::unknown("throttled", "ask again"),
        Loss::Health => less.records.retain(|record| record.at().index != 4),
    }
    less
}

fn is_yes(answer: &Readiness) -> bool {
    answer.verdict.exit_code(false) == 0
}

fn told(answer: &Readiness) -> String {
    format!("{} {}\n{:#?}", answer.verdict, answer.sentence, answer.checks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// With all evidence at hand the answer can only get worse; while the registry cannot be read, a no may become
    /// "could not tell" (another signature may be there), and never a yes.
    #[test]
    fn a_revocation_never_improves_the_verdict(world in any_world(), revocation in any_revocation()) {
        let before = world.answer();
        let mut revoked = world.clone();
        revoked.revoked.push(revocation);
        let after = revoked.answer();
        prop_assert!(is_yes(&before) || !is_yes(&after), "{}\n{}", told(&before), told(&after));
        if !world.has_gap {
            prop_assert!(after.verdict >= before.verdict, "{}\n{}", told(&before), told(&after));
        }
    }

    #[test]
    fn less_evidence_never_makes_a_yes(world in any_world(), losses in prop::collection::vec(any_loss(), 1..4)) {
        let before = world.answer();
        let less = losses.iter().fold(world, |world, loss| lose(&world, loss));
        let after = less.answer();
        prop_assert!(is_yes(&before) || !is_yes(&after), "{losses:?}\n{}\n{}", told(&before), told(&after));
        // With nothing at all there is no yes, unless nobody asks for evidence.
        let nothing = World { target: Vec::new(), ..less }.answer();
        let is_asked = nothing.checks.iter().all(|check| check.code != Code::LogInclusionMissing || check.severity != Severity::Warning);
        prop_assert!(!is_asked || !is_yes(&nothing), "{}", told(&nothing));
    }

    #[test]
    fn a_warning_changes_the_verdict_only_when_strict(world in any_world()) {
        let answer = world.answer();
        let is_warning = |check: &Check| check.class == Class::Verdict && check.severity == Severity::Warning;
        let mut quiet = answer.checks.clone();
        quiet.retain(|check| !is_warning(check));
        prop_assert_eq!(Safety::of(&quiet).exit_code(false), answer.verdict.exit_code(false), "{}", told(&answer));
        let strict = if answer.verdict == Safety::SafeWithWarnings { 1 } else { answer.verdict.exit_code(false) };
        prop_assert_eq!(answer.verdict.exit_code(true), strict);
        prop_assert_eq!(answer.checks.iter().any(is_warning) && is_yes(&answer), answer.verdict == Safety::SafeWithWarnings);
        let mut warned = answer.clone();
        warned.warn(Check::warning(Code::Other, "not recorded", "look"));
        prop_assert_eq!(warned.verdict.exit_code(false), answer.verdict.exit_code(false));
    }

    /// The same facts give the same bytes, and the order in which evidence is found does not matter to the verdict.
    #[test]
    fn the_same_facts_give_the_same_answer(world in any_world()) {
        let facts = world.facts();
        let bytes = |facts| serde_json::to_vec(&countersign::model::readiness::assess(facts)).unwrap();
        prop_assert_eq!(bytes(&facts), bytes(&facts));
        let mut turned = world.clone();
        turned.target.reverse();
        prop_assert_eq!(turned.answer().verdict, world.answer().verdict);
    }

    #[test]
    fn what_to_run_is_said_only_when_it_is_safe(world in any_world()) {
        let answer = world.answer();
        prop_assert_eq!(answer.image.is_some(), is_yes(&answer));
        prop_assert!(answer.command.is_none() || is_yes(&answer));
    }
}
