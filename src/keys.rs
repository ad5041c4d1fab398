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
//!   ca-root.key  ca-root.pem            P-384, ten years; the key is needed only to renew the intermediate
//!   ca.key       ca.pem                 P-384 intermediate, signs ten-minute certificates
//!   sct.key      sct.pem                P-256, signs certificate timestamps
//!   log.key      log.pem                Ed25519, signs checkpoints; log-2, log-3 … of the logs that succeeded it
//!   tsa-root.key tsa-root.pem           P-384; the key is needed only to renew the leaf
//!   tsa.key      tsa.pem                P-256, signs RFC 3161 timestamps
//!   tls-ca.key   tls-ca.pem             P-256, the local authority for TLS
//!   manifest.json                       written last: a directory without it is half made
//! ```

mod ca;
mod cert;
mod cosigner;
mod custody;
mod ec;
mod kek;
mod log_key;
mod managed;
mod pkcs11;
mod seal;
mod stamp_refusal;
mod tls;
mod trust;
mod tsa;
mod vault;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::model::{Extensions, Identity};
pub use cosigner::Cosigner;
pub use custody::{Custody, TokenRole, UnknownTokenRole};
pub use ec::EphemeralKey;
pub use kek::{Kek, KekSource};
pub use log_key::LogKey;
pub use managed::{Change, Event, KeyRefusal, KeyState, KeyVersion, ManagedKey, ManagedKeys, SigningKey};
pub use pkcs11::{PinSource, Token, TokenSettings};
pub use stamp_refusal::{Failure, StampRefusal};
pub use trust::{Public, PublicLog, check_host};

use self::{cert::Authority, vault::Vault};

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
    /// Replaced as a whole when a log is added.
    current: RwLock<Arc<Current>>,
    ca: ca::Issuer,
    tsa: tsa::Stamper,
    tls: Authority,
    host: String,
    custody: Custody,
}

