//! Fallback tags: read liberally, written correctly, and safe against writers that come between.

use std::collections::BTreeSet;

use super::*;

fn fallback(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

fn listed(index: &[u8]) -> Vec<Value> {
    serde_json::from_slice::<Value>(index).unwrap()["manifests"].as_array().unwrap().clone()
}

/// One attach each, by clients that share nothing, as separate processes would.
async fn attach_by_strangers(host: &str, subject: Digest, writers: usize) -> BTreeSet<Digest> {
    let tasks: Vec<_> = (0..writers)
        .map(|number| {
            let (registry, image) = (Registry::new(settings(&[host])).unwrap(), name(host));
            let deadline = Instant::now() + Duration::from_mins(2);
            tokio::spawn(async move {
                registry.attach(&image, &subject, &bundle(number), SIGN, now(), deadline).await.unwrap()
            })
        })
        .collect();
    let mut attached = BTreeSet::new();
    for task in tasks {
        attached.insert(task.await.unwrap());
    }
    attached
}

fn digests(entries: &[Value]) -> BTreeSet<Digest> {
    entries.iter().map(|entry| entry["digest"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_strangers_lose_nothing_when_writes_overtake_each_other() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    fake.set(Knob::DawdleTagWrites(Duration::from_millis(40)));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let attached = attach_by_strangers(&fake.host(), subject, 16).await;
    let entries = listed(&fake.manifest(REPO, &fallback(&subject)).unwrap());
    assert_eq!(entries.len(), 16, "each once");
    assert_eq!(digests(&entries), attached);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_strangers_lose_nothing_on_a_real_registry() {
    let Some(real) = DockerRegistry::start().await else { return };
    let subject = real.push_image(REPO, "v1", &[b"layer"]).await;
    let attached = attach_by_strangers(&real.host(), subject, 16).await;
    let entries = listed(&real.manifest(REPO, &fallback(&subject)).await.unwrap());
    assert_eq!((entries.len(), digests(&entries)), (16, attached));
}

/// The same without the guard: writers that read, append and write, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_without_the_guard_do_lose_some() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    fake.set(Knob::DawdleTagWrites(Duration::from_millis(40)));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let url = format!("http://{}/v2/{REPO}/manifests/{}", fake.host(), fallback(&subject));
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let url = url.clone();
            tokio::spawn(async move {
                let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
                let answer = client.get(&url).send().await.unwrap();
                let mut index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []});
                if answer.status() == 200 {
                    index = answer.json().await.unwrap();
                }
                let entry = json!({"mediaType": IMAGE_TYPE, "digest": Digest::of(&bundle(number)), "size": 1});
                index["manifests"].as_array_mut().unwrap().push(entry);
                let put = client.put(&url).header("content-type", INDEX_TYPE).body(index.to_string()).send().await;
                assert_eq!(put.unwrap().status(), 201);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entries = listed(&fake.manifest(REPO, &fallback(&subject)).unwrap());
    assert!(entries.len() < 16, "a race that loses nothing shows nothing: {}", entries.len());
}

/// A third writer undoes what was there before us as well: both are put back.
#[tokio::test]
async fn what_was_there_before_is_put_back_too() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let tag = fallback(&subject);
    let entry = |number: usize| json!({"mediaType": IMAGE_TYPE, "digest": Digest::of(&bundle(number)), "size": 1});
    let index = |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries});
    let put = |entries: &[Value]| {
        fake.put_manifest(REPO, Some(&tag), INDEX_TYPE, index(entries).to_string().as_bytes());
    };
    // Our read sees the first; a writer who read nothing then replaces all by the second.
    put(&[entry(1)]);
    fake.set(Knob::Latency(Duration::from_millis(30)));
    let (registry, image) = (client(&fake), name(&fake.host()));
    let attaching = tokio::spawn(async move { registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await });
    while count(&fake, &format!("/manifests/{tag}")) < 2 {
        tokio::task::yield_now().await;
    }
    put(&[entry(2)]);
    let attached = attaching.await.unwrap().unwrap();
    let found = digests(&listed(&fake.manifest(REPO, &tag).unwrap()));
    assert_eq!(found, BTreeSet::from([Digest::of(&bundle(1)), Digest::of(&bundle(2)), attached]));
}

