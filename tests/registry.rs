//! The registry adapter against a faulty registry, a real one, and a foreign client.

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

fn docker_config(dir: &Path, auths: &Value) -> PathBuf {
    let path = dir.join("config.json");
    std::fs::write(&path, json!({"auths": auths}).to_string()).unwrap();
    path
}

#[tokio::test]
async fn tokens_are_fetched_once_kept_and_renewed() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let dir = tempfile::tempdir().unwrap();
    let auths = json!({fake.host(): {"auth": "dTpw"}});
    let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&fake.host()]) };
    let registry = Registry::new(settings).unwrap();
    fake.set(Knob::Tokens { lifetime_seconds: 300, account: Some(("u".into(), "p".into())) });
    let host = fake.host();
    let many = (0..20).map(|_| {
        let (registry, name) = (registry.clone(), name(&host));
        tokio::spawn(async move { registry.manifest(&name, &digest, soon()).await })
    });
    for task in many.collect::<Vec<_>>() {
        assert!(task.await.unwrap().is_ok());
    }
    assert_eq!(count(&fake, "/token"), 1, "one fetch for all");
    assert!(fake.requests().iter().any(|seen| seen.path.contains("scope=repository%3Ateam%2Fapp%3Apull")));
    fake.set(Knob::ExpireTokens);
    assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
    assert_eq!(count(&fake, "/token"), 2, "a refused token is replaced");
    fake.set(Knob::Tokens { lifetime_seconds: 0, account: Some(("u".into(), "p".into())) });
    fake.set(Knob::ExpireTokens);
    for _ in 0..2 {
        assert!(registry.manifest(&name(&fake.host()), &digest, soon()).await.is_ok());
    }
    assert_eq!(count(&fake, "/token"), 4, "a token that has run out is not used");
}

#[tokio::test]
async fn credentials_are_found_by_host_and_longest_prefix() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Basic { user: "u".into(), password: "p".into() });
    let (host, dir) = (fake.host(), tempfile::tempdir().unwrap());
    let wrong = json!({"username": "u", "password": "other"});
    let cases = [
        ("host", json!({&host: {"auth": "dTpw"}}), true),
        ("address", json!({format!("https://{host}/v2/"): {"auth": "dTpw"}}), true),
        ("user and password", json!({&host: {"username": "u", "password": "p"}}), true),
        ("the longer prefix wins", json!({&host: wrong, format!("{host}/team"): {"auth": "dTpw"}}), true),
        ("the shorter one loses", json!({&host: {"auth": "dTpw"}, format!("{host}/team"): wrong}), false),
        ("a prefix ends at a slash", json!({&host: wrong, format!("{host}/te"): {"auth": "dTpw"}}), false),
        ("another host", json!({"registry.example.com": {"auth": "dTpw"}}), false),
        ("wrong password", json!({&host: wrong}), false),
    ];
    for (case, auths, passes) in cases {
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&host]) };
        let registry = Registry::new(settings).unwrap();
        let result = registry.manifest(&name(&host), &digest, soon()).await;
        assert_eq!(result.is_ok(), passes, "{case}: {result:?}");
        if let Err(error) = result {
            assert_eq!(kind(&error), "Unauthorized", "{case}");
            assert!(!error.to_string().contains("other"), "no secret in {error}");
        }
    }
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let fake = FakeRegistry::start().await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    fake.set(Knob::Tokens { lifetime_seconds: 60, account: None });
    fake.set(Knob::IdentityToken("right".to_owned()));
    let dir = tempfile::tempdir().unwrap();
    for (token, passes) in [("right", true), ("wrong", false)] {
        let auths = json!({fake.host(): {"identitytoken": token}});
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(&[&fake.host()]) };
        let result = Registry::new(settings).unwrap().manifest(&name(&fake.host()), &digest, soon()).await;
        assert_eq!(result.is_ok(), passes, "{result:?}");
    }
}

