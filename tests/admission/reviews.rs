//! The webhook: reviews in, reviews out, whatever comes in.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode},
};
use base64::Engine as _;
use countersign::{
    admission::{Kind, Settings},
    model::{limits, policy::Mode},
    webhook,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{World, deployment, digest, door, image, now, pinned, pod, world};

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
pub fn well_formed(answer: &Value) {
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

#[tokio::test]
async fn too_many_reviews_wait_within_their_deadline() {
    let (door, asked) = door(World { is_silent: true, ..world() }, Settings::default());
    let router = webhook::router(Arc::new(door), now);
    let body = review_json(&pod(&[&image("signed")])).to_string();
    let send = |timeout: &str| {
        let request = Request::post(format!("/validate?timeout={timeout}")).header("content-type", "application/json");
        router.clone().oneshot(request.body(Body::from(body.clone())).unwrap())
    };
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..256 {
        waiting.spawn(send("30s"));
    }
    while asked.resolved.load(Ordering::SeqCst) < 256 {
        tokio::task::yield_now().await;
    }
    let response = send("50ms").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    well_formed(&serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap());
    waiting.shutdown().await;
    // The slots are free again: this one gets as far as the registry.
    assert_eq!(send("50ms").await.unwrap().status(), StatusCode::OK);
}
