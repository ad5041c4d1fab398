//! The first admission of a digest: a verification summary, once, beside the answer.

use std::{sync::Arc, time::Duration};

use countersign::{
    admission::{Admission, Effect, FailureMode, OnFailure, Phase, Review, Settings, Summary, summary::EXTENSION},
    model::{Decision, Identity, LogRef, Signer, Statement, Subject, Verified, policy::Mode, predicate},
    telemetry::Metrics,
};
use serde_json::{Value, json};

use super::{
    World, annotated, create, deployment, digest, door, glass_settings, image, now, own, parts, pinned, pod, soon,
    update, world,
};

/// What one review left behind.
async fn left_by(world: World, settings: Settings, review: &Review) -> Vec<Summary> {
    let (door, asked) = door(world, settings);
    door.review(review, now(), soon()).await;
    door.settle().await;
    let summaries = asked.summaries.lock().unwrap();
    summaries.clone()
}

#[tokio::test]
async fn a_digest_is_summarised_at_its_first_admission_and_not_again() {
    let (door, asked) = door(world(), Settings::default());
    for _ in 0..3 {
        let twice = deployment(&[&pinned("signed"), &image("attached")]);
        assert!(door.review(&create(twice), now(), soon()).await.allowed);
        assert!(door.review(&create(pod(&[&image("signed")])), now(), soon()).await.allowed);
        door.settle().await;
    }
    let summaries = asked.summaries.lock().unwrap();
    let digests: Vec<_> = summaries.iter().map(|summary| summary.digest).collect();
    assert_eq!(digests, [digest("team/signed"), digest("team/attached")]);
    assert!(summaries.iter().all(|summary| summary.decision == Decision::Allow));
    assert_eq!(door.recordings().summaries.recorded, 1, "both in one commit");
}

#[tokio::test]
async fn what_is_not_an_admission_of_something_judged_is_not_summarised() {
    let signed = create(pod(&[&pinned("signed")]));
    let open = || Settings {
        on_failure: OnFailure { could_not_tell: FailureMode::Open, ..OnFailure::default() },
        ..Settings::default()
    };
    let same = deployment(&[&pinned("signed")]);
    let cases = [
        ("dry run", world(), Settings::default(), Review { dry_run: true, ..signed.clone() }),
        ("mutating", world(), Settings::default(), Review { phase: Phase::Mutate, ..signed.clone() }),
        ("refused", world(), Settings::default(), create(pod(&[&pinned("signed"), &image("bare")]))),
        ("could not tell", World { is_down: true, ..world() }, open(), create(pod(&[&pinned("bare")]))),
        ("no digest", World { is_down: true, ..world() }, open(), create(pod(&[&image("signed")]))),
        ("nobody's", World { is_nobodys: true, ..world() }, Settings::default(), signed.clone()),
        ("unchanged", world(), Settings::default(), update(same.clone(), same)),
    ];
    for (what, world, settings, review) in cases {
        assert_eq!(left_by(world, settings, &review).await, [], "{what}");
    }
    assert_eq!(left_by(world(), Settings::default(), &signed).await.len(), 1, "nothing else kept them away");
}

#[tokio::test]
async fn what_is_admitted_against_a_no_is_summarised_as_failed() {
    let bare = create(pod(&[&image("bare")]));
    let glass = create(annotated(pod(&[&image("bare")]), "incident 7"));
    let warn = || World { mode: Some(Mode::Warn), ..world() };
    for (what, world, settings, review, effect) in [
        ("warn", warn(), Settings::default(), &bare, Effect::Warn),
        ("audit", World { mode: Some(Mode::Audit), ..world() }, Settings::default(), &bare, Effect::Note),
        ("break-glass", world(), glass_settings(), &glass, Effect::Refuse),
    ] {
        let left = left_by(world, settings, review).await;
        assert_eq!(left.len(), 1, "{what}");
        assert_eq!((left[0].decision, left[0].effect), (Decision::Deny, effect), "{what}");
        let statement = left[0].statement("https://log.example", now()).unwrap();
        assert_eq!(statement.predicate()["verificationResult"], "FAILED", "{what}");
        assert_eq!(statement.predicate()["verifiedLevels"], json!(["FAILED"]), "{what}");
    }
}

/// The predicate as the SLSA specification has it, and what is needed to judge it again.
#[tokio::test]
async fn the_summary_says_what_was_judged_by_whom_under_what() {
    let signature = said(predicate::SIGN, json!({}), signer("builder"));
    let known = World { said: vec![Arc::clone(&signature)], ..world() };
    let left = left_by(known, Settings::default(), &create(pod(&[&pinned("signed")]))).await;
    let statement = left[0].statement("https://log.example", now()).unwrap();
    assert_eq!(statement.predicate_type(), predicate::VSA);
    let name = "registry.example/team/signed".to_owned();
    assert_eq!(statement.subjects(), [Subject { name: name.clone(), digest: digest("team/signed") }]);
    let expected = json!({
        "verifier": {"id": "https://log.example"},
        "timeVerified": "2026-11-24T05:00:00Z",
        "resourceUri": format!("{name}@{}", digest("team/signed")),
        "policy": {"uri": "countersign:policies", "digest": {"sha256": digest("policies").hex()}},
        "inputAttestations": [{"uri": "log:log.example#3", "digest": {"sha256": signature.bundle().hex()}}],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_UNEVALUATED"],
        "slsaVersion": "1.1",
        EXTENSION: {
            "namespace": "shop",
            "environment": "shop",
            "policies": ["base"],
            "reasons": ["OTHER"],
            "effect": "admit",
            "trustedRoots": [{"sha256": signature.root().hex()}],
        },
    });
    assert_eq!(*statement.predicate(), expected);
}

