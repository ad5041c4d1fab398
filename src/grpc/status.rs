//! How our errors become gRPC statuses. The client sees what helps it; the log gets the chain.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    identity::Refusal,
    model::{Caller, Role},
    telemetry::with_causes,
};

/// The domain of every `google.rpc.ErrorInfo` that we send.
pub const DOMAIN: &str = "countersign.dev";

/// A caller who was not let in, with the refusal's own reason: `UNAUTHENTICATED`, nobody known is calling;
/// `PERMISSION_DENIED`, somebody known without any role; `UNAVAILABLE`, who it is could not be told.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let (message, reason) = (refusal.to_string(), refusal.reason());
    match refusal {
        Refusal::IssuerUnavailable { .. } | Refusal::TooManyTokens { .. } => {
            unavailable(&message, reason, std::time::Duration::from_secs(10))
        }
        Refusal::NoRole { .. } => with_info(Code::PermissionDenied, &message, reason, HashMap::new()),
        _ => with_info(Code::Unauthenticated, &message, reason, HashMap::new()),
    }
}

/// `PERMISSION_DENIED`: somebody known is calling, without the role.
pub(crate) fn missing_role(caller: &Caller, wanted: &[Role]) -> Status {
    let names: Vec<_> = wanted.iter().map(ToString::to_string).collect();
    let held: Vec<_> = caller.roles.iter().map(ToString::to_string).collect();
    let message = format!(
        "{} has the roles [{}]; this call needs one of [{}]. Ask an admin for a rule in [identity.rules].",
        caller.identity,
        held.join(", "),
        names.join(", ")
    );
    with_info(Code::PermissionDenied, &message, "ROLE_MISSING", [("wanted".to_owned(), names.join(","))].into())
}

/// `INVALID_ARGUMENT` naming the field.
pub(crate) fn invalid(field: &str, problem: &impl ToString) -> Status {
    let problem = problem.to_string();
    let mut details = ErrorDetails::with_bad_request_violation(field, problem.clone());
    details.set_error_info("INVALID_ARGUMENT", DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {problem}"), details)
}

/// `NOT_FOUND`.
pub(crate) fn not_found(what: &str) -> Status {
    with_info(Code::NotFound, what, "NOT_FOUND", HashMap::new())
}

/// `UNAVAILABLE`: try again after `retry_after`.
pub(crate) fn unavailable(message: &str, reason: &str, retry_after: std::time::Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(retry_after));
    details.set_error_info(reason, DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(Code::Unavailable, message, details)
}

/// `RESOURCE_EXHAUSTED`: one caller asks more often than it may.
pub(crate) fn too_many(wait: std::time::Duration) -> Status {
    let mut details = ErrorDetails::with_retry_info(Some(wait));
    details.set_error_info("TOO_MANY_REQUESTS", DOMAIN, HashMap::<String, String>::new());
    let message =
        format!("this identity has had all the signatures it may have for now; ask again in {wait:.1?}, and slower");
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// `UNAVAILABLE`: a key is on a token that cannot be used now.
pub(crate) fn key_unavailable(message: &str) -> Status {
    unavailable(message, "KEY_UNAVAILABLE", std::time::Duration::from_secs(5))
}

/// `INTERNAL`: the chain goes to the log, the caller gets one sentence.
pub(crate) fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %with_causes(error), "internal error");
    with_info(
        Code::Internal,
        "internal error; the service's log has the cause under this request id",
        "INTERNAL",
        HashMap::new(),
    )
}

/// Any code with `google.rpc.ErrorInfo`.
pub(crate) fn with_info(code: Code, message: &str, reason: &str, metadata: HashMap<String, String>) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, DOMAIN, metadata))
}