#[test]
fn settings_have_defaults_and_know_no_other_fields() {
    let parse = |text: &str| toml::from_str::<Settings>(text);
    assert_eq!(parse("").unwrap(), Settings::default());
    assert_eq!(parse("plain_http = ['localhost:5000']").unwrap().plain_http, ["localhost:5000"]);
    assert!(parse("insecure = true").unwrap_err().to_string().contains("unknown field"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, text) = (dir.path().join("gone"), dir.path().join("text"));
    std::fs::write(&text, "hello").unwrap();
    for settings in [
        Settings { docker_config: Some(gone.clone()), ..Settings::default() },
        Settings { docker_config: Some(text.clone()), ..Settings::default() },
        Settings { ca_file: Some(gone), ..Settings::default() },
        Settings { ca_file: Some(text), ..Settings::default() },
    ] {
        let error = Registry::new(settings).unwrap_err().to_string();
        assert!(error.contains("(settings)") && error.contains(&dir.path().display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeRegistry::start_tls(dir.path()).await;
    let digest = fake.push_image(REPO, "v1", &[b"layer"]);
    let trusting = Settings { ca_file: Some(dir.path().join("cert.pem")), ..settings(&[]) };
    let result = Registry::new(trusting).unwrap().resolve(&tagged(&fake.host(), "v1"), soon()).await;
    assert_eq!(result, Ok(digest));
    let stranger = Registry::new(Settings { attempts: 1, ..settings(&[]) }).unwrap();
    let error = stranger.resolve(&tagged(&fake.host(), "v1"), soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable", "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn redirects_lose_the_credentials_and_never_end_in_plain_http_elsewhere() {
    let (fake, other) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    other.put_blob(REPO, BUNDLE);
    let auths = json!({fake.host(): {"auth": "dTpw"}});
    let with_auth = |hosts: &[&str]| {
        let settings = Settings { docker_config: Some(docker_config(dir.path(), &auths)), ..settings(hosts) };
        Registry::new(settings).unwrap()
    };
    let registry = with_auth(&[&fake.host(), &other.host()]);
    fake.set(Knob::Basic { user: "u".into(), password: "p".into() });
    let image = name(&fake.host());
    registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    fake.clear_requests();
    fake.set(Knob::RedirectBlobs(Some(other.host())));
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE]);
    let arrived = other.requests();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].authorization, None, "the credentials stay with their registry");
    let left = fake.requests().into_iter().find(|seen| seen.status == 307).unwrap();
    assert!(left.authorization.is_some(), "they were sent to it");
    // The same, with the second host not listed.
    let strict = with_auth(&[&fake.host()]);
    let error = strict.bundles(&image, &subject, soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed", "{error}");
    assert_eq!(other.requests().len(), 1);
}

#[tokio::test]
async fn bundles_come_back_in_every_mode_of_registry() {
    let modes = [
        (Referrers::Native, OciSubject::Honest, false),
        (Referrers::Paged(1), OciSubject::Honest, false),
        (Referrers::Unfiltered, OciSubject::Honest, false),
        (Referrers::WrongArtifactType, OciSubject::Absent, true),
        (Referrers::Missing, OciSubject::Honest, true),
        (Referrers::Missing, OciSubject::Always, true),
        (Referrers::NotAllowed, OciSubject::Honest, true),
        (Referrers::NotAnIndex, OciSubject::Honest, true),
        (Referrers::AlwaysEmpty, OciSubject::Honest, true),
    ];
    for (referrers, oci_subject, tag_expected) in modes {
        let fake = FakeRegistry::start().await;
        fake.set(Knob::Referrers(referrers));
        fake.set(Knob::OciSubject(oci_subject));
        let case = format!("{referrers:?}, {oci_subject:?}");
        let subject = fake.push_image(REPO, "v1", &[b"layer"]);
        let image = name(&fake.host());
        push_sbom(&fake, &subject);
        let registry = client(&fake);
        assert!(registry.bundles(&image, &subject, soon()).await.unwrap().is_empty(), "{case}");
        for number in 0..3 {
            registry.attach(&image, &subject, &bundle(number), SIGN, now(), soon()).await.unwrap();
        }
        let mut found = registry.bundles(&image, &subject, soon()).await.unwrap();
        found.sort();
        assert_eq!(found, [bundle(0), bundle(1), bundle(2)], "{case}");
        let tag = format!("sha256-{}", subject.hex());
        assert_eq!(fake.manifest(REPO, &tag).is_some(), tag_expected, "{case}");
        let none = registry.bundles(&image, &Digest::of(b"another"), soon()).await.unwrap();
        assert!(none.is_empty(), "{case}");
    }
}

/// A referrer that is no bundle.
fn push_sbom(fake: &FakeRegistry, subject: &Digest) -> Digest {
    let blob = fake.put_blob(REPO, b"{}");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE_TYPE, "artifactType": "application/spdx+json",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": blob, "size": 2},
        "layers": [{"mediaType": "application/spdx+json", "digest": blob, "size": 2}],
        "subject": {"mediaType": IMAGE_TYPE, "digest": subject, "size": 2},
    });
    fake.put_manifest(REPO, None, IMAGE_TYPE, manifest.to_string().as_bytes())
}

#[tokio::test]
async fn attach_writes_what_cosign_writes() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    let digest = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    let manifest: Value = serde_json::from_slice(&fake.manifest(REPO, &digest.to_string()).unwrap()).unwrap();
    let annotations = json!({
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": SIGN,
        "org.opencontainers.image.created": "2026-11-24T05:00:00Z",
    });
    let subject_size = fake.manifest(REPO, "v1").unwrap().len();
    let expected = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_TYPE,
        "artifactType": BUNDLE_TYPE,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{"mediaType": BUNDLE_TYPE, "digest": Digest::of(BUNDLE), "size": BUNDLE.len()}],
        "annotations": annotations,
        "subject": {"mediaType": IMAGE_TYPE, "digest": subject, "size": subject_size},
    });
    assert_eq!(manifest, expected);
    let tag = format!("sha256-{}", subject.hex());
    let index: Value = serde_json::from_slice(&fake.manifest(REPO, &tag).unwrap()).unwrap();
    let entry = json!({
        "mediaType": IMAGE_TYPE, "digest": digest, "size": manifest.to_string().len(),
        "artifactType": BUNDLE_TYPE, "annotations": annotations,
    });
    assert_eq!(index, json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}));
    // The same again changes nothing and uploads nothing.
    fake.clear_requests();
    assert_eq!(registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await, Ok(digest));
    assert!(!fake.requests().iter().any(|seen| seen.method == Method::POST));
    assert_eq!(fake.manifest(REPO, &tag).unwrap(), index.to_string().into_bytes());
}

