//! Statement -> certificate -> envelope -> timestamp -> log entry -> bundle.
//!
//! One call does what keyless signing does in four round trips. The key is made for the call, certified for the
//! caller's identity, used, and dropped before the log is asked; a batch shares one key and one certificate, as it is
//! one act of one caller. Cost of one: P-256 key generation, P-384 (certificate), and three P-256 signatures (SCT,
//! artifact, timestamp), then one log commit that is shared with whoever else is signing.
//!
//! Not here: who may sign (the face asks), what a statement must contain (the model), keys held by clients.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    keys::{EphemeralKey, KeyError, Keyring},
    log::{Draft, LogError, Logs},
    model::{Caller, Digest, Extensions, Identity, ImageName, LogRef, Statement, bundle, leaf},
    registry::{Registry, RegistryError},
};

/// What is signed.
#[derive(Debug, Clone)]
pub enum Content {
    /// A statement, in a DSSE envelope.
    Statement(Statement),
    /// A file with this digest, by a detached signature.
    File(Digest),
}

/// A signed and logged statement or file.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Sigstore bundle v0.3, JSON.
    pub bundle: Vec<u8>,
    /// Where it is logged.
    pub entry: LogRef,
}

/// Why nothing was answered. One call is one commit: all of it is in the log or nothing is. After [`LogError::Broken`] or
/// [`LogError::Unwitnessed`] it may be there.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// A key could not do its work.
    #[error("cannot sign")]
    Key(#[from] KeyError),
    /// The log did not take the entries.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The worker was lost.
    #[error("signing was interrupted")]
    Interrupted,
}

/// The signing service.
#[derive(Debug, Clone)]
pub struct Signing {
    keyring: Arc<Keyring>,
    logs: Logs,
    registry: Registry,
    own: Identity,
}

struct Prepared {
    unlogged: sigstore_types::Bundle,
    draft: Draft,
}

impl Signing {
    /// A service that signs with `keyring` and records in the present log.
    pub fn new(keyring: Arc<Keyring>, logs: impl Into<Logs>, registry: Registry) -> Self {
        let url = format!("https://{}", keyring.host());
        Self { keyring, logs: logs.into(), registry, own: Identity { subject: url.clone(), issuer: url } }
    }

    /// The identity under which the service signs what it says itself (readiness, VSAs, admitted deployments).
    pub fn own_identity(&self) -> &Identity {
        &self.own
    }

    /// Signs statements under one certificate for `identity`; one log commit for all. Order is kept.
    pub async fn attest(
        &self,
        statements: Vec<Statement>,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        self.sign(statements.into_iter().map(Content::Statement).collect(), identity, now).await
    }

    /// Signs statements and files under one certificate for `identity`; one log commit for all. Order is kept.
    pub async fn sign(
        &self,
        contents: Vec<Content>,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        self.sign_saying(contents, identity.clone(), Extensions::default(), now).await
    }

    /// The same for a caller: the certificate also says what the caller's token does.
    pub async fn sign_for(
        &self,
        contents: Vec<Content>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        self.sign_saying(contents, caller.identity.clone(), caller.extensions.clone(), now).await
    }

    async fn sign_saying(
        &self,
        contents: Vec<Content>,
        identity: Identity,
        said: Extensions,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        let keyring = Arc::clone(&self.keyring);
        let prepared = tokio::task::spawn_blocking(move || prepare_all(&keyring, contents, &identity, &said, now))
            .await
            .map_err(|_lost| SigningError::Interrupted)??;
        let drafts = || prepared.iter().map(|prepared| prepared.draft.clone()).collect();
        let (log, receipts) = self.logs.append(drafts).await?;
        prepared
            .into_iter()
            .zip(receipts)
            .map(|(prepared, receipt)| {
                Ok(Signed {
                    bundle: log.complete(prepared.unlogged, prepared.draft.leaf, &receipt)?,
                    entry: LogRef { origin: log.origin().to_owned(), index: receipt.index },
                })
            })
            .collect()
    }

    /// Attaches a bundle to its image; the digest of the referrer manifest.
    pub async fn attach(
        &self,
        image: &ImageName,
        subject: &Digest,
        bundle: &[u8],
        predicate_type: &str,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Digest, RegistryError> {
        self.registry.attach(image, subject, bundle, predicate_type, now, deadline).await
    }
}

fn prepare_all(
    keyring: &Keyring,
    contents: Vec<Content>,
    identity: &Identity,
    said: &Extensions,
    now: Timestamp,
) -> Result<Vec<Prepared>, SigningError> {
    let key = EphemeralKey::generate()?;
    let certificate = keyring.issue_saying(identity, said, &key.spki(), now)?.certificate;
    contents.into_iter().map(|content| prepare(keyring, &key, &certificate, content, now)).collect()
}

fn prepare(
    keyring: &Keyring,
    key: &EphemeralKey,
    certificate: &[u8],
    content: Content,
    now: Timestamp,
) -> Result<Prepared, SigningError> {
    let (signed_digest, signature, statement) = match content {
        Content::Statement(statement) => {
            let statement = statement.to_json();
            let digest = Digest::of(&bundle::pae(&statement));
            (digest, key.sign_digest(digest.as_bytes())?, Some(statement))
        }
        Content::File(digest) => (digest, key.sign_digest(digest.as_bytes())?, None),
    };
    let timestamp = keyring.timestamp(&signature, now)?;
    let leaf = leaf::hashedrekord(&signed_digest, &signature, certificate);
    let unlogged = match statement {
        Some(statement) => bundle::of_statement(statement, signature, certificate.to_vec(), timestamp),
        None => bundle::of_file(&signed_digest, signature, certificate.to_vec(), timestamp),
    };
    let payload = bundle::to_json(&unlogged).map_err(|source| LogError::Bundle(0, source.to_string()))?;
    Ok(Prepared { unlogged, draft: Draft { leaf, payload } })
}
