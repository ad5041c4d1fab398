//! The cluster door: objects, patches, modes, deadlines, malformed reviews. The parts behind it answer from tables.

mod faces;
mod glass;
mod objects;
mod passing;
mod records;
mod reviews;
mod verdicts;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use countersign::{
    admission::{
        Admission, BreakGlass, BreakGlassSettings, Kind, Operation, Outcome, Parts, Phase, Review, Settings, Summary,
        User,
    },
    model::{
        Decision, Digest, Evidence, Identity, ImageRef, LogRef, Reason, Source, Verdict, Verified,
        evidence::Outcome as SourceOutcome, judge::Judgement, policy::Mode, verdict::Code,
    },
    registry::RegistryError,
    release::{Deployment, ReleaseError},
    telemetry::Metrics,
};
use jiff::Timestamp;
pub use reviews::well_formed;
use serde_json::{Value, json};

/// What the tables hold: names are repositories.
#[derive(Default)]
struct World {
    /// Repository to digest; a repository that is not here is not in the registry.
    tags: BTreeMap<&'static str, Digest>,
    /// Digests whose evidence stands in our log.
    logged: Vec<Digest>,
    /// Digests whose evidence stands in the registry.
    attached: Vec<Digest>,
    /// Digests that were revoked.
    revoked: Vec<Digest>,
    /// The registry does not answer with anything but an error.
    is_down: bool,
    /// The registry never answers.
    is_silent: bool,
    /// Recording fails.
    is_unrecordable: bool,
    /// What recording waits for, if it waits.
    log_takes: Option<Duration>,
    /// What our log says of every digest beside what signs it.
    said: Vec<Arc<Verified>>,
    /// No policy speaks about anything.
    is_nobodys: bool,
    mode: Option<Mode>,
}

