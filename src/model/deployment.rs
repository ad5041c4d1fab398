//! What runs where: deployments, health reports and approvals, and the history folded from them.
//!
//! Each noun maps to an in-toto statement of our own predicate type (fields documented at the type) and back. The
//! history of one service in one environment is a pure fold over such statements in log order; nothing else is the
//! truth about what ran. Who may record what is decided before a statement is written, not here.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    digest::Digest,
    limits, predicate,
    statement::{Statement, StatementError, Subject},
};

mod history;
mod workload;

pub use history::{History, Progress, Record, Reported, Revision};
pub use workload::{Workload, WorkloadError, WorkloadKind};

/// The string is not usable as the name of a service, environment, region or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Over [`limits::NAME`].
    #[error("has {0} characters; the limit is {limit}", limit = limits::NAME)]
    TooLong(usize),
    /// A character that is not allowed.
    #[error("may hold letters, digits and . _ - / + only, and begins and ends with a letter or digit")]
    Characters,
}

/// Checks the name of a service, environment, region or version: letters, digits, `.`, `_`, `-`, `/`, `+`, at most
/// [`limits::NAME`] long, with a letter or digit at both ends.
pub fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > limits::NAME {
        return Err(NameError::TooLong(text.len()));
    }
    let edges = [text.chars().next(), text.chars().next_back()];
    let edges_hold = edges.iter().flatten().all(char::is_ascii_alphanumeric);
    if edges_hold && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/+".contains(c)) {
        Ok(())
    } else {
        Err(NameError::Characters)
    }
}

/// A statement is not the record that its predicate type promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} record: {problem}")]
pub struct RecordError {
    /// Which record was expected.
    pub kind: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// How a deployment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It began and has not ended.
    InProgress,
    /// It runs.
    Live,
    /// It did not come up.
    Failed,
    /// It ran, and another revision was put back in its place.
    RolledBack,
    /// It ran, and a newer one took its place.
    Superseded,
}

impl Status {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::InProgress, Self::Live, Self::Failed, Self::RolledBack, Self::Superseded];

    /// The name in JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The string is not a deployment status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown status; use in_progress, live, failed, rolled_back or superseded")]
pub struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// A digest that was put to run as a service in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// What runs.
    pub digest: Digest,
    /// The image's name, with or without a tag: `registry.example.com/team/app:1.2`.
    pub image: String,
    /// How it stands.
    pub status: Status,
    /// The release's version, for people.
    pub version: Option<String>,
    /// The region or cluster.
    pub region: Option<String>,
    /// The Kubernetes object that runs it, if that is known.
    pub workload: Option<Workload>,
    /// Who deployed it.
    pub by: String,
}

/// Whether a digest works as a service in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// What was observed.
    pub digest: Digest,
    /// Whether it works.
    pub healthy: bool,
    /// What was seen, in one sentence; may be empty.
    pub detail: String,
    /// Who reported it.
    pub by: String,
}

/// Somebody's consent that a digest may run as a service in an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// What is approved.
    pub digest: Digest,
    /// Why, in the approver's words; may be empty.
    pub comment: String,
    /// Until when it counts; for ever when absent.
    pub expires: Option<Timestamp>,
    /// Who approved.
    pub by: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeploymentPredicate {
    service: String,
    environment: String,
    #[serde(default)]
    image: String,
    status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Workload>,
    #[serde(default)]
    deployed_by: String,
    recorded_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HealthPredicate {
    service: String,
    environment: String,
    healthy: bool,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    reported_by: String,
    recorded_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApprovalPredicate {
    service: String,
    environment: String,
    #[serde(default)]
    comment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "expiresAt")]
    expires: Option<Timestamp>,
    #[serde(default)]
    approved_by: String,
    recorded_at: Timestamp,
}

