//! The cluster door: objects, patches, modes, deadlines, malformed reviews. The parts behind it answer from tables.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use base64::Engine as _;
use countersign::{
    admission::{
        Admission, BreakGlassSettings, Class, Effect, FailureMode, Kind, ObjectError, OnFailure, Operation, Outcome,
        Parts, Passed, Phase, Review, Settings, User, manifest, object,
    },
    cli,
    grpc::{
        self,
        auth::Authenticated,
        v1::{self, admission_service_server::AdmissionService as _},
    },
    model::{
        Caller, Decision, Digest, Evidence, Identity, ImageRef, Reason, Role, Source, Verdict,
        evidence::Outcome as SourceOutcome, judge::Judgement, limits, policy::Mode, verdict::Code,
    },
    registry::RegistryError,
    release::{Deployment, ReleaseError},
    webhook,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// What the tables hold: names are repositories.
#[derive(Default)]
struct World {
    /// Repository to digest; a repository that is not here is not in the registry.
    tags: BTreeMap<&'static str, Digest>,
    /// Digests whose evidence stands in our log.
    logged: Vec<Digest>,
    /// Digests whose evidence stands in the registry.
    attached: Vec<Digest>,
    /// Digests that were revoked.
    revoked: Vec<Digest>,
    /// The registry does not answer with anything but an error.
    is_down: bool,
    /// The registry never answers.
    is_silent: bool,
    /// Recording fails.
    is_unrecordable: bool,
    mode: Option<Mode>,
}

/// What was asked of the parts.
#[derive(Default)]
struct Asked {
    resolved: AtomicUsize,
    gathered: AtomicUsize,
    recorded: Mutex<Vec<Deployment>>,
    glasses: Mutex<Vec<String>>,
    judged: Mutex<Vec<String>>,
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn now() -> Timestamp {
    "2026-11-24T05:00:00Z".parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn judgement(world: &World, evidence: &Evidence) -> Judgement {
    let with = |decision, code, message: &str| Verdict {
        decision,
        reasons: vec![Reason::new(code, message, "ask who builds it")],
        warnings: Vec::new(),
        policies: vec![("base".to_owned(), digest("base"))],
    };
    let is_proven = evidence.sources.iter().any(|(source, _)| match source {
        Source::Log => world.logged.contains(&evidence.digest),
        Source::Registry => world.attached.contains(&evidence.digest),
        Source::Given => false,
    });
    let verdict = if world.revoked.contains(&evidence.digest) {
        with(Decision::Deny, Code::ArtifactRevoked, "revoked")
    } else if is_proven {
        with(Decision::Allow, Code::Other, "signed")
    } else if evidence.gap().is_some() {
        with(Decision::Unknown, Code::RegistryUnavailable, "could not look")
    } else {
        with(Decision::Deny, Code::SignatureMissing, "nobody signs it")
    };
    Judgement { verdict, mode: world.mode.unwrap_or(Mode::Enforce) }
}

fn parts(world: World) -> (Parts, Arc<Asked>) {
    let (world, asked) = (Arc::new(world), Arc::new(Asked::default()));
    let (w, a) = (Arc::clone(&world), Arc::clone(&asked));
    let resolve: countersign::admission::parts::Resolve = Box::new(move |image: ImageRef, _deadline| {
        let (world, asked) = (Arc::clone(&w), Arc::clone(&a));
        Box::pin(async move {
            asked.resolved.fetch_add(1, Ordering::SeqCst);
            if world.is_silent {
                std::future::pending::<()>().await;
            }
            if world.is_down {
                return Err(RegistryError::Unavailable {
                    registry: image.name.registry.clone(),
                    detail: "connection refused".to_owned(),
                });
            }
            let known = world.tags.get(image.name.repository.as_str());
            known.copied().ok_or_else(|| RegistryError::NotFound(image.to_string()))
        })
    });
    let (w, a) = (Arc::clone(&world), Arc::clone(&asked));
    let gather: countersign::admission::parts::Gather = Box::new(move |digest, _image, now, _deadline| {
        let (world, asked) = (Arc::clone(&w), Arc::clone(&a));
        Box::pin(async move {
            asked.gathered.fetch_add(1, Ordering::SeqCst);
            let mut evidence = Evidence::new(digest);
            evidence.sources.push((Source::Log, SourceOutcome::Complete(now)));
            let ended = if world.is_down {
                SourceOutcome::Unavailable("connection refused".to_owned())
            } else {
                SourceOutcome::Complete(now)
            };
            evidence.sources.push((Source::Registry, ended));
            Ok(evidence)
        })
    });
    let (a, w) = (Arc::clone(&asked), Arc::clone(&world));
    let judge: countersign::admission::parts::Judge = Box::new(move |question, evidence| {
        a.judged.lock().unwrap().push(question.image.unwrap().to_string());
        judgement(&w, evidence)
    });
    let (a, b) = (Arc::clone(&asked), Arc::clone(&asked));
    let parts = Parts {
        resolve,
        gather,
        judge,
        from_log: Box::new(|digest, _image, now| {
            let mut evidence = Evidence::new(digest);
            evidence.sources.push((Source::Log, SourceOutcome::Complete(now)));
            Box::pin(async move { Ok(evidence) })
        }),
        record: Box::new(move |deployment, _now| {
            a.recorded.lock().unwrap().push(deployment);
            let fails = world.is_unrecordable;
            Box::pin(async move { if fails { Err(ReleaseError::Other("no".to_owned())) } else { Ok(None) } })
        }),
        record_break_glass: Some(Box::new(move |glass, _now| {
            b.glasses.lock().unwrap().push(glass.reason);
            Box::pin(async { Ok(()) })
        })),
        policy: digest("policies"),
    };
    (parts, asked)
}

fn door(world: World, settings: Settings) -> (Admission, Arc<Asked>) {
    let (parts, asked) = parts(world);
    (Admission::with(parts, settings), asked)
}

/// `signed` is in log and registry, `attached` in the registry only, `bare` is unsigned.
fn world() -> World {
    World {
        tags: ["team/signed", "team/attached", "team/bare", "team/revoked"].map(|name| (name, digest(name))).into(),
        logged: vec![digest("team/signed"), digest("team/revoked")],
        attached: vec![digest("team/attached")],
        revoked: vec![digest("team/revoked")],
        ..World::default()
    }
}

fn image(name: &str) -> String {
    format!("registry.example/team/{name}:1")
}

fn pinned(name: &str) -> String {
    format!("registry.example/team/{name}:1@{}", digest(&format!("team/{name}")))
}

fn pod(images: &[&str]) -> Value {
    let containers: Vec<Value> =
        images.iter().enumerate().map(|(i, image)| json!({"name": format!("c{i}"), "image": image})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": containers}})
}

fn deployment(images: &[&str]) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "template": {"spec": pod(images)["spec"]}}
    })
}