/// What changes when a log is succeeded by another one.
struct Current {
    public: Public,
    trusted_root: Arc<str>,
    /// By log, oldest first; never empty.
    logs: Vec<LogKey>,
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
        Ok(Self { trusted_root: public.trusted_root().into(), public, logs })
    }
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

        let new = |role: &str, curve| custody.new_ec(host, role, curve);
        let (p384, p256) = (ec::Curve::P384, ec::Curve::P256);
        let ca_root = Authority::root(new("ca-root", p384)?, host, "countersign CA root", from, until, 1)?;
        let ca = ca_root.intermediate(new("ca", p384)?, host, "countersign CA", from, until)?;
        let tsa_root = Authority::root(new("tsa-root", p384)?, host, "countersign TSA root", from, until, 0)?;
        let tsa_key = new("tsa", p256)?;
        let tsa_cert = tsa::leaf(&tsa_key, &tsa_root, host, from, until)?;
        let tls_ca = Authority::root(new("tls-ca", p256)?, host, "countersign TLS CA", from, until, 0)?;
        for (role, authority) in [("ca-root", &ca_root), ("ca", &ca), ("tsa-root", &tsa_root), ("tls-ca", &tls_ca)] {
            vault.put_key(role, &authority.key().to_sealable()?)?;
            vault.put_public(role, "CERTIFICATE", authority.certificate())?;
        }
        vault.put_key("tsa", &tsa_key.to_sealable()?)?;
        vault.put_public("tsa", "CERTIFICATE", &tsa_cert)?;

        let sct = new("sct", p256)?;
        vault.put_key("sct", &sct.to_sealable()?)?;
        vault.put_public("sct", "PUBLIC KEY", sct.spki())?;
        let log = custody.new_log_key(host, "log")?;
        vault.put_key("log", &log.to_sealable()?)?;
        vault.put_public("log", "PUBLIC KEY", &log.spki())?;
        vault.finish(host, from)
    }

    /// Makes a key for a log of the new origin that succeeds the present one; from then on the trusted root names both,
    /// the old one for `trust::OVERLAP` longer. `make` makes the log with its key: only if it succeeds is the key kept.
    ///
    /// # Errors
    /// [`KeyError::Host`] for an origin that cannot be one or that an earlier log has; those of `make`.
    pub fn add_log<E: From<KeyError>>(
        &self,
        dir: &Path,
        kek: &Kek,
        origin: &str,
        now: Timestamp,
        make: impl FnOnce(&LogKey) -> Result<(), E>,
    ) -> Result<LogKey, E> {
        check_host(origin)?;
        let mut vault = Vault::open(dir, kek)?;
        if self.current().public.logs().iter().any(|log| log.origin == origin) {
            let problem = "a log of that name is there already; a new log needs a new name";
            return Err(KeyError::Host { host: origin.to_owned(), problem }.into());
        }
        let valid_from = Timestamp::from_second(now.as_second()).map_err(|_source| KeyError::Time(now))?;
        let role = vault::log_role(self.current().logs.len());
        let key = self.custody.new_log_key(&self.host, &role)?;
        make(&key)?;
        let successor = vault::Successor { origin: origin.to_owned(), valid_from };
        vault.add_log(successor, &key.to_sealable()?, &key.spki())?;
        let renewed = Arc::new(Current::open(&vault, &self.custody)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(key)
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the keys in `dir/keys`. The two root keys stay sealed: they are needed only for renewal.
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
        let authority = |role: &'static str, curve| -> Result<Authority, KeyError> {
            let key = custody.ec(curve, &vault.key(role)?)?;
            Authority::new(key, vault.public(role)?).map_err(|_source| vault.damaged(role, "does not fit its key"))
        };
        let sct = custody.ec(ec::Curve::P256, &vault.key("sct")?)?;
        let tsa = custody.ec(ec::Curve::P256, &vault.key("tsa")?)?;
        if sct.spki() != current.public.sct_key {
            return Err(vault.damaged("sct", "does not fit its public key"));
        }
        Ok(Self {
            ca: ca::Issuer::new(authority("ca", ec::Curve::P384)?, sct),
            tsa: tsa::Stamper::new(tsa, &current.public.tsa)?,
            tls: authority("tls-ca", ec::Curve::P256)?,
            host: current.public.host.clone(),
            current: RwLock::new(Arc::new(current)),
            custody,
        })
    }

    /// Refuses if a key that signs is on a token, and cannot be used there: asks the token, and may take seconds.
    ///
    /// # Errors
    /// [`KeyError::Token`], [`KeyError::Pin`].
    pub fn check_custody(&self) -> Result<(), KeyError> {
        self.ca.check()?;
        self.tsa.check()?;
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
    /// [`KeyError::Identity`] or [`KeyError::PublicKey`] for what a certificate cannot say.
    pub fn issue(&self, identity: &Identity, spki: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.issue_saying(identity, &Extensions::default(), spki, now)
    }

    /// The same, with what the certificate says of the token that vouched for `identity`.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_saying(
        &self,
        identity: &Identity,
        said: &Extensions,
        spki: &[u8],
        now: Timestamp,
    ) -> Result<Vec<u8>, KeyError> {
        self.ca.issue(identity, said, spki, now)
    }

    /// The certificates above those that are issued now, PEM: the authority that signs them first, the root last.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if they cannot be encoded.
    pub fn ca_chain(&self) -> Result<Vec<String>, KeyError> {
        self.current().public.ca_chain()
    }

    /// RFC 3161: a whole `TimeStampResp` (DER) over SHA-256 of `message`.
    pub fn timestamp(&self, message: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.tsa.stamp(message, now)
    }

    /// Answers an RFC 3161 `TimeStampReq` (DER): nonce echoed, certificate embedded if asked for.
    ///
    /// # Errors
    /// [`KeyError::Request`] names what is not acceptable.
    pub fn stamp_request(&self, request: &[u8], now: Timestamp) -> Result<Vec<u8>, KeyError> {
        self.tsa.answer(request, now)
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

    /// What will expire, and when.
    pub fn expiries(&self) -> Vec<(String, Timestamp)> {
        self.current().public.expiries()
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

fn public_key(pair: &Ed25519KeyPair) -> Result<[u8; 32], KeyError> {
    pair.public_key().as_ref().try_into().map_err(|_source| KeyError::Crypto("read the log's public key"))
}
