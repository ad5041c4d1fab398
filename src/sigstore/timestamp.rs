//! Time-stamping by RFC 3161 over HTTP: `POST /api/v1/timestamp`, `GET /api/v1/timestamp/certchain`.
//!
//! A request is DER (`application/timestamp-query`), at most 4,096 bytes. A granted one is answered 201 as upstream does
//! (clients take 200 and 201). A refused one is answered 400 with a `TimeStampResp` all the same, whose status is
//! *rejection* and whose text says why (RFC 3161 section 2.4.2): clients of both manners understand it.
//!
//! The form that upstream has in JSON (`application/json`) is spoken too, see [`stamp_request`]: `sigstore-js` sends nothing else.
//! It gets the same `TimeStampResp` when it is granted, and JSON when it is refused.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use jiff::Timestamp;

use super::{
    Refusal,
    limits::{self, Limiter},
};
use crate::{
    keys::{KeyError, Keyring},
    model::stamp_request,
};

/// What is read of a request, in bytes: more than may be in one, so that it can be said what is wrong.
const BODY: usize = 64 * 1024;
const QUERY: &str = "application/timestamp-query";
const JSON: &str = "application/json";
const REPLY: &str = "application/timestamp-reply";

/// The face.
#[derive(Debug, Clone)]
pub struct TimestampFace {
    keyring: Arc<Keyring>,
    limiter: Arc<Limiter>,
    clock: fn() -> Timestamp,
}

impl TimestampFace {
    /// Stamps with the time-stamp key of `keyring`, for each address as often as `limiter` allows.
    pub fn new(keyring: Arc<Keyring>, limiter: Arc<Limiter>, clock: fn() -> Timestamp) -> Self {
        Self { keyring, limiter, clock }
    }

    /// A whole response to a request in DER.
    fn grant(&self, query: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.keyring.stamp_request(query, (self.clock)())
    }

    /// Its routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/api/v1/timestamp", post(stamp))
            .route("/api/v1/timestamp/certchain", get(chain))
            .layer(DefaultBodyLimit::max(BODY))
            .with_state(self)
    }
}

async fn stamp(
    State(face): State<TimestampFace>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(Extension(ConnectInfo(address))) = from
        && let Err(wait) = face.limiter.take(&limits::address(address.ip()), Instant::now())
    {
        return Refusal::too_many(wait).into_response();
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case(QUERY) {
        return match face.grant(&body) {
            Err(KeyError::Request(refused)) => match refused.reply() {
                Ok(reply) => (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, REPLY)], reply).into_response(),
                Err(error) => Refusal::internal(&error).into_response(),
            },
            answered => granted(answered).unwrap_or_else(IntoResponse::into_response),
        };
    }
    if kind.eq_ignore_ascii_case(JSON) {
        let answered =
            stamp_request::der_of_json(&body).map_err(Refusal::from).and_then(|query| granted(face.grant(&query)));
        return answered.unwrap_or_else(IntoResponse::into_response);
    }
    let problem = format!("a request in DER with content-type {QUERY} is wanted, or one in JSON with {JSON}\n");
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, problem).into_response()
}

/// The answer to a granted request, or a refusal in JSON.
fn granted(answered: Result<Vec<u8>, KeyError>) -> Result<Response, Refusal> {
    let reply = answered?;
    Ok((StatusCode::CREATED, [(CONTENT_TYPE, REPLY)], reply).into_response())
}

async fn chain(State(face): State<TimestampFace>) -> Response {
    match face.keyring.public().tsa_chain_pem((face.clock)()) {
        Ok(pem) => {
            let headers = [(CONTENT_TYPE, "application/pem-certificate-chain"), (CACHE_CONTROL, "public, max-age=60")];
            (headers, pem).into_response()
        }
        Err(error) => Refusal::internal(&error).into_response(),
    }
}
