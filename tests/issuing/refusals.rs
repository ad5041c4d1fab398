//! What is refused, over HTTP, by status and reason; and that nothing of it is in the log.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P521_SHA256_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{identity::SubjectForm, model::Scheme};
use der::Encode as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{House, Key, SUB, pem, sub};
use crate::issuer::{self, Behaviour};

/// The body of a request by proof.
pub fn by_proof(token: &str, key: &str, proof: &[u8]) -> Value {
    json!({ "credentials": { "oidcIdentityToken": token }, "publicKeyRequest": {
        "publicKey": { "algorithm": "ECDSA", "content": key }, "proofOfPossession": STANDARD.encode(proof) } })
}

/// The body of a certificate request.
pub fn by_csr(token: &str, csr: &[u8]) -> Value {
    json!({ "credentials": { "oidcIdentityToken": token }, "certificateSigningRequest": STANDARD.encode(csr) })
}

pub async fn post(url: &str, body: &Value) -> (u16, Value, reqwest::header::HeaderMap) {
    let request = reqwest::Client::new().post(format!("{url}/api/v2/signingCert")).body(body.to_string());
    let answer = request.header("content-type", "application/json").send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, answer.json().await.unwrap(), headers)
}

/// Status and reason, after looking at the form of the answer.
fn refusal((status, answer, _): (u16, Value, reqwest::header::HeaderMap)) -> (u16, String) {
    assert!(!answer.to_string().contains("hunter2"), "{answer}");
    let code = answer["code"].as_i64().unwrap_or_else(|| panic!("{answer}"));
    assert!(!answer["message"].as_str().unwrap().is_empty());
    let wanted = match status {
        400 | 413 => 3,
        401 => 16,
        403 => 7,
        503 => 14,
        405 => 12,
        _ => panic!("{status} {answer}"),
    };
    assert_eq!(code, wanted, "{answer}");
    assert_eq!(answer["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    (status, answer["details"][0]["reason"].as_str().unwrap().to_owned())
}

/// A `SubjectPublicKeyInfo` of RSA with this modulus and exponent.
fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| der::asn1::Uint::new(bytes).unwrap().to_der().unwrap();
    let content = [number(modulus), number(exponent)].concat();
    let key = der::Any::new(der::Tag::Sequence, content).unwrap().to_der().unwrap();
    let oid = "1.2.840.113549.1.1.1".parse().unwrap();
    let algorithm = spki::AlgorithmIdentifierOwned { oid, parameters: Some(der::Any::null()) };
    let subject_public_key = der::asn1::BitString::from_bytes(&key).unwrap();
    spki::SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().unwrap()
}

fn ec_spki(curve: &str, point: &[u8]) -> Vec<u8> {
    let curve: der::asn1::ObjectIdentifier = curve.parse().unwrap();
    let algorithm = spki::AlgorithmIdentifierOwned {
        oid: "1.2.840.10045.2.1".parse().unwrap(),
        parameters: Some(der::Any::encode_from(&curve).unwrap()),
    };
    let subject_public_key = der::asn1::BitString::from_bytes(point).unwrap();
    spki::SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_requests_are_refused_by_name() {
    let house = House::new(SubjectForm::Uri).await;
    let url = house.serve().await;
    let (key, other) = (Key::p256(), Key::p256());
    let token = house.issuer.token(sub());
    let good = by_proof(&token, &key.pem(), &key.sign(SUB.as_bytes()));
    let with_key = |spki: &[u8]| by_proof(&token, &pem("PUBLIC KEY", spki), &key.sign(SUB.as_bytes()));
    let with_proof = |proof: &[u8]| by_proof(&token, &key.pem(), proof);
    let request = |csr: &[u8]| by_csr(&token, csr);
    let der = key.request(|_| ()).to_der().unwrap();
    let csr = |change: &dyn Fn(&mut x509_cert::request::CertReq)| {
        let mut request = key.request(|_| ());
        change(&mut request);
        super::csr(&request)
    };
    let ed25519 = Key::new(Scheme::Ed25519Ph);
    let ed25519_csr = super::csr(&ed25519.request(|_| ()));
    let ed25519_pem = pem("PUBLIC KEY", &ed25519.spki);
    let small_order = [&ed25519.spki[..12], &[1], &[0; 31]].concat();
    let ed448 = hex::decode("3043300506032b6571033a00").unwrap();
    let ed448 = [ed448.as_slice(), &[7; 57]].concat();
    let mut modulus = vec![0xc5; 128];
    modulus[127] |= 1;
    let off_curve = [&[4], [7; 64].as_slice()].concat();
    let compressed = [&[2], [7; 32].as_slice()].concat();
    // P-521 signed with SHA-256, which a log entry under this key cannot say.
    let p521 = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).unwrap();
    let pkcs8 = p521.to_pkcs8v1().unwrap();
    let weak = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let weak_proof = weak.sign(&SystemRandom::new(), SUB.as_bytes()).unwrap();
    let p521_spki = {
        use aws_lc_rs::{encoding::AsDer as _, signature::KeyPair as _};
        p521.public_key().as_der().unwrap().as_ref().to_vec()
    };
    let mut bad_base64 = good.clone();
    bad_base64["publicKeyRequest"]["proofOfPossession"] = json!("?hunter2?");
    let mut both = good.clone();
    both["certificateSigningRequest"] = json!(STANDARD.encode(key.csr()));
    let mut no_key = good.clone();
    no_key["publicKeyRequest"]["publicKey"]["content"] = json!("");
    let mut keyless = good.clone();
    keyless["publicKeyRequest"] = json!({});
    let table: Vec<(&str, Value, &str)> = vec![
        ("key: not one", by_proof(&token, "hunter2!", &[1]), "KEY_MALFORMED"),
        ("key: PEM of something else", by_proof(&token, &pem("CERTIFICATE", &key.spki), &[1]), "KEY_MALFORMED"),
        ("key: cut off", with_key(&key.spki[..60]), "KEY_MALFORMED"),
        ("key: a byte more", with_key(&[key.spki.as_slice(), &[0]].concat()), "KEY_MALFORMED"),
        ("key: too long", with_key(&[0x30; 3_000]), "KEY_MALFORMED"),
        ("key: Ed448", with_key(&ed448), "KEY_UNSUPPORTED"),
        ("key: Ed25519, small order", with_key(&small_order), "KEY_MALFORMED"),
        ("key: Ed25519, cut off", with_key(&ed25519.spki[..43]), "KEY_MALFORMED"),
        ("key: secp256k1", with_key(&ec_spki("1.3.132.0.10", &off_curve)), "KEY_UNSUPPORTED"),
        ("key: P-224", with_key(&ec_spki("1.3.132.0.33", &[&[4], [7; 56].as_slice()].concat())), "KEY_UNSUPPORTED"),
        ("key: compressed point", with_key(&ec_spki("1.2.840.10045.3.1.7", &compressed)), "KEY_MALFORMED"),
        ("key: point that is not on the curve", with_key(&ec_spki("1.2.840.10045.3.1.7", &off_curve)), "PROOF_INVALID"),
        ("key: RSA with 1024 bits", with_key(&rsa_spki(&modulus, &[1, 0, 1])), "KEY_UNSUPPORTED"),
        ("key: RSA with 8192 bits", with_key(&rsa_spki(&[0xc5; 1_024], &[1, 0, 1])), "KEY_MALFORMED"),
        ("key: RSA with exponent 3", with_key(&rsa_spki(&[0xc5; 256], &[3])), "KEY_UNSUPPORTED"),
        ("proof: none", with_proof(&[]), "PROOF_INVALID"),
        ("proof: of another key", with_proof(&other.sign(SUB.as_bytes())), "PROOF_INVALID"),
        ("proof: over another subject", with_proof(&key.sign(b"https://ci.example.org/job/8")), "PROOF_INVALID"),
        (
            "proof: Ed25519, not pre-hashed",
            by_proof(&token, &ed25519_pem, &ed25519.sign_pure(SUB.as_bytes())),
            "PROOF_INVALID",
        ),
        ("proof: over the token", with_proof(&key.sign(token.as_bytes())), "PROOF_INVALID"),
        (
            "proof: with another hash",
            by_proof(&token, &pem("PUBLIC KEY", &p521_spki), weak_proof.as_ref()),
            "PROOF_INVALID",
        ),
        ("request: not PEM", request(&der), "CSR_MALFORMED"),
        ("request: PEM of something else", request(pem("CERTIFICATE", &der).as_bytes()), "CSR_MALFORMED"),
        ("request: not DER", request(pem("CERTIFICATE REQUEST", b"hunter2").as_bytes()), "CSR_MALFORMED"),
        ("request: cut off", request(pem("CERTIFICATE REQUEST", &der[..100]).as_bytes()), "CSR_MALFORMED"),
        (
            "request: a byte more",
            request(pem("CERTIFICATE REQUEST", &[der.as_slice(), &[0]].concat()).as_bytes()),
            "CSR_MALFORMED",
        ),
        ("request: too large", request(&[b'A'; 16 * 1024 + 1]), "CSR_TOO_LARGE"),
        (
            "request: key of somebody else",
            request(&csr(&|request| {
                request.info.public_key = der::Decode::from_der(&other.spki).unwrap();
            })),
            "CSR_SIGNATURE",
        ),
        (
            "request: changed after it was signed",
            request(&csr(&|request| {
                request.info.subject = "CN=hunter2".parse().unwrap();
            })),
            "CSR_SIGNATURE",
        ),
        (
            "request: names another algorithm",
            request(&csr(&|request| {
                request.algorithm.oid = "1.2.840.10045.4.3.3".parse().unwrap();
            })),
            "CSR_ALGORITHM",
        ),
        ("request: Ed25519", request(&ed25519_csr), "CSR_ALGORITHM"),
        ("both ways", both, "INVALID_ARGUMENT"),
        ("neither way", json!({ "credentials": { "oidcIdentityToken": token } }), "INVALID_ARGUMENT"),
        ("an empty request", by_csr(&token, &[]), "INVALID_ARGUMENT"),
        ("no key", no_key, "INVALID_ARGUMENT"),
        ("nothing about the key", keyless, "INVALID_ARGUMENT"),
        ("not base64", bad_base64, "INVALID_ARGUMENT"),
        ("a list", json!(["hunter2"]), "INVALID_ARGUMENT"),
        ("a number for a token", json!({ "credentials": { "oidcIdentityToken": 7 } }), "INVALID_ARGUMENT"),
    ];
    let before = house.log.size();
    for (name, body, wanted) in table {
        assert_eq!(refusal(post(&url, &body).await), (400, wanted.to_owned()), "{name}");
    }
    let huge = json!({ "credentials": { "oidcIdentityToken": "x".repeat(70_000) } });
    assert_eq!(refusal(post(&url, &huge).await), (413, "TOO_LARGE".to_owned()));
    let http = reqwest::Client::new();
    let text = http.post(format!("{url}/api/v2/signingCert")).body("hunter2").send().await.unwrap();
    assert_eq!(text.status().as_u16(), 400);
    for (path, posted) in
        [("/api/v2/signingCert", false), ("/api/v2/trustBundle", true), ("/api/v1/signingCert", false)]
    {
        let request = if posted { http.post(format!("{url}{path}")) } else { http.get(format!("{url}{path}")) };
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let refused = refusal((status, answer.json().await.unwrap(), headers));
        assert_eq!(refused, (405, "METHOD_NOT_ALLOWED".to_owned()), "{path}");
    }
    assert_eq!(house.log.size(), before, "nothing of it was logged");

    let (status, answer, _) = post(&url, &good).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(house.log.size(), before + 1, "it was for those reasons");
    // The weak proof's key is fine too, with the right hash.
    let proof = p521.sign(&SystemRandom::new(), SUB.as_bytes()).unwrap();
    assert_eq!(post(&url, &by_proof(&token, &pem("PUBLIC KEY", &p521_spki), proof.as_ref())).await.0, 200);
    assert_eq!(Scheme::P521Sha512.hash_length(), 64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_refused_by_name() {
    let house = House::new(SubjectForm::Uri).await;
    let url = house.serve().await;
    let key = Key::p256();
    let now = Timestamp::now().as_second();
    let issuer = &house.issuer;
    let token = |claims: Value| issuer.token(claims);
    let ours = issuer.key();
    let with = |name: &str, value: Value| {
        let mut claims = sub();
        claims[name] = value;
        claims
    };
    let mut swapped: Vec<String> = token(sub()).split('.').map(str::to_owned).collect();
    swapped[1] = token(json!({ "sub": "https://ci.example.org/hunter2" })).split('.').nth(1).unwrap().to_owned();
    let table: Vec<(&str, String, u16, &str)> = vec![
        ("none", String::new(), 401, "CREDENTIALS_MISSING"),
        ("not one", "hunter2".to_owned(), 401, "TOKEN_MALFORMED"),
        ("too large", "x".repeat(20_000), 401, "CREDENTIALS_TOO_LARGE"),
        ("expired", token(json!({ "sub": SUB, "iat": now - 900, "exp": now - 600 })), 401, "CREDENTIALS_EXPIRED"),
        ("from the future", token(json!({ "sub": SUB, "iat": now + 600 })), 401, "CREDENTIALS_NOT_YET_VALID"),
        ("for the future", token(json!({ "sub": SUB, "nbf": now + 600 })), 401, "CREDENTIALS_NOT_YET_VALID"),
        ("for too long", token(json!({ "sub": SUB, "exp": now + 200_000 })), 401, "TOKEN_CLAIM"),
        ("for another audience", token(with("aud", json!("sigstore"))), 401, "TOKEN_AUDIENCE"),
        ("of another issuer", token(with("iss", json!("https://accounts.example.com"))), 401, "ISSUER_UNKNOWN"),
        ("of another key", issuer::Key::es256("stranger").sign(&issuer.claims(sub())), 401, "KEY_UNKNOWN"),
        ("signed by somebody else", issuer::Key::es256(&ours.kid).sign(&issuer.claims(sub())), 401, "TOKEN_SIGNATURE"),
        ("with another token's claims", swapped.join("."), 401, "TOKEN_SIGNATURE"),
        ("without a subject", token(json!({})), 401, "TOKEN_CLAIM"),
        ("with a subject that is no URI", token(json!({ "sub": "hunter2" })), 401, "TOKEN_CLAIM"),
        ("with control characters", token(json!({ "sub": "https://ci.example.org/\u{1b}[2J" })), 401, "TOKEN_CLAIM"),
        ("of somebody without a role", token(json!({ "sub": "https://elsewhere.test/x" })), 403, "ROLE_NONE"),
        ("of somebody with another role", token(json!({ "sub": "https://audit.example.org/x" })), 403, "ROLE_MISSING"),
    ];
    let before = house.log.size();
    for (name, token, status, wanted) in table {
        let answer = post(&url, &by_proof(&token, &key.pem(), &key.sign(SUB.as_bytes()))).await;
        assert_eq!(answer.2.contains_key("www-authenticate"), status == 401, "{name}");
        assert_eq!(refusal(answer), (status, wanted.to_owned()), "{name}");
    }
    let good = by_proof(&token(sub()), &key.pem(), &key.sign(SUB.as_bytes()));
    assert_eq!(post(&url, &good).await.0, 200, "the same without the fault");
    assert_eq!(house.log.size(), before + 1);
}

/// Claims that a certificate would have to say something of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_refused_by_name() {
    let house = House::with(|settings| {
        settings.subject = SubjectForm::Github;
        settings.audience.push("sigstore".to_owned());
        settings.claims = [("source_repository_digest".to_owned(), "sha".to_owned())].into();
    })
    .await;
    let url = house.serve().await;
    let key = Key::p256();
    let good = json!({ "sub": "repo:o/r", "sha": "1", "job_workflow_ref": "o/r/.github/workflows/w.yml@refs/heads/main",
        "aud": "sigstore" });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    for (name, claims, named) in [
        ("no workflow", with("job_workflow_ref", json!(null)), "job_workflow_ref"),
        ("no commit, which the settings ask for", with("sha", json!(null)), "sha"),
        ("an empty commit", with("sha", json!("")), "sha"),
        ("a list of commits", with("sha", json!(["1"])), "sha"),
        ("control characters", with("sha", json!("1\n2")), "sha"),
        ("control characters in what is built in", with("workflow", json!("a\u{0}b")), "workflow"),
        ("too long", with("environment", json!("x".repeat(1_025))), "environment"),
        ("control characters in sub", with("sub", json!("repo:\r\n")), "sub"),
    ] {
        let body = by_csr(&house.issuer.token(claims), &key.csr());
        let answer = post(&url, &body).await;
        assert!(answer.1["message"].as_str().unwrap().contains(&format!("{named:?}")), "{name}: {}", answer.1);
        assert_eq!(refusal(answer), (401, "TOKEN_CLAIM".to_owned()), "{name}");
    }
    assert_eq!(post(&url, &by_csr(&house.issuer.token(good), &key.csr())).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_away_for_a_while_is_no_refusal() {
    let house = House::with(|settings| (settings.subject, settings.retry_after_s) = (SubjectForm::Uri, 1)).await;
    let url = house.serve().await;
    let key = Key::p256();
    let body = by_csr(&house.issuer.token(sub()), &key.csr());
    house.issuer.behave(Behaviour::Down);
    let answer = post(&url, &body).await;
    assert_eq!(answer.2["retry-after"], "10");
    assert_eq!(refusal(answer), (503, "ISSUER_UNAVAILABLE".to_owned()));
    house.issuer.behave(Behaviour::WrongIssuer);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_eq!(refusal(post(&url, &body).await), (503, "ISSUER_UNAVAILABLE".to_owned()), "a liar is none");
    house.issuer.behave(Behaviour::Honest);
    tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;
    assert_eq!(post(&url, &body).await.0, 200);

    house.log.close();
    let answer = post(&url, &body).await;
    assert_eq!(answer.2["retry-after"], "30");
    assert_eq!(refusal(answer), (503, "LOG_READ_ONLY".to_owned()));
}
