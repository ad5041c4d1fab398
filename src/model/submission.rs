//! A signature that a client made itself and asks to have recorded, as the request of Rekor v2 has it, and the log leaf of
//! one that verifies.
//!
//! [`Submission::from_json`] reads the request in JSON; whoever has it in protobuf puts the same parts together by
//! [`Submission::of_digest`] and [`Submission::of_envelope`]. Nothing is believed until [`Submission::leaf`]: there is no
//! leaf of what does not verify. Not here: whose signatures are wanted, and the log (`recording`).

use serde::Deserialize;

use super::{
    json::{self, Base64, JsonError, KeyDetails, unknown_scheme},
    leaf::{self, Verifier},
    limits,
    public_key::{PublicKey, PublicKeyError, Scheme},
};

/// Why a signature is not recorded; a sentence for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// Not the JSON of a request.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A part is not there, or is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Two requests in one.
    #[error("hashedRekordRequestV002 and dsseRequestV002 are both there; send one of them")]
    Both,
    /// No scheme is named, or one that is not known.
    #[error("{}", unknown_scheme())]
    KeyDetails,
    /// Certificate and key, or neither of them.
    #[error("a verifier has either an x509Certificate or a publicKey")]
    Verifier,
    /// An entry records one signature, as a bundle holds one.
    #[error("an envelope with exactly one signature and one verifier is wanted")]
    Signatures,
    /// Longer than what is recorded.
    #[error("{what} has {found} bytes; at most {most} are recorded")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// The key is not accepted, or the signature does not verify with it.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// The client names a scheme that clients would not derive from this key.
    #[error("a key of this kind signs by {}, and the request names {}", wanted.details(), named.details())]
    Scheme {
        /// What the request names.
        named: Scheme,
        /// What goes with the key.
        wanted: Scheme,
    },
}

/// By what a signature verifies, as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// A `SubjectPublicKeyInfo`, DER.
    Public(Vec<u8>),
}

impl Key {
    /// The one of the two that is there.
    ///
    /// # Errors
    /// [`SubmissionError::Verifier`] for both and for neither.
    pub fn of(certificate: Option<Vec<u8>>, public: Option<Vec<u8>>) -> Result<Self, SubmissionError> {
        match (certificate, public) {
            (Some(der), None) => Ok(Self::Certificate(der)),
            (None, Some(der)) => Ok(Self::Public(der)),
            _ => Err(SubmissionError::Verifier),
        }
    }
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// Something with this digest, by the hash of the scheme.
    Digest(Vec<u8>),
    /// The pre-authentication encoding of an envelope with this type and payload (DSSE protocol).
    Envelope {
        /// Its `payloadType`.
        kind: String,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// A signature that a client asks to have recorded. Digest and signature are not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    signed: Signed,
    /// ECDSA in ASN.1 DER, RSA PKCS#1 v1.5, or Ed25519ph.
    signature: Vec<u8>,
    key: Key,
    /// The scheme that the client says it signed by.
    scheme: Scheme,
}

impl Submission {
    /// Reads a `CreateEntryRequest` in JSON.
    ///
    /// # Errors
    /// A [`SubmissionError`] that says what is wrong with its form; nothing is verified.
    pub fn from_json(body: &[u8]) -> Result<Self, SubmissionError> {
        let request: CreateEntryRequest = json::parse(body)?;
        match (request.hashed_rekord, request.dsse) {
            (Some(request), None) => {
                let signature =
                    request.signature.ok_or(SubmissionError::Missing("hashedRekordRequestV002.signature"))?;
                let verifier = signature.verifier.ok_or(SubmissionError::Missing("signature.verifier"))?;
                Self::of_digest(request.digest.0, signature.content.0, verifier.key()?)
            }
            (None, Some(request)) => {
                let envelope = request.envelope.ok_or(SubmissionError::Missing("dsseRequestV002.envelope"))?;
                let signatures = envelope.signatures.into_iter().map(|signature| signature.sig.0).collect();
                let keys = request.verifiers.into_iter().map(VerifierSent::key).collect::<Result<_, _>>()?;
                Self::of_envelope(envelope.payload_type, envelope.payload.0, signatures, keys)
            }
            (None, None) => Err(SubmissionError::Missing("hashedRekordRequestV002")),
            (Some(_), Some(_)) => Err(SubmissionError::Both),
        }
    }

    /// A signature over something with this digest.
    ///
    /// # Errors
    /// [`SubmissionError::Missing`] if digest or signature are empty.
    pub fn of_digest(
        digest: Vec<u8>,
        signature: Vec<u8>,
        (key, scheme): (Key, Scheme),
    ) -> Result<Self, SubmissionError> {
        if digest.is_empty() {
            return Err(SubmissionError::Missing("hashedRekordRequestV002.digest"));
        }
        Self::new(Signed::Digest(digest), signature, key, scheme)
    }

