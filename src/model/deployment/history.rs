//! The fold from records to history.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Approval, Deployment, Health, RecordError, Status, Workload};
use crate::model::{digest::Digest, limits, predicate, statement::Statement, verdict::LogRef};

/// One statement about a service in an environment, with its place in the log and the time it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A deployment.
    Deployment(Deployment, LogRef, Timestamp),
    /// A health report.
    Health(Health, LogRef, Timestamp),
    /// An approval.
    Approval(Approval, LogRef, Timestamp),
}

impl Record {
    /// Reads a logged statement; `None` when its predicate type is not one of these.
    pub fn read(statement: &Statement, at: LogRef) -> Option<Result<Self, RecordError>> {
        match statement.predicate_type() {
            predicate::DEPLOYMENT => {
                Some(Deployment::from_statement(statement).map(|(record, time)| Self::Deployment(record, at, time)))
            }
            predicate::HEALTH => {
                Some(Health::from_statement(statement).map(|(record, time)| Self::Health(record, at, time)))
            }
            predicate::APPROVAL => {
                Some(Approval::from_statement(statement).map(|(record, time)| Self::Approval(record, at, time)))
            }
            _ => None,
        }
    }

    /// Where it is logged.
    pub const fn at(&self) -> &LogRef {
        match self {
            Self::Deployment(_, at, _) | Self::Health(_, at, _) | Self::Approval(_, at, _) => at,
        }
    }

    /// Service and environment.
    pub fn place(&self) -> (&str, &str) {
        match self {
            Self::Deployment(record, ..) => (&record.service, &record.environment),
            Self::Health(record, ..) => (&record.service, &record.environment),
            Self::Approval(record, ..) => (&record.service, &record.environment),
        }
    }
}

/// A health report as the history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Whether it works.
    pub healthy: bool,
    /// What was seen.
    pub detail: String,
    /// When it was recorded.
    pub time: Timestamp,
    /// Where.
    pub at: LogRef,
}

/// Everything known of one digest in one service and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The digest.
    pub digest: Digest,
    /// The image's name, as recorded last.
    pub image: String,
    /// The version, as recorded last.
    pub version: Option<String>,
    /// The region, as recorded last.
    pub region: Option<String>,
    /// The Kubernetes objects that were recorded as running it, at most [`limits::WORKLOADS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<Workload>,
    /// Who deployed it last.
    pub by: String,
    /// The newest status.
    pub status: Status,
    /// When that status was recorded.
    pub status_since: Timestamp,
    /// When it last went live; `None` when it never did.
    pub live_since: Option<Timestamp>,
    /// The newest health report.
    pub health: Option<Reported>,
    /// How many approvals name it.
    pub approvals: usize,
    /// Where its newest deployment record is logged.
    pub at: LogRef,
}

/// A deployment that began and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being deployed.
    pub digest: Digest,
    /// Since when.
    pub since: Timestamp,
    /// By whom.
    pub by: String,
    /// Where it is logged.
    pub at: LogRef,
}

/// What ran as one service in one environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Every revision that was ever recorded, the newest first: by the time it last went live, then those that never
    /// did, by record.
    pub revisions: Vec<Revision>,
    /// What runs now.
    pub running: Option<Digest>,
    /// Deployments that have not ended, oldest first.
    pub progress: Vec<Progress>,
    /// What the newest deployment record is about.
    pub newest: Option<Digest>,
}

impl History {
    /// Folds records of one service and environment, given in the order in which they were logged. Where they are
    /// logged does not say that: a new log may take over, under any name.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut fold = Fold::default();
        for record in records {
            match record {
                Record::Deployment(deployment, at, time) => fold.deployment(deployment, at, *time),
                Record::Health(health, at, time) => fold.health(health, at, *time),
                Record::Approval(approval, ..) => *fold.approvals.entry(approval.digest).or_default() += 1,
            }
        }
        fold.finish()
    }

    /// The revision of `digest`.
    pub fn revision(&self, digest: &Digest) -> Option<&Revision> {
        self.revisions.iter().find(|revision| revision.digest == *digest)
    }

    /// The revisions that one could go back to: they ran here and are not what runs now. Newest first.
    pub fn earlier(&self) -> impl Iterator<Item = &Revision> {
        self.revisions.iter().filter(|revision| revision.live_since.is_some() && Some(revision.digest) != self.running)
    }

    /// Deployments under way at `now`: begun less than `within` ago. An older one was forgotten, not finished.
    pub fn under_way(&self, now: Timestamp, within: SignedDuration) -> impl Iterator<Item = &Progress> {
        self.progress.iter().filter(move |progress| now.duration_since(progress.since) <= within)
    }
}

