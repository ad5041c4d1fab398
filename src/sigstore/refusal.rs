//! Why a Sigstore face refuses. Over HTTP it is JSON as grpc-gateway writes it, `{"code":…,"message":…,"details":[…]}`, and
//! over gRPC a status; both carry a `google.rpc.ErrorInfo` with a reason that programs can go by. The client is told
//! what helps it; the service's log gets the causes of what went wrong here.
//!
//! | what | gRPC | HTTP |
//! |---|---|---|
//! | no token, or one that is not accepted | `UNAUTHENTICATED` | 401 |
//! | a known identity without the role, or a signature that is not by a certificate where one is asked for | `PERMISSION_DENIED` | 403 |
//! | a request, key, signature or proof that is not accepted | `INVALID_ARGUMENT` | 400; 413 for a body over the limit |
//! | no such tile or entry bundle | `NOT_FOUND` | 404 |
//! | a caller who asks too often | `RESOURCE_EXHAUSTED` | 429 with `retry-after` |
//! | the token's issuer cannot be asked, or the log takes nothing now | `UNAVAILABLE` | 503 with `retry-after` |
//! | a failure of ours | `INTERNAL` | 500 |

use std::{borrow::Cow, collections::HashMap, error::Error, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    keys::KeyError,
    log::LogError,
    model::{
        PublicKeyError, possession::PossessionError, stamp_refusal::Failure, stamp_request::StampJsonError,
        submission::SubmissionError,
    },
    recording::RecordingError,
    telemetry::with_causes,
};

/// The domain of every `google.rpc.ErrorInfo` that we send.
const DOMAIN: &str = "countersign.dev";
/// A key is on a token that does not sign now.
const KEY_UNAVAILABLE: &str = "KEY_UNAVAILABLE";
/// After so long whoever did not answer may be asked again: a token, or a caller's issuer.
pub(super) const LATER: Duration = Duration::from_secs(10);
/// After so long somebody may have restarted the service.
const RESTARTED: Duration = Duration::from_secs(30);

/// A refusal: a code, a reason in upper case, one sentence, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    status: StatusCode,
    reason: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal whose status over HTTP goes with its code.
    pub(super) fn new(code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let status = match code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code, status, reason, message: message.into(), retry_after: None }
    }

    /// What was sent cannot be used.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", message)
    }

    /// A body over the limit, in bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::new(Code::InvalidArgument, "TOO_LARGE", message) }
    }

    /// No stamp for what was sent.
    fn stamp(failed: Failure, why: &impl ToString) -> Self {
        Self::new(Code::InvalidArgument, failure(failed), why.to_string())
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::NotFound, "NOT_FOUND", message)
    }

    /// Too many requests of one caller.
    pub fn too_many(wait: Duration) -> Self {
        let message = "too many requests from this caller; wait, and send them slower";
        Self { retry_after: Some(wait), ..Self::new(Code::ResourceExhausted, "TOO_MANY_REQUESTS", message) }
    }

    /// Not now.
    pub(super) fn unavailable(
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        retry_after: Duration,
    ) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::Unavailable, reason, message) }
    }

    /// Our fault. The causes go to the log, and not to the caller.
    pub fn internal(error: &dyn Error) -> Self {
        tracing::error!(error = %with_causes(error), "internal error");
        let message = "internal error; the service's log has the cause under this request id";
        Self::new(Code::Internal, "INTERNAL", message)
    }

    /// Which kind it is.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The reason, in upper case.
    pub const fn reason(&self) -> &'static str {
        self.reason
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        let reason = match &error {
            LogError::Broken(_) | LogError::Closed | LogError::Frozen(_) => {
                let message = "the log takes no entries, so nothing can be recorded; the service must be restarted";
                return Self::unavailable("LOG_READ_ONLY", message, RESTARTED);
            }
            LogError::Invalid(_) => return Self::invalid(error.to_string()),
            LogError::NotFound => return Self::not_found(error.to_string()),
            LogError::DiskFull(_) => "DISK_FULL",
            LogError::Unsigned => KEY_UNAVAILABLE,
            LogError::Unwitnessed(_) => "LOG_UNWITNESSED",
            _ => "LOG_BUSY",
        };
        match error.retry_after() {
            Some(after) => Self::unavailable(reason, error.to_string(), after),
            None => Self::internal(&error),
        }
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Request(refused) => Self::stamp(refused.failure, &refused),
            KeyError::Identity { .. } => Self::new(Code::InvalidArgument, "IDENTITY_UNUSABLE", error.to_string()),
            KeyError::Token { .. } | KeyError::Pin { .. } => {
                tracing::error!(%error, "a key cannot be used");
                let message = "the key for this cannot be used now; see the service's log, and try again";
                Self::unavailable(KEY_UNAVAILABLE, message, LATER)
            }
            out @ KeyError::OutOfLife { .. } => Self::unavailable("CLOCK_OUT_OF_RANGE", out.to_string(), RESTARTED),
            other => Self::internal(&other),
        }
    }
}

