//! How errors become statuses, over HTTP and gRPC. The client sees what helps it; the service's log gets the chain.
//!
//! | what | gRPC | HTTP |
//! |---|---|---|
//! | no token, or one that is not accepted | `UNAUTHENTICATED` | 401 |
//! | a known identity without the role | `PERMISSION_DENIED` | 403 |
//! | a key, proof or request that is not accepted | `INVALID_ARGUMENT` | 400; 413 for a body over the limit |
//! | an identity that asks too often | `RESOURCE_EXHAUSTED` | 429 with `retry-after` |
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
    identity::Refusal,
    issuing::IssuingError,
    keys::KeyError,
    log::LogError,
    model::{PublicKeyError, certificate_request::CertificateRequestError},
};

/// The domain of every `google.rpc.ErrorInfo` that we send.
const DOMAIN: &str = "countersign.dev";
/// A key is on a token that does not sign now.
const KEY_UNAVAILABLE: &str = "KEY_UNAVAILABLE";
/// After so long an issuer that did not answer may be asked again.
const LATER: Duration = Duration::from_secs(10);
/// After so long somebody may have restarted the service.
const RESTARTED: Duration = Duration::from_secs(30);

/// What a client is told.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    status: StatusCode,
    message: Cow<'static, str>,
    reason: &'static str,
    retry_after: Option<Duration>,
}

impl Problem {
    fn new(code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        let status = match code {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unimplemented => StatusCode::METHOD_NOT_ALLOWED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code, status, message: message.into(), reason, retry_after: None }
    }

    /// A request that is not one.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_ARGUMENT", message)
    }

    /// A body over the limit.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body has more than {limit} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::new(Code::InvalidArgument, "TOO_LARGE", message) }
    }

    /// No token, neither in the body nor in the header.
    pub(super) fn no_token() -> Self {
        let message = "no token was sent; send it as credentials.oidcIdentityToken, or as `authorization: Bearer …`";
        Self::new(Code::Unauthenticated, Refusal::Missing.reason(), message)
    }

    /// One identity asks more often than it may.
    pub(super) fn too_many(wait: Duration) -> Self {
        let message = "this identity asks for certificates too often; wait, and ask slower";
        // Rounded up: whoever comes at that second is let in.
        let wait = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Self { retry_after: Some(wait), ..Self::new(Code::ResourceExhausted, "TOO_MANY_REQUESTS", message) }
    }

    fn unavailable(reason: &'static str, message: String, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::Unavailable, reason, message) }
    }

    fn internal(error: &dyn Error) -> Self {
        let mut chain = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            chain = format!("{chain}: {cause}");
            source = cause.source();
        }
        tracing::error!(error = %chain, "internal error");
        let message = "internal error; the service's log has the cause under this request id";
        Self::new(Code::Internal, "INTERNAL", message)
    }

    /// The reason in upper case.
    pub(super) const fn reason(&self) -> &'static str {
        self.reason
    }

    /// What was wrong, and what to do.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// As gRPC has it.
    pub(super) fn into_status(self) -> Status {
        let mut details = match self.retry_after {
            Some(after) => ErrorDetails::with_retry_info(Some(after)),
            None => ErrorDetails::new(),
        };
        details.set_error_info(self.reason, DOMAIN, HashMap::<String, String>::new());
        Status::with_error_details(self.code, self.message, details)
    }
}

impl IntoResponse for Problem {
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
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

/// A method that a path does not have.
pub(super) async fn method() -> Problem {
    Problem::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", "this path has another method; see /api/v2 of Fulcio's API")
}

impl From<IssuingError> for Problem {
    fn from(error: IssuingError) -> Self {
        let message = error.to_string();
        match &error {
            IssuingError::Token(refusal @ Refusal::IssuerUnavailable { .. }) => {
                Self::unavailable(refusal.reason(), message, LATER)
            }
            IssuingError::Token(refusal @ Refusal::NoRole { .. }) => {
                Self::new(Code::PermissionDenied, refusal.reason(), message)
            }
            IssuingError::Token(refusal) => Self::new(Code::Unauthenticated, refusal.reason(), message),
            IssuingError::Role(_) => Self::new(Code::PermissionDenied, "ROLE_MISSING", message),
            IssuingError::Key(refused) => Self::new(Code::InvalidArgument, key(refused), message),
            IssuingError::Request(refused) => Self::new(Code::InvalidArgument, request(refused), message),
            IssuingError::NoChallenge => Self::new(Code::InvalidArgument, "PROOF_IMPOSSIBLE", message),
            IssuingError::Proof { .. } => Self::new(Code::InvalidArgument, "PROOF_INVALID", message),
            IssuingError::Authority(refused @ KeyError::Identity { .. }) => {
                Self::new(Code::InvalidArgument, "IDENTITY_UNUSABLE", refused.to_string())
            }
            IssuingError::Log(LogError::Broken(_) | LogError::Closed | LogError::Frozen(_)) => Self::unavailable(
                "LOG_READ_ONLY",
                "the log takes no entries, so no certificate is issued; the service must be restarted".to_owned(),
                RESTARTED,
            ),
            IssuingError::Log(refused) => match refused.retry_after() {
                Some(after) => Self::unavailable(log(refused), message, after),
                None => Self::internal(&error),
            },
            IssuingError::Authority(KeyError::Token { .. } | KeyError::Pin { .. }) => {
                tracing::error!(%error, "no certificate can be issued");
                let message = "the authority's key cannot be used now; see the service's log, and try again";
                Self::unavailable(KEY_UNAVAILABLE, message.to_owned(), LATER)
            }
            IssuingError::Authority(_) | IssuingError::Interrupted => Self::internal(&error),
        }
    }
}

const fn log(refused: &LogError) -> &'static str {
    match refused {
        LogError::DiskFull(_) => "DISK_FULL",
        LogError::Unsigned => KEY_UNAVAILABLE,
        LogError::Unwitnessed(_) => "LOG_UNWITNESSED",
        _ => "LOG_BUSY",
    }
}

const fn key(refused: &PublicKeyError) -> &'static str {
    match refused {
        PublicKeyError::Unsupported(_) => "KEY_UNSUPPORTED",
        _ => "KEY_MALFORMED",
    }
}

const fn request(refused: &CertificateRequestError) -> &'static str {
    match refused {
        CertificateRequestError::TooLarge(_) => "CSR_TOO_LARGE",
        CertificateRequestError::Malformed => "CSR_MALFORMED",
        CertificateRequestError::Key(refused) => key(refused),
        CertificateRequestError::Algorithm(_) => "CSR_ALGORITHM",
        CertificateRequestError::Signature => "CSR_SIGNATURE",
    }
}