#[tokio::test]
async fn attach_refuses_what_it_cannot_finish() {
    let fake = FakeRegistry::start().await;
    let (registry, image) = (client(&fake), name(&fake.host()));
    let error = registry.attach(&image, &Digest::of(b"?"), BUNDLE, SIGN, now(), soon()).await.unwrap_err();
    assert_eq!(kind(&error), "NotFound", "no subject");
    assert!(!fake.requests().iter().any(|seen| seen.method != Method::GET), "nothing was written");
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let large = vec![b' '; limits::BUNDLE + 1];
    let error = registry.attach(&image, &subject, &large, SIGN, now(), soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed", "too large");
    fake.set(Knob::Referrers(Referrers::Missing));
    let tag = format!("sha256-{}", subject.hex());
    fake.tag(REPO, &tag, &subject);
    let error = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap_err();
    assert!(error.to_string().contains("is not an index"), "{error}");
    let error = registry.bundles(&image, &subject, soon()).await.unwrap_err();
    assert!(error.to_string().contains("is not an index"), "{error}");
}

#[tokio::test]
async fn concurrent_attaches_on_the_fallback_tag_lose_nothing() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    fake.set(Knob::Latency(Duration::from_millis(2)));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, host) = (client(&fake), fake.host());
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let (registry, image) = (registry.clone(), name(&host));
            tokio::spawn(async move {
                registry.attach(&image, &subject, &bundle(number), SIGN, now(), soon()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut found = registry.bundles(&name(&host), &subject, soon()).await.unwrap();
    found.sort();
    let mut expected: Vec<_> = (0..16).map(bundle).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_lost_update_of_the_fallback_tag_is_noticed_and_repeated() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    fake.set(Knob::LoseTagWrites(2));
    registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE]);
    for late in [0, 1] {
        fake.set(Knob::UndoTagWriteAfter(late));
        registry.attach(&image, &subject, &bundle(7 + late), SIGN, now(), soon()).await.unwrap();
        assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap().len(), 2 + late, "undone after {late}");
    }
    fake.set(Knob::LoseTagWrites(99));
    let error = registry.attach(&image, &subject, &bundle(1), SIGN, now(), in_ms(1_000)).await.unwrap_err();
    assert_eq!(kind(&error), "Deadline", "a bundle that nobody can find was not attached: {error}");
}

