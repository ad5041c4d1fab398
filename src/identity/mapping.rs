//! From the claims of a token to the extensions of a certificate: a built-in mapping for each form of subject, which is
//! Fulcio's, and the changes that the configuration makes to it.
//!
//! A claim of the built-in mapping that a token lacks leaves its extension out. One that the configuration asks for must
//! be there, unless it says otherwise. A value that a certificate cannot carry is a refusal in either case.

use super::{Issuer, Refusal, SubjectForm};
use crate::model::{
    Extension, Extensions,
    certificate::ExtensionError,
    template::Template,
    token::{Claims, claim},
};

/// Stands for the issuer's server in the tables below.
const SERVER: &str = "<server>";

type Entry = (Extension, &'static str);

const GITHUB: [Entry; 20] = [
    (Extension::WorkflowTrigger, "event_name"),
    (Extension::WorkflowSha, "sha"),
    (Extension::WorkflowName, "workflow"),
    (Extension::WorkflowRepository, "repository"),
    (Extension::WorkflowRef, "ref"),
    (Extension::BuildSignerUri, "<server>/{job_workflow_ref}"),
    (Extension::BuildSignerDigest, "job_workflow_sha"),
    (Extension::RunnerEnvironment, "runner_environment"),
    (Extension::SourceRepositoryUri, "<server>/{repository}"),
    (Extension::SourceRepositoryDigest, "sha"),
    (Extension::SourceRepositoryRef, "ref"),
    (Extension::SourceRepositoryIdentifier, "repository_id"),
    (Extension::SourceRepositoryOwnerUri, "<server>/{repository_owner}"),
    (Extension::SourceRepositoryOwnerIdentifier, "repository_owner_id"),
    (Extension::BuildConfigUri, "<server>/{workflow_ref}"),
    (Extension::BuildConfigDigest, "workflow_sha"),
    (Extension::BuildTrigger, "event_name"),
    (Extension::RunInvocationUri, "<server>/{repository}/actions/runs/{run_id}/attempts/{run_attempt}"),
    (Extension::SourceRepositoryVisibility, "repository_visibility"),
    (Extension::DeploymentEnvironment, "environment"),
];

const GITLAB: [Entry; 14] = [
    (Extension::BuildSignerUri, "https://{ci_config_ref_uri}"),
    (Extension::BuildSignerDigest, "ci_config_sha"),
    (Extension::RunnerEnvironment, "runner_environment"),
    (Extension::SourceRepositoryUri, "<server>/{project_path}"),
    (Extension::SourceRepositoryDigest, "sha"),
    (Extension::SourceRepositoryIdentifier, "project_id"),
    (Extension::SourceRepositoryOwnerUri, "<server>/{namespace_path}"),
    (Extension::SourceRepositoryOwnerIdentifier, "namespace_id"),
    (Extension::BuildConfigUri, "https://{ci_config_ref_uri}"),
    (Extension::BuildConfigDigest, "ci_config_sha"),
    (Extension::BuildTrigger, "pipeline_source"),
    (Extension::RunInvocationUri, "<server>/{project_path}/-/jobs/{job_id}"),
    (Extension::SourceRepositoryVisibility, "project_visibility"),
    (Extension::DeploymentEnvironment, "environment"),
];

/// GitLab says branch or tag beside the ref's name.
const GITLAB_REF: [(&str, &str); 2] = [("branch", "refs/heads/{ref}"), ("tag", "refs/tags/{ref}")];

const BUILDKITE: [Entry; 4] = [
    (Extension::RunnerEnvironment, "runner_environment"),
    (Extension::SourceRepositoryDigest, "build_commit"),
    (Extension::BuildTrigger, "build_source"),
    (Extension::RunInvocationUri, "<server>/{organization_slug}/{pipeline_slug}/builds/{build_number}#{job_id}"),
];

/// How the tokens of one issuer fill the extensions.
#[derive(Debug)]
pub(super) struct Mapping(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    extension: Extension,
    /// Only for tokens whose claim of this name has this value.
    when: Option<(&'static str, &'static str)>,
    template: Template,
    required: bool,
}

impl Mapping {
    /// The mapping of an issuer. The error says which setting is wrong.
    pub(super) fn compile(issuer: &Issuer) -> Result<Self, String> {
        let mut rules = built_in(issuer)?;
        for (name, text) in &issuer.claims {
            let wrong = |problem: String| format!("claims.{name} {problem}");
            let extension: Extension = name.parse().map_err(|source| format!("claims: {source}"))?;
            rules.retain(|rule| rule.extension != extension);
            if text.is_empty() {
                continue;
            }
            let (text, required) = text.strip_suffix('?').map_or((text.as_str(), true), |text| (text, false));
            let template = Template::parse(text).map_err(wrong)?;
            rules.push(Rule { extension, when: None, template, required });
        }
        Ok(Self(rules))
    }

    /// What a certificate says of a token with these claims.
    pub(super) fn extensions(&self, claims: &Claims) -> Result<Extensions, Refusal> {
        let mut said = Extensions::default();
        for rule in self.0.iter().filter(|rule| rule.applies(claims)) {
            let text = match rule.template.render(claims) {
                Ok(text) => text,
                Err(missing) if rule.required => {
                    return Err(Refusal::claim(missing, "is missing; this issuer's `claims` ask for it"));
                }
                Err(_missing) => continue,
            };
            said.set(rule.extension, text)
                .map_err(|refused| Refusal::claim(rule.template.first_claim(), problem(refused)))?;
        }
        Ok(said)
    }
}

impl Rule {
    fn applies(&self, claims: &Claims) -> bool {
        self.when.is_none_or(|(name, value)| claim(claims, name).and_then(serde_json::Value::as_str) == Some(value))
    }
}

fn built_in(issuer: &Issuer) -> Result<Vec<Rule>, String> {
    let entries: &[Entry] = match issuer.subject {
        SubjectForm::Github => &GITHUB,
        SubjectForm::Gitlab => &GITLAB,
        SubjectForm::Buildkite => &BUILDKITE,
        SubjectForm::Email
        | SubjectForm::Uri
        | SubjectForm::Spiffe
        | SubjectForm::Kubernetes
        | SubjectForm::Username => &[],
    };
    let server = issuer.server();
    let rule = |extension, when, text: &str| {
        let template = Template::parse(&text.replace(SERVER, server))?;
        Ok(Rule { extension, when, template, required: false })
    };
    let every = [(Extension::TokenSubject, "sub")];
    let mut rules: Vec<Rule> = entries
        .iter()
        .chain(&every)
        .map(|(extension, text)| rule(*extension, None, text))
        .collect::<Result<_, String>>()?;
    if issuer.subject == SubjectForm::Gitlab {
        for (kind, text) in GITLAB_REF {
            rules.push(rule(Extension::SourceRepositoryRef, Some(("ref_type", kind)), text)?);
        }
    }
    Ok(rules)
}

const fn problem(refused: ExtensionError) -> &'static str {
    match refused {
        ExtensionError::Empty => "is empty",
        ExtensionError::TooLong(_) => "is too long for a certificate",
        ExtensionError::Control => "has control characters, which a certificate must not carry",
    }
}
