//! Custody of private keys: sealed files, the certificate authority and the time-stamp authority.
//!
//! [`Keyring::create`] makes all keys of one instance and seals each with a key-encryption key ([`Kek`]) that is
//! kept elsewhere; [`Keyring::open`] opens them. The private keys never leave this module: others ask for a
//! certificate ([`Keyring::issue`]), a timestamp ([`Keyring::timestamp`]), a signature of the log
//! ([`Keyring::log_key`]) or the public side ([`Keyring::trusted_root`]). Not here: who may ask (faces), what is
//! signed (`signing`). A key is in a sealed file or on a PKCS#11 token (`custody`); keys that callers name are in
//! `managed`. Design §4; certificate profile: `Sigstore` (Fulcio), RFC 5280,
//! RFC 6962 for the SCT, RFC 3161 and RFC 5816 for timestamps.
//!
//! ```text
//! DIR/keys/                     0700, each file 0600
//!   ca-root.key  ca-root.pem            P-256 (P-384 in older directories), ten years; needed only to renew the intermediate
//!   ca.key       ca.pem                 P-256 (as above) intermediate, signs ten-minute certificates
//!   sct.key      sct.pem                P-256, signs certificate timestamps
//!   log.key      log.pem                Ed25519, signs checkpoints; log-2, log-3 … of the logs that succeeded it
//!   tsa-root.key tsa-root.pem           P-256 (P-384 in older directories); needed only to renew the leaf
//!   tsa.key      tsa.pem                P-256, signs RFC 3161 timestamps
//!   tls-ca.key   tls-ca.pem             P-256, the local authority for TLS
//!   tuf-root.key tuf-root.pem           P-256, signs the TUF root alone; the key may be kept elsewhere
//!   tuf.key      tuf.pem                P-256, signs the other TUF metadata
//!   manifest.json                       written last: a directory without it is half made
//! ```
//!
//! A key that took the place of another one has its number in its name: `ca-2`, `ca-root-2`; see [`Keyring::rotate`].

mod ca;
mod cert;
mod cosigner;
mod custody;
mod ec;
mod generations;
mod kek;
mod log_key;
mod managed;
mod offline;
mod pkcs11;
mod rotation;
mod seal;
mod tls;
mod trust;
mod tsa;
mod tuf;
mod vault;
mod warnings;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::{Extensions, Identity, stamp_refusal::StampRefusal};
pub use cosigner::Cosigner;
pub use custody::{Custody, TokenRole, UnknownTokenRole};
pub use ec::EphemeralKey;
pub use generations::{Generation, Rotating};
pub use kek::{Kek, KekSource};
pub use log_key::LogKey;
pub use managed::{Change, Event, KeyRefusal, KeyState, KeyVersion, ManagedKey, ManagedKeys, SigningKey};
pub use offline::{bring_tuf_root_back, take_tuf_root_offline};
pub use pkcs11::{PinSource, Token, TokenSettings};
pub use rotation::{Rotated, Rotation};
pub use trust::{Public, PublicLog, check_host};
pub use tuf::{TufKeys, TufRoot, tuf_root_is_here};

use self::{
    cert::Authority,
    generations::Dated,
    tuf::TufSigner,
    vault::{Vault, generation_role},
};

/// How long authorities live.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3_652);
/// How far `notBefore` lies back, so that clocks a little behind ours accept what we just made.
const AUTHORITY_BACKDATE: SignedDuration = SignedDuration::from_mins(1);

