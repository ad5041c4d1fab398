//! One listener: accepts, shakes hands, serves HTTP/1.1 and HTTP/2, drains.
//!
//! Bounded against slow and many clients: open connections, time for the handshake, time until the first request's
//! headers are complete, HTTP/2 keep-alive. What a router may read as a body is the router's business.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, body::Body, extract::ConnectInfo};
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use super::tls::ServerTls;
use crate::config::Limits;

/// HTTP/2 streams that one connection may have open.
const STREAMS: u32 = 256;
/// All headers of one request, in bytes.
const HEADERS: u32 = 64 * 1024;

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Open connections.
    pub connections: usize,
    /// For the handshake, and for the headers of a request.
    pub header_timeout: Duration,
    /// For requests under way when the listener stops.
    pub drain_timeout: Duration,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            connections: limits.connections,
            header_timeout: Duration::from_secs(limits.header_timeout_s),
            drain_timeout: Duration::from_secs(limits.drain_timeout_s),
        }
    }
}

/// The other end of a connection; in the extensions of every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its leaf certificate (DER), if it sent one and the chain was verified.
    pub certificate: Option<Arc<[u8]>>,
}

/// A bound socket that is not served yet.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<ServerTls>>,
    bounds: Bounds,
}

impl Listener {
    /// Takes the address. Without `tls` it serves in plain text.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn bind(
        name: &'static str,
        address: SocketAddr,
        tls: Option<Arc<ServerTls>>,
        bounds: Bounds,
    ) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; free it, or set another address as listen.{name}"))?;
        let address = socket.local_addr().context("cannot read the address that is listened on")?;
        Ok(Self { name, socket, address, tls, bounds })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` until `stop` turns true (or its sender is gone), then drains.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>) {
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(self.bounds.connections));
        let mut stopping = std::pin::pin!(async move {
            // An error means that the sender is gone: stop as well.
            stop.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
        });
        loop {
            let accepted = tokio::select! {
                () = &mut stopping => break,
                accepted = self.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.take(stream, address, &router, &slots, graceful.watcher()),
                Err(error) => {
                    // Out of file descriptors, most likely: give connections time to close.
                    tracing::warn!(listener = self.name, %error, "cannot accept");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.socket);
        if timeout(self.bounds.drain_timeout, graceful.shutdown()).await.is_err() {
            tracing::warn!(listener = self.name, "requests were still under way when the time to drain ran out");
        }
    }

    fn take(&self, stream: TcpStream, address: SocketAddr, router: &Router, slots: &Arc<Semaphore>, watcher: Watcher) {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
            tracing::warn!(listener = self.name, %address, "too many connections; one was closed");
            return;
        };
        stream.set_nodelay(true).unwrap_or_default();
        let connection = Connection { address, router: router.clone(), bounds: self.bounds, watcher, slot };
        match self.tls.clone() {
            None => tokio::spawn(connection.serve(stream, None)),
            Some(tls) => tokio::spawn(connection.shake_hands(stream, tls)),
        };
    }
}

/// One accepted connection; it holds its slot until it is dropped.
struct Connection {
    address: SocketAddr,
    router: Router,
    bounds: Bounds,
    watcher: Watcher,
    slot: OwnedSemaphorePermit,
}

impl Connection {
    async fn shake_hands(self, stream: TcpStream, tls: Arc<ServerTls>) {
        let stream = match timeout(self.bounds.header_timeout, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(address = %self.address, %error, "TLS handshake failed");
                return;
            }
            Err(_elapsed) => {
                tracing::debug!(address = %self.address, "TLS handshake took too long");
                return;
            }
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
        self.serve(stream, leaf.map(Into::into)).await;
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, certificate: Option<Arc<[u8]>>) {
        let Self { address, router, bounds, watcher, slot } = self;
        let peer = Peer { address, certificate };
        let first_request = Arc::new(Notify::new());
        let seen = Arc::clone(&first_request);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            seen.notify_one();
            request.extensions_mut().insert(ConnectInfo(address));
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request.map(Body::new))
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.header_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .adaptive_window(true)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = std::pin::pin!(watcher.watch(connection));
        // Whichever protocol it turns out to be: a connection that sends no request is closed.
        let idle = async {
            if timeout(bounds.header_timeout, first_request.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = &mut connection => if let Err(error) = ended {
                tracing::debug!(%address, %error, "connection ended");
            },
            () = idle => tracing::debug!(%address, "no request came in time; connection closed"),
        }
        drop(slot);
    }
}
