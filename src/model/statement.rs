//! In-toto statements, version 1: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    digest::{Digest, DigestError},
    json::{TooDeep, check_json_depth},
    limits, predicate,
};

/// The `_type` of the statements that we read and write.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The `_type` of the first version, which some builders still write; read only.
pub const STATEMENT_TYPE_V0_1: &str = "https://in-toto.io/Statement/v0.1";
/// The DSSE payload type of a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// What a statement speaks about: a digest, and a name for people and look-ups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// File name, image reference or any other name; may be empty.
    pub name: String,
    /// The content digest; other algorithms of the subject are ignored.
    pub digest: Digest,
}

/// A parsed, bounded and validated in-toto statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    subjects: Vec<Subject>,
    predicate_type: String,
    predicate: Value,
}

/// Why bytes are not a statement that we accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// Over [`limits::STATEMENT`].
    #[error("statement has {0} bytes; the limit is {limit}", limit = limits::STATEMENT)]
    TooLarge(usize),
    /// Over [`limits::JSON_DEPTH`].
    #[error("statement JSON is nested deeper than {} levels", limits::JSON_DEPTH)]
    TooDeep,
    /// Not the JSON of a statement.
    #[error("statement is not valid JSON: {0}")]
    Json(String),
    /// `_type` is not an in-toto statement type.
    #[error("statement _type is {0:?}; expected {STATEMENT_TYPE}")]
    Type(String),
    /// No subject.
    #[error("statement has no subject; name at least one digest")]
    NoSubject,
    /// Over [`limits::SUBJECTS`].
    #[error("statement has {0} subjects; the limit is {limit}", limit = limits::SUBJECTS)]
    TooManySubjects(usize),
    /// The same digest twice under one name.
    #[error("subject {0} is listed twice")]
    DuplicateSubject(Digest),
    /// A subject without a usable digest.
    #[error("subject {name:?}: {source}")]
    SubjectDigest {
        /// The subject's name.
        name: String,
        /// What is wrong with its digest.
        source: DigestError,
    },
    /// A subject's name is over [`limits::NAME`] or holds control characters.
    #[error("a subject's name is longer than {} characters or holds control characters", limits::NAME)]
    SubjectName,
    /// The predicate type is not an absolute URI of at most [`limits::URI`] characters.
    #[error("predicate type {0:?} is not an absolute URI")]
    PredicateType(String),
    /// The predicate lacks what its type demands.
    #[error(transparent)]
    Predicate(#[from] predicate::PredicateError),
}

#[derive(Deserialize)]
struct Wire {
    #[serde(rename = "_type")]
    statement_type: String,
    #[serde(default)]
    subject: Vec<WireSubject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    #[serde(default)]
    predicate: Value,
}

#[derive(Deserialize, Serialize)]
struct WireSubject {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    digest: std::collections::BTreeMap<String, String>,
}

impl Statement {
    /// Makes a statement from its parts, with every check that parsing does.
    pub fn new(subjects: Vec<Subject>, predicate_type: &str, predicate: Value) -> Result<Self, StatementError> {
        if subjects.is_empty() {
            return Err(StatementError::NoSubject);
        }
        if subjects.len() > limits::SUBJECTS {
            return Err(StatementError::TooManySubjects(subjects.len()));
        }
        let mut seen = BTreeSet::new();
        for subject in &subjects {
            if subject.name.len() > limits::NAME || subject.name.chars().any(char::is_control) {
                return Err(StatementError::SubjectName);
            }
            if !seen.insert((subject.name.as_str(), subject.digest)) {
                return Err(StatementError::DuplicateSubject(subject.digest));
            }
        }
        if !is_absolute_uri(predicate_type) {
            return Err(StatementError::PredicateType(limits::quoted(&predicate_type)));
        }
        predicate::validate(predicate_type, &predicate)?;
        Ok(Self { subjects, predicate_type: predicate_type.to_owned(), predicate })
    }

    /// Parses the payload of an envelope.
    ///
    /// # Errors
    /// One [`StatementError`] that names the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() > limits::STATEMENT {
            return Err(StatementError::TooLarge(bytes.len()));
        }
        check_json_depth(bytes, limits::JSON_DEPTH).map_err(|TooDeep| StatementError::TooDeep)?;
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|source| StatementError::Json(limits::quoted(&source)))?;
        if ![STATEMENT_TYPE, STATEMENT_TYPE_V0_1].contains(&wire.statement_type.as_str()) {
            return Err(StatementError::Type(limits::quoted(&wire.statement_type)));
        }
        if wire.subject.len() > limits::SUBJECTS {
            return Err(StatementError::TooManySubjects(wire.subject.len()));
        }
        let mut unusable = None;
        let subjects: Vec<Subject> = wire
            .subject
            .into_iter()
            .filter_map(|subject| match subject.digest.get("sha256").map(|hex| Digest::from_hex(hex)) {
                Some(Ok(digest)) => Some(Ok(Subject { name: subject.name, digest })),
                Some(Err(source)) => Some(Err(unusable_digest(&subject.name, source))),
                // Others name a git commit (sha1) beside the artifact: passed over while one subject can be used.
                None => {
                    unusable.get_or_insert(subject.name);
                    None
                }
            })
            .collect::<Result<_, _>>()?;
        if let (true, Some(name)) = (subjects.is_empty(), unusable) {
            return Err(unusable_digest(&name, DigestError::Algorithm));
        }
        let predicate = if wire.predicate.is_null() { Value::Object(Map::new()) } else { wire.predicate };
        Self::new(subjects, &wire.predicate_type, predicate)
    }

    /// The JSON that is signed: one line, fields in the order of the specification.
    pub fn to_json(&self) -> Vec<u8> {
        let subjects: Vec<_> = self
            .subjects
            .iter()
            .map(|subject| WireSubject {
                name: subject.name.clone(),
                digest: [("sha256".to_owned(), subject.digest.hex())].into(),
            })
            .collect();
        json!({
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        })
        .to_string()
        .into_bytes()
    }

    /// What the statement speaks about; never empty.
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// The predicate type, an absolute URI.
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// The predicate, a JSON object.
    pub fn predicate(&self) -> &Value {
        &self.predicate
    }

    /// Whether `digest` is one of the subjects.
    pub fn names(&self, digest: &Digest) -> bool {
        self.subjects.iter().any(|subject| subject.digest == *digest)
    }
}

fn unusable_digest(name: &str, source: DigestError) -> StatementError {
    StatementError::SubjectDigest { name: limits::quoted(&name), source }
}

fn is_absolute_uri(text: &str) -> bool {
    text.len() <= limits::URI
        && text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        })
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
