//! Settings of the service: typed, bounded, and documented by the doc comment on each field.
//!
//! Sources, later ones above earlier ones: built-in defaults; one TOML file (`--config FILE`, else
//! `countersign.toml` in the data directory if it is there); environment variables; flags.
//!
//! A variable is named after its field: `COUNTERSIGN_SECTION__FIELD`, as in
//! `COUNTERSIGN_LISTEN__PUBLIC=0.0.0.0:8443`, and `COUNTERSIGN_DATA` for the one field outside a section. Its value is
//! read as TOML (`["a", "b"]`, `true`, `30`), and as plain text where it is not TOML.
//!
//! A field that does not exist is refused by name, in the file as in the environment: a typing error must not leave a
//! default in force.

mod layers;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    keys::{Custody, KekSource, KeyError, PinSource, Token, TokenRole, TokenSettings},
    log::witnessing::Mode,
    model::limits,
    recording::Whose,
    sigstore::limits::Allowance,
};

/// The file that is read from the data directory when no `--config` is given.
pub const FILE_NAME: &str = "countersign.toml";

/// Where data stands when nothing else is said.
pub const DEFAULT_DATA: &str = "/var/lib/countersign";

/// `[rollback]`: how many revisions are looked at, how old a registry's answer may be, and what is kept warm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollback {
    /// Earlier revisions that are looked at. Default: as many as the service itself finds sensible.
    pub candidates: Option<usize>,
    /// How long an answer of the registry counts, in seconds, at most a day. Default: 30.
    pub max_probe_age_s: Option<u64>,
    /// Time for an answer when the caller names none, in milliseconds, at most 10,000. Default: 1,800.
    pub timeout_ms: Option<u64>,
    /// How often the facts about a place are collected that was touched a moment ago (deployed to, reported on, asked
    /// about), in seconds; rarer, down to every five minutes, the longer nothing happens there. 0: only when somebody
    /// asks. Default: two thirds of `max_probe_age_s`.
    pub warm_every_s: Option<u64>,
    /// How many services and environments are kept warm, those touched last. Default: 64.
    pub warm_places: Option<usize>,
}

impl Rollback {
    /// The service's settings.
    pub fn settings(&self) -> crate::rollback::Settings {
        let mut settings = crate::rollback::Settings::default();
        if let Some(candidates) = self.candidates {
            settings.candidates = candidates.clamp(1, 64);
        }
        if let Some(seconds) = self.max_probe_age_s {
            let age = Duration::from_secs(seconds.min(86_400));
            settings.max_probe_age = jiff::SignedDuration::try_from(age).unwrap_or_default();
            settings.warm_every = age * 2 / 3;
        }
        if let Some(timeout) = self.timeout_ms {
            settings.timeout = Duration::from_millis(timeout.clamp(1, 10_000));
        }
        if let Some(seconds) = self.warm_every_s {
            settings.warm_every = Duration::from_secs(seconds.min(86_400));
        }
        if let Some(places) = self.warm_places {
            settings.warm_places = places.min(limits::SERVICES);
        }
        settings
    }
}

/// Everything that can be configured.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data directory that `countersign init` made: log, keys, local certificate authority. Default:
    /// `/var/lib/countersign`.
    pub data: PathBuf,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Certificates of the listeners.
    pub tls: Tls,
    /// Where the key-encryption key comes from.
    pub kek: Kek,
    /// The token that has some of the keys.
    pub pkcs11: Pkcs11,
    /// Who may call, and with which roles.
    pub identity: crate::identity::Settings,
    /// How image registries are reached.
    pub registry: crate::registry::Settings,
    /// The policy document.
    pub policy: Policy,
    /// Further trust material.
    pub trust: Trust,
    /// Witnesses that cosign the log.
    pub witness: Witness,
    /// How old facts from registries may be.
    pub evidence: crate::evidence::Settings,
    /// The admission webhook.
    pub admission: crate::admission::Settings,
    /// The rollback check.
    pub rollback: Rollback,
    /// The transparency log.
    pub log: Log,
    /// The faces for stock Sigstore clients.
    pub sigstore: Sigstore,
    /// Bounds on connections and requests.
    pub limits: Limits,
}

