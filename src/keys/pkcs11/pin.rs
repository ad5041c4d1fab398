//! The PIN of a token: from a file, an environment variable or a systemd credential, like the key-encryption key. Never
//! from an argument, and never printed.

use std::fmt;

use zeroize::Zeroizing;

use crate::keys::{KekSource, KeyError};

/// The longest PIN that is read, in bytes.
const LONGEST: usize = 255;

/// Where the PIN of a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinSource(pub KekSource);

impl PinSource {
    /// Reads the PIN: text, without the line end that editors leave.
    ///
    /// # Errors
    /// [`KeyError::Pin`] names the source and says what to do.
    pub(super) fn load(&self) -> Result<Zeroizing<String>, KeyError> {
        let refuse = |problem: String| KeyError::Pin { from: self.0.to_string(), problem };
        let bytes = self.0.read().map_err(refuse)?;
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.is_empty() || bytes.len() > LONGEST {
            return Err(refuse(format!("has {} bytes; a PIN has 1 to {LONGEST}", bytes.len())));
        }
        let text = str::from_utf8(bytes).map_err(|_source| refuse("is not text in UTF-8".to_owned()))?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
