//! Managed keys as their users meet them: the real binary, `Sign` with a key, who may, and what a revocation does.

pub mod search;

use std::{fs, path::Path, process::Output};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    grpc::v1::{
        self, key_service_client::KeyServiceClient, log_service_client::LogServiceClient,
        signing_service_client::SigningServiceClient, verification_service_client::VerificationServiceClient,
    },
    model::{Digest, Rejection, Signer, TrustedRoot, predicate, verify},
};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::daemon::{Daemon, text};

/// Builders may use `release`; the holder of `admin` manages keys, and may use none.
const RULES: &str = r#"
[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/builder"
roles = ["builder"]
keys = ["release", "nightly"]

[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/admin"
roles = ["admin"]
"#;

fn start() -> Daemon {
    let mut daemon = Daemon::init(None, RULES);
    daemon.issue("admin");
    daemon.start();
    daemon
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

fn refused(output: &Output, because: &str) {
    assert!(!output.status.success() && text(output).contains(because), "expected {because:?}: {}", text(output));
}

fn sign(key: &str, digest: &Digest) -> v1::SignRequest {
    v1::SignRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: digest.to_string() }],
        kind: v1::ArtifactKind::File.into(),
        attach: false,
        key: key.to_owned(),
    }
}

fn attest(key: &str) -> v1::AttestRequest {
    v1::AttestRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: Digest::of(b"a").to_string() }],
        predicate_type: "https://example.test/review/v1".to_owned(),
        predicate: b"{}".to_vec().into(),
        key: key.to_owned(),
        ..Default::default()
    }
}

#[track_caller]
fn expect(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, reason, "{status:?}");
}

async fn size(daemon: &Daemon) -> u64 {
    let mut log = LogServiceClient::new(daemon.channel("builder").await);
    log.get_checkpoint(v1::GetCheckpointRequest::default()).await.unwrap().into_inner().size
}

fn root(daemon: &Daemon) -> TrustedRoot {
    TrustedRoot::parse(&fs::read_to_string(daemon.trusted_root()).unwrap()).unwrap()
}

