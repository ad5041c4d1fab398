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
    let root = TrustedRoot::parse(keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    for content in [Content::File(b"artifact"), Content::Statement(&statement(digest))] {
        let bundle = bundle(&keys, &builder(), &content, now());
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
    let root = TrustedRoot::parse(keys.trusted_root()).unwrap();
    let digest = Digest::of(b"artifact");
    let whole = bundle(&keys, &builder(), &Content::File(b"artifact"), now());
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
    let stamp = refusal("/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp", &last);
    assert!(matches!(stamp, Rejection::Timestamp(_)), "{stamp}");
    let entry = refusal("/verificationMaterial/tlogEntries/0/canonicalizedBody", &|bytes| bytes[20] ^= 1);
    assert!(matches!(entry, Rejection::Log(_)), "{entry}");
}

/// Each part of the trusted root is asked: with that of another instance of the same name in its place, the bundle is
/// refused for that reason.
#[test]
fn every_part_of_the_trusted_root_counts() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = keyring(dir.path(), now());
    let digest = Digest::of(b"artifact");
    let bundle = bundle(&keys, &builder(), &Content::File(b"artifact"), now()).to_string();
    let own: serde_json::Value = serde_json::from_str(keys.trusted_root()).unwrap();
    let foreign: serde_json::Value = serde_json::from_str(keyring(other.path(), now()).trusted_root()).unwrap();
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

/// A timestamp outside the ten minutes of the certificate.
#[test]
fn certificates_out_of_time_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let root = TrustedRoot::parse(keys.trusted_root()).unwrap();
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
    let ed25519 = der::pem::decode_vec(&fs::read(dir.path().join("keys/log.pem")).unwrap()).unwrap().1;
    for key in [vec![], vec![0x30, 0], spki[..40].to_vec(), ed25519] {
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
        assert!(matches!(&refused, KeyError::Request(problem) if problem.contains(because)), "{because}: {refused}");
    }
}

#[test]
fn the_directory_is_tight_and_is_never_made_twice() {
    let dir = tempfile::tempdir().unwrap();
    let keys = keyring(dir.path(), now());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path().join("keys")), 0o700);
    let files: Vec<_> = fs::read_dir(dir.path().join("keys")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 15);
    assert!(files.iter().all(|file| mode(file) == 0o600));
    assert!(matches!(Keyring::create(dir.path(), &kek(), HOST, now()), Err(KeyError::Exists(_))));

    keys.require_host(HOST).unwrap();
    assert!(matches!(keys.require_host("other.example.org"), Err(KeyError::WrongHost { .. })));
    let public = Public::open(dir.path()).unwrap();
    assert_eq!(public.trusted_root(), keys.trusted_root());
    assert_eq!(public.expiries().len(), 5);
    assert_eq!(format!("{keys:?} {:?}", kek()), r#"Keyring { host: "sign.example.org", .. } Kek(..)"#);
}

#[test]
fn directories_that_cannot_be_opened_say_why() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Missing(_))));
    let keys = dir.path().join("keys");
    drop(keyring(dir.path(), now()));
    let other = Kek::parse(&[200; 32]).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &other), Err(KeyError::WrongKek(_))));

    // Every file, with one byte changed in its middle, cut short, or gone.
    let files: Vec<_> = fs::read_dir(&keys).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().filter(|file| !file.ends_with("manifest.json")) {
        let whole = fs::read(file).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        for bytes in [&changed, &whole[..whole.len() - 1]] {
            fs::write(file, bytes).unwrap();
            let refused = Keyring::open(dir.path(), &kek()).unwrap_err();
            assert!(matches!(refused, KeyError::Damaged { .. }), "{}: {refused}", file.display());
        }
        fs::remove_file(file).unwrap();
        assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Damaged { .. })));
        fs::write(file, whole).unwrap();
    }
    // A manifest that names another host, and one of a later format.
    let manifest = fs::read_to_string(keys.join("manifest.json")).unwrap();
    fs::write(keys.join("manifest.json"), manifest.replace(HOST, "evil.example.org")).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Damaged { problem: "was changed", .. })));
    fs::write(keys.join("manifest.json"), manifest.replace(r#""format": 1"#, r#""format": 2"#)).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::Format { found: 2, .. })));
    fs::write(keys.join("manifest.json"), &manifest).unwrap();
    Keyring::open(dir.path(), &kek()).unwrap();

    fs::remove_file(keys.join("manifest.json")).unwrap();
    assert!(matches!(Keyring::open(dir.path(), &kek()), Err(KeyError::HalfMade(_))));
    assert!(matches!(Keyring::create(dir.path(), &kek(), HOST, now()), Err(KeyError::HalfMade(_))));
}

/// Directories of every released format open for ever. This one was sealed with a key-encryption key of 32 times 7.
#[test]
fn directories_of_format_1_open() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys-v1");
    let keys = Keyring::open(&dir, &kek()).unwrap();
    assert_eq!(keys.trusted_root(), fs::read_to_string(dir.join("trusted_root.json")).unwrap());
    let root = TrustedRoot::parse(keys.trusted_root()).unwrap();
    let bundle = bundle(&keys, &builder(), &Content::File(b"artifact"), now()).to_string();
    verify(bundle.as_bytes(), &Digest::of(b"artifact"), &root).unwrap();
}

