//! C2SP `tlog-witness`: the texts of `add-checkpoint`, and what a witness must find true before it cosigns.
//!
//! Pure: who keeps the newest checkpoint of a log, and how comparing and keeping become one step, is the witness's
//! business (`crate::witness`); asking witnesses is the log's. Both use the texts here, side by side.
//!
//! The checks stand in the order of the specification: the request's form ([`AddCheckpoint::parse`], 400), the origin
//! (404), the signature (403) and the old size (400) in [`AddCheckpoint::open`]; the size that the witness saw last
//! (409) and the proof (422) in [`Opened::check_growth`].
//!
//! Another root at the *same* size is answered with 422, as the editor's copy of the specification (2026) says; version
//! 1.0.0 said 409, without a size. A client must take both for a refusal.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    checkpoint::Checkpoint,
    cosignature::{LogKey, checkpoint_of},
    hash::{EMPTY_ROOT, Hash},
    note::{Note, NoteError},
    proof::{ProofError, check_consistency},
};

/// Proof lines that a request may have.
pub const MOST_PROOF: usize = 63;
/// Longest request that is read, in bytes: the proof, and a checkpoint with some post-quantum signatures.
pub const MOST_REQUEST: usize = 64 * 1024;
/// Longest answer that is read, in bytes.
pub const MOST_ANSWER: usize = 64 * 1024;
/// The media type of the answer that carries the size that the witness saw last.
pub const SIZE_TYPE: &str = "text/x.tlog.size";

/// What a client sends: the size that it believes the witness saw last, the way from there, and a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size of the checkpoint that the witness cosigned last; 0 for none.
    pub old: u64,
    /// The consistency proof from `old` to the checkpoint.
    pub proof: Vec<Hash>,
    /// The signed checkpoint.
    pub checkpoint: String,
}

/// Why a witness does not cosign. The variants are the statuses of the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: not of the form of a request, or the old size is larger than the checkpoint's.
    #[error("bad request: {0}")]
    Malformed(String),
    /// 404: no key is known for the log.
    #[error("this witness does not know the log {0:?}")]
    UnknownLog(String),
    /// 403: no trusted key signed the checkpoint, or a line of a trusted key does not verify.
    #[error("checkpoint is not signed by a trusted key: {0}")]
    Signature(NoteError),
    /// 409: the old size is not the one that was cosigned last.
    #[error("the last cosigned size is {0}")]
    Conflict(u64),
    /// 422: the checkpoint does not contain what was cosigned last, or the proof does not show it.
    #[error("checkpoint is not shown to be consistent with the last one cosigned: {0}")]
    Inconsistent(ProofError),
}

fn malformed(problem: impl ToString) -> Refusal {
    Refusal::Malformed(problem.to_string())
}

/// Parses a size: decimal, without sign or leading zeros.
fn parse_size(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|size| size.to_string() == text)
}

impl AddCheckpoint {
    /// Parses a request. What parses prints back to the same bytes.
    pub fn parse(body: &str) -> Result<Self, Refusal> {
        if body.len() > MOST_REQUEST {
            return Err(malformed(format!("it is longer than {MOST_REQUEST} bytes")));
        }
        let (head, checkpoint) = body.split_once("\n\n").ok_or_else(|| malformed("there is no empty line"))?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_size);
        let old = old.ok_or_else(|| malformed("the first line is not: old, space, decimal size"))?;
        let proof: Option<Vec<Hash>> = lines.take(MOST_PROOF + 1).map(parse_hash).collect();
        let proof = proof.ok_or_else(|| malformed("a proof line is not the base64 of 32 bytes"))?;
        if proof.len() > MOST_PROOF {
            return Err(malformed(format!("there are more than {MOST_PROOF} proof lines")));
        }
        Ok(Self { old, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Parses the checkpoint, and verifies that a trusted key of its log signed it. `keys_of` knows the keys by origin.
    pub fn open<'k>(&self, keys_of: impl FnOnce(&str) -> Option<&'k [LogKey]>) -> Result<Opened, Refusal> {
        let mut note = Note::parse(&self.checkpoint).map_err(malformed)?;
        let (checkpoint, _) = checkpoint_of(note.text_unsafe()).map_err(malformed)?;
        let Some(keys) = keys_of(&checkpoint.origin) else {
            return Err(Refusal::UnknownLog(checkpoint.origin));
        };
        let mut signed = false;
        for key in keys.iter().filter(|key| key.origin() == checkpoint.origin) {
            match key.verify(&note) {
                Ok(()) => signed = true,
                Err(NoteError::Unsigned(_)) => {}
                Err(failed) => return Err(Refusal::Signature(failed)),
            }
        }
        if !signed {
            return Err(Refusal::Signature(NoteError::Unsigned(checkpoint.origin)));
        }
        // What strangers wrote beside it is not carried on.
        note.keep(|line| keys.iter().any(|key| key.is_of(line)));
        if self.old > checkpoint.size {
            return Err(malformed(format!("the old size {} is larger than the size {}", self.old, checkpoint.size)));
        }
        Ok(Opened { old: self.old, proof: self.proof.clone(), note, checkpoint })
    }
}

impl std::fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "old {}", self.old)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

fn parse_hash(line: &str) -> Option<Hash> {
    STANDARD.decode(line).ok()?.try_into().ok()
}

/// A request whose checkpoint is signed by a trusted key. Only [`AddCheckpoint::open`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    old: u64,
    proof: Vec<Hash>,
    note: Note,
    checkpoint: Checkpoint,
}

impl Opened {
    /// What the checkpoint says.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed note, without lines by keys that are not trusted for the log.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Checks that the checkpoint grew out of the one that was cosigned last, of size and root `seen`.
    ///
    /// Before the first one, `seen` is size 0 with [`EMPTY_ROOT`].
    pub fn check_growth(&self, seen: (u64, &Hash)) -> Result<(), Refusal> {
        let (size, root) = seen;
        if self.old != size {
            return Err(Refusal::Conflict(size));
        }
        if self.checkpoint.size == 0 && self.checkpoint.root != EMPTY_ROOT {
            return Err(Refusal::Inconsistent(ProofError::Root));
        }
        check_consistency(size, root, self.checkpoint.size, &self.checkpoint.root, &self.proof)
            .map_err(Refusal::Inconsistent)
    }
}

/// The body of a conflict: the size that was cosigned last.
pub fn print_conflict(size: u64) -> String {
    format!("{size}\n")
}

/// Reads the body of a conflict.
pub fn parse_conflict(body: &str) -> Option<u64> {
    body.strip_suffix('\n').and_then(parse_size)
}
