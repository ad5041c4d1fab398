//! The service over its real parts: what is kept warm, what is asked again, and what counts at once all the same.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use countersign::{
    evidence::{EvidenceService, Settings as EvidenceSettings},
    keys::{Kek, Keyring},
    log::{Log, Options},
    model::{
        Caller, Digest, Extensions, Identity, ImageRef, Revocation, Role, Statement, Subject, TrustedRoot,
        deployment::{Deployment, Health, Status},
        policy::PolicySet,
        predicate,
        readiness::{Readiness, Safety},
        revocation::Target,
        verdict::Code,
    },
    registry::{Registry, Settings as RegistrySettings},
    release::{self, Release},
    rollback::{Question, Rollback, Settings},
    signing::Signing,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::{sync::watch, task::JoinHandle};

use super::workload;
use crate::fake_registry::{FakeRegistry, Knob};

const ISSUER: &str = "https://countersign.test/clients";
const POLICY: &str = "
apiVersion: countersign.dev/v1
noMatch: deny
policies:
  - name: production
    match: {images: ['**']}
    require: {signers: {anyOf: [{name: ci, issuer: 'https://countersign.test/clients', subject: ci@countersign.test}]}}
";

/// Real parts but for the registry, which can fall silent. Time is what a test says.
struct House {
    release: Arc<Release>,
    evidence: Arc<EvidenceService>,
    signing: Arc<Signing>,
    rollback: Arc<Rollback>,
    registry: FakeRegistry,
    log: Log,
    _dir: tempfile::TempDir,
}

fn who(name: &str) -> Identity {
    Identity { subject: format!("{name}@countersign.test"), issuer: ISSUER.to_owned() }
}

fn caller() -> Caller {
    Caller {
        identity: who("cd"),
        roles: [Role::Deployer, Role::Operator].into(),
        extensions: Extensions::default(),
        keys: [].into(),
    }
}

fn open(dir: &Path) -> (Arc<Keyring>, Log) {
    let kek = Kek::parse(&[7; 32]).unwrap();
    Keyring::create(dir, &kek, "countersign.test", Timestamp::now()).unwrap();
    let keyring = Arc::new(Keyring::open(dir, &kek).unwrap());
    let (key, signer) = (keyring.log_key(), keyring.log_key());
    Log::create(&dir.join("log"), keyring.host(), key.public_key(), |note| key.sign(note)).unwrap();
    let log = Log::open(&dir.join("log"), signer.public_key(), move |note| signer.sign(note), Options::default());
    (keyring, log.unwrap())
}

impl House {
    async fn build(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (keyring, log) = open(dir.path());
        let registry = FakeRegistry::start().await;
        let client = Registry::new(RegistrySettings {
            plain_http: vec![registry.host()],
            attempts: 1,
            breaker_failures: 1_000,
            ..RegistrySettings::default()
        })
        .unwrap();
        let signing = Arc::new(Signing::new(Arc::clone(&keyring), log.clone(), client.clone()));
        let roots = vec![Arc::new(TrustedRoot::parse(&keyring.trusted_root()).unwrap())];
        let evidence = Arc::new(EvidenceService::new(log.clone(), client.clone(), roots, &EvidenceSettings::default()));
        let release = Arc::new(Release::new(log.clone(), Arc::clone(&signing), Arc::clone(&evidence)).unwrap());
        let policies = Arc::new(PolicySet::parse(POLICY).unwrap());
        let (parts, door) = (Arc::clone(&release), Arc::clone(&signing));
        let rollback = Arc::new(Rollback::new(parts, Arc::clone(&evidence), client, policies, door, settings));
        Self { release, evidence, signing, rollback, registry, log, _dir: dir }
    }

    /// Two healthy revisions of `repository`, the older one first; both signed.
    async fn two_revisions(&self, repository: &str) -> (Digest, Digest) {
        let old = self.registry.push_image(repository, "v1", &[b"one", repository.as_bytes()]);
        let new = self.registry.push_image(repository, "v2", &[b"two", repository.as_bytes()]);
        for digest in [old, new] {
            self.sign(digest).await;
            self.deployed(repository, digest, Status::Live).await;
            let health = Health {
                service: repository.to_owned(),
                environment: "production".to_owned(),
                digest,
                healthy: true,
                detail: String::new(),
                by: String::new(),
            };
            self.release.record_health(&health, &caller(), Timestamp::now()).await.unwrap();
        }
        (old, new)
    }

    async fn sign(&self, digest: Digest) {
        let subject = Subject { name: String::new(), digest };
        let statement = Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap();
        self.signing.attest(vec![statement], &who("ci"), Timestamp::now()).await.unwrap();
    }

    async fn deployed(&self, repository: &str, digest: Digest, status: Status) {
        let deployment = Deployment {
            service: repository.to_owned(),
            environment: "production".to_owned(),
            digest,
            image: format!("{}/{repository}", self.registry.host()),
            status,
            version: None,
            region: None,
            workload: Some(workload("production", "shop", "app")),
            by: String::new(),
        };
        self.release.record_deployment(&deployment, &caller(), Timestamp::now()).await.unwrap();
    }

