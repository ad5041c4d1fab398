//! The faces for stock Sigstore clients, over HTTP and gRPC, as bare clients see them.

use std::fs;

use crate::daemon::Daemon;
pub use crate::holder::Holder;

mod allowance;
mod garbage;
mod rekor;
mod timestamp;

/// A service with more configuration, and an HTTP client that trusts it.
pub struct House {
    pub daemon: Daemon,
    pub http: reqwest::Client,
}

impl House {
    pub fn new(extra: &str) -> Self {
        let mut daemon = Daemon::init(None, extra);
        daemon.start();
        let authority = reqwest::Certificate::from_pem(&fs::read(daemon.ca()).unwrap()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
        Self { daemon, http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.daemon.public)
    }

    pub async fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.http.post(self.url(path)).header("content-type", kind).body(body).send().await.unwrap()
    }

    pub async fn size(&self) -> u64 {
        let note = self.http.get(self.url("/checkpoint")).send().await.unwrap().text().await.unwrap();
        note.lines().nth(1).unwrap().parse().unwrap()
    }
}
