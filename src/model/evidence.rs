//! What is known about one digest, and how completely we could look.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    digest::Digest,
    verdict::LogRef,
    verify::{Rejection, Verified},
};

/// Where evidence was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Our own transparency log.
    Log,
    /// The image's registry: referrers API or fallback tag.
    Registry,
    /// A bundle that the caller handed in.
    Given,
}

/// How looking in one source ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything there was read, at this time.
    Complete(Timestamp),
    /// It could not be read; why, in one sentence. What is missing may be there.
    Unavailable(String),
}

/// A bundle that was found and does not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it was found.
    pub source: Source,
    /// The digest of its bytes.
    pub bundle: Digest,
    /// Why it is not evidence.
    pub reason: Rejection,
}

/// Everything that the judge may use about one digest.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The digest all of this is about.
    pub digest: Digest,
    /// What was proven, oldest first, each statement once.
    pub statements: Vec<Arc<Verified>>,
    /// What was found and does not verify.
    pub rejected: Vec<Rejected>,
    /// Each source that was asked, and how that ended.
    pub sources: Vec<(Source, Outcome)>,
    /// Another digest that was signed under the same tag, if the reference had a tag and our log knows one.
    pub signed_under_tag: Option<(Digest, LogRef)>,
}

impl Evidence {
    /// No evidence yet.
    pub fn new(digest: Digest) -> Self {
        Self { digest, statements: Vec::new(), rejected: Vec::new(), sources: Vec::new(), signed_under_tag: None }
    }

    /// Why the search was incomplete, if it was: the first source that could not be read. What is missing from
    /// incomplete evidence is unknown, not absent.
    pub fn gap(&self) -> Option<(Source, &str)> {
        self.sources.iter().find_map(|(source, outcome)| match outcome {
            Outcome::Unavailable(reason) => Some((*source, reason.as_str())),
            Outcome::Complete(_) => None,
        })
    }

    /// The proven statements of a predicate type, oldest first.
    pub fn of_type<'a>(&'a self, predicate_type: &'a str) -> impl Iterator<Item = &'a Verified> {
        self.statements
            .iter()
            .map(AsRef::as_ref)
            .filter(move |verified: &&Verified| super::predicate::matches(predicate_type, verified.statement().predicate_type()))
    }
}
