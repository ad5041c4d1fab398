//! Breaking the glass: who may, what the log gets and when, and what follows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    admission::{Admission, BreakGlass, Phase, Recorded, Review, User},
    model::{Decision, limits},
    telemetry::Metrics,
};
use serde_json::{Value, json};

use super::{
    World, annotated, create, deployment, digest, door, glass_settings, image, now, parts, pinned, pod, soon, world,
};

#[tokio::test]
async fn break_glass_admits_whom_settings_name_and_is_never_silent() {
    let (door, asked) = door(world(), glass_settings());
    let review = create(annotated(deployment(&[&image("bare")]), "incident 7"));
    let outcome = door.review(&review, now(), soon()).await;
    assert!(outcome.allowed);
    assert_eq!(outcome.decision, Decision::Deny, "the verdict stays what it is");
    assert!(outcome.warnings[0].contains("BREAK-GLASS by alice: incident 7"), "{:?}", outcome.warnings);
    assert!(outcome.audit["break-glass"].contains("incident 7"));
    assert_eq!(outcome.audit["break-glass-entry"], "log.example#7");
    {
        let glasses = asked.glasses.lock().unwrap();
        let glass = &glasses[0];
        assert_eq!((glass.user.as_str(), glass.reason.as_str(), glasses.len()), ("alice", "incident 7", 1));
        assert_eq!(glass.expires, now().checked_add(Duration::from_mins(1)).unwrap());
    }
    // The pods that a controller makes of it follow, here, until it expires.
    let controller =
        User { name: "system:serviceaccount:kube-system:replicaset-controller".to_owned(), groups: vec![] };
    let follow = |namespace: &str| Review {
        user: controller.clone(),
        namespace: Some(namespace.to_owned()),
        ..create(pod(&[&pinned("bare")]))
    };
    assert!(door.review(&follow("shop"), now(), soon()).await.allowed);
    assert!(!door.review(&follow("other"), now(), soon()).await.allowed);
    let later = now().checked_add(Duration::from_secs(61)).unwrap();
    assert!(!door.review(&follow("shop"), later, soon()).await.allowed);
    assert_eq!(asked.glasses.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn break_glass_is_refused_to_everyone_else() {
    let object = annotated(pod(&[&image("bare")]), "let me in");
    let bob = User { name: "bob".to_owned(), groups: vec!["dev".to_owned()] };
    let refused = |object: &Value| Review { user: bob.clone(), ..create(object.clone()) };
    let (door, asked) = door(world(), glass_settings());
    let outcome = door.review(&refused(&object), now(), soon()).await;
    assert!(!outcome.allowed);
    assert!(outcome.message.contains("was not honoured"), "{}", outcome.message);
    // An empty or endless reason is none.
    let empty = create(annotated(pod(&[&image("bare")]), "  "));
    assert!(!door.review(&empty, now(), soon()).await.allowed);
    let endless = create(annotated(pod(&[&image("bare")]), &"x".repeat(limits::TEXT + 1)));
    assert!(!door.review(&endless, now(), soon()).await.allowed);
    assert_eq!(asked.glasses.lock().unwrap().len(), 0);
    // A group is enough.
    let sre = User { name: "bob".to_owned(), groups: vec!["sre".to_owned()] };
    assert!(door.review(&Review { user: sre, ..create(object) }, now(), soon()).await.allowed);
}

#[tokio::test]
async fn a_dry_run_breaks_no_glass() {
    let (door, asked) = door(world(), glass_settings());
    let review = create(annotated(pod(&[&image("bare")]), "why"));
    assert!(door.review(&Review { dry_run: true, ..review.clone() }, now(), soon()).await.allowed);
    assert_eq!(asked.glasses.lock().unwrap().len(), 0);
    let follow = Review { user: User::default(), ..create(pod(&[&image("bare")])) };
    assert!(!door.review(&follow, now(), soon()).await.allowed, "no grant was left behind");
    assert!(door.review(&review, now(), soon()).await.allowed);
    assert!(door.review(&follow, now(), soon()).await.allowed);
}

#[tokio::test]
async fn break_glass_works_while_the_registry_is_down() {
    let (door, _) = door(World { is_down: true, ..world() }, glass_settings());
    let review = create(annotated(pod(&[&image("bare")]), "registry is down"));
    assert!(door.review(&review, now(), soon()).await.allowed);
    let follow = Review { user: User::default(), ..create(pod(&[&image("bare")])) };
    assert!(door.review(&follow, now(), soon()).await.allowed);
}

#[tokio::test]
async fn the_glass_is_recorded_when_the_object_is_final_and_not_before() {
    for (phase, count) in [(Phase::Mutate, 0), (Phase::Validate, 1), (Phase::Both, 1)] {
        let (door, asked) = door(world(), glass_settings());
        let review = create(annotated(deployment(&[&image("bare")]), "incident 7"));
        assert!(door.review(&Review { phase, ..review }, now(), soon()).await.allowed);
        assert_eq!(asked.glasses.lock().unwrap().len(), count, "{phase:?}");
    }
}

#[test]
fn a_broken_glass_is_a_statement_about_the_images_and_the_policies() {
    let glass = |images| BreakGlass {
        user: "alice".to_owned(),
        reason: "incident 7".to_owned(),
        namespace: "shop".to_owned(),
        images,
        expires: now(),
        recorded: Recorded::NotYet,
    };
    let known = digest("team/bare");
    let images = vec![(image("bare"), Some(known)), (pinned("bare"), Some(known)), (image("gone"), None)];
    let statement = glass(images).statement(digest("policies")).unwrap();
    assert!(statement.names(&known) && statement.names(&digest("policies")));
    assert_eq!((statement.subjects().len(), &statement.predicate()["reason"]), (2, &json!("incident 7")));
    assert_eq!(glass(vec![(image("gone"), None)]).statement(digest("policies")).unwrap().subjects().len(), 1);
}

#[tokio::test]
async fn the_log_has_it_before_the_object_is_admitted() {
    let slow = World { log_takes: Some(Duration::from_millis(100)), ..world() };
    let (door, asked) = door(slow, glass_settings());
    let review = create(annotated(pod(&[&image("bare")]), "incident 7"));
    let began = Instant::now();
    let outcome = door.review(&review, now(), soon()).await;
    assert!(outcome.allowed);
    assert!(began.elapsed() >= Duration::from_millis(100), "the answer waited for the log");
    assert!(matches!(outcome.break_glass.unwrap().recorded, Recorded::At(_)));
    assert_eq!(asked.glasses.lock().unwrap().len(), 1);
}

/// Always possible, never silent.
#[tokio::test]
async fn a_log_that_cannot_write_does_not_lock_anyone_out_and_everybody_hears_of_it() {
    let never = Some(Duration::from_hours(1));
    let broken = World { is_unrecordable: true, ..world() };
    for (what, world) in
        [("the disk is full", broken), ("did not answer in time", World { log_takes: never, ..world() })]
    {
        let metrics = Metrics::new();
        let door = Admission::new(parts(world).0, glass_settings(), metrics.clone());
        let review = create(annotated(deployment(&[&image("bare")]), "incident 7"));
        let outcome = door.review(&review, now(), Instant::now() + Duration::from_secs(1)).await;
        assert!(outcome.allowed, "{what}");
        assert!(outcome.warnings.iter().any(|w| w.contains("NOT in the log") && w.contains(what)), "{outcome:?}");
        assert!(outcome.audit["break-glass-entry"].contains(what), "{outcome:?}");
        let page = metrics.encode();
        assert!(page.contains("countersign_break_glass_total{event=\"not-recorded\"} 1"), "{page}");
        assert!(!page.contains("event=\"recorded\""), "{page}");
        // What it admits follows all the same, and is told as well.
        let follow = Review { user: User::default(), ..create(pod(&[&image("bare")])) };
        let outcome = door.review(&follow, now(), soon()).await;
        assert!(outcome.allowed && outcome.warnings.iter().any(|w| w.contains("NOT in the log")), "{outcome:?}");
    }
}

/// The commonest reason to break the glass must not use up the time that its record needs.
#[tokio::test]
async fn a_silent_registry_leaves_time_for_the_record() {
    let silent = World { is_silent: true, log_takes: Some(Duration::from_millis(20)), ..world() };
    let (door, _) = door(silent, glass_settings());
    let review = create(annotated(pod(&[&image("bare")]), "registry is silent"));
    let outcome = door.review(&review, now(), Instant::now() + Duration::from_millis(400)).await;
    assert!(outcome.allowed);
    let recorded = outcome.break_glass.unwrap().recorded;
    assert!(matches!(recorded, Recorded::At(_)), "{recorded:?}");
}

#[tokio::test]
async fn the_same_again_adds_no_entry_while_a_recorded_grant_stands() {
    let metrics = Metrics::new();
    let (parts, asked) = parts(world());
    let door = Admission::new(parts, glass_settings(), metrics.clone());
    let break_glass = async |user: &str, reason: &str, now| {
        let user = User { name: user.to_owned(), groups: vec!["sre".to_owned()] };
        let review = Review { user, ..create(annotated(pod(&[&image("bare")]), reason)) };
        let outcome = door.review(&review, now, soon()).await;
        assert!(outcome.allowed);
        (asked.glasses.lock().unwrap().len(), outcome.break_glass.unwrap().expires)
    };
    let later = |seconds| now().checked_add(Duration::from_secs(seconds)).unwrap();
    assert_eq!(break_glass("alice", "incident 7", now()).await, (1, later(60)));
    assert_eq!(break_glass("alice", "incident 7", later(30)).await, (1, later(60)), "not prolonged either");
    assert_eq!(break_glass("alice", "incident 8", later(31)).await, (2, later(91)));
    assert_eq!(break_glass("bob", "incident 8", later(32)).await, (3, later(92)));
    assert_eq!(break_glass("bob", "incident 8", later(93)).await, (4, later(153)), "it had expired");
    let page = metrics.encode();
    for line in ["event=\"recorded\"} 4", "event=\"followed\"} 1"] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[tokio::test]
async fn a_grant_that_the_log_does_not_have_is_recorded_when_it_is_asked_for_again() {
    let (door, asked) = door(World { is_unrecordable: true, ..world() }, glass_settings());
    let review = create(annotated(pod(&[&image("bare")]), "incident 7"));
    for count in [1, 2] {
        assert!(door.review(&review, now(), soon()).await.allowed);
        assert_eq!(asked.glasses.lock().unwrap().len(), count);
    }
}

#[tokio::test]
async fn nobody_without_a_name_breaks_the_glass() {
    let (door, asked) = door(world(), glass_settings());
    let nameless = User { name: String::new(), groups: vec!["sre".to_owned()] };
    let review = Review { user: nameless, ..create(annotated(pod(&[&image("bare")]), "who am I?")) };
    assert!(!door.review(&review, now(), soon()).await.allowed);
    assert_eq!(asked.glasses.lock().unwrap().len(), 0);
}

/// What has begun is finished, also when the answer went out before; stopping waits for it.
#[tokio::test]
async fn stopping_waits_for_a_record_that_comes_late() {
    let slow = World { log_takes: Some(Duration::from_millis(300)), ..world() };
    let (parts, _) = parts(slow);
    let late = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (record, done) = (parts.record_break_glass, Arc::clone(&late));
    let parts = countersign::admission::Parts {
        record_break_glass: Box::new(move |glass, now| {
            let (recording, done) = (record(glass, now), Arc::clone(&done));
            Box::pin(async move {
                let entry = recording.await;
                done.store(true, std::sync::atomic::Ordering::SeqCst);
                entry
            })
        }),
        ..parts
    };
    let door = Admission::new(parts, glass_settings(), Metrics::new());
    let review = create(annotated(pod(&[&image("bare")]), "incident 7"));
    let outcome = door.review(&review, now(), Instant::now() + Duration::from_millis(50)).await;
    assert!(outcome.allowed && matches!(outcome.break_glass.unwrap().recorded, Recorded::Failed(_)));
    assert!(!late.load(std::sync::atomic::Ordering::SeqCst));
    door.settle().await;
    assert!(late.load(std::sync::atomic::Ordering::SeqCst));
}
