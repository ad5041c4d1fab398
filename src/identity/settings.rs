//! What an operator writes under `[identity]`. The doc comment on each field is the manual.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::model::{KeyName, Role};

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
    /// The audience that must be in the `aud` claim, or a list of which one must be. Sigstore clients ask their issuer for
    /// tokens with the audience `sigstore`: list it beside ours where they get certificates here.
    #[serde(default = "audience", deserialize_with = "one_or_more")]
    pub audience: Vec<String>,
    /// A JWKS file, for sites without a way to the issuer: no discovery, nothing is fetched. Read at start.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// PEM file of the authorities that the issuer's own TLS certificate must come from; the system's when absent.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How the caller's subject is made from the claims.
    #[serde(default)]
    pub subject: SubjectForm,
    /// The domain that subjects must belong to. For `username` it must be given, as in `example.org`, and stands in the
    /// subject; for `spiffe` it is the trust domain, and for `uri` scheme and host, as in `https://example.org`: tokens
    /// of another one are refused.
    #[serde(default)]
    pub subject_domain: Option<String>,
    /// Where the repositories and pipelines are, as in `https://git.example.org`, for `github`, `gitlab` and `buildkite`.
    /// Default: `https://github.com`, the issuer's own URL, `https://buildkite.com`.
    #[serde(default)]
    pub server_url: Option<String>,
    /// Changes what certificates say of this issuer's tokens: from the name of an extension of Fulcio's certificate
    /// profile to the claim that fills it. The forms `github`, `gitlab` and `buildkite` fill them by themselves as Fulcio
    /// does, and every form fills `token_subject` with `sub`.
    ///
    /// A claim is written as under [`Rule::claims`], or inside of a text: `https://git.example.org/{project_path}`. A
    /// token without it is refused, unless a `?` stands at the end: then the extension is left out. An empty text takes
    /// an extension away. Names: `build_signer_uri`, `build_signer_digest`, `runner_environment`, `source_repository_uri`,
    /// `source_repository_digest`, `source_repository_ref`, `source_repository_identifier`, `source_repository_owner_uri`,
    /// `source_repository_owner_identifier`, `build_config_uri`, `build_config_digest`, `build_trigger`,
    /// `run_invocation_uri`, `source_repository_visibility`, `deployment_environment`, `token_subject`, and GitHub's
    /// older `workflow_trigger`, `workflow_sha`, `workflow_name`, `workflow_repository`, `workflow_ref`. A value has at
    /// most 1,024 bytes and no control characters; a token with another one is refused.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
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
    /// Whether a token counts once: for one certificate, or for one call that signs. Then one that was used is refused
    /// (`TOKEN_REPLAYED`) until it expires, whatever came of its first use. Which were used is not remembered over a
    /// restart. Default: false, as Sigstore's own authority has it, whose clients sign several artifacts with one token.
    #[serde(default)]
    pub single_use: bool,
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
            subject_domain: None,
            server_url: None,
            claims: BTreeMap::new(),
            clock_skew_s: clock_skew_s(),
            max_lifetime_s: max_lifetime_s(),
            refresh_after_s: refresh_after_s(),
            retry_after_s: retry_after_s(),
            stale_for_s: stale_for_s(),
            single_use: false,
            plain_http_unsafe: false,
        }
    }

    /// Where the repositories and pipelines of its tokens are; no slash at the end.
    pub(super) fn server(&self) -> &str {
        self.server_url.as_deref().unwrap_or_else(|| match self.subject {
            SubjectForm::Gitlab => self.url.trim_end_matches('/'),
            SubjectForm::Buildkite => "https://buildkite.com",
            _ => "https://github.com",
        })
    }
}

fn audience() -> Vec<String> {
    vec!["countersign".to_owned()]
}

/// A text, or a list of texts.
fn one_or_more<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum Either {
        One(String),
        More(Vec<String>),
    }
    Ok(match Either::deserialize(input)? {
        Either::One(one) => vec![one],
        Either::More(more) => more,
    })
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
    /// GitHub Actions: `https://github.com/<job_workflow_ref>`.
    Github,
    /// GitLab CI: `https://<ci_config_ref_uri>`.
    Gitlab,
    /// `https://kubernetes.io/namespaces/<namespace>/serviceaccounts/<name>`, from the `kubernetes.io` claim.
    Kubernetes,
    /// `https://buildkite.com/<organization_slug>/<pipeline_slug>`.
    Buildkite,
    /// A user name: `<sub>!<subject_domain>`. Stock clients verify no signature by it; our own do.
    Username,
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
    /// The managed keys that may be signed with, by name (`countersign key list`). Default: none. No role has one of
    /// itself, not even admin; signing needs the role builder besides.
    #[serde(default)]
    pub keys: Vec<KeyName>,
}
