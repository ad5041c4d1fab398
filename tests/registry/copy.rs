//! Promotion: an image with all its evidence, from one registry to another.

use std::{
    process::{Command, Output},
    sync::Arc,
};

use countersign::registry::copy::{Copied, Found, Meter, Order};

use super::*;

const OTHER: &str = "production/app";

/// What stands at the source.
struct Furnished {
    index: Digest,
    amd: Digest,
    /// Bundles about the index and about one platform, and something about the first bundle.
    evidence: Vec<(Digest, Digest)>,
    legacy: String,
}

/// An index of two platforms and `BuildKit`'s attestation, with evidence of every kind.
async fn furnish(fake: &FakeRegistry) -> Furnished {
    let amd = fake.push_image(REPO, "amd", &[b"shared", b"amd"]);
    let arm = fake.push_image(REPO, "arm", &[b"shared", b"arm"]);
    let attestation = fake.push_image(REPO, "att", &[b"attestation"]);
    let platforms = [("linux/amd64", amd), ("linux/arm64", arm), ("unknown/unknown", attestation)];
    let index = fake.push_index(REPO, "v1", &platforms);
    let (registry, image) = (client(fake), name(&fake.host()));
    let first = registry.attach(&image, &index, &bundle(1), SIGN, now(), soon()).await.unwrap();
    let second = registry.attach(&image, &amd, &bundle(2), SIGN, now(), soon()).await.unwrap();
    let about_first = registry.attach(&image, &first, &bundle(3), SIGN, now(), soon()).await.unwrap();
    let legacy = format!("sha256-{}.sig", index.hex());
    push_legacy(fake, REPO, &legacy, b"a simple signing document");
    fake.clear_requests();
    Furnished { index, amd, evidence: vec![(index, first), (amd, second), (first, about_first)], legacy }
}

fn push_legacy(fake: &FakeRegistry, repo: &str, tag: &str, payload: &[u8]) -> Digest {
    let (blob, config) = (fake.put_blob(repo, payload), fake.put_blob(repo, b"{}"));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": IMAGE_TYPE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json", "digest": blob,
            "size": payload.len(), "annotations": {"dev.cosignproject.cosign/signature": "AAAA"}}],
    });
    fake.put_manifest(repo, Some(tag), IMAGE_TYPE, manifest.to_string().as_bytes())
}

fn order(from: &str, digest: Digest, to: &str) -> Order {
    let to = ImageName { registry: to.to_owned(), repository: OTHER.to_owned() };
    Order { from: name(from), digest, to, tag: Some("v1".to_owned()), legacy: true }
}

async fn copy(registry: &Registry, order: &Order) -> Result<Copied, RegistryError> {
    registry.copy(order, &Arc::new(Meter::default()), soon()).await
}

fn both(source: &FakeRegistry, target: &FakeRegistry) -> Registry {
    Registry::new(settings(&[&source.host(), &target.host()])).unwrap()
}

