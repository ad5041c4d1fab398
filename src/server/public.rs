//! The public listener: every gRPC service, and the plain HTTP documents that strangers verify with.
//!
//! `/checkpoint` and `/tile/…` are C2SP tlog-tiles; the same stands under `/api/v2`, where Sigstore clients look.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap, StatusCode, Uri,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HOST},
};
use tonic::service::Routes;

use super::{Clock, health, operations::Readiness, succession::Succession, wiring::Parts};
use crate::{
    config::Config,
    grpc::{
        admission::Face, log::LogFace, log_admin::LogAdminFace, release::ReleaseFace, rollback::RollbackFace,
        signing::SigningFace, trust::Trust, v1, verification::VerificationFace,
    },
    keys::Keyring,
    log::{Log, LogError, Logs, witnessing::Mode},
    model::limits,
    signing::Signing,
    tlog::tile::TilePath,
};

const JSON: &str = "application/json";
const NOTE: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
const SHORT: &str = "public, max-age=5";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

pub(super) fn router(config: &Config, parts: &Parts, readiness: Readiness, clock: Clock) -> anyhow::Result<Router> {
    Ok(services(config, parts, readiness, clock)?
        .into_axum_router()
        .merge(documents(config, parts))
        .merge(tiles(&parts.logs)))
}

fn base_url(config: &Config, parts: &Parts) -> String {
    format!("https://{}:{}", parts.keyring.host(), config.listen.public.port())
}

fn services(config: &Config, parts: &Parts, readiness: Readiness, clock: Clock) -> anyhow::Result<Routes> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .build_v1()?;
    let verification = VerificationFace {
        evidence: Arc::clone(&parts.evidence),
        registry: parts.registry.clone(),
        policies: Arc::clone(&parts.policies),
        release: Arc::clone(&parts.release),
        roots: parts.roots.clone(),
        metrics: parts.metrics.clone(),
        clock,
    };
    let admission =
        v1::admission_service_server::AdmissionServiceServer::new(Face::new(Arc::clone(&parts.admission), clock));
    let trust = Trust::new(Arc::clone(&parts.keyring), base_url(config, parts), clock);
    Ok(Routes::new(health::Face::server(readiness))
        .add_service(reflection)
        .add_service(SigningFace { signing: Signing::clone(&parts.signing), clock }.into_server())
        .add_service(log_admin(config, parts, clock)?.into_server())
        .add_service(LogFace { log: parts.logs.present() }.into_server())
        .add_service(
            v1::verification_service_server::VerificationServiceServer::new(verification)
                .max_decoding_message_size(limits::GRPC_MESSAGE),
        )
        .add_service(admission.max_decoding_message_size(limits::GRPC_MESSAGE))
        .add_service(v1::release_service_server::ReleaseServiceServer::new(ReleaseFace::new(
            Arc::clone(&parts.release),
            clock,
        )))
        .add_service(v1::rollback_service_server::RollbackServiceServer::new(RollbackFace::new(
            Arc::clone(&parts.rollback),
            parts.metrics.clone(),
            clock,
        )))
        .add_service(v1::trust_service_server::TrustServiceServer::new(trust)))
}

fn log_admin(config: &Config, parts: &Parts, clock: Clock) -> anyhow::Result<LogAdminFace> {
    let succession = Succession {
        data: config.data.clone(),
        kek: config.kek_source()?,
        room: config.log.room(),
        witnesses_required: config.witness.mode == Some(Mode::Require),
        keyring: Arc::clone(&parts.keyring),
        logs: parts.logs.clone(),
        evidence: Arc::clone(&parts.evidence),
        clock,
    };
    let scratch = config.data.join("backup-under-way");
    Ok(LogAdminFace::new(parts.logs.clone(), Arc::clone(&parts.signing), succession.into_call(), scratch, clock))
}

fn documents(config: &Config, parts: &Parts) -> Router {
    let base = base_url(config, parts);
    // Made when they are asked for: they change when a new log takes over.
    let document = |make: fn(&Keyring, &str) -> String| {
        let (keyring, base) = (Arc::clone(&parts.keyring), base.clone());
        get(move || async move { reply(JSON, SHORT, make(&keyring, &base).into_bytes()) })
    };
    Router::new()
        .route("/trusted_root.json", document(|keys, _base| keys.trusted_root().to_string()))
        .route("/signing_config.v0.2.json", document(Keyring::signing_config))
        .route("/client_trust_config.json", document(Keyring::client_trust_config))
}

fn tiles(logs: &Logs) -> Router {
    Router::new()
        .route("/checkpoint", get(checkpoint))
        .route("/tile/{*path}", get(tile))
        .route("/api/v2/checkpoint", get(checkpoint))
        .route("/api/v2/tile/{*path}", get(tile))
        .with_state(logs.clone())
}

fn reply(kind: &'static str, cache: &'static str, body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")], body).into_response()
}

/// The log that a request is for: the one of the host that it names, else the present one.
fn named(logs: &Logs, headers: &HeaderMap, uri: &Uri) -> Log {
    let host = uri.host().or_else(|| headers.get(HOST)?.to_str().ok());
    let name = host.and_then(|host| host.split(':').next());
    name.and_then(|name| logs.of(name)).unwrap_or_else(|| logs.present())
}

async fn checkpoint(State(logs): State<Logs>, headers: HeaderMap, uri: Uri) -> Response {
    let log = named(&logs, &headers, &uri);
    reply(NOTE, SHORT, log.head().checkpoint.as_bytes().to_vec())
}

async fn tile(State(logs): State<Logs>, headers: HeaderMap, uri: Uri, Path(path): Path<String>) -> Response {
    let log = named(&logs, &headers, &uri);
    let Ok(path) = format!("tile/{path}").parse::<TilePath>() else {
        return (StatusCode::NOT_FOUND, "not a tile path; see c2sp.org/tlog-tiles\n").into_response();
    };
    let read = tokio::task::spawn_blocking(move || match path {
        TilePath::Hashes { level, index, width } => log.tile(level, index, width),
        TilePath::Entries { index, width } => log.entry_bundle(index, width),
    });
    match read.await {
        Ok(Ok(body)) => reply(BYTES, IMMUTABLE, body),
        Ok(Err(LogError::NotFound)) => (StatusCode::NOT_FOUND, "the log has no such tile\n").into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "a tile could not be read");
            (StatusCode::INTERNAL_SERVER_ERROR, "the tile could not be read\n").into_response()
        }
        Err(_lost) => (StatusCode::INTERNAL_SERVER_ERROR, "interrupted\n").into_response(),
    }
}
