//! C2SP `tlog-checkpoint`: origin, size and root of a log, one line each, signed as a note.

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
    #[error("checkpoint is not three lines: origin, size, base64 root")]
    Malformed,
    /// Another log's.
    #[error("checkpoint is of the log {0:?}")]
    Origin(String),
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Parses the text. Extension lines are refused: we write none, and what nobody signs for should not be carried.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed);
        };
        let parsed = size.parse::<u64>().map_err(|_source| CheckpointError::Malformed)?;
        let root = STANDARD.decode(root).map_err(|_source| CheckpointError::Malformed)?;
        let root: Hash = root.try_into().map_err(|_source| CheckpointError::Malformed)?;
        if origin.is_empty() || parsed.to_string() != size {
            return Err(CheckpointError::Malformed);
        }
        Ok(Self { origin: origin.to_owned(), size: parsed, root })
    }

    /// Signs it as a note.
    pub fn sign(&self, key: &VerifierKey, sign: impl Fn(&[u8]) -> [u8; 64]) -> Result<String, CheckpointError> {
        Ok(Note::sign(&self.text(), key, sign)?.to_string())
    }

    /// Parses a signed checkpoint and verifies that `key` signed it and that it is of the log of the key's name.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        let checkpoint = Self::parse(note.verify(key)?)?;
        if checkpoint.origin != key.name() {
            return Err(CheckpointError::Origin(checkpoint.origin));
        }
        Ok(checkpoint)
    }
}
