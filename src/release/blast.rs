//! What a revocation would hit, before it is made.

use jiff::Timestamp;

use super::{Release, ReleaseError};
use crate::model::{Digest, LogRef, Revocation, Revocations, limits, revocation::Target};

/// A service that a revocation would hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// What it runs or could go back to.
    pub digest: Digest,
    /// Whether it runs it now; otherwise it could go back to it.
    pub running: bool,
}

/// What a revocation would hit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blast {
    /// At most [`limits::LISTING`].
    pub hits: Vec<Hit>,
    /// Whether there are more.
    pub truncated: bool,
}

pub(super) async fn of(
    release: &Release,
    target: &Target,
    since: Timestamp,
    now: Timestamp,
) -> Result<Blast, ReleaseError> {
    let mut revoked = Revocations::default();
    let revocation = Revocation { target: target.clone(), since, reason: String::new() };
    revoked.insert(revocation, LogRef { origin: String::new(), index: 0 });
    let mut blast = Blast::default();
    for (service, environment) in release.services().await? {
        let history = release.history(&service, &environment).await?;
        for revision in history.revisions.iter().filter(|revision| revision.live_since.is_some()) {
            if !hits(release, &revoked, target, &revision.digest, now).await? {
                continue;
            }
            if blast.hits.len() >= limits::LISTING {
                blast.truncated = true;
                return Ok(blast);
            }
            let running = history.running == Some(revision.digest);
            let (service, environment) = (service.clone(), environment.clone());
            blast.hits.push(Hit { service, environment, digest: revision.digest, running });
        }
    }
    Ok(blast)
}

async fn hits(
    release: &Release,
    revoked: &Revocations,
    target: &Target,
    digest: &Digest,
    now: Timestamp,
) -> Result<bool, ReleaseError> {
    if let Target::Artifact { digest: revoked } = target {
        return Ok(revoked == digest);
    }
    let evidence = release.evidence.from_log(digest, None, now).await?;
    Ok(evidence.statements.iter().any(|verified| revoked.signer(verified).is_some()))
}
