//! What stock clients say about our bundles: sigstore-python from PyPI, the strictest of them.
//!
//! `scripts/interop-venv` installs it; `COUNTERSIGN_SIGSTORE_PYTHON` names another one.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use countersign::model::{Digest, Identity};
use jiff::Timestamp;

use crate::keys::{Content, ISSUER, builder, bundle, keyring, statement};

/// The `sigstore` command.
fn sigstore() -> PathBuf {
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