    /// `patience` is for a registry that answers; one that does not is waited for as long.
    async fn ask_within(&self, service: &str, fresh: bool, now: Timestamp, patience: Duration) -> Readiness {
        let question = Question {
            service: service.to_owned(),
            environment: "production".to_owned(),
            target: None,
            fresh,
            record: false,
        };
        self.rollback.check(&question, now, Instant::now() + patience).await.unwrap().readiness
    }

    async fn ask(&self, service: &str, fresh: bool) -> Readiness {
        self.ask_within(service, fresh, Timestamp::now(), Duration::from_secs(10)).await
    }

    fn keep_warm(&self) -> (watch::Sender<bool>, JoinHandle<()>) {
        let (stop, stopped) = watch::channel(false);
        let rollback = Arc::clone(&self.rollback);
        (stop, tokio::spawn(async move { rollback.keep_warm(Timestamp::now, stopped).await }))
    }

    /// How often the registry was asked for a manifest of this repository.
    fn asked_about(&self, repository: &str) -> usize {
        let path = format!("/v2/{repository}/manifests/sha256:");
        self.registry.requests().iter().filter(|seen| seen.path.starts_with(&path)).count()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            assert!(Instant::now() < give_up, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn revoke(&self, target: Target) {
        let since = Timestamp::now() - SignedDuration::from_hours(1);
        let revocation = Revocation { target, since, reason: "leaks".to_owned() };
        self.release.revoke(&revocation, &caller(), Timestamp::now()).await.unwrap();
    }
}

fn found(readiness: &Readiness, code: Code) -> bool {
    readiness
        .checks
        .iter()
        .any(|check| check.code == code && check.severity == countersign::model::readiness::Severity::Blocker)
}

fn registry_age(readiness: &Readiness) -> Option<i64> {
    readiness.freshness.iter().find(|one| one.fact == "registry").map(|one| one.age_seconds)
}

fn quick() -> Settings {
    Settings { warm_every: Duration::from_millis(40), ..Settings::default() }
}

fn cold() -> Settings {
    Settings { warm_every: Duration::ZERO, ..Settings::default() }
}

/// The registry's answer is there before anyone asks; it counts as long as it is young and says how old it is; `fresh`
/// passes it by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_is_there_before_the_question() {
    let house = House::build(quick()).await;
    let (stop, task) = house.keep_warm();
    let (old, _) = house.two_revisions("shop").await;
    house.until("the old revision is looked at unasked", |house| house.asked_about("shop") > 0).await;
    house
        .until("its layers are asked for", |house| {
            house.registry.requests().iter().filter(|seen| seen.path.contains("/blobs/") && seen.status == 200).count()
                >= 3
        })
        .await;
    // Whatever is under way may end before the registry goes.
    tokio::time::sleep(Duration::from_millis(200)).await;
    house.registry.stop();

    let warm = house.ask("shop", false).await;
    assert_eq!(warm.verdict, Safety::Safe, "{warm:#?}");
    assert!(warm.command.as_deref().is_some_and(|command| command.contains(&old.to_string())), "{warm:#?}");
    assert!(registry_age(&warm).is_some(), "its age is shown: {warm:#?}");

    let fresh = house.ask("shop", true).await;
    assert_eq!(fresh.verdict, Safety::Unknown, "{fresh:#?}");
    assert!(fresh.sentence.contains("all of it was there"), "what was known last is said: {}", fresh.sentence);

    // What is recorded afterwards counts at once, whatever is warm.
    house.revoke(Target::Identity { identity: who("ci") }).await;
    let signer = house.ask("shop", false).await;
    assert!(!signer.verdict.is_yes() && signer.command.is_none(), "{signer:#?}");
    house.revoke(Target::Artifact { digest: old }).await;
    let revoked = house.ask("shop", false).await;
    assert_eq!(revoked.verdict, Safety::Unsafe);
    assert!(found(&revoked, Code::ArtifactRevoked), "{revoked:#?}");

    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("it stops when it is told to").unwrap();
}

/// A deployment begun, and a health report, count at once as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_recorded_counts_at_once() {
    let house = House::build(cold()).await;
    let (old, new) = house.two_revisions("shop").await;
    assert_eq!(house.ask("shop", false).await.verdict, Safety::Safe);
    let third = Digest::of(b"third");
    house.deployed("shop", third, Status::InProgress).await;
    assert!(found(&house.ask("shop", false).await, Code::DeployInProgress));
    house.deployed("shop", third, Status::Failed).await;
    assert_eq!(house.ask("shop", false).await.verdict, Safety::Safe);
    house.deployed("shop", old, Status::Live).await;
    assert_eq!(house.ask("shop", false).await.to.unwrap().digest, new, "what runs now is no target");
}

