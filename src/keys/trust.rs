//! The public side: what clients must believe to believe us, as Sigstore's `TrustedRoot` v0.1, `SigningConfig` v0.2
//! and `ClientTrustConfig` v0.1.

use std::{path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    KeyError, TufKeys,
    generations::{self, Dated, Generation, Rotating},
    vault::{Vault, generation_role, log_role, to_pem},
};
use crate::model::certificate::is_signed_by;

/// DER before the 32 bytes of an Ed25519 public key (RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest organization name in a certificate (RFC 5280, `ub-organization-name`): the host stands there.
const LONGEST_HOST: usize = 64;

/// How long a key is trusted after the one that took its place signs: what was under way still gets into the old log, and a
/// certificate that was issued a moment before is used for as long as it lives.
pub(super) const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// The common name of the authority that issues certificates.
pub(super) const CA: &str = "countersign CA";
/// The common name of the time-stamp authority.
pub(super) const TSA: &str = "countersign TSA";

/// The public side of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicLog {
    /// Its origin: a host name.
    pub origin: String,
    /// Its Ed25519 key.
    pub key: [u8; 32],
    /// From when on it signs checkpoints.
    pub valid_from: Timestamp,
    /// Until when; open for the present log.
    pub valid_until: Option<Timestamp>,
}

impl PublicLog {
    /// The log's id by the rule of C2SP signed notes: SHA-256 of name, newline, 0x01 and key.
    pub fn id(&self) -> [u8; 32] {
        let named = [self.origin.as_bytes(), &[b'\n', 0x01], &self.key].concat();
        Sha256::digest(named).into()
    }
}

/// Certificates and public keys of one instance.
#[derive(Debug, Clone)]
pub struct Public {
    pub(super) host: String,
    valid_from: Timestamp,
    pub(super) ca: Dated<Generation>,
    pub(super) sct: Dated<Generation>,
    pub(super) tsa: Dated<Generation>,
    /// Oldest first; never empty.
    logs: Vec<PublicLog>,
    tls_ca_pem: String,
    pub(super) tls_ca_ends: Timestamp,
    pub(super) tuf: Option<TufKeys>,
    /// What stands above an issued certificate, PEM, by generation of the authority.
    pub(super) ca_chains: Vec<(u32, Arc<[String]>)>,
}

