//! Evidence: one fetch for many who ask, listings that stand in for a registry that cannot be asked, and how long.
//!
//! Two houses: *theirs* signs and attaches, *ours* reads it from the registry and has nothing of it in its own log.

mod legacy;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    evidence::{EvidenceService, Settings},
    keys::{Kek, Keyring},
    log::{Log, Options},
    model::{
        Digest, Evidence, Identity, ImageName, ImageRef, Outcome, Source, Statement, Subject, TrustedRoot, limits,
        predicate,
    },
    registry::{self, Registry},
    signing::Signing,
};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;

use crate::fake_registry::{FakeRegistry, Knob, Referrers};

const REPO: &str = "team/app";

struct House {
    log: Log,
    registry: Registry,
    signing: Signing,
    keyring: Arc<Keyring>,
    root: Arc<TrustedRoot>,
}

impl House {
    fn open(dir: &Path, host: &str, registry: &Registry) -> Self {
        std::fs::create_dir(dir).unwrap();
        let kek = Kek::generate_to_file(&dir.join("kek")).unwrap();
        let data = dir.join("data");
        Keyring::create(&data, &kek, host, Timestamp::now()).unwrap();
        let keyring = Arc::new(Keyring::open(&data, &kek).unwrap());
        let (key, path) = (keyring.log_key(), dir.join("log"));
        Log::create(&path, host, key.public_key(), |note| key.sign(note)).unwrap();
        let public = key.public_key();
        let log = Log::open(&path, public, move |note| key.sign(note), Options::default()).unwrap();
        let root = Arc::new(TrustedRoot::parse(&keyring.trusted_root()).unwrap());
        let signing = Signing::new(Arc::clone(&keyring), log.clone(), registry.clone());
        Self { log, registry: registry.clone(), signing, keyring, root }
    }

    /// Signs an image; its bundle.
    async fn sign(&self, digest: Digest) -> Vec<u8> {
        let subject = Subject { name: String::new(), digest };
        let statement = Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap();
        let identity =
            Identity { subject: "spiffe://their.test/ci".to_owned(), issuer: "https://their.test".to_owned() };
        self.signing.attest(vec![statement], &identity, Timestamp::now()).await.unwrap().remove(0).bundle
    }
}

struct World {
    fake: FakeRegistry,
    theirs: House,
    ours: House,
    name: ImageName,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same, and `more` hosts that are spoken to in plain HTTP.
    async fn with(more: &[String]) -> Self {
        let (fake, dir) = (FakeRegistry::start().await, tempfile::tempdir().unwrap());
        let docker_config = dir.path().join("config.json");
        std::fs::write(&docker_config, "{}").unwrap();
        let settings = registry::Settings {
            plain_http: [&[fake.host()], more].concat(),
            docker_config: Some(docker_config),
            attempts: 1,
            ..registry::Settings::default()
        };
        let registry = Registry::new(settings).unwrap();
        let theirs = House::open(&dir.path().join("theirs"), "their.test", &registry);
        let ours = House::open(&dir.path().join("ours"), "our.test", &registry);
        let name = ImageName { registry: fake.host(), repository: REPO.to_owned() };
        Self { fake, theirs, ours, name, _dir: dir }
    }

    fn evidence(&self, refresh_s: u64, max_age_s: u64) -> EvidenceService {
        let roots = vec![Arc::clone(&self.ours.root), Arc::clone(&self.theirs.root)];
        let settings = Settings { refresh_s, max_age_s, ..Settings::default() };
        EvidenceService::new(self.ours.log.clone(), self.ours.registry.clone(), roots, &settings)
    }

    /// An image that they signed; its signature is attached to it.
    async fn signed(&self, content: &[u8]) -> Digest {
        let digest = self.fake.push_image(REPO, "v1", &[content]);
        let bundle = self.theirs.sign(digest).await;
        let attach = self.ours.registry.attach(&self.name, &digest, &bundle, predicate::SIGN, Timestamp::now(), soon());
        attach.await.unwrap();
        self.fake.clear_requests();
        digest
    }