fn signer(name: &str) -> Signer {
    Signer::Identity(Identity {
        subject: format!("https://{name}.example"),
        issuer: "https://issuer.example".to_owned(),
    })
}

/// Something that our log proves about every digest.
fn said(predicate_type: &str, predicate: Value, signer: Signer) -> Arc<Verified> {
    let subject = Subject { name: String::new(), digest: digest("team/signed") };
    let statement = Statement::new(vec![subject], predicate_type, predicate).unwrap();
    let at = LogRef { origin: "log.example".to_owned(), index: 3 };
    Arc::new(Verified::assume_unsafe(statement, signer, digest("key"), Some(now()), Some(at)))
}

/// After a restart nothing is remembered; the log is what says that there is one already.
#[tokio::test]
async fn a_summary_that_the_log_has_is_not_written_again() {
    let review = create(pod(&[&pinned("signed")]));
    let ours = Signer::Identity(own());
    let summary = left_by(world(), Settings::default(), &review).await.remove(0);
    let predicate = summary.statement("https://log.example", now()).unwrap().predicate().clone();
    let with = |pointer: &str, value: &str| {
        let mut other = predicate.clone();
        *other.pointer_mut(pointer).unwrap() = value.into();
        other
    };
    let other_policy = with("/policy/digest/sha256", &digest("other").hex());
    for (what, predicate, signer, count) in [
        ("ours", predicate.clone(), ours.clone(), 0),
        ("by a stranger", predicate.clone(), signer("stranger"), 1),
        ("under another policy", other_policy, ours.clone(), 1),
        ("with another result", with("/verificationResult", "FAILED"), ours, 1),
    ] {
        let known = World { said: vec![said(predicate::VSA, predicate, signer)], ..world() };
        assert_eq!(left_by(known, Settings::default(), &review).await.len(), count, "{what}");
    }
}

#[tokio::test]
async fn a_summary_that_could_not_be_written_is_tried_again_and_changes_no_answer() {
    let (door, _) = door(World { is_unrecordable: true, ..world() }, Settings::default());
    for failed in [1, 2] {
        assert!(door.review(&create(pod(&[&pinned("signed")])), now(), soon()).await.allowed);
        door.settle().await;
        assert_eq!(door.recordings().summaries.failed, failed);
    }
}

#[tokio::test]
async fn summaries_wait_beside_the_answers_within_a_bound() {
    let mut slow = World { log_takes: Some(Duration::from_millis(300)), ..world() };
    let names: Vec<&'static str> = (0..80).map(|n| &*format!("team/n{n}").leak()).collect();
    slow.logged.extend(names.iter().map(|name| digest(name)));
    let (parts, asked) = parts(slow);
    let door = Admission::new(parts, Settings::default(), Metrics::new());
    let began = std::time::Instant::now();
    for name in &names {
        let image = format!("registry.example/{name}@{}", digest(name));
        // A pod with an owner is no deployment of its own.
        let mut object = pod(&[&image]);
        object["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-1", "controller": true}]);
        assert!(door.review(&create(object), now(), soon()).await.allowed);
    }
    assert!(began.elapsed() < Duration::from_millis(300), "no answer waited for the log");
    assert_eq!(door.recordings().summaries.left_out, 16);
    door.settle().await;
    assert_eq!(door.recordings().summaries.recorded, 64);
    assert_eq!(asked.summaries.lock().unwrap().len(), 64);
    // What was left out comes with the next admission.
    let last = names.last().unwrap();
    let image = format!("registry.example/{last}@{}", digest(last));
    assert!(door.review(&create(pod(&[&image])), now(), soon()).await.allowed);
    door.settle().await;
    assert_eq!(asked.summaries.lock().unwrap().last().unwrap().digest, digest(last));
}

#[tokio::test]
async fn decisions_are_counted_by_verdict_reason_and_effect() {
    let metrics = Metrics::new();
    let door = Admission::new(parts(world()).0, glass_settings(), metrics.clone());
    let same = deployment(&[&image("bare")]);
    for review in [
        create(pod(&[&pinned("signed")])),
        create(pod(&[&pinned("signed"), &image("bare")])),
        create(pod(&[&image("gone"), &image("bare")])),
        update(same.clone(), same),
        create(annotated(pod(&[&image("bare")]), "incident 7")),
    ] {
        door.review(&review, now(), soon()).await;
    }
    let page = metrics.encode();
    for labels in [
        r#"decision="allow",reason="OTHER",effect="admit"} 1"#,
        r#"decision="deny",reason="SIGNATURE_MISSING",effect="refuse"} 1"#,
        r#"decision="deny",reason="IMAGE_NOT_FOUND",effect="refuse"} 1"#,
        r#"decision="allow",reason="unchanged",effect="admit"} 1"#,
        r#"decision="deny",reason="SIGNATURE_MISSING",effect="break-glass"} 1"#,
    ] {
        assert!(
            page.contains(&format!("countersign_decisions_total{{door=\"cluster\",{labels}")),
            "{labels} in {page}"
        );
    }
    assert!(page.contains("countersign_decision_seconds_count{door=\"cluster\"} 5"), "{page}");
}
