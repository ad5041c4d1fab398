//! The registry adapter against a faulty registry, a real one, and a foreign client.

mod access;
mod attach;
mod copy;
mod programs;
mod tags;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use countersign::{
    model::{Digest, ImageName, ImageRef, limits},
    registry::{ManifestKind, Registry, RegistryError, Settings},
};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::fake_registry::{DockerRegistry, FakeRegistry, IMAGE_TYPE, INDEX_TYPE, Knob, OciSubject, Referrers};

const REPO: &str = "team/app";
const BUNDLE: &[u8] = br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{}}"#;
const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

fn settings(hosts: &[&str]) -> Settings {
    Settings {
        plain_http: hosts.iter().map(|&host| host.to_owned()).collect(),
        docker_config: Some(empty_docker_config()),
        ..Settings::default()
    }
}

/// A configuration without credentials, so that a developer's own plays no part.
fn empty_docker_config() -> PathBuf {
    static FILE: OnceLock<tempfile::NamedTempFile> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        file
    });
    file.path().to_owned()
}

fn client(fake: &FakeRegistry) -> Registry {
    Registry::new(settings(&[&fake.host()])).unwrap()
}

fn name(host: &str) -> ImageName {
    ImageName { registry: host.to_owned(), repository: REPO.to_owned() }
}

