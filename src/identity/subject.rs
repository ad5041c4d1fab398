//! From the claims of a token to the subject that a certificate will carry (Fulcio's forms).

use serde_json::Value;

use super::{
    Refusal, SubjectForm,
    rules::{Claims, claim},
};
use crate::model::limits;

/// The subject, fit for a subject alternative name: printable ASCII, bounded.
pub(super) fn subject(form: SubjectForm, claims: &Claims) -> Result<String, Refusal> {
    match form {
        SubjectForm::Email => email(claims),
        SubjectForm::Uri => uri(claims),
        SubjectForm::Spiffe => spiffe(claims),
        SubjectForm::Github => Ok(format!("https://github.com/{}", text(claims, "job_workflow_ref")?)),
        SubjectForm::Gitlab => Ok(format!("https://{}", text(claims, "ci_config_ref_uri")?)),
        SubjectForm::Kubernetes => Ok(format!(
            "https://kubernetes.io/namespaces/{}/serviceaccounts/{}",
            label(claims, "kubernetes.io.namespace")?,
            label(claims, "kubernetes.io.serviceaccount.name")?,
        )),
    }
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

fn uri(claims: &Claims) -> Result<String, Refusal> {
    let sub = text(claims, "sub")?;
    let absolute = sub.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    absolute.then(|| sub.to_owned()).ok_or_else(|| {
        Refusal::claim("sub", "must be a URI; configure another `subject` form for this issuer if it never is")
    })
}

fn spiffe(claims: &Claims) -> Result<String, Refusal> {
    let sub = text(claims, "sub")?;
    is_spiffe_id(sub)
        .then(|| sub.to_owned())
        .ok_or_else(|| Refusal::claim("sub", "must be a SPIFFE ID, as in spiffe://example.org/path"))
}

/// Whether `text` is `spiffe://<trust domain>/<path>` by the SPIFFE ID specification.
pub(super) fn is_spiffe_id(text: &str) -> bool {
    let part = |part: &str, upper: bool| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b) || (upper && b.is_ascii_uppercase())
            })
    };
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    text.len() <= limits::URI && part(domain, false) && path.split('/').all(|segment| part(segment, true))
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
    plain.then_some(text).ok_or_else(|| Refusal::claim(name, "must be a Kubernetes name"))
}
