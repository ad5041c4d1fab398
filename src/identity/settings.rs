//! What an operator writes under `[identity]`. The doc comment on each field is the manual.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Role;

/// Who may call, and as what. Without issuers and without a client CA nobody can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The OIDC issuers whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// PEM file of the authorities that sign client certificates; none means no mutual TLS.
    pub client_ca_file: Option<PathBuf>,
    /// The issuer that stands in the identity of a mutual-TLS caller, and in the certificates it gets. No OIDC issuer
    /// may have the same URL.
    pub mtls_issuer: String,
    /// Which callers hold which roles. A caller holds the roles of every rule that it matches; one that matches none
    /// is refused.
    pub rules: Vec<Rule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuers: Vec::new(),
            client_ca_file: None,
            mtls_issuer: "urn:countersign:mtls".to_owned(),
            rules: Vec::new(),
        }
    }
}

/// One OIDC issuer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// The issuer URL, exactly as the `iss` claim has it. `https`, without query and fragment.
    pub url: String,
    /// The audience that must be in the `aud` claim.
    #[serde(default = "audience")]
    pub audience: String,
    /// A JWKS file, for sites without a way to the issuer: no discovery, nothing is fetched. Read at start.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// PEM file of the authorities that the issuer's own TLS certificate must come from; the system's when absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How the caller's subject is made from the claims.
    #[serde(default)]
    pub subject: SubjectForm,
    /// By how many seconds the issuer's clock and ours may differ.
    #[serde(default = "clock_skew_s")]
    pub clock_skew_s: u32,
    /// The longest time from issue to expiry that a token may have, in seconds.
    #[serde(default = "max_lifetime_s")]
    pub max_lifetime_s: u32,
    /// After how many seconds fetched keys are fetched again.
    #[serde(default = "refresh_after_s")]
    pub refresh_after_s: u32,
    /// The least time between two fetches in seconds, whatever key ids strangers invent.
    #[serde(default = "retry_after_s")]
    pub retry_after_s: u32,
    /// For how many seconds after their fetch known keys count while the issuer cannot be asked.
    #[serde(default = "stale_for_s")]
    pub stale_for_s: u32,
    /// Allows `http://` to a loopback address. For tests alone: whoever answers there decides who is who.
    #[serde(default)]
    pub plain_http_unsafe: bool,
}

impl Issuer {
    /// An issuer with every default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            audience: audience(),
            jwks_file: None,
            ca_file: None,
            subject: SubjectForm::default(),
            clock_skew_s: clock_skew_s(),
            max_lifetime_s: max_lifetime_s(),
            refresh_after_s: refresh_after_s(),
            retry_after_s: retry_after_s(),
            stale_for_s: stale_for_s(),
            plain_http_unsafe: false,
        }
    }
}

fn audience() -> String {
    "countersign".to_owned()
}

const fn clock_skew_s() -> u32 {
    30
}

const fn max_lifetime_s() -> u32 {
    24 * 60 * 60
}

const fn refresh_after_s() -> u32 {
    15 * 60
}

const fn retry_after_s() -> u32 {
    10
}

const fn stale_for_s() -> u32 {
    24 * 60 * 60
}

/// How a certificate's subject is made from the claims of a token. The forms are those of Fulcio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectForm {
    /// The `email` claim; `email_verified` must be true.
    Email,
    /// The `sub` claim, which must be an absolute URI.
    #[default]
    Uri,
    /// The `sub` claim, which must be `spiffe://<trust domain>/<path>`.
    Spiffe,
    /// `https://github.com/<job_workflow_ref>`.
    Github,
    /// `https://<ci_config_ref_uri>`.
    Gitlab,
    /// `https://kubernetes.io/namespaces/<namespace>/serviceaccounts/<name>`, from the `kubernetes.io` claim.
    Kubernetes,
}

/// One rule: whoever matches all of it holds its roles.
///
/// Patterns are globs when they contain one of `*?[{\`, else they must be equal. `*` stays within one `/`-separated
/// part, `**` as a whole part crosses them: `https://github.com/org/*/.github/workflows/release.yml@refs/tags/*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Pattern for the issuer: an OIDC issuer's URL, or `mtls_issuer`.
    pub issuer: String,
    /// Pattern for the subject; a DNS name from a client certificate reads `dns:<name>`.
    pub subject: String,
    /// Patterns for further claims of the token; all must match. A name is a claim's, or the path to a nested one with
    /// dots between. A list matches when one of its elements does; an object never does. No client certificate has claims.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// The roles; at least one.
    pub roles: Vec<Role>,
}
