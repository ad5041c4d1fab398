//! The only wiring: opens adapters, builds services, runs the faces on three listeners, drains on a signal.
//!
//! - *public*: gRPC and HTTP on one TLS port; a request for a gRPC path is authenticated, the HTTP paths are public
//!   (trusted root, TUF repository, checkpoint, tiles).
//! - *webhook*: admission reviews.
//! - *operations*: metrics and health, plain HTTP; keep it off the network.
//!
//! Stopping: readiness fails first, and streams that would not end by themselves are ended; then no listener accepts,
//! HTTP/2 clients get GOAWAY and HTTP/1.1 clients `Connection: close`; requests under way have
//! `limits.drain_timeout_s`; then the log is closed.

mod auth;
mod custody;
pub mod ends;
mod health;
pub mod listener;
pub mod logging;
mod middleware;
mod operations;
mod public;
mod rotation;
pub mod succession;
pub mod tiles;
pub mod tls;
mod tuf;
mod upkeep;
mod wiring;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};

pub use auth::Authenticate;
pub use listener::{Bounds, Listener, Peer};
pub use middleware::{Middleware, Refusal, plain};
pub use operations::Readiness;
pub use tls::{Certificates, ServerTls};

use crate::config::Config;

/// Where the time comes from. In the program [`Timestamp::now`]; in tests a clock that stands.
pub type Clock = fn() -> Timestamp;

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// Whether the service should still be sent requests; shared by all health answers.
#[derive(Debug, Clone, Default)]
pub struct Stopping(Arc<watch::Sender<bool>>);

impl Stopping {
    /// From now on readiness fails.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Whether the service is on its way down.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Turns true when the service is on its way down: for whoever holds a stream open.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

/// The service; see [`Server::start`].
#[derive(Debug)]
pub struct Server;

/// A service that runs. Dropping it stops the accept loops without a drain.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC and HTTP are served.
    pub public_addr: SocketAddr,
    /// Where admission reviews are served.
    pub webhook_addr: SocketAddr,
    /// Where metrics and health are served.
    pub operations_addr: SocketAddr,
    stopping: Stopping,
    stop: watch::Sender<bool>,
    stop_operations: watch::Sender<bool>,
    doors: JoinSet<()>,
    operations: JoinSet<()>,
    parts: wiring::Parts,
}

impl Server {
    /// Opens everything that the configuration names and starts to listen.
    ///
    /// # Errors
    /// The first thing that cannot be used, with what to do about it. Nothing runs then.
    pub async fn start(config: Config, clock: Clock) -> anyhow::Result<Running> {
        let parts = wiring::open(&config, clock).await?;
        let stopping = Stopping::default();
        let bounds = Bounds::from(&config.limits);
        let (stop, stopped) = watch::channel(false);
        let (stop_operations, operations_stopped) = watch::channel(false);
        let faces = wiring::faces(&config, &parts, &stopping, clock)?;

        let tls = parts.tls.clone();
        let public = Listener::bind("public", config.listen.public, tls.clone(), bounds).await?;
        let webhook = Listener::bind("webhook", config.listen.webhook, tls.clone(), bounds).await?;
        let operations = Listener::bind("operations", config.listen.operations, None, bounds).await?;
        let running = Running {
            public_addr: public.address(),
            webhook_addr: webhook.address(),
            operations_addr: operations.address(),
            stopping,
            stop,
            stop_operations,
            doors: JoinSet::new(),
            operations: JoinSet::new(),
            parts,
        };
        let mut running = running.announce(tls.is_some());
        running.doors.spawn(public.serve(faces.public, stopped.clone()));
        running.doors.spawn(webhook.serve(faces.webhook, stopped.clone()));
        let (rollback, until) = (Arc::clone(&running.parts.rollback), stopped.clone());
        running.doors.spawn(async move { rollback.keep_warm(clock, until).await });
        running.doors.spawn(Arc::clone(&running.parts.upkeep).run(stopped.clone()));
        if let Some(tls) = tls {
            running.doors.spawn(tls.watch(CERTIFICATE_POLL, clock, stopped));
        }
        running.operations.spawn(operations.serve(faces.operations, operations_stopped));
        Ok(running)
    }

    /// Runs until the process is told to stop (SIGTERM or SIGINT), then drains.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub async fn run(config: Config, clock: Clock) -> anyhow::Result<()> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("cannot listen for SIGTERM")?;
        let running = Box::pin(Self::start(config, clock)).await?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot listen for SIGINT")?;
                tracing::info!("SIGINT: draining");
            }
        }
        running.shutdown().await;
        Ok(())
    }
}

impl Running {
    /// Says on one line each what is listened on.
    fn announce(self, tls: bool) -> Self {
        let scheme = if tls { "https" } else { "http" };
        for (name, scheme, address) in [
            ("public", scheme, self.public_addr),
            ("webhook", scheme, self.webhook_addr),
            ("operations", "http", self.operations_addr),
        ] {
            tracing::info!(listener = name, %address, "listening");
            eprintln!("listening: {name} {scheme}://{address}");
        }
        self
    }

    /// Fails readiness, lets requests under way finish within the configured time, and closes the log.
    pub async fn shutdown(mut self) {
        self.stopping.begin();
        self.stop.send_replace(true);
        while self.doors.join_next().await.is_some() {}
        // Readiness was answered (with no) until the last request was done.
        self.stop_operations.send_replace(true);
        while self.operations.join_next().await.is_some() {}
        self.parts.close().await;
        tracing::info!("stopped");
    }
}
