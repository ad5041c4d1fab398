//! Whom a policy means: an identity (issuer and subject, exact or by pattern) or a key.

use regex::{Regex, RegexBuilder};

use crate::model::{Digest, Signer, Verified, limits};

/// A named signer of a policy.
#[derive(Debug, Clone)]
pub struct SignerRule {
    /// The name by which the policy and its messages speak of it.
    pub name: String,
    /// Who that is.
    pub who: Who,
}

/// Who a [`SignerRule`] is.
#[derive(Debug, Clone)]
pub enum Who {
    /// Whoever holds this key; the digest of its `SubjectPublicKeyInfo` DER.
    Key(Digest),
    /// Whoever has a certificate for such an identity.
    Identity {
        /// The issuer.
        issuer: Text,
        /// The subject alternative name.
        subject: Text,
    },
}

/// A text to compare with.
#[derive(Debug, Clone)]
pub enum Text {
    /// Equal.
    Exact(String),
    /// A regular expression over the whole text.
    Pattern(Regex),
}

impl SignerRule {
    /// Whether this signer signed it.
    pub fn signed(&self, evidence: &Verified) -> bool {
        match (&self.who, evidence.signer()) {
            (Who::Key(key), _) => evidence.key() == *key,
            (Who::Identity { issuer, subject }, Signer::Identity(identity)) => {
                issuer.matches(&identity.issuer) && subject.matches(&identity.subject)
            }
            (Who::Identity { .. }, Signer::Key(_)) => false,
        }
    }
}

impl Text {
    /// What was given for `name`: an exact text, a pattern, or neither.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn of(name: &str, exact: Option<&str>, pattern: Option<&str>) -> Result<Option<Self>, String> {
        match (exact, pattern) {
            (Some(exact), None) if !exact.is_empty() && exact.len() <= limits::URI => {
                Ok(Some(Self::Exact(exact.to_owned())))
            }
            (Some(_), None) => Err(format!("{name} must have 1 to {} characters", limits::URI)),
            (None, Some(pattern)) => anchored(pattern)
                .map(|pattern| Some(Self::Pattern(pattern)))
                .map_err(|why| format!("{name}, as a regular expression: {why}")),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(format!("give {name} or {name}Regexp, not both")),
        }
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }
}

/// Compiles a regular expression so that it must match the whole text: `foo` does not match `foobar`.
///
/// # Errors
/// A sentence for people.
pub fn anchored(pattern: &str) -> Result<Regex, String> {
    if pattern.is_empty() || pattern.len() > limits::PATTERN {
        return Err(format!("a regular expression has 1 to {} characters", limits::PATTERN));
    }
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(limits::REGEX)
            .build()
            .map_err(|source| source.to_string().lines().last().unwrap_or("it does not compile").trim().to_owned())
    };
    // Alone first: `a)|(b` must not become valid by what is put around it.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}
