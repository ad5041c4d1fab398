//! `countersign verify` and `countersign policy`, offline, as a shell sees them: the exit code.
//!
//! `golden/github-provenance.sigstore.json` is SLSA provenance from the public Sigstore instance, out of the test data
//! of the sigstore-rust project (Apache-2.0).

use std::{fs, path::Path, process::ExitCode};

use clap::Parser;
use countersign::{
    cli::{policy, verify},
    model::Digest,
};

const BUNDLE: &str = include_str!("golden/github-provenance.sigstore.json");
const DIGEST: &str = "sha256:a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf";
const WHO: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/\
                   extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const ISSUER: &str = "https://token.actions.githubusercontent.com";
const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqpVpsZkTbHGbrIyAwwVPCGLEjCY5\n\
                   aK7cFmcDsgHtGtV5hhhQE9HVmUaQrOk5aRDRa9QXkDFbdFLmQ3ya7CiRmg==\n-----END PUBLIC KEY-----\n";

#[derive(Debug, Parser)]
#[allow(clippy::large_enum_variant, reason = "one of them, once")]
enum Cli {
    Verify(verify::Args),
    Policy(policy::Args),
}

async fn run(line: &[&str]) -> ExitCode {
    let global = <countersign::cli::Cli as Parser>::try_parse_from(["countersign", "doctor"]).unwrap().global;
    match Cli::parse_from([&["countersign"], line].concat()) {
        Cli::Verify(args) => verify::run(args, &global).await.unwrap(),
        Cli::Policy(args) => policy::run(args, &global).await.unwrap(),
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn offline_verification() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let bundle = file("bundle.json", BUNDLE);
    let root = file("root.json", sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT);
    let staging = file("staging.json", sigstore_trust_root::SIGSTORE_STAGING_TRUSTED_ROOT);
    let long = "x".repeat(200_000);
    let other = file("b.txt", &long);
    assert_eq!(verify::digest_of_file(Path::new(&other)).unwrap(), Digest::of(long.as_bytes()));
    let tampered = file(
        "tampered.json",
        &BUNDLE.replacen("\"sig\": \"ME", "\"sig\": \"MF", 1).replacen("\"sig\":\"ME", "\"sig\":\"MF", 1),
    );
    assert_ne!(fs::read_to_string(&tampered).unwrap(), BUNDLE);
    let broken = file("broken.json", "{");
    let key = file("key.pem", KEY);
    let who = ["--certificate-identity", WHO, "--certificate-oidc-issuer", ISSUER];
    let slsa = ["--predicate-type", "slsaprovenance1"];
    let part =
        ["--certificate-identity-regexp", "https://github.com/.*@refs/heads/mai", "--certificate-oidc-issuer", ISSUER];
    let whole = ["--certificate-identity-regexp", "https://github.com/.*", "--certificate-oidc-issuer-regexp", ".*"];
    let base = ["verify", "--bundle", &bundle, "--trusted-root", &root];
    let cases: Vec<(&str, Vec<&str>, u8)> = vec![
        ("digest", [&base[..], &who, &slsa, &[DIGEST]].concat(), 0),
        ("whole expression", [&base[..], &whole, &slsa, &[DIGEST]].concat(), 0),
        ("any identity", [&base[..], &slsa, &["--any-identity-unsafe", DIGEST]].concat(), 0),
        (
            "second root",
            [
                &["verify", "--bundle", &bundle, "--trusted-root", &staging, "--trusted-root", &root],
                &who[..],
                &slsa,
                &[DIGEST],
            ]
            .concat(),
            0,
        ),
        ("other file", [&base[..], &who, &slsa, &[&other]].concat(), 1),
        ("provenance is no signature", [&base[..], &who, &[DIGEST]].concat(), 1),
        ("part of the identity", [&base[..], &part, &slsa, &[DIGEST]].concat(), 1),
        (
            "another issuer",
            [&base[..], &["--certificate-identity", WHO, "--certificate-oidc-issuer", "https://x"], &slsa, &[DIGEST]]
                .concat(),
            1,
        ),
        (
            "other root",
            [&["verify", "--bundle", &bundle, "--trusted-root", &staging], &who[..], &slsa, &[DIGEST]].concat(),
            1,
        ),
        (
            "flipped byte",
            [&["verify", "--bundle", &tampered, "--trusted-root", &root], &who[..], &slsa, &[DIGEST]].concat(),
            1,
        ),
        ("another key", [&base[..], &slsa, &["--key", &key, DIGEST]].concat(), 1),
        ("no bundle", [&["verify", "--bundle", "missing", "--trusted-root", &root], &who[..], &[DIGEST]].concat(), 2),
        ("broken root", [&["verify", "--bundle", &bundle, "--trusted-root", &broken], &who[..], &[DIGEST]].concat(), 2),
        ("no file", [&base[..], &who, &["missing"]].concat(), 2),
        ("no identity", [&base[..], &[DIGEST]].concat(), 64),
        ("no issuer", [&base[..], &["--certificate-identity", WHO, DIGEST]].concat(), 64),
        ("identity and key", [&base[..], &who, &["--key", &key, DIGEST]].concat(), 64),
        ("no root", [&["verify", "--bundle", &bundle], &who[..], &[DIGEST]].concat(), 64),
        ("bad digest", [&base[..], &who, &["sha256:00"]].concat(), 64),
        ("bad expression", [&base[..], &["--certificate-identity-regexp", "(", DIGEST]].concat(), 64),
    ];
    for (name, line, code) in cases {
        assert_eq!(run(&line).await, ExitCode::from(code), "{name}");
    }
}

#[tokio::test]
async fn policy_cases() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let policy = file("policy.yaml", include_str!("../deploy/policy.example.yaml"));
    let cases = include_str!("../deploy/policy.cases.example.yaml");
    let good = file("cases.yaml", cases);
    let wrong = file("wrong.yaml", &cases.replacen("expect: deny", "expect: allow", 1));
    let broken = file("broken.yaml", "apiVersion: countersign.dev/v2");
    for (line, code) in [
        (vec!["policy", "test", "-f", &policy], 0),
        (vec!["policy", "test", "-f", &policy, "--cases", &good], 0),
        (vec!["policy", "test", "-f", &policy, "--cases", &wrong], 1),
        (vec!["policy", "test", "-f", &policy, "--cases", &policy], 64),
        (vec!["policy", "test", "-f", &broken], 64),
        (vec!["policy", "test", "-f", "missing"], 64),
        (vec!["policy", "show", "-f", &policy], 0),
    ] {
        assert_eq!(run(&line).await, ExitCode::from(code), "{line:?}");
    }
}
