//! The name of a managed key: what callers write in `Sign`, and rules in `keys`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most characters of a name.
const LONGEST: usize = 64;

/// A name such as `release`: it is part of file names, and of labels on tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

/// Not the name of a managed key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no key's name: 1 to 64 of the characters a-z, 0-9, '-' and '_', with a letter or digit first, as in release"
)]
pub struct KeyNameError(String);

impl KeyName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let fits = text.starts_with(word) && text.len() <= LONGEST && text.chars().all(|c| word(c) || "-_".contains(c));
        if fits { Ok(Self(text.to_owned())) } else { Err(KeyNameError(text.chars().take(LONGEST).collect())) }
    }
}

impl TryFrom<String> for KeyName {
    type Error = KeyNameError;

    fn try_from(text: String) -> Result<Self, KeyNameError> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}