fn writes(fake: &FakeRegistry) -> Vec<String> {
    let writing = |seen: &&crate::fake_registry::Seen| seen.method == Method::PUT || seen.method == Method::POST;
    fake.requests().iter().filter(writing).map(|seen| seen.path.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_over_whatever_the_registries_can() {
    let modes = [
        Referrers::Native,
        Referrers::Paged(1),
        Referrers::WrongArtifactType,
        Referrers::Missing,
        Referrers::NotAllowed,
        Referrers::AlwaysEmpty,
    ];
    for (at_source, at_target) in modes.into_iter().flat_map(|one| modes.map(|other| (one, other))) {
        let case = format!("{at_source:?} to {at_target:?}");
        let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
        source.set(Knob::Referrers(at_source));
        target.set(Knob::Referrers(at_target));
        target.set(Knob::Strict(true));
        let there = furnish(&source).await;
        let (registry, order) = (both(&source, &target), order(&source.host(), there.index, &target.host()));
        let copied = copy(&registry, &order).await.unwrap();
        assert_eq!((&copied.problems, copied.tagged, copied.tag_before), (&Vec::new(), true, None), "{case}");
        assert_eq!((copied.manifests_sent, copied.blobs_sent), (4, 7), "{case}");
        let native = matches!(at_target, Referrers::Native | Referrers::Paged(_) | Referrers::WrongArtifactType);
        let found = if native { Found::Referrers } else { Found::FallbackTag };
        for (subject, digest) in &there.evidence {
            let piece = copied.evidence.iter().find(|piece| piece.digest == *digest).unwrap();
            assert_eq!((piece.subject, piece.found), (*subject, found), "{case}");
            assert_eq!(piece.kind, BUNDLE_TYPE, "{case}");
        }
        assert_eq!(copied.evidence.len(), 4, "{case}: {:?}", copied.evidence);
        assert_eq!(target.tagged(OTHER, &there.legacy), source.tagged(REPO, &there.legacy), "{case}");
        // The destination alone has all of it now.
        source.stop();
        let image = &order.to;
        assert_eq!(target.tagged(OTHER, "v1"), Some(there.index), "{case}");
        assert_eq!(registry.bundles(image, &there.index, soon()).await.unwrap(), [bundle(1)], "{case}");
        assert_eq!(registry.bundles(image, &there.amd, soon()).await.unwrap(), [bundle(2)], "{case}");
        let probe = registry.probe(image, &there.index, soon()).await.unwrap();
        assert_eq!((probe.missing.len(), probe.platforms.len()), (0, 2), "{case}");
    }
}

/// Nothing is ever visible by tag that lacks its evidence, and nothing points at what is not there.
#[tokio::test]
async fn the_tag_comes_last_and_a_second_run_sends_nothing() {
    for mode in [Referrers::Native, Referrers::Missing] {
        let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
        target.set(Knob::Referrers(mode));
        target.set(Knob::Strict(true));
        let there = furnish(&source).await;
        let (registry, order) = (both(&source, &target), order(&source.host(), there.index, &target.host()));
        copy(&registry, &order).await.unwrap();
        let written = writes(&target);
        assert_eq!(written.last().unwrap(), &format!("/v2/{OTHER}/manifests/v1"), "{mode:?}");
        let evidence = |path: &&String| path.ends_with(&there.evidence[0].1.to_string());
        assert!(written.iter().any(|path| evidence(&path)), "{mode:?}");
        target.clear_requests();
        let again = copy(&registry, &order).await.unwrap();
        assert_eq!(writes(&target), Vec::<String>::new(), "{mode:?}");
        assert_eq!((again.manifests_sent, again.manifests_present, again.blobs_sent), (0, 4, 0), "{mode:?}");
        assert_eq!((again.evidence.len(), again.tagged), (4, true), "{mode:?}");
    }
}

/// What was cut short is taken up: what is there is not sent again.
#[tokio::test]
async fn a_copy_that_was_cut_short_is_taken_up() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let there = furnish(&source).await;
    let (registry, order) = (both(&source, &target), order(&source.host(), there.index, &target.host()));
    let lost = Digest::of(b"arm");
    source.delete_blob(REPO, &lost);
    let error = copy(&registry, &order).await.unwrap_err();
    assert_eq!(kind(&error), "NotFound");
    assert!(error.to_string().contains(&lost.to_string()), "{error}");
    assert_eq!(target.tagged(OTHER, "v1"), None);
    source.put_blob(REPO, b"arm");
    target.clear_requests();
    let copied = copy(&registry, &order).await.unwrap();
    assert!(copied.blobs_present > 0 && copied.blobs_sent > 0 && copied.tagged, "{copied:?}");
    assert_eq!(copied.blobs_present + copied.blobs_sent, 7);
}

#[tokio::test]
async fn within_one_registry_blobs_are_mounted() {
    let fake = FakeRegistry::start().await;
    let there = furnish(&fake).await;
    let registry = client(&fake);
    let copied = copy(&registry, &order(&fake.host(), there.index, &fake.host())).await.unwrap();
    assert_eq!((copied.blobs_mounted, copied.blobs_sent, copied.tagged), (7, 0, true));
    assert!(!writes(&fake).iter().any(|path| path.contains("/blobs/uploads/1")), "{:?}", writes(&fake));
    let refusing = FakeRegistry::start().await;
    let there = furnish(&refusing).await;
    refusing.set(Knob::RefuseMounts(true));
    let registry = client(&refusing);
    let copied = copy(&registry, &order(&refusing.host(), there.index, &refusing.host())).await.unwrap();
    assert_eq!((copied.blobs_mounted, copied.blobs_sent, copied.tagged), (0, 7, true));
}

/// A token for the destination alone could not read the source.
#[tokio::test]
async fn a_mount_is_asked_with_a_token_for_both_repositories() {
    let fake = FakeRegistry::start().await;
    let there = furnish(&fake).await;
    fake.set(Knob::Tokens { lifetime_seconds: 60, account: None });
    let registry = client(&fake);
    let copied = copy(&registry, &order(&fake.host(), there.index, &fake.host())).await.unwrap();
    assert_eq!((copied.blobs_mounted, copied.tagged), (7, true));
    let tokens = fake.requests().into_iter().filter(|seen| seen.path.starts_with("/token")).map(|seen| seen.path);
    let scopes: Vec<String> = tokens.filter(|path| path.matches("scope=").count() == 2).collect();
    let (own, beside) = ("repository%3Aproduction%2Fapp%3Apull%2Cpush", "repository%3Ateam%2Fapp%3Apull");
    assert!(scopes.len() == 1 && scopes[0].contains(own) && scopes[0].contains(beside), "{scopes:?}");
}

/// A registry's faults, and what comes of them. In no case is something tagged that is not whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_overcome_or_named() {
    // What is wrong, at the source and at the destination, and the refusal, if any.
    type Case = (&'static str, Vec<Knob>, Vec<Knob>, Option<&'static str>);
    let slow_down = || Knob::Throttle { times: 2, retry_after: Some("0".to_owned()) };
    let cases: Vec<Case> = vec![
        ("none", vec![], vec![], None),
        ("throttled at the source", vec![slow_down()], vec![], None),
        ("throttled at the destination", vec![], vec![slow_down()], None),
        ("errors at the destination", vec![], vec![Knob::ServerErrors(2)], None),
        ("storage that is behind", vec![], vec![Knob::Behind(3)], None),
        ("storage that stays behind", vec![], vec![Knob::Behind(usize::MAX)], Some("Unavailable")),
        ("lost upload sessions", vec![], vec![Knob::LoseUploads(3)], None),
        ("sessions that are always lost", vec![], vec![Knob::LoseUploads(usize::MAX)], Some("Unavailable")),
        ("truncated bodies", vec![Knob::Truncated(true)], vec![], Some("Unavailable")),
        ("endless bodies", vec![Knob::Endless(true)], vec![], Some("Malformed")),
        ("a digest that changes", vec![Knob::Shifting(true)], vec![], Some("Malformed")),
        ("blobs with other bytes", vec![Knob::WrongBlobs(true)], vec![], Some("Malformed")),
        ("no access to the source", vec![Knob::Status { code: 403, times: 99 }], vec![], Some("Unauthorized")),
        ("no access to the destination", vec![], vec![Knob::Status { code: 403, times: 99 }], Some("Unauthorized")),
        ("a destination without answers", vec![], vec![Knob::ServerErrors(10_000)], Some("Unavailable")),
    ];
    for (case, at_source, at_target, expected) in cases {
        let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
        target.set(Knob::Strict(true));
        let there = furnish(&source).await;
        for knob in at_source {
            source.set(knob);
        }
        for knob in at_target {
            target.set(knob);
        }
        let outcome = copy(&both(&source, &target), &order(&source.host(), there.index, &target.host())).await;
        match (&outcome, expected) {
            (Ok(copied), None) => assert!(copied.tagged && copied.problems.is_empty(), "{case}: {copied:?}"),
            (Err(error), Some(expected)) => assert_eq!(kind(error), expected, "{case}: {error}"),
            other => panic!("{case}: {other:?}"),
        }
        assert_eq!(target.tagged(OTHER, "v1").is_some(), expected.is_none(), "{case}");
        if case.contains("other bytes") {
            assert!(!target.has_blob(OTHER, &Digest::of(b"amd")), "{case}");
        }
    }
}

