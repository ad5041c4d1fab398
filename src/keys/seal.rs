//! One sealed private key: AES-256-GCM under a key of its own.
//!
//! ```text
//! offset  length
//!      0       7  "csealed"
//!      7       1  format version, 1
//!      8      12  nonce, random
//!     20       n  PKCS#8 DER, encrypted
//!   20+n      16  tag
//! ```
//!
//! The key is HKDF-SHA256 of the key-encryption key with the role (`ca`, `log`, …) as purpose; the role and the
//! version are also authenticated, so that sealed files cannot be exchanged for one another.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use super::{Kek, KeyError};

const MAGIC: &[u8; 8] = b"csealed\x01";
const NONCE: usize = 12;
const TAG: usize = 16;

/// Seals `secret` in the given role.
pub(super) fn seal(kek: &Kek, role: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
    // With room for the tag: a buffer that grew would leave the clear bytes behind.
    let mut body = Zeroizing::new(Vec::with_capacity(secret.len().saturating_add(TAG)));
    body.extend_from_slice(secret);
    let nonce = key(kek, role)?
        .seal_in_place_append_tag(Aad::from(associated(role)), &mut *body)
        .map_err(|_source| KeyError::Crypto("seal a key"))?;
    Ok([MAGIC.as_slice(), nonce.as_ref(), &body].concat())
}

/// Opens what [`seal`] made; `None` if it is malformed, changed, of another role or under another key.
pub(super) fn open(kek: &Kek, role: &str, sealed: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let Some((nonce, body)) = sealed.strip_prefix(MAGIC).and_then(|rest| rest.split_at_checked(NONCE)) else {
        return Ok(None);
    };
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_source| KeyError::Crypto("read a nonce"))?;
    let mut body = Zeroizing::new(body.to_vec());
    let Ok(clear) =
        key(kek, role)?.open_in_place(nonce, Aad::from(associated(role)), &mut body).map(|clear| clear.len())
    else {
        return Ok(None);
    };
    body.truncate(clear);
    Ok(Some(body))
}

fn key(kek: &Kek, role: &str) -> Result<RandomizedNonceKey, KeyError> {
    let key = kek.derive(&format!("seal {role}"))?;
    RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).map_err(|_source| KeyError::Crypto("prepare a sealing key"))
}

fn associated(role: &str) -> Vec<u8> {
    [MAGIC.as_slice(), role.as_bytes()].concat()
}
