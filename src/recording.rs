//! Entries that clients signed themselves: verified, then recorded.
//!
//! Who signs with a key of their own (`cosign`, `sigstore-python`, `sigstore-js`, `sigstore-go`) sends what was signed,
//! the signature, and the certificate or key by which it verifies. What does not verify is not recorded; whom the key
//! belongs to is not asked, as in every log of the field: a log says what was claimed, and verifiers judge the claim. Who
//! does not want strangers' claims in the log asks for a certificate of the own authority ([`Whose`]).
//! The entry has no payload: the log keeps what it proves and nothing that a stranger would like to have stored.
//!
//! Cost: one signature check, then a log commit that is shared with whoever else writes.
//!
//! Not here: the wire forms (the faces), limits on how often somebody may ask (the faces), signing for a caller
//! (`signing`).

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    keys::Keyring,
    log::{Draft, Log, LogError, Logs, Receipt},
    model::{
        PublicKey, PublicKeyError, Scheme,
        leaf::{self, Verifier},
        limits,
    },
};

/// The longest certificate that is recorded, in bytes of DER.
const CERTIFICATE: usize = 16 * 1024;
/// The longest signature, in bytes: RSA with 4,096 bits has 512.
const SIGNATURE: usize = 1_024;

/// By what a signature verifies, as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// A `SubjectPublicKeyInfo`, DER.
    Public(Vec<u8>),
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// Something with this digest, by the hash of the scheme.
    Digest(Vec<u8>),
    /// The pre-authentication encoding of an envelope with this type and payload (DSSE protocol).
    Envelope {
        /// Its `payloadType`.
        kind: String,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// A signature that a client asks to have recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What was signed.
    pub signed: Signed,
    /// The signature: ECDSA in ASN.1 DER, RSA PKCS#1 v1.5, or Ed25519ph.
    pub signature: Vec<u8>,
    /// By what it verifies.
    pub key: Key,
    /// The scheme that the client says it signed by.
    pub scheme: Scheme,
}

/// An entry that is durable and proven.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The log that it is in.
    pub log: Log,
    /// Its leaf.
    pub leaf: Vec<u8>,
    /// Its index and proof.
    pub receipt: Receipt,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The key is not accepted, or the signature does not verify with it.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// The client names a scheme that clients would not derive from this key.
    #[error("a key of this kind signs by {}, and the request names {}", wanted.details(), named.details())]
    Scheme {
        /// What the request names.
        named: Scheme,
        /// What goes with the key.
        wanted: Scheme,
    },
    /// Longer than what is recorded.
    #[error("{what} has {found} bytes; at most {most} are recorded")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// Only certificates of this authority are recorded here, and this is none.
    #[error(
        "only signatures by certificates of this service's own authority are recorded here; ask it for one \
         (POST /api/v2/signingCert), or an admin can set entries_of = \"anyone\" in [sigstore]"
    )]
    NotCertified,
    /// The log did not take it.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Whose signatures are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// Of whoever sends one that verifies.
    #[default]
    Anyone,
    /// Of whoever has, or had, a certificate of our own authority: so of callers whom it knew.
    Certified,
}

/// The recording service.
#[derive(Debug, Clone)]
pub struct Recording {
    logs: Logs,
    /// Whose certificates are wanted, if that matters.
    authority: Option<Arc<Keyring>>,
}

impl Recording {
    /// Records in the present log of `logs`; `keyring` has the authority whose certificates count.
    pub fn new(logs: Logs, whose: Whose, keyring: &Arc<Keyring>) -> Self {
        Self { logs, authority: (whose == Whose::Certified).then(|| Arc::clone(keyring)) }
    }

    /// Where it records.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Verifies and records a signature; one that is recorded already keeps its index.
    ///
    /// # Errors
    /// See [`RecordingError`].
    pub async fn record(&self, submission: &Submission) -> Result<Recorded, RecordingError> {
        if let Some(authority) = &self.authority {
            let is_ours = matches!(&submission.key, Key::Certificate(der) if authority.public().has_issued(der));
            if !is_ours {
                return Err(RecordingError::NotCertified);
            }
        }
        let leaf = verified(submission)?;
        let (log, mut receipts) = self.logs.append(|| vec![Draft { leaf: leaf.clone(), payload: Vec::new() }]).await?;
        let receipt = receipts.pop().ok_or_else(|| LogError::Invalid("no entry".to_owned()))?;
        Ok(Recorded { log, leaf, receipt })
    }
}

/// The leaf of a signature that verifies.
fn verified(submission: &Submission) -> Result<Vec<u8>, RecordingError> {
    let Submission { signed, signature, key, scheme } = submission;
    bounded("the signature", signature, SIGNATURE)?;
    let (public, verifier) = match key {
        Key::Certificate(der) => {
            bounded("the certificate", der, CERTIFICATE)?;
            (PublicKey::from_certificate(der)?, Verifier::Certificate(der))
        }
        Key::Public(der) => (PublicKey::from_spki(der)?, Verifier::Key(der)),
    };
    if public.scheme() != *scheme {
        return Err(RecordingError::Scheme { named: *scheme, wanted: public.scheme() });
    }
    let digest = match signed {
        Signed::Digest(digest) => digest.clone(),
        Signed::Envelope { kind, payload } => {
            bounded("the payload", payload, limits::STATEMENT)?;
            bounded("the payload's type", kind.as_bytes(), limits::URI)?;
            scheme.digest(&sigstore_types::pae(kind, payload))
        }
    };
    public.verify_digest(&digest, signature)?;
    Ok(leaf::entry(*scheme, &digest, signature, verifier))
}

fn bounded(what: &'static str, bytes: &[u8], most: usize) -> Result<(), RecordingError> {
    if bytes.len() > most {
        return Err(RecordingError::TooLong { what, found: bytes.len(), most });
    }
    Ok(())
}