fn create(object: Value) -> Review {
    Review {
        uid: "u".to_owned(),
        phase: Phase::Validate,
        operation: Operation::Create,
        kind: Kind::of(&object).unwrap(),
        subresource: String::new(),
        namespace: None,
        environment: None,
        object,
        old_object: Value::Null,
        user: User { name: "alice".to_owned(), groups: vec!["dev".to_owned()] },
        dry_run: false,
    }
}

fn update(old: Value, new: Value) -> Review {
    Review { operation: Operation::Update, old_object: old, ..create(new) }
}

async fn ask(world: World, review: &Review) -> Outcome {
    door(world, Settings::default()).0.review(review, now(), soon()).await
}

fn codes(outcome: &Outcome) -> Vec<Code> {
    outcome.images.iter().flat_map(|image| image.verdict.reasons.iter().map(|reason| reason.code)).collect()
}

// Objects.

#[test]
fn every_image_field_of_every_kind_is_found() {
    let kinds = [
        ("v1", "Pod", "/spec"),
        ("v1", "ReplicationController", "/spec/template/spec"),
        ("v1", "PodTemplate", "/template/spec"),
        ("apps/v1", "Deployment", "/spec/template/spec"),
        ("apps/v1", "ReplicaSet", "/spec/template/spec"),
        ("apps/v1", "StatefulSet", "/spec/template/spec"),
        ("apps/v1", "DaemonSet", "/spec/template/spec"),
        ("batch/v1", "Job", "/spec/template/spec"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template/spec"),
    ];
    for (version, kind, root) in kinds {
        let mut object = json!({
            "containers": [{"name": "c", "image": "a"}],
            "initContainers": [{"name": "i", "image": "b"}, {"name": "empty", "image": ""}, {"name": "none"}],
            "ephemeralContainers": [{"name": "e", "image": "c"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "d"}}, {"name": "x", "image": {}}],
        });
        for field in root.rsplit('/').filter(|field| !field.is_empty()) {
            object = json!({ field: object });
        }
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        let found = object::images(&Kind::of(&object).unwrap(), &object).unwrap();
        let mut seen: Vec<&str> = found.iter().map(|one| one.image.as_str()).collect();
        seen.sort_unstable();
        assert_eq!(seen, ["a", "b", "c", "d"], "{kind}");
        for one in &found {
            assert_eq!(object.pointer(&one.pointer), Some(&json!(one.image)), "{kind} {}", one.pointer);
        }
    }
}