/// What the command line does with one key, from its making to its end.
#[test]
fn a_file_is_signed_with_a_named_key_and_verified_by_its_public_key() {
    let daemon = start();
    let at = |name: &str| daemon.path().join(name).to_str().unwrap().to_owned();
    fs::write(daemon.path().join("tool"), "a tool").unwrap();
    let (tool, bundle, pem, root) = (at("tool"), at("bundle.json"), at("release.pub"), daemon.trusted_root());
    let root = root.to_str().unwrap();
    let sign = ["sign", "--key", "release", "--bundle", &bundle, &tool];
    refused(&daemon.cli("builder", &sign), "SIGNING_KEY_UNKNOWN");
    refused(&daemon.cli("builder", &["key", "create", "release"]), "ROLE_MISSING");
    let made = done(&daemon.cli("admin", &["key", "create", "release"]));
    assert!(made.contains("release  enabled") && made.contains("recorded  countersign.test#"), "{made}");
    refused(&daemon.cli("admin", &["key", "create", "release"]), "SIGNING_KEY_EXISTS");
    done(&daemon.cli("builder", &sign));
    let shown = daemon.cli("other", &["key", "show", "release", "--pem"]);
    fs::write(&pem, &shown.stdout).unwrap();

    let verify =
        |key: &str| crate::daemon::run(&["verify", "--bundle", &bundle, "--trusted-root", root, "--key", key, &tool]);
    assert!(done(&verify(&pem)).contains("signer:         key sha256:"));
    let other = at("other.pub");
    done(&daemon.cli("admin", &["key", "create", "nightly"]));
    fs::write(&other, daemon.cli("other", &["key", "show", "nightly", "--pem"]).stdout).unwrap();
    refused(&verify(&other), "NOT verified");

    // A new version signs; what the old one signed verifies by the old one as before.
    done(&daemon.cli("admin", &["key", "rotate", "release", "--reason", "yearly"]));
    done(&verify(&pem));
    let second = at("second.json");
    done(&daemon.cli("builder", &["sign", "--key", "release", "--bundle", &second, &tool]));
    let newest = at("release-2.pub");
    fs::write(&newest, daemon.cli("other", &["key", "show", "release", "--pem"]).stdout).unwrap();
    assert_ne!(fs::read(&newest).unwrap(), fs::read(&pem).unwrap());
    let first = daemon.cli("other", &["key", "show", "release", "--pem", "--version", "1"]);
    assert_eq!(first.stdout, fs::read(&pem).unwrap());
    let by =
        |key: &str| crate::daemon::run(&["verify", "--bundle", &second, "--trusted-root", root, "--key", key, &tool]);
    done(&by(&newest));
    refused(&by(&pem), "NOT verified");

    // The form that cosign writes: a hint in place of a certificate, and the key in the log entry.
    let bundle: Value = serde_json::from_slice(&fs::read(&bundle).unwrap()).unwrap();
    let material = &bundle["verificationMaterial"];
    assert!(material.get("certificate").is_none());
    let der = PublicDer::of(&fs::read_to_string(&pem).unwrap());
    assert_eq!(material["publicKey"]["hint"], der.hint());
    assert_eq!(material["timestampVerificationData"]["rfc3161Timestamps"].as_array().unwrap().len(), 1);
    let body = decode(material["tlogEntries"][0]["canonicalizedBody"].as_str().unwrap());
    let body: Value = serde_json::from_slice(&body).unwrap();
    let verifier = &body["spec"]["hashedRekordV002"]["signature"]["verifier"];
    assert_eq!(verifier["publicKey"]["rawBytes"], der.base64());
    assert_eq!(verifier["keyDetails"], "PKIX_ECDSA_P256_SHA_256");

    refused(&daemon.cli("builder", &["key", "disable", "release"]), "ROLE_MISSING");
    done(&daemon.cli("admin", &["key", "disable", "release", "--reason", "a drill"]));
    refused(&daemon.cli("builder", &["sign", "--key", "release", &tool]), "SIGNING_KEY_DISABLED");
    done(&verify(&pem));
    done(&daemon.cli("admin", &["key", "enable", "release"]));
    done(&daemon.cli("builder", &["sign", "--key", "release", &tool]));
    refused(&daemon.cli("admin", &["key", "revoke", "release", "--reason", " "]), "say why");
    done(&daemon.cli("builder", &["sign", "--key", "release", &tool]));
    let revoked = done(&daemon.cli("admin", &["key", "revoke", "release", "--reason", "stolen", "-o", "json"]));
    let revoked: Value = serde_json::from_str(&revoked).unwrap();
    assert_eq!((&revoked["state"], revoked["revocations"].as_array().unwrap().len()), (&"revoked".into(), 2));
    refused(&daemon.cli("builder", &["sign", "--key", "release", &tool]), "SIGNING_KEY_REVOKED");
    refused(&daemon.cli("admin", &["key", "enable", "release"]), "SIGNING_KEY_REVOKED");
    let again = done(&daemon.cli("admin", &["key", "revoke", "release", "--reason", "stolen"]));
    assert!(again.contains("it was so already") && !again.contains("\n  revoked "), "{again}");
    let doctor =
        done(&daemon.command("admin", &["doctor", "--config", daemon.config().to_str().unwrap()]).output().unwrap());
    assert!(doctor.contains("managed keys"), "{doctor}");
}

/// The DER of a PEM public key, and what bundles make of it.
struct PublicDer(Vec<u8>);

impl PublicDer {
    fn of(pem: &str) -> Self {
        Self(countersign::model::PublicKey::from_pem(pem).unwrap().spki().to_vec())
    }

    fn base64(&self) -> String {
        STANDARD.encode(&self.0)
    }