impl Public {
    /// Reads the public side of `dir/keys`, for which no key-encryption key is needed.
    ///
    /// # Errors
    /// As [`super::Keyring::open`], except that nothing sealed is looked at.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        Self::from_vault(&Vault::open_public(dir)?)
    }

    pub(super) fn from_vault(vault: &Vault<'_>) -> Result<Self, KeyError> {
        let tls_ca = vault.public("tls-ca")?;
        let ca = generations::read(vault, Rotating::Ca)?;
        Ok(Self {
            host: vault.host().to_owned(),
            valid_from: vault.valid_from(),
            ca_chains: ca.iter().map(|ca| Ok((ca.number, pem_of(ca)?.into()))).collect::<Result<_, KeyError>>()?,
            ca,
            sct: generations::read(vault, Rotating::Sct)?,
            tsa: generations::read(vault, Rotating::Tsa)?,
            logs: logs(vault)?,
            tls_ca_pem: to_pem("CERTIFICATE", &tls_ca)?,
            tls_ca_ends: generations::end_of(vault, "tls-ca", &tls_ca)?,
            tuf: TufKeys::from_vault(vault)?,
        })
    }

    /// The host name for which the keys were made: the origin of the first log.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// All logs, oldest first; the last is the present one.
    pub fn logs(&self) -> &[PublicLog] {
        &self.logs
    }

    /// The Ed25519 public key of the present log.
    pub fn log_key(&self) -> [u8; 32] {
        self.logs.last().map_or([0; 32], |log| log.key)
    }

    /// The id of the present log.
    pub fn log_id(&self) -> [u8; 32] {
        self.logs.last().map_or([0; 32], PublicLog::id)
    }

    /// The origin of the present log.
    pub fn origin(&self) -> &str {
        self.logs.last().map_or(&self.host, |log| &log.origin)
    }

    /// The certificates above what is issued at `now`, PEM, one text for each: the authority, then its root.
    pub fn ca_chain(&self, now: Timestamp) -> Arc<[String]> {
        let number = self.ca.at(now).number;
        let chain = self.ca_chains.iter().find(|(of, _)| *of == number);
        chain.map_or_else(|| Arc::from([]), |(_, chain)| Arc::clone(chain))
    }

    /// The chains of all authorities that certificates may verify with, oldest first.
    pub fn ca_chains(&self) -> impl Iterator<Item = &[String]> {
        self.ca_chains.iter().map(|(_, chain)| &**chain)
    }

    /// The certificate chain of the time-stamp authority that stamps at `now`, PEM: leaf, then root.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it cannot be encoded.
    pub fn tsa_chain_pem(&self, now: Timestamp) -> Result<String, KeyError> {
        Ok(pem_of(self.tsa.at(now))?.concat())
    }

    /// All generations of a kind, oldest first; of what signs TUF metadata none, as nothing it signed is kept.
    pub fn generations(&self, kind: Rotating) -> Vec<Generation> {
        match kind {
            Rotating::Ca => self.ca.iter().cloned().collect(),
            Rotating::Sct => self.sct.iter().cloned().collect(),
            Rotating::Tsa => self.tsa.iter().cloned().collect(),
            Rotating::Tuf => Vec::new(),
        }
    }

    /// Whether our authority signed this certificate (DER), now or once. Whether it is still valid is not asked.
    pub fn has_issued(&self, certificate: &[u8]) -> bool {
        self.ca.iter().any(|one| is_signed_by(certificate, one.own()))
    }

    /// The keys of the TUF repository; a data directory of an older version has none yet.
    pub fn tuf(&self) -> Option<&TufKeys> {
        self.tuf.as_ref()
    }

    /// The local TLS authority, PEM.
    pub fn tls_ca_pem(&self) -> String {
        self.tls_ca_pem.clone()
    }

    /// What will expire, and when, of what is in use at `now`: `ca-root`, `ca`, `tsa-root`, `tsa`, `tls-ca`; and of what is
    /// announced: `ca-2`, `ca-root-2`. The latter is not warned of: it signs within 90 days, and lives a year or more then.
    pub fn expiries(&self, now: Timestamp) -> Vec<(String, Timestamp)> {
        let mut expiries = Vec::new();
        for (name, all) in [("ca", &self.ca), ("tsa", &self.tsa)] {
            let (used, newest) = (all.at(now), all.last());
            expiries.extend(used.root.map(|(_, end)| (format!("{name}-root"), end)));
            expiries.extend(used.ends.map(|end| (name.to_owned(), end)));
            if newest.number != used.number {
                let root = newest.root.filter(|root| used.root != Some(*root));
                expiries.extend(root.map(|(number, end)| (generation_role(&format!("{name}-root"), number), end)));
                expiries.extend(newest.ends.map(|end| (generation_role(name, newest.number), end)));
            }
        }
        expiries.push(("tls-ca".to_owned(), self.tls_ca_ends));
        expiries
    }

    /// `trusted_root.json`, v0.1.
    pub fn trusted_root(&self) -> String {
        pretty(&self.trusted_root_value())
    }

    /// `SigningConfig` v0.2 for clients that find this instance at `base_url`.
    pub fn signing_config(&self, base_url: &str) -> String {
        pretty(&self.signing_config_value(base_url))
    }

    /// `ClientTrustConfig` v0.1: the trusted root and the signing configuration in one document.
    pub fn client_trust_config(&self, base_url: &str) -> String {
        pretty(&json!({
            "mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
            "trustedRoot": self.trusted_root_value(),
            "signingConfig": self.signing_config_value(base_url),
        }))
    }

    fn trusted_root_value(&self) -> Value {
        // The log's origin is the host of this URL: no port, no path.
        let base_url = format!("https://{}", self.host);
        let authorities = |name: &str, all: &Dated<Generation>| {
            let authority = |one: &Generation| {
                let common_name = numbered(name, one.number);
                let certificates: Vec<_> =
                    one.chain.iter().map(|der| json!({ "rawBytes": STANDARD.encode(der) })).collect();
                json!({
                    "subject": { "organization": self.host, "commonName": common_name },
                    "uri": base_url,
                    "certChain": { "certificates": certificates },
                    "validFor": window(one.valid_from, one.valid_until),
                })
            };
            all.iter().map(authority).collect::<Vec<_>>()
        };
        let log = |base_url: &str, spki: &[u8], details: &str, id: [u8; 32], valid_for: &Value| {
            json!({
                "baseUrl": base_url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": { "rawBytes": STANDARD.encode(spki), "keyDetails": details, "validFor": valid_for },
                "logId": { "keyId": STANDARD.encode(id) },
            })
        };
        let tlog = |of: &PublicLog| {
            let valid_for = window(of.valid_from, of.valid_until);
            log(&format!("https://{}", of.origin), &ed25519_spki(&of.key), "PKIX_ED25519", of.id(), &valid_for)
        };
        let ctlog = |one: &Generation| {
            let id = Sha256::digest(one.own()).into();
            log(&base_url, one.own(), "PKIX_ECDSA_P256_SHA_256", id, &window(one.valid_from, one.valid_until))
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": self.logs.iter().map(tlog).collect::<Vec<_>>(),
            "certificateAuthorities": authorities(CA, &self.ca),
            "ctlogs": self.sct.iter().map(ctlog).collect::<Vec<_>>(),
            "timestampAuthorities": authorities(TSA, &self.tsa),
        })
    }

    fn signing_config_value(&self, base_url: &str) -> Value {
        let base_url = base_url.trim_end_matches('/');
        let service = |url: String, version: u32| {
            json!([{
                "url": url,
                "majorApiVersion": version,
                "validFor": { "start": self.valid_from.to_string() },
                "operator": self.host,
            }])
        };
        json!({
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": service(base_url.to_owned(), 1),
            "oidcUrls": [],
            "rekorTlogUrls": service(base_url.to_owned(), 2),
            "rekorTlogConfig": { "selector": "ANY" },
            "tsaUrls": service(format!("{base_url}/api/v1/timestamp"), 1),
            "tsaConfig": { "selector": "ANY" },
        })
    }
}

