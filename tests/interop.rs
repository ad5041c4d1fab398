//! What stock clients say about our bundles: sigstore-python, the strictest of them, and `OpenSSL` about certificates
//! and timestamps; and, by `scripts/interop`, what the clients of Python and JavaScript sign at our service and verify of
//! each other.
//!
//! `scripts/interop-venv` and `scripts/interop-js` install them; `COUNTERSIGN_SIGSTORE_PYTHON` names another one of the
//! former.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    keys::EphemeralKey,
    model::{Digest, Identity},
};
use jiff::Timestamp;

use crate::{
    daemon::{Daemon, binary, text},
    keys::{Content, ISSUER, builder, bundle, keyring, statement},
};

/// The `sigstore` command.
pub fn sigstore() -> PathBuf {
    let path = env::var_os("COUNTERSIGN_SIGSTORE_PYTHON").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap()).join(".cache/countersign/venv/bin/sigstore"),
        PathBuf::from,
    );
    assert!(path.exists(), "{} does not exist; run scripts/interop-venv", path.display());
    path
}

/// Asks for a verdict on `file`; `dir` has `trust.json` and `bundle.json`.
fn ask(dir: &Path, file: &str, identity: &Identity) -> Output {
    Command::new(sigstore())
        .current_dir(dir)
        .env("HOME", dir)
        .args(["--trust-config", "trust.json", "verify", "identity", "--offline", "--bundle", "bundle.json"])
        .args(["--cert-identity", &identity.subject, "--cert-oidc-issuer", &identity.issuer, file])
        .output()
        .unwrap()
}

#[track_caller]
fn accepts(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn refuses(output: &Output, because: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "accepted: {said}");
    assert!(said.contains(because), "expected {because:?} in: {said}");
}

#[test]
fn sigstore_python_takes_a_file_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let keys = keyring(&dir.path().join("data"), now);
    let bundle = bundle(&keys, &builder(), &Content::File(b"artifact"), now).to_string();
    fs::write(dir.path().join("trust.json"), keys.client_trust_config("https://127.0.0.1:8443")).unwrap();
    fs::write(dir.path().join("bundle.json"), &bundle).unwrap();
    fs::write(dir.path().join("file"), b"artifact").unwrap();
    accepts(&ask(dir.path(), "file", &builder()));
    accepts(&ask(dir.path(), &Digest::of(b"artifact").to_string(), &builder()));

    let other = Identity { subject: "https://ci.example.org/other".to_owned(), ..builder() };
    refuses(&ask(dir.path(), "file", &other), "Certificate's SANs do not match");
    fs::write(dir.path().join("file"), b"artifacT").unwrap();
    refuses(&ask(dir.path(), "file", &builder()), "Bundle message digest mismatch");
    fs::write(dir.path().join("file"), b"artifact").unwrap();

    // One bit of each part of the bundle, in the middle of its bytes.
    for (part, because) in [
        ("/verificationMaterial/certificate/rawBytes", ""),
        ("/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp", ""),
        ("/verificationMaterial/tlogEntries/0/canonicalizedBody", "invalid log entry"),
        ("/verificationMaterial/tlogEntries/0/inclusionProof/rootHash", "invalid log entry"),
        ("/messageSignature/signature", ""),
        ("/messageSignature/messageDigest/digest", "Bundle message digest mismatch"),
    ] {
        let mut changed: serde_json::Value = serde_json::from_str(&bundle).unwrap();
        let value = changed.pointer_mut(part).unwrap();
        let mut bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        *value = STANDARD.encode(bytes).into();
        fs::write(dir.path().join("bundle.json"), changed.to_string()).unwrap();
        refuses(&ask(dir.path(), "file", &builder()), because);
    }
}

#[test]
fn sigstore_python_takes_a_statement_bundle_and_an_e_mail_identity() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let keys = keyring(&dir.path().join("data"), now);
    let digest = Digest::of(b"artifact");
    let identity = Identity { subject: "alice@example.org".to_owned(), issuer: ISSUER.to_owned() };
    let bundle = bundle(&keys, &identity, &Content::Statement(&statement(digest)), now).to_string();
    fs::write(dir.path().join("trust.json"), keys.client_trust_config("https://127.0.0.1:8443")).unwrap();
    fs::write(dir.path().join("bundle.json"), &bundle).unwrap();
    fs::write(dir.path().join("file"), b"artifact").unwrap();
    let output = ask(dir.path(), "file", &identity);
    accepts(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&digest.hex()), "it prints the statement");
    fs::write(dir.path().join("file"), b"artifacT").unwrap();
    refuses(&ask(dir.path(), "file", &identity), "in-toto statement has no subject for digest");
}

