//! Changes of managed keys: made, and recorded in the log under the identity of whoever asked.
//!
//! What grants something (a new key, a new version, enabling) is recorded before it happens; what takes something away
//! (disabling, revoking) happens before it is recorded. So a crash in between leaves a record of something that did not
//! happen, or a key that signs nothing although no record says so (the audit log does), and never a key that signs and
//! that nobody can account for.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::json;

use super::{Signing, SigningError};
use crate::{
    keys::{Change, Event, KeyRefusal, ManagedKey, ManagedKeys},
    model::{Caller, Digest, KeyName, LogRef, Statement, StatementError, Subject, predicate},
};

/// What is to be done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    /// Make it.
    Create,
    /// Make a new version, which signs from then on.
    Rotate,
    /// Let it sign nothing for now.
    Disable,
    /// Let it sign again.
    Enable,
    /// Let it sign nothing any more.
    Revoke,
}

/// Why a key was not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    /// The change is not possible.
    #[error(transparent)]
    Refused(#[from] KeyRefusal),
    /// This instance has no store of managed keys.
    #[error("this instance holds no managed keys")]
    NoStore,
    /// The record is not a valid statement.
    #[error("the record is not valid: {0}")]
    Statement(#[from] StatementError),
    /// It could not be recorded. What grants something was not done then; what takes something away was.
    #[error("it could not be recorded")]
    Signing(#[from] SigningError),
    /// The worker was lost.
    #[error("changing the key was interrupted")]
    Interrupted,
}

impl Signing {
    /// Changes a managed key and records it. A key that is in the wanted state already is left as it is, and nothing is
    /// recorded.
    ///
    /// # Errors
    /// A [`KeyChangeError`].
    pub async fn change_key(
        &self,
        name: &KeyName,
        change: KeyChange,
        reason: &str,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<(ManagedKey, Option<LogRef>), KeyChangeError> {
        let keys = Arc::clone(self.managed.as_ref().ok_or(KeyChangeError::NoStore)?);
        let (store, wanted) = (Arc::clone(&keys), name.clone());
        let planned = off_thread(move || plan(&store, &wanted, change, now)).await?;
        if planned.is_done {
            return Ok((planned.key, None));
        }
        let (event, statement) = (planned.event, record(&planned, reason, caller, now)?);
        let before = if event.grants() { self.record_change(statement.clone(), caller, now).await? } else { None };
        let key = off_thread(move || keys.commit(planned)).await?;
        tracing::warn!(
            target: "audit", action = "key", by = %caller.identity, key = %name, event = event.as_str(),
            version = key.versions.len(), reason, "managed key changed"
        );
        let entry = if event.grants() { before } else { self.record_change(statement, caller, now).await? };
        Ok((key, entry))
    }

    async fn record_change(
        &self,
        statement: Statement,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Option<LogRef>, SigningError> {
        let signed = self.attest(vec![statement], &caller.identity, now).await?;
        Ok(signed.into_iter().next().map(|signed| signed.entry))
    }
}

fn plan(keys: &ManagedKeys, name: &KeyName, change: KeyChange, now: Timestamp) -> Result<Change, KeyRefusal> {
    match change {
        KeyChange::Create => keys.create(name, now),
        KeyChange::Rotate => keys.rotate(name, now),
        KeyChange::Disable => keys.disable(name),
        KeyChange::Enable => keys.enable(name),
        KeyChange::Revoke => keys.revoke(name),
    }
}

/// The statement about a change. Its subjects are the public keys that it is about: the new version, or all of them.
fn record(change: &Change, reason: &str, caller: &Caller, now: Timestamp) -> Result<Statement, StatementError> {
    let name = &change.key.name;
    let newest = change.key.versions.len();
    let touched = change.key.versions.iter().zip(1..).filter(|(_, number)| match change.event {
        Event::Created | Event::Rotated => *number == newest,
        Event::Disabled | Event::Enabled | Event::Revoked => true,
    });
    let subjects: BTreeMap<Digest, String> =
        touched.map(|(version, number)| (version.key, format!("{name}/{number}"))).collect();
    let subjects = subjects.into_iter().map(|(digest, name)| Subject { name, digest }).collect();
    let predicate = json!({
        "name": name, "event": change.event.as_str(), "version": newest, "reason": reason,
        "by": caller.identity.to_string(), "recordedAt": now,
    });
    Statement::new(subjects, predicate::MANAGED_KEY, predicate)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyRefusal> + Send + 'static,
) -> Result<T, KeyChangeError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_lost| KeyChangeError::Interrupted)?;
    Ok(done?)
}
