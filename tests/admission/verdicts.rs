//! What is judged, in which order, and what becomes of it.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use countersign::{
    admission::{Admission, Class, Effect, FailureMode, OnFailure, Phase, Review, Settings},
    model::{Decision, Verdict, judge::Judgement, manifest, policy::Mode, verdict::Code},
    telemetry::Metrics,
};
use serde_json::json;

use super::{World, ask, codes, create, digest, door, image, now, parts, pinned, pod, soon, world};

#[tokio::test]
async fn a_pinned_signed_digest_needs_no_registry() {
    let (door, asked) = door(World { is_down: true, ..world() }, Settings::default());
    let outcome = door.review(&create(pod(&[&pinned("signed")])), now(), soon()).await;
    assert!(outcome.allowed, "{}", outcome.message);
    assert_eq!((asked.resolved.load(Ordering::SeqCst), asked.gathered.load(Ordering::SeqCst)), (0, 0));
    // The same with a tag has to ask, and cannot tell.
    let outcome = door.review(&create(pod(&[&image("signed")])), now(), soon()).await;
    assert!(!outcome.allowed);
    assert_eq!((outcome.decision, outcome.class), (Decision::Unknown, Some(Class::CouldNotTell)));
    assert_eq!(codes(&outcome), [Code::RegistryUnavailable]);
}

#[tokio::test]
async fn what_the_log_does_not_settle_is_looked_up_once() {
    let (door, asked) = door(world(), Settings::default());
    let twice = pod(&[&image("attached"), &image("attached"), "registry.example/team/attached:1"]);
    let outcome = door.review(&create(twice), now(), soon()).await;
    assert!(outcome.allowed, "{}", outcome.message);
    assert_eq!((asked.resolved.load(Ordering::SeqCst), asked.gathered.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test]
async fn different_spellings_of_one_reference_are_resolved_once_and_pinned_as_spelled() {
    let mut known = world();
    known.tags.insert("library/nginx", digest("team/signed"));
    let (door, asked) = door(known, Settings::default());
    let review = Review { phase: Phase::Mutate, ..create(pod(&["nginx", "docker.io/library/nginx:latest"])) };
    let outcome = door.review(&review, now(), soon()).await;
    assert_eq!(asked.resolved.load(Ordering::SeqCst), 1);
    let pins: Vec<&str> = outcome.patch.iter().map(|pin| pin.image.as_str()).collect();
    let digest = digest("team/signed");
    assert_eq!(pins, [format!("nginx@{digest}"), format!("docker.io/library/nginx:latest@{digest}")]);
}

#[tokio::test]
async fn each_no_has_its_own_reason_and_class() {
    let cases = [
        (image("bare"), Decision::Deny, Class::NoEvidence, Code::SignatureMissing),
        (image("gone"), Decision::Deny, Class::Denied, Code::ImageNotFound),
        (image("revoked"), Decision::Deny, Class::Denied, Code::ArtifactRevoked),
        ("registry.example/Upper:1".to_owned(), Decision::Deny, Class::Denied, Code::MalformedObject),
        (format!("a@sha512:{}", "0".repeat(128)), Decision::Deny, Class::Denied, Code::MalformedObject),
    ];
    for (image, decision, class, code) in cases {
        let outcome = ask(world(), &create(pod(&[&pinned("signed"), &image]))).await;
        assert!(!outcome.allowed, "{image}");
        assert_eq!((outcome.decision, outcome.class), (decision, Some(class)), "{image}");
        assert_eq!(codes(&outcome)[1..], [code], "{image}");
        assert!(outcome.message.contains(&image) && outcome.message.contains(&code.to_string()), "{}", outcome.message);
        assert!(outcome.message.contains("to do:"), "{}", outcome.message);
    }
}

#[tokio::test]
async fn a_revoked_image_is_refused_without_asking_the_registry() {
    let (door, asked) = door(world(), Settings::default());
    assert!(!door.review(&create(pod(&[&pinned("revoked")])), now(), soon()).await.allowed);
    assert_eq!(asked.gathered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_silent_registry_is_answered_within_the_deadline() {
    let (door, _) = door(World { is_silent: true, ..world() }, Settings::default());
    let outcome =
        door.review(&create(pod(&[&image("signed")])), now(), Instant::now() + Duration::from_millis(30)).await;
    assert_eq!((outcome.allowed, outcome.decision), (false, Decision::Unknown));
    assert_eq!(codes(&outcome), [Code::DeadlineExceeded]);
}

#[tokio::test]
async fn mutating_judges_what_will_run_and_validating_what_stands_there() {
    for (phase, expected) in
        [(Phase::Mutate, pinned("signed")), (Phase::Both, pinned("signed")), (Phase::Validate, image("signed"))]
    {
        let (door, asked) = door(world(), Settings::default());
        let outcome = door.review(&Review { phase, ..create(pod(&[&image("signed")])) }, now(), soon()).await;
        assert!(outcome.allowed);
        assert_eq!(*asked.judged.lock().unwrap(), [expected], "{phase:?}");
        assert_eq!(outcome.patch.is_empty(), phase == Phase::Validate, "{phase:?}");
    }
}

#[tokio::test]
async fn the_patch_pins_every_use_and_nothing_else() {
    let object = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "n", "namespace": "shop"},
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {
            "containers": [{"name": "a", "image": image("signed")}, {"name": "b", "image": pinned("attached")}],
            "initContainers": [{"name": "i", "image": image("signed")}],
            "volumes": [{"name": "v", "image": {"reference": image("attached")}}],
        }}}}}
    });
    let outcome = ask(world(), &Review { phase: Phase::Mutate, ..create(object.clone()) }).await;
    let mut expected = object.clone();
    let spec = &mut expected["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    spec["containers"][0]["image"] = pinned("signed").into();
    spec["initContainers"][0]["image"] = pinned("signed").into();
    spec["volumes"][0]["image"]["reference"] = pinned("attached").into();
    let mut patched = object;
    manifest::pin(&mut patched, &outcome.patch);
    assert_eq!(patched, expected);
}

