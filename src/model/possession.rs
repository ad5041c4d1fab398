//! How a caller shows a key and that they hold it, as the requests of Fulcio have it, version 2 and version 1 in JSON.
//!
//! Nothing is checked here but the form: whether the proof is one depends on the token (`issuing`). **What is refused here
//! is refused without a word out of the body**, as one of its values may be a token.

use serde::Deserialize;

use super::json::{Base64, decode};

/// Why a request for a certificate cannot be read; a sentence for whoever sent it, in fixed words and numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PossessionError {
    /// Not JSON.
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson {
        /// Where, from 1.
        line: usize,
        /// Where, from 1; 0 before the first character.
        column: usize,
    },
    /// A field of another kind, as a number in place of a text.
    #[error("the body has a field of the wrong kind (line {line}, column {column})")]
    Kind {
        /// Where, from 1.
        line: usize,
        /// Where, from 1; 0 before the first character.
        column: usize,
    },
    /// Key and certificate request.
    #[error("both publicKeyRequest and certificateSigningRequest are given; send one of them")]
    Both,
    /// Neither key nor certificate request.
    #[error("neither publicKeyRequest nor certificateSigningRequest is given; send one of them")]
    Neither,
    /// The same, in version 1.
    #[error("neither publicKey.content nor certificateSigningRequest is given; send one of them")]
    NeitherV1,
    /// A proof without its key.
    #[error("publicKeyRequest.publicKey.content is missing; send the key in PEM")]
    NoKey,
}

/// How a caller shows a key, and that they hold it. Nothing is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Possession {
    /// A key with a signature over a claim of the token.
    Proof {
        /// The key.
        key: EncodedKey,
        /// The signature: ECDSA in ASN.1 DER, RSA PKCS#1 v1.5, or Ed25519ph.
        signature: Vec<u8>,
    },
    /// A certificate request, PKCS#10 in PEM.
    Request(Vec<u8>),
}

/// A public key as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedKey {
    /// `SubjectPublicKeyInfo` in PEM.
    Pem(String),
    /// `SubjectPublicKeyInfo` in DER.
    Der(Vec<u8>),
}

/// `CreateSigningCertificateRequest`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    credentials: Option<Credentials>,
    #[serde(alias = "public_key_request")]
    public_key_request: Option<PublicKeyRequest>,
    #[serde(alias = "certificate_signing_request")]
    certificate_signing_request: Option<Base64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(alias = "oidc_identity_token")]
    oidc_identity_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyRequest {
    #[serde(alias = "public_key")]
    public_key: Option<PublicKey<String>>,
    #[serde(alias = "proof_of_possession")]
    proof_of_possession: Option<Base64>,
}

/// The algorithm that may stand beside it is passed over: the key says it.
#[derive(Deserialize)]
struct PublicKey<T> {
    content: Option<T>,
}

/// The same of version 1. Whatever the identity is, the proof is called an e-mail address.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BodyV1 {
    /// DER or PEM.
    #[serde(alias = "public_key")]
    public_key: Option<PublicKey<Base64>>,
    #[serde(alias = "signed_email_address")]
    signed_email_address: Option<Base64>,
    #[serde(alias = "certificate_signing_request")]
    certificate_signing_request: Option<Base64>,
}

impl Possession {
    /// Reads a body of version 2: the token, if it is there, and how possession is shown.
    ///
    /// # Errors
    /// A [`PossessionError`].
    pub fn from_json(body: &[u8]) -> Result<(Option<String>, Self), PossessionError> {
        let request: Body = parse(body)?;
        let token = request.credentials.and_then(|credentials| credentials.oidc_identity_token);
        let csr = request.certificate_signing_request.map(|csr| csr.0);
        let proof = request.public_key_request.map(|proof| {
            let key = proof.public_key.and_then(|key| key.content).unwrap_or_default();
            (key, proof.proof_of_possession.map(|proof| proof.0).unwrap_or_default())
        });
        Ok((token.filter(|token| !token.is_empty()), Self::of(proof, csr)?))
    }

    /// Reads a body of version 1, which has no token.
    ///
    /// # Errors
    /// A [`PossessionError`].
    pub fn from_json_v1(body: &[u8]) -> Result<Self, PossessionError> {
        let request: BodyV1 = parse(body)?;
        let csr = request.certificate_signing_request.map(|csr| csr.0).filter(|csr| !csr.is_empty());
        if let Some(csr) = csr {
            return Ok(Self::Request(csr));
        }
        let key = request.public_key.and_then(|key| key.content).map(|content| content.0).unwrap_or_default();
        if key.is_empty() {
            return Err(PossessionError::NeitherV1);
        }
        let key = match String::from_utf8(key) {
            Ok(text) if text.trim_start().starts_with("-----BEGIN") => EncodedKey::Pem(text),
            Ok(text) => EncodedKey::Der(text.into_bytes()),
            Err(binary) => EncodedKey::Der(binary.into_bytes()),
        };
        let signature = request.signed_email_address.map(|proof| proof.0).unwrap_or_default();
        Ok(Self::Proof { key, signature })
    }

    /// One of the two ways to show possession: a key (in PEM, or its DER in base64) with a signature, or a certificate
    /// request. An empty request is none: some clients send the field they do not use.
    ///
    /// # Errors
    /// [`PossessionError::Both`], [`PossessionError::Neither`] or [`PossessionError::NoKey`].
    pub fn of(proof: Option<(String, Vec<u8>)>, csr: Option<Vec<u8>>) -> Result<Self, PossessionError> {
        match (proof, csr.filter(|csr| !csr.is_empty())) {
            (None, Some(csr)) => Ok(Self::Request(csr)),
            (Some((key, signature)), None) => Ok(Self::Proof { key: EncodedKey::of(key)?, signature }),
            (Some(_), Some(_)) => Err(PossessionError::Both),
            (None, None) => Err(PossessionError::Neither),
        }
    }
}

impl EncodedKey {
    /// A key in PEM, or its DER in base64.
    fn of(content: String) -> Result<Self, PossessionError> {
        if content.is_empty() {
            return Err(PossessionError::NoKey);
        }
        match decode(&content) {
            Ok(der) => Ok(Self::Der(der)),
            Err(_text) => Ok(Self::Pem(content)),
        }
    }
}

/// Parses a body; of what is wrong with it, the kind and the place are told.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, PossessionError> {
    serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        if error.is_data() { PossessionError::Kind { line, column } } else { PossessionError::NotJson { line, column } }
    })
}