/// Opens a sealed file by the documented format alone, without our code.
fn unseal(role: &str, sealed: &[u8]) -> Vec<u8> {
    use aws_lc_rs::{aead, hkdf};
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let (magic, rest) = sealed.split_at(8);
    assert_eq!(magic, b"csealed\x01");
    let mut key = [0; 32];
    let purpose = format!("seal {role}");
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"countersign sealed keys v1").extract(&[7; 32]);
    secret.expand(&[purpose.as_bytes()], Length).unwrap().fill(&mut key).unwrap();
    let key = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap());
    let mut body = rest[12..].to_vec();
    let nonce = aead::Nonce::try_assume_unique_for_key(&rest[..12]).unwrap();
    let associated = [magic, role.as_bytes()].concat();
    key.open_in_place(nonce, aead::Aad::from(associated), &mut body).unwrap().to_vec()
}

#[test]
fn no_private_key_lies_open_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    drop(keyring(dir.path(), now()));
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(dir.path().join("keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    let mut secrets = Vec::new();
    for (name, sealed) in files.iter().filter(|(name, _)| Path::new(name).extension().is_some_and(|end| end == "key")) {
        let pkcs8 = unseal(name.trim_end_matches(".key"), sealed);
        // The scalar or seed: the last 32 or 48 bytes of the private part, which starts after a fixed header.
        let scalar = match pkcs8.len() {
            48 => &pkcs8[16..48],
            138 => &pkcs8[36..68],
            185 => &pkcs8[35..83],
            length => panic!("{name} has {length} bytes"),
        };
        let before =
            pkcs8.windows(scalar.len() + 2).any(|part| part[..2] == [4, scalar.len() as u8] && &part[2..] == scalar);
        assert!(before, "an OCTET STRING of that length starts there");
        secrets.push(scalar.to_vec());
        secrets.push(pkcs8);
    }
    assert_eq!(secrets.len(), 14);
    let contains = |whole: &[u8], part: &[u8]| whole.windows(part.len()).any(|window| window == part);
    for secret in &secrets {
        assert!(contains(&secrets.concat(), secret), "the search finds what is there");
        for (name, bytes) in &files {
            let text = String::from_utf8_lossy(bytes);
            assert!(!contains(bytes, secret), "{name}");
            assert!(!text.contains(&hex::encode(secret)) && !text.contains(&STANDARD.encode(secret)), "{name}");
        }
    }
}

#[test]
fn key_encryption_keys_are_read_or_refused() {
    let hex = "ab".repeat(32);
    let base64 = STANDARD.encode([0xfb; 32]);
    let url_safe = base64.replace('+', "-").replace('/', "_");
    let good: [&[u8]; 5] =
        [hex.as_bytes(), base64.as_bytes(), url_safe.trim_end_matches('=').as_bytes(), &[0xfb; 32], b"  \n"];
    for bytes in &good[..4] {
        Kek::parse(bytes).unwrap();
        if bytes.len() != 32 {
            Kek::parse(&[bytes, b"\n".as_slice()].concat()).unwrap();
        }
    }
    for bytes in [
        b"".as_slice(),
        good[4],
        &[0xfb; 31],
        &[0xfb; 33],
        b"0123456789abcdef0123456789abcdef",
        b"correct horse",
        &hex.as_bytes()[..62],
    ] {
        assert!(Kek::parse(bytes).is_err(), "{bytes:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek");
    drop(Kek::generate_to_file(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    Kek::from_file(&path).unwrap();
    let problem = |error: KeyError| match error {
        KeyError::Kek { problem, .. } => problem,
        other => panic!("{other}"),
    };
    assert!(problem(Kek::generate_to_file(&path).unwrap_err()).contains("exists already"));
    for mode in [0o640, 0o604, 0o660, 0o622] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(problem(Kek::from_file(&path).unwrap_err()).contains("chmod 600"));
    }
    assert!(problem(Kek::from_file(dir.path()).unwrap_err()).contains("not a file"));
    assert!(problem(Kek::from_file(&dir.path().join("none")).unwrap_err()).contains("cannot be read"));
    assert!(problem(Kek::from_env("COUNTERSIGN_TEST_UNSET").unwrap_err()).contains("is not set"));
    assert!(problem(Kek::from_env("PATH").unwrap_err()).contains("openssl rand"));
    assert!(problem(Kek::from_credential("../kek").unwrap_err()).contains("is not a name"));
    let settings: toml::Table = toml::from_str("[kek]\nfile = \"/etc/kek\"").unwrap();
    let source: KekSource = settings["kek"].clone().try_into().unwrap();
    assert_eq!(source, KekSource::File("/etc/kek".into()));
}

/// The environment of a process is its own: the reader runs in a child, which is this test again.
#[test]
fn credentials_and_variables_are_read() {
    if std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| dir.to_string_lossy().contains("countersign")) {
        Kek::from_credential("kek").unwrap();
        Kek::from_env("COUNTERSIGN_TEST_KEK").unwrap();
        assert!(matches!(Kek::from_credential("none"), Err(KeyError::Kek { .. })));
        return;
    }
    let dir = tempfile::Builder::new().prefix("countersign").tempdir().unwrap();
    fs::write(dir.path().join("kek"), "07".repeat(32)).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "keys::credentials_and_variables_are_read"])
        .env("CREDENTIALS_DIRECTORY", dir.path())
        .env("COUNTERSIGN_TEST_KEK", STANDARD.encode([7; 32]))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[test]
fn host_names_that_clients_could_not_use_are_refused() {
    for host in ["sign.example.org", "localhost", "127.0.0.1", "a-b.c"] {
        check_host(host).unwrap();
    }
    let long = format!("{}.org", "a".repeat(61));
    for host in [
        "",
        "https://sign.example.org",
        "sign.example.org:8443",
        "sign.example.org/log",
        "log - 123",
        "Sign.example.org",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a-",
        "a+b",
        "sígn.org",
        &long,
        "[::1]",
    ] {
        let refused = check_host(host);
        assert!(matches!(refused, Err(KeyError::Host { .. })), "{host:?}");
        let dir = tempfile::tempdir().unwrap();
        assert!(Keyring::create(dir.path(), &kek(), host, now()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made for {host:?}");
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

mod face {
    use std::sync::Arc;

    use countersign::{
        grpc::{
            auth::Authenticated,
            trust::Trust,
            v1::{
                GetClientTrustConfigRequest, GetStatusRequest, GetTrustedRootRequest,
                trust_service_server::TrustService as _,
            },
        },
        model::{Caller, Role},
    };
    use tonic::{Code, Request};

    use super::{builder, keyring, now};

    fn from<T>(roles: &[Role], message: T) -> Request<T> {
        let mut request = Request::new(message);
        let caller = Caller { identity: builder(), roles: roles.iter().copied().collect() };
        request.extensions_mut().insert(Authenticated(Ok(caller)));
        request
    }

    #[tokio::test]
    async fn trust_material_is_for_every_role_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Arc::new(keyring(dir.path(), now()));
        let face = Trust::new(keys.clone(), "https://sign.example.org:8443".to_owned(), now);
        for role in Role::ALL {
            let reply = face.get_trusted_root(from(&[role], GetTrustedRootRequest {})).await.unwrap().into_inner();
            assert_eq!(reply.trusted_root, keys.trusted_root());
        }
        let status = face.get_status(from(&[Role::Auditor], GetStatusRequest {})).await.unwrap().into_inner();
        assert_eq!(status.expiries.len(), 5);
        assert_eq!(status.log_public_key, keys.log_key().public_key().to_vec());
        let ask = |base_url: &str| {
            let base_url = base_url.to_owned();
            face.get_client_trust_config(from(&[Role::Verifier], GetClientTrustConfigRequest { base_url }))
        };
        for (given, used) in [("", "https://sign.example.org:8443"), ("https://other:1", "https://other:1")] {
            let reply = ask(given).await.unwrap().into_inner().client_trust_config;
            let document: serde_json::Value = serde_json::from_slice(&reply).unwrap();
            assert_eq!(document["signingConfig"]["tsaUrls"][0]["url"], format!("{used}/api/v1/timestamp"));
        }
        for refused in ["nonsense", "ftp://x", "/path", &format!("https://{}", "a".repeat(1_100))] {
            assert_eq!(ask(refused).await.unwrap_err().code(), Code::InvalidArgument, "{refused}");
        }
        let nobody = face.get_status(from(&[], GetStatusRequest {})).await.unwrap_err();
        assert_eq!(nobody.code(), Code::PermissionDenied);
        let stranger = face.get_trusted_root(Request::new(GetTrustedRootRequest {})).await.unwrap_err();
        assert_eq!(stranger.code(), Code::Unauthenticated);
    }
}

mod shell {
    use std::{fs, path::Path};

    use clap::Parser;
    use countersign::{
        cli::{Global, init, trust},
        keys::{Kek, KekSource, Keyring},
    };

    #[derive(Debug, Parser)]
    struct Init {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        args: init::Args,
    }

    #[derive(Debug, Parser)]
    struct Trust {
        #[command(flatten)]
        global: Global,
        #[command(flatten)]
        args: trust::Args,
    }

    async fn init(data: &Path, host: &str, more: &[&str]) -> anyhow::Result<()> {
        let data = data.to_str().unwrap();
        let arguments = ["init", "--data", data, "--host", host].into_iter().chain(more.iter().copied());
        let parsed = Init::try_parse_from(arguments)?;
        init::run(parsed.args, &parsed.global).await.map(|_| ())
    }

    async fn trust(arguments: &[&str]) -> anyhow::Result<()> {
        let parsed = Trust::try_parse_from(["trust"].iter().chain(arguments))?;
        trust::run(parsed.args, &parsed.global).await.map(|_| ())
    }

    #[tokio::test]
    async fn init_makes_what_trust_reads() {
        let dir = tempfile::tempdir().unwrap();
        let (data, kek, out) = (dir.path().join("data"), dir.path().join("kek"), dir.path().join("out"));
        let at = kek.to_str().unwrap();
        init(&data, "sign.example.org", &["--kek-file", at, "--generate-kek"]).await.unwrap();
        let keys = Keyring::open(&data, &Kek::from_file(&kek).unwrap()).unwrap();
        assert_eq!(fs::read_to_string(data.join("trusted_root.json")).unwrap(), keys.trusted_root());
        let settings: toml::Table =
            toml::from_str(&fs::read_to_string(data.join("countersign.toml")).unwrap()).unwrap();
        let source: KekSource = settings["kek"].clone().try_into().unwrap();
        assert_eq!(source, KekSource::File(kek.clone()));
        assert_eq!(settings["data"].as_str(), data.to_str());

        let (data, file) = (data.to_str().unwrap(), dir.path().join("trust.json"));
        trust(&["export", "--data", data, "--client-config", "--out", file.to_str().unwrap()]).await.unwrap();
        let exported = fs::read_to_string(&file).unwrap();
        assert_eq!(exported, keys.client_trust_config("https://sign.example.org"));
        let issue = [
            "issue-client",
            "spiffe://example.org/build",
            "--data",
            data,
            "--kek-file",
            at,
            "--out",
            out.to_str().unwrap(),
        ];
        trust(&issue).await.unwrap();
        assert!(out.join("example.org-build.pem").exists() && out.join("example.org-build.key").exists());
        let again = trust(&issue).await.unwrap_err();
        assert!(again.to_string().contains("cannot write"), "keys are never overwritten: {again}");
    }

    #[tokio::test]
    async fn init_refuses_what_it_could_spoil() {
        let dir = tempfile::tempdir().unwrap();
        let (data, kek) = (dir.path().join("data"), dir.path().join("kek"));
        let key = ["--kek-file", kek.to_str().unwrap()];
        let inside = data.join("kek");
        let refused = |result: anyhow::Result<()>, because: &str| {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(because), "expected {because:?} in {error:?}");
        };
        refused(init(&data, "sign.example.org", &[]).await, "required");
        refused(init(&data, "sign.example.org", &[key[0], key[1], "--kek-env", "X"]).await, "cannot be used with");
        refused(init(&data, "sign.example.org", &["--kek-env", "X", "--generate-kek"]).await, "cannot be used with");
        refused(init(&data, "https://sign.example.org", &key).await, "scheme");
        refused(init(&data, "sign.example.org", &key).await, "cannot be read");
        refused(
            init(&data, "sign.example.org", &["--kek-file", inside.to_str().unwrap(), "--generate-kek"]).await,
            "must not lie",
        );
        assert!(!data.exists() && !kek.exists(), "nothing was made");
        fs::create_dir(&data).unwrap();
        fs::write(data.join("something"), "").unwrap();
        refused(init(&data, "sign.example.org", &[key[0], key[1], "--generate-kek"]).await, "not empty");
        assert!(!kek.exists(), "no key was made either");
    }
}
