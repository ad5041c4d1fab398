//! What is opened, in which order, and which face gets which service. Decides nothing else.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use axum::Router;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{Authenticate, Certificates, Clock, Middleware, Readiness, ServerTls, Stopping, operations, public, tls};
use crate::{
    admission::Admission,
    config::Config,
    evidence::EvidenceService,
    identity::Authenticator,
    keys::Keyring,
    log::{Log, Options, witnessing::Witnessing},
    model::{TrustedRoot, limits, policy::PolicySet},
    registry::Registry,
    release::Release,
    rollback::Rollback,
    signing::Signing,
    telemetry::Metrics,
    tlog::Policy,
    webhook,
};

/// Without a policy file nothing is admitted, and the answer says that no policy speaks about it.
const NO_POLICY: &str = "
apiVersion: countersign.dev/v1
noMatch: deny
policies:
  - name: nothing
    match: {images: [none.invalid/none]}
    require: {digestRequired: true}
";

/// Everything that is open.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) log: Log,
    pub(super) registry: Registry,
    pub(super) signing: Arc<Signing>,
    pub(super) evidence: Arc<EvidenceService>,
    pub(super) roots: Vec<Arc<TrustedRoot>>,
    pub(super) policies: Arc<PolicySet>,
    pub(super) release: Arc<Release>,
    pub(super) rollback: Arc<Rollback>,
    pub(super) admission: Arc<Admission>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) metrics: Metrics,
}

impl Parts {
    /// Lets pending records be written, then closes the log.
    pub(super) async fn close(self) {
        self.admission.settle().await;
        let log = self.log.clone();
        if tokio::task::spawn_blocking(move || log.close()).await.is_err() {
            tracing::error!("the log could not be closed in order; the next start will recover it");
        }
    }
}

/// The routers of the three listeners.
pub(super) struct Faces {
    pub(super) public: Router,
    pub(super) webhook: Router,
    pub(super) operations: Router,
}

/// Opens adapters and builds services, lowest first.
pub(super) async fn open(config: &Config, clock: Clock) -> anyhow::Result<Parts> {
    let kek = config.kek_source()?.load().context("the key-encryption key cannot be had")?;
    let keyring = Arc::new(Keyring::open(&config.data, &kek)?);
    let key = keyring.log_key();
    let public_key = key.public_key();
    let metrics = Metrics::new();
    let options = Options { witness: witnessing(config, &public_key, &metrics)?, ..Options::default() };
    // Where witnesses are required, this may wait for them.
    let dir = config.log_dir();
    let open = move || Log::open(&dir, public_key, move |note| key.sign(note), options);
    let log = tokio::task::spawn_blocking(open).await??;
    let registry = Registry::new(config.registry.clone())?;
    let signing = Arc::new(Signing::new(Arc::clone(&keyring), log.clone(), registry.clone()));
    let mut roots = vec![Arc::new(TrustedRoot::parse(&keyring.trusted_root())?)];
    for path in &config.trust.extra_roots {
        let root = TrustedRoot::parse(&read(path)?).with_context(|| format!("in {}", path.display()))?;
        roots.push(Arc::new(root));
    }
    let evidence = Arc::new(EvidenceService::new(log.clone(), registry.clone(), roots.clone(), &config.evidence));
    let policies = if let Some(path) = &config.policy.file {
        PolicySet::parse(&read(path)?).with_context(|| format!("in {}", path.display()))?
    } else {
        tracing::warn!("no policy is configured ([policy] file): nothing will be admitted");
        PolicySet::parse(NO_POLICY)?
    };
    let policies = Arc::new(policies);
    let release = {
        let (log, signing, evidence) = (log.clone(), Arc::clone(&signing), Arc::clone(&evidence));
        Arc::new(tokio::task::spawn_blocking(move || Release::new(log, signing, evidence)).await??)
    };
    let admission = Arc::new(Admission::new(
        Arc::clone(&evidence),
        registry.clone(),
        Arc::clone(&policies),
        Arc::clone(&release),
        config.admission.clone(),
    ));
    let rollback = Arc::new(Rollback::new(
        Arc::clone(&release),
        Arc::clone(&evidence),
        registry.clone(),
        Arc::clone(&policies),
        Arc::clone(&signing),
        config.rollback.settings(),
    ));
    Ok(Parts {
        tls: server_tls(config, &keyring, clock())?.map(Arc::new),
        authenticator: Arc::new(Authenticator::new(&config.identity)?),
        metrics,
        keyring,
        log,
        registry,
        signing,
        evidence,
        roots,
        policies,
        release,
        rollback,
        admission,
    })
}