#[tokio::test]
async fn a_refused_object_is_not_patched() {
    let outcome =
        ask(world(), &Review { phase: Phase::Mutate, ..create(pod(&[&image("signed"), &image("bare")])) }).await;
    assert!(!outcome.allowed);
    assert_eq!(outcome.patch, []);
}

#[tokio::test]
async fn modes_decide_what_becomes_of_a_no() {
    let cases = [
        (Mode::Enforce, Mode::Enforce, false, Effect::Refuse, false),
        (Mode::Warn, Mode::Enforce, true, Effect::Warn, true),
        (Mode::Audit, Mode::Enforce, true, Effect::Note, false),
        (Mode::Enforce, Mode::Warn, true, Effect::Warn, true),
        (Mode::Enforce, Mode::Audit, true, Effect::Note, false),
        (Mode::Audit, Mode::Warn, true, Effect::Note, false),
    ];
    for (policy, cap, allowed, effect, warns) in cases {
        for name in ["bare", "gone"] {
            let (door, _) =
                door(World { mode: Some(policy), ..world() }, Settings { mode: cap, ..Settings::default() });
            let outcome = door.review(&create(pod(&[&image(name)])), now(), soon()).await;
            assert_eq!(outcome.allowed, allowed, "{policy:?} {cap:?} {name}");
            assert_eq!(outcome.decision, Decision::Deny);
            assert_eq!(outcome.images[0].effect, effect);
            assert_eq!(!outcome.warnings.is_empty(), warns, "{policy:?} {cap:?} {name}");
        }
    }
}

#[tokio::test]
async fn audit_mode_changes_nothing() {
    let audit = World { mode: Some(Mode::Audit), ..world() };
    let outcome = ask(audit, &Review { phase: Phase::Mutate, ..create(pod(&[&image("signed")])) }).await;
    assert!(outcome.allowed);
    assert_eq!(outcome.patch, []);
}

#[tokio::test]
async fn each_class_has_its_own_failure_mode() {
    let open = FailureMode::Open;
    let cases = [
        (OnFailure { could_not_tell: open, ..OnFailure::default() }, [false, false, true]),
        (OnFailure { no_evidence: open, ..OnFailure::default() }, [false, true, false]),
        (OnFailure { denied: open, ..OnFailure::default() }, [true, false, false]),
        (OnFailure::default(), [false, false, false]),
    ];
    for (on_failure, expected) in cases {
        let settings = Settings { on_failure, ..Settings::default() };
        let ask = async |world, name: &str| {
            let (door, _) = door(world, settings.clone());
            let outcome = door.review(&create(pod(&[&image(name)])), now(), soon()).await;
            assert_eq!(outcome.allowed, !outcome.warnings.is_empty(), "open is never silent");
            outcome.allowed
        };
        let denied = ask(world(), "revoked").await;
        let no_evidence = ask(world(), "bare").await;
        let could_not_tell = ask(World { is_down: true, ..world() }, "signed").await;
        assert_eq!([denied, no_evidence, could_not_tell], expected, "{on_failure:?}");
    }
}

#[test]
fn settings_are_read_strictly_and_closed_by_default() {
    let settings: Settings = toml::from_str("").unwrap();
    assert_eq!(settings.on_failure, OnFailure::default());
    assert_eq!(settings.on_failure.of(Class::CouldNotTell), FailureMode::Closed);
    assert!(settings.exempt_namespaces.contains("kube-system"));
    let settings: Settings = toml::from_str("mode = 'warn'\non_failure.no_evidence = 'open'").unwrap();
    assert_eq!((settings.mode, settings.on_failure.no_evidence), (Mode::Warn, FailureMode::Open));
    for bad in ["mode = 'off'", "on_failure.other = 'open'", "exempt = []"] {
        assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn an_image_that_no_policy_speaks_about_is_not_ours_to_refuse() {
    for broken in [World { is_down: true, ..world() }, world()] {
        let (mut parts, _) = parts(broken);
        parts.judge = Box::new(|_question, _evidence| Judgement {
            verdict: Verdict { decision: Decision::Allow, reasons: vec![], warnings: vec![], policies: vec![] },
            mode: Mode::Enforce,
            audited: vec![],
        });
        let door = Admission::new(parts, Settings::default(), Metrics::new());
        let outcome = door.review(&create(pod(&[&image("gone")])), now(), soon()).await;
        assert!(outcome.allowed);
        assert_eq!(outcome.warnings.len(), 1, "it says that it could not look");
    }
}
