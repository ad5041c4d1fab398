//! What an operator decides about admission beside the policy.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;

use crate::model::policy::Mode;

/// Settings of the cluster door; every field is optional in the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The strictest mode that applies, whatever a policy says: `enforce` (the default) leaves policies as they are,
    /// `warn` admits everything and says so to the user, `audit` admits everything and only records.
    pub mode: Mode,
    /// Namespaces in which nothing is judged, so that the webhook can never keep itself, or the cluster's own parts,
    /// from starting. Whoever may create pods in these passes unchecked, so keep the list short. Default:
    /// `countersign-system` and `kube-system`. The webhook configuration should exclude the same ones.
    pub exempt_namespaces: BTreeSet<String>,
    /// What happens to an object that is not allowed in mode `enforce`, by the kind of no.
    pub on_failure: OnFailure,
    /// Who may break the glass, and for how long.
    pub break_glass: BreakGlassSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            exempt_namespaces: ["countersign-system", "kube-system"].map(str::to_owned).into(),
            on_failure: OnFailure::default(),
            break_glass: BreakGlassSettings::default(),
        }
    }
}

/// A failure mode for each class of outcome. Closed for all three unless configured otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnFailure {
    /// Policy says no.
    pub denied: FailureMode,
    /// Nothing is known that the policy asks for.
    pub no_evidence: FailureMode,
    /// It could not be decided: registry, trust material, time.
    pub could_not_tell: FailureMode,
}

impl OnFailure {
    /// The mode of one class.
    pub const fn of(self, class: Class) -> FailureMode {
        match class {
            Class::Denied => self.denied,
            Class::NoEvidence => self.no_evidence,
            Class::CouldNotTell => self.could_not_tell,
        }
    }
}

/// Refuse, or admit with a warning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureMode {
    /// The object is refused.
    #[default]
    Closed,
    /// The object is admitted with a warning.
    Open,
}

/// What kind of no it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Could not tell.
    CouldNotTell,
    /// Denied, because nothing is known that the policy asks for.
    NoEvidence,
    /// Denied by policy.
    Denied,
}

impl Class {
    /// The name in audit lines and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CouldNotTell => "could-not-tell",
            Self::NoEvidence => "no-evidence",
            Self::Denied => "denied",
        }
    }
}

/// Who may admit an object against the verdict by the annotation `countersign.dev/break-glass: "<reason>"`.
/// Nobody, unless named here.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakGlassSettings {
    /// Kubernetes user names.
    pub users: BTreeSet<String>,
    /// Kubernetes groups.
    pub groups: BTreeSet<String>,
    /// For how long the same images may follow in the same namespace, as the pods of a Deployment must. Seconds;
    /// default 3,600, at most a day.
    pub lasts_s: u32,
}

impl Default for BreakGlassSettings {
    fn default() -> Self {
        Self { users: BTreeSet::new(), groups: BTreeSet::new(), lasts_s: 3_600 }
    }
}

impl BreakGlassSettings {
    /// How long a grant lasts.
    pub fn lasts(&self) -> Duration {
        Duration::from_secs(u64::from(self.lasts_s.min(86_400)))
    }
}
