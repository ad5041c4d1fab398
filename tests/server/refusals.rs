//! What the cluster door cannot read, over the wire: refused by name, and by the webhook always in its own form.

use std::time::Duration;

use countersign::{
    grpc::v1::{self, admission_service_client::AdmissionServiceClient},
    model::{Digest, limits},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{NOWHERE, POLICY, Service, connect, exchange, image, pod, review};

/// One request to the webhook, and what must come of it.
struct Case {
    what: &'static str,
    method: reqwest::Method,
    path: &'static str,
    content_type: &'static str,
    body: String,
    status: StatusCode,
    word: &'static str,
}

fn case(what: &'static str, body: impl Into<String>, status: StatusCode, word: &'static str) -> Case {
    let (method, path, content_type) = (reqwest::Method::POST, "/validate", "application/json");
    Case { what, method, path, content_type, body: body.into(), status, word }
}

fn changed(pointer: &str, value: Value) -> String {
    let mut changed = good();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed.to_string()
}

fn good() -> Value {
    let mut review = review(pod(&image(NOWHERE, &Digest::of(b"never signed"))));
    review["request"]["dryRun"] = true.into();
    review
}

fn cases() -> Vec<Case> {
    let (ok, bad) = (StatusCode::OK, StatusCode::BAD_REQUEST);
    let deep = |levels: usize| format!("{{\"request\":{{\"object\":{}{}}}}}", "[".repeat(levels), "]".repeat(levels));
    let large = |bytes: usize| format!("{}{}", good(), " ".repeat(bytes));
    let timeout = |path| Case { path, ..case("bad timeout", good().to_string(), bad, "timeout must be a duration") };
    vec![
        case("nothing", "", bad, "not JSON"),
        case("half a review", good().to_string().split_at(100).0, bad, "not JSON"),
        case("bytes", "\u{0}\u{fffd}", bad, "not JSON"),
        case("another JSON", "[]", bad, "expected AdmissionReview"),
        case("another version", changed("/apiVersion", json!("admission.k8s.io/v1beta1")), ok, "list v1"),
        case("another kind", changed("/kind", json!("Pod")), ok, "expected AdmissionReview"),
        case("no request", changed("/request", Value::Null), bad, "request.uid"),
        case("no uid", changed("/request/uid", Value::Null), bad, "request.uid"),
        case("long uid", changed("/request/uid", json!("u".repeat(600))), bad, "request.uid"),
        case("unknown operation", changed("/request/operation", json!("PATCH")), ok, "request.operation must be"),
        case("no object", changed("/request/object", Value::Null), ok, "request.object must be"),
        case("object is a list", changed("/request/object", json!([])), ok, "request.object must be"),
        case("kind is a number", changed("/request/kind/kind", json!(7)), ok, "request.kind.kind must be"),
        case("nested deeply", deep(100), bad, "nested more than 64"),
        case("nested very deeply", deep(1_000_000), bad, "nested more than 64"),
        case("a mebibyte too long", large(limits::ADMISSION_BODY), StatusCode::PAYLOAD_TOO_LARGE, "longer than"),
        timeout("/validate?timeout=soon"),
        timeout("/mutate?timeout=-1s"),
        timeout("/admit?timeout=10"),
        Case {
            content_type: "application/yaml",
            ..case("not JSON", good().to_string(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json")
        },
        Case {
            path: "/",
            ..case("no path", good().to_string(), StatusCode::NOT_FOUND, "/validate, /mutate and /admit")
        },
        Case {
            method: reqwest::Method::PUT,
            ..case("another method", good().to_string(), StatusCode::METHOD_NOT_ALLOWED, "by POST")
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_answers_whatever_it_cannot_read_with_a_review_that_says_why() {
    let service = Service::new(POLICY, "[registry]\nattempts = 1\n");
    let api = service.api_server();
    for Case { what, method, path, content_type, body, status, word } in cases() {
        let request = api.http.request(method, format!("{}{path}", api.base)).header("content-type", content_type);
        let answer = request.body(body).send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(answer.status(), status, "{what}");
        let answer: Value = answer.json().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        crate::admission::well_formed(&answer);
        assert_eq!(answer["response"]["allowed"], false, "{what}");
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains(word), "{what}: {message}");
        let uid = if status == StatusCode::OK { good()["request"]["uid"].clone() } else { json!("") };
        assert_eq!(answer["response"]["uid"], uid, "{what}");
    }
    // What is announced to be far too long is refused before it is sent.
    let mut stream = connect(service.house.webhook, &service.house.ca()).await;
    let length = 3 * limits::ADMISSION_BODY;
    let head = format!(
        "POST /validate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    let answer = exchange(&mut stream, head.as_bytes(), Duration::from_secs(5)).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    crate::admission::well_formed(&body);
    assert!(body["response"]["status"]["message"].as_str().unwrap().contains("longer than"), "{body}");
    // The same review without a fault is judged.
    let judged = api.ask("/validate?timeout=10s", &good()).await;
    assert_eq!((&judged["allowed"], &judged["status"]["code"]), (&json!(false), &json!(500)), "{judged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_call_refuses_manifests_that_it_cannot_read_by_field() {
    let service = Service::new(POLICY, "[registry]\nattempts = 1\n");
    let mut client = AdmissionServiceClient::new(service.house.channel("builder").await);
    let manifest = |text: String| v1::AdmitRequest { manifest: text.into_bytes().into(), ..Default::default() };
    let good = pod(&image(NOWHERE, &Digest::of(b"never signed"))).to_string();
    let many: String = (0..=limits::OBJECTS).map(|_| format!("---\n{good}\n")).collect();
    let cases = [
        (manifest(String::new()), "manifest", "no objects"),
        (manifest("{".to_owned()), "manifest", "neither YAML nor JSON"),
        (manifest("a: [b".to_owned()), "manifest", "neither YAML nor JSON"),
        (manifest("kind: Pod".to_owned()), "manifest", "no apiVersion"),
        (manifest(format!("[{}{}]", "[".repeat(100), "]".repeat(100))), "manifest", "nested more than"),
        (manifest(format!("{good}{}", " ".repeat(limits::DOCUMENT))), "manifest", "the limit is"),
        (manifest(many), "manifest", "more than 256 objects"),
        (v1::AdmitRequest { namespace: "n".repeat(600), ..manifest(good.clone()) }, "namespace", "longer than"),
        (v1::AdmitRequest { groups: vec!["g".repeat(600)], ..manifest(good.clone()) }, "groups", "longer than"),
    ];
    for (request, field, word) in cases {
        let refused = client.admit(request).await.expect_err(word);
        assert_eq!(refused.code(), Code::InvalidArgument, "{word}: {refused:?}");
        let violations = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field, "{word}");
        assert!(violations[0].description.contains(word), "{word}: {violations:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "INVALID_ARGUMENT");
    }
    let huge = client.admit(manifest("x".repeat(limits::GRPC_MESSAGE))).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    // An unknown operation cannot be asked here; what an object lacks is said of the object.
    let answer = client.admit(manifest(good)).await.unwrap().into_inner();
    assert_eq!((answer.allowed, answer.decision()), (false, v1::Decision::Unknown));
}