/// `[sigstore]`: what stock Sigstore clients use. A certificate needs a token; nobody needs credentials to have a signature
/// recorded or stamped. Each address and identity has an allowance: `{ per_second = 200, burst = 1000 }` where nothing else is said, and `per_second = 0` for no
/// limit. Callers behind one proxy share its address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sigstore {
    /// Whether these faces are served at all. Default: true.
    pub enabled: bool,
    /// Whose signatures are recorded: `anyone`'s, as in the public logs, or only those of whoever has a certificate of
    /// this authority (`certified`). Default: anyone.
    pub entries_of: Whose,
    /// How many signatures one address may have recorded.
    pub entries: Allowance,
    /// How many timestamps one address may have.
    pub timestamps: Allowance,
    /// How many certificates one identity may have.
    pub certificates: Allowance,
}

impl Default for Sigstore {
    fn default() -> Self {
        let each = Allowance::default();
        Self { enabled: true, entries_of: Whose::default(), entries: each, timestamps: each, certificates: each }
    }
}

/// `[log]`: what must stay free on the log's disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Below this many mebibytes the log refuses to write, and goes on by itself when there is room again. Default: 256.
    pub reserve_mib: u64,
    /// Mebibytes of a file that is given back when the disk fills up all the same. Default: 64.
    pub ballast_mib: u64,
}

impl Log {
    /// As the store takes it.
    pub fn room(&self) -> crate::store::Room {
        const MIB: u64 = 1024 * 1024;
        crate::store::Room {
            reserve: self.reserve_mib.saturating_mul(MIB),
            ballast: self.ballast_mib.saturating_mul(MIB),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { reserve_mib: 256, ballast_mib: 64 }
    }
}

/// `[listen]`: one address for each door. Port 0 takes a free port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// gRPC and HTTP for callers. Default: `127.0.0.1:8443`.
    pub public: SocketAddr,
    /// The admission webhook. Default: `127.0.0.1:9443`; in a cluster, `0.0.0.0:9443`.
    pub webhook: SocketAddr,
    /// Metrics and health, plain HTTP, without authentication. Default: `127.0.0.1:9090`.
    pub operations: SocketAddr,
}

/// `[tls]`: certificates of the public and the webhook listener.
///
/// Without `cert_file` the local certificate authority that `init` made issues one for `names`. Files are read again
/// when they change (looked at every two seconds); a pair that does not fit together leaves the old one in use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM certificate chain, leaf first. Default: none, the local authority issues.
    pub cert_file: Option<PathBuf>,
    /// PEM private key of the leaf.
    pub key_file: Option<PathBuf>,
    /// DNS names and addresses for the certificate that the local authority issues, besides the host that `init` was
    /// given. Default: `localhost`, `127.0.0.1`, `::1`.
    pub names: Vec<String>,
    /// Serves without TLS. Only for listeners on loopback addresses, refused on all others. Default: false.
    pub plaintext_unsafe: bool,
}

/// `[kek]`: the key-encryption key that seals the private keys on disk; exactly one source, 32 bytes.
///
/// `countersign init` writes the source that it was given into `countersign.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kek {
    /// A file that holds the key; readable by the service's user alone.
    pub file: Option<PathBuf>,
    /// The name of an environment variable that holds the key.
    pub env: Option<String>,
    /// The name of a systemd credential (`LoadCredential=`, `LoadCredentialEncrypted=`).
    pub credential: Option<String>,
}

/// `[pkcs11]`: a token (hardware module, smart card, `SoftHSM`) that has private keys which never leave it. Which keys those
/// are is said at `countersign init`, and stands in the sealed files; here is how they are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pkcs11 {
    /// The module, a shared library: an absolute path. It runs inside of the service. Default: none, all keys are in files.
    pub module: Option<PathBuf>,
    /// The label of the token.
    pub token: Option<String>,
    /// A file that holds the PIN of the token's user; readable by the service's user alone.
    pub pin_file: Option<PathBuf>,
    /// The name of an environment variable that holds the PIN.
    pub pin_env: Option<String>,
    /// The name of a systemd credential that holds the PIN.
    pub pin_credential: Option<String>,
    /// Which keys are made on the token from now on: `log` (of a log that succeeds this one) and `managed` (named keys)
    /// while the service runs; all of `ca-root`, `ca`, `sct`, `log`, `tsa-root`, `tsa` at init. Default: none. A key stays
    /// where it was made.
    pub keys: Vec<TokenRole>,
}