#[test]
fn the_same_names_in_another_group_are_not_ours() {
    for version in ["example.com/v1", "v1", "batch/v1"] {
        let mut object = deployment(&["a"]);
        object["apiVersion"] = version.into();
        assert_eq!(object::images(&Kind::of(&object).unwrap(), &object).unwrap(), [], "{version}");
    }
}

#[test]
fn wrong_types_and_too_many_images_are_refused_by_name() {
    let kind = Kind { group: String::new(), kind: "Pod".to_owned() };
    let cases = [
        (json!({"spec": 1}), "/spec must be an object"),
        (json!({"spec": {"containers": {}}}), "/spec/containers must be a list"),
        (json!({"spec": {"containers": ["a"]}}), "/spec/containers/0 must be an object"),
        (json!({"spec": {"containers": [{"image": 1.2}]}}), "/spec/containers/0/image must be a string"),
        (json!({"spec": {"volumes": [{"image": "a"}]}}), "/spec/volumes/0/image must be an object"),
        (
            json!({"spec": {"volumes": [{"image": {"reference": []}}]}}),
            "/spec/volumes/0/image/reference must be a string",
        ),
    ];
    for (object, expected) in cases {
        assert_eq!(object::images(&kind, &object).unwrap_err().to_string(), expected);
    }
    let many = |count: usize| {
        let list: Vec<Value> = (0..count).map(|i| json!({"image": format!("a{i}")})).collect();
        json!({"spec": {"containers": list, "initContainers": [{"image": "b"}]}})
    };
    assert_eq!(object::images(&kind, &many(limits::IMAGES)).unwrap_err(), ObjectError::TooMany);
    assert_eq!(object::images(&kind, &many(limits::IMAGES + 1)).unwrap_err(), ObjectError::TooMany);
    assert_eq!(object::images(&kind, &many(limits::IMAGES - 1)).unwrap().len(), limits::IMAGES);
}

#[test]
fn service_names_are_stable_over_the_pods_of_a_workload() {
    let owned = |kind: &str, name: &str| json!([{"kind": kind, "name": name, "controller": true}]);
    let cases = [
        (json!({"labels": {"app.kubernetes.io/name": "n", "app": "a"}, "name": "x"}), Some("n")),
        (json!({"labels": {"app": "a"}, "name": "x"}), Some("a")),
        (
            json!({"labels": {"pod-template-hash": "5d4f"}, "ownerReferences": owned("ReplicaSet", "web-5d4f")}),
            Some("web"),
        ),
        (json!({"ownerReferences": owned("ReplicaSet", "web-5d4f")}), Some("web-5d4f")),
        (json!({"ownerReferences": owned("Job", "nightly-29012345")}), Some("nightly")),
        (json!({"ownerReferences": owned("StatefulSet", "db")}), Some("db")),
        (json!({"generateName": "worker-", "name": "worker-x7k2p"}), Some("worker")),
        (json!({"name": "x"}), Some("x")),
        (json!({}), None),
    ];
    for (metadata, expected) in cases {
        assert_eq!(object::service(&json!({"metadata": metadata})).as_deref(), expected, "{metadata}");
    }
}

