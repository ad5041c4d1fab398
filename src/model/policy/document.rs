//! The YAML as it is written: strict, and not yet checked for sense. See `compile`.

use serde::Deserialize;

use super::{Mode, NoMatch, PolicyError, Severity};
use crate::model::limits;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Document {
    pub api_version: String,
    pub kind: Option<String>,
    pub no_match: Option<NoMatch>,
    pub identities: Option<Vec<Signer>>,
    pub policies: Option<Vec<Policy>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Policy {
    pub name: String,
    #[serde(default)]
    pub mode: Mode,
    #[serde(rename = "match")]
    pub scope: Scope,
    pub require: Require,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Scope {
    pub images: Option<Vec<String>>,
    pub namespaces: Option<Vec<String>>,
    pub environments: Option<Vec<String>>,
    pub services: Option<Vec<String>>,
    pub exclude: Option<Exclude>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Exclude {
    pub images: Option<Vec<String>>,
    pub namespaces: Option<Vec<String>>,
    pub environments: Option<Vec<String>>,
    pub services: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Require {
    pub signers: Option<Signers>,
    pub max_age: Option<String>,
    pub predicates: Option<Vec<Predicate>>,
    pub approvals: Option<Approvals>,
    #[serde(default)]
    pub digest_required: bool,
    pub rules: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Signers {
    pub threshold: Option<usize>,
    pub any_of: Vec<Signer>,
    pub accept: Option<Vec<Accept>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Accept {
    Sign,
    Provenance,
}

/// A signer in full, or by the name of one in `identities` or `anyOf`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Signer {
    pub name: String,
    pub issuer: Option<String>,
    pub issuer_regexp: Option<String>,
    pub subject: Option<String>,
    pub subject_regexp: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Predicate {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub signers: Option<Vec<String>>,
    pub max_age: Option<String>,
    pub provenance: Option<Provenance>,
    pub vulnerabilities: Option<Vulnerabilities>,
    pub sbom: Option<Sbom>,
    pub tests: Option<Tests>,
    pub vsa: Option<Vsa>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Provenance {
    pub builders: Option<Vec<String>>,
    pub sources: Option<Vec<String>>,
    pub build_types: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Vulnerabilities {
    pub max_severity: Option<MaxSeverity>,
    pub max_counts: Option<Counts>,
    pub ignore: Option<Vec<Ignore>>,
    pub max_age: Option<String>,
    pub max_database_age: Option<String>,
}

/// The worst severity that may be there at all.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MaxSeverity {
    None,
    Low,
    Medium,
    High,
}

impl MaxSeverity {
    pub(super) fn forbids(self, severity: Severity) -> bool {
        match self {
            Self::None => true,
            Self::Low => severity > Severity::Low,
            Self::Medium => severity > Severity::Medium,
            Self::High => severity > Severity::High,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Counts {
    pub low: Option<u64>,
    pub medium: Option<u64>,
    pub high: Option<u64>,
    pub critical: Option<u64>,
    pub unrated: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Ignore {
    pub id: String,
    pub until: String,
    /// For people; nothing reads it.
    #[serde(rename = "reason")]
    pub _reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Sbom {
    pub formats: Vec<SbomFormat>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SbomFormat {
    Spdx,
    Cyclonedx,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Tests {
    pub max_age: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Vsa {
    pub verifiers: Vec<String>,
    pub levels: Vec<String>,
    pub resources: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Approvals {
    pub count: Option<usize>,
    pub environments: Option<Vec<String>>,
    pub approvers: Vec<Signer>,
    pub max_age: Option<String>,
    #[serde(default)]
    pub separate_duties: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rule {
    pub name: String,
    pub expression: String,
    pub message: String,
    #[serde(default)]
    pub remedy: String,
}

/// Reads all documents of a text within bounds on nodes, depth and aliases.
pub(super) fn read(yaml: &str) -> Result<Vec<Document>, PolicyError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: limits::POLICIES,
            max_depth: limits::JSON_DEPTH,
            max_aliases: limits::POLICY_LIST,
            max_anchors: limits::POLICY_LIST,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(yaml, options).map_err(|source| PolicyError::Yaml(limits::quoted(&source)))
}
