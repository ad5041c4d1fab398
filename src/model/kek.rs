//! How a key-encryption key is written: base64 (any alphabet, padded or not), 64 hexadecimal digits, or 32 raw bytes.
//!
//! Not here: where it comes from, and what is sealed with it.

use zeroize::Zeroizing;

use super::json;

/// The 32 bytes of the key.
///
/// # Errors
/// A sentence without what was given.
pub fn parse(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    if let Ok(raw) = <[u8; 32]>::try_from(bytes) {
        // 32 characters that one can type are a password or half a hexadecimal key, not 32 random bytes.
        if raw.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            return Err("is 32 characters of text, not 32 random bytes; make one with `openssl rand -base64 32`");
        }
        return Ok(Zeroizing::new(raw));
    }
    let text = bytes.trim_ascii();
    let mut key = Zeroizing::new([0; 32]);
    if text.len() == 64 && hex::decode_to_slice(text, key.as_mut_slice()).is_ok() {
        return Ok(key);
    }
    let decoded = str::from_utf8(text).ok().and_then(|text| json::decode(text).ok()).map(Zeroizing::new);
    if let Some(decoded) = decoded.filter(|decoded| decoded.len() == key.len()) {
        key.copy_from_slice(&decoded);
        return Ok(key);
    }
    Err("is not 32 bytes in base64 or hexadecimal; make one with `openssl rand -base64 32`")
}