/// Runs `openssl` in `dir`.
fn openssl(dir: &Path, arguments: &str) -> Output {
    Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().expect("openssl is installed")
}

#[test]
fn openssl_takes_certificates_and_timestamps() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let keys = keyring(dir.path(), now);
    let leaf = keys.issue(&builder(), &EphemeralKey::generate().unwrap().spki(), now).unwrap();
    fs::write(dir.path().join("leaf.der"), leaf).unwrap();
    accepts(&openssl(dir.path(), "x509 -inform der -in leaf.der -out leaf.pem"));
    accepts(&openssl(dir.path(), "verify -x509_strict -CAfile keys/ca-root.pem -untrusted keys/ca.pem leaf.pem"));
    refuses(
        &openssl(dir.path(), "verify -x509_strict -CAfile keys/tsa-root.pem -untrusted keys/ca.pem leaf.pem"),
        "unable to get",
    );

    fs::write(dir.path().join("data"), "artifact").unwrap();
    fs::write(dir.path().join("other"), "artifacT").unwrap();
    let verify = "ts -verify -in answer -CAfile keys/tsa-root.pem";
    for (query, embedded) in
        [("ts -query -data data -sha256 -cert -out query", true), ("ts -query -data data -sha512 -out query", false)]
    {
        accepts(&openssl(dir.path(), query));
        let query = fs::read(dir.path().join("query")).unwrap();
        fs::write(dir.path().join("answer"), keys.stamp_request(&query, now).unwrap()).unwrap();
        let signer = if embedded { "" } else { " -untrusted keys/tsa.pem" };
        accepts(&openssl(dir.path(), &format!("{verify} -queryfile query{signer}")));
        refuses(&openssl(dir.path(), &format!("{verify} -data other{signer}")), "message imprint mismatch");
    }
}

/// The whole way: `countersign sign` against the running service, then sigstore-python with what `trust export` gave.
#[test]
fn a_file_that_the_command_signed_is_accepted_and_a_changed_byte_is_not() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let dir = daemon.path();
    let (file, bundle, trust) = (dir.join("tool"), dir.join("bundle.json"), dir.join("trust.json"));
    fs::write(&file, b"a release").unwrap();
    let (file_text, bundle_text) = (file.to_str().unwrap(), bundle.to_str().unwrap());
    // Others signed before, so that the proof has hashes in it.
    for _ in 0..3 {
        assert!(daemon.cli("builder", &["sign", "--bundle", bundle_text, file_text]).status.success());
    }
    let exported = daemon.cli("builder", &["trust", "export", "--client-config", "--out", trust.to_str().unwrap()]);
    assert!(exported.status.success(), "{}", text(&exported));
    let identity = Identity {
        subject: "spiffe://countersign.test/builder".to_owned(),
        issuer: "https://countersign.test/clients".to_owned(),
    };
    let accepted = ask(dir, "tool", &identity);
    assert!(accepted.status.success(), "{}", text(&accepted));

    let stranger = Identity { subject: "spiffe://countersign.test/other".to_owned(), ..identity.clone() };
    assert!(!ask(dir, "tool", &stranger).status.success(), "another identity");
    fs::write(&file, b"a releasf").unwrap();
    assert!(!ask(dir, "tool", &identity).status.success(), "one byte of the file");
    fs::write(&file, b"a release").unwrap();
    let original = fs::read_to_string(&bundle).unwrap();
    let at = original.find("\"signature\":\"").unwrap() + 40;
    let mut changed = original.clone().into_bytes();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    fs::write(&bundle, &changed).unwrap();
    assert!(!ask(dir, "tool", &identity).status.success(), "one byte of the bundle");
    fs::write(&bundle, original).unwrap();
    assert!(ask(dir, "tool", &identity).status.success(), "it was the byte");
}

/// The whole matrix of signers and verifiers that need no Go. `scripts/interop` alone does the rest.
#[test]
fn clients_of_python_and_javascript_and_ours_understand_each_other() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/interop");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "600"]).arg(script).arg("--without-go").env("COUNTERSIGN_BINARY", binary());
    let matrix = command.output().unwrap();
    if matrix.status.code() == Some(69) {
        assert!(env::var_os("CI_REQUIRE_SIGSTORE").is_none(), "{}", text(&matrix));
        println!("{}", text(&matrix));
        return;
    }
    assert!(matrix.status.success(), "{}", text(&matrix));
}
