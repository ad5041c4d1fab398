//! The certificate authority as Sigstore clients know it: Fulcio's API, version 2 over HTTP and gRPC, and what is left of
//! version 1 over HTTP.
//!
//! ```text
//! POST /api/v2/signingCert     200  {"signedCertificateEmbeddedSct":{"chain":{"certificates":["PEM", …]}}}
//! GET  /api/v2/trustBundle     200  {"chains":[{"certificates":["PEM", …]}]}
//! GET  /api/v2/configuration   200  {"issuers":[{"issuerUrl":…,"audience":…,"challengeClaim":…, …}]}
//! POST /api/v1/signingCert     201  application/pem-certificate-chain
//! GET  /api/v1/rootCert        200  application/pem-certificate-chain
//! ```
//!
//! A token comes in the body (`credentials.oidcIdentityToken`) or as `authorization: Bearer …`; where both are sent, the
//! body's counts. Names are taken in camel case and snake case, base64 in either alphabet, padded or not, and fields that
//! nobody knows are passed over, as grpc-gateway does it. So does an error look: `{"code":…,"message":…,"details":[…]}`,
//! with the reason as a `google.rpc.ErrorInfo`, see [`Refusal`].

mod json;
mod legacy;
mod refusals;
mod rpc;

use std::{error::Error, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderValue, Request,
    header::{AUTHORIZATION, CACHE_CONTROL},
};
use http_body_util::LengthLimitError;
use jiff::Timestamp;
use serde_json::json;

pub use super::proto::dev::sigstore::fulcio::v2;
use super::{Refusal, limits::Limiter};
use crate::{
    issuing::{Issued, Issuing, IssuingError},
    model::{limits, possession::Possession},
    telemetry::Metrics,
};
use v2::ca_server::CaServer;

/// What may be kept for a moment: it changes when keys or settings do.
const SHORT: HeaderValue = HeaderValue::from_static("public, max-age=5");
/// What must not be kept.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// The face.
#[derive(Debug, Clone)]
pub struct Fulcio {
    issuing: Arc<Issuing>,
    limiter: Arc<Limiter>,
    metrics: Metrics,
    clock: fn() -> Timestamp,
}

impl Fulcio {
    /// Issues by `issuing`, for each identity as often as `limiter` allows.
    pub fn new(issuing: Arc<Issuing>, limiter: Arc<Limiter>, metrics: Metrics, clock: fn() -> Timestamp) -> Self {
        Self { issuing, limiter, metrics, clock }
    }

    /// The routes over HTTP.
    pub fn router(self) -> Router {
        router(self)
    }

    /// The service over gRPC, with message limits.
    pub fn into_server(self) -> CaServer<Self> {
        CaServer::new(self).max_decoding_message_size(limits::SIGNING_CERT_BODY)
    }
}

fn router(fulcio: Fulcio) -> Router {
    Router::new()
        .route("/api/v2/signingCert", post(signing_cert).fallback(refusals::method))
        .route("/api/v2/trustBundle", get(trust_bundle).fallback(refusals::method))
        .route("/api/v2/configuration", get(configuration).fallback(refusals::method))
        .route("/api/v1/signingCert", post(legacy::signing_cert).fallback(refusals::method))
        .route("/api/v1/rootCert", get(legacy::root_cert).fallback(refusals::method))
        .with_state(fulcio)
}

impl Fulcio {
    /// The one way to a certificate, whichever way it was asked for.
    async fn certify(&self, token: Option<String>, possession: Possession) -> Result<Issued, Refusal> {
        let now = (self.clock)();
        let admitted = match token {
            Some(token) => self.issuing.admit(&token, now).await.map_err(Refusal::from),
            None => Err(refusals::no_token()),
        };
        let principal = admitted.inspect_err(|refusal| self.refused(refusal))?;
        // Here the identity is known, and nothing was spent on it but the check of its token.
        let caller = principal.caller().identity.clone();
        self.limiter.take(&caller.to_string(), Instant::now()).map_err(Refusal::too_many)?;
        let issued = self.issuing.issue(principal, possession, now).await.map_err(|error| {
            let of_token = matches!(error, IssuingError::Token(_));
            let refusal = Refusal::from(error);
            if of_token {
                self.refused(&refusal);
            }
            refusal
        })?;
        tracing::info!(target: "audit", action = "issue", caller = %caller, entry = %issued.entry, "issued");
        Ok(issued)
    }

    fn refused(&self, refusal: &Refusal) {
        self.metrics.refused(refusal.reason());
        tracing::info!(target: "audit", reason = refusal.reason(), %refusal, "caller refused");
    }
}

async fn signing_cert(State(fulcio): State<Fulcio>, request: Request<Body>) -> Result<Response, Refusal> {
    let (header, body) = parts(request).await?;
    let (token, possession) = Possession::from_json(&body)?;
    let issued = fulcio.certify(token.or(header), possession).await?;
    let answer = json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": issued.chain } } });
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(answer)).into_response())
}

async fn trust_bundle(State(fulcio): State<Fulcio>) -> Response {
    let chains: Vec<_> =
        fulcio.issuing.trust_bundle().into_iter().map(|chain| json!({ "certificates": chain })).collect();
    ([(CACHE_CONTROL, SHORT)], Json(json!({ "chains": chains }))).into_response()
}

async fn configuration(State(fulcio): State<Fulcio>) -> Response {
    let issuers: Vec<_> = rpc::configuration(&fulcio.issuing).issuers.into_iter().map(json::issuer).collect();
    ([(CACHE_CONTROL, SHORT)], Json(json!({ "issuers": issuers }))).into_response()
}

/// The token in the headers, and the body, bounded.
async fn parts(request: Request<Body>) -> Result<(Option<String>, Bytes), Refusal> {
    let token = bearer(request.headers());
    let body = to_bytes(request.into_body(), limits::SIGNING_CERT_BODY).await.map_err(|error| {
        if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) {
            Refusal::too_large(limits::SIGNING_CERT_BODY)
        } else {
            Refusal::invalid("the body did not arrive whole; send it again")
        }
    })?;
    Ok((token, body))
}

/// The token of `authorization: Bearer …`; the scheme in any case, as RFC 9110 has it.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