#[tokio::test]
async fn blobs_may_come_from_elsewhere() {
    let (source, target, storage) =
        (FakeRegistry::start().await, FakeRegistry::start().await, FakeRegistry::start().await);
    let there = furnish(&source).await;
    furnish(&storage).await;
    source.set(Knob::RedirectBlobs(Some(storage.host())));
    let hosts = [source.host(), target.host(), storage.host()];
    let order = order(&source.host(), there.index, &target.host());
    let registry = Registry::new(settings(&[&hosts[0], &hosts[1], &hosts[2]])).unwrap();
    assert!(copy(&registry, &order).await.unwrap().tagged);
    // In plain HTTP only where that is permitted.
    let strict = Registry::new(settings(&[&hosts[0], &hosts[1]])).unwrap();
    let fresh = Order { to: ImageName { repository: "fresh".to_owned(), ..order.to.clone() }, ..order };
    let error = copy(&strict, &fresh).await.unwrap_err();
    assert_eq!(kind(&error), "Malformed", "{error}");
}

/// What is missing of the evidence is named, the rest goes over, and the tag is not set.
#[tokio::test]
async fn evidence_that_cannot_be_copied_keeps_the_tag_away() {
    for case in
        ["blob gone", "wrong bytes at the fallback tag", "another legacy signature", "dangling", "not asked for"]
    {
        let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
        source.set(Knob::Referrers(Referrers::Missing));
        target.set(Knob::Referrers(Referrers::Missing));
        let there = furnish(&source).await;
        let mut order = order(&source.host(), there.index, &target.host());
        let expected = match case {
            "blob gone" => {
                source.delete_blob(REPO, &Digest::of(&bundle(2)));
                Some(format!("the referrer {} of {}", there.evidence[1].1, there.amd))
            }
            "wrong bytes at the fallback tag" => {
                let tag = format!("sha256-{}", there.index.hex());
                target.put_manifest(OTHER, Some(&tag), INDEX_TYPE, b"<html>");
                Some(format!("evidence about {}", there.index))
            }
            "another legacy signature" => {
                push_legacy(&target, OTHER, &there.legacy, b"somebody else's");
                Some(format!("the legacy tag {}", there.legacy))
            }
            "dangling" => {
                source.delete_manifest(REPO, &there.evidence[1].1);
                None
            }
            _ => {
                push_legacy(&target, OTHER, &there.legacy, b"somebody else's");
                order.legacy = false;
                None
            }
        };
        let before = target.tagged(OTHER, &there.legacy);
        let copied = copy(&both(&source, &target), &order).await.unwrap();
        match expected {
            Some(what) => {
                assert_eq!(copied.problems.len(), 1, "{case}: {:?}", copied.problems);
                assert_eq!(copied.problems[0].what, what, "{case}");
                assert!(copied.problems[0].definite, "{case}: {:?}", copied.problems);
                assert!(copied.evidence.len() >= 2, "{case}: the rest goes over: {:?}", copied.evidence);
            }
            None => assert_eq!(copied.problems, Vec::new(), "{case}"),
        }
        let tagged = copied.problems.is_empty();
        assert_eq!((copied.tagged, target.tagged(OTHER, "v1").is_some()), (tagged, tagged), "{case}");
        assert_eq!(copied.gone, if case == "dangling" { vec![there.evidence[1].1] } else { vec![] }, "{case}");
        if before.is_some() {
            assert_eq!(target.tagged(OTHER, &there.legacy), before, "{case}: what was there stays");
        }
    }
}