#[tokio::test]
async fn an_index_of_others_is_kept_and_put_right() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let tag = fallback(&subject);
    // As older writers left it: no media type, the config's type as artifact type, an entry twice, fields of their own.
    let theirs = json!({"mediaType": IMAGE_TYPE, "digest": Digest::of(b"sbom"), "size": 4, "artifactType": "x/y",
        "annotations": {"a": "b"}, "theirs": {"deep": [1, 2]}});
    let index = json!({"schemaVersion": 2, "manifests": [theirs, theirs], "annotations": {"keep": "me"}});
    fake.put_manifest(REPO, Some(&tag), INDEX_TYPE, index.to_string().as_bytes());
    let (registry, image) = (client(&fake), name(&fake.host()));
    let attached = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    let after: Value = serde_json::from_slice(&fake.manifest(REPO, &tag).unwrap()).unwrap();
    assert_eq!(after["mediaType"], INDEX_TYPE);
    assert_eq!(after["annotations"], json!({"keep": "me"}));
    let entries = after["manifests"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]), (2, &theirs));
    assert_eq!(entries[1]["digest"], json!(attached));
    assert_eq!(entries[1]["artifactType"], BUNDLE_TYPE);
    assert_eq!(registry.bundles(&image, &subject, soon()).await.unwrap(), [BUNDLE]);
}

/// What a listing says about a referrer is not believed: its manifest decides.
#[tokio::test]
async fn descriptors_with_wrong_or_missing_types_are_looked_up() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    let attached = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap();
    let size = fake.manifest(REPO, &attached.to_string()).unwrap().len();
    for artifact_type in
        [json!(null), json!("application/vnd.oci.empty.v1+json"), json!(""), json!("application/spdx+json")]
    {
        let mut entry = json!({"mediaType": IMAGE_TYPE, "digest": attached, "size": size});
        if !artifact_type.is_null() {
            entry["artifactType"] = artifact_type.clone();
        }
        for media_type in [INDEX_TYPE, "text/plain", "application/json"] {
            let index = json!({"schemaVersion": 2, "manifests": [entry]});
            fake.put_manifest(REPO, Some(&fallback(&subject)), media_type, index.to_string().as_bytes());
            let found = registry.bundles(&image, &subject, soon()).await.unwrap();
            assert_eq!(found, [BUNDLE], "{artifact_type} in {media_type}");
        }
    }
}

#[tokio::test]
async fn what_is_no_index_is_refused_by_name() {
    let many: Vec<Value> = (0..=limits::REFERRERS)
        .map(|number| json!({"mediaType": IMAGE_TYPE, "digest": Digest::of(&bundle(number)), "size": 1}))
        .collect();
    let huge = format!("{{\"schemaVersion\":2,\"manifests\":[]{}}}", " ".repeat(limits::MANIFEST));
    let index = |entries: &[Value]| json!({"schemaVersion": 2, "manifests": entries}).to_string();
    let image =
        json!({"schemaVersion": 2, "config": {"digest": Digest::of(b"c"), "size": 1}, "layers": []}).to_string();
    let cases = [
        ("an image", IMAGE_TYPE, image.clone(), "is not an index", "is not an index"),
        ("an image that says index", INDEX_TYPE, image, "not what its media type says", "not what its media type says"),
        ("not JSON", INDEX_TYPE, "<html>".to_owned(), "not a manifest", "not a manifest"),
        ("huge", INDEX_TYPE, huge, "an answer of more than", "an answer of more than"),
        ("too many", INDEX_TYPE, index(&many), "more than 64 referrers", "referrers already"),
        ("full", INDEX_TYPE, index(&many[1..]), "", "64 referrers already (at most 64); delete some"),
    ];
    for (case, media_type, bytes, reading, writing) in cases {
        let fake = FakeRegistry::start().await;
        fake.set(Knob::Referrers(Referrers::Missing));
        let subject = fake.push_image(REPO, "v1", &[b"layer"]);
        fake.put_manifest(REPO, Some(&fallback(&subject)), media_type, bytes.as_bytes());
        let (registry, image) = (client(&fake), name(&fake.host()));
        match registry.bundles(&image, &subject, soon()).await {
            Ok(found) => assert!(reading.is_empty() && found.is_empty(), "{case}"),
            Err(error) => {
                assert_eq!(kind(&error), "Malformed", "{case}: {error}");
                assert!(!reading.is_empty() && error.to_string().contains(reading), "{case}: {error}");
            }
        }
        let error = registry.attach(&image, &subject, BUNDLE, SIGN, now(), soon()).await.unwrap_err();
        assert!(error.to_string().contains(writing), "{case}: {error}");
        assert_eq!(fake.manifest(REPO, &fallback(&subject)).unwrap(), bytes.as_bytes(), "{case}: left as it was");
    }
}

/// Somebody who keeps undoing: in the end we say that we do not know, and never that it is attached.
#[tokio::test]
async fn a_tag_that_never_comes_to_rest_is_reported() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Referrers(Referrers::Missing));
    let subject = fake.push_image(REPO, "v1", &[b"layer"]);
    let (registry, image) = (client(&fake), name(&fake.host()));
    fake.set(Knob::LoseTagWrites(usize::MAX));
    let deadline = Instant::now() + Duration::from_mins(2);
    let error = registry.attach(&image, &subject, BUNDLE, SIGN, now(), deadline).await.unwrap_err();
    assert_eq!(kind(&error), "Unavailable");
    assert!(error.to_string().contains("could not be ascertained"), "{error}");
}
