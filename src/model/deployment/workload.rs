//! The Kubernetes object that runs a service, so that the command to go back can name it instead of guessing.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name of an object (DNS-1123 subdomain) and of a container or namespace (DNS-1123 label), in characters.
const SUBDOMAIN: usize = 253;
const LABEL: usize = 63;

/// What kind of object it is: those whose image can be changed in place. A Job cannot be sent back, it is run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkloadKind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `batch/v1`.
    CronJob,
    /// A pod without a controller.
    Pod,
}

impl WorkloadKind {
    /// All.
    pub const ALL: [Self; 5] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::CronJob, Self::Pod];

    /// The kind as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
            Self::Pod => "Pod",
        }
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WorkloadKind {
    type Err = WorkloadError;

    /// In any case, as `kubectl` takes it.
    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or(WorkloadError::Kind)
    }
}

/// Why something is not a [`Workload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// Another kind.
    #[error("must be Deployment, StatefulSet, DaemonSet, CronJob or Pod")]
    Kind,
    /// Not a name of Kubernetes.
    #[error(
        "must be a Kubernetes name: 1 to {0} lower-case letters, digits and dashes{1}, a letter or digit at both ends"
    )]
    Name(usize, &'static str),
}

/// Namespace, kind and name of an object, and the container in it that runs the service. Every part is a name that
/// needs no quoting in a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Workload {
    namespace: String,
    kind: WorkloadKind,
    name: String,
    container: String,
}

#[derive(Deserialize)]
struct Raw {
    namespace: String,
    kind: WorkloadKind,
    name: String,
    container: String,
}

impl TryFrom<Raw> for Workload {
    type Error = WorkloadError;

    fn try_from(raw: Raw) -> Result<Self, WorkloadError> {
        Self::new(&raw.namespace, raw.kind, &raw.name, &raw.container).map_err(|(_field, error)| error)
    }
}

impl Workload {
    /// From its parts.
    ///
    /// # Errors
    /// The part that is not a name of Kubernetes, and why.
    pub fn new(
        namespace: &str,
        kind: WorkloadKind,
        name: &str,
        container: &str,
    ) -> Result<Self, (&'static str, WorkloadError)> {
        label(namespace).map_err(|error| ("namespace", error))?;
        subdomain(name).map_err(|error| ("name", error))?;
        label(container).map_err(|error| ("container", error))?;
        let (namespace, name, container) = (namespace.to_owned(), name.to_owned(), container.to_owned());
        Ok(Self { namespace, kind, name, container })
    }

    /// In which namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Of which kind.
    pub const fn kind(&self) -> WorkloadKind {
        self.kind
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container that runs the service.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The command that makes the object run `image`, which must be pinned.
    pub fn set_image(&self, image: &str) -> String {
        let kind = self.kind.as_str().to_ascii_lowercase();
        let Self { namespace, name, container, .. } = self;
        format!("kubectl --namespace {namespace} set image {kind}/{name} {container}={image}")
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}, container {}", self.kind, self.namespace, self.name, self.container)
    }
}

fn label(text: &str) -> Result<(), WorkloadError> {
    let fits = (1..=LABEL).contains(&text.len()) && is_label(text);
    if fits { Ok(()) } else { Err(WorkloadError::Name(LABEL, "")) }
}

fn subdomain(text: &str) -> Result<(), WorkloadError> {
    let fits = (1..=SUBDOMAIN).contains(&text.len()) && text.split('.').all(is_label);
    if fits { Ok(()) } else { Err(WorkloadError::Name(SUBDOMAIN, " (and dots between them)")) }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(inner)) && text.bytes().all(|byte| inner(byte) || byte == b'-')
}