#[tokio::test]
async fn chains_of_evidence_have_an_end() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let subject = source.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (both(&source, &target), name(&source.host()));
    let mut about = subject;
    for level in 0..limits::REFERRER_DEPTH {
        about = registry.attach(&image, &about, &bundle(level), SIGN, now(), soon()).await.unwrap();
    }
    let order = order(&source.host(), subject, &target.host());
    let copied = copy(&registry, &order).await.unwrap();
    assert_eq!((copied.evidence.len(), copied.tagged), (limits::REFERRER_DEPTH, true), "{:?}", copied.problems);
    registry.attach(&image, &about, &bundle(99), SIGN, now(), soon()).await.unwrap();
    let copied = copy(&registry, &Order { tag: Some("v2".to_owned()), ..order }).await.unwrap();
    assert!(copied.problems[0].why.contains("levels"), "{:?}", copied.problems);
    assert!(!copied.tagged);
}

#[tokio::test]
async fn a_tag_that_moves_is_told() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let old = target.push_image(OTHER, "v1", &[b"old"]);
    let digest = source.push_image(REPO, "v1", &[b"new"]);
    let registry = both(&source, &target);
    let copied = copy(&registry, &order(&source.host(), digest, &target.host())).await.unwrap();
    assert_eq!((copied.tagged, copied.tag_before), (true, Some(old)));
    assert_eq!(target.tagged(OTHER, "v1"), Some(digest));
    // By digest alone nothing is tagged.
    let untagged = Order { tag: None, ..order(&source.host(), digest, &target.host()) };
    let copied = copy(&registry, &untagged).await.unwrap();
    assert_eq!((copied.tagged, copied.problems.len()), (false, 0));
    // And a tag that somebody else takes meanwhile is not said to be set.
    let digest = source.push_image(REPO, "v2", &[b"newer"]);
    target.set(Knob::LoseTagWrites(1));
    let copied = copy(&registry, &order(&source.host(), digest, &target.host())).await.unwrap();
    assert!(!copied.tagged && copied.problems[0].what.contains("the tag v1"), "{copied:?}");
}

