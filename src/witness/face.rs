//! The HTTP face of the witness: `POST /add-checkpoint`, and `GET /<hex>/checkpoint` for monitors.
//!
//! Translates and delegates: which status an answer has, and nothing else. Anybody may ask; a request is as good as the
//! signature on its checkpoint.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE},
};
use jiff::Timestamp;

use super::{Witness, WitnessError};
use crate::tlog::witness::{MOST_REQUEST, Refusal, SIZE_TYPE, print_conflict};

const TEXT: &str = "text/plain; charset=utf-8";

#[derive(Clone)]
struct Face {
    witness: Arc<Witness>,
    clock: fn() -> Timestamp,
}

/// The routes of a witness: submission and monitoring prefix are the same.
pub fn router(witness: Arc<Witness>, clock: fn() -> Timestamp) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/{id}/checkpoint", get(checkpoint))
        .layer(DefaultBodyLimit::max(MOST_REQUEST))
        .with_state(Face { witness, clock })
}

async fn add_checkpoint(State(face): State<Face>, body: String) -> Response {
    // Verifying and syncing take their time: off the async threads.
    let answered = tokio::task::spawn_blocking(move || face.witness.add_checkpoint(&body, (face.clock)())).await;
    match answered {
        Ok(Ok(lines)) => ([(CONTENT_TYPE, TEXT)], lines).into_response(),
        Ok(Err(WitnessError::Refused(refusal))) => refuse(&refusal),
        Ok(Err(error)) => {
            tracing::error!(%error, "add-checkpoint failed");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
        Err(_lost) => (StatusCode::INTERNAL_SERVER_ERROR, "interrupted\n").into_response(),
    }
}

fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Malformed(_) => StatusCode::BAD_REQUEST,
        Refusal::UnknownLog(_) => StatusCode::NOT_FOUND,
        Refusal::Signature(_) => StatusCode::FORBIDDEN,
        Refusal::Conflict(size) => {
            return (StatusCode::CONFLICT, [(CONTENT_TYPE, SIZE_TYPE)], print_conflict(*size)).into_response();
        }
        Refusal::Inconsistent(_) => StatusCode::UNPROCESSABLE_ENTITY,
    };
    (status, [(CONTENT_TYPE, TEXT)], format!("{refusal}\n")).into_response()
}

async fn checkpoint(State(face): State<Face>, Path(id): Path<String>) -> Response {
    // The lock may be held while something is synced.
    let found = tokio::task::spawn_blocking(move || face.witness.checkpoint(&id)).await;
    match found.ok().flatten() {
        Some(note) => {
            let headers = [(CONTENT_TYPE, TEXT), (CACHE_CONTROL, "no-cache"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
            (headers, note.to_string()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "this witness has cosigned nothing of such a log\n").into_response(),
    }
}
