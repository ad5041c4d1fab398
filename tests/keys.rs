//! Custody of keys: making, opening, refusing; certificates, timestamps and trust documents, against
//! `sigstore-verify` through `model::verify`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    keys::{EphemeralKey, Kek, KekSource, KeyError, Keyring, Public, check_host},
    model::{
        Digest, Identity, Rejection, Signer, Statement, Subject, TrustedRoot, predicate, statement::PAYLOAD_TYPE,
        verify::verify,
    },
};
use der::{Decode as _, Encode as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use x509_cert::{
    Certificate,
    ext::pkix::{
        AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
        name::GeneralName,
    },
};

pub const HOST: &str = "sign.example.org";
pub const ISSUER: &str = "https://issuer.example.org";

/// A fixed time: everything is issued around it.
pub fn now() -> Timestamp {
    "2026-01-02T12:00:00.5Z".parse().unwrap()
}

pub fn kek() -> Kek {
    Kek::parse("07".repeat(32).as_bytes()).unwrap()
}

/// A keyring in a fresh directory.
pub fn keyring(dir: &Path, now: Timestamp) -> Keyring {
    Keyring::create(dir, &kek(), HOST, now).unwrap();
    Keyring::open(dir, &kek()).unwrap()
}

pub fn builder() -> Identity {
    Identity { subject: "https://ci.example.org/build@refs/heads/main".to_owned(), issuer: ISSUER.to_owned() }
}

pub enum Content<'a> {
    File(&'a [u8]),
    Statement(&'a Statement),
}

/// Makes a whole bundle by hand: certificate, signature, timestamp, and an entry in a log of size one.
pub fn bundle(keys: &Keyring, identity: &Identity, content: &Content<'_>, now: Timestamp) -> serde_json::Value {
    let key = EphemeralKey::generate().unwrap();
    let certificate = STANDARD.encode(keys.issue(identity, &key.spki(), now).unwrap());
    let signed = match content {
        Content::File(bytes) => bytes.to_vec(),
        Content::Statement(statement) => pae(&statement.to_json()),
    };
    let digest: [u8; 32] = Sha256::digest(&signed).into();
    let signature = key.sign_digest(&digest).unwrap();
    let body =
        serde_json::to_vec(&json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": "SHA2_256", "digest": STANDARD.encode(digest)},
            "signature": {"content": STANDARD.encode(&signature), "verifier": {
                "keyDetails": "PKIX_ECDSA_P256_SHA_256", "x509Certificate": {"rawBytes": certificate}}},
        }}}))
        .unwrap();
    // RFC 6962: the root of a tree with one leaf is the leaf's hash, and its proof is empty.
    let root: [u8; 32] = Sha256::digest([&[0], body.as_slice()].concat()).into();
    let text = format!("{}\n1\n{}\n", keys.host(), STANDARD.encode(root));
    let id = keys.public().log_id();
    let note = [&id[..4], &keys.log_key().sign(text.as_bytes())].concat();
    let checkpoint = format!("{text}\n\u{2014} {} {}\n", keys.host(), STANDARD.encode(note));
    let mut value = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "certificate": {"rawBytes": certificate},
            "tlogEntries": [{
                "logIndex": "0", "logId": {"keyId": STANDARD.encode(id)},
                "kindVersion": {"kind": "hashedrekord", "version": "0.0.2"},
                "inclusionProof": {"logIndex": "0", "rootHash": STANDARD.encode(root), "treeSize": "1", "hashes": [],
                    "checkpoint": {"envelope": checkpoint}},
                "canonicalizedBody": STANDARD.encode(&body),
            }],
            "timestampVerificationData": {"rfc3161Timestamps": [
                {"signedTimestamp": STANDARD.encode(keys.timestamp(&signature, now).unwrap())}]},
        },
    });
    let signature = STANDARD.encode(signature);
    match content {
        Content::File(_) => {
            value["messageSignature"] = json!({
                "messageDigest": {"algorithm": "SHA2_256", "digest": STANDARD.encode(digest)}, "signature": signature});
        }
        Content::Statement(statement) => {
            value["dsseEnvelope"] = json!({"payload": STANDARD.encode(statement.to_json()),
                "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": signature}]});
        }
    }
    value
}

fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

pub fn statement(digest: Digest) -> Statement {
    let subject = Subject { name: "artifact".to_owned(), digest };
    Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap()
}

#[test]
fn hand_made_bundles_verify() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for content in [Content::File(b"artifact"), Content::Statement(&statement(digest))] {
        let bundle = bundle(&keys, &builder(), &content, now()).to_string();
        let verified = verify(bundle.as_bytes(), &digest, &root).unwrap();
        assert_eq!(*verified.signer(), Signer::Identity(builder()));
        assert_eq!(verified.signed_at(), Some("2026-01-02T12:00:00Z".parse().unwrap()));
        assert_eq!(verified.log().unwrap().origin, HOST);
        assert_eq!(verified.root(), root.digest());
        assert!(matches!(verify(bundle.as_bytes(), &Digest::of(b"other"), &root), Err(Rejection::Subject(_))));
    }
}
