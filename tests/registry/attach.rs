//! Bundles: attached, found again, by us and by others.

use super::*;

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
