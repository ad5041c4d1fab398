//! What was taken back, and from when.
//!
//! Revoking a *key* or an *identity* voids what it signed at or after `since`; what was signed and timestamped before
//! stays good. Revoking an *artifact* condemns the digest itself, from `since` on, whoever signed it and whenever.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    digest::Digest,
    identity::Identity,
    verdict::{Code, LogRef},
    verify::{Signer, Verified},
};

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Target {
    /// A digest: image, index or file.
    Artifact {
        /// The digest.
        digest: Digest,
    },
    /// A public key, by the digest of its SubjectPublicKeyInfo DER.
    Key {
        /// The key's digest.
        key: Digest,
    },
    /// A signing identity.
    Identity {
        /// Subject and issuer.
        identity: Identity,
    },
}

/// One revocation, as its statement says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What is revoked.
    #[serde(flatten)]
    pub target: Target,
    /// From when it counts.
    pub since: Timestamp,
    /// Why, in the words of who revoked.
    pub reason: String,
}

/// All revocations known at one log size. The earliest `since` for one target counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    by_target: BTreeMap<Target, (Revocation, LogRef)>,
}

impl Revocations {
    /// Adds one, recorded at `at`.
    pub fn insert(&mut self, revocation: Revocation, at: LogRef) {
        match self.by_target.get(&revocation.target) {
            Some((known, _)) if known.since <= revocation.since => {}
            _ => {
                self.by_target.insert(revocation.target.clone(), (revocation, at));
            }
        }
    }

    /// All of them, by target.
    pub fn iter(&self) -> impl Iterator<Item = (&Revocation, &LogRef)> {
        self.by_target.values().map(|(revocation, at)| (revocation, at))
    }

    /// The revocation of this digest that counts at `now`.
    pub fn artifact(&self, digest: &Digest, now: Timestamp) -> Option<(&Revocation, &LogRef)> {
        let (revocation, at) = self.by_target.get(&Target::Artifact { digest: *digest })?;
        (revocation.since <= now).then_some((revocation, at))
    }

    /// The revocation of the key or identity that voids this evidence, with the code that names it. A signature
    /// without a verified time cannot show that it is older than the revocation, so it is void.
    pub fn signer(&self, evidence: &Verified) -> Option<(Code, &Revocation, &LogRef)> {
        let voids = |since: Timestamp| evidence.signed_at().is_none_or(|signed_at| signed_at >= since);
        let key = (Code::KeyRevoked, Target::Key { key: evidence.key() });
        let identity = match evidence.signer() {
            Signer::Identity(identity) => {
                Some((Code::IdentityRevoked, Target::Identity { identity: identity.clone() }))
            }
            Signer::Key(_) => None,
        };
        [Some(key), identity].into_iter().flatten().find_map(|(code, target)| {
            let (revocation, at) = self.by_target.get(&target)?;
            voids(revocation.since).then_some((code, revocation, at))
        })
    }
}
