//! What the token service of a registry answers (the token protocol of the distribution project, and OAuth 2.0).
//!
//! Not here: which service is asked, and for what; [`super::challenge`] reads where it is.

use std::{fmt, time::Duration};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{json::is_object, limits};

/// How long a token lives whose issuer does not say (the token protocol's own default), and how long it is remembered that
/// there is none.
pub const DEFAULT_LIFETIME: Duration = Duration::from_mins(1);
/// The longest life of any token here; a password is used as long before it is looked up again.
pub const LONGEST_LIFETIME: Duration = Duration::from_mins(5);

/// Why an answer is of no use. Nothing of it is quoted: it may hold a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenReplyError {
    /// Not JSON, or other fields than are wanted.
    #[error("its token service's answer is not a token")]
    Unreadable,
    /// None is given, or one that is over [`limits::TOKEN`] or does not fit into a header.
    #[error("its token service's answer has no usable token")]
    NoToken,
}

/// A token for one registry. Debug hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenReply {
    /// The token: visible ASCII.
    pub token: Zeroizing<String>,
    /// How long it is used.
    pub lifetime: Duration,
}

#[derive(Deserialize)]
struct Written {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenReply(..)")
    }
}

impl TokenReply {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// A [`TokenReplyError`].
    pub fn parse(body: &[u8]) -> Result<Self, TokenReplyError> {
        // As text first: serde passes over whatever stands in fields that nobody reads.
        let text = str::from_utf8(body).ok().filter(|_| is_object(body));
        let written: Option<Written> = text.and_then(|text| serde_json::from_str(text).ok());
        let written = written.ok_or(TokenReplyError::Unreadable)?;
        let mut given = [written.token, written.access_token].into_iter().flatten().map(Zeroizing::new);
        let token = given.find(|token| !token.is_empty()).ok_or(TokenReplyError::NoToken)?;
        if token.len() > limits::TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenReplyError::NoToken);
        }
        // A tenth off, so that a token does not run out on its way.
        let lifetime = written.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs).min(LONGEST_LIFETIME) / 10 * 9;
        Ok(Self { token, lifetime })
    }
}
