//! Tokens that count once, of an issuer with `single_use`: which were used, until they expire.
//!
//! A token is known by the SHA-256 of what its issuer signed, header and claims, and not of its whole text: one signature
//! can be written in several ways that all verify (the two forms of an ECDSA signature), so that text would make a second
//! token of the first. Two tokens with the same claims, without a `jti` or anything else that differs, are one.
//!
//! The memory is bounded and forgets nothing that could be used again: when it is full, further tokens are refused until
//! some have expired. It is lost on restart.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use super::Refusal;
use crate::model::limits;

/// The tokens of one issuer that were used.
pub struct Spent {
    issuer: String,
    room: usize,
    /// Held for a moment, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that could still be used again.
    tokens: BTreeSet<Token>,
    /// The latest end of a token that was forgotten. What ends no later is refused, should the clock be set back.
    forgotten: Option<i64>,
}

/// Of a token: the second from which on it is expired, and its digest. In the order in which they are forgotten.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Token {
    ends: i64,
    digest: [u8; 32],
}

/// A verified token that counts once. Nothing of it is in here but a digest.
#[derive(Clone)]
pub struct SingleUse {
    spent: Arc<Spent>,
    token: Token,
}

impl Spent {
    /// An empty memory with room for [`limits::SINGLE_USE_TOKENS`].
    pub fn of(issuer: &str) -> Arc<Self> {
        Self::with_room(issuer, limits::SINGLE_USE_TOKENS)
    }

    /// An empty memory with room for so many tokens.
    pub fn with_room(issuer: &str, room: usize) -> Arc<Self> {
        Arc::new(Self { issuer: issuer.to_owned(), room, state: Mutex::default() })
    }

    /// The token with this digest, that is expired from the second `ends` on.
    pub fn token(self: &Arc<Self>, digest: [u8; 32], ends: i64) -> SingleUse {
        SingleUse { spent: Arc::clone(self), token: Token { ends, digest } }
    }
}

impl SingleUse {
    /// Uses the token. Of all who ask for one token at the same time, one gets it; whatever comes of that, it stays used.
    ///
    /// # Errors
    /// [`Refusal::Replayed`], [`Refusal::TooManyTokens`] or [`Refusal::Expired`].
    pub fn spend(&self, now: Timestamp) -> Result<(), Refusal> {
        let Spent { issuer, room, state } = &*self.spent;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(first) = state.tokens.first().copied().filter(|first| first.ends <= now.as_second()) {
            state.forgotten = Some(first.ends);
            state.tokens.pop_first();
        }
        if state.forgotten.is_some_and(|ends| self.token.ends <= ends) {
            return Err(Refusal::Expired);
        }
        if state.tokens.contains(&self.token) {
            return Err(Refusal::Replayed);
        }
        if state.tokens.len() >= *room {
            return Err(Refusal::TooManyTokens { issuer: issuer.clone(), room: *room });
        }
        state.tokens.insert(self.token);
        Ok(())
    }
}

impl fmt::Debug for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spent").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl fmt::Debug for SingleUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleUse").field("issuer", &self.spent.issuer).finish_non_exhaustive()
    }
}