#[test]
fn environment_is_the_label_or_the_namespace() {
    let mut object = pod(&["a"]);
    assert_eq!(create(object.clone()).environment(), "shop");
    object["metadata"]["labels"] = json!({object::ENVIRONMENT_LABEL: "production"});
    assert_eq!(create(object.clone()).environment(), "production");
    let given = Review { environment: Some("staging".to_owned()), ..create(object) };
    assert_eq!(given.environment(), "staging");
}

// Manifests.

#[test]
fn manifests_unroll_lists_and_documents() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: apps/v1\n  kind: Deployment\n- apiVersion: v1\n  kind: Pod\n";
    let kinds: Vec<String> = manifest::parse(yaml.as_bytes())
        .unwrap()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["Pod", "Deployment", "Pod"]);
    assert_eq!(manifest::parse(pod(&["a"]).to_string().as_bytes()).unwrap().len(), 1);
}

#[test]
fn bad_manifests_are_refused_by_name() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep_yaml = format!("apiVersion: v1\nkind: Pod\nx: {}1{}", "[".repeat(70), "]".repeat(70));
    let many = "apiVersion: v1\nkind: Pod\n---\n".repeat(limits::OBJECTS + 1);
    let cases: [(&str, &str); 8] = [
        ("", "the manifest has no objects"),
        ("# nothing\n", "the manifest has no objects"),
        ("a: b\n", "document 1 has no apiVersion"),
        ("apiVersion: v1\nkind: Pod\n---\n- a\n", "document 2 has no apiVersion"),
        ("a: [\n", "the manifest is neither YAML nor JSON"),
        (&deep, "nested more than 64 levels"),
        (&deep_yaml, "nested more than 64 levels"),
        (&many, "more than 256 objects"),
    ];
    for (text, expected) in cases {
        let error = manifest::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} for {text:.60}");
    }
    let long = vec![b' '; limits::DOCUMENT + 1];
    assert!(manifest::parse(&long).unwrap_err().to_string().contains("the limit is"));
    assert!(manifest::parse(&long[1..]).unwrap_err().to_string().contains("no objects"));
}

// Judging.

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

// What always passes.

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

// Modes.

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

// Recording.

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

// Break-glass.

fn glass_settings() -> Settings {
    let break_glass =
        BreakGlassSettings { users: ["alice".to_owned()].into(), groups: ["sre".to_owned()].into(), lasts_s: 60 };
    Settings { break_glass, ..Settings::default() }
}

fn annotated(mut object: Value, reason: &str) -> Value {
    object["metadata"]["annotations"] = json!({"countersign.dev/break-glass": reason});
    object
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

// The webhook.

fn review_json(object: &Value) -> Value {
    let kind = Kind::of(object).unwrap();
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": kind.group, "version": "v1", "kind": kind.kind},
            "operation": "CREATE", "namespace": "shop", "object": object,
            "userInfo": {"username": "alice", "groups": ["dev"]},
        }
    })
}

async fn post(world: World, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    post_as(world, path, body, "application/json").await
}

async fn post_as(world: World, path: &str, body: impl Into<Body>, content_type: &str) -> (StatusCode, Value) {
    let router = webhook::router(Arc::new(door(world, Settings::default()).0), now);
    let request = Request::post(path).header("content-type", content_type).body(body.into()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    well_formed(&answer);
    (status, answer["response"].clone())
}

/// What an API server demands of every answer.
fn well_formed(answer: &Value) {
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    let response = &answer["response"];
    assert!(response["uid"].is_string() && response["allowed"].is_boolean(), "{answer}");
    assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some(), "{answer}");
    if response["allowed"] == false {
        assert!(response["status"]["code"].is_u64() && response["status"]["message"].is_string(), "{answer}");
    }
    for warning in response["warnings"].as_array().unwrap_or(&vec![]) {
        assert!(warning.as_str().unwrap().chars().count() <= 256);
    }
}

