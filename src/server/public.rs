//! The public listener: every gRPC service, and the plain HTTP documents that strangers verify with.
//!
//! The log itself, `/checkpoint` and `/tile/…`, is in [`tiles`].

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderMap,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE},
};
use tonic::{Status, service::Routes};

use super::{
    Clock, health, middleware::is_grpc, operations::Readiness, rotation::Rotations, succession::Succession, tiles, tuf,
    wiring::Parts,
};
use crate::{
    config::Config,
    grpc::{
        admission::Face,
        keys::KeyFace,
        log::LogFace,
        log_admin::LogAdminFace,
        release::ReleaseFace,
        rollback::RollbackFace,
        signing::{Allow, SigningFace},
        trust::Trust,
        v1,
        verification::VerificationFace,
    },
    issuing::Issuing,
    keys::Keyring,
    log::witnessing::Mode,
    model::limits,
    recording::Recording,
    signing::Signing,
    sigstore::{fulcio::Fulcio, limits::Limiter, rekor::RekorFace, timestamp::TimestampFace},
};

const JSON: &str = "application/json";
const SHORT: &str = "public, max-age=5";

pub(super) fn router(config: &Config, parts: &Parts, readiness: Readiness, clock: Clock) -> anyhow::Result<Router> {
    let mut services = services(config, parts, readiness, clock)?;
    let mut documents = documents(config, parts)
        .merge(tiles::router(parts.logs.clone()))
        .merge(tuf::router(Arc::clone(&parts.repository)));
    if config.sigstore.enabled {
        let recording = Recording::new(parts.logs.clone(), config.sigstore.entries_of, &parts.keyring);
        let rekor = RekorFace::new(recording, Limiter::shared(config.sigstore.entries));
        let stamps = Limiter::shared(config.sigstore.timestamps);
        let timestamp = TimestampFace::new(Arc::clone(&parts.keyring), stamps, clock);
        let issuing = Issuing::new(Arc::clone(&parts.authenticator), Arc::clone(&parts.keyring), parts.logs.clone());
        let certificates = Limiter::shared(config.sigstore.certificates);
        let fulcio = Fulcio::new(Arc::new(issuing), certificates, parts.metrics.clone(), clock);
        services = services.add_service(rekor.clone().into_server()).add_service(fulcio.clone().into_server());
        documents = documents.merge(rekor.router()).merge(timestamp.router()).merge(fulcio.router());
    }
    Ok(services.into_axum_router().merge(documents).fallback(elsewhere))
}

/// A path that nothing answers to: for gRPC an unknown method, for everybody else an unknown document.
async fn elsewhere(headers: HeaderMap) -> Response {
    if is_grpc(&headers) {
        return Status::unimplemented("").into_http::<Body>();
    }
    tiles::nothing_here()
}

/// The face that signs, for each identity as often as is configured.
fn signing(config: &Config, parts: &Parts, clock: Clock) -> SigningFace {
    let limiter = Limiter::new(config.limits.signatures);
    let allow: Allow = Arc::new(move |identity, count| limiter.take_all(&identity.to_string(), count, Instant::now()));
    SigningFace { signing: Signing::clone(&parts.signing), allow, clock }
}

/// Where clients find the instance.
pub(super) fn base_url(config: &Config, host: &str) -> String {
    format!("https://{host}:{}", config.listen.public.port())
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
    let rotations = Rotations {
        data: config.data.clone(),
        kek: config.kek_source()?,
        keyring: Arc::clone(&parts.keyring),
        evidence: Arc::clone(&parts.evidence),
        repository: Arc::clone(&parts.repository),
        clock,
    };
    let base_url = base_url(config, parts.keyring.host());
    let (keyring, repository) = (Arc::clone(&parts.keyring), Arc::clone(&parts.repository));
    let trust = Trust::new(keyring, repository, rotations.into_call(), base_url, clock);
    let stopping = readiness.stopping.subscribe();
    Ok(Routes::new(health::Face::server(readiness))
        .add_service(reflection)
        .add_service(signing(config, parts, clock).into_server())
        .add_service(KeyFace::new(Arc::clone(&parts.signing), Arc::clone(&parts.release), clock).into_server())
        .add_service(log_admin(config, parts, clock)?.into_server())
        .add_service(LogFace::new(parts.logs.clone(), stopping).into_server())
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
        repository: Arc::clone(&parts.repository),
        clock,
    };
    let scratch = config.data.join("backup-under-way");
    Ok(LogAdminFace::new(parts.logs.clone(), Arc::clone(&parts.signing), succession.into_call(), scratch, clock))
}

fn documents(config: &Config, parts: &Parts) -> Router {
    let base = base_url(config, parts.keyring.host());
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

fn reply(kind: &'static str, cache: &'static str, body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")], body).into_response()
}
