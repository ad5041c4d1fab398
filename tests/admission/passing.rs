//! What passes without a judgement, what is recorded, and what breaking the glass does.

use std::time::Duration;

use countersign::{
    admission::{BreakGlass, Kind, Operation, Passed, Phase, Review, Settings, User},
    model::{Decision, limits, verdict::Code},
};
use serde_json::{Value, json};

use super::{
    World, annotated, ask, codes, create, deployment, digest, door, glass_settings, image, now, pinned, pod, soon,
    update, world,
};

#[tokio::test]
async fn what_brings_no_image_in_passes() {
    let bare = deployment(&[&image("bare")]);
    let mut scaled = bare.clone();
    scaled["spec"]["replicas"] = 1.into();
    let mut finalised = bare.clone();
    finalised["metadata"]["deletionTimestamp"] = "2026-11-24T05:00:00Z".into();
    finalised["metadata"]["finalizers"] = json!([]);
    let fewer = deployment(&[&image("bare")]);
    let more = deployment(&[&image("bare"), &image("gone")]);
    let scale = Kind { group: "autoscaling".to_owned(), kind: "Scale".to_owned() };
    let cases = [
        (update(bare.clone(), scaled), Passed::Unchanged),
        (update(bare.clone(), finalised), Passed::Unchanged),
        (update(more, fewer), Passed::Unchanged),
        (
            Review {
                operation: Operation::Delete,
                old_object: bare.clone(),
                object: Value::Null,
                ..create(bare.clone())
            },
            Passed::Operation,
        ),
        (Review { operation: Operation::Connect, ..create(pod(&[&image("bare")])) }, Passed::Operation),
        (
            Review { subresource: "status".to_owned(), ..update(bare.clone(), deployment(&[&image("gone")])) },
            Passed::Subresource,
        ),
        (Review { subresource: "scale".to_owned(), kind: scale, ..create(bare.clone()) }, Passed::Subresource),
        (create(json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"})), Passed::OtherKind),
        (create(deployment(&[])), Passed::NoImages),
        (create(deployment(&[""])), Passed::NoImages),
        (Review { namespace: Some("kube-system".to_owned()), ..create(bare.clone()) }, Passed::ExemptNamespace),
        (Review { namespace: Some("countersign-system".to_owned()), ..create(bare.clone()) }, Passed::ExemptNamespace),
    ];
    for (review, passed) in cases {
        let outcome = ask(World { is_silent: true, ..world() }, &review).await;
        assert_eq!((outcome.allowed, outcome.passed), (true, Some(passed)), "{review:?}");
    }
    // Guards the cases above: the same object is refused where nothing excuses it.
    assert!(!ask(world(), &create(bare.clone())).await.allowed);
    assert!(!ask(world(), &update(deployment(&[&image("signed")]), bare)).await.allowed);
}

#[tokio::test]
async fn an_ephemeral_container_is_judged_and_the_images_beside_it_are_not_again() {
    let old = pod(&[&pinned("revoked")]);
    let with = |image: &str| {
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] = json!([{"name": "debug", "image": image}]);
        Review { subresource: "ephemeralcontainers".to_owned(), ..update(old.clone(), new) }
    };
    assert!(ask(world(), &with(&pinned("signed"))).await.allowed);
    let outcome = ask(world(), &with(&image("bare"))).await;
    assert!(!outcome.allowed);
    assert_eq!(codes(&outcome), [Code::SignatureMissing]);
    // A template starts all its images again.
    let template = update(deployment(&[&pinned("revoked")]), deployment(&[&pinned("revoked"), &pinned("signed")]));
    assert!(!ask(world(), &template).await.allowed);
}

#[tokio::test]
async fn mirror_pods_pass_only_when_a_node_shows_them() {
    let mut object = pod(&[&image("bare")]);
    let node = User { name: "system:node:n1".to_owned(), groups: vec!["system:nodes".to_owned()] };
    let by = |user: User, object: &Value| Review { user, ..create(object.clone()) };
    assert!(!ask(world(), &by(node.clone(), &object)).await.allowed);
    object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "abc"});
    assert_eq!(ask(world(), &by(node.clone(), &object)).await.passed, Some(Passed::MirrorPod));
    assert!(!ask(world(), &create(object.clone())).await.allowed);
    let impostor = User { groups: vec!["dev".to_owned()], ..node };
    assert!(!ask(world(), &by(impostor, &object)).await.allowed);
}

