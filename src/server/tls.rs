//! Certificates of the listeners, read again when their files change.
//!
//! The pair is polled by modification time and content (symlinks that Kubernetes swaps are followed); a pair that
//! cannot be used leaves the old one in force, and says so.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::{sync::watch, time::sleep};
use tokio_rustls::TlsAcceptor;
use x509_cert::der::Decode as _;

use super::Clock;
use crate::model::{Digest, limits};

/// Where a certificate chain and its key come from.
pub enum Certificates {
    /// PEM files, looked at again and again.
    Files {
        /// The chain, leaf first.
        chain: PathBuf,
        /// The key of the leaf.
        key: PathBuf,
    },
    /// Issued now by the local authority.
    Issued {
        /// The chain, leaf first.
        chain: Vec<CertificateDer<'static>>,
        /// The key of the leaf.
        key: PrivateKeyDer<'static>,
    },
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { chain, key } => f.debug_struct("Files").field("chain", chain).field("key", key).finish(),
            Self::Issued { chain, .. } => f.debug_struct("Issued").field("chain", &chain.len()).finish_non_exhaustive(),
        }
    }
}

/// TLS of the listeners: who we are, and whose client certificates we ask for.
pub struct ServerTls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: Option<(PathBuf, PathBuf)>,
    failures: AtomicU64,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The certificate in force; written by the poller alone, read by every handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read())
    }
}

impl Current {
    fn read(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ServerTls {
    /// Prepares the handshake. `client_authorities` are those whose client certificates are asked for; a client
    /// without one is let through (a token may identify it), one with a certificate of somebody else is not.
    ///
    /// # Errors
    /// Files that cannot be read, and a key that is not that of the certificate.
    pub fn new(certificates: Certificates, client_authorities: &[CertificateDer<'static>]) -> anyhow::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (key, files) = match certificates {
            Certificates::Files { chain, key } => (read_pair(&provider, &chain, &key)?, Some((chain, key))),
            Certificates::Issued { chain, key } => (certified(&provider, chain, key)?, None),
        };
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .context("the TLS library has no protocol version")?;
        let builder = if client_authorities.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in client_authorities {
                roots.add(authority.clone()).context("a client certificate authority cannot be used")?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .context("the client certificate authorities cannot be used")?;
            builder.with_client_cert_verifier(verifier)
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&current);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), current, files, failures: AtomicU64::new(0) })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// When the leaf that is in force expires.
    pub fn not_after(&self) -> Option<Timestamp> {
        let key = self.current.read();
        let leaf = x509_cert::Certificate::from_der(key.cert.first()?).ok()?;
        let seconds = leaf.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
        Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
    }

    /// Whether the certificate is one that the local authority issued.
    pub(super) fn is_issued(&self) -> bool {
        self.files.is_none()
    }

    /// From now on this certificate is in use. One from files is not replaced so.
    ///
    /// # Errors
    /// A key that is not that of the certificate.
    pub(super) fn renew(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> anyhow::Result<()> {
        self.current.replace(certified(&Arc::new(aws_lc_rs::default_provider()), chain, key)?);
        Ok(())
    }

    /// How often changed files could not be used, since the start.
    pub fn reload_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Looks at the files every `pause` until `stop`; for an issued certificate it only warns when it has expired.
    pub async fn watch(self: Arc<Self>, pause: Duration, clock: Clock, mut stop: watch::Receiver<bool>) {
        let mut known = self.fingerprint();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(pause) => {}
            }
            self.reload(&mut known);
            if self.not_after().is_some_and(|end| end <= clock()) {
                tracing::error!("the TLS certificate in use has expired; replace its files, or restart to issue one");
            }
        }
    }

    fn reload(&self, known: &mut Option<Fingerprint>) {
        let Some((chain, key)) = &self.files else { return };
        let now = self.fingerprint();
        if now == *known {
            return;
        }
        match read_pair(&Arc::new(aws_lc_rs::default_provider()), chain, key) {
            Ok(pair) => {
                self.current.replace(pair);
                tracing::info!(chain = %chain.display(), "TLS certificate reloaded");
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(error = %format!("{error:#}"), "TLS certificate not reloaded; the old one stays in use");
            }
        }
        *known = now;
    }

    /// What the files are now; `None` if one cannot be read, or if there are none.
    fn fingerprint(&self) -> Option<Fingerprint> {
        let (chain, key) = self.files.as_ref()?;
        let one = |path: &Path| Some((fs::metadata(path).ok()?.modified().ok()?, Digest::of(&read(path).ok()?)));
        Some([one(chain)?, one(key)?])
    }
}

type Fingerprint = [(SystemTime, Digest); 2];

/// All certificates of a PEM file.
pub fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    parse_certificates(&read(path)?).with_context(|| format!("{} cannot be used", path.display()))
}

/// All certificates of a PEM text; at least one.
pub fn parse_certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().context("not PEM")?;
    if chain.is_empty() {
        bail!("it holds no certificate");
    }
    Ok(chain)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() > limits::DOCUMENT {
        bail!("{} has {} bytes; the limit is {}", path.display(), bytes.len(), limits::DOCUMENT);
    }
    Ok(bytes)
}

fn read_pair(provider: &Arc<CryptoProvider>, chain: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .with_context(|| format!("{} holds no usable private key", key.display()))?;
    certified(provider, read_certificates(chain)?, private)
        .with_context(|| format!("{} and {} are no pair", chain.display(), key.display()))
}

fn certified(
    provider: &Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<CertifiedKey> {
    let key = CertifiedKey::from_der(chain, key, provider).context("the TLS certificate or its key cannot be used")?;
    key.keys_match().context("the private key is not that of the certificate")?;
    Ok(key)
}