/// A manifest that stands at two depths goes before both that name it.
#[tokio::test]
async fn indexes_in_indexes_go_over_from_below() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    target.set(Knob::Strict(true));
    let image = source.push_image(REPO, "image", &[b"layer"]);
    let inner = source.push_index(REPO, "inner", &[("linux/arm64", image)]);
    let mut outer = source.push_index(REPO, "outer", &[("linux/amd64", image), ("linux/arm64", inner)]);
    let registry = both(&source, &target);
    for depth in 2..=4 {
        let copied = copy(&registry, &order(&source.host(), outer, &target.host())).await.unwrap();
        assert!(copied.tagged, "{depth}");
        outer = source.push_index(REPO, "outer", &[("linux/amd64", outer)]);
    }
    let error = copy(&registry, &order(&source.host(), outer, &target.host())).await.unwrap_err();
    assert!(error.to_string().contains("more than 3 deep"), "{error}");
    // A part that is not there.
    source.delete_manifest(REPO, &image);
    let error = copy(&registry, &order(&source.host(), inner, &target.host())).await.unwrap_err();
    assert_eq!(kind(&error), "NotFound", "{error}");
}

#[tokio::test]
async fn foreign_layers_stay_where_they_are() {
    let (source, target) = (FakeRegistry::start().await, FakeRegistry::start().await);
    let config = source.put_blob(REPO, b"12345");
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let windows = json!({
        "schemaVersion": 2, "mediaType": docker,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": config, "size": 5},
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": Digest::of(b"elsewhere"), "size": 9, "urls": ["https://example.com/layer"],
        }],
    });
    let digest = source.put_manifest(REPO, Some("v1"), docker, windows.to_string().as_bytes());
    let copied = copy(&both(&source, &target), &order(&source.host(), digest, &target.host())).await.unwrap();
    assert_eq!((copied.foreign_layers, copied.blobs_sent, copied.tagged), (1, 1, true));
}

