//! Keys: certificates, timestamps and trust documents, against `sigstore-verify` through `model::verify`. Below:
//! custody, extended key usage, managed keys, the face and the shell.

mod custody;
mod eku;
mod face;
mod managed;
mod shell;

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    keys::{EphemeralKey, Kek, KeyError, Keyring},
    model::{
        Digest, Identity, Rejection, Scheme, Signer, Statement, Subject, TrustedRoot, predicate,
        statement::PAYLOAD_TYPE, verify::verify,
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

use crate::holder::Holder;

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
    bundle_of(Scheme::P256Sha256, keys, identity, content, now)
}

/// The same with another kind of key.
fn bundle_of(
    scheme: Scheme,
    keys: &Keyring,
    identity: &Identity,
    content: &Content<'_>,
    now: Timestamp,
) -> serde_json::Value {
    let key = Holder::new(scheme);
    let certificate = keys.issue(identity, &key.spki, now).unwrap();
    bundle_under(&certificate, &key, keys, content, now)
}

/// The same under a certificate over this key.
fn bundle_under(
    certificate: &[u8],
    key: &Holder,
    keys: &Keyring,
    content: &Content<'_>,
    now: Timestamp,
) -> serde_json::Value {
    let (scheme, certificate) = (key.scheme, STANDARD.encode(certificate));
    let signed = match content {
        Content::File(bytes) => bytes.to_vec(),
        Content::Statement(statement) => pae(&statement.to_json()),
    };
    let digest = scheme.digest(&signed);
    let signature = key.sign(&signed);
    let body =
        serde_json::to_vec(&json!({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": {
            "data": {"algorithm": scheme.hash(), "digest": STANDARD.encode(&digest)},
            "signature": {"content": STANDARD.encode(&signature), "verifier": {
                "keyDetails": scheme.details(), "x509Certificate": {"rawBytes": certificate}}},
        }}}))
        .unwrap();
    // RFC 6962: the root of a tree with one leaf is the leaf's hash, and its proof is empty.
    let root: [u8; 32] = Sha256::digest([&[0], body.as_slice()].concat()).into();
    let text = format!("{}\n1\n{}\n", keys.host(), STANDARD.encode(root));
    let id = keys.public().log_id();
    let note = [&id[..4], &keys.log_key().sign(text.as_bytes()).unwrap()].concat();
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
                "messageDigest": {"algorithm": scheme.hash(), "digest": STANDARD.encode(digest)}, "signature": signature});
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

/// What is signed, and by which kind of key: those whose entries the library reads, and those whose entries we do.
fn samples(statement: &Statement) -> [(Scheme, Content<'_>); 5] {
    [
        (Scheme::P256Sha256, Content::File(b"artifact")),
        (Scheme::P256Sha256, Content::Statement(statement)),
        (Scheme::Rsa2048Sha256, Content::File(b"artifact")),
        (Scheme::Rsa3072Sha256, Content::Statement(statement)),
        (Scheme::P384Sha384, Content::Statement(statement)),
    ]
}

#[test]
fn hand_made_bundles_verify() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for (scheme, content) in samples(&statement(digest)) {
        let bundle = bundle_of(scheme, &keys, &builder(), &content, now()).to_string();
        let verified = verify(bundle.as_bytes(), &digest, &root).unwrap();
        assert_eq!(*verified.signer(), Signer::Identity(builder()));
        assert_eq!(verified.signed_at(), Some("2026-01-02T12:00:00Z".parse().unwrap()));
        assert_eq!(verified.log().unwrap().origin, HOST);
        assert_eq!(verified.root(), root.digest());
        assert!(matches!(verify(bundle.as_bytes(), &Digest::of(b"other"), &root), Err(Rejection::Subject(_))));
    }
}

/// The parts of a bundle that repeat what is proven elsewhere in it, so that clients may pass over them: the entry names
/// its index and the checkpoint root and size, its signature counts by key and not by name, a message digest is a hint, and of a
/// timestamp's outer wrapping only the attributes are signed.
const REPEATED: [&str; 8] = [
    // Absent, it is zero (proto3 JSON), which is what it is here.
    "/verificationMaterial/tlogEntries/0/logIndex",
    "/verificationMaterial/tlogEntries/0/inclusionProof/logIndex",
    "/verificationMaterial/tlogEntries/0/inclusionProof/rootHash",
    "/verificationMaterial/tlogEntries/0/inclusionProof/treeSize",
    "/verificationMaterial/tlogEntries/0/inclusionProof/hashes",
    "/verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope",
    "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp",
    "/messageSignature/messageDigest",
];

