//! Authentication of gRPC requests: what the connection and the headers say becomes
//! [`Authenticated`] in the request's extensions. Who may do what is decided in the faces.

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Request, header::AUTHORIZATION};
use jiff::Timestamp;

use super::listener::Peer;
use crate::{
    grpc::auth::Authenticated,
    identity::{Authenticator, Credentials, Refusal},
    telemetry::Metrics,
};

/// Turns credentials into a caller.
#[derive(Debug, Clone)]
pub struct Authenticate {
    authenticator: Arc<Authenticator>,
    metrics: Metrics,
}

impl Authenticate {
    /// Uses this authenticator, and counts refusals.
    pub fn new(authenticator: Arc<Authenticator>, metrics: Metrics) -> Self {
        Self { authenticator, metrics }
    }

    /// The outcome for the request's extensions; nothing where no credentials were sent, which the faces refuse
    /// wherever they need a caller.
    pub(super) async fn check(&self, credentials: Credentials, now: Timestamp) -> Option<Authenticated> {
        match self.authenticator.authenticate(credentials, now).await {
            Ok(caller) => Some(Authenticated(Ok(caller))),
            Err(Refusal::Missing) => None,
            Err(refusal) => {
                self.metrics.refused(refusal.reason());
                tracing::info!(target: "audit", reason = refusal.reason(), %refusal, "caller refused");
                Some(Authenticated(Err(refusal)))
            }
        }
    }
}

/// What the connection and the headers say of the caller.
pub(super) fn credentials(request: &Request<Body>) -> Credentials {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.as_ref()).map(|leaf| leaf.to_vec());
    Credentials { bearer: bearer(request.headers()), peer }
}

/// The token of `authorization: Bearer …`; the scheme in any case, as RFC 9110 has it.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
