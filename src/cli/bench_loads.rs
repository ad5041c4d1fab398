//! The loads of `countersign bench`, one function per capability. See [`super::bench`] for how they are driven.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;

use super::{
    Global,
    bench::{Args, Load, Measured, Run, Subject, drive},
    bench_log, client,
};
use crate::{
    grpc::v1,
    keys::{EphemeralKey, Kek, Keyring},
    log::{Draft, Log},
    model::{Digest, Identity, Statement, Subject as Named, TrustedRoot, bundle, leaf, predicate, verify},
};

pub(super) async fn run(args: &Args, global: &Global) -> anyhow::Result<Measured> {
    let runs = match args.subject {
        Subject::Sign => sign(args, global).await,
        Subject::Log => return bench_log::run(args).await,
        Subject::Fill => return bench_log::fill(args).await,
        Subject::Weigh => return bench_log::weigh(args),
        Subject::Verify => offline(args).await,
        Subject::Admission => admission(args, global).await,
        Subject::Rollback => rollback(args, global).await,
    };
    Ok(runs?.into())
}

pub(super) fn saturation(args: &Args, callers: usize) -> Load {
    let time = Duration::from_secs(args.seconds);
    Load { label: format!("saturation, {callers} callers"), callers, rate: None, time }
}

/// An open loop at half of what saturation reached.
pub(super) fn half(args: &Args, of: &Run, callers: usize) -> Load {
    let rate = of.throughput_per_s / 2.0;
    let time = Duration::from_secs(args.seconds);
    Load { label: format!("open loop, {rate:.0}/s"), callers, rate: Some(rate), time }
}

/// The number of fsyncs so far, from the operations listener; 0 where it is not given.
fn fsyncs_of(args: &Args) -> impl Fn() -> u64 + use<> {
    let operations = args.operations.clone();
    move || operations.as_deref().and_then(scrape).unwrap_or(0)
}

fn scrape(address: &str) -> Option<u64> {
    use std::io::{Read, Write};
    let address = address.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find(|line| line.starts_with("countersign_log_fsyncs"))?;
    line.rsplit_once(' ')?.1.trim().parse::<f64>().ok().map(|count| {
        #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = count as u64;
        count
    })
}

async fn sign(args: &Args, global: &Global) -> anyhow::Result<Vec<Run>> {
    // A few connections, as build systems would have; one HTTP/2 connection serialises its frames.
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(v1::signing_service_client::SigningServiceClient::new(client::connect(global).await?));
    }
    let clients = Arc::new(clients);
    let salt = Timestamp::now().as_nanosecond();
    let call = move |number: u64| {
        let clients = Arc::clone(&clients);
        async move {
            let digest = Digest::of(format!("{salt}-{number}").as_bytes());
            let request = v1::SignRequest {
                subjects: vec![v1::Subject { name: String::new(), digest: digest.to_string() }],
                kind: v1::ArtifactKind::Image.into(),
                attach: false,
                key: String::new(),
            };
            let at = usize::try_from(number).unwrap_or(0) % clients.len();
            let mut client = clients.get(at).cloned().context("no client")?;
            client.sign(request).await.map_err(client::explain)?;
            Ok(())
        }
    };
    let fsyncs = fsyncs_of(args);
    let mut runs = Vec::new();
    for callers in [1, 16, 64, 256] {
        runs.push(drive(&saturation(args, callers), &fsyncs, call.clone()).await?);
    }
    let best = runs.last().cloned().context("no run")?;
    runs.push(drive(&half(args, &best, 256), &fsyncs, call).await?);
    Ok(runs)
}

async fn offline(args: &Args) -> anyhow::Result<Vec<Run>> {
    let scratch = Scratch::new(&args.out)?;
    let keyring = Arc::new(scratch.keyring()?);
    let key = keyring.log_key();
    let path = scratch.0.join("log");
    Log::create(&path, keyring.host(), key.public_key(), |message| key.sign(message))?;
    let public = key.public_key();
    let log = Log::open(&path, public, move |message| key.sign(message), crate::log::Options::default())?;
    let digest = Digest::of(b"bench");
    let signed = signed_bundle(&keyring, &log, digest).await?;
    let root = Arc::new(TrustedRoot::parse(&keyring.trusted_root())?);
    let signed = Arc::new(signed);
    let call = move |_number: u64| {
        let (root, signed) = (Arc::clone(&root), Arc::clone(&signed));
        async move {
            verify::verify(&signed, &digest, &root)?;
            Ok(())
        }
    };
    let mut load = saturation(args, 1);
    load.label = "cold, one core".to_owned();
    let runs = vec![drive(&load, || 0, call).await?];
    log.close();
    Ok(runs)
}

