//! C2SP `signed-note`: a text, a blank line, and lines `— name base64(key id || signature)`.
//!
//! Ed25519 (type 0x01) only. Signatures by keys we do not know are kept and ignored, as the format demands; a
//! signature by the known key that does not verify refuses the whole note.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// The signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;
/// Signature lines that are read; the format asks for at least 16.
const MOST_SIGNATURES: usize = 64;
/// Longest note that is read, in bytes.
const MOST_BYTES: usize = 1024 * 1024;

/// Why text is not a note, or does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not of the form of a signed note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The name cannot be a key's name.
    #[error("a key name is not empty and has no spaces and no '+'")]
    Name,
    /// Not a verifier key of a kind that we know.
    #[error("not an Ed25519 verifier key, name+hash+key")]
    Key,
    /// No signature by the key.
    #[error("note has no signature by {0}")]
    Unsigned(String),
    /// A signature by the key does not verify.
    #[error("signature by {0} does not verify")]
    Signature(String),
}

/// The public side of a note signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

impl VerifierKey {
    /// A key from its name and its 32 bytes.
    pub fn new(name: &str, public: [u8; 32]) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name);
        }
        Ok(Self { name: name.to_owned(), public })
    }

    /// Parses `name+hex(key id)+base64(type || key)`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        let bytes = STANDARD.decode(key).map_err(|_source| NoteError::Key)?;
        let public = match bytes.split_first() {
            Some((&ED25519_TYPE, rest)) => rest.try_into().map_err(|_source| NoteError::Key)?,
            _ => return Err(NoteError::Key),
        };
        let key = Self::new(name, public)?;
        if hex::encode(key.id()) != id {
            return Err(NoteError::Key);
        }
        Ok(key)
    }

    /// `name+hex(key id)+base64(type || key)`.
    pub fn vkey(&self) -> String {
        let key: Vec<u8> = [ED25519_TYPE].into_iter().chain(self.public).collect();
        format!("{}+{}+{}", self.name, hex::encode(self.id()), STANDARD.encode(key))
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The 32 bytes of the public key.
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// SHA-256 of name, newline, type and key: the log id of Rekor v2, whose first four bytes are the key id.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(&self.name);
        hasher.update([b'\n', ED25519_TYPE]);
        hasher.update(self.public);
        hasher.finalize().into()
    }

    /// The four bytes that stand before each signature.
    pub fn id(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.hash();
        [a, b, c, d]
    }

    /// Verifies a raw signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .map_err(|_source| NoteError::Signature(self.name.clone()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// A signed note: parsed, and not verified until [`Note::verify`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// Signs `text` (which must end in a newline) as `key`.
    pub fn sign(text: &str, key: &VerifierKey, sign: impl Fn(&[u8]) -> [u8; 64]) -> Result<Self, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::Malformed("the text does not end in a newline"));
        }
        let bytes = sign(text.as_bytes()).to_vec();
        Ok(Self { text: text.to_owned(), signatures: vec![Signature { name: key.name.clone(), id: key.id(), bytes }] })
    }

    /// Parses a note. What parses prints back to the same bytes.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > MOST_BYTES {
            return Err(NoteError::Malformed("it is too long"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Malformed("it holds control characters"));
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Malformed("there is no blank line"))?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("it does not end in a newline"))?;
        let signatures: Vec<_> =
            lines.split('\n').take(MOST_SIGNATURES + 1).map(Self::parse_line).collect::<Result<_, _>>()?;
        if signatures.len() > MOST_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    fn parse_line(line: &str) -> Result<Signature, NoteError> {
        let malformed = NoteError::Malformed("a signature line is not: dash, name, base64");
        let Some((name, base64)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return Err(malformed);
        };
        let bytes = STANDARD.decode(base64).map_err(|_source| malformed.clone())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, rest)) if is_name(name) && !rest.is_empty() => {
                Ok(Signature { name: name.to_owned(), id: *id, bytes: rest.to_vec() })
            }
            _ => Err(malformed),
        }
    }

    /// The text, verified to be signed by `key`.
    pub fn verify(&self, key: &VerifierKey) -> Result<&str, NoteError> {
        let mut signed = false;
        for signature in self.signatures.iter().filter(|line| line.name == key.name && line.id == key.id()) {
            key.verify(self.text.as_bytes(), &signature.bytes)?;
            signed = true;
        }
        if signed { Ok(&self.text) } else { Err(NoteError::Unsigned(key.name.clone())) }
    }

    /// The text, whoever signed it.
    pub fn text_unsafe(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for signature in &self.signatures {
            let bytes: Vec<u8> = signature.id.iter().chain(&signature.bytes).copied().collect();
            writeln!(f, "\u{2014} {} {}", signature.name, STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}
