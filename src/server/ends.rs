//! Everything that ends, and when: for the metric, for the warnings, and for `countersign doctor`.
//!
//! What this instance made is warned of by whoever made it (`keys`, `tuf`). Here is what others made and the configuration
//! names: it is read at the start, as by those who use it, and is theirs to renew.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};

use super::{Certificates, ServerTls, public, tls, wiring};
use crate::{
    config::Config,
    keys::Keyring,
    model::{TrustedRoot, certificate::describe},
    tuf::Repository,
};

/// A TLS certificate from files is somebody else's to renew; they hear of it this long before.
const TLS_WARNING: SignedDuration = SignedDuration::from_hours(24 * 14);
/// So is an authority of others, which takes longer: a new one must be had from them, and reach all who use it.
const AUTHORITY_WARNING: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Certificates of others that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The setting and the file.
    what: String,
    /// When the first of them ends.
    end: Timestamp,
}

/// Everything that ends.
#[derive(Debug)]
pub struct Ends {
    pub(super) keyring: Arc<Keyring>,
    pub(super) repository: Arc<Repository>,
    /// The listeners' certificate.
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) named: Vec<Named>,
}

impl Ends {
    /// The same of an installation whose service may not be running, and what of the configured files cannot be used. A
    /// certificate that the service issues to itself is not among it.
    pub fn of_installation(config: &Config, keyring: Arc<Keyring>) -> (Self, Vec<anyhow::Error>) {
        let (named, mut errors) = named(config);
        let tls = from_files(config).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let url = public::base_url(config, keyring.host());
        // Nothing is signed here, so no key-encryption key is asked for.
        let no_kek = Arc::new(|| Err(crate::keys::KeyError::Crypto("sign TUF metadata here")));
        let repository = Arc::new(Repository::open(&config.data, Arc::clone(&keyring), no_kek, url));
        (Self { keyring, repository, tls: tls.map(Arc::new), named }, errors)
    }

    /// What nobody is served without: our own keys in use, and the listeners' certificate.
    pub fn vital(&self, now: Timestamp) -> Vec<(String, Timestamp)> {
        let mut ends = self.keyring.expiries(now);
        ends.extend(self.tls_end().map(|end| ("tls certificate".to_owned(), end)));
        ends
    }

    /// All of it.
    pub(super) fn all(&self, now: Timestamp) -> Vec<(String, Timestamp)> {
        let mut ends = self.vital(now);
        ends.extend(self.repository.expiries());
        ends.extend(self.named.iter().map(|named| (named.what.clone(), named.end)));
        ends
    }

    /// What somebody should know of, one sentence each.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let mut warnings = self.keyring.public().warnings(now);
        warnings.extend(self.repository.warnings(now));
        if let Some(end) = self.tls_end().filter(|end| end.duration_since(now) < TLS_WARNING) {
            warnings.push(format!("the TLS certificate in use {} at {end}; replace its files", verb(end, now)));
        }
        for Named { what, end } in self.named.iter().filter(|named| named.end.duration_since(now) < AUTHORITY_WARNING) {
            warnings.push(format!("{what} {} at {end}; replace the file, then restart the service", verb(*end, now)));
        }
        warnings
    }

    fn tls_end(&self) -> Option<Timestamp> {
        self.tls.as_ref()?.not_after()
    }
}

fn verb(end: Timestamp, now: Timestamp) -> &'static str {
    if end <= now { "expired" } else { "expires" }
}

/// The listeners' certificate, if the configuration names its files.
fn from_files(config: &Config) -> anyhow::Result<Option<ServerTls>> {
    let (Some(chain), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) else { return Ok(None) };
    ServerTls::new(Certificates::Files { chain: chain.clone(), key: key.clone() }, &[]).map(Some)
}

/// What the configuration names, and what of it cannot be read.
pub(super) fn named(config: &Config) -> (Vec<Named>, Vec<anyhow::Error>) {
    let (mut named, mut errors) = (Vec::new(), Vec::new());
    let mut take = |read: anyhow::Result<Vec<Named>>| match read {
        Ok(read) => named.extend(read.into_iter().filter(|one| !named.contains(one)).collect::<Vec<_>>()),
        Err(error) => errors.push(error),
    };
    for path in &config.trust.extra_roots {
        take(of_root(path));
    }
    // Without a policy no witness is asked, and its authorities are not looked at.
    let witness = config.witness.policy_file.as_ref().and(config.witness.ca_file.as_ref());
    let single = [
        ("identity.client_ca_file", config.identity.client_ca_file.as_ref()),
        ("registry.ca_file", config.registry.ca_file.as_ref()),
        ("witness.ca_file", witness),
    ];
    let issuers = config.identity.issuers.iter().map(|issuer| ("identity.issuers.ca_file", issuer.ca_file.as_ref()));
    for (setting, path) in single.into_iter().chain(issuers) {
        if let Some(path) = path {
            take(of_certificates(setting, path));
        }
    }
    (named, errors)
}

fn of_root(path: &Path) -> anyhow::Result<Vec<Named>> {
    let what = format!("trust.extra_roots {}", path.display());
    let root = TrustedRoot::parse(&wiring::read(path)?).with_context(|| what.clone())?;
    let named = |&(kind, end): &(&str, Timestamp)| Named { what: format!("{what} ({kind})"), end };
    Ok(root.ends().iter().map(named).collect())
}

/// The first end of all in one file. What only the TLS library can read is passed over.
fn of_certificates(setting: &str, path: &Path) -> anyhow::Result<Vec<Named>> {
    let what = format!("{setting} {}", path.display());
    let certificates = tls::read_certificates(path).with_context(|| what.clone())?;
    let end = certificates.iter().filter_map(|der| describe(der)).map(|one| one.not_after).min();
    Ok(end.map(|end| Named { what, end }).into_iter().collect())
}
