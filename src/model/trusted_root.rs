//! Whom we believe: one Sigstore `TrustedRoot` (v0.1), parsed once.

use std::fmt;

use jiff::Timestamp;
use sigstore_crypto::VerificationKey;
use sigstore_trust_root::{CertificateAuthority, TimeRange, TransparencyLog, trusted_root::CertChain};
use sigstore_verify::Verifier;

use super::{certificate::describe, digest::Digest, limits};

/// A trusted root with the verifier made from it.
pub struct TrustedRoot {
    digest: Digest,
    logs: Vec<Log>,
    /// DER.
    authorities: Vec<Vec<u8>>,
    ends: Vec<(&'static str, Timestamp)>,
    verifier: Verifier,
}

/// A log that we believe.
pub(super) struct Log {
    id: Vec<u8>,
    pub(super) origin: String,
    pub(super) key: VerificationKey,
    /// Since when its key counts.
    pub(super) began: Option<Timestamp>,
}

impl Log {
    fn of(log: &TransparencyLog) -> Result<Self, TrustedRootError> {
        let key = VerificationKey::from_spki(&log.public_key.raw_bytes);
        Ok(Self {
            id: log.log_id.key_id.as_bytes().to_vec(),
            origin: host_of(&log.base_url).to_owned(),
            key: key.map_err(|source| TrustedRootError::Unusable(limits::quoted(&source)))?,
            began: log.public_key.valid_for.map(|window| window.start),
        })
    }
}

/// The document is not a usable trusted root.
#[derive(Debug, thiserror::Error)]
pub enum TrustedRootError {
    /// Over [`limits::DOCUMENT`].
    #[error("trusted root has {0} bytes; the limit is {limit}", limit = limits::DOCUMENT)]
    TooLarge(usize),
    /// Not the JSON of a trusted root.
    #[error("trusted root is not valid: {0}")]
    Malformed(String),
    /// It parses, but its keys or certificates cannot be used.
    #[error("trusted root cannot be used: {0}")]
    Unusable(String),
}

impl TrustedRoot {
    /// Parses `trusted_root.json` and prepares its keys and certificates.
    pub fn parse(json: &str) -> Result<Self, TrustedRootError> {
        if json.len() > limits::DOCUMENT {
            return Err(TrustedRootError::TooLarge(json.len()));
        }
        let root = sigstore_trust_root::TrustedRoot::from_json(json)
            .map_err(|source| TrustedRootError::Malformed(limits::quoted(&source)))?;
        let logs = root.tlogs.iter().map(Log::of).collect::<Result<_, _>>()?;
        let issuing = |chain: &CertificateAuthority| {
            chain.cert_chain.certificates.first().map(|first| first.raw_bytes.as_bytes().to_vec())
        };
        let authorities = root.certificate_authorities.iter().filter_map(issuing).collect();
        let issue = root.certificate_authorities.iter().map(|one| (&one.cert_chain, one.valid_for.as_ref()));
        let stamp = root.timestamp_authorities.iter().map(|one| (&one.cert_chain, one.valid_for.as_ref()));
        let ends = [("certificate authorities", end_of(issue)), ("time-stamp authorities", end_of(stamp))];
        let ends = ends.into_iter().filter_map(|(kind, end)| Some((kind, end?))).collect();
        let verifier = Verifier::new(&root).map_err(|source| TrustedRootError::Unusable(limits::quoted(&source)))?;
        Ok(Self { digest: Digest::of(json.as_bytes()), logs, authorities, ends, verifier })
    }

    /// The digest of the document; part of every cached fact and recorded verdict.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The origin (host name) of the log with this 32-byte id, if the root lists it.
    pub fn origin_of(&self, log_id: &[u8]) -> Option<&str> {
        self.log(log_id).map(|log| log.origin.as_str())
    }

    /// The log with this 32-byte id, if the root lists it.
    pub(super) fn log(&self, log_id: &[u8]) -> Option<&Log> {
        self.logs.iter().find(|log| log.id == log_id)
    }

    /// The certificates of the authorities that issue signing certificates, DER, whenever they did so.
    pub fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// By kind of authority, until when nothing is missing that they vouch for: then the first certificate ends of those that
    /// nobody took out of service or, where all were, the last is out of it. What they vouched for until then counts on.
    pub fn ends(&self) -> &[(&'static str, Timestamp)] {
        &self.ends
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

impl fmt::Debug for TrustedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedRoot").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// When the authorities of one kind end, by their chains and windows; `None` where there are none.
fn end_of<'a>(authorities: impl Iterator<Item = (&'a CertChain, Option<&'a TimeRange>)>) -> Option<Timestamp> {
    let (mut first_in_service, mut last_out_of_it) = (None, None);
    for (chain, window) in authorities {
        let certificates = chain.certificates.iter().filter_map(|one| describe(one.raw_bytes.as_bytes()));
        let ends = certificates.map(|one| one.not_after).chain(window.and_then(|window| window.end)).min();
        if window.is_some_and(|window| window.end.is_some()) {
            last_out_of_it = last_out_of_it.max(ends);
        } else {
            first_in_service = [first_in_service, ends].into_iter().flatten().min();
        }
    }
    first_in_service.or(last_out_of_it)
}

/// The host of a base URL: no scheme, port or path.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or(rest)
}
