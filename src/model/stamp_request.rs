//! Requests for a time-stamp (RFC 3161 section 2.4.1): which are acceptable, in DER, and their form in JSON.
//!
//! `sigstore-js` sends no other form than JSON:
//!
//! ```text
//! {"artifactHash": base64, "hashAlgorithm": "sha256", "nonce": 1, "certificates": false, "tsaPolicyOID": "1.2.3"}
//! ```
//!
//! All but the first two may be missing. It becomes the DER of RFC 3161 ([`der_of_json`]), so that both forms have one
//! judge. Not here: the clock, and the answer (`keys`).

use std::num::IntErrorKind;

use const_oid::{
    ObjectIdentifier,
    db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512},
};
use der::{
    Decode as _, Encode as _,
    asn1::{Int, OctetString, Uint},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use spki::AlgorithmIdentifierOwned;
use x509_tsp::{MessageImprint, TimeStampReq, TspVersion};

use super::{
    json::{self, Base64, JsonError},
    limits,
    stamp_refusal::{Failure, StampRefusal},
};

/// The policy that the public Sigstore time-stamp authority names too: times from the machine's clock, in seconds.
pub const POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.2");

/// A request in our policy, without extensions, and with a nonce that is not too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampRequest {
    imprint: MessageImprint,
    nonce: Option<Int>,
    wants_certificate: bool,
}

impl StampRequest {
    /// Reads a `TimeStampReq`.
    ///
    /// # Errors
    /// A [`StampRefusal`] with the first thing that is not acceptable.
    pub fn from_der(der: &[u8]) -> Result<Self, StampRefusal> {
        let refuse = |failure, problem| Err(StampRefusal::new(failure, problem));
        if der.len() > limits::STAMP_REQUEST {
            return refuse(Failure::BadRequest, "it is longer than 4,096 bytes");
        }
        let Ok(request) = TimeStampReq::from_der(der) else {
            return refuse(Failure::BadDataFormat, "it is not a TimeStampReq in DER");
        };
        if request.req_policy.is_some_and(|policy| policy != POLICY) {
            return refuse(Failure::UnacceptedPolicy, "it asks for a policy other than 1.3.6.1.4.1.57264.2");
        }
        if request.extensions.is_some_and(|extensions| !extensions.is_empty()) {
            return refuse(Failure::UnacceptedExtension, "it has extensions; none is supported");
        }
        if request.nonce.as_ref().is_some_and(|nonce| nonce.as_bytes().len() > limits::NONCE) {
            return refuse(Failure::BadRequest, "its nonce is longer than 32 bytes");
        }
        Ok(Self { imprint: request.message_imprint, nonce: request.nonce, wants_certificate: request.cert_req })
    }

    /// What is to be stamped. Judged by itself, as whoever answers asks the clock before.
    ///
    /// # Errors
    /// A [`StampRefusal`] for a hash that is not known, or that the digest does not fit.
    pub fn imprint(&self) -> Result<Imprint, StampRefusal> {
        let refuse = |failure, problem| Err(StampRefusal::new(failure, problem));
        let MessageImprint { hash_algorithm: hash, hashed_message: digest } = &self.imprint;
        let length = match hash.oid {
            ID_SHA_256 => 32,
            ID_SHA_384 => 48,
            ID_SHA_512 => 64,
            _ => return refuse(Failure::BadAlgorithm, "its hash is none of SHA-256, SHA-384 and SHA-512"),
        };
        if digest.as_bytes().len() != length {
            return refuse(Failure::BadDataFormat, "the length of its digest does not fit the hash");
        }
        if hash.parameters.as_ref().is_some_and(|parameters| !parameters.is_null()) {
            return refuse(Failure::BadAlgorithm, "its hash has parameters");
        }
        Ok(Imprint(self.imprint.clone()))
    }

    /// What the answer repeats, so that it is known for the answer to this request; at most [`limits::NONCE`] bytes.
    pub const fn nonce(&self) -> Option<&Int> {
        self.nonce.as_ref()
    }

