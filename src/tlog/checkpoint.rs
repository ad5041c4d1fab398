//! C2SP `tlog-checkpoint`: origin, size and root of a log, one line each, signed as a note.
//!
//! Stricter than the format in one point: extension lines, which it allows and advises against, are refused. No witness
//! signs them in the ML-DSA form, and what nobody signs for should not be carried. Not here: whether a checkpoint follows
//! from an earlier one (`proof`).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    hash::Hash,
    note::{Note, NoteError, VerifierKey},
};

/// What a log says of itself at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name: for Sigstore clients its host name.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// Why a text is not a checkpoint of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it is malformed or does not verify.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not origin, size and root.
    #[error("checkpoint is not three lines: origin, size without leading zeros, base64 of a 32-byte root")]
    Malformed,
    /// Another log's.
    #[error("checkpoint is of the log {0:?}, which is not the name of the key")]
    Origin(String),
}

/// Whether a text can stand on the first line of a note.
fn is_origin(origin: &str) -> bool {
    !origin.is_empty() && !origin.contains(|c: char| c < ' ')
}

impl Checkpoint {
    /// The text that is signed, with its three newlines.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Parses the text. What parses prints back to the same bytes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed);
        };
        let parsed = size.parse::<u64>().map_err(|_source| CheckpointError::Malformed)?;
        let root = STANDARD.decode(root).map_err(|_source| CheckpointError::Malformed)?;
        let root: Hash = root.try_into().map_err(|_source| CheckpointError::Malformed)?;
        if !is_origin(origin) || parsed.to_string() != size {
            return Err(CheckpointError::Malformed);
        }
        Ok(Self { origin: origin.to_owned(), size: parsed, root })
    }

    /// Signs it as a note. Refuses an origin that is not one line, so that nothing is signed that would read as another
    /// checkpoint.
    ///
    /// # Errors
    /// As [`Note::sign`].
    pub fn sign<S: Into<Option<[u8; 64]>>>(
        &self,
        key: &VerifierKey,
        sign: impl Fn(&[u8]) -> S,
    ) -> Result<String, CheckpointError> {
        if !is_origin(&self.origin) {
            return Err(CheckpointError::Malformed);
        }
        Ok(Note::sign(&self.text(), key, sign)?.to_string())
    }

    /// Parses a signed checkpoint and verifies that `key` signed it and that it is of the log of the key's name.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        Self::verify_note(&Note::parse(note)?, key)
    }

    /// Like [`Checkpoint::verify`], of a note that was parsed already.
    pub fn verify_note(note: &Note, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(note.verify(key)?)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin(checkpoint.origin));
        }
        Ok(checkpoint)
    }
}