impl Pkcs11 {
    /// How the token is reached, if there is one.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] says what is missing, or too much.
    pub fn token(&self) -> Result<Option<TokenSettings>, ConfigError> {
        let conflict = |sentence: &str| Err(ConfigError::Conflict(format!("[pkcs11] {sentence}")));
        let file = self.pin_file.clone().map(KekSource::File);
        let env = self.pin_env.clone().map(KekSource::Env);
        let credential = self.pin_credential.clone().map(KekSource::Credential);
        let mut pins = [file, env, credential].into_iter().flatten();
        match (&self.module, &self.token, pins.next(), pins.next()) {
            (None, None, None, _) if self.keys.is_empty() => Ok(None),
            (Some(_), Some(_), Some(_), Some(_)) => {
                conflict("names more than one PIN; keep one of pin_file, pin_env and pin_credential")
            }
            (Some(module), Some(token), Some(pin), None) if !token.is_empty() => {
                Ok(Some(TokenSettings { module: module.clone(), token: token.clone(), pin: PinSource(pin) }))
            }
            _ => conflict("needs module, token and one of pin_file, pin_env and pin_credential"),
        }
    }
}

/// `[policy]`: what the judge applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The YAML policy document. Default: none, and then no policy matches anything.
    pub file: Option<PathBuf>,
}

/// `[trust]`: whose signatures count besides our own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    /// Further `trusted_root.json` files, for bundles that others signed. Default: none.
    pub extra_roots: Vec<PathBuf>,
}

/// `[witness]`: who cosigns the log's checkpoints (C2SP `tlog-witness`), and what happens without them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Witness {
    /// The policy (C2SP `tlog-policy`): witnesses with their URLs, and the quorum. Default: none, nobody is asked.
    pub policy_file: Option<PathBuf>,
    /// `require`: nothing is shown and nobody answered before a quorum has cosigned. `attach_later`: cosignatures are
    /// attached when they come. Must be said where there is a policy.
    pub mode: Option<Mode>,
    /// How long one question may take, and how long a caller waits for the quorum, in milliseconds. Default: 5,000.
    pub timeout_ms: u64,
    /// Certificate authorities (PEM) of witnesses, besides the system's. Default: none.
    pub ca_file: Option<PathBuf>,
}

/// `[limits]`: bounds that keep strangers from using up the service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Open connections on each listener; more are closed at once. Default: 4,096.
    pub connections: usize,
    /// Requests under way on each listener; more are refused with `UNAVAILABLE`. Default: 2,048.
    pub requests: usize,
    /// How many signatures one identity may have (`Sign` and `Attest`); each statement of a batch counts. What goes over is
    /// refused with `RESOURCE_EXHAUSTED`. Default: 1,000 a second, and 10,000 at once; a `per_second` of 0 is no limit.
    pub signatures: Allowance,
    /// Time for a TLS handshake, and for the headers of a request, in seconds. Default: 10.
    pub header_timeout_s: u64,
    /// Time that requests under way get when the service stops, in seconds. Default: 25.
    pub drain_timeout_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from(DEFAULT_DATA),
            listen: Listen::default(),
            tls: Tls::default(),
            kek: Kek::default(),
            pkcs11: Pkcs11::default(),
            identity: crate::identity::Settings::default(),
            registry: crate::registry::Settings::default(),
            policy: Policy::default(),
            trust: Trust::default(),
            witness: Witness::default(),
            evidence: crate::evidence::Settings::default(),
            admission: crate::admission::Settings::default(),
            rollback: Rollback::default(),
            log: Log::default(),
            sigstore: Sigstore::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { public: local(8443), webhook: local(9443), operations: local(9090) }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            names: ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
            plaintext_unsafe: false,
        }
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self { policy_file: None, mode: None, timeout_ms: 5_000, ca_file: None }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let signatures = Allowance { per_second: 1_000, burst: 10_000 };
        Self { connections: 4_096, requests: 2_048, signatures, header_timeout_s: 10, drain_timeout_s: 25 }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}; name another with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is over the limit.
    #[error("the configuration {path} has {bytes} bytes; the limit is {limit}", limit = crate::model::limits::DOCUMENT)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not TOML, or a field is unknown or of another type.
    #[error("the configuration {path} is not valid: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A variable of the environment does not fit.
    #[error("the environment variable {name} is not valid: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What does not fit.
        message: String,
    },
    /// The token that is configured cannot be used.
    #[error(transparent)]
    Token(#[from] KeyError),
    /// Each field is valid, but not together.
    #[error("{0}")]
    Conflict(String),
}

