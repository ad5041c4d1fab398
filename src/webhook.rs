//! The Kubernetes face of the cluster door: `AdmissionReview` v1 in, `AdmissionReview` v1 out (design §6).
//!
//! It translates and decides nothing. `/validate` judges what stands there, `/mutate` judges and pins tags,
//! `/admit` does both. Whatever comes in, what goes out is a well-formed review, within the deadline of the request's
//! `?timeout=`; that holds for paths and methods that do not exist, and for what the listener refuses before it gets
//! here ([`refusal`]). A review whose uid could be read is answered with HTTP 200, as the API server reads no other
//! answer; anything else also gets an HTTP error.

mod answer;
mod malformed;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Semaphore;

pub use self::malformed::Malformed;
use crate::{
    admission::{Admission, Phase},
    model::{
        limits, review,
        timeout::{BadTimeout, timeout_of},
    },
};

/// Reviews under way at a time; more wait, within their deadline.
const CONCURRENT_REVIEWS: usize = 256;

#[derive(Clone)]
struct Face {
    admission: Arc<Admission>,
    clock: fn() -> Timestamp,
    slots: Arc<Semaphore>,
}

/// The routes of the webhook listener.
pub fn router(admission: Arc<Admission>, clock: fn() -> Timestamp) -> Router {
    let face = Face { admission, clock, slots: Arc::new(Semaphore::new(CONCURRENT_REVIEWS)) };
    let at = |phase| post(move |state, request| serve(state, phase, request));
    Router::new()
        .route("/validate", at(Phase::Validate))
        .route("/mutate", at(Phase::Mutate))
        .route("/admit", at(Phase::Both))
        .route("/healthz", get(async || "ok"))
        .method_not_allowed_fallback(async || refusal(&Malformed::Method))
        .fallback(async || refusal(&Malformed::Path))
        .with_state(face)
}

/// A well-formed no to what was not even read.
pub fn refusal(error: &Malformed) -> Response {
    refuse("", error)
}

async fn serve(State(face): State<Face>, phase: Phase, request: Request) -> Response {
    let deadline = match deadline_of(request.uri().query().unwrap_or_default(), Instant::now()) {
        Ok(deadline) => deadline,
        Err(error) => return refuse("", &error.into()),
    };
    if !is_json(&request) {
        return refuse("", &Malformed::ContentType);
    }
    // The slot is taken before the body is read, so that the bodies in memory are bounded too.
    let Ok(Ok(_slot)) = tokio::time::timeout_at(deadline.into(), face.slots.acquire()).await else {
        return refuse("", &Malformed::Busy);
    };
    let body = match read(request.into_body(), deadline).await {
        Ok(body) => body,
        Err(error) => return refuse("", &error),
    };
    let review = match review::parse(&body, phase) {
        Ok(review) => review,
        Err((uid, error)) => return refuse(&uid, &error.into()),
    };
    let outcome = face.admission.review(&review, (face.clock)(), deadline).await;
    Json(answer::of(&review.uid, &outcome)).into_response()
}

fn is_json(request: &Request) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE) else { return false };
    let media_type = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

async fn read(body: Body, deadline: Instant) -> Result<Bytes, Malformed> {
    tokio::time::timeout_at(deadline.into(), collect(body)).await.unwrap_or(Err(Malformed::TooSlow))
}

/// The whole body. One that is too long is read to its end all the same, and dropped (the listener bounds it): who is
/// still sending does not hear an answer.
async fn collect(mut body: Body) -> Result<Bytes, Malformed> {
    let mut bytes = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        // It broke off, or is over what the listener reads.
        let frame = frame.map_err(|_source| Malformed::TooLong)?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= limits::ADMISSION_BODY {
            bytes.extend_from_slice(&data);
        } else {
            bytes = BytesMut::new();
        }
    }
    if length > limits::ADMISSION_BODY { Err(Malformed::TooLong) } else { Ok(bytes.freeze()) }
}

/// A well-formed no to what could not be read.
fn refuse(uid: &str, error: &Malformed) -> Response {
    tracing::info!(target: "audit", action = "admission", uid, %error, allowed = false, "malformed review");
    let review: Value = answer::malformed(uid, error);
    let status = if uid.is_empty() { error.status() } else { StatusCode::OK };
    (status, Json(review)).into_response()
}

/// Until when a request that came in at `start` with this query string must be answered: the API server's timeout, our
/// margin taken off.
pub fn deadline_of(query: &str, start: Instant) -> Result<Instant, BadTimeout> {
    let timeout = timeout_of(query)?;
    Ok(start + timeout.saturating_sub(margin(timeout)))
}

/// The margin between our deadline and the API server's, for the way back.
fn margin(timeout: Duration) -> Duration {
    (timeout / 10).clamp(Duration::from_millis(20), Duration::from_millis(500)).min(timeout / 2)
}
