//! The operator door: which facts make which answer, what can never make a yes, what is kept warm, and what a shell sees.

mod command;
mod properties;
mod shell;
mod table;
mod warm;

use std::sync::Arc;

use countersign::model::{
    Digest, Evidence, Identity, ImageRef, LogRef, Outcome, Revocation, Revocations, Signer, Source, Statement, Subject,
    Verified,
    deployment::{Deployment, Health, History, Record, Status, Workload, WorkloadKind},
    policy::PolicySet,
    predicate,
    readiness::{Availability, Fact, Facts, Readiness, Weighing, assess},
    revocation::Target,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const ISSUER: &str = "https://sso.example.com";
const IMAGE: &str = "registry.example.com/shop/web:1.0";
const BUILDER: &str = "https://builder.example.com/1";

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// What one would go back to.
fn old() -> Digest {
    Digest::of(b"old")
}

/// What runs now.
fn new() -> Digest {
    Digest::of(b"new")
}

fn at(index: u64) -> LogRef {
    LogRef { origin: "log.example.com".to_owned(), index }
}

fn identity(name: &str) -> Identity {
    Identity { subject: format!("{name}@example.com"), issuer: ISSUER.to_owned() }
}

/// A statement as if it had been verified.
fn said(name: &str, about: Digest, kind: &str, predicate: Value, signed: Timestamp) -> Arc<Verified> {
    let statement = Statement::new(vec![Subject { name: String::new(), digest: about }], kind, predicate).unwrap();
    let key = Digest::of(name.as_bytes());
    Arc::new(Verified::assume_unsafe(statement, Signer::Identity(identity(name)), key, Some(signed), Some(at(7))))
}

fn signed(name: &str, about: Digest) -> Arc<Verified> {
    said(name, about, predicate::SIGN, json!({}), ago(5))
}

/// A signature that stands in no log.
fn unlogged(name: &str, about: Digest) -> Arc<Verified> {
    let logged = signed(name, about);
    let (statement, signer) = (logged.statement().clone(), logged.signer().clone());
    Arc::new(Verified::assume_unsafe(statement, signer, logged.key(), logged.signed_at(), None))
}

fn built(name: &str, about: Digest, builder: &str) -> Arc<Verified> {
    let predicate = json!({
        "buildDefinition": {"buildType": "https://example.com/build/v1", "externalParameters": {}},
        "runDetails": {"builder": {"id": builder}},
    });
    said(name, about, predicate::SLSA_PROVENANCE, predicate, ago(5))
}

fn approved(name: &str, environment: &str, expires: Option<Timestamp>) -> Arc<Verified> {
    let mut predicate = json!({"service": "shop", "environment": environment});
    if let Some(expires) = expires {
        predicate["expiresAt"] = json!(expires);
    }
    said(name, old(), predicate::APPROVAL, predicate, ago(5))
}

/// A scan with these findings (`id` and score), as old as that, with a database as old as that, in hours.
fn scan(name: &str, about: Digest, findings: &[(&str, &str)], age: i64, database: i64) -> Arc<Verified> {
    let results: Vec<Value> =
        findings.iter().map(|(id, score)| json!({"id": id, "severity": [{"method": "nvd", "score": score}]})).collect();
    let predicate = json!({
        "scanner": {"uri": "pkg:scanner", "db": {"lastUpdate": ago(database)}, "result": results},
        "metadata": {"scanFinishedOn": ago(age)},
    });
    said(name, about, predicate::VULNS, predicate, ago(age))
}

const SIGNED: &str = "signers: {anyOf: [{name: ci}]}";
const YOUNG: &str = "signers: {anyOf: [{name: ci}]}\nmaxAge: 24h";
const BUILT: &str = "signers: {anyOf: [{name: ci}]}\npredicates: [{signers: [ci], provenance: {builders: ['https://builder.example.com/*']}}]";
const APPROVED: &str = "signers: {anyOf: [{name: ci}]}\napprovals: {approvers: [{name: boss}]}";
const SCANNED: &str = "signers: {anyOf: [{name: ci}]}\npredicates: [{signers: [ci], vulnerabilities: {maxSeverity: medium, \
                       maxAge: 7d, maxDatabaseAge: 2d, ignore: [{id: CVE-1, until: 2026-12-01}]}}]";

/// A policy set of one policy, its `match` and what it requires.
fn policies(mode: &str, scope: &str, require: &str) -> Arc<PolicySet> {
    let indented = require.trim_matches('\n').replace('\n', "\n      ");
    let text = format!(
        "apiVersion: countersign.dev/v1\nnoMatch: deny\nidentities:\n  \
         - {{name: ci, issuer: '{ISSUER}', subject: ci@example.com}}\n  \
         - {{name: boss, issuer: '{ISSUER}', subject: boss@example.com}}\n\
         policies:\n  - name: shop\n    mode: {mode}\n    match: {scope}\n    require:\n      {indented}\n"
    );
    Arc::new(PolicySet::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

const EVERYTHING: &str = "{images: ['registry.example.com/**']}";

fn enforced(require: &str) -> Arc<PolicySet> {
    policies("enforce", EVERYTHING, require)
}

fn no_match(answer: &str) -> Arc<PolicySet> {
    let text = format!(
        "apiVersion: countersign.dev/v1\nnoMatch: {answer}\npolicies:\n  - {{name: none, match: {{images: \
         ['none.invalid/none']}}, require: {{digestRequired: true}}}}\n"
    );
    Arc::new(PolicySet::parse(&text).unwrap())
}

fn deployed(index: u64, digest: Digest, status: Status, hours: i64) -> Record {
    deployed_by(index, digest, status, hours, None)
}

fn deployed_by(index: u64, digest: Digest, status: Status, hours: i64, workload: Option<Workload>) -> Record {
    let deployment = Deployment {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest,
        image: IMAGE.to_owned(),
        status,
        version: None,
        region: None,
        workload,
        by: "cd".to_owned(),
    };
    Record::Deployment(deployment, at(index), ago(hours))
}

fn reported(index: u64, digest: Digest, healthy: bool) -> Record {
    let health = Health {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest,
        healthy,
        detail: String::new(),
        by: "cd".to_owned(),
    };
    Record::Health(health, at(index), ago(20))
}

fn workload(namespace: &str, name: &str, container: &str) -> Workload {
    Workload::new(namespace, WorkloadKind::Deployment, name, container).unwrap()
}

fn there(missing: &[&str]) -> Fact<Availability> {
    let missing = missing.iter().map(|&part| part.to_owned()).collect();
    let value = Availability { platforms: vec!["linux/amd64".to_owned(), "linux/arm64".to_owned()], blobs: 9, missing };
    Fact::Known { value, as_of: now() }
}

/// Everything from which the answer follows. As it is made, the answer is `SAFE`.
#[derive(Debug, Clone)]
struct World {
    policies: Arc<PolicySet>,
    /// What is said about the target.
    target: Vec<Arc<Verified>>,
    /// What is said about what runs now.
    running: Vec<Arc<Verified>>,
    /// The registry could not be read for evidence.
    has_gap: bool,
    revoked: Vec<(Target, Timestamp)>,
    records: Vec<Record>,
    availability: Fact<Availability>,
    asked: Digest,
}

impl World {
    fn safe() -> Self {
        Self {
            policies: enforced(SIGNED),
            target: vec![signed("ci", old())],
            running: vec![signed("ci", new())],
            has_gap: false,
            revoked: Vec::new(),
            records: vec![
                deployed(1, old(), Status::Live, 48),
                reported(2, old(), true),
                deployed(3, new(), Status::Live, 24),
            ],
            availability: there(&[]),
            asked: old(),
        }
    }

    fn under(policies: Arc<PolicySet>) -> Self {
        Self { policies, ..Self::safe() }
    }

    /// Scans of the target and of what runs now, with these findings.
    fn scanned(mode: &str, target: &[(&str, &str)], running: &[(&str, &str)]) -> Self {
        let mut world = Self::under(policies(mode, EVERYTHING, SCANNED));
        world.target.push(scan("ci", old(), target, 3, 4));
        world.running.push(scan("ci", new(), running, 3, 4));
        world
    }

    fn evidence(&self, digest: Digest, statements: &[Arc<Verified>]) -> Evidence {
        let mut evidence = Evidence::new(digest);
        evidence.statements = statements.to_vec();
        evidence.sources.push((Source::Log, Outcome::Complete(now())));
        if self.has_gap {
            evidence.sources.push((Source::Registry, Outcome::Unavailable("throttled".to_owned())));
        }
        evidence
    }

    fn facts(&self) -> Facts {
        let history = History::fold(&self.records);
        let mut revocations = Revocations::default();
        for (index, (target, since)) in self.revoked.iter().enumerate() {
            let revocation = Revocation { target: target.clone(), since: *since, reason: "stolen".to_owned() };
            revocations.insert(revocation, at(100 + index as u64));
        }
        let revision = history.revision(&self.asked).cloned();
        let running = history.running.and_then(|digest| history.revision(&digest)).cloned();
        let image: Option<ImageRef> =
            revision.as_ref().and_then(|revision| Some(revision.image.parse::<ImageRef>().ok()?.pinned(self.asked)));
        let (about, before) = (self.evidence(self.asked, &self.target), self.evidence(new(), &self.running));
        let namespace = running.as_ref().and_then(|running| Some(running.workloads.first()?.namespace().to_owned()));
        let weighing = Weighing {
            policies: &self.policies,
            revocations: &revocations,
            service: "shop",
            environment: "production",
            namespace: namespace.as_deref(),
            running: Some(&before),
            now: now(),
        };
        let availability = self.availability.clone();
        let target = weighing.target(self.asked, image.as_ref(), revision, Ok(&about), availability);
        Facts {
            service: "shop".to_owned(),
            environment: "production".to_owned(),
            now: now(),
            is_known_place: !history.revisions.is_empty(),
            running,
            running_scan: weighing.running_scan(),
            under_way: history.under_way(now(), SignedDuration::from_hours(1)).cloned().collect(),
            target,
            policy: self.policies.digest(),
        }
    }

    fn answer(&self) -> Readiness {
        assess(&self.facts())
    }
}
