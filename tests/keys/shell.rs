//! `countersign init` and `countersign trust`, through their arguments.

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
    assert_eq!(fs::read_to_string(data.join("trusted_root.json")).unwrap(), *keys.trusted_root());
    let settings: toml::Table = toml::from_str(&fs::read_to_string(data.join("countersign.toml")).unwrap()).unwrap();
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
