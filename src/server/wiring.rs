//! What is opened, in which order, and which face gets which service. Decides nothing else.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, response::Response};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    Authenticate, Certificates, Clock, Middleware, Readiness, ServerTls, Stopping, custody::Watch, ends, ends::Ends,
    middleware::Refusal, middleware::plain, operations, public, succession, tls, upkeep::Upkeep,
};
use crate::{
    admission::{self, Admission},
    config::Config,
    evidence::{EvidenceService, Roots},
    identity::Authenticator,
    keys::{Kek, Keyring, ManagedKeys},
    log::{Logs, witnessing::Witnessing},
    model::{TrustedRoot, limits, policy::PolicySet},
    registry::Registry,
    release::Release,
    rollback::Rollback,
    signing::Signing,
    telemetry::{Metrics, Total},
    tlog::Policy,
    tuf::Repository,
    webhook,
};

/// How long stopping waits for what is recorded beside the answers. The log answers in milliseconds, or is broken.
const SETTLE: Duration = Duration::from_secs(10);

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
    pub(super) repository: Arc<Repository>,
    pub(super) upkeep: Arc<Upkeep>,
    pub(super) logs: Logs,
    pub(super) registry: Registry,
    pub(super) signing: Arc<Signing>,
    pub(super) evidence: Arc<EvidenceService>,
    pub(super) roots: Roots,
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
        if tokio::time::timeout(SETTLE, self.admission.settle()).await.is_err() {
            tracing::error!("the log did not take everything that admission had to record");
        }
        let logs = self.logs.clone();
        if tokio::task::spawn_blocking(move || logs.close()).await.is_err() {
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
    let (keyring, managed) = keys(config, &kek, clock()).await?;
    let metrics = Metrics::new();
    let logs = {
        // Where witnesses are required, this may wait for them.
        let (config, keyring) = (config.clone(), Arc::clone(&keyring));
        let witnesses = witnessing(&config, &keyring.log_key().public_key(), &metrics)?;
        tokio::task::spawn_blocking(move || succession::open(&config, &keyring, witnesses)).await??
    };
    let registry = Registry::new(config.registry.clone())?;
    let signing = Signing::new(Arc::clone(&keyring), logs.clone(), registry.clone()).with_managed(managed);
    let signing = Arc::new(signing);
    let mut roots = vec![Arc::new(TrustedRoot::parse(&keyring.trusted_root())?)];
    for path in &config.trust.extra_roots {
        let root = TrustedRoot::parse(&read(path)?).with_context(|| format!("in {}", path.display()))?;
        roots.push(Arc::new(root));
    }
    let roots = Roots::new(roots);
    let evidence = Arc::new(EvidenceService::new(logs.clone(), registry.clone(), roots.clone(), &config.evidence));
    let policies = if let Some(path) = &config.policy.file {
        PolicySet::parse(&read(path)?).with_context(|| format!("in {}", path.display()))?
    } else {
        tracing::warn!("no policy is configured ([policy] file): nothing will be admitted");
        PolicySet::parse(NO_POLICY)?
    };
    let policies = Arc::new(policies);
    let release = {
        let (logs, signing, evidence) = (logs.clone(), Arc::clone(&signing), Arc::clone(&evidence));
        Arc::new(tokio::task::spawn_blocking(move || Release::new(logs, signing, evidence)).await??)
    };
    let behind = admission::Parts::new(
        Arc::clone(&evidence),
        registry.clone(),
        Arc::clone(&policies),
        Arc::clone(&release),
        &signing,
    );
    let admission = Arc::new(Admission::new(behind, config.admission.clone(), metrics.clone()));
    let rollback = Arc::new(Rollback::new(
        Arc::clone(&release),
        Arc::clone(&evidence),
        registry.clone(),
        Arc::clone(&policies),
        Arc::clone(&signing),
        config.rollback.settings(),
    ));
    let tls = server_tls(config, &keyring, clock())?.map(Arc::new);
    let repository = repository(config, &keyring, clock()).await?;
    let (named, unreadable) = ends::named(config);
    for error in unreadable {
        let error = format!("{error:#}");
        tracing::warn!(error, "when its certificates end is not known, so nobody will be warned");
    }
    let (keys, documents) = (Arc::clone(&keyring), Arc::clone(&repository));
    let upkeep = Arc::new(Upkeep {
        ends: Ends { keyring: keys, repository: documents, tls: tls.clone(), named },
        names: names(config, keyring.host()),
        clock,
    });
    Ok(Parts {
        tls,
        repository,
        upkeep,
        authenticator: Arc::new(Authenticator::new(&config.identity)?),
        metrics,
        keyring,
        logs,
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

/// Opens the keys, and asks for those that are on a token: a service that could sign nothing does not start. A managed key
/// that cannot be used keeps nobody else from being served.
async fn keys(config: &Config, kek: &Kek, now: Timestamp) -> anyhow::Result<(Arc<Keyring>, Arc<ManagedKeys>)> {
    let custody = config.custody().context("the token cannot be used")?;
    let keyring = Arc::new(Keyring::open_in(&config.data, kek, custody.clone())?);
    let managed = ManagedKeys::open(&config.data, config.kek_source()?, custody, keyring.host());
    let managed = Arc::new(managed.context("the managed keys cannot be opened")?);
    let asked = (Arc::clone(&keyring), Arc::clone(&managed));
    tokio::task::spawn_blocking(move || {
        let (keyring, managed) = asked;
        if let Err(error) = managed.check_custody() {
            tracing::error!(%error, "a managed key cannot be used");
        }
        keyring.check_custody(now)
    })
    .await??;
    Ok((keyring, managed))
}

/// The TUF repository, signed again where it is time. One that cannot be does not keep the service down.
async fn repository(config: &Config, keyring: &Arc<Keyring>, now: Timestamp) -> anyhow::Result<Arc<Repository>> {
    let kek = config.kek_source()?;
    let (data, keyring, url) = (config.data.clone(), Arc::clone(keyring), public::base_url(config, keyring.host()));
    let opened = tokio::task::spawn_blocking(move || {
        let repository = Repository::open(&data, keyring, Arc::new(move || kek.load()), url);
        if let Err(error) = repository.refresh(now) {
            tracing::error!(%error, "the TUF repository is not as it should be; everything else is served");
        }
        Arc::new(repository)
    });
    Ok(opened.await?)
}

/// Who cosigns the log, if anybody does.
fn witnessing(config: &Config, log: &[u8; 32], metrics: &Metrics) -> anyhow::Result<Option<Witnessing>> {
    let (Some(path), Some(mode)) = (&config.witness.policy_file, config.witness.mode) else { return Ok(None) };
    let in_file = || format!("in {}", path.display());
    let policy = Policy::parse(&read(path)?).with_context(in_file)?;
    let ca = config.witness.ca_file.as_deref().map(read).transpose()?;
    let timeout = Duration::from_millis(config.witness.timeout_ms);
    let ca = ca.as_deref().map(str::as_bytes);
    Ok(Some(Witnessing::new(policy, log, mode, timeout, ca, metrics.clone()).with_context(in_file)?))
}

pub(super) fn read(path: &Path) -> anyhow::Result<String> {
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
        let (chain, key) = keyring.tls_server(&names(config, keyring.host()), now)?;
        Certificates::Issued { chain, key }
    };
    let mut authorities = tls::parse_certificates(keyring.tls_ca_pem().as_bytes())?;
    if let Some(path) = &config.identity.client_ca_file {
        authorities.extend(tls::read_certificates(path)?);
    }
    Ok(Some(ServerTls::new(certificates, &authorities)?))
}

/// What the certificate of the local authority is for: the names that are configured, and the log's own.
fn names(config: &Config, host: &str) -> Vec<String> {
    let own = (!config.tls.names.iter().any(|name| name == host)).then(|| host.to_owned());
    config.tls.names.iter().cloned().chain(own).collect()
}

/// The routers, each behind its middleware.
pub(super) fn faces(config: &Config, parts: &Parts, stopping: &Stopping, clock: Clock) -> anyhow::Result<Faces> {
    let authenticate = Authenticate::new(Arc::clone(&parts.authenticator), parts.metrics.clone());
    let middleware = |door, authenticate, body, refuse| Middleware {
        door,
        metrics: parts.metrics.clone(),
        authenticate,
        body,
        under_way: Arc::new(Semaphore::new(config.limits.requests)),
        refuse,
        clock,
    };
    let readiness = readiness(parts, stopping, clock);
    let callers = public::router(config, parts, readiness.clone(), clock)?;
    let public = middleware("public", Some(authenticate), limits::ENTRY_REQUEST, plain).wrap(callers);
    // Twice the limit: up to there the webhook reads on, so that its refusal is heard.
    let reviews = webhook::router(Arc::clone(&parts.admission), clock);
    let webhook = middleware("webhook", None, 2 * limits::ADMISSION_BODY, as_review).wrap(reviews);
    Ok(Faces { public, webhook, operations: operations::router(readiness) })
}

/// A refusal in the form that the API server understands.
fn as_review(refusal: &Refusal) -> Response {
    webhook::refusal(&match refusal {
        Refusal::Overloaded => webhook::Malformed::Busy,
        Refusal::TooLarge(_) => webhook::Malformed::TooLong,
    })
}

fn readiness(parts: &Parts, stopping: &Stopping, clock: Clock) -> Readiness {
    let (logs, keyring) = (parts.logs.clone(), Arc::clone(&parts.keyring));
    let custody = Watch::new(Arc::clone(&parts.keyring));
    let checks: Vec<operations::Check> = vec![
        ("log", Box::new(move || logs.present().check_writable().map_err(|error| error.to_string()))),
        (
            "keys",
            Box::new(move || {
                let now = clock();
                match keyring.expiries(now).into_iter().find(|(_, expires)| *expires <= now) {
                    Some((name, expires)) => Err(format!("{name} expired at {expires}")),
                    None => custody.check(now),
                }
            }),
        ),
    ];
    Readiness {
        stopping: stopping.clone(),
        checks: Arc::new(checks),
        notes: {
            let upkeep = Arc::clone(&parts.upkeep);
            Arc::new(move || upkeep.warnings())
        },
        metrics: parts.metrics.clone(),
        refresh: refresh(parts, clock),
    }
}

/// Sets what the parts count themselves.
fn refresh(parts: &Parts, clock: Clock) -> Arc<dyn Fn(&Metrics) + Send + Sync> {
    let (logs, upkeep, tls) = (parts.logs.clone(), Arc::clone(&parts.upkeep), parts.tls.clone());
    let repository = Arc::clone(&parts.repository);
    let (registry, evidence, admission) =
        (parts.registry.clone(), Arc::clone(&parts.evidence), Arc::clone(&parts.admission));
    Arc::new(move |metrics: &Metrics| {
        let log = logs.present();
        let stats = log.stats();
        let queued = u64::try_from(stats.queued).unwrap_or(u64::MAX);
        metrics.log(log.size(), stats.commits, stats.fsyncs, queued, !log.is_writable());
        for (what, at) in upkeep.ends.all(clock()) {
            metrics.expires(&what, at);
        }
        metrics.tuf_failures(repository.failures());
        if let Some(tls) = &tls {
            metrics.certificate_failures(tls.reload_failures());
        }
        metrics.registries(&registry.requests(), registry.open_breakers().len());
        for (cache, outcome, count) in evidence.lookups() {
            metrics.set(Total::Evidence, cache, outcome, count);
        }
        let recordings = admission.recordings();
        for (what, counters) in [("deployment", recordings.deployments), ("summary", recordings.summaries)] {
            metrics.set(Total::Records, what, "recorded", counters.recorded);
            metrics.set(Total::Records, what, "failed", counters.failed);
            metrics.set(Total::Records, what, "left-out", counters.left_out);
        }
    })
}