    /// The signature of an envelope.
    ///
    /// # Errors
    /// [`SubmissionError::Signatures`] if there is not one signature and one key; [`SubmissionError::Missing`] if the
    /// signature is empty.
    pub fn of_envelope(
        kind: String,
        payload: Vec<u8>,
        mut signatures: Vec<Vec<u8>>,
        mut keys: Vec<(Key, Scheme)>,
    ) -> Result<Self, SubmissionError> {
        match (signatures.pop(), keys.pop()) {
            (Some(signature), Some((key, scheme))) if signatures.is_empty() && keys.is_empty() => {
                Self::new(Signed::Envelope { kind, payload }, signature, key, scheme)
            }
            _ => Err(SubmissionError::Signatures),
        }
    }

    fn new(signed: Signed, signature: Vec<u8>, key: Key, scheme: Scheme) -> Result<Self, SubmissionError> {
        if signature.is_empty() {
            return Err(SubmissionError::Missing("the signature's content"));
        }
        Ok(Self { signed, signature, key, scheme })
    }

    /// What was signed.
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// By what it verifies.
    pub const fn key(&self) -> &Key {
        &self.key
    }

    /// The scheme that the client says it signed by.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The log leaf of the signature, if it verifies.
    ///
    /// # Errors
    /// [`SubmissionError::TooLong`], [`SubmissionError::Key`] or [`SubmissionError::Scheme`].
    pub fn leaf(&self) -> Result<Vec<u8>, SubmissionError> {
        let Self { signed, signature, key, scheme } = self;
        bounded("the signature", signature, limits::ENTRY_SIGNATURE)?;
        let (public, verifier) = match key {
            Key::Certificate(der) => {
                bounded("the certificate", der, limits::ENTRY_CERTIFICATE)?;
                (PublicKey::from_certificate(der)?, Verifier::Certificate(der))
            }
            Key::Public(der) => (PublicKey::from_spki(der)?, Verifier::Key(der)),
        };
        if public.scheme() != *scheme {
            return Err(SubmissionError::Scheme { named: *scheme, wanted: public.scheme() });
        }
        let digest = match signed {
            Signed::Digest(digest) => digest.clone(),
            Signed::Envelope { kind, payload } => {
                bounded("the payload", payload, limits::STATEMENT)?;
                bounded("the payload's type", kind.as_bytes(), limits::URI)?;
                scheme.digest(&sigstore_types::pae(kind, payload))
            }
        };
        public.verify_digest(&digest, signature)?;
        Ok(leaf::entry(*scheme, &digest, signature, verifier))
    }
}

fn bounded(what: &'static str, bytes: &[u8], most: usize) -> Result<(), SubmissionError> {
    if bytes.len() > most {
        return Err(SubmissionError::TooLong { what, found: bytes.len(), most });
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct CreateEntryRequest {
    #[serde(rename = "hashedRekordRequestV002", alias = "hashed_rekord_request_v002")]
    hashed_rekord: Option<HashedRekord>,
    #[serde(rename = "dsseRequestV002", alias = "dsse_request_v002")]
    dsse: Option<Dsse>,
}

#[derive(Debug, Deserialize)]
struct HashedRekord {
    #[serde(default)]
    digest: Base64,
    signature: Option<Signature>,
}

#[derive(Debug, Deserialize)]
struct Signature {
    #[serde(default)]
    content: Base64,
    verifier: Option<VerifierSent>,
}

#[derive(Debug, Deserialize)]
struct Dsse {
    envelope: Option<Envelope>,
    #[serde(default)]
    verifiers: Vec<VerifierSent>,
}

#[derive(Debug, Deserialize)]
struct Envelope {
    #[serde(default)]
    payload: Base64,
    #[serde(default, rename = "payloadType", alias = "payload_type")]
    payload_type: String,
    #[serde(default)]
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Debug, Deserialize)]
struct EnvelopeSignature {
    #[serde(default)]
    sig: Base64,
}

#[derive(Debug, Deserialize)]
struct VerifierSent {
    #[serde(rename = "publicKey", alias = "public_key")]
    public_key: Option<RawBytes>,
    #[serde(rename = "x509Certificate", alias = "x509_certificate")]
    certificate: Option<RawBytes>,
    #[serde(rename = "keyDetails", alias = "key_details")]
    key_details: Option<KeyDetails>,
}

#[derive(Debug, Deserialize)]
struct RawBytes {
    #[serde(default, rename = "rawBytes", alias = "raw_bytes")]
    raw_bytes: Base64,
}

impl VerifierSent {
    fn key(self) -> Result<(Key, Scheme), SubmissionError> {
        let scheme = self.key_details.ok_or(SubmissionError::KeyDetails)?.0;
        let raw = |bytes: RawBytes| bytes.raw_bytes.0;
        Ok((Key::of(self.certificate.map(raw), self.public_key.map(raw))?, scheme))
    }
}
