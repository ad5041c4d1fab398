//! The TUF repository over HTTP, below `/tuf/`: what `cosign initialize` and `sigstore trust-instance` are pointed at.
//!
//! What has a version or a digest in its name never changes and may be kept; `timestamp.json`, the plain names, and the
//! answer that the next root is not there must not be.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderValue, StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE},
};

use crate::tuf::Repository;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The routes.
pub(super) fn router(repository: Arc<Repository>) -> Router {
    Router::new().route("/tuf/{*path}", get(file)).with_state(repository)
}

async fn file(State(repository): State<Arc<Repository>>, Path(path): Path<String>) -> Response {
    let for_all = (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    let Some(bytes) = repository.file(&path) else {
        let why = "the TUF repository has no such file; begin with /tuf/1.root.json\n";
        return (StatusCode::NOT_FOUND, [(CACHE_CONTROL, NO_STORE), for_all], why).into_response();
    };
    let name = path.strip_prefix("targets/").unwrap_or(&path);
    let first = name.split('.').next().unwrap_or_default();
    // `12.root.json`, or the 64 digits of a digest.
    let named = first.bytes().all(|byte| byte.is_ascii_digit()) || first.len() == 64;
    let cache = if named { IMMUTABLE } else { NO_STORE };
    ([(CONTENT_TYPE, JSON), (CACHE_CONTROL, cache), for_all], bytes).into_response()
}