/// Where two documents differ, as JSON pointers of leaves.
fn differences(at: &str, one: &serde_json::Value, other: &serde_json::Value, found: &mut Vec<String>) {
    use serde_json::Value;
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let (one, other) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                // A changed name is counted where the name was.
                if a.contains_key(key) {
                    differences(&format!("{at}/{key}"), one, other, found);
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (one, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}/{index}"), one, other, found);
            }
        }
        _ if one != other => found.push(at.to_owned()),
        _ => {}
    }
}

/// Flips one bit of each byte of the bundle. What still verifies was changed in a repeated part, and says the same.
#[test]
fn every_changed_byte_is_refused_or_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for (scheme, content) in samples(&statement(digest)) {
        let bundle = bundle_of(scheme, &keys, &builder(), &content, now());
        let whole = bundle.to_string().into_bytes();
        let original = verify(&whole, &digest, &root).unwrap();
        let (mut refused, mut accepted) = (0, std::collections::BTreeMap::<String, usize>::new());
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let Ok(verified) = verify(&changed, &digest, &root) else {
                refused += 1;
                continue;
            };
            assert_eq!(verified.statement(), original.statement());
            assert_eq!(verified.signer(), original.signer());
            assert_eq!(verified.key(), original.key());
            assert_eq!(verified.signed_at(), original.signed_at());
            assert_eq!(verified.log(), original.log());
            let mut found = Vec::new();
            differences("", &bundle, &serde_json::from_slice(&changed).unwrap(), &mut found);
            for part in found {
                *accepted.entry(part).or_default() += 1;
            }
        }
        assert!(accepted.keys().all(|part| REPEATED.contains(&part.as_str())), "{accepted:#?}");
        assert!(refused > whole.len() * 9 / 10, "{refused} of {}: {accepted:#?}", whole.len());
    }
}

#[test]
fn refusals_of_changed_parts_have_names() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for scheme in [Scheme::P256Sha256, Scheme::Rsa2048Sha256] {
        let whole = bundle_of(scheme, &keys, &builder(), &Content::File(b"artifact"), now());
        let refusal = |part: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut changed = whole.clone();
            let value = changed.pointer_mut(part).unwrap();
            let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
            change(&mut bytes);
            *value = STANDARD.encode(bytes).into();
            verify(changed.to_string().as_bytes(), &digest, &root).unwrap_err()
        };
        let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
        let signature = refusal("/messageSignature/signature", &last);
        assert!(matches!(signature, Rejection::Signature(_) | Rejection::Timestamp(_)), "{signature}");
        let certificate = refusal("/verificationMaterial/certificate/rawBytes", &last);
        assert!(matches!(certificate, Rejection::Certificate(_)), "{certificate}");
        let stamp =
            refusal("/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp", &last);
        assert!(matches!(stamp, Rejection::Timestamp(_)), "{stamp}");
        let entry = refusal("/verificationMaterial/tlogEntries/0/canonicalizedBody", &|bytes| bytes[20] ^= 1);
        assert!(matches!(entry, Rejection::Log(_)), "{entry}");
    }
}

