//! What passes without a judgement, and what is recorded as a deployment.

use countersign::{
    admission::{Kind, Operation, Passed, Phase, Review, Settings, User},
    model::verdict::Code,
};
use serde_json::{Value, json};

use super::{World, ask, codes, create, deployment, digest, door, image, now, pinned, pod, soon, update, world};

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
    let workloads: Vec<_> = recorded.iter().map(|one| one.workload.as_ref().unwrap().to_string()).collect();
    assert_eq!(workloads, ["Deployment shop/web, container c0", "Deployment shop/web, container c1"]);
    assert_eq!(door.recordings().deployments.recorded, 2);
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
    let counters = door.recordings().deployments;
    assert_eq!((counters.recorded, counters.failed), (0, 1));
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
