//! From an identity and its claims to roles.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};
use serde_json::Value;

use super::{IdentityError, Rule};
use crate::model::{
    Identity, KeyName, Role, limits,
    token::{Claims, claim},
};

/// All rules, compiled.
#[derive(Debug)]
pub(super) struct Rules(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    issuer: Pattern,
    subject: Pattern,
    claims: Vec<(String, Pattern)>,
    roles: Vec<Role>,
    keys: Vec<KeyName>,
}

#[derive(Debug)]
enum Pattern {
    Exact(String),
    Glob(GlobMatcher),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty; write ** to match anything".to_owned());
        }
        if text.len() > limits::URI {
            return Err(format!("is longer than {} characters", limits::URI));
        }
        if !text.contains(['*', '?', '[', '{', '\\']) {
            return Ok(Self::Exact(text.to_owned()));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        glob.map(|glob| Self::Glob(glob.compile_matcher()))
            .map_err(|source| format!("is not a glob: {}", source.kind()))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Glob(glob) => glob.is_match(text),
        }
    }

    fn matches_claim(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.matches(text),
            Value::Bool(_) | Value::Number(_) => self.matches(&value.to_string()),
            Value::Array(items) => items.iter().any(|item| !item.is_array() && self.matches_claim(item)),
            Value::Null | Value::Object(_) => false,
        }
    }
}

impl Rules {
    pub(super) fn compile(rules: &[Rule]) -> Result<Self, IdentityError> {
        rules.iter().enumerate().map(|(index, rule)| compile(index, rule)).collect::<Result<_, _>>().map(Self)
    }

    /// The roles of every rule that matches.
    pub(super) fn roles(&self, identity: &Identity, claims: &Claims) -> BTreeSet<Role> {
        self.matching(identity, claims).flat_map(|rule| &rule.roles).copied().collect()
    }

    /// The managed keys of every rule that matches.
    pub(super) fn keys(&self, identity: &Identity, claims: &Claims) -> BTreeSet<KeyName> {
        self.matching(identity, claims).flat_map(|rule| &rule.keys).cloned().collect()
    }

    fn matching(&self, identity: &Identity, claims: &Claims) -> impl Iterator<Item = &Compiled> {
        self.0.iter().filter(|rule| rule.matches(identity, claims))
    }
}

impl Compiled {
    fn matches(&self, identity: &Identity, claims: &Claims) -> bool {
        self.issuer.matches(&identity.issuer)
            && self.subject.matches(&identity.subject)
            && self
                .claims
                .iter()
                .all(|(name, pattern)| claim(claims, name).is_some_and(|value| pattern.matches_claim(value)))
    }
}

fn compile(index: usize, rule: &Rule) -> Result<Compiled, IdentityError> {
    let wrong = |field: &str, problem: String| IdentityError::Rule { index, problem: format!("{field} {problem}") };
    if rule.roles.is_empty() {
        return Err(wrong("roles", "is empty; name at least one role".to_owned()));
    }
    if !rule.keys.is_empty() && !rule.roles.iter().any(|role| [Role::Builder, Role::Admin].contains(role)) {
        return Err(wrong(
            "keys",
            "is of no use without the role builder, which signs; add it, or leave keys out".to_owned(),
        ));
    }
    let claims = rule.claims.iter().map(|(name, pattern)| {
        let pattern = Pattern::parse(pattern).map_err(|problem| wrong(&format!("claims.{name}"), problem))?;
        Ok((name.clone(), pattern))
    });
    Ok(Compiled {
        issuer: Pattern::parse(&rule.issuer).map_err(|problem| wrong("issuer", problem))?,
        subject: Pattern::parse(&rule.subject).map_err(|problem| wrong("subject", problem))?,
        claims: claims.collect::<Result<_, IdentityError>>()?,
        roles: rule.roles.clone(),
        keys: rule.keys.clone(),
    })
}
