//! C2SP `tlog-cosignature`: a witness's word that a checkpoint is consistent with all it saw of the log before.
//!
//! Two kinds. *Ed25519* (type 0x04) signs `cosignature/v1`, a line with the time, and the whole text of the note; it
//! does not sign the cosigner's name, so one key serves one cosigner. *ML-DSA-44* (type 0x06) signs the structure
//! `cosigned_message`, which names the cosigner and the log, and says nothing about extension lines: a checkpoint that
//! has some is not signed and not verified with it. A signature line holds the time (u64, big endian) and the
//! signature. Subtrees that do not begin at 0 have no checkpoint, and are not made here.
//!
//! A log may sign its own checkpoints with ML-DSA-44 too; [`LogKey`] is either kind.

use std::fmt;

use aws_lc_rs::signature::{ED25519, ML_DSA_44, ML_DSA_44_SIGNING, UnparsedPublicKey};

use super::{
    checkpoint::{Checkpoint, CheckpointError},
    note::{self, Note, NoteError, SignatureLine, VerifierKey},
};

/// The signature type of timestamped Ed25519.
const ED25519_TYPE: u8 = 4;
/// The signature type of timestamped ML-DSA-44.
const ML_DSA_44_TYPE: u8 = 6;
/// Bytes of an ML-DSA-44 public key.
const ML_DSA_44_KEY: usize = 1_312;
/// What an ML-DSA-44 message begins with.
const LABEL: &[u8; 12] = b"subtree/v1\n\0";
/// The largest time that may be signed.
const MOST_TIME: u64 = u64::MAX >> 1;

#[derive(Clone, PartialEq, Eq)]
enum Public {
    Ed25519([u8; 32]),
    MlDsa44(Box<[u8; ML_DSA_44_KEY]>),
}

/// The public side of a cosigner.
#[derive(Clone, PartialEq, Eq)]
pub struct CosignerKey {
    name: String,
    public: Public,
}

impl CosignerKey {
    /// An Ed25519 cosigner from its name and its 32 bytes.
    pub fn ed25519(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        Self::new(name, Public::Ed25519(public))
    }

    /// An ML-DSA-44 cosigner from its name (at most 255 bytes) and its 1,312 bytes.
    pub fn ml_dsa_44(name: &str, public: &[u8]) -> Result<Self, NoteError> {
        let public: Box<[u8; ML_DSA_44_KEY]> =
            public.to_vec().into_boxed_slice().try_into().map_err(|_source| NoteError::Key)?;
        prefixed(name)?;
        Self::new(name, Public::MlDsa44(public))
    }

    fn new(name: &str, public: Public) -> Result<Self, NoteError> {
        if !note::is_name(name) {
            return Err(NoteError::Name);
        }
        Ok(Self { name: name.to_owned(), public })
    }

    /// Parses a verifier key of type 0x04 or 0x06, `name+hex(key id)+base64(type || key)`.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        match note::parse_vkey(vkey)? {
            (name, ED25519_TYPE, key) => Self::ed25519(name, key.try_into().map_err(|_source| NoteError::Key)?),
            (name, ML_DSA_44_TYPE, key) => Self::ml_dsa_44(name, &key),
            _ => Err(NoteError::Key),
        }
    }

    /// The verifier key, `name+hex(key id)+base64(type || key)`.
    pub fn vkey(&self) -> String {
        note::print_vkey(&self.name, self.kind(), self.public())
    }

    /// The cosigner's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the public key.
    pub fn public(&self) -> &[u8] {
        match &self.public {
            Public::Ed25519(key) => key,
            Public::MlDsa44(key) => key.as_slice(),
        }
    }

    /// The four bytes that stand before each signature.
    pub fn id(&self) -> [u8; 4] {
        note::key_id(&self.name, self.kind(), self.public())
    }

    const fn kind(&self) -> u8 {
        match self.public {
            Public::Ed25519(_) => ED25519_TYPE,
            Public::MlDsa44(_) => ML_DSA_44_TYPE,
        }
    }

    /// The bytes that a cosignature of the checkpoint `text` at `time` (seconds since 1970) signs.
    ///
    /// # Errors
    /// For ML-DSA-44, a text that is not a checkpoint, or has extension lines.
    pub fn message(&self, text: &str, time: u64) -> Result<Vec<u8>, NoteError> {
        if time > MOST_TIME {
            return Err(NoteError::Malformed("a cosignature's time is past the end of time"));
        }
        match &self.public {
            Public::Ed25519(_) => Ok(format!("cosignature/v1\ntime {time}\n{text}").into_bytes()),
            Public::MlDsa44(_) => {
                let (checkpoint, extended) = checkpoint_of(text)
                    .map_err(|_source| NoteError::Malformed("what an ML-DSA-44 key signs is not a checkpoint"))?;
                if extended {
                    return Err(NoteError::Malformed("ML-DSA-44 does not sign the extension lines of a checkpoint"));
                }
                Ok([
                    LABEL.as_slice(),
                    &prefixed(&self.name)?,
                    &time.to_be_bytes(),
                    &prefixed(&checkpoint.origin)?,
                    &0_u64.to_be_bytes(),
                    &checkpoint.size.to_be_bytes(),
                    &checkpoint.root,
                ]
                .concat())
            }
        }
    }

    /// Cosigns the checkpoint `text` at `time`. `sign` signs with the key of this public side.
    ///
    /// # Errors
    /// As [`Self::message`]; also if `sign` gives nothing, or not a signature by this key.
    pub fn cosign(
        &self,
        text: &str,
        time: u64,
        sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<SignatureLine, NoteError> {
        let signature = sign(&self.message(text, time)?).ok_or_else(|| NoteError::Signature(self.name.clone()))?;
        let line = SignatureLine::new(&self.name, self.id(), [time.to_be_bytes().as_slice(), &signature].concat())?;
        self.verify_line(text, &line)?;
        Ok(line)
    }

    /// Verifies one line by this key over `text`; the time it was made, in seconds since 1970.
    pub fn verify_line(&self, text: &str, line: &SignatureLine) -> Result<u64, NoteError> {
        let failed = || NoteError::Signature(self.name.clone());
        if !line.is_by(&self.name, self.id()) {
            return Err(NoteError::Unsigned(self.name.clone()));
        }
        let (time, signature) = line.bytes().split_first_chunk::<8>().ok_or_else(failed)?;
        let time = u64::from_be_bytes(*time);
        let message = self.message(text, time)?;
        let verified = match &self.public {
            Public::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key.as_slice()).verify(&message, signature),
            Public::MlDsa44(_) if signature.len() != ML_DSA_44_SIGNING.signature_len() => return Err(failed()),
            Public::MlDsa44(key) => UnparsedPublicKey::new(&ML_DSA_44, key.as_slice()).verify(&message, signature),
        };
        verified.map_err(|_source| failed())?;
        Ok(time)
    }

    /// Verifies all lines of `note` by this key; the newest time.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] without a line; [`NoteError::Signature`] if one does not verify.
    pub fn verify(&self, note: &Note) -> Result<u64, NoteError> {
        let mut newest = None;
        for line in note.lines_by(&self.name, self.id()) {
            newest = newest.max(Some(self.verify_line(note.text_unsafe(), line)?));
        }
        newest.ok_or_else(|| NoteError::Unsigned(self.name.clone()))
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CosignerKey")
            .field("name", &self.name)
            .field("id", &hex::encode(self.id()))
            .finish_non_exhaustive()
    }
}

