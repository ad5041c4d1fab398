//! The public side: what clients must believe to believe us, as Sigstore's `TrustedRoot` v0.1, `SigningConfig` v0.2
//! and `ClientTrustConfig` v0.1.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::Decode as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;

use super::{
    KeyError,
    vault::{Vault, log_role, to_pem},
};
use crate::model::certificate::is_signed_by;

/// DER before the 32 bytes of an Ed25519 public key (RFC 8410 §4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Longest organization name in a certificate (RFC 5280, `ub-organization-name`): the host stands there.
const LONGEST_HOST: usize = 64;

/// How long the key of a log is valid after its successor's is: what was under way still gets into the old log.
pub(super) const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

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
    ca_root: Vec<u8>,
    ca: Vec<u8>,
    pub(super) sct_key: Vec<u8>,
    /// Oldest first; never empty.
    logs: Vec<PublicLog>,
    tsa_root: Vec<u8>,
    pub(super) tsa: Vec<u8>,
    tls_ca_pem: String,
    expiries: Vec<(String, Timestamp)>,
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
        let mut expiries = Vec::new();
        let mut certificate = |role: &str| -> Result<Vec<u8>, KeyError> {
            let der = vault.public(role)?;
            let until = Certificate::from_der(&der)?.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
            let until = i64::try_from(until).ok().and_then(|second| Timestamp::from_second(second).ok());
            expiries.push((role.to_owned(), until.ok_or_else(|| vault.damaged(role, "has no valid end"))?));
            Ok(der)
        };
        Ok(Self {
            host: vault.host().to_owned(),
            valid_from: vault.valid_from(),
            ca_root: certificate("ca-root")?,
            ca: certificate("ca")?,
            tsa_root: certificate("tsa-root")?,
            tsa: certificate("tsa")?,
            tls_ca_pem: to_pem("CERTIFICATE", &certificate("tls-ca")?)?,
            sct_key: vault.public("sct")?,
            logs: logs(vault)?,
            expiries,
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

    /// The certificate chain of the authority, PEM: intermediate, then root.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it cannot be encoded.
    pub fn ca_chain_pem(&self) -> Result<String, KeyError> {
        Ok(self.ca_chain()?.concat())
    }

    /// The same, one text for each certificate.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if one cannot be encoded.
    pub fn ca_chain(&self) -> Result<Vec<String>, KeyError> {
        [&self.ca, &self.ca_root].into_iter().map(|der| to_pem("CERTIFICATE", der)).collect()
    }

    /// Whether our authority signed this certificate (DER), now or once. Whether it is still valid is not asked.
    pub fn has_issued(&self, certificate: &[u8]) -> bool {
        is_signed_by(certificate, &self.ca)
    }

    /// The certificate chain of the time-stamp authority, PEM: leaf, then root.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] if it cannot be encoded.
    pub fn tsa_chain_pem(&self) -> Result<String, KeyError> {
        Ok(to_pem("CERTIFICATE", &self.tsa)? + &to_pem("CERTIFICATE", &self.tsa_root)?)
    }

    /// The local TLS authority, PEM.
    pub fn tls_ca_pem(&self) -> String {
        self.tls_ca_pem.clone()
    }

    /// What will expire, and when: `ca-root`, `ca`, `tsa-root`, `tsa`, `tls-ca`.
    pub fn expiries(&self) -> Vec<(String, Timestamp)> {
        self.expiries.clone()
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
        let valid_for = json!({ "start": self.valid_from.to_string() });
        let authority = |common_name: &str, chain: [&[u8]; 2]| {
            json!([{
                "subject": { "organization": self.host, "commonName": common_name },
                "uri": base_url,
                "certChain": { "certificates": chain.map(|der| json!({ "rawBytes": STANDARD.encode(der) })) },
                "validFor": valid_for,
            }])
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
            let mut valid_for = json!({ "start": of.valid_from.to_string() });
            if let (Some(until), Some(fields)) = (of.valid_until, valid_for.as_object_mut()) {
                fields.insert("end".to_owned(), json!(until.to_string()));
            }
            log(&format!("https://{}", of.origin), &ed25519_spki(&of.key), "PKIX_ED25519", of.id(), &valid_for)
        };
        let sct_id = Sha256::digest(&self.sct_key).into();
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": self.logs.iter().map(tlog).collect::<Vec<_>>(),
            "certificateAuthorities": authority("countersign CA", [&self.ca, &self.ca_root]),
            "ctlogs": [log(&base_url, &self.sct_key, "PKIX_ECDSA_P256_SHA_256", sct_id, &valid_for)],
            "timestampAuthorities": authority("countersign TSA", [&self.tsa, &self.tsa_root]),
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

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}