impl Deployment {
    /// The statement that records it at `now`; its subject is the digest under the image's name.
    pub fn to_statement(&self, now: Timestamp) -> Result<Statement, StatementError> {
        let predicate = DeploymentPredicate {
            service: self.service.clone(),
            environment: self.environment.clone(),
            image: self.image.clone(),
            status: self.status,
            version: self.version.clone(),
            region: self.region.clone(),
            workload: self.workload.clone(),
            deployed_by: self.by.clone(),
            recorded_at: now,
        };
        record(&self.image, self.digest, predicate::DEPLOYMENT, &predicate)
    }

    /// Reads it back, with the time at which it was recorded.
    pub fn from_statement(statement: &Statement) -> Result<(Self, Timestamp), RecordError> {
        let (digest, read): (_, DeploymentPredicate) = read("deployment", predicate::DEPLOYMENT, statement)?;
        let deployment = Self {
            service: read.service,
            environment: read.environment,
            digest,
            image: read.image,
            status: read.status,
            version: read.version,
            region: read.region,
            workload: read.workload,
            by: read.deployed_by,
        };
        Ok((deployment, read.recorded_at))
    }
}

impl Health {
    /// The statement that records it at `now`.
    pub fn to_statement(&self, now: Timestamp) -> Result<Statement, StatementError> {
        let predicate = HealthPredicate {
            service: self.service.clone(),
            environment: self.environment.clone(),
            healthy: self.healthy,
            detail: self.detail.clone(),
            reported_by: self.by.clone(),
            recorded_at: now,
        };
        record("", self.digest, predicate::HEALTH, &predicate)
    }

    /// Reads it back, with the time at which it was recorded.
    pub fn from_statement(statement: &Statement) -> Result<(Self, Timestamp), RecordError> {
        let (digest, read): (_, HealthPredicate) = read("health", predicate::HEALTH, statement)?;
        let health = Self {
            service: read.service,
            environment: read.environment,
            digest,
            healthy: read.healthy,
            detail: read.detail,
            by: read.reported_by,
        };
        Ok((health, read.recorded_at))
    }
}

impl Approval {
    /// The statement that records it at `now`.
    pub fn to_statement(&self, now: Timestamp) -> Result<Statement, StatementError> {
        let predicate = ApprovalPredicate {
            service: self.service.clone(),
            environment: self.environment.clone(),
            comment: self.comment.clone(),
            expires: self.expires,
            approved_by: self.by.clone(),
            recorded_at: now,
        };
        record("", self.digest, predicate::APPROVAL, &predicate)
    }

    /// Reads it back, with the time at which it was recorded.
    pub fn from_statement(statement: &Statement) -> Result<(Self, Timestamp), RecordError> {
        let (digest, read): (_, ApprovalPredicate) = read("approval", predicate::APPROVAL, statement)?;
        let approval = Self {
            service: read.service,
            environment: read.environment,
            digest,
            comment: read.comment,
            expires: read.expires,
            by: read.approved_by,
        };
        Ok((approval, read.recorded_at))
    }
}

fn record(
    name: &str,
    digest: Digest,
    predicate_type: &str,
    predicate: &impl Serialize,
) -> Result<Statement, StatementError> {
    let predicate = serde_json::to_value(predicate).map_err(|source| StatementError::Json(source.to_string()))?;
    Statement::new(vec![Subject { name: name.to_owned(), digest }], predicate_type, predicate)
}

fn read<P: DeserializeOwned>(
    kind: &'static str,
    predicate_type: &str,
    statement: &Statement,
) -> Result<(Digest, P), RecordError> {
    let problem = |problem: String| RecordError { kind, problem };
    if statement.predicate_type() != predicate_type {
        return Err(problem(format!("its predicate type is {}", limits::quoted(&statement.predicate_type()))));
    }
    let [subject] = statement.subjects() else {
        return Err(problem("it has more than one subject".to_owned()));
    };
    let predicate: &Value = statement.predicate();
    let read = P::deserialize(predicate).map_err(|source| problem(limits::quoted(&source)))?;
    Ok((subject.digest, read))
}
