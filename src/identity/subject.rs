//! From the claims of a token to the subject that a certificate will carry (Fulcio's forms), and to the texts over which
//! its holder may prove to hold a key.

use serde_json::Value;

use super::{Issuer, Refusal, SubjectForm};
use crate::model::{
    limits,
    spiffe::{is_part, is_spiffe_id},
    token::{Claims, claim},
};

/// The subject, fit for a subject alternative name: printable ASCII, bounded.
pub(super) fn subject(issuer: &Issuer, claims: &Claims) -> Result<String, Refusal> {
    match issuer.subject {
        SubjectForm::Email => email(claims),
        SubjectForm::Uri => uri(issuer, claims),
        SubjectForm::Spiffe => spiffe(issuer, claims),
        SubjectForm::Github => Ok(format!("{}/{}", issuer.server(), text(claims, "job_workflow_ref")?)),
        SubjectForm::Gitlab => Ok(format!("https://{}", text(claims, "ci_config_ref_uri")?)),
        SubjectForm::Kubernetes => Ok(format!(
            "https://kubernetes.io/namespaces/{}/serviceaccounts/{}",
            label(claims, "kubernetes.io.namespace")?,
            label(claims, "kubernetes.io.serviceaccount.name")?,
        )),
        SubjectForm::Buildkite => Ok(format!(
            "{}/{}/{}",
            issuer.server(),
            label(claims, "organization_slug")?,
            label(claims, "pipeline_slug")?,
        )),
        SubjectForm::Username => username(issuer, claims),
    }
}

/// Checks the settings that a form needs. The error says which one is wrong.
pub(super) fn check(issuer: &Issuer) -> Result<(), String> {
    let domain = issuer.subject_domain.as_deref();
    match (issuer.subject, domain) {
        (SubjectForm::Username, None) => {
            return Err(
                "subject_domain is missing; user names count within a domain, as in alice!example.org".to_owned()
            );
        }
        (SubjectForm::Username | SubjectForm::Spiffe, Some(domain)) if !is_domain(domain) => {
            return Err(format!("subject_domain {domain:?} is not a domain in lower case, as in example.org"));
        }
        (SubjectForm::Uri, Some(domain)) if !is_base(domain) => {
            return Err(format!("subject_domain {domain:?} is not scheme and host alone, as in https://example.org"));
        }
        (SubjectForm::Username | SubjectForm::Spiffe | SubjectForm::Uri, _) | (_, None) => {}
        (_, Some(_)) => return Err("subject_domain is for the forms username, uri and spiffe".to_owned()),
    }
    match (issuer.subject, issuer.server_url.as_deref()) {
        (_, None) => Ok(()),
        (SubjectForm::Github | SubjectForm::Gitlab | SubjectForm::Buildkite, Some(url)) if is_base(url) => Ok(()),
        (SubjectForm::Github | SubjectForm::Gitlab | SubjectForm::Buildkite, Some(url)) => {
            Err(format!("server_url {url:?} is not scheme and host alone, as in https://git.example.org"))
        }
        (_, Some(_)) => Err("server_url is for the forms github, gitlab and buildkite".to_owned()),
    }
}

/// The claims over which a proof of possession may be made, with their values: what the form is named after, then what
/// else clients sign. They sign an e-mail address where a token has one, and `sub` where it has none, whatever the
/// issuer; either is the token's own, so it says the same of the key.
pub(super) fn challenges(form: SubjectForm, claims: &Claims) -> Vec<(&'static str, String)> {
    let names = if form == SubjectForm::Email { ["email", "sub"] } else { ["sub", "email"] };
    let value = |name| claims.get(name).and_then(Value::as_str).map(|text| (name, text.to_owned()));
    let fits = |(_, text): &(&str, String)| !text.is_empty() && text.len() <= limits::URI;
    names.into_iter().filter_map(value).filter(fits).collect()
}

fn email(claims: &Claims) -> Result<String, Refusal> {
    // Some issuers write booleans as strings.
    let verified = match claims.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        Some(Value::String(text)) => text == "true",
        _ => false,
    };
    if !verified {
        return Err(Refusal::claim("email_verified", "must be true; verify the address with the issuer"));
    }
    let address = text(claims, "email")?;
    let whole = address.split_once('@').is_some_and(|(local, host)| {
        !local.is_empty() && !host.is_empty() && !host.contains('@') && !address.contains(['/', ':'])
    });
    whole.then(|| address.to_owned()).ok_or_else(|| Refusal::claim("email", "must be an e-mail address"))
}

fn uri(issuer: &Issuer, claims: &Claims) -> Result<String, Refusal> {
    let sub = text(claims, "sub")?;
    let absolute = sub.split_once("://").is_some_and(|(scheme, rest)| !rest.is_empty() && is_scheme(scheme));
    if !absolute {
        let problem = "must be a URI; configure another `subject` form for this issuer if it never is";
        return Err(Refusal::claim("sub", problem));
    }
    let within = |domain: &str| sub.strip_prefix(domain).is_some_and(|path| path.is_empty() || path.starts_with('/'));
    if !issuer.subject_domain.as_deref().is_none_or(within) {
        return Err(Refusal::claim("sub", "must be a URI within the subject_domain of this issuer"));
    }
    Ok(sub.to_owned())
}

fn spiffe(issuer: &Issuer, claims: &Claims) -> Result<String, Refusal> {
    let sub = text(claims, "sub")?;
    if !is_spiffe_id(sub) {
        return Err(Refusal::claim("sub", "must be a SPIFFE ID, as in spiffe://example.org/path"));
    }
    let trust_domain = sub.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    if issuer.subject_domain.as_deref().is_some_and(|domain| trust_domain != Some(domain)) {
        return Err(Refusal::claim("sub", "must be a SPIFFE ID of the trust domain in this issuer's subject_domain"));
    }
    Ok(sub.to_owned())
}

/// `<name>!<domain>`; the name must not look like anything else that can stand in a certificate.
fn username(issuer: &Issuer, claims: &Claims) -> Result<String, Refusal> {
    let name = text(claims, "sub")?;
    if name.contains(['!', '@', ':', '/']) {
        return Err(Refusal::claim("sub", "must be a user name, without any of ! @ : /"));
    }
    Ok(format!("{name}!{}", issuer.subject_domain.as_deref().unwrap_or_default()))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn is_domain(text: &str) -> bool {
    text.len() <= limits::NAME && text.split('.').all(|part| is_part(part, false))
}

/// Whether it is `<scheme>://<host>`, perhaps with a port, and nothing behind it.
fn is_base(text: &str) -> bool {
    let host = |host: &str| {
        let (name, port) = host.split_once(':').unwrap_or((host, "1"));
        is_domain(name) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    };
    text.split_once("://").is_some_and(|(scheme, rest)| is_scheme(scheme) && host(rest))
}

/// A claim that must be a non-empty, printable ASCII string without spaces.
fn text<'a>(claims: &'a Claims, name: &str) -> Result<&'a str, Refusal> {
    let Some(text) = claim(claims, name).and_then(Value::as_str) else {
        return Err(Refusal::claim(name, "must be a string"));
    };
    if text.is_empty() || text.len() > limits::URI || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Refusal::claim(name, "must be printable ASCII without spaces, and not too long"));
    }
    Ok(text)
}

/// A claim that must be one path segment, so that it cannot pretend to be two.
fn label<'a>(claims: &'a Claims, name: &str) -> Result<&'a str, Refusal> {
    let text = text(claims, name)?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    plain.then_some(text).ok_or_else(|| Refusal::claim(name, "must be one name of letters, digits, -, . and _"))
}