#[derive(Default)]
struct Fold {
    revisions: BTreeMap<Digest, Revision>,
    health: BTreeMap<Digest, Reported>,
    approvals: BTreeMap<Digest, usize>,
    /// Digests that went live and did not stop, the newest last.
    live: Vec<Digest>,
    /// Deployments that have not ended, oldest first.
    progress: Vec<Progress>,
    /// How many deployment records came before.
    counted: usize,
    /// The numbers of the records by which a digest last went live and was last recorded, for the order of revisions.
    order: BTreeMap<Digest, (Option<usize>, usize)>,
    newest: Option<Digest>,
}

impl Fold {
    fn deployment(&mut self, deployment: &Deployment, at: &LogRef, time: Timestamp) {
        let digest = deployment.digest;
        let known = self.revisions.remove(&digest);
        let is_running = self.live.last() == Some(&digest);
        let live_since = match (deployment.status, known.as_ref()) {
            (Status::Live, known) if !is_running || known.is_none() => Some(time),
            (_, known) => known.and_then(|known| known.live_since),
        };
        let known_of = |pick: fn(Revision) -> Option<String>| known.clone().and_then(pick);
        let workloads = self.workloads(deployment, known.as_ref());
        self.revisions.insert(
            digest,
            Revision {
                digest,
                image: deployment.image.clone(),
                version: deployment.version.clone().or_else(|| known_of(|known| known.version)),
                region: deployment.region.clone().or_else(|| known_of(|known| known.region)),
                workloads,
                by: deployment.by.clone(),
                status: deployment.status,
                status_since: time,
                live_since,
                health: None,
                approvals: 0,
                at: at.clone(),
            },
        );
        let went_live = self.order.get(&digest).and_then(|(live, _recorded)| *live);
        let went_live = if deployment.status == Status::Live { Some(self.counted) } else { went_live };
        self.order.insert(digest, (went_live, self.counted));
        self.counted += 1;
        self.newest = Some(digest);
        self.progress.retain(|progress| progress.digest != digest);
        match deployment.status {
            Status::InProgress => {
                let by = deployment.by.clone();
                self.progress.push(Progress { digest, since: time, by, at: at.clone() });
            }
            Status::Live => {
                self.live.retain(|known| *known != digest);
                self.live.push(digest);
            }
            Status::Failed | Status::RolledBack | Status::Superseded => self.live.retain(|known| *known != digest),
        }
    }

    /// Those known while it runs, and the one that is named now. When it comes to run anew, whatever ran it long ago
    /// no longer counts.
    fn workloads(&self, deployment: &Deployment, known: Option<&Revision>) -> Vec<Workload> {
        let known = known.map(|known| known.workloads.clone()).unwrap_or_default();
        let Some(workload) = deployment.workload.clone() else { return known };
        if self.live.last() != Some(&deployment.digest) {
            return vec![workload];
        }
        let is_new = !known.contains(&workload) && known.len() < limits::WORKLOADS;
        known.into_iter().chain(is_new.then_some(workload)).collect()
    }

    fn health(&mut self, health: &Health, at: &LogRef, time: Timestamp) {
        let reported = Reported { healthy: health.healthy, detail: health.detail.clone(), time, at: at.clone() };
        self.health.insert(health.digest, reported);
    }

    fn finish(mut self) -> History {
        let mut revisions: Vec<_> = std::mem::take(&mut self.revisions).into_values().collect();
        for revision in &mut revisions {
            revision.health = self.health.remove(&revision.digest);
            revision.approvals = self.approvals.remove(&revision.digest).unwrap_or_default();
        }
        revisions.sort_by_key(|revision| std::cmp::Reverse(self.order.get(&revision.digest).copied()));
        let Self { progress, newest, .. } = self;
        History { revisions, running: self.live.last().copied(), progress, newest }
    }
}
