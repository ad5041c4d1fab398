//! The JSON form of a time-stamp request. `sigstore-js` sends no other:
//!
//! ```text
//! {"artifactHash": base64, "hashAlgorithm": "sha256", "nonce": 1, "certificates": false, "tsaPolicyOID": "1.2.3"}
//! ```
//!
//! All but the first two may be missing. It becomes the DER of RFC 3161, so that both forms have one judge.

use const_oid::{
    ObjectIdentifier,
    db::rfc5912::{ID_SHA_256, ID_SHA_384, ID_SHA_512},
};
use der::{
    Encode as _,
    asn1::{Int, OctetString, Uint},
};
use serde::Deserialize;
use spki::AlgorithmIdentifierOwned;
use x509_tsp::{MessageImprint, TimeStampReq, TspVersion};

use crate::sigstore::{
    Refusal,
    json::{self, Base64},
};

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

/// The request in DER (`TimeStampReq`). Nothing is judged but the form.
///
/// # Errors
/// A refusal that says what cannot be read.
pub(super) fn to_der(body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let query: Query = json::parse(body)?;
    let oid = match query.hash_algorithm.to_ascii_lowercase().as_str() {
        "sha256" => ID_SHA_256,
        "sha384" => ID_SHA_384,
        "sha512" => ID_SHA_512,
        _ => return Err(Refusal::invalid("hashAlgorithm must be sha256, sha384 or sha512")),
    };
    let policy = match query.policy.as_str() {
        "" => None,
        text => Some(ObjectIdentifier::new(text).map_err(|source| {
            Refusal::invalid(format!("tsaPolicyOID is not an object identifier such as 1.3.6.1.4.1.57264.2: {source}"))
        })?),
    };
    encode(query, oid, policy).map_err(|source| Refusal::internal(&source))
}

fn encode(query: Query, oid: ObjectIdentifier, policy: Option<ObjectIdentifier>) -> der::Result<Vec<u8>> {
    TimeStampReq {
        version: TspVersion::V1,
        message_imprint: MessageImprint {
            hash_algorithm: AlgorithmIdentifierOwned { oid, parameters: None },
            hashed_message: OctetString::new(query.artifact_hash.0)?,
        },
        req_policy: policy,
        nonce: query.nonce.map(|nonce| Uint::new(&nonce.to_be_bytes()).map(Int::from)).transpose()?,
        cert_req: query.certificates,
        extensions: None,
    }
    .to_der()
}
