//! `TrustService`: the public side of the keys.

use std::sync::Arc;

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    status,
    v1::{
        Expiry, GetClientTrustConfigRequest, GetClientTrustConfigResponse, GetStatusRequest, GetStatusResponse,
        GetTrustedRootRequest, GetTrustedRootResponse, trust_service_server,
    },
};
use crate::{
    keys::Keyring,
    model::{Digest, Role, limits},
};

/// The face of `TrustService`.
#[derive(Debug, Clone)]
pub struct Trust {
    keys: Arc<Keyring>,
    base_url: String,
    clock: fn() -> Timestamp,
}

impl Trust {
    /// `base_url` is where clients find the instance, `https://host[:port]`.
    pub fn new(keys: Arc<Keyring>, base_url: String, clock: fn() -> Timestamp) -> Self {
        Self { keys, base_url, clock }
    }
}

#[tonic::async_trait]
impl trust_service_server::TrustService for Trust {
    async fn get_trusted_root(
        &self,
        request: Request<GetTrustedRootRequest>,
    ) -> Result<Response<GetTrustedRootResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let trusted_root = self.keys.trusted_root();
        let digest = Digest::of(trusted_root.as_bytes()).to_string();
        Ok(Response::new(GetTrustedRootResponse { trusted_root: trusted_root.as_bytes().to_vec().into(), digest }))
    }

    async fn get_client_trust_config(
        &self,
        request: Request<GetClientTrustConfigRequest>,
    ) -> Result<Response<GetClientTrustConfigResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let given = request.into_inner().base_url;
        let base_url = if given.is_empty() { &self.base_url } else { check_base_url(&given)? };
        let client_trust_config = self.keys.client_trust_config(base_url).into();
        Ok(Response::new(GetClientTrustConfigResponse { client_trust_config }))
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        authorize(&request, &Role::ALL)?;
        let mut expiries = self.keys.expiries();
        expiries.sort_by_key(|(_, not_after)| *not_after);
        let expiries = expiries
            .into_iter()
            .map(|(name, not_after)| Expiry { name, not_after: Some(timestamp(not_after)) })
            .collect();
        Ok(Response::new(GetStatusResponse {
            origin: self.keys.host().to_owned(),
            log_id: self.keys.public().log_id().to_vec().into(),
            log_public_key: self.keys.public().log_key().to_vec().into(),
            trusted_root_digest: Digest::of(self.keys.trusted_root().as_bytes()).to_string(),
            expiries,
            now: Some(timestamp((self.clock)())),
        }))
    }
}

fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn check_base_url(url: &str) -> Result<&str, Status> {
    let refuse = |problem: &str| Err(status::invalid("base_url", &problem));
    if url.len() > limits::URI {
        return refuse("more than 1,024 characters");
    }
    let parsed = url.parse::<http::Uri>().ok().filter(|url| url.host().is_some());
    match parsed.as_ref().and_then(http::Uri::scheme_str) {
        Some("https" | "http") => Ok(url),
        _ => refuse("must be a URL such as https://sign.example.org"),
    }
}