#[tokio::test]
async fn reviews_are_answered_in_kind() {
    let signed = review_json(&pod(&[&image("signed")]));
    let (status, response) = post(world(), "/validate?timeout=10s", signed.to_string()).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(true)));
    assert_eq!(response["uid"], signed["request"]["uid"]);
    assert_eq!(response.get("patch"), None);
    assert_eq!(response["auditAnnotations"]["policy"], json!(digest("policies").to_string()));
    for (name, code) in [("bare", 403), ("gone", 403)] {
        let (status, response) = post(world(), "/validate", review_json(&pod(&[&image(name)])).to_string()).await;
        assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(false)));
        assert_eq!(response["status"]["code"], code);
        assert!(response["status"]["message"].as_str().unwrap().contains(&image(name)));
    }
    let (_, response) = post(World { is_down: true, ..world() }, "/validate", signed.to_string()).await;
    assert_eq!(response["status"]["code"], 500);
    let (_, response) = post(World { is_silent: true, ..world() }, "/validate?timeout=50ms", signed.to_string()).await;
    assert_eq!(response["status"]["code"], 504);
}

#[tokio::test]
async fn the_patch_is_one_that_a_json_patch_library_applies() {
    for path in ["/mutate", "/admit"] {
        let object = pod(&[&image("signed"), &pinned("attached")]);
        let (_, response) = post(world(), path, review_json(&object).to_string()).await;
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
        let mut patched = object;
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!(patched, pod(&[&pinned("signed"), &pinned("attached")]));
        // Asked again with what came of it, there is nothing left to patch.
        let (_, response) = post(world(), path, review_json(&patched).to_string()).await;
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[tokio::test]
async fn malformed_reviews_get_well_formed_answers() {
    let good = review_json(&pod(&[&image("signed")]));
    let with = |pointer: &str, value: Value| {
        let mut review = good.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
    let found = [
        (with("/apiVersion", json!("admission.k8s.io/v1beta1")), "expected AdmissionReview"),
        (with("/kind", json!("Pod")), "expected AdmissionReview"),
        (with("/request/operation", json!("PATCH")), "request.operation must be"),
        (with("/request/kind", json!({})), "request.kind.kind must be"),
        (with("/request/kind/kind", json!(7)), "request.kind.kind must be"),
        (with("/request/object", json!("pod")), "request.object must be an object"),
        (with("/request/object", Value::Null), "request.object must be an object for this operation"),
        (with("/request/namespace", json!([])), "request.namespace must be"),
        (with("/request/userInfo/groups", json!("dev")), "request.userInfo.groups must be"),
        (with("/request/userInfo/groups", json!([1])), "request.userInfo.groups must be"),
        (with("/request/namespace", json!("n".repeat(513))), "request.namespace must be"),
    ];
    for (body, expected) in found {
        let (status, response) = post(world(), "/validate", body).await;
        assert_eq!((status, &response["status"]["code"]), (StatusCode::OK, &json!(400)), "{expected}");
        assert_eq!(response["uid"], good["request"]["uid"]);
        assert!(response["status"]["message"].as_str().unwrap().contains(expected), "{response}");
    }
    let lost = [
        (String::new(), "not JSON"),
        ("{".to_owned(), "not JSON"),
        ("\u{0}\u{1}".to_owned(), "not JSON"),
        ("null".to_owned(), "expected AdmissionReview"),
        ("[]".to_owned(), "expected AdmissionReview"),
        (deep, "nested more than 64"),
        (with("/request", Value::Null), "request.uid must be"),
        (with("/request/uid", json!("")), "request.uid must be"),
        (with("/request/uid", json!(7)), "request.uid must be"),
    ];
    for (body, expected) in lost {
        let (status, response) = post(world(), "/validate", body).await;
        assert_eq!((status, &response["status"]["code"]), (StatusCode::BAD_REQUEST, &json!(400)), "{expected}");
        assert!(response["status"]["message"].as_str().unwrap().contains(expected), "{response}");
    }
    let (status, response) = post(world(), "/validate", good.to_string()).await;
    assert_eq!((status, &response["allowed"]), (StatusCode::OK, &json!(true)), "the good one passes");
}

#[tokio::test]
async fn bodies_content_types_and_timeouts_are_checked() {
    let good = review_json(&pod(&[&image("signed")])).to_string();
    let (status, _) = post(world(), "/mutate", vec![b' '; limits::ADMISSION_BODY + 1]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let padded = format!("{good}{}", " ".repeat(limits::ADMISSION_BODY - good.len()));
    assert_eq!(post(world(), "/mutate", padded).await.0, StatusCode::OK);
    for (content_type, expected) in [
        ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/jsonx", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json; charset=utf-8", StatusCode::OK),
        ("Application/JSON", StatusCode::OK),
    ] {
        assert_eq!(post_as(world(), "/validate", good.clone(), content_type).await.0, expected, "{content_type}");
    }
    for timeout in ["ten", "10", "-1s", "1e3s", "5d", "s", "10s5"] {
        let (status, response) = post(world(), &format!("/validate?timeout={timeout}"), good.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{timeout}");
        assert!(response["status"]["message"].as_str().unwrap().contains("timeout must be"), "{response}");
    }
    // A body that never ends is given up at the deadline.
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let (status, _) = post(world(), "/validate?timeout=50ms", endless).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
}

#[test]
fn deadlines_leave_a_margin_and_know_their_bounds() {
    let start = Instant::now();
    let cases = [
        ("", 9_500),
        ("timeout=10s", 9_500),
        ("dryRun=true&timeout=10s", 9_500),
        ("timeout=1m", 29_500),
        ("timeout=1m30s", 29_500),
        ("timeout=2h", 29_500),
        ("timeout=0", 9_500),
        ("timeout=0s", 9_500),
        ("timeout=1s", 900),
        ("timeout=1.5s", 1_350),
        ("timeout=500ms", 450),
        ("timeout=100ms", 80),
        ("timeout=30ms", 15),
    ];
    for (query, expected_ms) in cases {
        let allowed = webhook::deadline_of(query, start).unwrap() - start;
        assert_eq!(allowed.as_millis(), expected_ms, "{query}");
    }
    assert!(webhook::deadline_of("timeout=99999999999999999999999h", start).is_err());
}

#[tokio::test]
async fn a_dry_run_over_http_writes_nothing() {
    for (dry_run, records) in [(json!(true), 0), (json!(false), 1), (Value::Null, 1)] {
        let (door, asked) = door(world(), Settings::default());
        let door = Arc::new(door);
        let mut review = review_json(&deployment(&[&pinned("signed")]));
        review["request"]["dryRun"] = dry_run;
        let request = Request::post("/validate").header("content-type", "application/json");
        let response = webhook::router(Arc::clone(&door), now)
            .oneshot(request.body(Body::from(review.to_string())).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        door.settle().await;
        assert_eq!(asked.recorded.lock().unwrap().len(), records);
    }
}

#[tokio::test]
async fn warnings_are_cut_and_counted() {
    let names: Vec<String> = (0..40).map(|i| format!("registry.example/team/{}{i}:1", "x".repeat(200))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let warn = World { mode: Some(Mode::Warn), ..world() };
    let (_, response) = post(warn, "/validate", review_json(&pod(&names)).to_string()).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["warnings"].as_array().unwrap().len(), 13);
}

#[tokio::test]
async fn an_image_that_no_policy_speaks_about_is_not_ours_to_refuse() {
    for broken in [World { is_down: true, ..world() }, world()] {
        let (mut parts, _) = parts(broken);
        parts.judge = Box::new(|_question, _evidence| Judgement {
            verdict: Verdict { decision: Decision::Allow, reasons: vec![], warnings: vec![], policies: vec![] },
            mode: Mode::Enforce,
        });
        let door = Admission::with(parts, Settings::default());
        let outcome = door.review(&create(pod(&[&image("gone")])), now(), soon()).await;
        assert!(outcome.allowed);
        assert_eq!(outcome.warnings.len(), 1, "it says that it could not look");
    }
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

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    /// Whatever stands where, the answer is well-formed, and nothing is let in that the table does not sign.
    #[test]
    fn no_review_breaks_the_webhook(place in 0_usize..24, junk in junk(), path in 0_usize..3) {
        let mut review = review_json(&deployment(&[&image("bare")]));
        let pointers = pointers(&review, String::new());
        let pointer = &pointers[place % pointers.len()];
        *review.pointer_mut(pointer).unwrap() = junk;
        let path = ["/validate", "/mutate", "/admit"][path];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (_, response) = runtime.block_on(post(world(), path, review.to_string()));
        // What was asked may by now be another question, or none; the unsigned image never gets in as itself.
        let still_asks = review.to_string().contains(&image("bare"))
            && review.pointer("/request/operation") == Some(&json!("CREATE"))
            && review.pointer("/request/kind") == Some(&json!({"group": "apps", "version": "v1", "kind": "Deployment"}))
            && review.pointer("/request/object/spec/template/spec/containers/0/image").is_some();
        if still_asks && review.pointer("/request/subResource").is_none() {
            assert_eq!(response["allowed"], false, "{review}");
        }
    }
}

fn junk() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,8}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn pointers(value: &Value, here: String) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (format!("{here}/{}", key.replace('/', "~1")), value)).collect()
        }
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, value)| (format!("{here}/{index}"), value)).collect()
        }
        _ => Vec::new(),
    };
    let mut all = vec![here];
    all.extend(below.into_iter().flat_map(|(pointer, value)| pointers(value, pointer)));
    all
}