/// Why keys could not be made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The host name cannot be a log's origin.
    #[error("name {host:?} cannot be used: {problem}")]
    Host {
        /// What was given.
        host: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key-encryption key could not be read.
    #[error("key-encryption key from {from} {problem}")]
    Kek {
        /// The file, variable or credential.
        from: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// There are keys here already.
    #[error("{0} exists already; keys are never overwritten, choose another directory")]
    Exists(PathBuf),
    /// There are no keys here.
    #[error("{0} does not exist; make it with `countersign init --data DIR --host NAME`, or correct the path")]
    Missing(PathBuf),
    /// There are no keys of a witness here, or not all of them.
    #[error(
        "{0} does not hold the keys of a witness; make them with `countersign witness init`, after removing what an \
         unfinished one left, or correct the path"
    )]
    NoCosigner(PathBuf),
    /// `init` did not finish.
    #[error("{0} is half made: `countersign init` did not finish; remove the directory and run it again")]
    HalfMade(PathBuf),
    /// Made by a version that writes another format.
    #[error("{path} has format {found}; this version reads format {known}", known = vault::FORMAT)]
    Format {
        /// The manifest.
        path: PathBuf,
        /// The format it names.
        found: u64,
    },
    /// The key-encryption key is not the one the keys were sealed with.
    #[error("{0} was sealed with another key-encryption key; give the one that `countersign init` used")]
    WrongKek(PathBuf),
    /// A file is missing, truncated or changed.
    #[error("{path} {problem}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The module of a token cannot be used.
    #[error("PKCS#11 module {path} {problem}")]
    Module {
        /// Its file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The PIN of a token could not be read.
    #[error("PIN from {from} {problem}")]
    Pin {
        /// The file, variable or credential.
        from: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A token, or a key on it, cannot be used now.
    #[error("token {token:?} {problem}")]
    Token {
        /// Its label.
        token: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The keys belong to another host.
    #[error("the keys were made for host {found:?}, but the configuration says {wanted:?}; a log's name cannot change")]
    WrongHost {
        /// The configured name.
        wanted: String,
        /// The name in the manifest.
        found: String,
    },
    /// A key cannot be rotated so.
    #[error("{key} cannot be rotated: {problem}")]
    Rotation {
        /// Which one.
        key: &'static str,
        /// Why, and what to do.
        problem: String,
    },
    /// The root key of the TUF repository is not here, or is not what was given.
    #[error("the TUF root key {0}")]
    TufRoot(String),
    /// No certificate can be issued for this identity.
    #[error("no certificate can name {subject:?}: {problem}")]
    Identity {
        /// The subject.
        subject: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No certificate can be issued for this public key.
    #[error("public key is not acceptable: {0}")]
    PublicKey(&'static str),
    /// A timestamp request that cannot be answered.
    #[error(transparent)]
    Request(#[from] StampRefusal),
    /// What would be signed now is worth nothing to whoever verifies it.
    #[error(
        "the clock here says {now}, which is outside of the life of the {whose} certificate ({from} to {until}); \
         correct the clock, or renew the certificate with `countersign trust rotate`"
    )]
    OutOfLife {
        /// Whose certificate.
        whose: &'static str,
        /// Since when it is good.
        from: Timestamp,
        /// Until when.
        until: Timestamp,
        /// The time here.
        now: Timestamp,
    },
    /// The time is outside what certificates can say.
    #[error("time {0} cannot be written into a certificate")]
    Time(Timestamp),
    /// Reading or writing failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The cryptographic library refused.
    #[error("cannot {0}")]
    Crypto(&'static str),
    /// A structure could not be encoded or decoded.
    #[error("cannot encode or decode ASN.1: {0}")]
    Asn1(#[from] der::Error),
}

/// All private keys of one instance, opened.
pub struct Keyring {
    /// Replaced as a whole when a key is added.
    current: RwLock<Arc<Current>>,
    tls: Authority,
    host: String,
    custody: Custody,
}

/// What changes when a key takes the place of another one.
struct Current {
    public: Public,
    trusted_root: Arc<str>,
    /// By log, oldest first; never empty.
    logs: Vec<LogKey>,
    ca: Dated<ca::Issuer>,
    sct: Dated<ca::SctKey>,
    tsa: Dated<tsa::Stamper>,
    tuf: Option<TufSigner>,
}

impl Current {
    fn open(vault: &Vault<'_>, custody: &Custody) -> Result<Self, KeyError> {
        let public = Public::from_vault(vault)?;
        let mut logs = Vec::new();
        for (number, known) in public.logs().iter().enumerate() {
            let role = vault::log_role(number);
            let log = custody.log_key(&vault.key(&role)?).map_err(|error| match error {
                KeyError::Token { .. } => error,
                _ => vault.damaged(&role, "is not an Ed25519 key"),
            })?;
            if log.public_key() != known.key {
                return Err(vault.damaged(&role, "does not fit its public key"));
            }
            logs.push(log);
        }
        let ca = open_all(vault, "ca", &public.ca, |role, one| {
            Ok(ca::Issuer::new(authority(vault, custody, role, one.own())?))
        })?;
        let sct = open_all(vault, "sct", &public.sct, |role, one| {
            let key = custody.ec(ec::Curve::P256, &vault.key(role)?)?;
            if key.spki() != one.own() {
                return Err(vault.damaged(role, "does not fit its public key"));
            }
            Ok(ca::SctKey::new(key))
        })?;
        let tsa = open_all(vault, "tsa", &public.tsa, |role, one| {
            tsa::Stamper::new(custody.ec(ec::Curve::P256, &vault.key(role)?)?, one.own())
        })?;
        let tuf = TufSigner::open(vault, public.tuf())?;
        Ok(Self { trusted_root: public.trusted_root().into(), public, logs, ca, sct, tsa, tuf })
    }
}

/// Opens the key of every generation.
fn open_all<T>(
    vault: &Vault<'_>,
    role: &str,
    generations: &Dated<Generation>,
    open: impl Fn(&str, &Generation) -> Result<T, KeyError>,
) -> Result<Dated<T>, KeyError> {
    let mut opened: Option<Dated<T>> = None;
    for one in generations.iter() {
        let key = open(&generation_role(role, one.number), one)?;
        match &mut opened {
            Some(all) => all.push(one.signs_from, key),
            None => opened = Some(Dated::new(key)),
        }
    }
    opened.ok_or_else(|| vault.damaged(role, "is missing"))
}

/// An authority with its key. Those of older instances have P-384.
fn authority(vault: &Vault<'_>, custody: &Custody, role: &str, certificate: &[u8]) -> Result<Authority, KeyError> {
    let key = custody.ec(Authority::curve_of(certificate)?, &vault.key(role)?)?;
    Authority::new(key, certificate.to_vec()).map_err(|_source| vault.damaged(role, "does not fit its key"))
}

impl Keyring {
    /// Makes the keys and certificates of a new instance in `dir/keys`; the manifest is written last.
    ///
    /// # Errors
    /// [`KeyError::Host`], [`KeyError::Exists`] (also [`KeyError::HalfMade`]) or an input/output failure, after
    /// which the directory is half made.
    pub fn create(dir: &Path, kek: &Kek, host: &str, now: Timestamp) -> Result<(), KeyError> {
        Self::create_in(dir, kek, host, now, &Custody::default())
    }

    /// The same, with some of the keys on a token.
    ///
    /// # Errors
    /// As [`Self::create`]; also [`KeyError::Token`]. Keys that were made on the token until then stay there unused, under
    /// ids that no sealed file names.
    pub fn create_in(dir: &Path, kek: &Kek, host: &str, now: Timestamp, custody: &Custody) -> Result<(), KeyError> {
        check_host(host)?;
        // In whole seconds, as certificates have them; the trusted root says the same.
        let from = cert::shift(now, -AUTHORITY_BACKDATE)?;
        let from = Timestamp::from_second(from.as_second()).map_err(|_source| KeyError::Time(now))?;
        let until = cert::shift(from, AUTHORITY_LIFE)?;
        let mut vault = Vault::create(dir, kek)?;

        let new = |role: &str| custody.new_ec(host, role, ec::Curve::P256);
        let ca_root = rotation::new_root(Rotating::Ca, new("ca-root")?, host, 1, from, until)?;
        let ca = ca_root.intermediate(new("ca")?, host, trust::CA, from, until)?;
        let tsa_root = rotation::new_root(Rotating::Tsa, new("tsa-root")?, host, 1, from, until)?;
        let tsa_key = new("tsa")?;
        let tsa_cert = tsa::leaf(&tsa_key, &tsa_root, host, trust::TSA, from, until)?;
        let tls_ca = Authority::root(new("tls-ca")?, host, "countersign TLS CA", from, until, 0)?;
        for (role, authority) in [("ca-root", &ca_root), ("ca", &ca), ("tsa-root", &tsa_root), ("tls-ca", &tls_ca)] {
            vault.put_key(role, &authority.key().to_sealable()?)?;
            vault.put_public(role, "CERTIFICATE", authority.certificate())?;
        }
        vault.put_key("tsa", &tsa_key.to_sealable()?)?;
        vault.put_public("tsa", "CERTIFICATE", &tsa_cert)?;

        let sct = new("sct")?;
        vault.put_key("sct", &sct.to_sealable()?)?;
        vault.put_public("sct", "PUBLIC KEY", sct.spki())?;
        let log = custody.new_log_key(host, "log")?;
        vault.put_key("log", &log.to_sealable()?)?;
        vault.put_public("log", "PUBLIC KEY", &log.spki())?;
        for key in tuf::new_keys()? {
            vault.put_key(&key.role, &key.secret)?;
            vault.put_public(&key.role, key.label, &key.public)?;
        }
        vault.finish(host, from)
    }

    /// Makes a key for a log of the new origin that succeeds the present one; from then on the trusted root names both,
    /// the old one for `trust::OVERLAP` longer. `make` makes the log with its key: only if it succeeds is the key kept.
    ///
    /// # Errors
    /// [`KeyError::Host`] for an origin that cannot be one or that an earlier log has; [`KeyError::Rotation`] if the present
    /// log began after `now`; those of `make`.
    pub fn add_log<E: From<KeyError>>(
        &self,
        dir: &Path,
        kek: &Kek,
        origin: &str,
        now: Timestamp,
        make: impl FnOnce(&LogKey) -> Result<(), E>,
    ) -> Result<LogKey, E> {
        check_host(origin)?;
        let mut vault = Vault::open_to_change(dir, kek)?;
        let public = self.public();
        if public.logs().iter().any(|log| log.origin == origin) {
            let problem = "a log of that name is there already; a new log needs a new name";
            return Err(KeyError::Host { host: origin.to_owned(), problem }.into());
        }
        if let Some(log) = public.logs().last() {
            rotation::check_clock("log", log.valid_from, now)?;
        }
        let valid_from = Timestamp::from_second(now.as_second()).map_err(|_source| KeyError::Time(now))?;
        let role = vault::log_role(self.current().logs.len());
        let key = self.custody.new_log_key(&self.host, &role)?;
        make(&key)?;
        let successor = vault::Successor { origin: origin.to_owned(), valid_from };
        vault.add_log(successor, &key.to_sealable()?, &key.spki())?;
        self.replace(Current::open(&vault, &self.custody)?);
        Ok(key)
    }

    fn replace(&self, renewed: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the keys in `dir/keys`. The root keys stay sealed: they are needed only for renewal.
    ///
    /// # Errors
    /// [`KeyError::Missing`], [`KeyError::HalfMade`], [`KeyError::WrongKek`], [`KeyError::Damaged`].
    ///
    /// A key that is on a token has its public side here, and signs nothing: see [`Self::open_in`].
    pub fn open(dir: &Path, kek: &Kek) -> Result<Self, KeyError> {
        Self::open_in(dir, kek, Custody::default())
    }

    /// The same, with what reaches the keys that are on a token. Whether they are there is asked by
    /// [`Self::check_custody`].
    ///
    /// # Errors
    /// As [`Self::open`]; also [`KeyError::Token`] if another token is configured than has them.
    pub fn open_in(dir: &Path, kek: &Kek, custody: Custody) -> Result<Self, KeyError> {
        let vault = Vault::open(dir, kek)?;
        let current = Current::open(&vault, &custody)?;
        Ok(Self {
            tls: authority(&vault, &custody, "tls-ca", &vault.public("tls-ca")?)?,
            host: current.public.host.clone(),
            current: RwLock::new(Arc::new(current)),
            custody,
        })
    }

    /// Refuses if a key that signs is on a token, and cannot be used there: asks the token, and may take seconds.
    ///
    /// # Errors
    /// [`KeyError::Token`], [`KeyError::Pin`].
    pub fn check_custody(&self, now: Timestamp) -> Result<(), KeyError> {
        let current = self.current();
        for at in [current.ca.at(now), current.ca.last()] {
            at.check()?;
        }
        for at in [current.sct.at(now), current.sct.last()] {
            at.check()?;
        }
        for at in [current.tsa.at(now), current.tsa.last()] {
            at.check()?;
        }
        // The logs before it are frozen, and sign no more.
        self.log_key().check()
    }

    /// Refuses keys that were made for another host.
    ///
    /// # Errors
    /// [`KeyError::WrongHost`].
    pub fn require_host(&self, host: &str) -> Result<(), KeyError> {
        if self.host == host {
            return Ok(());
        }
        Err(KeyError::WrongHost { wanted: host.to_owned(), found: self.host.clone() })
    }

    /// The host name for which the keys were made: the origin of the first log.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The public side: certificates, keys, trust documents.
    pub fn public(&self) -> Public {
        self.current().public.clone()
    }

    /// Issues a ten-minute code-signing certificate (DER) for `identity` over `spki`, with embedded SCT.
    ///
    /// # Errors
    /// [`KeyError::Identity`] or [`KeyError::PublicKey`] for what a certificate cannot say, [`KeyError::OutOfLife`] where
    /// nobody would believe it.
    pub fn issue(&self, identity: &Identity, spki: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        Ok(self.issue_saying(identity, &Extensions::default(), spki, now)?.certificate)
    }

    /// The same, with what the certificate says of the token that vouched for `identity`, and with the chain above it.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_saying(
        &self,
        identity: &Identity,
        said: &Extensions,
        spki: &[u8],
        now: Timestamp,
    ) -> Result<IssuedCertificate, KeyError> {
        // One look: a rotation between certificate and chain would give a chain that does not fit.
        let current = self.current();
        let certificate = current.ca.at(now).issue(current.sct.at(now), identity, said, spki, now)?;
        Ok(IssuedCertificate { certificate, chain: current.public.ca_chain(now) })
    }

    /// RFC 3161: a whole `TimeStampResp` (DER) over SHA-256 of `message`.
    pub fn timestamp(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.current().tsa.at(now).stamp(message, now)
    }

    /// Answers an RFC 3161 `TimeStampReq` (DER): nonce echoed, certificate embedded if asked for.
    ///
    /// # Errors
    /// [`KeyError::Request`] names what is not acceptable.
    pub fn stamp_request(&self, request: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.current().tsa.at(now).answer(request, now)
    }

    /// The keys that sign checkpoints, with their logs' origins, oldest first; the last is the present log's.
    pub fn log_keys(&self) -> Vec<(String, LogKey)> {
        let current = self.current();
        current.public.logs().iter().map(|log| log.origin.clone()).zip(current.logs.iter().cloned()).collect()
    }

    /// The key that signs the present log's checkpoints.
    #[expect(clippy::expect_used, reason = "a keyring is opened with one log at least")]
    pub fn log_key(&self) -> LogKey {
        self.current().logs.last().cloned().expect("there is a log")
    }

    /// `trusted_root.json`, v0.1.
    pub fn trusted_root(&self) -> Arc<str> {
        Arc::clone(&self.current().trusted_root)
    }

    /// `SigningConfig` v0.2 for clients that find this instance at `base_url`.
    pub fn signing_config(&self, base_url: &str) -> String {
        self.current().public.signing_config(base_url)
    }

    /// `ClientTrustConfig` v0.1: the trusted root and the signing configuration in one document.
    pub fn client_trust_config(&self, base_url: &str) -> String {
        self.current().public.client_trust_config(base_url)
    }

    /// What will expire, and when, of what is in use at `now`.
    pub fn expiries(&self, now: Timestamp) -> Vec<(String, Timestamp)> {
        self.current().public.expiries(now)
    }

    /// A TLS server certificate for `names` (DNS names or IP addresses) and its key, made now and kept nowhere.
    ///
    /// Valid for 397 days: make another one when the process starts.
    pub fn tls_server(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), KeyError> {
        tls::server(&self.tls, names, now)
    }

    /// The local TLS authority, PEM: what clients put into their trust store.
    pub fn tls_ca_pem(&self) -> String {
        self.current().public.tls_ca_pem()
    }

    /// A client certificate for mutual TLS that names `name`, a SPIFFE URI or a DNS name: certificate and key, PEM.
    ///
    /// # Errors
    /// [`KeyError::Identity`] if `name` is neither.
    pub fn issue_client(
        &self,
        name: &str,
        now: Timestamp,
        days: u16,
    ) -> Result<(String, zeroize::Zeroizing<String>), KeyError> {
        tls::client(&self.tls, name, now, days)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A certificate with those above it.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// DER.
    pub certificate: Vec<u8>,
    /// PEM, one text for each: the authority that signed it, then its root.
    pub chain: Arc<[String]>,
}

fn public_key(pair: &Ed25519KeyPair) -> Result<[u8; 32], KeyError> {
    pair.public_key().as_ref().try_into().map_err(|_source| KeyError::Crypto("read the log's public key"))
}