impl Config {
    /// Reads the file (`file`, else the one in the data directory) and the environment, and checks the whole.
    /// `data` is the flag `--data`, above everything else.
    pub fn load(
        file: Option<&Path>,
        data: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config = layers::load(file, data, environment)?;
        if let Some(data) = data {
            config.data = data.to_owned();
        }
        config.check()?;
        Ok(config)
    }

    /// The same from the process's own environment. Variables that are not text are passed over.
    pub fn load_from_process(file: Option<&Path>, data: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Self::load(file, data, environment)
    }

    /// Where the key-encryption key comes from.
    pub fn kek_source(&self) -> Result<KekSource, ConfigError> {
        let Kek { file, env, credential } = self.kek.clone();
        let by_name = || env.map(KekSource::Env).or_else(|| credential.map(KekSource::Credential));
        file.map(KekSource::File).or_else(by_name).ok_or_else(|| {
            ConfigError::Conflict(
                "no key-encryption key is configured; set one of file, env and credential under [kek], or \
                 COUNTERSIGN_KEK__FILE"
                    .to_owned(),
            )
        })
    }

    /// Where keys are, besides sealed files: opens the token that is configured.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], or what keeps the token from being used.
    pub fn custody(&self) -> Result<Custody, ConfigError> {
        let Some(settings) = self.pkcs11.token()? else { return Ok(Custody::default()) };
        Ok(Custody::with_token(Token::open(settings)?, self.pkcs11.keys.iter().copied())?)
    }

    /// Where the log stands.
    pub fn log_dir(&self) -> PathBuf {
        self.data.join("log")
    }

    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |sentence: String| Err(ConfigError::Conflict(sentence));
        if self.tls.plaintext_unsafe {
            for (name, address) in [("public", self.listen.public), ("webhook", self.listen.webhook)] {
                if !address.ip().is_loopback() {
                    return conflict(format!(
                        "tls.plaintext_unsafe is only for loopback addresses, and listen.{name} is {address}; listen on \
                         127.0.0.1, or remove plaintext_unsafe and give tls.cert_file and tls.key_file"
                    ));
                }
            }
            if self.tls.cert_file.is_some() {
                return conflict("tls.plaintext_unsafe and tls.cert_file exclude each other; remove one".to_owned());
            }
        }
        match (&self.tls.cert_file, &self.tls.key_file) {
            (Some(_), None) => return conflict("tls.cert_file needs tls.key_file beside it".to_owned()),
            (None, Some(_)) => return conflict("tls.key_file needs tls.cert_file beside it".to_owned()),
            _ => {}
        }
        if self.tls.names.is_empty() {
            return conflict("tls.names is empty; name at least one host that clients will use".to_owned());
        }
        let sources = [self.kek.file.is_some(), self.kek.env.is_some(), self.kek.credential.is_some()];
        if sources.into_iter().filter(|given| *given).count() > 1 {
            return conflict("[kek] names more than one source; keep one of file, env and credential".to_owned());
        }
        self.pkcs11.token()?;
        match (&self.witness.policy_file, self.witness.mode) {
            (Some(_), None) => {
                return conflict(
                    "witness.policy_file needs witness.mode beside it: \"require\" or \"attach_later\"".to_owned(),
                );
            }
            (None, Some(_)) => return conflict("witness.mode needs witness.policy_file beside it".to_owned()),
            _ if !(10..=600_000).contains(&self.witness.timeout_ms) => {
                return conflict("witness.timeout_ms is from 10 to 600,000".to_owned());
            }
            _ => {}
        }
        if [self.limits.connections, self.limits.requests].contains(&0) || self.limits.header_timeout_s == 0 {
            return conflict("[limits] of 0 would refuse everyone; use 1 or more".to_owned());
        }
        Ok(())
    }
}
