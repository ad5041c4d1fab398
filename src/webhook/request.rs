//! From the bytes of a review to a typed question, or to a named refusal.

use axum::http::StatusCode;
use serde_json::Value;

use super::timeout::BadTimeout;
use crate::{
    admission::{Kind, Operation, Phase, Review, User},
    model::{limits, statement::check_json_depth},
};

/// The only version that we speak.
pub(super) const API_VERSION: &str = "admission.k8s.io/v1";
/// The kind of both question and answer.
pub(super) const KIND: &str = "AdmissionReview";
/// Groups of a user that are looked at, as a count.
const GROUPS: usize = 1_024;

/// Why a review could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not declared as JSON.
    #[error("content type must be application/json")]
    ContentType,
    /// The body is over the limit, or broke off.
    #[error("the body is longer than {} bytes, or broke off", limits::ADMISSION_BODY)]
    TooLong,
    /// The body did not come in time.
    #[error("the body did not arrive within the timeout")]
    TooSlow,
    /// There is nothing at this path.
    #[error("there is nothing at this path; the webhook is at /validate, /mutate and /admit")]
    Path,
    /// Another method than POST.
    #[error("reviews are sent by POST")]
    Method,
    /// Too many reviews are under way.
    #[error("too many reviews are under way; none ended within the timeout")]
    Busy,
    /// The query's timeout.
    #[error(transparent)]
    Timeout(#[from] BadTimeout),
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

impl Malformed {
    /// The HTTP status where the API server cannot be given a review that it would read.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a review. The error comes with the uid, if that much could be read.
pub(super) fn parse(body: &[u8], phase: Phase) -> Result<Review, (String, Malformed)> {
    check_json_depth(body, limits::JSON_DEPTH).map_err(|_source| (String::new(), Malformed::TooDeep))?;
    let mut review: Value =
        serde_json::from_slice(body).map_err(|source| (String::new(), Malformed::Syntax(source.to_string())))?;
    let uid = text(&review, "/request/uid").filter(|uid| uid.len() <= limits::NAME).unwrap_or_default().to_owned();
    question(&mut review, &uid, phase).map_err(|error| (uid, error))
}

fn question(review: &mut Value, uid: &str, phase: Phase) -> Result<Review, Malformed> {
    if text(review, "/apiVersion") != Some(API_VERSION) || text(review, "/kind") != Some(KIND) {
        return Err(Malformed::Version);
    }
    if uid.is_empty() {
        return Err(Malformed::Field { field: "request.uid", expected: "a string that is not empty" });
    }
    let operation = operation(review)?;
    let object = take(review, "object")?;
    let old_object = take(review, "oldObject")?;
    if matches!(operation, Operation::Create | Operation::Update) && object.is_null() {
        return Err(Malformed::Field { field: "request.object", expected: "an object for this operation" });
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
            Some(_) => return Err(Malformed::Field { field: "request.dryRun", expected: "true or false" }),
        },
    })
}

fn operation(review: &Value) -> Result<Operation, Malformed> {
    match text(review, "/request/operation") {
        Some("CREATE") => Ok(Operation::Create),
        Some("UPDATE") => Ok(Operation::Update),
        Some("DELETE") => Ok(Operation::Delete),
        Some("CONNECT") => Ok(Operation::Connect),
        _ => Err(Malformed::Field { field: "request.operation", expected: "CREATE, UPDATE, DELETE or CONNECT" }),
    }
}

fn kind(review: &Value) -> Result<Kind, Malformed> {
    let group = optional(review, "/request/kind/group", "request.kind.group")?.unwrap_or_default();
    let kind = optional(review, "/request/kind/kind", "request.kind.kind")?.filter(|kind| !kind.is_empty());
    kind.map(|kind| Kind { group, kind })
        .ok_or(Malformed::Field { field: "request.kind.kind", expected: "a string that is not empty" })
}

fn user(review: &Value) -> Result<User, Malformed> {
    const GROUP_LIST: Malformed = Malformed::Field { field: "request.userInfo.groups", expected: "a list of strings" };
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
fn take(review: &mut Value, name: &'static str) -> Result<Value, Malformed> {
    let expected = "an object";
    let field = if name == "object" { "request.object" } else { "request.oldObject" };
    match review.get_mut("request").and_then(|request| request.get_mut(name)).map(Value::take) {
        None => Ok(Value::Null),
        Some(object) if object.is_object() || object.is_null() => Ok(object),
        Some(_) => Err(Malformed::Field { field, expected }),
    }
}

fn optional(review: &Value, pointer: &str, field: &'static str) -> Result<Option<String>, Malformed> {
    match review.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= limits::NAME => Ok(Some(text.clone())),
        Some(_) => Err(Malformed::Field { field, expected: "a short string" }),
    }
}

fn text<'a>(review: &'a Value, pointer: &str) -> Option<&'a str> {
    review.pointer(pointer)?.as_str()
}
