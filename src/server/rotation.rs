//! A key takes another one's place while the service runs: made, published, trusted here, and only then used.

use std::{fs, path::PathBuf, sync::Arc};

use super::Clock;
use crate::{
    evidence::EvidenceService,
    grpc::trust::Rotate,
    keys::{KekSource, KeyError, Keyring, Public, Rotated, Rotation},
    model::TrustedRoot,
    tuf::Repository,
};

/// What a rotation needs.
#[derive(Debug)]
pub(super) struct Rotations {
    pub(super) data: PathBuf,
    pub(super) kek: KekSource,
    pub(super) keyring: Arc<Keyring>,
    pub(super) evidence: Arc<EvidenceService>,
    pub(super) repository: Arc<Repository>,
    pub(super) clock: Clock,
}

impl Rotations {
    /// As the administrator's face calls it.
    pub(super) fn into_call(self) -> Rotate {
        Arc::new(move |rotation| self.rotate(rotation))
    }

    fn rotate(&self, rotation: Rotation) -> Result<Rotated, KeyError> {
        let (kek, now) = (self.kek.load()?, (self.clock)());
        self.keyring.rotate(&self.data, &kek, rotation, now, |public| {
            publish(public, &self.data, &self.evidence, &self.repository, (self.clock)());
        })
    }
}

/// Hands out a new public side: to our own verification, to clients that come by TUF, and to people who copy the file.
///
/// It is in the keyring's directory by now, so there is no way back: what fails here is tried again by [`super::upkeep`],
/// and the warnings tell of it.
pub(super) fn publish(
    public: &Public,
    data: &std::path::Path,
    evidence: &EvidenceService,
    repository: &Repository,
    now: jiff::Timestamp,
) {
    let trusted_root = public.trusted_root();
    match TrustedRoot::parse(&trusted_root) {
        Ok(root) => evidence.renew_own_root(Arc::new(root)),
        Err(error) => tracing::error!(%error, "the new trusted root cannot be used here; restart the service"),
    }
    if let Err(error) = repository.refresh_to(public, now) {
        tracing::error!(%error, "the TUF repository does not hand out the new keys yet; it is tried again");
    }
    if let Err(error) = fs::write(data.join("trusted_root.json"), trusted_root.as_bytes()) {
        tracing::warn!(%error, "trusted_root.json in the data directory was not renewed");
    }
}