/// Who cosigns the log, if anybody does.
fn witnessing(config: &Config, log: &[u8; 32], metrics: &Metrics) -> anyhow::Result<Option<Witnessing>> {
    let (Some(path), Some(mode)) = (&config.witness.policy_file, config.witness.mode) else { return Ok(None) };
    let in_file = || format!("in {}", path.display());
    let policy = Policy::parse(&read(path)?).with_context(in_file)?;
    let ca = config.witness.ca_file.as_deref().map(read).transpose()?;
    let timeout = std::time::Duration::from_millis(config.witness.timeout_ms);
    let ca = ca.as_deref().map(str::as_bytes);
    Ok(Some(Witnessing::new(policy, log, mode, timeout, ca, metrics.clone()).with_context(in_file)?))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    anyhow::ensure!(
        size <= u64::try_from(limits::DOCUMENT)?,
        "{} has {size} bytes; the limit is {}",
        path.display(),
        limits::DOCUMENT
    );
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn server_tls(config: &Config, keyring: &Keyring, now: Timestamp) -> anyhow::Result<Option<ServerTls>> {
    if config.tls.plaintext_unsafe {
        tracing::warn!("serving WITHOUT TLS (tls.plaintext_unsafe); on loopback alone");
        return Ok(None);
    }
    let certificates = if let (Some(chain), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        Certificates::Files { chain: chain.clone(), key: key.clone() }
    } else {
        let (chain, key) = keyring.tls_server(&config.tls.names, now)?;
        Certificates::Issued { chain, key }
    };
    let mut authorities = tls::parse_certificates(keyring.tls_ca_pem().as_bytes())?;
    if let Some(path) = &config.identity.client_ca_file {
        authorities.extend(tls::read_certificates(path)?);
    }
    Ok(Some(ServerTls::new(certificates, &authorities)?))
}

/// The routers, each behind its middleware.
pub(super) fn faces(config: &Config, parts: &Parts, stopping: &Stopping, clock: Clock) -> anyhow::Result<Faces> {
    let authenticate = Authenticate::new(Arc::clone(&parts.authenticator), parts.metrics.clone());
    let middleware = |door, authenticate, body| Middleware {
        door,
        metrics: parts.metrics.clone(),
        authenticate,
        body,
        under_way: Arc::new(Semaphore::new(config.limits.requests)),
        clock,
    };
    let public = middleware("public", Some(authenticate), limits::DOCUMENT).wrap(public::router(config, parts, clock)?);
    // Twice the limit: up to there the webhook itself refuses, in the form that the API server understands.
    let reviews = webhook::router(Arc::clone(&parts.admission), clock);
    let webhook = middleware("webhook", None, 2 * limits::ADMISSION_BODY).wrap(reviews);
    let operations = operations::router(readiness(parts, stopping, clock));
    Ok(Faces { public, webhook, operations })
}

fn readiness(parts: &Parts, stopping: &Stopping, clock: Clock) -> Readiness {
    let (log, keyring) = (parts.log.clone(), Arc::clone(&parts.keyring));
    let checks: Vec<operations::Check> = vec![
        (
            "log",
            Box::new(move || {
                if log.is_writable() {
                    return Ok(());
                }
                Err("it stopped writing after a failure; restart the service".to_owned())
            }),
        ),
        (
            "keys",
            Box::new(move || {
                let now = clock();
                match keyring.expiries().into_iter().find(|(_, expires)| *expires <= now) {
                    Some((name, expires)) => Err(format!("{name} expired at {expires}")),
                    None => Ok(()),
                }
            }),
        ),
    ];
    let (log, keyring, tls) = (parts.log.clone(), Arc::clone(&parts.keyring), parts.tls.clone());
    let refresh = move |metrics: &Metrics| {
        let stats = log.stats();
        let queued = u64::try_from(stats.queued).unwrap_or(u64::MAX);
        metrics.log(log.size(), stats.commits, stats.fsyncs, queued, !log.is_writable());
        for (what, at) in keyring.expiries() {
            metrics.expires(&what, at);
        }
        if let Some(at) = tls.as_ref().and_then(|tls| tls.not_after()) {
            metrics.expires("tls certificate", at);
        }
    };
    Readiness {
        stopping: stopping.clone(),
        checks: Arc::new(checks),
        metrics: parts.metrics.clone(),
        refresh: Arc::new(refresh),
    }
}