impl From<SubmissionError> for Refusal {
    fn from(error: SubmissionError) -> Self {
        let reason = match &error {
            SubmissionError::KeyDetails | SubmissionError::Scheme { .. } => "KEY_DETAILS",
            SubmissionError::TooLong { .. } => "ENTRY_TOO_LARGE",
            SubmissionError::Key(refused) => key(refused),
            _ => "ENTRY_MALFORMED",
        };
        Self::new(Code::InvalidArgument, reason, error.to_string())
    }
}

/// Why a key, or a signature by it, is refused.
pub(super) const fn key(refused: &PublicKeyError) -> &'static str {
    match refused {
        PublicKeyError::Malformed => "KEY_MALFORMED",
        PublicKeyError::Certificate => "CERTIFICATE_MALFORMED",
        PublicKeyError::Unsupported(_) => "KEY_UNSUPPORTED",
        PublicKeyError::DigestLength { .. } => "DIGEST_LENGTH",
        PublicKeyError::Signature => "SIGNATURE_INVALID",
    }
}

/// Why no stamp is given, by the names of RFC 3161.
const fn failure(failure: Failure) -> &'static str {
    match failure {
        Failure::BadAlgorithm => "BAD_ALGORITHM",
        Failure::BadRequest => "BAD_REQUEST",
        Failure::BadDataFormat => "BAD_DATA_FORMAT",
        Failure::TimeNotAvailable => "TIME_NOT_AVAILABLE",
        Failure::UnacceptedPolicy => "UNACCEPTED_POLICY",
        Failure::UnacceptedExtension => "UNACCEPTED_EXTENSION",
    }
}

impl From<PossessionError> for Refusal {
    fn from(error: PossessionError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<StampJsonError> for Refusal {
    fn from(error: StampJsonError) -> Self {
        match error {
            StampJsonError::Asn1(ref error) => Self::internal(error),
            StampJsonError::Json(_) => Self::stamp(Failure::BadDataFormat, &error),
            StampJsonError::Hash => Self::stamp(Failure::BadAlgorithm, &error),
            StampJsonError::Policy(_) => Self::stamp(Failure::UnacceptedPolicy, &error),
        }
    }
}

impl From<RecordingError> for Refusal {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::Log(error) => error.into(),
            RecordingError::NotCertified => {
                Self::new(Code::PermissionDenied, "CERTIFICATE_REQUIRED", error.to_string())
            }
            RecordingError::Submission(refused) => refused.into(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        if let Some(wait) = refusal.retry_after {
            details.set_retry_info(Some(wait));
        }
        details.set_error_info(refusal.reason, DOMAIN, HashMap::<String, String>::new());
        Self::with_error_details(refusal.code, refusal.message, details)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let info =
            json!({ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason, "domain": DOMAIN });
        let body = json!({ "code": i32::from(self.code), "message": self.message, "details": [info] });
        let mut response =
            (self.status, [(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Rounded up: whoever comes at that second is let in.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
