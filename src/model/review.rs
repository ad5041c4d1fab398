//! The question of a Kubernetes API server (`AdmissionReview` v1): from its bytes to a typed question, or to a named
//! refusal.
//!
//! Not here: what is answered, and how the bytes arrive.

use serde_json::Value;

use super::{
    json::check_json_depth,
    limits,
    object::{self, Kind},
};

/// The only version that we speak.
pub const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of both question and answer.
pub const KIND: &str = "AdmissionReview";
/// Groups of a user that are looked at, as a count.
pub const GROUPS: usize = 1_024;

/// Why the bytes are no review.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// Nested too deeply.
    #[error("the review is nested more than {} levels deep", limits::JSON_DEPTH)]
    TooDeep,
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    Syntax(String),
    /// Another version or kind.
    #[error("expected {KIND} of {API_VERSION}; list v1 in admissionReviewVersions of the webhook")]
    Version,
    /// A required field is missing or has the wrong type.
    #[error("{field} must be {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
}

/// What is being done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It changes.
    Update,
    /// It goes.
    Delete,
    /// Someone connects to it.
    Connect,
}

/// At which point of admission the question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The answer may change the object, others may after us: tags are pinned, nothing is recorded.
    Mutate,
    /// The object is as it will be stored: what is judged is what stands there, and what is admitted is recorded.
    Validate,
    /// Both at once.
    Both,
}

impl Phase {
    /// Whether tags are pinned.
    pub const fn pins(self) -> bool {
        matches!(self, Self::Mutate | Self::Both)
    }

    /// Whether what is admitted is recorded.
    pub const fn records(self) -> bool {
        matches!(self, Self::Validate | Self::Both)
    }
}

/// Who asks, as the API server authenticated them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user name.
    pub name: String,
    /// The groups.
    pub groups: Vec<String>,
}

/// One question to the cluster door.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The question's id, for the audit line.
    pub uid: String,
    /// At which point of admission.
    pub phase: Phase,
    /// What is being done.
    pub operation: Operation,
    /// To what kind.
    pub kind: Kind,
    /// Through which subresource; empty for the object itself.
    pub subresource: String,
    /// In which namespace, if the asker says; else the object's own, else `default`.
    pub namespace: Option<String>,
    /// For which environment, if the asker says; else the object's label, else its namespace.
    pub environment: Option<String>,
    /// The object; null for a deletion.
    pub object: Value,
    /// What it was before; null for a creation.
    pub old_object: Value,
    /// Who asks.
    pub user: User,
    /// Whether nothing may be written.
    pub dry_run: bool,
}

impl Review {
    /// The namespace that counts.
    pub fn namespace(&self) -> String {
        let given = self.namespace.as_deref().filter(|given| !given.is_empty());
        given.or_else(|| object::namespace(&self.object)).unwrap_or("default").to_owned()
    }

    /// The environment that counts.
    pub fn environment(&self) -> String {
        let given = self.environment.as_deref().filter(|given| !given.is_empty());
        let namespace = self.namespace();
        given.unwrap_or_else(|| object::environment(&self.object, &namespace)).to_owned()
    }
}

/// Reads a review. The error comes with the uid, if that much could be read.
pub fn parse(body: &[u8], phase: Phase) -> Result<Review, (String, ReviewError)> {
    check_json_depth(body, limits::JSON_DEPTH).map_err(|_source| (String::new(), ReviewError::TooDeep))?;
    let mut review: Value =
        serde_json::from_slice(body).map_err(|source| (String::new(), ReviewError::Syntax(limits::quoted(&source))))?;
    let uid = text(&review, "/request/uid").filter(|uid| uid.len() <= limits::NAME).unwrap_or_default().to_owned();
    question(&mut review, &uid, phase).map_err(|error| (uid, error))
}

fn question(review: &mut Value, uid: &str, phase: Phase) -> Result<Review, ReviewError> {
    if text(review, "/apiVersion") != Some(API_VERSION) || text(review, "/kind") != Some(KIND) {
        return Err(ReviewError::Version);
    }
    if uid.is_empty() {
        return Err(ReviewError::Field { field: "request.uid", expected: "a string that is not empty" });
    }
    let operation = operation(review)?;
    let object = take(review, "object")?;
    let old_object = take(review, "oldObject")?;
    if matches!(operation, Operation::Create | Operation::Update) && object.is_null() {
        return Err(ReviewError::Field { field: "request.object", expected: "an object for this operation" });
    }
    Ok(Review {
        uid: uid.to_owned(),
        phase,
        operation,
        kind: kind(review)?,
        subresource: optional(review, "/request/subResource", "request.subResource")?.unwrap_or_default(),
        namespace: optional(review, "/request/namespace", "request.namespace")?,
        environment: None,
        object,
        old_object,
        user: user(review)?,
        dry_run: match review.pointer("/request/dryRun") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(dry_run)) => *dry_run,
            Some(_) => return Err(ReviewError::Field { field: "request.dryRun", expected: "true or false" }),
        },
    })
}

fn operation(review: &Value) -> Result<Operation, ReviewError> {
    match text(review, "/request/operation") {
        Some("CREATE") => Ok(Operation::Create),
        Some("UPDATE") => Ok(Operation::Update),
        Some("DELETE") => Ok(Operation::Delete),
        Some("CONNECT") => Ok(Operation::Connect),
        _ => Err(ReviewError::Field { field: "request.operation", expected: "CREATE, UPDATE, DELETE or CONNECT" }),
    }
}

fn kind(review: &Value) -> Result<Kind, ReviewError> {
    let group = optional(review, "/request/kind/group", "request.kind.group")?.unwrap_or_default();
    let kind = optional(review, "/request/kind/kind", "request.kind.kind")?.filter(|kind| !kind.is_empty());
    kind.map(|kind| Kind { group, kind })
        .ok_or(ReviewError::Field { field: "request.kind.kind", expected: "a string that is not empty" })
}

fn user(review: &Value) -> Result<User, ReviewError> {
    const GROUP_LIST: ReviewError =
        ReviewError::Field { field: "request.userInfo.groups", expected: "a list of strings" };
    let name = optional(review, "/request/userInfo/username", "request.userInfo.username")?.unwrap_or_default();
    let groups = match review.pointer("/request/userInfo/groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(groups) => groups
            .as_array()
            .filter(|groups| groups.len() <= GROUPS)
            .and_then(|groups| groups.iter().map(|group| group.as_str().map(str::to_owned)).collect())
            .ok_or(GROUP_LIST)?,
    };
    Ok(User { name, groups })
}

/// Moves an object out of the request: reviews are large, copies are not free.
fn take(review: &mut Value, name: &'static str) -> Result<Value, ReviewError> {
    let expected = "an object";
    let field = if name == "object" { "request.object" } else { "request.oldObject" };
    match review.get_mut("request").and_then(|request| request.get_mut(name)).map(Value::take) {
        None => Ok(Value::Null),
        Some(object) if object.is_object() || object.is_null() => Ok(object),
        Some(_) => Err(ReviewError::Field { field, expected }),
    }
}

fn optional(review: &Value, pointer: &str, field: &'static str) -> Result<Option<String>, ReviewError> {
    match review.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= limits::NAME => Ok(Some(text.clone())),
        Some(_) => Err(ReviewError::Field { field, expected: "a short string" }),
    }
}

fn text<'a>(review: &'a Value, pointer: &str) -> Option<&'a str> {
    review.pointer(pointer)?.as_str()
}
