//! From an outcome to the `AdmissionReview` that the API server reads.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::Malformed;
use crate::{
    admission::{Class, Outcome, Pin},
    model::{
        review::{API_VERSION, KIND},
        verdict::Code,
    },
};

/// The API server may cut a longer warning.
const WARNING: usize = 256;
/// Warnings in one answer, as a count; the API server takes 4,096 bytes from all webhooks together.
const WARNINGS: usize = 12;
/// The message of a refusal; what is over it is in the audit line.
const MESSAGE: usize = 4_096;
/// One audit annotation.
const ANNOTATION: usize = 1_024;

/// The answer to a question that was decided.
pub(super) fn of(uid: &str, outcome: &Outcome) -> Value {
    let mut response = Map::new();
    response.insert("uid".to_owned(), uid.into());
    response.insert("allowed".to_owned(), outcome.allowed.into());
    if !outcome.allowed {
        let message = cut(&format!("countersign refused this object\n{}", outcome.message), MESSAGE, true);
        response.insert("status".to_owned(), status(code(outcome), &message));
    }
    if outcome.allowed && !outcome.patch.is_empty() {
        let operations: Vec<Value> = outcome.patch.iter().map(replace).collect();
        response.insert("patchType".to_owned(), "JSONPatch".into());
        response.insert("patch".to_owned(), STANDARD.encode(Value::Array(operations).to_string()).into());
    }
    if !outcome.warnings.is_empty() {
        response.insert("warnings".to_owned(), warnings(&outcome.warnings).into());
    }
    let annotations: Map<String, Value> =
        outcome.audit.iter().map(|(key, value)| ((*key).to_owned(), cut(value, ANNOTATION, false).into())).collect();
    response.insert("auditAnnotations".to_owned(), annotations.into());
    review(response)
}

/// The answer to what could not be read.
pub(super) fn malformed(uid: &str, error: &Malformed) -> Value {
    let message = format!("countersign did not read the review: {error}");
    let status = status(error.status().as_u16(), &cut(&message, MESSAGE, false));
    review(json!({ "uid": uid, "allowed": false, "status": status }))
}

fn review(response: impl Into<Value>) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": KIND, "response": response.into() })
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        400 => "BadRequest",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        408 | 504 => "Timeout",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({ "status": "Failure", "code": code, "reason": reason, "message": message })
}

/// 403 for a no, 500 for could not tell, 504 when time was what lacked.
fn code(outcome: &Outcome) -> u16 {
    let is_late = |outcome: &Outcome| {
        outcome
            .images
            .iter()
            .flat_map(|image| &image.verdict.reasons)
            .any(|reason| reason.code == Code::DeadlineExceeded)
    };
    match outcome.class {
        Some(Class::CouldNotTell) if is_late(outcome) => 504,
        Some(Class::CouldNotTell) => 500,
        _ => 403,
    }
}

fn replace(pin: &Pin) -> Value {
    json!({ "op": "replace", "path": pin.pointer, "value": pin.image })
}

fn warnings(all: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = all.iter().take(WARNINGS).map(|warning| cut(warning, WARNING, false)).collect();
    if all.len() > WARNINGS {
        shown.push(format!("… and {} more; the audit log has them", all.len() - WARNINGS));
    }
    shown
}

/// At most `most` characters; no control characters, as warnings travel in headers (a message may keep its lines).
fn cut(text: &str, most: usize, lines: bool) -> String {
    let clean = |c: char| if c.is_control() && !(lines && c == '\n') { ' ' } else { c };
    let mut shown: String = text.chars().map(clean).take(most).collect();
    if text.chars().nth(most).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}
