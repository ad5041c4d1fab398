//! Issuers whose tokens count once: through every door, for whoever comes second, however the token is written.

use std::sync::Arc;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use countersign::{
    identity::{Refusal, Spent, SubjectForm},
    sigstore::fulcio::v2::{self, ca_client::CaClient, create_signing_certificate_request::Key as RequestKey},
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};
use tonic::{Code, transport::server::TcpIncoming};
use tonic_types::StatusExt as _;

use super::{
    House, Key, SUB,
    refusals::{by_csr, by_proof, post},
    sub,
};

async fn strict() -> House {
    House::with(|settings| (settings.subject, settings.single_use) = (SubjectForm::Uri, true)).await
}

fn reason(answer: &Value) -> &str {
    answer["details"][0]["reason"].as_str().unwrap_or_default()
}

/// The other signature by the same key over the same token: with P-256, (r, n - s) is as good as (r, s).
fn rewritten(token: &str) -> String {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (mut signature, order) = (URL_SAFE_NO_PAD.decode(signature).unwrap(), hex::decode(ORDER).unwrap());
    let mut borrow = 0_i32;
    for (byte, of_order) in signature[32..].iter_mut().zip(&order).rev() {
        let difference = i32::from(*of_order) - i32::from(*byte) - borrow;
        borrow = i32::from(difference < 0);
        *byte = difference.rem_euclid(256) as u8;
    }
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Version 1, version 2 by header and body, and gRPC: what one door took, no door takes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_counts_once_is_refused_at_every_door() {
    let house = strict().await;
    let url = house.serve().await;
    let key = Key::p256();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rpc = format!("http://{}", socket.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_service(house.face().into_server());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(socket)));
    // All doors, at different times: each claim makes another token of it.
    let http = reqwest::Client::new();
    let ask = async |door: usize, token: &str| -> (u16, String) {
        let (path, body) = match door {
            0 => ("v2", by_csr(token, &key.csr())),
            1 => ("v2", by_proof(token, &key.pem(), &key.sign(SUB.as_bytes()))),
            2 => ("v2", json!({ "certificateSigningRequest": STANDARD.encode(key.csr()) })),
            3 => ("v1", json!({ "certificateSigningRequest": STANDARD.encode(key.csr()) })),
            _ => {
                let token = v2::credentials::Credentials::OidcIdentityToken(token.to_owned());
                let request = v2::CreateSigningCertificateRequest {
                    credentials: Some(v2::Credentials { credentials: Some(token) }),
                    key: Some(RequestKey::CertificateSigningRequest(key.csr().into())),
                };
                let mut client = CaClient::connect(rpc.clone()).await.unwrap();
                return match client.create_signing_certificate(request).await {
                    Ok(_) => (200, String::new()),
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                        (401, status.get_details_error_info().unwrap().reason)
                    }
                };
            }
        };
        let request = http.post(format!("{url}/api/{path}/signingCert")).bearer_auth(token).body(body.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        let refused = (status >= 400).then(|| serde_json::from_str::<Value>(&body).unwrap());
        if let Some(refused) = &refused {
            assert!(refused["message"].as_str().unwrap().contains("get a new token"), "{refused}");
        }
        (status.min(401) - u16::from(status == 201), refused.as_ref().map(reason).unwrap_or_default().to_owned())
    };
    let replayed = (401, "TOKEN_REPLAYED".to_owned());
    for first in 0..5 {
        let token = house.issuer.token(json!({ "sub": SUB, "jti": first.to_string() }));
        assert_eq!(ask(first, &token).await, (200, String::new()), "door {first}");
        let before = house.log.size();
        for second in 0..5 {
            assert_eq!(ask(second, &token).await, replayed, "door {second} after {first}");
            assert_eq!(ask(second, &rewritten(&token)).await, replayed, "door {second} after {first}, rewritten");
        }
        assert_eq!(house.log.size(), before);
    }
    // That signature is a good one, so it is the token that is known.
    let (token, lenient) = (house.issuer.token(sub()), House::new(SubjectForm::Uri).await);
    assert_eq!(ask(0, &rewritten(&token)).await, (200, String::new()));
    assert_eq!(ask(0, &token).await, replayed);
    // By default a token may be used again.
    let (url, token) = (lenient.serve().await, lenient.issuer.token(sub()));
    for _ in 0..2 {
        assert_eq!(post(&url, &by_csr(&token, &key.csr())).await.0, 200);
    }
}