    fn pinned(&self, digest: Digest) -> ImageRef {
        ImageRef { name: self.name.clone(), tag: None, digest: Some(digest) }
    }

    async fn gather(&self, service: &EvidenceService, digest: Digest, at: Timestamp, deadline: Instant) -> Evidence {
        service.gather(&digest, Some(&self.pinned(digest)), at, deadline).await.unwrap()
    }

    fn count(&self, part: &str) -> usize {
        self.fake.requests().iter().filter(|seen| seen.path.contains(part)).count()
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

/// How the registry's part of the search ended: as of when, or why not.
fn registry_says(evidence: &Evidence) -> Result<Timestamp, &str> {
    let found = evidence.sources.iter().find(|(source, _)| *source == Source::Registry).unwrap();
    match &found.1 {
        Outcome::Complete(at) => Ok(*at),
        Outcome::Unavailable(why) => Err(why),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_for_one_cold_digest_cause_one_fetch() {
    let world = World::new().await;
    let (one, two) = (world.signed(b"one").await, world.signed(b"two").await);
    world.fake.set(Knob::Latency(Duration::from_millis(50)));
    let service = world.evidence(60, 60);
    let all = join_all((0..200).map(|_| world.gather(&service, one, at(0), soon()))).await;
    assert!(all.iter().all(|evidence| evidence.statements.len() == 1 && registry_says(evidence) == Ok(at(0))));
    let asked = [("/referrers/", 1), ("/manifests/", 1), ("/blobs/", 1)];
    for (part, count) in asked {
        assert_eq!(world.count(part), count, "{part}: {:#?}", world.fake.requests());
    }
    // And what was fetched serves who comes later, until it is too old; another digest is another question.
    world.gather(&service, one, at(1), soon()).await;
    assert_eq!(world.count("/referrers/"), 1);
    world.gather(&service, two, at(1), soon()).await;
    assert_eq!(world.count("/referrers/"), 2);
    let lookups = service.lookups();
    let count = |cache, outcome| lookups.iter().find(|(c, o, _)| (*c, *o) == (cache, outcome)).unwrap().2;
    assert_eq!((count("listing", "miss"), count("listing", "hit")), (2, 200));
    // Verified once each, whoever asks.
    assert_eq!(count("fact", "miss"), 2);
}

/// One caller's short deadline is not everybody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_deadline_fails_its_owner_alone() {
    let world = World::new().await;
    let digest = world.signed(b"one").await;
    world.fake.set(Knob::Latency(Duration::from_millis(150)));
    let service = world.evidence(60, 60);
    let short = world.gather(&service, digest, at(0), Instant::now() + Duration::from_millis(60));
    let long = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        join_all((0..10).map(|_| world.gather(&service, digest, at(0), soon()))).await
    };
    let (short, long) = futures_util::future::join(short, long).await;
    assert!(registry_says(&short).unwrap_err().contains("time allowed ran out"), "{short:?}");
    for evidence in long {
        assert_eq!((registry_says(&evidence), evidence.statements.len()), (Ok(at(0)), 1));
    }
}

/// However a registry lists what refers to an image, the evidence is the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_listing_gives_the_same_evidence() {
    let world = World::new().await;
    world.fake.set(Knob::Referrers(Referrers::Missing));
    let tagged = world.signed(b"tagged").await;
    for (mode, at_tag) in [
        (Referrers::Missing, true),
        (Referrers::NotAllowed, true),
        (Referrers::NotAnIndex, true),
        (Referrers::AlwaysEmpty, true),
        (Referrers::Native, false),
        (Referrers::Paged(1), false),
        (Referrers::Unfiltered, false),
        (Referrers::WrongArtifactType, false),
    ] {
        world.fake.set(Knob::Referrers(mode));
        world.fake.clear_requests();
        let evidence = world.gather(&world.evidence(60, 60), tagged, at(0), soon()).await;
        assert_eq!((evidence.statements.len(), evidence.gap()), (1, None), "{mode:?}");
        assert_eq!(world.count("/manifests/sha256-") > 0, at_tag, "{mode:?}");
    }
}

/// A registry that cannot be asked: what it said last counts while it is young enough, and is said to be that old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_stands_in_for_a_registry_that_cannot_be_asked() {
    let world = World::new().await;
    for (mode, content) in [(Referrers::Native, b"native".as_slice()), (Referrers::Missing, b"fallback tag")] {
        world.fake.set(Knob::Referrers(mode));
        let digest = world.signed(content).await;
        let unseen = world.signed(&[content, b", never asked"].concat()).await;
        let service = world.evidence(0, 3_600);
        assert_eq!(registry_says(&world.gather(&service, digest, at(0), soon()).await), Ok(at(0)));
        let faults = [
            Knob::Throttle { times: 3, retry_after: Some("1".to_owned()) },
            Knob::ServerErrors(3),
            Knob::Status { code: 403, times: 3 },
            Knob::Truncated(true),
            Knob::WrongDigestHeader(true),
            Knob::Silent(true),
        ];
        for fault in faults {
            let what = format!("{mode:?} {fault:?}");
            world.fake.set(fault);
            let deadline = || Instant::now() + Duration::from_millis(400);
            let evidence = world.gather(&service, digest, at(60), deadline()).await;
            assert_eq!((registry_says(&evidence), evidence.statements.len()), (Ok(at(0)), 1), "{what}");
            assert_eq!(evidence.gap(), None, "{what}");
            let evidence = world.gather(&service, unseen, at(60), deadline()).await;
            assert!(
                evidence.gap().is_some() && evidence.statements.is_empty(),
                "{what}: nothing stands in: {evidence:?}"
            );
            world.fake.set(Knob::ServerErrors(0));
            world.fake.set(Knob::Truncated(false));
            world.fake.set(Knob::WrongDigestHeader(false));
            world.fake.set(Knob::Silent(false));
            tokio::time::sleep(Duration::from_millis(if what.contains("Throttle") { 1_100 } else { 0 })).await;
        }
        let stood_in = service.lookups().iter().find(|(_, outcome, _)| *outcome == "stand-in").unwrap().2;
        assert_eq!(stood_in, 6, "{mode:?}");
        // When it answers again, its answer counts, and it is as old as that.
        assert_eq!(registry_says(&world.gather(&service, digest, at(120), soon()).await), Ok(at(120)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stand_in_is_gone_when_it_is_too_old_and_is_the_newest_answer_until_then() {
    let world = World::new().await;
    let digest = world.signed(b"one").await;
    let service = world.evidence(0, 1);
    assert_eq!(world.gather(&service, digest, at(0), soon()).await.statements.len(), 1);
    world.fake.set(Knob::ServerErrors(2));
    assert_eq!(world.gather(&service, digest, at(1), soon()).await.statements.len(), 1);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let evidence = world.gather(&service, digest, at(2), soon()).await;
    assert_eq!(evidence.statements.len(), 0, "a second later it is gone");
    assert!(registry_says(&evidence).unwrap_err().contains("503"), "{evidence:?}");
    // What the registry definitely no longer lists does not come back with a stand-in.
    world.fake.set(Knob::ServerErrors(0));
    let service = world.evidence(0, 3_600);
    assert_eq!(world.gather(&service, digest, at(3), soon()).await.statements.len(), 1);
    world.fake.set(Knob::Referrers(Referrers::AlwaysEmpty));
    assert_eq!(world.gather(&service, digest, at(4), soon()).await.statements.len(), 0);
    world.fake.stop();
    let evidence = world.gather(&service, digest, at(5), soon()).await;
    assert_eq!((registry_says(&evidence), evidence.statements.len()), (Ok(at(4)), 0));
}

/// Known from the log and found in the registry, a statement counts once; what does not verify is told apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_counts_once_and_what_does_not_verify_not_at_all() {
    let world = World::new().await;
    let digest = world.fake.push_image(REPO, "v1", &[b"layer"]);
    let bundle = world.ours.sign(digest).await;
    let attach = async |bundle: &[u8]| {
        let attach =
            world.ours.registry.attach(&world.name, &digest, bundle, predicate::SIGN, Timestamp::now(), soon());
        attach.await.unwrap();
    };
    attach(&bundle).await;
    let service = world.evidence(0, 0);
    let evidence = world.gather(&service, digest, at(0), soon()).await;
    assert_eq!((evidence.statements.len(), evidence.rejected.len()), (1, 0));
    let other = world.theirs.sign(Digest::of(b"another image")).await;
    attach(&other).await;
    attach(b"{}").await;
    let evidence = world.gather(&service, digest, at(1), soon()).await;
    assert_eq!((evidence.statements.len(), evidence.rejected.len()), (1, 2), "{:?}", evidence.rejected);
}

/// What an entry signs is kept in memory; when its payload is erased, neither digest nor tag finds it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_erased_is_no_evidence_even_when_it_was_just_read() {
    let world = World::new().await;
    let (digest, other) = (Digest::of(b"one"), Digest::of(b"another"));
    let tagged = ImageRef { name: world.name.clone(), tag: Some("v1".to_owned()), digest: None };
    let name = tagged.tagged_name().unwrap();
    let subject = Subject { name, digest: other };
    let statement = Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap();
    let identity = Identity { subject: "spiffe://our.test/ci".to_owned(), issuer: "https://our.test".to_owned() };
    let signed = world.ours.signing.attest(vec![statement], &identity, Timestamp::now()).await.unwrap();
    let index = signed[0].entry.index;
    let service = world.evidence(0, 0);
    let ask = async |digest: Digest| service.from_log(&digest, Some(&tagged), at(0)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ask(other).await.statements.len(), 1);
        assert_eq!(ask(digest).await.signed_under_tag.map(|(found, _)| found), Some(other));
    }
    world.ours.log.erase(index).unwrap();
    assert_eq!(ask(other).await.statements.len(), 0);
    assert_eq!(ask(digest).await.signed_under_tag, None);
}

/// What was promoted is evidence at its new place alone: the old registry is gone, and nothing is in our log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_image_is_verified_where_it_went() {
    for mode in [Referrers::Native, Referrers::Missing] {
        let target = FakeRegistry::start().await;
        target.set(Knob::Referrers(mode));
        let world = World::with(&[target.host()]).await;
        let digest = world.signed(b"one").await;
        let to = ImageName { registry: target.host(), repository: "production/app".to_owned() };
        let image = ImageRef { name: to.clone(), tag: None, digest: Some(digest) };
        let gather = async || world.evidence(0, 0).gather(&digest, Some(&image), at(0), soon()).await.unwrap();
        let before = gather().await;
        assert_eq!((before.statements.len(), before.gap()), (0, None), "{mode:?}");
        let (from, tag) = (world.name.clone(), Some("v1".to_owned()));
        let order = registry::copy::Order { from, digest, to: to.clone(), tag, legacy: true };
        let copied = world.ours.registry.copy(&order, &Arc::default(), soon()).await.unwrap();
        assert!(copied.tagged && copied.problems.is_empty(), "{mode:?}: {copied:?}");
        world.fake.stop();
        let after = gather().await;
        assert_eq!((after.statements.len(), after.rejected.len(), after.gap()), (1, 0, None), "{mode:?}");
        assert_eq!(after.statements[0].statement().predicate_type(), predicate::SIGN);
    }
}
