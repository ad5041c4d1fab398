//! The operations listener: `/metrics`, `/healthz` (the process answers), `/readyz` (it should be sent requests).

use std::{fmt, sync::Arc};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, header::CONTENT_TYPE};

use super::Stopping;
use crate::telemetry::Metrics;

/// One thing that must hold before requests are sent here: its name, and what is wrong with it, if anything.
pub(super) type Check = (&'static str, Box<dyn Fn() -> Result<(), String> + Send + Sync>);

/// Whether requests should be sent here, and the numbers that are read at the same moment.
#[derive(Clone)]
pub struct Readiness {
    /// Set when the service stops.
    pub stopping: Stopping,
    /// What else must hold: the log writes, no key has expired.
    pub checks: Arc<Vec<Check>>,
    /// What somebody should know of although requests are answered: what will expire.
    pub notes: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// The numbers.
    pub metrics: Metrics,
    /// Brings gauges up to date before they are read.
    pub refresh: Arc<dyn Fn(&Metrics) + Send + Sync>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl Readiness {
    /// What is wrong, one line each; empty when ready. The checks read disks and ask tokens: off the async threads.
    pub async fn problems(&self) -> Vec<String> {
        let stopping = self.stopping.has_begun().then(|| "stopping: the service is draining".to_owned());
        let checks = Arc::clone(&self.checks);
        let failed = tokio::task::spawn_blocking(move || {
            checks.iter().filter_map(|(name, check)| Some(format!("{name}: {}", check().err()?))).collect::<Vec<_>>()
        });
        let failed = failed.await.unwrap_or_else(|lost| vec![format!("checks: {lost}")]);
        stopping.into_iter().chain(failed).collect()
    }
}

/// The routes of the operations listener.
pub(super) fn router(readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn metrics(State(readiness): State<Readiness>) -> impl IntoResponse {
    (readiness.refresh)(&readiness.metrics);
    ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], readiness.metrics.encode())
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let problems = readiness.problems().await;
    if problems.is_empty() {
        let notes: String = (readiness.notes)().iter().map(|note| format!("note: {note}\n")).collect();
        return (StatusCode::OK, format!("ready\n{notes}"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}
