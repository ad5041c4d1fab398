//! C2SP `signed-note`: a text, a blank line, and lines `— name base64(key id || signature)`.
//!
//! A note carries any number of signatures, of kinds that this module need not know: lines by unknown keys are kept as
//! they are and ignored, as the format demands. A line is known when name *and* key id are those of a key; a known line
//! that does not verify refuses the whole note. Plain Ed25519 (type 0x01) is verified here, the timestamped kinds (0x04,
//! 0x06) in [`cosignature`](super::cosignature).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

/// The signature type of plain Ed25519.
const ED25519_TYPE: u8 = 1;
/// Signature lines that are read; the format asks for at least 16. A log with two keys and 64 witnesses fits.
const MOST_SIGNATURES: usize = 128;
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
    /// Not a verifier key of a kind that fits the place.
    #[error("not a verifier key of a kind that can be used here: name+key id+key")]
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

/// Whether a text can be the name of a key.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('+') && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// SHA-256 of name, newline, type and key; the key id is its first four bytes.
pub(super) fn key_hash(name: &str, kind: u8, key: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(name);
    hasher.update([b'\n', kind]);
    hasher.update(key);
    hasher.finalize().into()
}

/// The four bytes that stand before each signature of a key.
pub(super) fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = key_hash(name, kind, key);
    [a, b, c, d]
}

/// Prints `name+hex(key id)+base64(type || key)`.
pub(super) fn print_vkey(name: &str, kind: u8, key: &[u8]) -> String {
    let bytes: Vec<u8> = [kind].into_iter().chain(key.iter().copied()).collect();
    format!("{name}+{}+{}", hex::encode(key_id(name, kind, key)), STANDARD.encode(bytes))
}

/// Parses `name+hex(key id)+base64(type || key)` into name, type and key. The key id must be theirs.
pub(super) fn parse_vkey(text: &str) -> Result<(&str, u8, Vec<u8>), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::Key);
    };
    let mut bytes = STANDARD.decode(key).map_err(|_source| NoteError::Key)?;
    if bytes.is_empty() {
        return Err(NoteError::Key);
    }
    let kind = bytes.remove(0);
    if !is_name(name) {
        return Err(NoteError::Name);
    }
    if hex::encode(key_id(name, kind, &bytes)) != id {
        return Err(NoteError::Key);
    }
    Ok((name, kind, bytes))
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
        match parse_vkey(text)? {
            (name, ED25519_TYPE, key) => Self::new(name, key.try_into().map_err(|_source| NoteError::Key)?),
            _ => Err(NoteError::Key),
        }
    }

    /// `name+hex(key id)+base64(type || key)`.
    pub fn vkey(&self) -> String {
        print_vkey(&self.name, ED25519_TYPE, &self.public)
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
        key_hash(&self.name, ED25519_TYPE, &self.public)
    }

    /// The four bytes that stand before each signature.
    pub fn id(&self) -> [u8; 4] {
        key_id(&self.name, ED25519_TYPE, &self.public)
    }

    /// Verifies a raw signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .map_err(|_source| NoteError::Signature(self.name.clone()))
    }
}

/// One signature line, of any kind: `— name base64(key id || signature)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl SignatureLine {
    /// A line from the name and id of its key and the signature's bytes.
    pub fn new(name: &str, id: [u8; 4], bytes: Vec<u8>) -> Result<Self, NoteError> {
        if !is_name(name) {
            return Err(NoteError::Name);
        }
        if bytes.is_empty() {
            return Err(NoteError::Malformed("a signature is empty"));
        }
        Ok(Self { name: name.to_owned(), id, bytes })
    }

    /// The name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of the key.
    pub const fn id(&self) -> [u8; 4] {
        self.id
    }

    /// The signature; what its bytes mean depends on the kind of the key.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the line claims to be by the key of this name and id.
    pub fn is_by(&self, name: &str, id: [u8; 4]) -> bool {
        self.name == name && self.id == id
    }

    /// Parses one line, without its newline.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let malformed = NoteError::Malformed("a signature line is not: dash, name, base64");
        let Some((name, base64)) = line.strip_prefix("\u{2014} ").and_then(|rest| rest.split_once(' ')) else {
            return Err(malformed);
        };
        let bytes = STANDARD.decode(base64).map_err(|_source| malformed.clone())?;
        match bytes.split_first_chunk::<4>() {
            Some((id, rest)) if is_name(name) && !rest.is_empty() => Self::new(name, *id, rest.to_vec()),
            _ => Err(malformed),
        }
    }

    /// Parses lines that each end in a newline: the end of a note, or the answer of a witness. At least one.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, NoteError> {
        let lines = text.strip_suffix('\n').ok_or(NoteError::Malformed("it does not end in a newline"))?;
        let lines: Vec<Self> =
            lines.split('\n').take(MOST_SIGNATURES + 1).map(Self::parse).collect::<Result<_, _>>()?;
        if lines.len() > MOST_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        Ok(lines)
    }
}

impl std::fmt::Display for SignatureLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.id.iter().chain(&self.bytes).copied().collect();
        write!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A signed note: parsed, and not verified until [`Note::verify`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Signs `text` (which must end in a newline) as `key`. `sign` gives a signature, or none if it cannot now.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] if it gave none.
    pub fn sign<S: Into<Option<[u8; 64]>>>(
        text: &str,
        key: &VerifierKey,
        sign: impl Fn(&[u8]) -> S,
    ) -> Result<Self, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::Malformed("the text does not end in a newline"));
        }
        let signature = sign(text.as_bytes()).into().ok_or_else(|| NoteError::Unsigned(key.name.clone()))?;
        let line = SignatureLine::new(&key.name, key.id(), signature.to_vec())?;
        Ok(Self { text: text.to_owned(), signatures: vec![line] })
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
        Ok(Self { text: format!("{text}\n"), signatures: SignatureLine::parse_all(lines)? })
    }

    /// The text, verified to be signed by `key`.
    pub fn verify(&self, key: &VerifierKey) -> Result<&str, NoteError> {
        let mut signed = false;
        for line in self.lines_by(&key.name, key.id()) {
            key.verify(self.text.as_bytes(), &line.bytes)?;
            signed = true;
        }
        if signed { Ok(&self.text) } else { Err(NoteError::Unsigned(key.name.clone())) }
    }

    /// All signature lines, in their order.
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// The lines that claim to be by the key of this name and id.
    pub fn lines_by(&self, name: &str, id: [u8; 4]) -> impl Iterator<Item = &SignatureLine> {
        self.signatures.iter().filter(move |line| line.is_by(name, id))
    }

    /// Adds a line at the end; it takes the place of an earlier one by the same key. Whoever adds has verified it.
    pub fn add(&mut self, line: SignatureLine) -> Result<(), NoteError> {
        self.signatures.retain(|other| !other.is_by(&line.name, line.id));
        if self.signatures.len() >= MOST_SIGNATURES {
            return Err(NoteError::Malformed("it has too many signatures"));
        }
        self.signatures.push(line);
        Ok(())
    }

    /// Leaves only the lines for which `wanted` is true.
    pub fn keep(&mut self, wanted: impl Fn(&SignatureLine) -> bool) {
        self.signatures.retain(wanted);
    }

    /// The text, whoever signed it.
    pub fn text_unsafe(&self) -> &str {
        &self.text
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.signatures {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