/// An answer of the registry that is older than the settings allow is asked for again, and is no knowledge when the
/// registry is silent; nor is one from the future, when the clock was set back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_answer_of_the_registry_is_no_knowledge() {
    let house = House::build(cold()).await;
    house.two_revisions("shop").await;
    let start = Timestamp::now();
    let ask = |seconds: i64, patience: Duration| {
        house.ask_within("shop", false, start + SignedDuration::from_secs(seconds), patience)
    };
    let (patient, hasty) = (Duration::from_secs(10), Duration::from_millis(500));
    assert_eq!(ask(0, patient).await.verdict, Safety::Safe);
    let asked = house.asked_about("shop");
    assert_eq!(ask(29, patient).await.verdict, Safety::Safe);
    assert_eq!(house.asked_about("shop"), asked, "young enough: not asked again");
    house.registry.set(Knob::Silent(true));
    for seconds in [31, 3_600, -3_600] {
        let later = ask(seconds, hasty).await;
        assert_eq!(later.verdict, Safety::Unknown, "{seconds}: {later:#?}");
        assert!(found(&later, Code::RegistryUnavailable), "{seconds}");
    }
    house.registry.set(Knob::Silent(false));
    let again = ask(31, patient).await;
    assert_eq!((again.verdict, registry_age(&again)), (Safety::Safe, Some(0)));
}

/// Only so many places are kept warm, those touched last; with none, nothing is asked unasked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_places_are_kept_warm() {
    let house = House::build(Settings { warm_places: 1, ..quick() }).await;
    house.two_revisions("first").await;
    house.two_revisions("second").await;
    house.registry.clear_requests();
    let (stop, task) = house.keep_warm();
    house.until("the place touched last is visited", |house| house.asked_about("second") >= 3).await;
    assert_eq!(house.asked_about("first"), 0, "the other one is not");
    // Asking makes it the one that is kept.
    house.ask("first", false).await;
    house.registry.clear_requests();
    house.until("the place asked about is visited", |house| house.asked_about("first") >= 3).await;
    let asked = house.asked_about("second");
    house.until("it is visited again", |house| house.asked_about("first") >= 6).await;
    assert_eq!(house.asked_about("second"), asked);
    stop.send_replace(true);
    task.await.unwrap();

    let house = House::build(cold()).await;
    let (_stop, task) = house.keep_warm();
    house.two_revisions("shop").await;
    tokio::time::timeout(Duration::from_secs(20), task).await.expect("nothing to do").unwrap();
    assert_eq!(house.asked_about("shop"), 0);
}

/// Our own answers are found by service and environment; as evidence they would bury the signatures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_recorded_and_are_no_evidence() {
    let house = House::build(cold()).await;
    let (old, _) = house.two_revisions("shop").await;
    let question = Question {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        target: Some(old),
        fresh: false,
        record: true,
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let answer = house.rollback.check(&question, Timestamp::now(), deadline).await.unwrap();
    assert_eq!(answer.recorded.len(), 2, "readiness and verification summary");
    let summary = house.log.bundle(answer.recorded[1].index).unwrap();
    let summary = countersign::model::verify::parse_bundle(&summary).unwrap();
    let summary = countersign::model::verify::unverified_statement(&summary).unwrap();
    assert_eq!(
        (summary.predicate_type(), summary.predicate()["verificationResult"].as_str()),
        (predicate::VSA, Some("PASSED"))
    );

    let image: ImageRef = format!("{}/shop", house.registry.host()).parse().unwrap();
    let evidence = house.evidence.from_log(&old, Some(&image), Timestamp::now()).await.unwrap();
    let kinds: Vec<_> = evidence.statements.iter().map(|one| one.statement().predicate_type().to_owned()).collect();
    assert_eq!(kinds, [predicate::SIGN]);

    // The same answer again is not recorded again.
    let size = house.log.size();
    let again = house.rollback.check(&question, Timestamp::now(), deadline).await.unwrap();
    assert_eq!((again.recorded, house.log.size()), (answer.recorded, size));
}

/// What the webhook admits is recorded once for each object that runs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admitted_workloads_are_recorded_once_each() {
    let house = House::build(cold()).await;
    let admitted = |name: &str| release::Deployment {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest: Digest::of(b"v1"),
        image: "registry.example.com/shop/app".to_owned(),
        status: "admitted".to_owned(),
        workload: Some(workload("production", name, "app")),
        deployed_by: "alice".to_owned(),
    };
    for (name, is_new) in [("web", true), ("web", false), ("worker", true), ("worker", false), ("web", false)] {
        let entry = house.release.record_admitted(admitted(name), Timestamp::now()).await.unwrap();
        assert_eq!(entry.is_some(), is_new, "{name}");
    }
    let nameless = release::Deployment { workload: None, ..admitted("web") };
    assert_eq!(house.release.record_admitted(nameless, Timestamp::now()).await.unwrap(), None);
    let history = house.release.history("shop", "production").await.unwrap();
    let names: Vec<_> =
        history.revisions[0].workloads.iter().map(countersign::model::deployment::Workload::name).collect();
    assert_eq!(names, ["web", "worker"]);
    assert_eq!(house.release.recent_services(8).await.unwrap(), [("shop".to_owned(), "production".to_owned())]);
}
