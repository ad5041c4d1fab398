//! Rekor v2: what clients signed themselves is verified, recorded, and proven.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use countersign::{
    keys::{KekSource, Keyring},
    model::Scheme,
    sigstore::proto::dev::sigstore::{
        common::v1::{PublicKeyDetails, X509Certificate},
        rekor::v2::{
            self, CreateEntryRequest, EntryBundleRequest, HashedRekordRequestV002, TileRequest,
            create_entry_request::Spec, rekor_client::RekorClient,
        },
    },
};
use jiff::Timestamp;
use serde_json::{Value, json};
use sigstore_merkle::{hash_leaf, verify_inclusion_proof};
use sigstore_types::Sha256Hash;
use tonic::Code;

use super::{Holder, House};
use crate::keys::{builder, keyring};

const ENTRIES: &str = "/api/v2/log/entries";
const JSON: &str = "application/json";

fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The request of a client that signed `message`.
pub fn request(holder: &Holder, message: &[u8]) -> Value {
    json!({ "hashedRekordRequestV002": {
        "digest": encode(&holder.scheme.digest(message)),
        "signature": {
            "content": encode(&holder.sign(message)),
            "verifier": {
                "publicKey": { "rawBytes": encode(&holder.spki) },
                "keyDetails": holder.scheme.details(),
            },
        },
    }})
}

