//! What every request goes through before its face sees it: request id, span, authentication, a bound on how many are
//! under way, a bound on plain HTTP bodies, and the measuring of the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, Request, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::Limited;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::{
    Clock,
    auth::{Authenticate, credentials},
};
use crate::{
    grpc::status,
    telemetry::{Metrics, REQUEST_ID_HEADER, RequestId},
};

/// The middleware of one listener.
#[derive(Debug, Clone)]
pub struct Middleware {
    /// The listener's name, in logs and metrics.
    pub door: &'static str,
    /// Where numbers go.
    pub metrics: Metrics,
    /// How gRPC callers are identified; none on listeners without gRPC.
    pub authenticate: Option<Authenticate>,
    /// What may be read as the body of a plain HTTP request, in bytes. gRPC messages are bounded one by one.
    pub body: usize,
    /// Requests that may be under way.
    pub under_way: Arc<Semaphore>,
    /// How callers who speak no gRPC are refused, in the form that they understand.
    pub refuse: fn(&Refusal) -> Response,
    /// The time.
    pub clock: Clock,
}

/// What the middleware refuses itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many requests are under way as there may be.
    Overloaded,
    /// The body is announced to be longer than this many bytes.
    TooLarge(usize),
}

/// A refusal in plain text.
pub fn plain(refusal: &Refusal) -> Response {
    match refusal {
        Refusal::Overloaded => {
            (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], format!("{OVERLOADED}\n")).into_response()
        }
        Refusal::TooLarge(most) => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {most} bytes\n")).into_response()
        }
    }
}

const OVERLOADED: &str = "too many requests are under way; try again";

impl Middleware {
    /// Wraps all routes that `router` has, and its fallback.
    pub fn wrap(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, pass))
    }
}

async fn pass(State(middleware): State<Middleware>, mut request: Request<Body>, next: Next) -> Response {
    let started = Instant::now();
    let header = request.headers().get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
    let id = RequestId::from_header(header);
    let echo = HeaderValue::from_str(id.as_str()).ok();
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", %id, door = middleware.door, path);
    request.extensions_mut().insert(id);
    let grpc = is_grpc(request.headers());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = answer(&middleware, request, next, grpc).instrument(span.clone()).await;
    if let Some(value) = echo {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    let outcome = outcome(&response, grpc);
    let seconds = started.elapsed().as_secs_f64();
    middleware.metrics.requested(middleware.door, &method(route, path, outcome), outcome, seconds);
    span.in_scope(|| tracing::debug!(outcome, seconds, "answered"));
    response
}

async fn answer(middleware: &Middleware, mut request: Request<Body>, next: Next, grpc: bool) -> Response {
    let Ok(_under_way) = middleware.under_way.try_acquire() else {
        return if grpc {
            status::unavailable(OVERLOADED, "OVERLOADED", Duration::from_secs(1)).into_http::<Body>()
        } else {
            (middleware.refuse)(&Refusal::Overloaded)
        };
    };
    if grpc {
        if let Some(authenticate) = &middleware.authenticate {
            let credentials = credentials(&request);
            authenticate.check(credentials, (middleware.clock)(), request.extensions_mut()).await;
        }
        return next.run(request).await;
    }
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > middleware.body) {
        return (middleware.refuse)(&Refusal::TooLarge(middleware.body));
    }
    let limit = middleware.body;
    next.run(request.map(|body| Body::new(Limited::new(body, limit)))).await
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The name of the status; of a gRPC stream, the one with which it began.
fn outcome(response: &Response, grpc: bool) -> &'static str {
    if grpc {
        let header = response.headers().get("grpc-status");
        return grpc_name(header.map_or(tonic::Code::Ok, |code| tonic::Code::from_bytes(code.as_bytes())));
    }
    match response.status().as_u16() {
        200..=299 => "ok",
        300..=399 => "redirected",
        404 => "not_found",
        400..=499 => "refused",
        _ => "failed",
    }
}

const fn grpc_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
        Code::Unknown => "unknown",
    }
}

/// A label out of a small set: the route; for gRPC, whose routes end in a wildcard, the method, if there is one.
fn method(route: Option<String>, path: String, outcome: &str) -> String {
    match route {
        Some(route) if route.ends_with("{*rest}") && outcome != "unimplemented" => path,
        Some(route) => route,
        None => "other".to_owned(),
    }
}
