//! The running service, as those around it meet it: API servers, callers with tokens, scrapers, slow and hostile
//! clients, whoever replaces its certificates, and whoever stops it. A real process on real sockets.

mod certificates;
mod drain;
mod limits;
mod records;
mod refusals;
mod tokens;
mod unwell;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use countersign::{
    grpc::v1::{self, log_service_client::LogServiceClient, signing_service_client::SigningServiceClient},
    model::{Digest, Statement},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::daemon::{self, Daemon};

/// Everything must be signed by `builder`.
pub const POLICY: &str = r#"
apiVersion: countersign.dev/v1
noMatch: deny
policies:
  - name: production
    match: {images: ["**"]}
    require:
      signers:
        anyOf:
          - name: builder
            issuer: https://countersign.test/clients
            subject: spiffe://countersign.test/builder
"#;

/// A registry that answers nothing: nobody listens there.
pub const NOWHERE: &str = "127.0.0.1:1";

/// The process, with its output. Killed when dropped.
pub struct Service {
    pub house: Daemon,
    child: Child,
    output: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Service {
    /// Serves a data directory that is made for it, with this policy and this end of the configuration.
    pub fn new(policy: &str, extra: &str) -> Self {
        Self::start(Daemon::init(Some(policy), extra), &[])
    }

    /// Serves `house`, with more in the environment, and waits until it is ready.
    pub fn start(house: Daemon, environment: &[(&str, &str)]) -> Self {
        let output = Arc::new(Mutex::new(String::new()));
        let (child, reader) = spawn(&house, environment, &output);
        let mut service = Self { house, child, output, reader: Some(reader) };
        service.wait_until_ready();
        service
    }

    /// Drains, so that what was begun is in the log, and serves the same data again.
    pub fn restart(&mut self) {
        self.terminate();
        let (status, output) = self.ended();
        assert!(status.success(), "{output}");
        let (child, reader) = spawn(&self.house, &[], &self.output);
        (self.child, self.reader) = (child, Some(reader));
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        self.wait_until("it is ready", |service| service.ready().starts_with("HTTP/1.1 200"));
    }

    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The audit lines of one action, as JSON; waits until there are at least `least`, as they come through a pipe.
    pub fn audit(&self, action: &str, least: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let output = self.output();
            let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<Value> =
                lines.filter(|line| line["target"] == "audit" && line["action"] == action).collect();
            if lines.len() >= least || Instant::now() > deadline {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The whole answer of `/readyz`; empty when there is none.
    pub fn ready(&self) -> String {
        daemon::http_get(self.house.operations, "/readyz").unwrap_or_default()
    }

    pub fn metrics(&self) -> String {
        daemon::http_get(self.house.operations, "/metrics").unwrap_or_default()
    }

    /// The value of a series, 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.metrics();
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    #[track_caller]
    pub fn wait_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("waiting until {what}, the service ended with {status}: {}", self.output());
            }
            assert!(Instant::now() < deadline, "not in time: {what}: {}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// From now on every write to a file fails, as on a full disk.
    pub fn fill_disk(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=0:0"]).status().unwrap().success());
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// How it ended, and all that it said.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        let status = daemon::wait(&mut self.child).unwrap_or_else(|| panic!("it does not end: {}", self.output()));
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status, self.output())
    }

    /// Signs the digest as `builder`.
    pub async fn sign(&self, digest: &Digest) -> v1::SignedBundle {
        let mut client = SigningServiceClient::new(self.house.channel("builder").await);
        client.sign(signing(digest)).await.unwrap().into_inner().bundles.remove(0)
    }

    /// The statements of one predicate type in the log, oldest first.
    pub async fn logged(&self, predicate_type: &str) -> Vec<Statement> {
        let mut client = LogServiceClient::new(self.house.channel("builder").await);
        let search = v1::SearchRequest {
            filter: Some(v1::EntryFilter { predicate_type: Some(predicate_type.to_owned()), ..Default::default() }),
            ..Default::default()
        };
        let indexes = client.search(search).await.unwrap().into_inner().indexes;
        let mut statements = Vec::new();
        for index in indexes {
            let request = v1::GetEntryRequest { index, with_payload: true, ..Default::default() };
            let entry = client.get_entry(request).await.unwrap().into_inner().entry.unwrap();
            let bundle = countersign::model::verify::parse_bundle(&entry.payload).unwrap();
            statements.push(countersign::model::verify::unverified_statement(&bundle).unwrap());
        }
        statements
    }

    /// A client of the webhook, as an API server is one: HTTP/1.1 over TLS, the service's authority trusted.
    pub fn api_server(&self) -> ApiServer {
        let ca = reqwest::Certificate::from_pem(&std::fs::read(self.house.ca()).unwrap()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([ca]).http1_only().build().unwrap();
        ApiServer { http, base: format!("https://localhost:{}", self.house.webhook) }
    }
}

/// The process. Files may be limited while it runs (see [`Service::fill_disk`]): the signal that comes with it is ignored,
/// so that a write fails as it does on a full disk.
fn spawn(house: &Daemon, environment: &[(&str, &str)], output: &Arc<Mutex<String>>) -> (Child, JoinHandle<()>) {
    let mut child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" serve --config \"$1\"", daemon::binary()])
        .arg(house.config())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(output));
    let reader = std::thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    (child, reader)
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// See [`Service::api_server`].
#[derive(Clone)]
pub struct ApiServer {
    pub http: reqwest::Client,
    pub base: String,
}

impl ApiServer {
    /// Asks; the `response` of the answer.
    pub async fn ask(&self, path: &str, review: &Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", "application/json");
        let answer: Value = request.body(review.to_string()).send().await.unwrap().json().await.unwrap();
        crate::admission::well_formed(&answer);
        answer["response"].clone()
    }
}

/// A TLS connection as a bare client makes it, whoever the certificate's authority is told to be; what is sent over it is
/// up to the test.
pub async fn connect(port: u16, authority: &Path) -> Connection {
    try_connect(port, authority, rustls::ALL_VERSIONS).await.unwrap()
}

pub type Connection = tokio_rustls::client::TlsStream<TcpStream>;

/// The same, with these versions of the protocol, if the server wants them.
pub async fn try_connect(
    port: u16,
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<Connection> {
    connect_as(None, port, authority, versions).await
}

/// A certificate with its chain, and the key to it.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The same, of a caller who shows a certificate, if there is one.
pub async fn connect_as(
    caller: Option<Pair>,
    port: u16,
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<Connection> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let config = match caller {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await
}

/// Sends the bytes and reads what comes until the other end closes, for at most `time`.
pub async fn exchange(stream: &mut Connection, bytes: &[u8], time: Duration) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // An end without a TLS farewell is an end as well.
    let _ = tokio::time::timeout(time, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn signing(digest: &Digest) -> v1::SignRequest {
    v1::SignRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: digest.to_string() }],
        kind: v1::ArtifactKind::Image.into(),
        ..v1::SignRequest::default()
    }
}

/// `host/shop/app@digest`.
pub fn image(host: &str, digest: &Digest) -> String {
    format!("{host}/shop/app@{digest}")
}

/// A pod that wants to run the image.
pub fn pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop", "namespace": "production"},
        "spec": {"containers": [{"name": "app", "image": image}]}
    })
}

/// The question whether `alice` may create the object.
pub fn review(object: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": object["kind"]},
            "operation": "CREATE", "namespace": "production", "object": object,
            "userInfo": {"username": "alice", "groups": ["dev"]},
        }
    })
}
