//! Ed25519ph (RFC 8032 section 5.1): Ed25519 over the SHA-512 of a message, with no context.
//!
//! It is another algorithm than Ed25519, and neither's signatures are the other's. Not in `aws-lc-rs`, hence
//! `ed25519-dalek`.

use ed25519_dalek::{Signature, VerifyingKey};
use sha2::digest::{FixedOutput, HashMarker, Output, OutputSizeUser, Update, consts::U64};

/// Whether these are the 32 bytes of a key: of a point that signatures can be checked with.
pub(super) fn is_key(bytes: &[u8]) -> bool {
    key(bytes).is_some_and(|key| !key.is_weak())
}

/// Whether the signature over what has this SHA-512 verifies. Strictly: what only some implementations accept (points of
/// small order) is refused, so that nobody's verifier disagrees with what is recorded here.
pub(super) fn verifies(bytes: &[u8], digest: &[u8; 64], signature: &[u8]) -> bool {
    let (Some(key), Ok(signature)) = (key(bytes), Signature::from_slice(signature)) else { return false };
    key.verify_prehashed_strict(Computed(*digest), None, &signature).is_ok()
}

fn key(bytes: &[u8]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes.try_into().ok()?).ok()
}

/// A digest that was computed elsewhere, in the form of a hash that has been fed: the library asks for one.
#[derive(Clone)]
struct Computed([u8; 64]);

/// Asked for by the library, never used by it.
impl Default for Computed {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Likewise.
impl Update for Computed {
    fn update(&mut self, _data: &[u8]) {}
}

impl OutputSizeUser for Computed {
    type OutputSize = U64;
}

impl FixedOutput for Computed {
    fn finalize_into(self, out: &mut Output<Self>) {
        out.copy_from_slice(&self.0);
    }
}

impl HashMarker for Computed {}