/// Each part of the trusted root is asked: with that of another instance of the same name in its place, the bundle is
/// refused for that reason.
#[test]
fn every_part_of_the_trusted_root_counts() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = keyring(dir.path(), now());
    let digest = Digest::of(b"artifact");
    let own: serde_json::Value = serde_json::from_str(&keys.trusted_root()).unwrap();
    let foreign: serde_json::Value = serde_json::from_str(&keyring(other.path(), now()).trusted_root()).unwrap();
    for scheme in [Scheme::P256Sha256, Scheme::Rsa2048Sha256] {
        let bundle = bundle_of(scheme, &keys, &builder(), &Content::File(b"artifact"), now()).to_string();
        let mut refusals = Vec::new();
        for part in ["certificateAuthorities", "ctlogs", "timestampAuthorities", "tlogs"] {
            let mut mixed = own.clone();
            mixed[part] = foreign[part].clone();
            let root = TrustedRoot::parse(&mixed.to_string()).unwrap();
            refusals.push(verify(bundle.as_bytes(), &digest, &root).unwrap_err());
        }
        let as_expected = matches!(
            refusals.as_slice(),
            [Rejection::Certificate(_), Rejection::Certificate(_), Rejection::Timestamp(_), Rejection::Log(_)]
        );
        assert!(as_expected, "{refusals:#?}");
        assert!(verify(bundle.as_bytes(), &digest, &TrustedRoot::parse(&own.to_string()).unwrap()).is_ok());
    }
}

/// An entry is about the signature that it came with, in a log that the root knows under this name since before then.
#[test]
fn an_entry_that_we_read_ourselves_counts_in_every_part() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let digest = Digest::of(b"artifact");
    let (one, other) =
        (statement(digest), Statement::new(statement(digest).subjects().to_vec(), "x:y", json!({})).unwrap());
    let whole = bundle_of(Scheme::P384Sha384, &keys, &builder(), &Content::Statement(&one), now());
    let another = bundle_of(Scheme::P384Sha384, &keys, &builder(), &Content::Statement(&other), now());
    let own: serde_json::Value = serde_json::from_str(&keys.trusted_root()).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign: serde_json::Value = serde_json::from_str(&keyring(elsewhere.path(), now()).trusted_root()).unwrap();
    let foreign = foreign["tlogs"][0]["publicKey"]["rawBytes"].clone();
    let entries = "/verificationMaterial/tlogEntries";
    let entry = whole.pointer(entries).unwrap()[0].clone();
    let with = |part: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(&format!("{entries}{part}")).unwrap() = value;
        changed
    };
    let root_with = |part: &str, value: serde_json::Value| {
        let mut changed = own.clone();
        *changed.pointer_mut(&format!("/tlogs/0{part}")).unwrap() = value;
        changed
    };
    let after = |minutes| json!((now() + SignedDuration::from_mins(minutes)).to_string());
    let start = "/publicKey/validFor/start";
    let cases = [
        ("as it is", whole.clone(), own.clone(), ""),
        ("a log that takes another's place", whole.clone(), root_with(start, after(9)), ""),
        ("a younger log", whole.clone(), root_with(start, after(11)), "its log is younger than the signature"),
        (
            "a log of another name",
            whole.clone(),
            root_with("/baseUrl", json!("https://x.test")),
            "checkpoint is of another",
        ),
        ("another key", whole.clone(), root_with("/publicKey/rawBytes", foreign), "not signed by the log"),
        (
            "no log",
            whole.clone(),
            root_with("/logId/keyId", json!(STANDARD.encode([7; 32]))),
            "not in the trusted root",
        ),
        (
            "the entry of another",
            with("/0", another.pointer(entries).unwrap()[0].clone()),
            own.clone(),
            "something else",
        ),
        ("another index", with("/0/logIndex", json!("1")), own.clone(), "its inclusion proof"),
        (
            "a longer proof",
            with("/0/inclusionProof/hashes", json!([STANDARD.encode([0; 32])])),
            own.clone(),
            "its inclusion proof",
        ),
        ("two entries", with("", json!([entry, entry])), own.clone(), "PKIX_ECDSA_P384_SHA_384"),
        ("no entry", with("", json!([])), own.clone(), "inclusion proof"),
        ("no proof", with("/0/inclusionProof", json!(null)), own.clone(), "inclusion proof"),
    ];
    for (what, bundle, root, wanted) in cases {
        let root = TrustedRoot::parse(&root.to_string()).unwrap();
        match verify(bundle.to_string().as_bytes(), &digest, &root) {
            Ok(verified) => assert!(wanted.is_empty() && verified.log().is_some(), "{what}"),
            Err(refused) => assert!(!wanted.is_empty() && refused.to_string().contains(wanted), "{what}: {refused}"),
        }
    }
    // A file is known here by its SHA-256: a signature over another digest of it says nothing about that.
    let file = bundle_of(Scheme::P384Sha384, &keys, &builder(), &Content::File(b"artifact"), now());
    let root = TrustedRoot::parse(&own.to_string()).unwrap();
    let refused = verify(file.to_string().as_bytes(), &digest, &root).unwrap_err();
    assert!(matches!(refused, Rejection::Unsupported(_)), "{refused}");
}

