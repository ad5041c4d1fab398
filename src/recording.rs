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
//! Not here: what a submission is and when it verifies (`model::submission`), limits on how often somebody may ask (the
//! faces), signing for a caller (`signing`).

use std::sync::Arc;

use serde::Deserialize;

use crate::{
    keys::Keyring,
    log::{Draft, Log, LogError, Logs, Receipt},
    model::submission::{Key, Submission, SubmissionError},
};

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
    /// The signature does not verify, or something of it is not accepted.
    #[error(transparent)]
    Submission(#[from] SubmissionError),
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
            let is_ours = matches!(submission.key(), Key::Certificate(der) if authority.public().has_issued(der));
            if !is_ours {
                return Err(RecordingError::NotCertified);
            }
        }
        let leaf = submission.leaf()?;
        let (log, mut receipts) = self.logs.append(|| vec![Draft { leaf: leaf.clone(), payload: Vec::new() }]).await?;
        let receipt = receipts.pop().ok_or_else(|| LogError::Invalid("no entry".to_owned()))?;
        Ok(Recorded { log, leaf, receipt })
    }
}
