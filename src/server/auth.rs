//! Authentication of gRPC requests: what the connection and the headers say becomes
//! [`Authenticated`] in the request's extensions. Who may do what is decided in the faces.

use std::sync::Arc;

use axum::body::Body;
use http::{Extensions, HeaderMap, Request, header::AUTHORIZATION};
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

    /// Puts the outcome into the request's extensions, and the token where it counts once; nothing where no credentials
    /// were sent, which the faces refuse wherever they need a caller.
    pub(super) async fn check(&self, credentials: Credentials, now: Timestamp, extensions: &mut Extensions) {
        match self.authenticator.recognise(credentials, now).await {
            Ok((caller, single_use)) => {
                extensions.insert(Authenticated(Ok(caller)));
                if let Some(token) = single_use {
                    extensions.insert(token);
                }
            }
            Err(Refusal::Missing) => {}
            Err(refusal) => {
                self.metrics.refused(refusal.reason());
                tracing::info!(target: "audit", reason = refusal.reason(), %refusal, "caller refused");
                extensions.insert(Authenticated(Err(refusal)));
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