/// A timestamp outside the ten minutes of the certificate.
#[test]
fn certificates_out_of_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(&keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    let mut value = bundle(&keys, &builder(), &Content::File(b"artifact"), now());
    let signature = STANDARD.decode(value["messageSignature"]["signature"].as_str().unwrap()).unwrap();
    for (minutes, fits) in [(9, true), (11, false), (-1, false)] {
        let later = keys.timestamp(&signature, now() + SignedDuration::from_mins(minutes)).unwrap();
        value["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"] =
            STANDARD.encode(later).into();
        let result = verify(value.to_string().as_bytes(), &digest, &root);
        assert_eq!(result.is_ok(), fits, "{minutes} minutes: {result:?}");
    }
}

fn extension<'a, T: der::Decode<'a> + const_oid::AssociatedOid>(certificate: &'a Certificate) -> (bool, T) {
    certificate.tbs_certificate.get::<T>().unwrap().unwrap()
}

#[test]
fn certificates_have_the_profile() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let ephemeral = EphemeralKey::generate().unwrap();
    let der = keys.issue(&builder(), &ephemeral.spki(), now()).unwrap();
    let leaf = Certificate::from_der(&der).unwrap();
    let tbs = &leaf.tbs_certificate;
    assert_eq!(leaf.to_der().unwrap(), der, "what parses prints back the same bytes");
    assert!(tbs.subject.is_empty());
    assert_eq!(tbs.serial_number.as_bytes().len(), 20);
    assert!(tbs.serial_number.as_bytes()[0] & 0x80 == 0, "positive");
    let (from, until) = (tbs.validity.not_before.to_unix_duration(), tbs.validity.not_after.to_unix_duration());
    assert_eq!(until.as_secs() - from.as_secs(), 600);
    let second = now().as_second() as u64;
    assert!(from.as_secs() < second && second < until.as_secs());
    assert_eq!(tbs.subject_public_key_info.to_der().unwrap(), ephemeral.spki());
    let (critical, names) = extension::<SubjectAltName>(&leaf);
    assert!(critical);
    assert!(
        matches!(names.0.as_slice(), [GeneralName::UniformResourceIdentifier(uri)] if uri.as_str() == builder().subject)
    );
    let (critical, usage) = extension::<KeyUsage>(&leaf);
    assert!(critical && usage.digital_signature() && usage.0.bits() == 1);
    let (_, usages) = extension::<ExtendedKeyUsage>(&leaf);
    assert_eq!(usages.0, [const_oid::db::rfc5912::ID_KP_CODE_SIGNING]);
    assert!(tbs.get::<BasicConstraints>().unwrap().is_none());
    let value = |oid: &str| {
        let extensions = tbs.extensions.as_ref().unwrap();
        extensions.iter().find(|extension| extension.extn_id.to_string() == oid).unwrap().extn_value.as_bytes()
    };
    assert_eq!(value("1.3.6.1.4.1.57264.1.1"), ISSUER.as_bytes());
    assert_eq!(value("1.3.6.1.4.1.57264.1.8"), ISSUER.to_owned().to_der().unwrap());
    assert!(!value("1.3.6.1.4.1.11129.2.4.2").is_empty());

    let certificates = dir.path().join("keys");
    let read = |role: &str| {
        let pem = fs::read(certificates.join(format!("{role}.pem"))).unwrap();
        Certificate::from_der(&der::pem::decode_vec(&pem).unwrap().1).unwrap()
    };
    let (ca, root, tsa) = (read("ca"), read("ca-root"), read("tsa"));
    let (_, authority) = extension::<AuthorityKeyIdentifier>(&leaf);
    assert_eq!(authority.key_identifier.unwrap(), extension::<SubjectKeyIdentifier>(&ca).1.0);
    assert_eq!(tbs.issuer, ca.tbs_certificate.subject);
    assert_eq!(ca.tbs_certificate.subject.to_string().matches("O=").count(), 1);
    assert_eq!(extension::<BasicConstraints>(&ca), (true, BasicConstraints { ca: true, path_len_constraint: Some(0) }));
    assert_eq!(
        extension::<BasicConstraints>(&root),
        (true, BasicConstraints { ca: true, path_len_constraint: Some(1) })
    );
    assert!(extension::<KeyUsage>(&ca).1.key_cert_sign());
    assert_eq!(extension::<ExtendedKeyUsage>(&ca).1.0, [const_oid::db::rfc5912::ID_KP_CODE_SIGNING]);
    let (critical, usages) = extension::<ExtendedKeyUsage>(&tsa);
    assert!(critical);
    assert_eq!(usages.0, [const_oid::db::rfc5912::ID_KP_TIME_STAMPING]);
}

