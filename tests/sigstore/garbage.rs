//! Whatever is sent to a face for stock clients, the answer is a definite one: granted, or refused with a reason. Never a
//! failure of ours, and nothing refused is in the log.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    identity::SubjectForm,
    model::Scheme,
    recording::{Recording, Whose},
    sigstore::{
        limits::{Allowance, Limiter},
        rekor::RekorFace,
        timestamp::TimestampFace,
    },
};
use http::{Request, header::CONTENT_TYPE};
use jiff::Timestamp;
use proptest::{
    prelude::Strategy as _,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use super::{Holder, rekor};
use crate::{
    issuing::{
        self, Key, csr,
        refusals::{by_csr, by_proof},
        sub,
    },
    mutation::mutated,
};

const JSON: &str = "application/json";
const QUERY: &str = "application/timestamp-query";

/// A `TimeStampReq` over SHA-256, with a nonce of one byte.
fn query() -> Vec<u8> {
    let hash = Sha256::digest(b"artifact");
    let algorithm = [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    let imprint = [&[0x30, 0x2f], algorithm.as_slice(), &[0x04, 0x20], &hash].concat();
    [&[0x30, 0x37, 0x02, 0x01, 0x01], imprint.as_slice(), &[0x02, 0x01, 0x05]].concat()
}

/// What clients send, by path.
fn seeds(token: &str) -> Vec<(&'static str, &'static str, u16, Vec<Vec<u8>>)> {
    let holder = Holder::new(Scheme::P256Sha256);
    let key = Key::p256();
    let stamp = json!({ "artifactHash": STANDARD.encode(Sha256::digest(b"a")), "hashAlgorithm": "sha256", "nonce": 7 });
    let proof = key.sign(issuing::SUB.as_bytes());
    let v1 = json!({ "publicKey": { "content": STANDARD.encode(&key.spki) }, "signedEmailAddress": STANDARD.encode(&proof) });
    let text = |value: Value| value.to_string().into_bytes();
    vec![
        ("/api/v2/log/entries", JSON, 201, vec![text(rekor::request(&holder, b"artifact"))]),
        ("/api/v1/timestamp", QUERY, 201, vec![query()]),
        ("/api/v1/timestamp", JSON, 201, vec![text(stamp)]),
        (
            "/api/v2/signingCert",
            JSON,
            200,
            vec![text(by_proof(token, &key.pem(), &proof)), text(by_csr(token, &csr(&key.request(|_| ()))))],
        ),
        ("/api/v1/signingCert", JSON, 201, vec![text(v1)]),
    ]
}

fn faces(house: &issuing::House) -> Router {
    let freely = || Limiter::shared(Allowance { per_second: 0, burst: 0 });
    let stamps = TimestampFace::new(Arc::clone(&house.keys), freely(), Timestamp::now);
    let entries = RekorFace::new(Recording::new(house.log.clone().into(), Whose::Anyone, &house.keys), freely());
    house.face().router().merge(entries.router()).merge(stamps.router())
}

async fn send(faces: &Router, path: &str, kind: &str, token: &str, body: Vec<u8>) -> (u16, String, Vec<u8>) {
    let request = Request::post(path).header(CONTENT_TYPE, kind).header("authorization", format!("Bearer {token}"));
    let answer = faces.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (status, kind) = (answer.status().as_u16(), answer.headers().get(CONTENT_TYPE).cloned());
    let kind = kind.map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    (status, kind, to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec())
}

/// Whether a refusal says why, in the form of its face.
fn explains(kind: &str, body: &[u8]) -> bool {
    if kind == "application/timestamp-reply" {
        // A rejection (status 2) with a text.
        return body.get(4..7) == Some(&[0x02, 0x01, 0x02]);
    }
    serde_json::from_slice::<Value>(body).is_ok_and(|said| {
        said["message"].as_str().is_some_and(|text| !text.is_empty()) && said["details"][0]["reason"].is_string()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_the_answer_is_a_definite_one() {
    let house = issuing::House::new(SubjectForm::Uri).await;
    let (faces, token) = (faces(&house), house.issuer.token(sub()));
    let mut runner = TestRunner::new(Config::default());
    for (path, kind, granted, seeds) in seeds(&token) {
        for seed in &seeds {
            let (status, _, said) = send(&faces, path, kind, &token, seed.clone()).await;
            assert_eq!(status, granted, "{path}: {}", String::from_utf8_lossy(&said));
        }
        let (mut accepted, mut refused) = (0, 0);
        let inputs = mutated(seeds);
        for _ in 0..400 {
            let input = inputs.new_tree(&mut runner).unwrap().current();
            let before = house.log.size();
            let (status, kind, said) = send(&faces, path, kind, &token, input.clone()).await;
            if status == granted {
                accepted += 1;
                continue;
            }
            refused += 1;
            let shown = || format!("{path} {status} {} for {}", said.escape_ascii(), input.escape_ascii());
            assert!(matches!(status, 400 | 401), "{}", shown());
            assert!(explains(&kind, &said), "{}", shown());
            assert!(!String::from_utf8_lossy(&said).contains(&token), "a token is told: {}", shown());
            assert_eq!(house.log.size(), before, "{}", shown());
        }
        assert!(accepted > 5 && refused > 100, "{path} {kind}: {accepted} accepted, {refused} refused");
    }
}