    fn hint(&self) -> String {
        Self(Digest::of(&self.0).as_bytes().to_vec()).base64()
    }
}

fn decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_sign_with_which_key_is_a_rule_and_everybody_else_is_refused_by_name() {
    let daemon = start();
    let admin = daemon.channel("admin").await;
    let mut keys = KeyServiceClient::new(admin.clone());
    for name in ["release", "private"] {
        keys.create_key(v1::CreateKeyRequest { name: name.to_owned() }).await.unwrap();
    }
    let before = size(&daemon).await;
    let digest = Digest::of(b"a");
    let mut builder = SigningServiceClient::new(daemon.channel("builder").await);
    let mut other = SigningServiceClient::new(daemon.channel("other").await);
    let mut as_admin = SigningServiceClient::new(admin);
    let bad = builder.sign(sign("No such name", &digest)).await.unwrap_err();
    expect(&bad, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert!(bad.message().contains("as in release"), "{bad:?}");
    // There, and not his; there, and nobody's; not there: whether it is there is not told to whoever may not use it.
    expect(&other.sign(sign("release", &digest)).await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    expect(&builder.sign(sign("private", &digest)).await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    expect(&builder.sign(sign("nowhere", &digest)).await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    expect(&as_admin.sign(sign("release", &digest)).await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    expect(&builder.sign(sign("nightly", &digest)).await.unwrap_err(), Code::NotFound, "SIGNING_KEY_UNKNOWN");
    expect(&other.attest(attest("release")).await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    let requests = vec![attest("release"), attest("")];
    let mixed = builder.attest_batch(v1::AttestBatchRequest { requests }).await.unwrap_err();
    assert!(mixed.message().contains("one key"), "{mixed:?}");
    let stream = tokio_stream::iter([attest("private")]);
    let mut answers = builder.attest_stream(stream).await.unwrap().into_inner();
    expect(&answers.message().await.unwrap_err(), Code::PermissionDenied, "SIGNING_KEY_DENIED");
    assert_eq!(size(&daemon).await, before, "nothing of it was logged");

    let shown = |yours: bool, name: &str| (name.to_owned(), "enabled".to_owned(), 1, yours);
    for (who, mine) in [("builder", true), ("other", false)] {
        let mut keys = KeyServiceClient::new(daemon.channel(who).await);
        let listed = keys.list_keys(v1::ListKeysRequest {}).await.unwrap().into_inner().keys;
        let listed: Vec<_> =
            listed.into_iter().map(|key| (key.name, key.state, key.versions.len(), key.yours)).collect();
        assert_eq!(listed, [shown(false, "private"), shown(mine, "release")]);
        let refused = keys.create_key(v1::CreateKeyRequest { name: "x".to_owned() }).await.unwrap_err();
        expect(&refused, Code::PermissionDenied, "ROLE_MISSING");
    }
    let unknown = keys.rotate_key(v1::RotateKeyRequest { name: "nowhere".to_owned(), ..Default::default() }).await;
    expect(&unknown.unwrap_err(), Code::NotFound, "SIGNING_KEY_UNKNOWN");
    let unknown = keys.get_key(v1::GetKeyRequest { name: "nowhere".to_owned() }).await;
    expect(&unknown.unwrap_err(), Code::NotFound, "SIGNING_KEY_UNKNOWN");
    let late = v1::RevokeKeyRequest { name: "release".to_owned(), reason: "x".to_owned(), since: "soon".to_owned() };
    expect(&keys.revoke_key(late).await.unwrap_err(), Code::InvalidArgument, "INVALID_ARGUMENT");

    // The same calls by whoever may: signed, timestamped and logged.
    let requests = vec![
        attest("release"),
        v1::AttestRequest { predicate_type: "https://example.test/b".to_owned(), ..attest("release") },
    ];
    let bundles = builder.attest_batch(v1::AttestBatchRequest { requests }).await.unwrap().into_inner().bundles;
    let root = root(&daemon);
    for bundle in &bundles {
        let verified = verify::verify(&bundle.bundle, &digest, &root).unwrap();
        assert_eq!(*verified.signer(), Signer::Key(verified.key()));
        assert!(verified.signed_at().is_some() && verified.log().is_some());
    }
    assert_eq!(size(&daemon).await, before + 2);
    let entry = bundles[0].entry.clone().unwrap();
    let audit = daemon.log();
    let line =
        audit.lines().find(|line| line.contains(&format!("#{}", entry.index)) && line.contains("signed")).unwrap();
    assert!(line.contains("release") && line.contains("spiffe://countersign.test/builder"), "who used it: {line}");
}

/// Every change is a statement in the log, by whoever made it, about the public keys that it touched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_keys_are_in_the_log_with_who_made_them() {
    let daemon = start();
    let mut keys = KeyServiceClient::new(daemon.channel("admin").await);
    let named = |name: &str| name.to_owned();
    let made = keys.create_key(v1::CreateKeyRequest { name: named("release") }).await.unwrap().into_inner();
    let rotate = v1::RotateKeyRequest { name: named("release"), reason: named("yearly") };
    let rotated = keys.rotate_key(rotate).await.unwrap().into_inner();
    let revoke = v1::RevokeKeyRequest { name: named("release"), reason: named("stolen"), since: String::new() };
    let revoked = keys.revoke_key(revoke).await.unwrap().into_inner();
    let mut log = LogServiceClient::new(daemon.channel("builder").await);
    for (answer, event, versions) in
        [(&made, "created", 1..=1), (&rotated, "rotated", 2..=2), (&revoked, "revoked", 1..=2)]
    {
        let index = answer.entry.as_ref().unwrap().index;
        let request = v1::GetEntryRequest { index, with_payload: true, ..Default::default() };
        let entry = log.get_entry(request).await.unwrap().into_inner();
        let summary = entry.summary.unwrap();
        assert_eq!(summary.predicate_type, predicate::MANAGED_KEY);
        assert_eq!(summary.signer.unwrap().subject, "spiffe://countersign.test/admin");
        let mut subjects: Vec<_> = summary.subjects.into_iter().map(|subject| subject.digest).collect();
        let key = answer.key.as_ref().unwrap();
        let touched = key.versions.iter().filter(|version| versions.contains(&version.number));
        let mut touched: Vec<_> = touched.map(|version| version.key.clone()).collect();
        subjects.sort();
        touched.sort();
        assert_eq!(subjects, touched);
        let bundle: Value = serde_json::from_slice(&entry.entry.unwrap().payload).unwrap();
        let statement = decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap());
        let statement: Value = serde_json::from_slice(&statement).unwrap();
        assert_eq!(statement["predicate"]["event"], event);
        assert_eq!(
            statement["predicate"]["by"].as_str().unwrap().split(' ').next(),
            Some("spiffe://countersign.test/admin")
        );
    }
    // No builder can write such a record.
    let forged = v1::AttestRequest {
        predicate_type: predicate::MANAGED_KEY.to_owned(),
        predicate: br#"{"name":"release","event":"enabled","by":"me"}"#.to_vec().into(),
        ..attest("")
    };
    let mut signing = SigningServiceClient::new(daemon.channel("builder").await);
    expect(&signing.attest(forged).await.unwrap_err(), Code::InvalidArgument, "INVALID_ARGUMENT");
}

/// Policies name keys; the judge takes what they signed, until they are revoked, and nothing of another key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_names_the_key_admits_what_it_signed_until_it_is_revoked() {
    let mut daemon = start();
    let mut keys = KeyServiceClient::new(daemon.channel("admin").await);
    let mut ids = Vec::new();
    for name in ["release", "nightly"] {
        let made = keys.create_key(v1::CreateKeyRequest { name: name.to_owned() }).await.unwrap().into_inner();
        ids.push(made.key.unwrap().versions[0].key.clone());
    }
    let policy = format!(
        "apiVersion: countersign.dev/v1\nnoMatch: deny\npolicies:\n  - name: released\n    match: {{services: [shop]}}\n    \
         require:\n      signers: {{anyOf: [{{name: release, key: '{}'}}]}}\n",
        ids[0]
    );
    daemon.stop();
    daemon.configure(Some(&policy), RULES);
    daemon.start();
    let mut signing = SigningServiceClient::new(daemon.channel("builder").await);
    let mut verification = VerificationServiceClient::new(daemon.channel("other").await);
    let mut judge = async |digest: Digest| {
        let check = v1::PolicyCheck { service: "shop".to_owned(), ..Default::default() };
        let check = Some(v1::verify_request::Check::Policy(check));
        let request = v1::VerifyRequest { subject: digest.to_string(), check, ..Default::default() };
        let answer = verification.verify(request).await.unwrap().into_inner();
        let verdict = answer.verdict.unwrap();
        let codes: Vec<_> = verdict.reasons.iter().map(|reason| reason.code.clone()).collect();
        (verdict.decision(), codes)
    };
    let digest = |text: &str| Digest::of(text.as_bytes());
    for (text, key) in [("released", "release"), ("nightly", "nightly"), ("keyless", "")] {
        let image = v1::SignRequest { kind: v1::ArtifactKind::Image.into(), ..sign(key, &digest(text)) };
        signing.sign(image).await.unwrap();
    }
    assert_eq!(judge(digest("released")).await.0, v1::Decision::Allow);
    let not_allowed = (v1::Decision::Deny, vec!["IDENTITY_NOT_ALLOWED".to_owned()]);
    assert_eq!(judge(digest("nightly")).await, not_allowed);
    assert_eq!(judge(digest("keyless")).await, not_allowed);

    let mut keys = KeyServiceClient::new(daemon.channel("admin").await);
    let revoke = |since: &str| v1::RevokeKeyRequest {
        name: "release".to_owned(),
        reason: "stolen".to_owned(),
        since: since.to_owned(),
    };
    let first = keys.revoke_key(revoke("")).await.unwrap().into_inner();
    assert_eq!(first.revocations.len(), 1);
    assert_eq!(judge(digest("released")).await.0, v1::Decision::Allow, "signed before it was revoked");
    // It turns out that it was stolen long before.
    let earlier = keys.revoke_key(revoke("2020-01-01T00:00:00Z")).await.unwrap().into_inner();
    assert_eq!((earlier.entry, earlier.revocations.len()), (None, 1));
    assert_eq!(judge(digest("released")).await, (v1::Decision::Deny, vec!["KEY_REVOKED".to_owned()]));
    assert!(keys.revoke_key(revoke("")).await.unwrap().into_inner().revocations.is_empty());
}

/// A bundle that is signed by a key proves the key of its log entry and no other, whatever else is written into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_that_is_proven_is_the_one_that_signed() {
    let daemon = start();
    let mut keys = KeyServiceClient::new(daemon.channel("admin").await);
    let made = keys.create_key(v1::CreateKeyRequest { name: "release".to_owned() }).await.unwrap().into_inner();
    let other = keys.create_key(v1::CreateKeyRequest { name: "nightly".to_owned() }).await.unwrap().into_inner();
    let (made, other) = (made.key.unwrap().versions.remove(0), other.key.unwrap().versions.remove(0));
    let mut signing = SigningServiceClient::new(daemon.channel("builder").await);
    let digest = Digest::of(b"a");
    let root = root(&daemon);
    for kind in [v1::ArtifactKind::File, v1::ArtifactKind::Image] {
        let request = v1::SignRequest { kind: kind.into(), ..sign("release", &digest) };
        let bundle = signing.sign(request).await.unwrap().into_inner().bundles.remove(0).bundle;
        let verified = verify::verify(&bundle, &digest, &root).unwrap();
        assert_eq!(verified.key().to_string(), made.key);
        assert_eq!(verify::verify_with_key(&bundle, &digest, &root, &made.public_key).unwrap().key(), verified.key());
        assert!(verify::verify_with_key(&bundle, &digest, &root, &other.public_key).is_err());
        let tampered = |change: &dyn Fn(&mut Value)| {
            let mut value: Value = serde_json::from_slice(&bundle).unwrap();
            change(&mut value);
            verify::verify(value.to_string().as_bytes(), &digest, &root)
        };
        let body = "/verificationMaterial/tlogEntries/0/canonicalizedBody";
        let with_key = |der: &PublicDer| {
            let der = der.base64();
            move |value: &mut Value| {
                let at = value.pointer_mut(body).unwrap();
                let plain = decode(at.as_str().unwrap());
                let mut entry: Value = serde_json::from_slice(&plain).unwrap();
                entry["spec"]["hashedRekordV002"]["signature"]["verifier"]["publicKey"]["rawBytes"] =
                    der.as_str().into();
                *at = PublicDer(entry.to_string().into_bytes()).base64().into();
            }
        };
        let foreign = tampered(&with_key(&PublicDer::of(&other.public_key))).unwrap_err();
        assert!(matches!(foreign, Rejection::Log(_) | Rejection::Signature(_)), "{foreign}");
        let no_entry = tampered(&|value| value["verificationMaterial"]["tlogEntries"] = serde_json::json!([]));
        assert!(matches!(no_entry.unwrap_err(), Rejection::Unsupported(_)));
        let no_stamp = tampered(&|value| {
            value["verificationMaterial"]["timestampVerificationData"] = serde_json::json!({});
        });
        assert!(no_stamp.is_ok_and(|verified| verified.signed_at().is_none()), "undated, and so void once revoked");
        let hint = tampered(&|value| value["verificationMaterial"]["publicKey"]["hint"] = "other".into()).unwrap();
        assert_eq!(hint.key(), verified.key(), "a hint proves nothing");
    }
}

/// The whole data directory of a service that has signed, with managed keys: no private key stands in it in clear.
#[test]
fn no_private_key_lies_open_in_the_data_directory() {
    let mut daemon = start();
    let tool = daemon.path().join("tool");
    fs::write(&tool, "a tool").unwrap();
    let tool = tool.to_str().unwrap();
    for arguments in [["key", "create", "release"], ["key", "rotate", "release"], ["key", "create", "nightly"]] {
        done(&daemon.cli("admin", &arguments));
    }
    done(&daemon.cli("builder", &["sign", tool]));
    done(&daemon.cli("builder", &["sign", "--key", "release", tool]));
    let kek = fs::read_to_string(daemon.path().join("kek")).unwrap();
    let secrets = search::secrets(&daemon.data(), &kek);
    // Nine roles, two versions and one.
    assert_eq!(secrets.len(), 12, "{:?}", secrets.iter().map(|secret| &secret.name).collect::<Vec<_>>());
    assert_eq!(search::found(&daemon.data(), &secrets), Vec::<String>::new());
    daemon.stop();
    assert_eq!(search::found(&daemon.data(), &secrets), Vec::<String>::new());

    // The control: in a copy that was not sealed, the same search finds every one of them, in each of their forms.
    for (form, secret) in
        secrets.iter().flat_map(|secret| search::forms(secret).into_iter().map(move |form| (form, secret)))
    {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("deep")).unwrap();
        let bytes = [b"before".as_slice(), &form, b"after"].concat();
        fs::write(copy.path().join("deep").join("file"), bytes).unwrap();
        let found = search::found(copy.path(), &secrets);
        assert!(found.iter().any(|what| what.starts_with(&secret.name)), "{}: {found:?}", secret.name);
    }
    open_for_others(&daemon.data());
}

/// Nothing of the keys can be read by anybody but the service's user.
fn open_for_others(data: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for folder in ["keys", "managed"] {
        let folder = data.join(folder);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
        }
    }
}