#[test]
fn subjects_become_addresses_or_uris_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let spki = EphemeralKey::generate().unwrap().spki();
    let issue = |subject: &str, issuer: &str| {
        keys.issue(&Identity { subject: subject.to_owned(), issuer: issuer.to_owned() }, &spki, now())
    };
    for (subject, mail) in [
        ("alice@example.org", true),
        ("alice+ci@example.org", true),
        ("spiffe://example.org/build", false),
        ("https://github.com/o/r/.github/workflows/w.yml@refs/heads/main", false),
        ("urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", false),
        ("mailto:alice@example.org", false),
    ] {
        let certificate = Certificate::from_der(&issue(subject, ISSUER).unwrap()).unwrap();
        let (_, names) = extension::<SubjectAltName>(&certificate);
        assert_eq!(matches!(names.0[0], GeneralName::Rfc822Name(_)), mail, "{subject}");
        assert_eq!(matches!(names.0[0], GeneralName::UniformResourceIdentifier(_)), !mail, "{subject}");
    }
    let long = format!("https://{}", "a".repeat(1_100));
    for subject in [
        "",
        "alice",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "alice smith@example.org",
        "https:",
        "1https://x",
        "älice@x.org",
        "a\0@b",
        &long,
    ] {
        let refused = issue(subject, ISSUER);
        assert!(matches!(refused, Err(KeyError::Identity { .. })), "{subject:?}: {refused:?}");
    }
    for issuer in ["", "https://issuer\n.example.org", &long] {
        assert!(matches!(issue("alice@example.org", issuer), Err(KeyError::Identity { .. })), "{issuer:?}");
    }
    // A point of small order, under which a signature is good for anything.
    let mut weak = der::pem::decode_vec(&fs::read(dir.path().join("keys/log.pem")).unwrap()).unwrap().1;
    weak[12..].fill(0);
    for key in [vec![], vec![0x30, 0], spki[..40].to_vec(), weak] {
        assert!(matches!(keys.issue(&builder(), &key, now()), Err(KeyError::PublicKey(_) | KeyError::Asn1(_))));
    }
}

#[test]
fn two_certificates_never_share_a_serial() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let spki = EphemeralKey::generate().unwrap().spki();
    let mut serials = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let der = keys.issue(&builder(), &spki, now()).unwrap();
        assert!(serials.insert(Certificate::from_der(&der).unwrap().tbs_certificate.serial_number.as_bytes().to_vec()));
    }
}

fn request(algorithm: &str, digest: Vec<u8>, nonce: Option<&[u8]>, cert_req: bool) -> x509_tsp::TimeStampReq {
    x509_tsp::TimeStampReq {
        version: x509_tsp::TspVersion::V1,
        message_imprint: x509_tsp::MessageImprint {
            hash_algorithm: spki::AlgorithmIdentifierOwned { oid: algorithm.parse().unwrap(), parameters: None },
            hashed_message: der::asn1::OctetString::new(digest).unwrap(),
        },
        req_policy: None,
        nonce: nonce.map(|nonce| der::asn1::Int::new(nonce).unwrap()),
        cert_req,
        extensions: None,
    }
}

const SHA_256: &str = "2.16.840.1.101.3.4.2.1";