#[tokio::test]
async fn admitted_workloads_are_recorded_by_their_main_image() {
    let (door, asked) = door(world(), Settings::default());
    let mut object = deployment(&[&pinned("signed"), &pinned("attached")]);
    object["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "i", "image": pinned("attached")}]);
    assert!(door.review(&create(object.clone()), now(), soon()).await.allowed);
    door.settle().await;
    object["spec"]["template"]["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/default-container": "c1"}});
    assert!(door.review(&create(object), now(), soon()).await.allowed);
    door.settle().await;
    let recorded = asked.recorded.lock().unwrap();
    assert_eq!(
        recorded.iter().map(|one| one.digest).collect::<Vec<_>>(),
        [digest("team/signed"), digest("team/attached")]
    );
    assert_eq!((recorded[0].service.as_str(), recorded[0].environment.as_str()), ("web", "shop"));
    assert_eq!((recorded[0].image.clone(), recorded[0].deployed_by.as_str()), (pinned("signed"), "alice"));
    assert_eq!(door.counters().recorded, 2);
}

#[tokio::test]
async fn what_must_not_be_recorded_is_not() {
    let signed = deployment(&[&pinned("signed")]);
    let mut owned = pod(&[&pinned("signed")]);
    owned["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-1", "controller": true}]);
    let mut set = signed.clone();
    set["kind"] = "ReplicaSet".into();
    let cases = [
        ("dry run", Review { dry_run: true, ..create(signed.clone()) }),
        ("mutating", Review { phase: Phase::Mutate, ..create(signed.clone()) }),
        ("unchanged", update(signed.clone(), signed.clone())),
        ("refused", create(deployment(&[&image("bare")]))),
        ("owned pod", create(owned)),
        ("replica set", create(set)),
    ];
    for (what, review) in cases {
        let (door, asked) = door(world(), Settings::default());
        door.review(&review, now(), soon()).await;
        door.settle().await;
        assert_eq!(asked.recorded.lock().unwrap().len(), 0, "{what}");
    }
    for review in [create(signed.clone()), create(pod(&[&pinned("signed")])), update(deployment(&["a"]), signed)] {
        let (door, asked) = door(world(), Settings::default());
        door.review(&review, now(), soon()).await;
        door.settle().await;
        assert_eq!(asked.recorded.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_recording_that_fails_changes_no_answer() {
    let (door, _) = door(World { is_unrecordable: true, ..world() }, Settings::default());
    assert!(door.review(&create(deployment(&[&pinned("signed")])), now(), soon()).await.allowed);
    door.settle().await;
    assert_eq!((door.counters().recorded, door.counters().failed), (0, 1));
}
#[tokio::test]
async fn break_glass_admits_whom_settings_name_and_is_never_silent() {
    let (door, asked) = door(world(), glass_settings());
    let review = create(annotated(deployment(&[&image("bare")]), "incident 7"));
    let outcome = door.review(&review, now(), soon()).await;
    assert!(outcome.allowed);
    assert_eq!(outcome.decision, Decision::Deny, "the verdict stays what it is");
    assert!(outcome.warnings[0].contains("BREAK-GLASS by alice: incident 7"), "{:?}", outcome.warnings);
    assert!(outcome.audit["break-glass"].contains("incident 7"));
    assert_eq!(*asked.glasses.lock().unwrap(), ["incident 7"]);
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
    };
    let known = digest("team/bare");
    let images = vec![(image("bare"), Some(known)), (pinned("bare"), Some(known)), (image("gone"), None)];
    let statement = glass(images).statement(digest("policies")).unwrap();
    assert!(statement.names(&known) && statement.names(&digest("policies")));
    assert_eq!((statement.subjects().len(), &statement.predicate()["reason"]), (2, &json!("incident 7")));
    assert_eq!(glass(vec![(image("gone"), None)]).statement(digest("policies")).unwrap().subjects().len(), 1);
}

#[tokio::test]
async fn a_changed_side_car_is_not_taken_for_the_service() {
    let old = pod(&[&pinned("signed"), &pinned("bare")]);
    let (door, asked) = door(world(), Settings::default());
    let side_car = update(old.clone(), pod(&[&pinned("signed"), &pinned("attached")]));
    assert!(door.review(&side_car, now(), soon()).await.allowed);
    door.settle().await;
    assert_eq!(asked.recorded.lock().unwrap().len(), 0);
    assert!(door.review(&update(old, pod(&[&pinned("attached"), &pinned("bare")])), now(), soon()).await.allowed);
    door.settle().await;
    assert_eq!(asked.recorded.lock().unwrap()[0].digest, digest("team/attached"));
}
