//! Statement -> certificate -> envelope -> timestamp -> log entry -> bundle.
//!
//! One call does what keyless signing does in four round trips. The key is made for the call, certified for the
//! caller's identity, used, and dropped before the log is asked; a batch shares one key and one certificate, as it is
//! one act of one caller. Cost of one: P-256 key generation, P-384 (certificate), and three P-256 signatures (SCT,
//! artifact, timestamp), then one log commit that is shared with whoever else is signing.
//!
//! With a managed key ([`Signing::sign_with`]) there is no certificate: the key's own signature, its public key in the log
//! entry, and the same timestamp and log commit. Such a bundle names the key and not the caller; who asked stands in the
//! audit log alone.
//!
//! Not here: who may sign (the face asks), what a statement must contain (the model), keys held by clients.

mod managed;

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use crate::{
    keys::{EphemeralKey, KeyError, KeyRefusal, Keyring, ManagedKeys, SigningKey},
    log::{Draft, LogError, Logs},
    model::{
        Caller, Digest, Extensions, Identity, ImageName, KeyName, LogRef, Statement,
        bundle::{self, Material},
        leaf,
    },
    registry::{Registry, RegistryError},
};

pub use managed::{KeyChange, KeyChangeError};

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
    /// The managed key signs nothing for this caller, or nothing at all.
    #[error(transparent)]
    Refused(#[from] KeyRefusal),
    /// The caller may not use this managed key.
    #[error("{caller} may not sign with the key {key}; an admin can add it to `keys` of a rule in [identity.rules]")]
    NotYours {
        /// Who asked.
        caller: Identity,
        /// For which key.
        key: KeyName,
    },
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
    /// None where no store of them was opened: tests, and tools.
    managed: Option<Arc<ManagedKeys>>,
}

/// What a call is signed by.
enum By {
    /// A key made for it, with a certificate, DER.
    Ephemeral { key: EphemeralKey, certificate: Vec<u8> },
    /// A managed key.
    Managed(Arc<SigningKey>),
}

impl By {
    fn sign(&self, digest: &Digest) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Ephemeral { key, .. } => key.sign_digest(digest.as_bytes()),
            Self::Managed(key) => key.sign_digest(digest.as_bytes()),
        }
    }

    fn leaf(&self, digest: &Digest, signature: &[u8]) -> Vec<u8> {
        match self {
            Self::Ephemeral { certificate, .. } => leaf::hashedrekord(digest, signature, certificate),
            Self::Managed(key) => leaf::hashedrekord_with_key(digest, signature, key.spki()),
        }
    }

    fn material(&self) -> Material {
        match self {
            Self::Ephemeral { certificate, .. } => Material::Certificate(certificate.clone()),
            Self::Managed(key) => Material::Key { hint: key.hint() },
        }
    }
}

struct Prepared {
    unlogged: sigstore_types::Bundle,
    draft: Draft,
}

impl Signing {
    /// A service that signs with `keyring` and records in the present log.
    pub fn new(keyring: Arc<Keyring>, logs: impl Into<Logs>, registry: Registry) -> Self {
        let url = format!("https://{}", keyring.host());
        let own = Identity { subject: url.clone(), issuer: url };
        Self { keyring, logs: logs.into(), registry, own, managed: None }
    }

    /// The same, which also signs with managed keys.
    #[must_use]
    pub fn with_managed(self, keys: Arc<ManagedKeys>) -> Self {
        Self { managed: Some(keys), ..self }
    }

    /// The managed keys.
    pub fn managed(&self) -> Option<&Arc<ManagedKeys>> {
        self.managed.as_ref()
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

    /// Signs with a managed key that the caller may use; one log commit for all. Order is kept.
    ///
    /// # Errors
    /// [`SigningError::NotYours`], [`SigningError::Refused`], and what signing comes to.
    pub async fn sign_with(
        &self,
        contents: Vec<Content>,
        key: &KeyName,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        if !caller.keys.contains(key) {
            return Err(SigningError::NotYours { caller: caller.identity.clone(), key: key.clone() });
        }
        let managed = self.managed.as_ref().ok_or_else(|| KeyRefusal::Unknown(key.clone()))?;
        let by = By::Managed(managed.signer(key)?);
        self.record(move |keyring| prepare_all(keyring, contents, &by, now)).await
    }

    async fn sign_saying(
        &self,
        contents: Vec<Content>,
        identity: Identity,
        said: Extensions,
        now: Timestamp,
    ) -> Result<Vec<Signed>, SigningError> {
        self.record(move |keyring| {
            let key = EphemeralKey::generate()?;
            let certificate = keyring.issue_saying(&identity, &said, &key.spki(), now)?.certificate;
            prepare_all(keyring, contents, &By::Ephemeral { key, certificate }, now)
        })
        .await
    }

    async fn record(
        &self,
        prepare: impl FnOnce(&Keyring) -> Result<Vec<Prepared>, SigningError> + Send + 'static,
    ) -> Result<Vec<Signed>, SigningError> {
        let keyring = Arc::clone(&self.keyring);
        let prepared = tokio::task::spawn_blocking(move || prepare(&keyring))
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
    by: &By,
    now: Timestamp,
) -> Result<Vec<Prepared>, SigningError> {
    contents.into_iter().map(|content| prepare(keyring, by, content, now)).collect()
}

fn prepare(keyring: &Keyring, by: &By, content: Content, now: Timestamp) -> Result<Prepared, SigningError> {
    let (digest, statement) = match content {
        Content::Statement(statement) => {
            let statement = statement.to_json();
            (Digest::of(&bundle::pae(&statement)), Some(statement))
        }
        Content::File(digest) => (digest, None),
    };
    let signature = by.sign(&digest)?;
    let timestamp = keyring.timestamp(&signature, now)?;
    let leaf = by.leaf(&digest, &signature);
    let unlogged = match statement {
        Some(statement) => bundle::of_statement(statement, signature, by.material(), timestamp),
        None => bundle::of_file(&digest, signature, by.material(), timestamp),
    };
    let payload = bundle::to_json(&unlogged).map_err(|source| LogError::Bundle(0, source.to_string()))?;
    Ok(Prepared { unlogged, draft: Draft { leaf, payload } })
}
