//! Time-stamping over HTTP, held against `OpenSSL`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::House;

const PATH: &str = "/api/v1/timestamp";
const QUERY: &str = "application/timestamp-query";

fn openssl(dir: &Path, args: &[&str]) -> Output {
    Command::new("openssl").current_dir(dir).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_asks_and_verifies() {
    let house = House::new("");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("data"), b"artifact").unwrap();
    let chain = house.http.get(house.url("/api/v1/timestamp/certchain")).send().await.unwrap();
    assert_eq!(chain.headers()["content-type"], "application/pem-certificate-chain");
    let chain = chain.text().await.unwrap();
    let root = chain.rfind("-----BEGIN").unwrap();
    fs::write(file("leaf.pem"), &chain[..root]).unwrap();
    fs::write(file("root.pem"), &chain[root..]).unwrap();
    for (number, hash) in ["-sha256", "-sha384", "-sha512"].into_iter().enumerate() {
        for with_certificate in [false, true] {
            for nonce in [false, true] {
                let mut args = vec!["ts", "-query", "-data", "data", hash, "-out", "query"];
                args.extend(with_certificate.then_some("-cert"));
                args.extend((!nonce).then_some("-no_nonce"));
                assert!(openssl(dir.path(), &args).status.success());
                let answer = house.post(PATH, QUERY, fs::read(file("query")).unwrap()).await;
                assert_eq!(
                    (answer.status().as_u16(), &answer.headers()["content-type"]),
                    (201, &"application/timestamp-reply".parse().unwrap())
                );
                fs::write(file("reply"), answer.bytes().await.unwrap()).unwrap();
                let mut args = vec!["ts", "-verify", "-queryfile", "query", "-in", "reply", "-CAfile", "root.pem"];
                args.extend((!with_certificate).then_some(["-untrusted", "leaf.pem"]).into_iter().flatten());
                let verified = openssl(dir.path(), &args);
                assert!(verified.status.success(), "{number} {with_certificate} {nonce}: {}", text(&verified));
                // Of other data it is no proof.
                fs::write(file("other"), b"artifacT").unwrap();
                let args = [
                    "ts",
                    "-verify",
                    "-data",
                    "other",
                    "-in",
                    "reply",
                    "-CAfile",
                    "root.pem",
                    "-untrusted",
                    "leaf.pem",
                ];
                assert!(!openssl(dir.path(), &args).status.success());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stamped_is_rejected_with_the_reason() {
    let house = House::new("");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("data"), b"artifact").unwrap();
    let query = |args: &[&str]| {
        let all = [&["ts", "-query", "-data", "data", "-out", "query"], args].concat();
        assert!(openssl(dir.path(), &all).status.success(), "{args:?}");
        fs::read(file("query")).unwrap()
    };
    let good = query(&["-sha256", "-no_nonce"]);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let cut = good[..good.len() - 1].to_vec();
    for (request, because, failure) in [
        (Vec::new(), "not a TimeStampReq", "badDataFormat"),
        (b"garbage".to_vec(), "not a TimeStampReq", "badDataFormat"),
        (cut, "not a TimeStampReq", "badDataFormat"),
        ([good.clone(), vec![0]].concat(), "not a TimeStampReq", "badDataFormat"),
        (vec![0x30; 5_000], "longer than 4,096 bytes", "badRequest"),
        (query(&["-sha1"]), "its hash is none of", "badAlg"),
        (query(&["-sha256", "-tspolicy", "1.2.3.4"]), "a policy other than", "unacceptedPolicy"),
        (changed(4, 9), "not a TimeStampReq", "badDataFormat"),
    ] {
        let answer = house.post(PATH, QUERY, request).await;
        assert_eq!(answer.status(), 400, "{because}");
        assert_eq!(answer.headers()["content-type"], "application/timestamp-reply");
        fs::write(file("reply"), answer.bytes().await.unwrap()).unwrap();
        let said = text(&openssl(dir.path(), &["ts", "-reply", "-in", "reply", "-text"]));
        assert!(said.contains("Status: Rejected."), "{because}: {said}");
        assert!(said.contains(because), "wanted {because:?}: {said}");
        let named = match failure {
            "badAlg" => "unrecognized or unsupported algorithm identifier",
            "badRequest" => "transaction not permitted or supported",
            "badDataFormat" => "the data submitted has the wrong format",
            _ => "the requested TSA policy is not supported by the TSA",
        };
        assert!(said.contains(named), "{failure}: {said}");
    }
    let answer = house.post(PATH, "text/plain", good.clone()).await;
    assert_eq!(answer.status(), 415);
    assert!(answer.text().await.unwrap().contains(QUERY));
    assert_eq!(house.post(PATH, QUERY, vec![0; 100_000]).await.status(), 413);
    assert_eq!(house.post(PATH, QUERY, good).await.status(), 201, "and the request without a fault is granted");
}

/// The digest of `artifact` in base64, by the hash of that name.
fn digest(hash: &str) -> String {
    STANDARD.encode(match hash {
        "sha256" => Sha256::digest(b"artifact").to_vec(),
        "sha384" => Sha384::digest(b"artifact").to_vec(),
        _ => Sha512::digest(b"artifact").to_vec(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_in_json_gets_the_same_stamps() {
    let house = House::new("");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("data"), b"artifact").unwrap();
    let chain = house.http.get(house.url("/api/v1/timestamp/certchain")).send().await.unwrap().text().await.unwrap();
    let root = chain.rfind("-----BEGIN").unwrap();
    fs::write(file("leaf.pem"), &chain[..root]).unwrap();
    fs::write(file("root.pem"), &chain[root..]).unwrap();
    for hash in ["sha256", "sha384", "sha512"] {
        for (more, embedded, nonce) in [
            (json!({}), false, None),
            (json!({ "nonce": 0, "certificates": true }), true, Some("0x0")),
            (json!({ "nonce": 128, "tsaPolicyOID": "1.3.6.1.4.1.57264.2" }), false, Some("0x80")),
            (json!({ "nonce": u64::MAX, "certificates": false }), false, Some("0xFFFFFFFFFFFFFFFF")),
        ] {
            let mut query = json!({ "artifactHash": digest(hash), "hashAlgorithm": hash });
            query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = house.post(PATH, "application/json", query.to_string()).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["content-type"]),
                (201, &"application/timestamp-reply".parse().unwrap()),
                "{query}"
            );
            fs::write(file("reply"), answer.bytes().await.unwrap()).unwrap();
            let mut args = vec!["ts", "-verify", "-data", "data", "-in", "reply", "-CAfile", "root.pem"];
            args.extend((!embedded).then_some(["-untrusted", "leaf.pem"]).into_iter().flatten());
            let verified = openssl(dir.path(), &args);
            assert!(verified.status.success(), "{query}: {}", text(&verified));
            let said = text(&openssl(dir.path(), &["ts", "-reply", "-in", "reply", "-text"]));
            let wanted = nonce.map_or("Nonce: unspecified".to_owned(), |nonce| format!("Nonce: {nonce}"));
            assert!(said.contains(&wanted), "{query}: wanted {wanted:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_stamped_in_json_is_refused_in_json() {
    let house = House::new("");
    let good = json!({ "artifactHash": digest("sha256"), "hashAlgorithm": "sha256" });
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string()
    };
    for (request, because) in [
        (String::new(), "the body cannot be read"),
        ("[]".to_owned(), "the body cannot be read"),
        ("{}".to_owned(), "artifactHash"),
        (json!({ "artifactHash": digest("sha256") }).to_string(), "hashAlgorithm"),
        (with("artifactHash", json!("*")), "base64"),
        (with("artifactHash", json!("")), "the length of its digest does not fit the hash"),
        (with("artifactHash", json!(digest("sha384"))), "the length of its digest does not fit the hash"),
        (with("artifactHash", json!("A".repeat(8_000))), "longer than 4,096 bytes"),
        (with("hashAlgorithm", json!("sha1")), "hashAlgorithm must be sha256, sha384 or sha512"),
        (with("nonce", json!(-1)), "the body cannot be read"),
        (with("nonce", json!(1e30)), "the body cannot be read"),
        (with("tsaPolicyOID", json!("1.2.3.4")), "a policy other than"),
        (with("tsaPolicyOID", json!("policy")), "tsaPolicyOID is not an object identifier"),
        (with("tsaPolicyOID", json!("1.3.4294967296")), "tsaPolicyOID is not an object identifier"),
        (with("tsaPolicyOID", json!("1.3.99999999999999999999")), "tsaPolicyOID is not an object identifier"),
        (with("tsaPolicyOID", json!("0".repeat(60_000))), "tsaPolicyOID is not an object identifier"),
        ("[".repeat(10_000), "nested"),
    ] {
        let answer = house.post(PATH, "application/json; charset=utf-8", request.clone()).await;
        assert_eq!(answer.status(), 400, "{request}");
        let body: Value = answer.json().await.unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(message.contains(because), "{request}: wanted {because:?}: {message}");
        let reason = match because {
            "longer than 4,096 bytes" => "BAD_REQUEST",
            text if text.contains("hashAlgorithm must be") => "BAD_ALGORITHM",
            text if text.contains("olicy") => "UNACCEPTED_POLICY",
            _ => "BAD_DATA_FORMAT",
        };
        assert_eq!(body["details"][0]["reason"], reason, "{body}");
    }
    assert_eq!(house.post(PATH, "application/json", good.to_string()).await.status(), 201, "without a fault");
}
