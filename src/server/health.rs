//! `grpc.health.v1`: the same answer as `/readyz`, for those who speak gRPC.
//!
//! A check asks at that moment; nothing is remembered. A watch asks every second and sends what has changed. When the
//! service stops, a watch says so and ends, so that it does not hold up the drain.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::operations::Readiness;
use crate::grpc::v1::{
    admission_service_server as admission, key_service_server as keys, log_service_server as log,
    release_service_server as release, rollback_service_server as rollback, signing_service_server as signing,
    trust_service_server as trust, verification_service_server as verification,
};

/// How often a watch asks.
const PAUSE: Duration = Duration::from_secs(1);

/// The services that can be asked about by name; they share one fate. The empty name is the whole.
const SERVICES: [&str; 9] = [
    "",
    admission::SERVICE_NAME,
    keys::SERVICE_NAME,
    log::SERVICE_NAME,
    release::SERVICE_NAME,
    rollback::SERVICE_NAME,
    signing::SERVICE_NAME,
    trust::SERVICE_NAME,
    verification::SERVICE_NAME,
];

/// The face of the health protocol over [`Readiness`].
#[derive(Debug, Clone)]
pub(super) struct Face(Readiness);

impl Face {
    /// The tonic service.
    pub(super) fn server(readiness: Readiness) -> HealthServer<Self> {
        HealthServer::new(Self(readiness))
    }

    async fn status(&self) -> ServingStatus {
        if self.0.problems().await.is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl Health for Face {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("no such service; leave the name empty to ask about the whole"));
        }
        Ok(Response::new(reply(self.status().await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let watch = Watch { face: self.clone(), known, said: None, ended: false };
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::next))))
    }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// A watch: what was said last, and whether that was the last.
struct Watch {
    face: Face,
    /// The protocol has a watch of an unknown service wait for it to come.
    known: bool,
    said: Option<ServingStatus>,
    ended: bool,
}

impl Watch {
    /// Waits for the next thing to say; `None` after the last.
    async fn next(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        while !self.ended {
            self.ended = self.face.0.stopping.has_begun();
            let now = if self.known { self.face.status().await } else { ServingStatus::ServiceUnknown };
            if self.said.replace(now) != Some(now) {
                return Some((Ok(reply(now)), self));
            }
            if !self.ended {
                tokio::time::sleep(PAUSE).await;
            }
        }
        None
    }
}