// gRPC and the shell.

fn caller(roles: &[Role]) -> Authenticated {
    let identity = Identity { subject: "ci@example.com".to_owned(), issuer: "https://issuer.example".to_owned() };
    Authenticated(Ok(Caller { identity, roles: roles.iter().copied().collect() }))
}

async fn admit(request: v1::AdmitRequest, who: Authenticated) -> Result<v1::AdmitResponse, tonic::Status> {
    let face = grpc::admission::Face::new(Arc::new(door(world(), glass_settings()).0), now);
    let mut request = tonic::Request::new(request);
    request.extensions_mut().insert(who);
    face.admit(request).await.map(tonic::Response::into_inner)
}

fn manifest_of(objects: &[Value]) -> v1::AdmitRequest {
    v1::AdmitRequest { manifest: manifest::write(objects).unwrap().into(), ..v1::AdmitRequest::default() }
}

#[tokio::test]
async fn admit_answers_for_every_object_of_a_manifest() {
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let mut objects = vec![pod(&[&image("signed")]), config, deployment(&[&image("signed"), &image("bare")])];
    let answer = admit(manifest_of(&objects), caller(&[Role::Verifier])).await.unwrap();
    assert_eq!((answer.allowed, answer.decision()), (false, v1::Decision::Deny));
    let each: Vec<_> =
        answer.objects.iter().map(|one| (one.kind.as_str(), one.allowed, one.namespace.as_str())).collect();
    assert_eq!(each, [("Pod", true, "shop"), ("ConfigMap", true, "default"), ("Deployment", false, "shop")]);
    assert_eq!(answer.objects[2].outcome, "no-evidence");
    assert_eq!(answer.objects[0].images[0].digest, digest("team/signed").to_string());
    // What the shell makes of it.
    cli::admit::pin(&mut objects, &answer);
    assert_eq!(objects[0], pod(&[&pinned("signed")]));
    assert_eq!(objects[2], deployment(&[&image("signed"), &image("bare")]), "what is refused is not pinned");
    let text = cli::admit::text(&answer);
    for expected in [
        "ALLOW    pod/p in shop",
        "DENY     deployment/web in shop",
        "SIGNATURE_MISSING: nobody signs it",
        "to do: ask",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let json = cli::admit::to_json(&answer);
    assert_eq!(
        (&json["decision"], &json["objects"][2]["images"][1]["reasons"][0]["code"]),
        (&json!("deny"), &json!("SIGNATURE_MISSING"))
    );
}

#[tokio::test]
async fn admit_refuses_bad_fields_and_missing_roles_by_name() {
    let good = manifest_of(&[pod(&[&image("signed")])]);
    let long = "n".repeat(limits::NAME + 1);
    let cases = [
        (v1::AdmitRequest::default(), "manifest: the manifest has no objects"),
        (v1::AdmitRequest { namespace: long.clone(), ..good.clone() }, "namespace: longer than"),
        (v1::AdmitRequest { environment: long.clone(), ..good.clone() }, "environment: longer than"),
        (v1::AdmitRequest { user: long.clone(), ..good.clone() }, "user: longer than"),
        (v1::AdmitRequest { groups: vec![long], ..good.clone() }, "groups: longer than"),
        (v1::AdmitRequest { groups: vec![String::new(); 1_025], ..good.clone() }, "groups: more than"),
    ];
    for (request, expected) in cases {
        let status = admit(request, caller(&[Role::Operator])).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains(expected), "{}", status.message());
    }
    for role in Role::ALL {
        let may = [Role::Verifier, Role::Deployer, Role::Operator, Role::Admin].contains(&role);
        assert_eq!(admit(good.clone(), caller(&[role])).await.is_ok(), may, "{role}");
    }
    let nobody = admit(good, Authenticated(Err("no".to_owned()))).await.unwrap_err();
    assert_eq!(nobody.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn admit_asks_as_someone_and_leaves_nothing_behind() {
    let (door, asked) = door(world(), glass_settings());
    let face = grpc::admission::Face::new(Arc::new(door), now);
    let ask = async |user: &str| {
        let object = annotated(deployment(&[&image("bare")]), "why");
        let mut request = tonic::Request::new(v1::AdmitRequest { user: user.to_owned(), ..manifest_of(&[object]) });
        request.extensions_mut().insert(caller(&[Role::Deployer]));
        face.admit(request).await.unwrap().into_inner()
    };
    let answer = ask("alice").await;
    assert_eq!((answer.allowed, answer.decision()), (true, v1::Decision::Deny));
    assert!(!ask("bob").await.allowed);
    assert_eq!((asked.glasses.lock().unwrap().len(), asked.recorded.lock().unwrap().len()), (0, 0));
}

// What is deployed.

#[test]
fn the_webhook_configuration_covers_every_kind_that_is_judged() {
    let text = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/webhook.yaml")).unwrap();
    let objects = manifest::parse(&text).unwrap();
    let hook = |kind: &str| &objects.iter().find(|object| object["kind"] == kind).unwrap()["webhooks"][0];
    let resources = |hook: &Value| -> Vec<(String, String)> {
        let rules = hook["rules"].as_array().unwrap().iter();
        rules
            .flat_map(|rule| {
                let group = rule["apiGroups"][0].as_str().unwrap().to_owned();
                let names = rule["resources"].as_array().unwrap().clone();
                names.into_iter().map(move |name| (group.clone(), name.as_str().unwrap().to_owned()))
            })
            .collect()
    };
    let validated = resources(hook("ValidatingWebhookConfiguration"));
    for (group, resource, kind) in [
        ("", "pods", "Pod"),
        ("", "pods/ephemeralcontainers", "Pod"),
        ("", "replicationcontrollers", "ReplicationController"),
        ("", "podtemplates", "PodTemplate"),
        ("apps", "deployments", "Deployment"),
        ("apps", "replicasets", "ReplicaSet"),
        ("apps", "statefulsets", "StatefulSet"),
        ("apps", "daemonsets", "DaemonSet"),
        ("batch", "jobs", "Job"),
        ("batch", "cronjobs", "CronJob"),
    ] {
        assert!(validated.contains(&(group.to_owned(), resource.to_owned())), "{resource}");
        assert!(Kind { group: group.to_owned(), kind: kind.to_owned() }.pod_spec().is_some(), "{kind}");
    }
    assert_eq!(validated.len(), 10);
    assert!(
        resources(hook("MutatingWebhookConfiguration"))
            .contains(&(String::new(), "pods/ephemeralcontainers".to_owned()))
    );
    for (kind, side_effects, path) in [
        ("ValidatingWebhookConfiguration", "NoneOnDryRun", "/validate"),
        ("MutatingWebhookConfiguration", "None", "/mutate"),
    ] {
        let hook = hook(kind);
        assert_eq!(
            (&hook["sideEffects"], &hook["clientConfig"]["service"]["path"]),
            (&json!(side_effects), &json!(path))
        );
        let left_out = &hook["namespaceSelector"]["matchExpressions"][0]["values"];
        let exempt: Vec<Value> = Settings::default().exempt_namespaces.into_iter().map(Value::from).collect();
        assert_eq!(left_out, &Value::Array(exempt), "the service exempts the namespaces that the selector leaves out");
    }
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    let config: toml::Table = config["data"]["countersign.toml"].as_str().unwrap().parse().unwrap();
    let settings: Settings = config["admission"].clone().try_into().unwrap();
    assert_eq!(settings.exempt_namespaces, Settings::default().exempt_namespaces);
}