async fn send(house: &House, request: &Value) -> (u16, Value) {
    let answer = house.post(ENTRIES, JSON, request.to_string()).await;
    assert_eq!(answer.headers()["content-type"], JSON);
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

/// Holds the answer against itself with an implementation that is not ours: the leaf is in the tree of that root, and the
/// checkpoint is of that tree. Returns the leaf and its index.
fn proven(answer: &Value) -> (Value, u64) {
    let leaf = bytes(&answer["canonicalizedBody"]);
    let proof = &answer["inclusionProof"];
    let number = |value: &Value| value.as_str().expect("64-bit numbers are strings").parse::<u64>().unwrap();
    let index = number(&answer["logIndex"]);
    assert_eq!(number(&proof["logIndex"]), index);
    let hash = |value: &Value| Sha256Hash::new(bytes(value).try_into().unwrap());
    let hashes: Vec<Sha256Hash> = proof["hashes"].as_array().unwrap().iter().map(hash).collect();
    let (size, root) = (number(&proof["treeSize"]), hash(&proof["rootHash"]));
    verify_inclusion_proof(&hash_leaf(&leaf), index, size, &hashes, &root).unwrap();
    let envelope = proof["checkpoint"]["envelope"].as_str().unwrap();
    let lines: Vec<&str> = envelope.lines().collect();
    assert_eq!((lines[1], lines[2]), (size.to_string().as_str(), proof["rootHash"].as_str().unwrap()));
    assert_eq!(answer["kindVersion"], json!({ "kind": "hashedrekord", "version": "0.0.2" }));
    assert_eq!((&answer["integratedTime"], &answer["inclusionPromise"]), (&json!("0"), &Value::Null));
    assert_eq!(bytes(&answer["logId"]["keyId"]).len(), 32);
    (serde_json::from_slice(&leaf).unwrap(), index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signatures_of_every_kind_of_key_are_recorded_and_prove() {
    let house = House::new("");
    for scheme in Scheme::ALL {
        let holder = Holder::new(scheme);
        let request = request(&holder, b"artifact");
        let (status, answer) = send(&house, &request).await;
        assert_eq!(status, 201, "{scheme:?}: {answer}");
        let (leaf, index) = proven(&answer);
        let sent = &request["hashedRekordRequestV002"];
        let expected = json!({
            "apiVersion": "0.0.2",
            "kind": "hashedrekord",
            "spec": { "hashedRekordV002": {
                "data": { "algorithm": scheme.hash(), "digest": sent["digest"] },
                "signature": {
                    "content": sent["signature"]["content"],
                    "verifier": { "keyDetails": scheme.details(), "publicKey": { "rawBytes": encode(&holder.spki) } },
                },
            }},
        });
        assert_eq!(leaf, expected, "{scheme:?}");

        // The same in the other manners that protobuf's JSON allows, and again: the index stays.
        let url = |value: &Value| URL_SAFE_NO_PAD.encode(bytes(value));
        let again = json!({ "hashed_rekord_request_v002": {
            "digest": url(&sent["digest"]),
            "signature": {
                "content": url(&sent["signature"]["content"]),
                "verifier": { "public_key": { "raw_bytes": url(&json!(encode(&holder.spki))) }, "key_details": scheme.number() },
            },
            "something_new": 1,
        }});
        let (status, answer) = send(&house, &again).await;
        assert_eq!((status, proven(&answer).1), (201, index), "{scheme:?}");
    }
    assert_eq!(house.size().await, 1 + 7, "the genesis entry, and one of each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_recorded_as_it_was_sent() {
    let house = House::new("");
    let holder = Holder::new(Scheme::P256Sha256);
    let elsewhere = tempfile::tempdir().unwrap();
    let certificate =
        keyring(elsewhere.path(), Timestamp::now()).issue(&builder(), &holder.spki, Timestamp::now()).unwrap();
    let mut request = request(&holder, b"artifact");
    let verifier = &mut request["hashedRekordRequestV002"]["signature"]["verifier"];
    *verifier = json!({ "x509Certificate": { "rawBytes": encode(&certificate) }, "keyDetails": 5 });
    let (status, answer) = send(&house, &request).await;
    assert_eq!(status, 201, "{answer}");
    let (leaf, index) = proven(&answer);
    let recorded = &leaf["spec"]["hashedRekordV002"]["signature"]["verifier"];
    let expected =
        json!({ "keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": { "rawBytes": encode(&certificate) } });
    assert_eq!(recorded, &expected);
    // The identity in it is found by, as of every entry.
    let by = builder();
    let search = ["log", "search", "--identity", &by.subject, "--issuer", &by.issuer, "-o", "json"];
    let found = house.daemon.cli("other", &search);
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(found.contains(&format!("\"index\":{index}")) || found.contains(&format!("\"index\": {index}")), "{found}");
}

/// What older clients send: it becomes the entry that newer ones send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envelope_is_recorded_by_what_was_signed_of_it() {
    let house = House::new("");
    let holder = Holder::new(Scheme::P256Sha256);
    let (kind, payload) = ("application/vnd.in-toto+json", br#"{"any":"thing"}"#);
    let encoding = format!("DSSEv1 {} {kind} {} {}", kind.len(), payload.len(), String::from_utf8_lossy(payload));
    let signature = holder.sign(encoding.as_bytes());
    let verifier = json!({ "publicKey": { "rawBytes": encode(&holder.spki) }, "keyDetails": holder.scheme.details() });
    let old = json!({ "dsseRequestV002": {
        "envelope": { "payload": encode(payload), "payloadType": kind, "signatures": [{ "sig": encode(&signature), "keyid": "" }] },
        "verifiers": [verifier],
    }});
    let (status, answer) = send(&house, &old).await;
    assert_eq!(status, 201, "{answer}");
    let (_, index) = proven(&answer);
    let new = json!({ "hashedRekordRequestV002": {
        "digest": encode(&Scheme::P256Sha256.digest(encoding.as_bytes())),
        "signature": { "content": encode(&signature), "verifier": verifier },
    }});
    let (status, same) = send(&house, &new).await;
    assert_eq!((status, proven(&same).1, &same["canonicalizedBody"]), (201, index, &answer["canonicalizedBody"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_verify_is_not_recorded() {
    let house = House::new("");
    let before = house.size().await;
    let holder = Holder::new(Scheme::P256Sha256);
    let good = request(&holder, b"artifact");
    let with = |pointer: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(&format!("/hashedRekordRequestV002{pointer}")).unwrap() = value;
        changed
    };
    let key = "/signature/verifier/publicKey/rawBytes";
    let spki = |der: &[u8]| with(key, json!(encode(der)));
    let ed25519 = Holder::new(Scheme::Ed25519Ph);
    let prehashed = request(&ed25519, b"artifact");
    let ed448 = [hex::decode("3043300506032b6571033a00").unwrap().as_slice(), &[7; 57]].concat();
    let pure = {
        let mut request = prehashed.clone();
        request["hashedRekordRequestV002"]["signature"]["content"] = json!(encode(&ed25519.sign_pure(b"artifact")));
        request
    };
    let pure_over_digest = {
        let mut request = prehashed.clone();
        let signature = ed25519.sign_pure(&Scheme::Ed25519Ph.digest(b"artifact"));
        request["hashedRekordRequestV002"]["signature"]["content"] = json!(encode(&signature));
        request
    };
    let pure_by_name = {
        let mut request = prehashed.clone();
        request["hashedRekordRequestV002"]["signature"]["verifier"]["keyDetails"] = json!("PKIX_ED25519");
        request
    };
    let short = {
        let mut request = prehashed.clone();
        request["hashedRekordRequestV002"]["digest"] = json!(encode(&[1; 32]));
        request
    };
    let compressed = {
        let mut der = holder.spki.clone();
        der.truncate(der.len() - 32);
        (der[1], der[24], der[26]) = (der[1] - 32, der[24] - 32, 2);
        der
    };
    let many = json!({ "dsseRequestV002": {
        "envelope": { "payload": "e30=", "payloadType": "x", "signatures": [{ "sig": "AA==" }, { "sig": "AA==" }] },
        "verifiers": [good["hashedRekordRequestV002"]["signature"]["verifier"]],
    }});
    let both = json!({ "hashedRekordRequestV002": good["hashedRekordRequestV002"], "dsseRequestV002": {} });
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for (request, because) in [
        (json!({}), "hashedRekordRequestV002 is missing"),
        (json!({ "hashedRekordRequestV002": {} }), "signature is missing"),
        (json!([]), "cannot be read"),
        (both, "send one of them"),
        (with("/digest", json!("")), "digest is missing"),
        (
            with("/digest", json!(encode(&[1; 31]))),
            "digest has 31 bytes; a signature with this key is over a digest of 32",
        ),
        (with("/digest", json!(encode(&[1; 32]))), "signature does not verify with this key"),
        (with("/digest", json!("%%%")), "base64"),
        (with("/digest", json!(5)), "cannot be read"),
        (with("/signature/content", json!("")), "content is missing"),
        (with("/signature/content", json!(encode(&[0; 70]))), "signature does not verify"),
        (with("/signature/content", json!(encode(&[0; 1_025]))), "the signature has 1025 bytes; at most 1024"),
        (with("/signature/verifier", Value::Null), "signature.verifier is missing"),
        (with("/signature/verifier/keyDetails", json!("PKIX_ECDSA_P384_SHA_384")), "signs by PKIX_ECDSA_P256_SHA_256"),
        (with("/signature/verifier/keyDetails", json!("PKIX_ED25519")), "keyDetails must be one of"),
        (with("/signature/verifier/keyDetails", json!(0)), "keyDetails must be one of"),
        (with("/signature/verifier/keyDetails", Value::Null), "keyDetails must be one of"),
        (with("/signature/verifier/publicKey", Value::Null), "either an x509Certificate or a publicKey"),
        (spki(&[]), "not a public key"),
        (spki(&holder.spki[1..]), "not a public key"),
        (spki(&[0x30; 2_000]), "not a public key"),
        (spki(&Holder::new(Scheme::P256Sha256).spki), "signature does not verify"),
        (spki(&ed448), "this kind of key is not accepted; use ECDSA"),
        (spki(&ed25519.spki), "a key of this kind signs by PKIX_ED25519_PH"),
        (spki(&ed25519.spki[..43]), "not a public key"),
        (pure, "signature does not verify"),
        (pure_over_digest, "signature does not verify"),
        (pure_by_name, "keyDetails must be one of"),
        (short, "digest has 32 bytes; a signature with this key is over a digest of 64"),
        (spki(&compressed), "not a public key"),
        (
            with("/signature/verifier/publicKey", json!({"rawBytes": encode(&Holder::new(Scheme::P384Sha384).spki)})),
            "a key of this kind signs by PKIX_ECDSA_P384_SHA_384",
        ),
        (
            with("/signature/verifier", json!({ "x509Certificate": { "rawBytes": "AAAA" }, "keyDetails": 5 })),
            "not an X.509 certificate",
        ),
        (
            with(
                "/signature/verifier",
                json!({ "x509Certificate": { "rawBytes": encode(&vec![0; 20_000]) }, "keyDetails": 5 }),
            ),
            "the certificate has 20000 bytes; at most 16384",
        ),
        (many, "exactly one signature and one verifier"),
        (with("/digest", serde_json::from_str(&deep).unwrap()), "deep"),
    ] {
        let (status, answer) = send(&house, &request).await;
        let message = answer["message"].as_str().unwrap();
        assert_eq!((status, &answer["code"]), (400, &json!(3)), "{because}: {answer}");
        assert!(message.contains(because), "wanted {because:?}: {message}");
        assert_eq!(answer["details"][0]["reason"], reason_of(message), "{answer}");
    }
    // Refused by what is announced, without reading it: a client that goes on writing may not hear the answer.
    let large = house.http.post(house.url(ENTRIES)).body(vec![b' '; 5 * 1024 * 1024]).send().await;
    assert!(large.is_err() || large.is_ok_and(|answer| answer.status() == 413));
    assert_eq!(house.http.get(house.url(ENTRIES)).send().await.unwrap().status(), 405);
    assert_eq!(house.size().await, before, "nothing of it was logged");
    assert_eq!(send(&house, &good).await.0, 201, "and the request without its faults is accepted");
}

/// The reason that goes with a message.
fn reason_of(message: &str) -> &'static str {
    let table = [
        ("cannot be read", "ENTRY_MALFORMED"),
        ("signature does not verify", "SIGNATURE_INVALID"),
        ("a signature with this key is over a digest of", "DIGEST_LENGTH"),
        ("not a public key", "KEY_MALFORMED"),
        ("not an X.509 certificate", "CERTIFICATE_MALFORMED"),
        ("this kind of key is not accepted", "KEY_UNSUPPORTED"),
        ("signs by", "KEY_DETAILS"),
        ("keyDetails must be", "KEY_DETAILS"),
        ("at most", "ENTRY_TOO_LARGE"),
    ];
    table.into_iter().find(|(part, _)| message.contains(part)).map_or("ENTRY_MALFORMED", |(_, reason)| reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_says_the_same() {
    let house = House::new("");
    let holder = Holder::new(Scheme::P256Sha256);
    let sent = request(&holder, b"artifact");
    let (_, answer) = send(&house, &sent).await;
    let sent = &sent["hashedRekordRequestV002"];
    let verifier = |key| v2::Verifier { key_details: PublicKeyDetails::PkixEcdsaP256Sha256.into(), verifier: key };
    let public = v2::verifier::Verifier::PublicKey(v2::PublicKey { raw_bytes: holder.spki.clone().into() });
    let create = |verifier| CreateEntryRequest {
        spec: Some(Spec::HashedRekordRequestV002(HashedRekordRequestV002 {
            digest: bytes(&sent["digest"]).into(),
            signature: Some(v2::Signature {
                content: bytes(&sent["signature"]["content"]).into(),
                verifier: Some(verifier),
            }),
        })),
    };
    let mut client = RekorClient::new(house.daemon.channel("other").await);
    let entry = client.create_entry(create(verifier(Some(public)))).await.unwrap().into_inner();
    assert_eq!(entry.log_index.to_string(), answer["logIndex"], "the entry is there already");
    assert_eq!(entry.canonicalized_body, bytes(&answer["canonicalizedBody"]));
    let proof = entry.inclusion_proof.unwrap();
    assert_eq!(proof.root_hash, bytes(&answer["inclusionProof"]["rootHash"]));

    let garbage = v2::verifier::Verifier::X509Certificate(X509Certificate { raw_bytes: vec![1, 2, 3].into() });
    for (request, because) in [
        (CreateEntryRequest::default(), "is missing"),
        (create(verifier(None)), "either an x509Certificate or a publicKey"),
        (create(verifier(Some(garbage))), "not an X.509 certificate"),
    ] {
        let refused = client.create_entry(request).await.expect_err(because);
        assert_eq!(refused.code(), Code::InvalidArgument, "{because}");
        assert!(refused.message().contains(because), "{refused:?}");
    }

    let note = client.get_checkpoint(()).await.unwrap().into_inner();
    assert_eq!(note.data, house.http.get(house.url("/checkpoint")).send().await.unwrap().bytes().await.unwrap());
    let path = async |path: &str| house.http.get(house.url(path)).send().await.unwrap().bytes().await.unwrap();
    let tile = client.get_tile(TileRequest { l: 0, n: "000.p/2".to_owned() }).await.unwrap().into_inner();
    assert_eq!(tile.data, path("/api/v2/tile/0/000.p/2").await);
    let bundle = client.get_entry_bundle(EntryBundleRequest { n: "000.p/2".to_owned() }).await.unwrap().into_inner();
    assert_eq!(bundle.data, path("/api/v2/tile/entries/000.p/2").await);
    for n in ["001", "", "../x", "000.p/0", "000.p/9"] {
        let refused = client.get_tile(TileRequest { l: 0, n: n.to_owned() }).await.expect_err(n);
        assert_eq!(refused.code(), Code::NotFound, "{n}");
    }
}

/// With `entries_of = "certified"` whoever has no certificate of this service's authority is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_kept_out_where_certificates_are_asked_for() {
    let house = House::new("[sigstore]\nentries_of = \"certified\"\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let holder = Holder::new(Scheme::P256Sha256);
    let by = |certificate: &[u8]| {
        let mut request = request(&holder, b"artifact");
        let verifier = &mut request["hashedRekordRequestV002"]["signature"]["verifier"];
        *verifier = json!({ "x509Certificate": { "rawBytes": encode(certificate) }, "keyDetails": 5 });
        request
    };
    let issue = |keys: &Keyring| keys.issue(&builder(), &holder.spki, Timestamp::now()).unwrap();
    let strangers = by(&issue(&keyring(elsewhere.path(), Timestamp::now())));
    for sent in [request(&holder, b"artifact"), strangers] {
        let (status, answer) = send(&house, &sent).await;
        assert_eq!((status, &answer["details"][0]["reason"]), (403, &json!("CERTIFICATE_REQUIRED")), "{answer}");
    }
    assert_eq!(house.size().await, 1, "nothing but the genesis entry");

    let kek = KekSource::File(house.daemon.path().join("kek")).load().unwrap();
    let own = by(&issue(&Keyring::open(&house.daemon.data(), &kek).unwrap()));
    let (status, answer) = send(&house, &own).await;
    assert_eq!(status, 201, "{answer}");
    proven(&answer);
}