fn tagged(host: &str, tag: &str) -> ImageRef {
    ImageRef { name: name(host), tag: Some(tag.to_owned()), digest: None }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn in_ms(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

fn now() -> Timestamp {
    "2026-11-24T05:00:00.123Z".parse().unwrap()
}

fn bundle(number: usize) -> Vec<u8> {
    format!(r#"{{"mediaType":"{BUNDLE_TYPE}","dsseEnvelope":{{}},"number":{number}}}"#).into_bytes()
}

/// The variant's name, for tables.
fn kind(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::NotFound(_) => "NotFound",
        RegistryError::Unauthorized { .. } => "Unauthorized",
        RegistryError::Throttled { .. } => "Throttled",
        RegistryError::Unavailable { .. } => "Unavailable",
        RegistryError::Malformed { .. } => "Malformed",
        RegistryError::Deadline { .. } => "Deadline",
    }
}

fn count(fake: &FakeRegistry, part: &str) -> usize {
    fake.requests().iter().filter(|seen| seen.path.contains(part)).count()
}

#[tokio::test]
async fn a_tag_is_resolved_once_and_a_pinned_reference_not_at_all() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = client(&fake);
    let image = tagged(&fake.host(), "v1");
    assert_eq!(registry.resolve(&image, soon()).await, Ok(digest));
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(registry.resolve(&image.pinned(digest), soon()).await, Ok(digest));
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(registry.requests().get(&(fake.host(), 200)), Some(&1));
}

#[tokio::test]
async fn each_fault_has_its_error() {
    let throttle = Knob::Throttle { times: 99, retry_after: Some("120".to_owned()) };
    let cases: Vec<(&'static str, Vec<Knob>, &'static str)> = vec![
        ("throttled longer than there is time", vec![throttle], "Throttled"),
        ("throttled without Retry-After", vec![Knob::Throttle { times: 99, retry_after: None }], "Throttled"),
        ("server errors throughout", vec![Knob::ServerErrors(99)], "Unavailable"),
        ("an unknown refusal", vec![Knob::Status { code: 418, times: 99 }], "Unavailable"),
        ("forbidden", vec![Knob::Status { code: 403, times: 99 }], "Unauthorized"),
        ("silence", vec![Knob::Silent(true)], "Deadline"),
        ("slower than there is time", vec![Knob::Latency(Duration::from_mins(1))], "Deadline"),
        ("broken off", vec![Knob::Truncated(true)], "Unavailable"),
        ("endless", vec![Knob::Endless(true)], "Malformed"),
        ("oversized", vec![Knob::Oversized(true)], "Malformed"),
        ("another digest in the header", vec![Knob::WrongDigestHeader(true)], "Malformed"),
        ("wants a password", vec![Knob::Basic { user: "u".into(), password: "p".into() }], "Unauthorized"),
        (
            "wants a token and gives none",
            vec![Knob::Tokens { lifetime_seconds: 60, account: Some(("u".into(), "p".into())) }],
            "Unauthorized",
        ),
        (
            "token realm in plain HTTP elsewhere",
            vec![
                Knob::Tokens { lifetime_seconds: 60, account: None },
                Knob::Realm("http://169.254.169.254/token".to_owned()),
            ],
            "Malformed",
        ),
    ];
    let tasks: Vec<_> = cases
        .into_iter()
        .map(|(case, knobs, expected)| (case, tokio::spawn(fault_has_its_error(case, knobs, expected))))
        .collect();
    for (case, task) in tasks {
        task.await.unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

async fn fault_has_its_error(case: &'static str, knobs: Vec<Knob>, expected: &'static str) {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = client(&fake);
    // The same without the fault passes.
    assert_eq!(registry.resolve(&tagged(&fake.host(), "v1"), soon()).await, Ok(digest), "{case}");
    assert!(registry.probe(&name(&fake.host()), &digest, soon()).await.is_ok(), "{case}");
    for knob in knobs {
        fake.set(knob);
    }
    let error = registry.resolve(&tagged(&fake.host(), "v1"), in_ms(2_000)).await.unwrap_err();
    assert_eq!(kind(&error), expected, "{case}: {error}");
    assert!(!error.is_definite(), "{case}: {error}");
    let error = registry.probe(&name(&fake.host()), &digest, in_ms(2_000)).await.unwrap_err();
    assert!(!error.is_definite(), "probing, {case}: {error}");
}

#[tokio::test]
async fn what_is_not_there_is_the_only_definite_no() {
    let fake = FakeRegistry::start().await;
    let registry = client(&fake);
    let error = registry.resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap_err();
    assert_eq!(error, RegistryError::NotFound(format!("{}/{REPO}:v1", fake.host())));
    assert!(error.is_definite());
    let error = registry.manifest(&name(&fake.host()), &Digest::of(b"?"), soon()).await.unwrap_err();
    assert!(error.is_definite());
    assert_eq!(fake.requests().len(), 2, "a verdict is never asked for twice");
    fake.stop();
    let error = registry.resolve(&tagged(&fake.host(), "v1"), in_ms(1_500)).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable");
}

#[tokio::test]
async fn manifests_that_are_not_what_they_say_are_refused() {
    let fake = FakeRegistry::start().await;
    let registry = client(&fake);
    let config = json!({"digest": Digest::of(b"c"), "size": 1, "mediaType": "x"});
    let many: Vec<Value> = (0..=limits::IMAGE_PARTS).map(|_| config.clone()).collect();
    let deep = format!("{}{}", "[".repeat(limits::JSON_DEPTH + 1), "]".repeat(limits::JSON_DEPTH + 1));
    let cases: Vec<(&str, &str, String, Option<&str>)> = vec![
        (
            "an image",
            IMAGE_TYPE,
            json!({"schemaVersion": 2, "mediaType": IMAGE_TYPE, "config": config, "layers": []}).to_string(),
            None,
        ),
        (
            "both at once",
            IMAGE_TYPE,
            json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}).to_string(),
            Some("image and an index at once"),
        ),
        ("neither", IMAGE_TYPE, json!({"schemaVersion": 2}).to_string(), Some("neither")),
        (
            "an index that says image",
            IMAGE_TYPE,
            json!({"schemaVersion": 2, "mediaType": IMAGE_TYPE, "manifests": []}).to_string(),
            Some("not what its media type says"),
        ),
        ("schema 1", IMAGE_TYPE, json!({"schemaVersion": 1, "config": config}).to_string(), Some("schema version 2")),
        ("not JSON", IMAGE_TYPE, "<html>".to_owned(), Some("not a manifest")),
        ("nested", IMAGE_TYPE, deep, Some("nested too deeply")),
        (
            "too many layers",
            IMAGE_TYPE,
            json!({"schemaVersion": 2, "config": config, "layers": many}).to_string(),
            Some("layers (at most"),
        ),
        (
            "sha512",
            INDEX_TYPE,
            json!({"schemaVersion": 2, "manifests": [{"digest": "sha512:00", "size": 1}]}).to_string(),
            Some("algorithm must be sha256"),
        ),
    ];
    for (case, media_type, text, problem) in cases {
        let digest = fake.put_manifest(REPO, None, media_type, text.as_bytes());
        let result = registry.manifest(&name(&fake.host()), &digest, soon()).await;
        match problem {
            None => assert!(result.is_ok(), "{case}: {result:?}"),
            Some(problem) => {
                let error = result.unwrap_err();
                assert_eq!(kind(&error), "Malformed", "{case}");
                assert!(error.to_string().contains(problem), "{case}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn a_digest_that_changes_between_requests_is_refused() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = client(&fake);
    fake.set(Knob::Shifting(true));
    let first = registry.resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap();
    assert_ne!(first, digest);
    for asked in [first, digest] {
        let error = registry.manifest(&name(&fake.host()), &asked, soon()).await.unwrap_err();
        assert_eq!(kind(&error), "Malformed", "{error}");
    }
}

#[tokio::test]
async fn retries_end_when_the_registry_recovers() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    for (knob, asked) in [
        (Knob::ServerErrors(2), 3),
        (Knob::Throttle { times: 2, retry_after: Some("0".to_owned()) }, 3),
        (Knob::Throttle { times: 1, retry_after: Some("Fri, 31 Dec 1999 23:59:59 GMT".to_owned()) }, 2),
    ] {
        let registry = client(&fake);
        fake.clear_requests();
        fake.set(knob.clone());
        assert_eq!(registry.resolve(&tagged(&fake.host(), "v1"), soon()).await, Ok(digest), "{knob:?}");
        assert_eq!(fake.requests().len(), asked, "{knob:?}");
    }
}

#[tokio::test]
async fn retry_after_is_told_and_nobody_else_asks_meanwhile() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = client(&fake);
    fake.set(Knob::Throttle { times: 1, retry_after: Some("30".to_owned()) });
    let error = registry.resolve(&tagged(&fake.host(), "v1"), in_ms(2_000)).await.unwrap_err();
    let expected = Some(Duration::from_secs(30));
    assert_eq!(error, RegistryError::Throttled { registry: fake.host(), retry_after: expected });
    assert_eq!(fake.requests().len(), 1);
    let error = registry.manifest(&name(&fake.host()), &digest, in_ms(2_000)).await.unwrap_err();
    assert_eq!(kind(&error), "Throttled");
    assert_eq!(fake.requests().len(), 1, "the pause holds for every question to this registry");
}

#[tokio::test]
async fn retry_after_may_be_a_date() {
    let fake = FakeRegistry::start().await;
    fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Throttle { times: 1, retry_after: Some("Fri, 01 Jan 2100 00:00:00 GMT".to_owned()) });
    let error = client(&fake).resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap_err();
    let RegistryError::Throttled { retry_after: Some(wait), .. } = error else { panic!("{error}") };
    assert!(wait > Duration::from_hours(365 * 24), "{wait:?}");
    assert_eq!(fake.requests().len(), 1);
}

#[tokio::test]
async fn a_failing_registry_is_left_alone_and_then_tried_again() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let pause = Duration::from_millis(300);
    let settings = Settings { breaker_failures: 3, breaker_pause_ms: 300, attempts: 1, ..settings(&[&fake.host()]) };
    let registry = Registry::new(settings).unwrap();
    fake.set(Knob::ServerErrors(3));
    for _ in 0..3 {
        assert!(registry.resolve(&tagged(&fake.host(), "v1"), soon()).await.is_err());
    }
    assert_eq!(registry.open_breakers(), [fake.host()]);
    let error = registry.resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap_err();
    assert!(error.to_string().contains("failed 3 times in a row"), "{error}");
    assert_eq!(fake.requests().len(), 3);
    tokio::time::sleep(pause).await;
    assert_eq!(registry.resolve(&tagged(&fake.host(), "v1"), soon()).await, Ok(digest));
    assert!(registry.open_breakers().is_empty());
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = Registry::new(Settings { concurrency: 1, ..settings(&[&fake.host()]) }).unwrap();
    fake.set(Knob::Silent(true));
    let first = tokio::spawn({
        let (registry, image) = (registry.clone(), tagged(&fake.host(), "v1"));
        async move { registry.resolve(&image, in_ms(60_000)).await }
    });
    while fake.requests().is_empty() {
        tokio::task::yield_now().await;
    }
    fake.set(Knob::Silent(false));
    let error = registry.manifest(&name(&fake.host()), &digest, in_ms(200)).await.unwrap_err();
    assert_eq!(kind(&error), "Deadline");
    assert_eq!(fake.requests().len(), 1, "the second one never left");
    first.abort();
    assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
}

#[tokio::test]
async fn a_probe_names_what_is_gone() {
    let fake = FakeRegistry::start().await;
    let (registry, image) = (client(&fake), name(&fake.host()));
    let amd = fake.push_image(REPO, "amd", &[b"shared", b"amd"]);
    let arm = fake.push_image(REPO, "arm", &[b"shared", b"arm"]);
    let attestation = fake.push_image(REPO, "att", &[b"attestation"]);
    let index =
        fake.push_index(REPO, "v1", &[("linux/amd64", amd), ("linux/arm64", arm), ("unknown/unknown", attestation)]);
    fake.delete_manifest(REPO, &attestation);
    let whole = registry.probe(&image, &index, soon()).await.unwrap();
    assert_eq!(whole.platforms, ["linux/amd64", "linux/arm64"]);
    assert_eq!((whole.blobs, whole.missing), (5, vec![]));
    let ManifestKind::Index { platforms } = registry.manifest(&image, &index, soon()).await.unwrap().kind else {
        panic!("not an index");
    };
    assert_eq!(platforms, [("linux/amd64".to_owned(), amd), ("linux/arm64".to_owned(), arm)]);

    assert!(fake.delete_blob(REPO, &Digest::of(b"arm")));
    let probe = registry.probe(&image, &index, soon()).await.unwrap();
    assert_eq!(probe.missing, [format!("layer {} (linux/arm64)", Digest::of(b"arm"))]);
    assert!(registry.probe(&image, &amd, soon()).await.unwrap().missing.is_empty());
    fake.delete_manifest(REPO, &amd);
    let probe = registry.probe(&image, &index, soon()).await.unwrap();
    assert_eq!(probe.missing[0], format!("manifest {amd} (linux/amd64)"));
    fake.delete_manifest(REPO, &index);
    let probe = registry.probe(&image, &index, soon()).await.unwrap();
    assert_eq!(probe.missing, [format!("manifest {index}")]);
    fake.set(Knob::Silent(true));
    assert_eq!(kind(&registry.probe(&image, &arm, in_ms(300)).await.unwrap_err()), "Deadline");
}

#[tokio::test]
async fn a_probe_knows_foreign_layers_wrong_sizes_and_nesting() {
    let fake = FakeRegistry::start().await;
    let (registry, image) = (client(&fake), name(&fake.host()));
    let blob = fake.put_blob(REPO, b"12345");
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let windows = json!({
        "schemaVersion": 2, "mediaType": docker,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": blob, "size": 5},
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": Digest::of(b"elsewhere"), "size": 9, "urls": ["https://example.com/layer"],
        }],
    });
    let digest = fake.put_manifest(REPO, None, docker, windows.to_string().as_bytes());
    let probe = registry.probe(&image, &digest, soon()).await.unwrap();
    assert_eq!((probe.blobs, probe.missing), (1, vec![]));

    let mut short = windows.clone();
    short["config"]["size"] = json!(6);
    let short = fake.put_manifest(REPO, None, docker, short.to_string().as_bytes());
    let probe = registry.probe(&image, &short, soon()).await.unwrap();
    assert_eq!(probe.missing, [format!("config {blob}: 5 bytes instead of 6")]);

    let wrap = |inner: &Digest| {
        let index = json!({"schemaVersion": 2, "mediaType": list, "manifests": [
            {"mediaType": list, "digest": inner, "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
        ]});
        fake.put_manifest(REPO, None, list, index.to_string().as_bytes())
    };
    let mut outer = digest;
    for depth in 1..=3 {
        outer = wrap(&outer);
        let probe = registry.probe(&image, &outer, soon()).await.unwrap();
        assert_eq!(probe.platforms, vec!["linux/arm/v7"; depth]);
    }
    let error = registry.probe(&image, &wrap(&outer), soon()).await.unwrap_err();
    assert!(error.to_string().contains("more than 3 deep"), "{error}");
}

#[tokio::test]
async fn names_that_would_lead_elsewhere_are_refused() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let registry = client(&fake);
    assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
    fake.clear_requests();
    for repository in ["", "../../token", "team/../app", "team//app", "app?x=", "app#x", "app%2e"] {
        let name = ImageName { registry: fake.host(), repository: repository.to_owned() };
        let error = registry.manifest(&name, &digest, soon()).await.unwrap_err();
        assert_eq!(kind(&error), "Malformed", "{repository}");
    }
    for host in ["", "user@example.com", "example.com/x", "a b"] {
        let error = registry.manifest(&name(host), &digest, soon()).await.unwrap_err();
        assert_eq!(kind(&error), "Malformed", "{host}");
    }
    let error = registry.resolve(&tagged(&fake.host(), "../blobs/x"), soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed");
    assert!(fake.requests().is_empty());
    // Not listed in plain_http: spoken to by TLS, loopback or not, which the fake does not speak.
    let strict = Registry::new(Settings { attempts: 1, ..settings(&[]) }).unwrap();
    let error = strict.manifest(&name(&fake.host()), &digest, soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable", "{error}");
    assert!(fake.requests().is_empty());
}