/// What was asked of the parts.
#[derive(Default)]
struct Asked {
    resolved: AtomicUsize,
    gathered: AtomicUsize,
    recorded: Mutex<Vec<Deployment>>,
    glasses: Mutex<Vec<BreakGlass>>,
    summaries: Mutex<Vec<Summary>>,
    judged: Mutex<Vec<String>>,
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn now() -> Timestamp {
    "2026-11-24T05:00:00Z".parse().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn judgement(world: &World, evidence: &Evidence) -> Judgement {
    let with = |decision, code, message: &str| Verdict {
        decision,
        reasons: vec![Reason::new(code, message, "ask who builds it")],
        warnings: Vec::new(),
        policies: vec![("base".to_owned(), digest("base"))],
    };
    if world.is_nobodys {
        let verdict = Verdict { policies: vec![], ..with(Decision::Allow, Code::NoPolicyMatched, "nobody's") };
        return Judgement { verdict, mode: Mode::Enforce, audited: vec![] };
    }
    let is_proven = evidence.sources.iter().any(|(source, _)| match source {
        Source::Log => world.logged.contains(&evidence.digest),
        Source::Registry => world.attached.contains(&evidence.digest),
        Source::Given => false,
    });
    let verdict = if world.revoked.contains(&evidence.digest) {
        with(Decision::Deny, Code::ArtifactRevoked, "revoked")
    } else if is_proven {
        with(Decision::Allow, Code::Other, "signed")
    } else if evidence.gap().is_some() {
        with(Decision::Unknown, Code::RegistryUnavailable, "could not look")
    } else {
        with(Decision::Deny, Code::SignatureMissing, "nobody signs it")
    };
    Judgement { verdict, mode: world.mode.unwrap_or(Mode::Enforce), audited: Vec::new() }
}

fn parts(world: World) -> (Parts, Arc<Asked>) {
    let (world, asked) = (Arc::new(world), Arc::new(Asked::default()));
    let (w, a) = (Arc::clone(&world), Arc::clone(&asked));
    let resolve: countersign::admission::parts::Resolve = Box::new(move |image: ImageRef, _deadline| {
        let (world, asked) = (Arc::clone(&w), Arc::clone(&a));
        Box::pin(async move {
            asked.resolved.fetch_add(1, Ordering::SeqCst);
            if world.is_silent {
                std::future::pending::<()>().await;
            }
            if world.is_down {
                return Err(RegistryError::Unavailable {
                    registry: image.name.registry.clone(),
                    detail: "connection refused".to_owned(),
                });
            }
            let known = world.tags.get(image.name.repository.as_str());
            known.copied().ok_or_else(|| RegistryError::NotFound(image.to_string()))
        })
    });
    let (w, a) = (Arc::clone(&world), Arc::clone(&asked));
    let gather: countersign::admission::parts::Gather = Box::new(move |digest, _image, now, _deadline| {
        let (world, asked) = (Arc::clone(&w), Arc::clone(&a));
        Box::pin(async move {
            asked.gathered.fetch_add(1, Ordering::SeqCst);
            let mut evidence = Evidence::new(digest);
            evidence.sources.push((Source::Log, SourceOutcome::Complete(now)));
            let ended = if world.is_down {
                SourceOutcome::Unavailable("connection refused".to_owned())
            } else {
                SourceOutcome::Complete(now)
            };
            evidence.sources.push((Source::Registry, ended));
            Ok(evidence)
        })
    });
    let (a, w) = (Arc::clone(&asked), Arc::clone(&world));
    let judge: countersign::admission::parts::Judge = Box::new(move |question, evidence| {
        a.judged.lock().unwrap().push(question.image.unwrap().to_string());
        judgement(&w, evidence)
    });
    let (a, b, c) = (Arc::clone(&asked), Arc::clone(&asked), Arc::clone(&asked));
    let (unrecordable, log_takes, said) = (world.is_unrecordable, world.log_takes, world.said.clone());
    let entry = move |problem: &str| {
        let problem = problem.to_owned();
        async move {
            match log_takes {
                Some(time) => tokio::time::sleep(time).await,
                None => tokio::task::yield_now().await,
            }
            if unrecordable { Err(problem) } else { Ok(LogRef { origin: "log.example".to_owned(), index: 7 }) }
        }
    };
    let parts = Parts {
        resolve,
        gather,
        judge,
        from_log: Box::new(move |digest, _image, now| {
            let mut evidence = Evidence::new(digest);
            evidence.statements.clone_from(&said);
            evidence.sources.push((Source::Log, SourceOutcome::Complete(now)));
            Box::pin(async move { Ok(evidence) })
        }),
        record: Box::new(move |deployment, _now| {
            a.recorded.lock().unwrap().push(deployment);
            Box::pin(async move { if unrecordable { Err(ReleaseError::Other("no".to_owned())) } else { Ok(None) } })
        }),
        record_break_glass: Box::new(move |glass, _now| {
            b.glasses.lock().unwrap().push(glass);
            Box::pin(entry("the disk is full"))
        }),
        record_summaries: Box::new(move |summaries, _now| {
            let (asked, written) = (Arc::clone(&c), entry("the disk is full"));
            Box::pin(async move {
                written.await?;
                asked.summaries.lock().unwrap().extend(summaries);
                Ok(())
            })
        }),
        policy: digest("policies"),
        own: own(),
    };
    (parts, asked)
}

fn own() -> Identity {
    Identity { subject: "https://log.example".to_owned(), issuer: "https://log.example".to_owned() }
}

fn door(world: World, settings: Settings) -> (Admission, Arc<Asked>) {
    let (parts, asked) = parts(world);
    (Admission::new(parts, settings, Metrics::new()), asked)
}

/// `signed` is in log and registry, `attached` in the registry only, `bare` is unsigned.
fn world() -> World {
    World {
        tags: ["team/signed", "team/attached", "team/bare", "team/revoked"].map(|name| (name, digest(name))).into(),
        logged: vec![digest("team/signed"), digest("team/revoked")],
        attached: vec![digest("team/attached")],
        revoked: vec![digest("team/revoked")],
        ..World::default()
    }
}

fn image(name: &str) -> String {
    format!("registry.example/team/{name}:1")
}

fn pinned(name: &str) -> String {
    format!("registry.example/team/{name}:1@{}", digest(&format!("team/{name}")))
}

fn pod(images: &[&str]) -> Value {
    let containers: Vec<Value> =
        images.iter().enumerate().map(|(i, image)| json!({"name": format!("c{i}"), "image": image})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": containers}})
}

fn deployment(images: &[&str]) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "template": {"spec": pod(images)["spec"]}}
    })
}

fn create(object: Value) -> Review {
    Review {
        uid: "u".to_owned(),
        phase: Phase::Validate,
        operation: Operation::Create,
        kind: Kind::of(&object).unwrap(),
        subresource: String::new(),
        namespace: None,
        environment: None,
        object,
        old_object: Value::Null,
        user: User { name: "alice".to_owned(), groups: vec!["dev".to_owned()] },
        dry_run: false,
    }
}

fn update(old: Value, new: Value) -> Review {
    Review { operation: Operation::Update, old_object: old, ..create(new) }
}

async fn ask(world: World, review: &Review) -> Outcome {
    door(world, Settings::default()).0.review(review, now(), soon()).await
}

fn codes(outcome: &Outcome) -> Vec<Code> {
    outcome.images.iter().flat_map(|image| image.verdict.reasons.iter().map(|reason| reason.code)).collect()
}

fn glass_settings() -> Settings {
    let break_glass =
        BreakGlassSettings { users: ["alice".to_owned()].into(), groups: ["sre".to_owned()].into(), lasts_s: 60 };
    Settings { break_glass, ..Settings::default() }
}

fn annotated(mut object: Value, reason: &str) -> Value {
    object["metadata"]["annotations"] = json!({"countersign.dev/break-glass": reason});
    object
}
