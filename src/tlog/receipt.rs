//! C2SP `tlog-proof`: one file that proves offline that an entry is in a log, usually named `*.tlog-proof`.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>                  optional; nobody signed it
//! index <decimal>
//! <base64>                        the inclusion proof, from the leaf's sibling up, a hash a line
//!
//! <the signed checkpoint, verbatim>
//! ```
//!
//! A receipt is a claim until [`Receipt::verify`] says otherwise. It does not carry the entry: who holds a receipt also
//! holds the entry, or can make it, and hashes it himself. Not here: which witnesses must have signed the checkpoint;
//! whoever asks for some looks at [`Receipt::note`] too.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    checkpoint::{Checkpoint, CheckpointError},
    hash::Hash,
    note::{Note, VerifierKey},
    proof::{ProofError, check_inclusion},
};

/// The first line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// Bytes of extra data that are read or written.
const MOST_EXTRA: usize = 64 * 1024;
/// Hashes that are read or written: no tree is higher.
const MOST_HASHES: usize = 64;
/// Longest text before the checkpoint, in bytes: that much extra data in base64, and room for the rest. The checkpoint
/// has the limits of a note.
const MOST_HEAD: usize = 96 * 1024;

/// Why text is not a receipt, or proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not of the form of a receipt.
    #[error("not a tlog-proof: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is malformed, is not signed by the log's key, or is another log's.
    #[error("checkpoint of the tlog-proof does not hold")]
    Checkpoint(#[from] CheckpointError),
    /// Its inclusion proof does not lead from the entry to the checkpoint's root.
    #[error("the tlog-proof is not of this entry")]
    Proof(#[from] ProofError),
}

/// A receipt: parsed, and not verified until [`Receipt::verify`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Never empty: without extra data the line is left out.
    extra: Option<Vec<u8>>,
    index: u64,
    proof: Vec<Hash>,
    note: Note,
}

/// An entry's place in a log, proven under a checkpoint that the log signed.
///
/// Only [`Receipt::verify`] makes one, so holding one is the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Included {
    index: u64,
    checkpoint: Checkpoint,
}

impl Included {
    /// The entry's index.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The checkpoint whose tree holds the entry.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }
}

impl Receipt {
    /// A receipt for the entry at `index`, from its inclusion proof and the signed checkpoint that the proof is under.
    pub fn new(index: u64, proof: Vec<Hash>, checkpoint: &str) -> Result<Self, ReceiptError> {
        if proof.len() > MOST_HASHES {
            return Err(ReceiptError::Malformed("it has more than 64 hashes"));
        }
        let note = Note::parse(checkpoint).map_err(CheckpointError::from)?;
        Ok(Self { extra: None, index, proof, note })
    }

    /// The same receipt with extra data for the application, at most 64 KiB. Nobody signs it.
    pub fn with_extra(self, extra: Vec<u8>) -> Result<Self, ReceiptError> {
        match extra.len() {
            0 => Err(ReceiptError::Malformed("its extra data are empty; leave the line out")),
            1..=MOST_EXTRA => Ok(Self { extra: Some(extra), ..self }),
            _ => Err(ReceiptError::Malformed("its extra data are longer than 64 KiB")),
        }
    }

    /// Verifies that the entry with hash `leaf` is where the receipt says, under a checkpoint signed by `key`, of the log
    /// of the key's name.
    pub fn verify(&self, leaf: &Hash, key: &VerifierKey) -> Result<Included, ReceiptError> {
        let checkpoint = Checkpoint::verify_note(&self.note, key)?;
        check_inclusion(leaf, self.index, checkpoint.size, &self.proof, &checkpoint.root)?;
        Ok(Included { index: self.index, checkpoint })
    }

    /// The signed checkpoint, whoever signed it: for policies that ask for more than the log's own signature.
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// The extra data. Nobody signed them: anyone who hands a receipt on can change them, verified or not.
    pub fn extra_unsafe(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }
}

/// Parses a number without sign or leading zeros.
fn parse_index(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|index| index.to_string() == text)
}

/// Parses the line of the extra data.
fn parse_extra(line: &str) -> Result<Vec<u8>, ReceiptError> {
    let extra = line.strip_prefix("extra ").and_then(|extra| STANDARD.decode(extra).ok());
    extra.ok_or(ReceiptError::Malformed("its extra data are not base64"))
}

fn parse_hash(line: &str) -> Option<Hash> {
    STANDARD.decode(line).ok()?.try_into().ok()
}

impl FromStr for Receipt {
    type Err = ReceiptError;

    /// Parses a receipt. What parses prints back to the same bytes.
    fn from_str(text: &str) -> Result<Self, ReceiptError> {
        use ReceiptError::Malformed;
        let (head, checkpoint) =
            text.split_once("\n\n").ok_or(Malformed("there is no blank line before the checkpoint"))?;
        if head.len() > MOST_HEAD {
            return Err(Malformed("it is too long"));
        }
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(Malformed("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(parse_extra).transpose()?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(parse_index);
        let index = index.ok_or(Malformed("it has no line `index` with a decimal without leading zeros"))?;
        let proof: Option<Vec<Hash>> = lines.take(MOST_HASHES + 1).map(parse_hash).collect();
        let proof = proof.ok_or(Malformed("a line of its proof is not base64 of 32 bytes"))?;
        let receipt = Self::new(index, proof, checkpoint)?;
        match extra {
            Some(extra) => receipt.with_extra(extra),
            None => Ok(receipt),
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash))?;
        }
        write!(f, "\n{}", self.note)
    }
}
