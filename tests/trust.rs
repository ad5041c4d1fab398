//! Trust that changes: rotation of every key, the TUF repository and its root key offline, a clock that runs 400 days ahead;
//! with our verifier, the running service, and clients that others wrote.

mod clients;
mod documents;
mod ends;
mod offline;
mod repository;
mod rotation;
mod service;

use std::{path::Path, sync::Arc};

use countersign::{
    keys::{KeyError, Keyring, Rotated, Rotating, Rotation},
    model::{Digest, Rejection, TrustedRoot, Verified, verify::verify},
    tuf::Repository,
};
use jiff::{SignedDuration, Timestamp};

use crate::keys::{Content, builder, bundle, kek};

pub const URL: &str = "https://sign.example.org:8443";
pub const HOUR: SignedDuration = SignedDuration::from_hours(1);
pub const DAY: SignedDuration = SignedDuration::from_hours(24);
pub const NONE: SignedDuration = SignedDuration::ZERO;

/// Rotates without telling anybody else.
pub fn rotate(
    keys: &Keyring,
    dir: &Path,
    (kind, new_root): (Rotating, bool),
    activate_in: SignedDuration,
    now: Timestamp,
) -> Result<Rotated, KeyError> {
    keys.rotate(dir, &kek(), Rotation { kind, new_root, activate_in }, now, |_public| ())
}

/// A file's bundle, signed at `now`.
pub fn signed(keys: &Keyring, now: Timestamp) -> String {
    bundle(keys, &builder(), &Content::File(b"artifact"), now).to_string()
}

pub fn holds(bundle: &str, trusted_root: &str) -> Result<Verified, Rejection> {
    verify(bundle.as_bytes(), &Digest::of(b"artifact"), &TrustedRoot::parse(trusted_root).unwrap())
}

/// The repository of a data directory that [`crate::keys::keyring`] made.
pub fn repository(dir: &Path, keys: &Arc<Keyring>) -> Repository {
    Repository::open(dir, keys.clone(), Arc::new(|| Ok(kek())), URL.to_owned())
}