/// The logs that the vault has keys of, oldest first.
fn logs(vault: &Vault<'_>) -> Result<Vec<PublicLog>, KeyError> {
    let first = (vault.host(), vault.valid_from());
    let successors = vault.successors().iter().map(|log| (log.origin.as_str(), log.valid_from));
    let named: Vec<_> = std::iter::once(first).chain(successors).collect();
    let ends = named.iter().skip(1).map(|(_, from)| from.checked_add(OVERLAP).ok()).chain([None]);
    let mut logs = Vec::new();
    for (number, ((origin, valid_from), valid_until)) in named.iter().zip(ends).enumerate() {
        let role = log_role(number);
        let spki = vault.public(&role)?;
        let key = ed25519_of(&spki).ok_or_else(|| vault.damaged(&role, "is not an Ed25519 key"))?;
        logs.push(PublicLog { origin: (*origin).to_owned(), key, valid_from: *valid_from, valid_until });
    }
    Ok(logs)
}

/// Whether `host` can be a log's origin and stand in certificates: a lower-case DNS name or IPv4 address.
///
/// # Errors
/// [`KeyError::Host`] says what is wrong.
pub fn check_host(host: &str) -> Result<(), KeyError> {
    let refuse = |problem| Err(KeyError::Host { host: host.chars().take(128).collect(), problem });
    if host.is_empty() {
        return refuse("it is empty; give a DNS name such as sign.example.org");
    }
    if host.contains("://") {
        return refuse("it has a scheme; give the name alone");
    }
    if host.contains('/') {
        return refuse("it has a path; give the name alone");
    }
    if host.contains(':') {
        return refuse("it has a port; give the name alone, clients would not find the log by a name with port");
    }
    if host.len() > LONGEST_HOST {
        return refuse("it has more than 64 characters, which is the most that a certificate's organization can have");
    }
    if host.chars().any(|c| c.is_ascii_uppercase()) {
        return refuse("write it in lower case: clients compare it as text");
    }
    // Spaces are refused here, and with them names such as `host - 123`, which clients take for a Rekor v1 origin.
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if !host.split('.').all(label) {
        return refuse("it is not a DNS name such as sign.example.org");
    }
    Ok(())
}

/// `SubjectPublicKeyInfo` of an Ed25519 key, DER.
pub(super) fn ed25519_spki(key: &[u8; 32]) -> Vec<u8> {
    [ED25519_PREFIX.as_slice(), key].concat()
}

/// The key in the `SubjectPublicKeyInfo` of an Ed25519 key, DER.
pub(super) fn ed25519_of(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&ED25519_PREFIX)?.try_into().ok()
}

/// The certificates of one generation, PEM.
fn pem_of(one: &Generation) -> Result<Vec<String>, KeyError> {
    one.chain.iter().map(|der| to_pem("CERTIFICATE", der)).collect()
}

/// The common name of the n-th authority of a kind, from 1: two of them never have the same name.
pub(super) fn numbered(name: &str, number: u32) -> String {
    if number <= 1 { name.to_owned() } else { format!("{name} {number}") }
}

/// `TimeRange` of the Sigstore protobufs.
fn window(from: Timestamp, until: Option<Timestamp>) -> Value {
    let mut valid_for = json!({ "start": from.to_string() });
    if let (Some(until), Some(fields)) = (until, valid_for.as_object_mut()) {
        fields.insert("end".to_owned(), json!(until.to_string()));
    }
    valid_for
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}
