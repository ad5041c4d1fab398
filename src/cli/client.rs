//! The gRPC client of the commands: TLS, credentials, and refusals in words.

use std::{error::Error as _, time::Duration};

use anyhow::{Context, anyhow, bail};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use super::Global;
use crate::model::limits;

/// How long connecting may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL_TIME: Duration = Duration::from_mins(1);

/// Adds the bearer token, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bearer({})", if self.0.is_some() { "…" } else { "none" })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// What the generated clients are made of.
pub type Service = InterceptedService<Channel, Bearer>;

/// Connects as the flags, environment and configuration say.
pub async fn connect(global: &Global) -> anyhow::Result<Service> {
    let endpoint = Endpoint::from_shared(global.server.clone())
        .with_context(|| format!("--server {:?} is not a URL like https://host:8443", global.server))?
        .connect_timeout(CONNECT_TIME)
        .timeout(CALL_TIME);
    let uri = endpoint.uri().clone();
    let endpoint = match uri.scheme_str() {
        Some("https") => endpoint.tls_config(tls(global)?).context("TLS settings cannot be used")?,
        Some("http") if is_loopback(uri.host().unwrap_or_default()) => endpoint,
        Some("http") => {
            bail!("plain http:// is accepted for loopback addresses alone; use https:// for {}", global.server)
        }
        _ => bail!("--server {:?} needs https:// in front", global.server),
    };
    let channel = endpoint.connect().await.map_err(|error| cannot_reach(&global.server, error))?;
    Ok(InterceptedService::new(channel, Bearer(token(global)?)))
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn cannot_reach(server: &str, error: tonic::transport::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!(
        "cannot reach the service at {server}: is it running (`countersign doctor`), is --server right, and does \
         --ca-file name the authority that vouches for it?"
    ))
}

fn tls(global: &Global) -> anyhow::Result<ClientTlsConfig> {
    let read = |path: &std::path::Path| {
        std::fs::read(path)
            .with_context(|| format!("cannot read {}; check the path and its permissions", path.display()))
    };
    let mut tls = ClientTlsConfig::new();
    tls = match &global.ca_file {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.with_native_roots(),
    };
    match (&global.client_cert, &global.client_key) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => bail!("--client-cert and --client-key go together"),
    }
    Ok(tls)
}

fn token(global: &Global) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let token = match (&global.token, &global.token_file) {
        (Some(token), None) => token.expose().to_owned(),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the token in {}", path.display()))?;
            text.trim().to_owned()
        }
        (None, None) => return Ok(None),
        _ => bail!("give --token or --token-file, not both"),
    };
    if token.len() > limits::TOKEN {
        bail!("the token has {} bytes; the limit is {}", token.len(), limits::TOKEN);
    }
    let mut value: MetadataValue<Ascii> =
        format!("Bearer {token}").parse().map_err(|_source| anyhow!("the token holds characters that no token has"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// A status as an error that says what to do next.
pub fn explain(status: Status) -> anyhow::Error {
    if let Some(cause) = broken_off(&status) {
        return anyhow!(
            "the connection ended before an answer came ({cause}); is the service running, and is the client \
             certificate, if one is given, from an authority that it accepts (`countersign trust issue-client`)?"
        );
    }
    let reason = status.get_details_error_info().map(|info| info.reason);
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let next = match status.code() {
        // The credentials were good; the message says what is missing.
        Code::Unauthenticated if status.message().starts_with("ROLE_NONE") => "",
        Code::Unauthenticated => "call with --token-file, or with --client-cert and --client-key",
        Code::Unavailable if retry.is_some() => "try again shortly",
        Code::Unavailable => "the service did not answer; is it running?",
        Code::DeadlineExceeded => "the service took too long; try again, and look at its log",
        Code::Unimplemented => "the service does not know this call; is it of the same version?",
        _ => "",
    };
    let mut text = status.message().to_owned();
    if let Some(reason) = reason {
        text = format!("{text} [{reason}]");
    }
    if next.is_empty() { anyhow!(text) } else { anyhow!("{text}; {next}") }
}

/// Why a connection broke off, where the service did not answer: what lies deepest says it best.
fn broken_off(status: &Status) -> Option<String> {
    let mut cause = status.source()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}