/// The length in one byte, then the text: TLS presentation language, `<1..2^8-1>`.
fn prefixed(text: &str) -> Result<Vec<u8>, NoteError> {
    match u8::try_from(text.len()) {
        Ok(length) if length > 0 => Ok([&[length], text.as_bytes()].concat()),
        _ => Err(NoteError::Malformed("a name that is signed with ML-DSA-44 has 1 to 255 bytes")),
    }
}

/// Parses the text of anybody's checkpoint. Whether it has extension lines is said beside it: we write none, other
/// logs may.
pub(super) fn checkpoint_of(text: &str) -> Result<(Checkpoint, bool), CheckpointError> {
    let end = text.match_indices('\n').nth(2).map(|(at, _)| at + 1).ok_or(CheckpointError::Malformed)?;
    let (head, extensions) = text.split_at_checked(end).ok_or(CheckpointError::Malformed)?;
    let checkpoint = Checkpoint::parse(head)?;
    match extensions.strip_suffix('\n') {
        Some(lines) if lines.split('\n').all(|line| !line.is_empty()) => Ok((checkpoint, true)),
        None if extensions.is_empty() => Ok((checkpoint, false)),
        _ => Err(CheckpointError::Malformed),
    }
}

/// The key with which a log signs its checkpoints; its name is the log's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogKey {
    /// Plain Ed25519, type 0x01.
    Ed25519(VerifierKey),
    /// ML-DSA-44, type 0x06. A log's signature may have the time 0.
    MlDsa44(CosignerKey),
}

impl LogKey {
    /// Parses a verifier key of type 0x01 or 0x06. An Ed25519 *cosigner* cannot be a log.
    pub fn parse(vkey: &str) -> Result<Self, NoteError> {
        match note::parse_vkey(vkey)? {
            (_, ML_DSA_44_TYPE, _) => CosignerKey::parse(vkey).map(Self::MlDsa44),
            _ => VerifierKey::parse(vkey).map(Self::Ed25519),
        }
    }

    /// The verifier key, `name+hex(key id)+base64(type || key)`.
    pub fn vkey(&self) -> String {
        match self {
            Self::Ed25519(key) => key.vkey(),
            Self::MlDsa44(key) => key.vkey(),
        }
    }

    /// The log's origin.
    pub fn origin(&self) -> &str {
        match self {
            Self::Ed25519(key) => key.name(),
            Self::MlDsa44(key) => key.name(),
        }
    }

    /// The bytes of the public key.
    pub fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.public(),
            Self::MlDsa44(key) => key.public(),
        }
    }

    /// Whether a line claims to be by this key.
    pub fn is_of(&self, line: &SignatureLine) -> bool {
        match self {
            Self::Ed25519(key) => line.is_by(key.name(), key.id()),
            Self::MlDsa44(key) => line.is_by(key.name(), key.id()),
        }
    }

    /// Verifies that `note` is signed by the key.
    pub fn verify(&self, note: &Note) -> Result<(), NoteError> {
        match self {
            Self::Ed25519(key) => note.verify(key).map(drop),
            Self::MlDsa44(key) => key.verify(note).map(drop),
        }
    }
}
