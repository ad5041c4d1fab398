//! Why a review was not read, and the HTTP status that says so.

use axum::http::StatusCode;

use crate::model::{limits, review::ReviewError, timeout::BadTimeout};

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
    /// What is in the body.
    #[error(transparent)]
    Review(#[from] ReviewError),
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
            Self::Timeout(_) | Self::Review(_) => StatusCode::BAD_REQUEST,
        }
    }
}