#[test]
fn timestamp_requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let nonce = [0x12, 0x34, 0x56, 0x78, 0x9a];
    for cert_req in [false, true] {
        let asked = request(SHA_256, vec![7; 32], Some(&nonce), cert_req);
        let response = keys.stamp_request(&asked.to_der().unwrap(), now()).unwrap();
        let response = x509_tsp::TimeStampResp::from_der(&response).unwrap();
        let token = response.time_stamp_token.unwrap();
        let signed: cms::signed_data::SignedData = token.content.decode_as().unwrap();
        assert_eq!(signed.certificates.is_some(), cert_req);
        let content: der::asn1::OctetString = signed.encap_content_info.econtent.unwrap().decode_as().unwrap();
        let info = x509_tsp::TstInfo::from_der(content.as_bytes()).unwrap();
        assert_eq!(info.nonce.unwrap().as_bytes(), nonce);
        assert_eq!(info.message_imprint, asked.message_imprint);
        assert_eq!(info.gen_time.to_unix_duration().as_secs(), now().as_second() as u64);
    }
    let whole = request(SHA_256, vec![7; 32], None, false);
    let with = |change: &dyn Fn(&mut x509_tsp::TimeStampReq)| {
        let mut request = whole.clone();
        change(&mut request);
        keys.stamp_request(&request.to_der().unwrap(), now())
    };
    assert!(with(&|_| ()).is_ok(), "the request is good before it is changed");
    let sha1 = || request("1.3.14.3.2.26", vec![7; 20], None, false);
    for (refused, because) in [
        (with(&|request| *request = sha1()), "its hash is none"),
        (
            with(&|request| request.message_imprint.hashed_message = der::asn1::OctetString::new([7; 31]).unwrap()),
            "length",
        ),
        (with(&|request| request.req_policy = Some("1.2.3.4".parse().unwrap())), "policy"),
        (with(&|request| request.nonce = Some(der::asn1::Int::new(&[1; 33]).unwrap())), "nonce"),
        (keys.stamp_request(b"nonsense", now()), "not a TimeStampReq"),
        (keys.stamp_request(&[0; 5_000], now()), "longer than"),
    ] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, KeyError::Request(refusal) if refusal.problem.contains(because)),
            "{because}: {refused}"
        );
    }
}

/// A handshake in memory: the local authority's server and client certificates satisfy rustls in both directions.
#[test]
fn the_local_authority_serves_mutual_tls() {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
    use std::sync::Arc;
    let dir = tempfile::tempdir().unwrap();
    // rustls asks the wall clock.
    let now = Timestamp::now();
    let keys = keyring(dir.path(), now);
    let mut authority = rustls::RootCertStore::empty();
    authority.add(CertificateDer::from_pem_slice(keys.tls_ca_pem().as_bytes()).unwrap()).unwrap();
    let authority = Arc::new(authority);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(authority.clone(), provider.clone()).build();
    let names = [HOST, "127.0.0.1", "::1"].map(str::to_owned);
    let (chain, key) = keys.tls_server(&names, now).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let (cert, key) = keys.issue_client("spiffe://example.org/build", now, 30).unwrap();
    let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority)
        .with_client_auth_cert(vec![cert.clone()], key)
        .unwrap();
    let (server, client) = (Arc::new(server), Arc::new(client));
    let handshake = |name: &str| -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = rustls::ClientConnection::new(client.clone(), name).unwrap();
        let mut server = rustls::ServerConnection::new(server.clone()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        assert_eq!(server.peer_certificates().unwrap()[0], cert);
        Ok(())
    };
    for name in names {
        handshake(&name).unwrap();
    }
    assert!(matches!(handshake("other.example.org"), Err(rustls::Error::InvalidCertificate(_))));
    for name in [
        "",
        "spiffe://",
        "spiffe://example.org//x",
        "spiffe://example.org/../x",
        "spiffe://u@example.org/x",
        "a b",
        "alice@example.org",
    ] {
        assert!(matches!(keys.issue_client(name, now, 30), Err(KeyError::Identity { .. })), "{name:?}");
    }
    assert!(keys.issue_client("build.example.org", now, 0).is_err());
    assert!(keys.tls_server(&[], now).is_err());
}