    /// Whether the certificate is to be in the answer.
    pub const fn wants_certificate(&self) -> bool {
        self.wants_certificate
    }
}

/// A hash that is known, and a digest that fits it: only [`StampRequest::imprint`] and [`Self::of`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imprint(MessageImprint);

impl Imprint {
    /// SHA-256 of a message.
    ///
    /// # Errors
    /// None that happens: what is encoded is short and fixed.
    pub fn of(message: &[u8]) -> der::Result<Self> {
        Ok(Self(MessageImprint {
            hash_algorithm: AlgorithmIdentifierOwned { oid: ID_SHA_256, parameters: None },
            hashed_message: OctetString::new(Sha256::digest(message).to_vec())?,
        }))
    }

    /// The hash: SHA-256, SHA-384 or SHA-512.
    pub const fn hash(&self) -> ObjectIdentifier {
        self.0.hash_algorithm.oid
    }

    /// The digest.
    pub fn digest(&self) -> &[u8] {
        self.0.hashed_message.as_bytes()
    }
}

/// As it stands in request and answer.
impl From<Imprint> for MessageImprint {
    fn from(imprint: Imprint) -> Self {
        imprint.0
    }
}

/// Why a request in JSON does not become one in DER; a sentence for whoever sent it.
#[derive(Debug, thiserror::Error)]
pub enum StampJsonError {
    /// Not the JSON of a request.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A hash that is not known.
    #[error("hashAlgorithm must be sha256, sha384 or sha512")]
    Hash,
    /// Not a policy.
    #[error("tsaPolicyOID is not an object identifier such as {POLICY}: {0}")]
    Policy(const_oid::Error),
    /// What was read cannot be encoded: our fault, and it does not happen to what is in a body of bounded length.
    #[error("cannot encode the request: {0}")]
    Asn1(#[from] der::Error),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    artifact_hash: Base64,
    hash_algorithm: String,
    /// Upstream takes any size; whoever needs more than 64 bits sends DER.
    nonce: Option<u64>,
    #[serde(default)]
    certificates: bool,
    #[serde(default, rename = "tsaPolicyOID")]
    policy: String,
}

/// The DER (`TimeStampReq`) of a request in JSON. Nothing is judged but the form.
///
/// # Errors
/// A [`StampJsonError`] that says what cannot be read.
pub fn der_of_json(body: &[u8]) -> Result<Vec<u8>, StampJsonError> {
    let query: Query = json::parse(body)?;
    let oid = match query.hash_algorithm.to_ascii_lowercase().as_str() {
        "sha256" => ID_SHA_256,
        "sha384" => ID_SHA_384,
        "sha512" => ID_SHA_512,
        _ => return Err(StampJsonError::Hash),
    };
    let req_policy = match query.policy.as_str() {
        "" => None,
        text => Some(identifier(text).map_err(StampJsonError::Policy)?),
    };
    let request = TimeStampReq {
        version: TspVersion::V1,
        message_imprint: MessageImprint {
            hash_algorithm: AlgorithmIdentifierOwned { oid, parameters: None },
            hashed_message: OctetString::new(query.artifact_hash.0)?,
        },
        req_policy,
        nonce: query.nonce.map(|nonce| Uint::new(&nonce.to_be_bytes()).map(Int::from)).transpose()?,
        cert_req: query.certificates,
        extensions: None,
    };
    Ok(request.to_der()?)
}

/// An object identifier in numbers and dots. Looked at before the library does, which computes the numbers unchecked and
/// recurses over the text.
fn identifier(text: &str) -> Result<ObjectIdentifier, const_oid::Error> {
    if text.len() > limits::NAME {
        return Err(const_oid::Error::Length);
    }
    let too_big = |arc: &str| arc.parse::<u32>().is_err_and(|error| *error.kind() == IntErrorKind::PosOverflow);
    if text.split('.').any(too_big) {
        return Err(const_oid::Error::ArcTooBig);
    }
    ObjectIdentifier::new(text)
}
