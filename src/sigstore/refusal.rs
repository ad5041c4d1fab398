//! Why a Sigstore face refuses, over HTTP (JSON as gRPC gateways write it) and over gRPC.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{log::LogError, recording::RecordingError};

/// A refusal: a code, one sentence, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// What was sent cannot be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into(), retry_after: None }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into(), retry_after: None }
    }

    /// Too many requests of one caller.
    pub fn too_many(wait: Duration) -> Self {
        let message = "too many requests from this caller; wait, and send them slower".to_owned();
        Self { code: Code::ResourceExhausted, message, retry_after: Some(wait) }
    }

    /// Not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { code: Code::Unavailable, message: message.into(), retry_after: Some(Duration::from_secs(1)) }
    }

    /// Our fault. The cause goes to the log, and not to the caller.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        tracing::error!(error = %cause, "internal error");
        let message = "internal error; the service's log has the cause under this request id".to_owned();
        Self { code: Code::Internal, message, retry_after: None }
    }

    /// Which kind it is.
    pub const fn code(&self) -> Code {
        self.code
    }

    fn seconds(&self) -> Option<u64> {
        // Rounded up: whoever comes at that second is let in.
        self.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full
            | LogError::Closed
            | LogError::Frozen(_)
            | LogError::DiskFull(_)
            | LogError::Unsigned
            | LogError::Unwitnessed(_) => Self::unavailable(error.to_string()),
            LogError::Invalid(_) => Self::invalid(error.to_string()),
            LogError::NotFound => Self::not_found(error.to_string()),
            other => Self::internal(&other),
        }
    }
}

impl From<RecordingError> for Refusal {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::Log(error) => error.into(),
            refused => Self::invalid(refused.to_string()),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        if let Some(wait) = refusal.retry_after {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(refusal.code, refusal.message, details)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let seconds = self.seconds();
        let body = json!({ "code": i32::from(self.code), "message": self.message, "details": [] });
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response();
        response.headers_mut().extend(seconds.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
        response
    }
}