/// From one real registry to another: by the command, with a layer of some size; then read by a foreign client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_promotes_between_real_registries() {
    let (Some(mut source), Some(target)) = (DockerRegistry::start().await, DockerRegistry::start().await) else {
        return;
    };
    let large: Vec<u8> =
        (0..4_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).step_by(3).collect();
    let amd = source.push_image(REPO, "amd", &[b"shared", &large]).await;
    let arm = source.push_image(REPO, "arm", &[b"shared", b"arm"]).await;
    let entry = async |digest: Digest, architecture: &str| {
        let size = source.manifest(REPO, &digest.to_string()).await.unwrap().len();
        json!({"mediaType": IMAGE_TYPE, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let manifests = [entry(amd, "amd64").await, entry(arm, "arm64").await];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).to_string().into_bytes();
    let index = source.put_manifest(REPO, "v1", INDEX_TYPE, index).await;
    let registry = Registry::new(settings(&[&source.host(), &target.host()])).unwrap();
    let attached = registry.attach(&name(&source.host()), &index, BUNDLE, SIGN, now(), soon()).await.unwrap();

    let (from, to) = (format!("{}/{REPO}:v1", source.host()), format!("{}/{REPO}", target.host()));
    let plain = [source.host(), target.host()];
    let output = cli(&plain, &[&from, &to, "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["complete"], &report["tagged"], &report["tag"]), (&json!(true), &json!(true), &json!("v1")));
    assert_eq!(report["digest"], json!(index));
    assert_eq!(report["evidence"][0]["digest"], json!(attached));
    assert_eq!(report["evidence"][0]["found"], "fallback-tag");
    let output = cli(&plain, &[&from, &to]).await;
    assert!(said(&output).contains("blobs     0 sent (0.0 MB), 0 mounted, 5 there before"), "{}", said(&output));
    // Within one registry, blobs are mounted.
    let beside = format!("{}/beside/app:v2", target.host());
    let output = cli(&plain, &[&format!("{to}@{index}"), &beside]).await;
    assert!(said(&output).contains("5 mounted"), "{}", said(&output));

    source.stop();
    foreign_client_reads_image(&target.host(), &index, &attached).await;
    let output = cli(&plain, &[&from, &to]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("could not tell"), "{}", said(&output));
    let gone = format!("{}/{REPO}:gone", target.host());
    let output = cli(&plain, &[&gone, &beside]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let (pinned, otherwise) = (format!("{to}@{index}"), format!("{to}@{amd}"));
    for wrong in [vec!["UPPER", "x/y"], vec![to.as_str()], vec![&*pinned, &*otherwise]] {
        let output = cli(&plain, &wrong).await;
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {}", said(&output));
    }
}

async fn foreign_client_reads_image(host: &str, index: &Digest, attached: &Digest) {
    use oci_client::{Client, client::ClientConfig, client::ClientProtocol, secrets::RegistryAuth};
    let foreign = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..Default::default() });
    let image = format!("{host}/{REPO}:v1").parse().unwrap();
    let (_, digest) = foreign.pull_manifest(&image, &RegistryAuth::Anonymous).await.unwrap();
    assert_eq!(digest, index.to_string());
    let pinned = format!("{host}/{REPO}@{index}").parse().unwrap();
    let referrers = foreign.pull_referrers(&pinned, Some(BUNDLE_TYPE)).await.unwrap();
    assert_eq!(referrers.manifests[0].digest, attached.to_string());
    let artifact = format!("{host}/{REPO}@{attached}").parse().unwrap();
    let pulled = foreign.pull(&artifact, &RegistryAuth::Anonymous, vec![BUNDLE_TYPE]).await.unwrap();
    assert_eq!(pulled.layers[0].data, BUNDLE);
}

/// `countersign copy`, without the configuration and credentials of whoever runs the tests.
async fn cli(plain: &[String], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.arg("copy").args(arguments);
    for host in plain {
        command.args(["--plain-http", host]);
    }
    let dir = tempfile::tempdir().unwrap();
    command.env("DOCKER_CONFIG", dir.path()).current_dir(dir.path());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