/// What is refused before anything is issued does not use a token up; what fails later does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_good_proof_uses_nothing_up() {
    let house = strict().await;
    let url = house.serve().await;
    let key = Key::p256();
    let token = house.issuer.token(sub());
    let bad = by_proof(&token, &key.pem(), &Key::p256().sign(SUB.as_bytes()));
    assert_eq!(reason(&post(&url, &bad).await.1), "PROOF_INVALID");
    assert_eq!(post(&url, &by_csr(&token, &key.csr())).await.0, 200);
    let token = house.issuer.token(json!({ "sub": SUB, "jti": "2" }));
    house.log.close();
    assert_eq!(reason(&post(&url, &by_csr(&token, &key.csr())).await.1), "LOG_READ_ONLY");
    assert_eq!(reason(&post(&url, &by_csr(&token, &key.csr())).await.1), "TOKEN_REPLAYED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_the_same_time_one_gets_a_certificate() {
    let house = strict().await;
    let url = house.serve().await;
    let key = Key::p256();
    let before = house.log.size();
    for round in 0..4 {
        let token = house.issuer.token(json!({ "sub": SUB, "jti": round.to_string() }));
        let all = (0..16).map(|_| {
            let (url, body) = (url.clone(), by_csr(&token, &key.csr()));
            tokio::spawn(async move { post(&url, &body).await })
        });
        let all: Vec<_> = all.collect();
        let mut certified = 0;
        for one in all {
            let (status, answer, _) = one.await.unwrap();
            match status {
                200 => certified += 1,
                _ => assert_eq!((status, reason(&answer)), (401, "TOKEN_REPLAYED")),
            }
        }
        assert_eq!(certified, 1);
    }
    assert_eq!(house.log.size(), before + 4);
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let spent = Spent::with_room("https://i.test", 2);
    let token = |number: u8, ends| spent.token([number; 32], ends);
    token(1, 100).spend(at(0)).unwrap();
    token(2, 200).spend(at(0)).unwrap();
    let full = token(3, 300).spend(at(0)).unwrap_err();
    assert_eq!(full, Refusal::TooManyTokens { issuer: "https://i.test".to_owned(), room: 2 });
    assert_eq!(full.reason(), "TOKENS_TOO_MANY");
    assert!(full.to_string().contains("try again when some of them have expired"), "{full}");
    // Those that are known are known still, up to their last second.
    assert_eq!(token(1, 100).spend(at(99)), Err(Refusal::Replayed));
    assert_eq!(token(3, 300).spend(at(99)).unwrap_err().reason(), "TOKENS_TOO_MANY");
    token(3, 300).spend(at(100)).unwrap();
    // The clock is set back: what was forgotten is refused by its time.
    assert_eq!(token(1, 100).spend(at(50)), Err(Refusal::Expired));
    assert_eq!(token(2, 200).spend(at(50)), Err(Refusal::Replayed));
    assert_eq!(format!("{spent:?}").matches("i.test").count(), 1);
}

proptest! {
    /// However many threads, tokens and times, and wherever the clock stands: no token is spent twice.
    #[test]
    fn no_token_is_spent_twice(
        room in 1_usize..8,
        steps in prop::collection::vec((0_u8..12, 0_i64..60), 1..80),
    ) {
        let spent = Spent::with_room("https://i.test", room);
        let taken = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let half = steps.len() / 2;
        std::thread::scope(|scope| {
            for part in [&steps[..half], &steps[half..]] {
                let (spent, taken) = (Arc::clone(&spent), &taken);
                scope.spawn(move || {
                    for (number, now) in part {
                        let ends = i64::from(*number) * 5 + 1;
                        if spent.token([*number; 32], ends).spend(at(*now)).is_ok() {
                            assert!(taken.lock().unwrap().insert(*number), "{number}");
                        }
                    }
                });
            }
        });
    }
}