async fn signed_bundle(keyring: &Keyring, log: &Log, digest: Digest) -> anyhow::Result<Vec<u8>> {
    let now = Timestamp::now();
    let statement =
        Statement::new(vec![Named { name: String::new(), digest }], predicate::SIGN, serde_json::json!({}))?.to_json();
    let identity = Identity { subject: "spiffe://bench/ci".to_owned(), issuer: "https://bench.test".to_owned() };
    let key = EphemeralKey::generate()?;
    let certificate = keyring.issue(&identity, &key.spki(), now)?;
    let pae = Digest::of(&bundle::pae(&statement));
    let signature = key.sign_digest(pae.as_bytes())?;
    let timestamp = keyring.timestamp(&signature, now)?;
    let body = leaf::hashedrekord(&pae, &signature, &certificate);
    let unlogged = bundle::of_statement(statement, signature, certificate, timestamp);
    let receipts = log.append(vec![Draft { leaf: body.clone(), payload: bundle::to_json(&unlogged)? }]).await?;
    let receipt = receipts.first().context("no receipt")?;
    Ok(log.complete(unlogged, body, receipt)?)
}

async fn admission(args: &Args, global: &Global) -> anyhow::Result<Vec<Run>> {
    let webhook = args.webhook.clone().context("give the webhook's URL with --webhook")?;
    let image = args.image.clone().context("give a signed image with --image")?;
    let ca = std::fs::read(global.ca_file.as_ref().context("give the webhook's authority with --ca-file")?)?;
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca)?])
        .http1_only()
        .pool_max_idle_per_host(256)
        .build()?;
    let body = serde_json::json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": { "uid": "bench", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "operation": "CREATE",
            "namespace": "production", "name": "bench", "dryRun": true, "userInfo": {"username": "bench"},
            "object": { "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bench", "namespace": "production"},
                "spec": {"containers": [{"name": "app", "image": image}]}}}})
    .to_string();
    let call = move |_number: u64| {
        let request = http
            .post(format!("{webhook}/validate?timeout=10s"))
            .header("content-type", "application/json")
            .body(body.clone());
        async move {
            let answer: serde_json::Value = request.send().await?.json().await?;
            anyhow::ensure!(answer.pointer("/response/allowed") == Some(&true.into()), "not admitted: {answer}");
            Ok(())
        }
    };
    let mut runs = Vec::new();
    for callers in [1, 16, 64] {
        runs.push(drive(&saturation(args, callers), || 0, call.clone()).await?);
    }
    let time = Duration::from_secs(args.seconds);
    let load = Load { label: "warm, open loop, 1000/s".to_owned(), callers: 64, rate: Some(1_000.0), time };
    runs.push(drive(&load, || 0, call).await?);
    Ok(runs)
}

async fn rollback(args: &Args, global: &Global) -> anyhow::Result<Vec<Run>> {
    let service = args.service.clone().context("give SERVICE@ENVIRONMENT with --service")?;
    let (service, environment) = service.split_once('@').context("--service is SERVICE@ENVIRONMENT")?;
    let (service, environment) = (service.to_owned(), environment.to_owned());
    let client = v1::rollback_service_client::RollbackServiceClient::new(client::connect(global).await?);
    let call = move |fresh: bool| {
        let request = v1::CheckRollbackRequest {
            service: service.clone(),
            environment: environment.clone(),
            fresh,
            ..Default::default()
        };
        let mut client = client.clone();
        async move {
            client.check_rollback(request).await.map_err(client::explain)?;
            Ok(())
        }
    };
    let cold = Load {
        label: "cold registry, 1 caller".to_owned(),
        callers: 1,
        rate: None,
        time: Duration::from_secs(args.seconds),
    };
    let warm = Load { label: "warm, open loop, 20/s".to_owned(), callers: 16, rate: Some(20.0), ..cold.clone() };
    let fsyncs = fsyncs_of(args);
    let warm_call = call.clone();
    Ok(vec![
        drive(&cold, &fsyncs, move |_number| call(true)).await?,
        drive(&warm, &fsyncs, move |_number| warm_call(false)).await?,
    ])
}

/// A directory of our own, removed at the end; on the same file system as the results, so that its disk is measured.
pub(super) struct Scratch(pub std::path::PathBuf);

impl Scratch {
    pub(super) fn new(beside: &std::path::Path) -> anyhow::Result<Self> {
        let path = beside.join(format!("scratch-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(super) fn keyring(&self) -> anyhow::Result<Keyring> {
        let kek = Kek::generate_to_file(&self.0.join("kek"))?;
        let data = self.0.join("data");
        Keyring::create(&data, &kek, "bench.test", Timestamp::now())?;
        Ok(Keyring::open(&data, &kek)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "scratch directory was not removed");
        }
    }
}