#[tokio::test]
async fn listings_without_end_are_cut_off() {
    let fake = FakeRegistry::start().await;
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    fake.set(Knob::Referrers(Referrers::PagedForever));
    let error = registry.bundles(&image, &subject, soon()).await.unwrap_err();
    assert!(error.to_string().contains("pages of referrers"), "{error}");
    assert_eq!(fake.requests().len(), limits::REFERRER_PAGES);
    for number in 0..=limits::REFERRERS {
        let manifest = json!({"schemaVersion": 2, "config": {"digest": Digest::of(b"{}")}, "layers": [],
            "subject": {"digest": subject}, "annotations": {"n": number.to_string()}});
        fake.put_manifest(REPO, None, IMAGE_TYPE, manifest.to_string().as_bytes());
    }
    fake.set(Knob::Referrers(Referrers::Native));
    let error = registry.bundles(&image, &subject, soon()).await.unwrap_err();
    assert!(error.to_string().contains("referrers"), "{error}");
    assert_eq!(kind(&error), "Malformed");
}

#[tokio::test]
async fn unusable_referrers_are_passed_over_and_wrong_bytes_are_not() {
    let fake = FakeRegistry::start().await;
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    let lost = registry.attach(&image, &subject, &bundle(1), SIGN, now(), soon()).await.unwrap();
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap().len(), 2);
    assert!(fake.delete_blob(REPO, &Digest::of(&bundle(1))));
    let huge = json!({
        "schemaVersion": 2, "artifactType": BUNDLE_TYPE, "config": {"digest": Digest::of(b"{}")},
        "layers": [{"mediaType": BUNDLE_TYPE, "digest": Digest::of(b"huge"), "size": limits::BUNDLE + 1}],
        "subject": {"digest": subject},
    });
    fake.put_manifest(REPO, None, IMAGE_TYPE, huge.to_string().as_bytes());
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE], "{lost}");
    fake.set(Knob::Truncated(true));
    assert!(registry.bundles(&image, &subject, in_ms(1_000)).await.is_err());
    fake.set(Knob::Truncated(false));
    fake.set(Knob::Endless(true));
    let error = client(&fake).bundles(&image, &subject, soon()).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed");
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

#[tokio::test]
async fn a_foreign_client_finds_what_we_attached() {
    for referrers in [Referrers::Native, Referrers::Missing] {
        let fake = FakeRegistry::start().await;
        fake.set(Knob::Referrers(referrers));
        let subject = fake.push_image(REPO, "v1", &[b"layer"]);
        let attached = client(&fake).attach(&name(&fake.host()), &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
        foreign_client_reads(&fake.host(), &subject, &attached).await;
    }
}

async fn foreign_client_reads(host: &str, subject: &Digest, attached: &Digest) {
    let config =
        oci_client::client::ClientConfig { protocol: oci_client::client::ClientProtocol::Http, ..Default::default() };
    let foreign = oci_client::Client::new(config);
    let image = format!("{host}/{REPO}@{subject}").parse().unwrap();
    let index = foreign.pull_referrers(&image, Some(BUNDLE_TYPE)).await.unwrap();
    assert_eq!(index.manifests.len(), 1);
    assert_eq!(index.manifests[0].digest, attached.to_string());
    let artifact = format!("{host}/{REPO}@{attached}").parse().unwrap();
    let pulled =
        foreign.pull(&artifact, &oci_client::secrets::RegistryAuth::Anonymous, vec![BUNDLE_TYPE]).await.unwrap();
    assert_eq!(pulled.layers[0].data, BUNDLE);
}

#[tokio::test]
async fn the_whole_way_on_a_real_registry() {
    let Some(mut real) = DockerRegistry::start().await else { return };
    let subject = real.push_image(REPO, "v1", &[b"one", b"two"]).await;
    let (host, image) = (real.host(), name(&real.host()));
    let registry = Registry::new(settings(&[&host])).unwrap();
    assert_eq!(registry.resolve(&tagged(&host, "v1"), soon()).await, Ok(subject));
    assert!(registry.bundles(&image, &subject, soon()).await.unwrap().is_empty());
    let attached = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE]);
    foreign_client_reads(&host, &subject, &attached).await;

    let tasks: Vec<_> = (0..4)
        .map(|number| {
            let (registry, image) = (registry.clone(), image.clone());
            tokio::spawn(async move {
                registry.attach(&image, &subject, &bundle(number), SIGN, now(), soon()).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap().len(), 5);

    let whole = registry.probe(&image, &subject, soon()).await.unwrap();
    assert_eq!((whole.blobs, whole.missing), (3, vec![]));
    real.delete_blob(REPO, &Digest::of(b"two")).await;
    let probe = registry.probe(&image, &subject, soon()).await.unwrap();
    assert_eq!(probe.missing, [format!("layer {}", Digest::of(b"two"))]);
    real.stop();
    let error = registry.probe(&image, &subject, in_ms(1_500)).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable", "{error}");
}
