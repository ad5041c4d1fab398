//! Sigstore bundles, version 0.3: made without the log entry first (that is the *payload* that the log keeps beside a
//! leaf), and completed with the entry and a proof whenever somebody asks.
//!
//! The types are those of `sigstore-types`; verification is in [`super::verify`].

use sigstore_bundle::{BundleV03, TlogEntryBuilder, VerificationMaterialV03};
use sigstore_types::{
    Bundle, CanonicalizedBody, DerCertificate, DsseEnvelope, DsseSignature, HashAlgorithm, KeyId, LogIndex, LogKeyId,
    PayloadBytes, Sha256Hash, SignatureBytes, TimestampToken,
    bundle::{CheckpointData, KindVersion, MessageDigest, MessageSignature, SignatureContent},
};

use super::{digest::Digest, statement::PAYLOAD_TYPE};

/// The media type of the bundles that we write.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The parts of a bundle cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bundle cannot be put together: {0}")]
pub struct BundleError(String);

/// Where an entry stands in a log, and the proof of it.
#[derive(Debug, Clone, Copy)]
pub struct LogProof<'a> {
    /// The log's 32-byte id.
    pub log_id: &'a [u8; 32],
    /// The entry's index.
    pub index: u64,
    /// The size of the tree that the proof and the checkpoint are for.
    pub tree_size: u64,
    /// That tree's root.
    pub root: &'a [u8; 32],
    /// The inclusion proof, leaf to root.
    pub hashes: &'a [[u8; 32]],
    /// The signed checkpoint.
    pub checkpoint: &'a str,
}

/// The DSSE pre-authentication encoding of a statement: what is signed.
pub fn pae(statement: &[u8]) -> Vec<u8> {
    sigstore_types::pae(PAYLOAD_TYPE, statement)
}

/// By what a bundle's signature verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Material {
    /// A signing certificate, DER.
    Certificate(Vec<u8>),
    /// A key that verifiers have; the hint tells it from others, and is not authenticated.
    Key {
        /// By convention the digest of the `SubjectPublicKeyInfo`, in base64.
        hint: String,
    },
}

/// A certificate.
impl From<Vec<u8>> for Material {
    fn from(certificate: Vec<u8>) -> Self {
        Self::Certificate(certificate)
    }
}

impl From<Material> for VerificationMaterialV03 {
    fn from(material: Material) -> Self {
        match material {
            Material::Certificate(der) => Self::Certificate(DerCertificate::new(der)),
            Material::Key { hint } => Self::PublicKey { hint },
        }
    }
}

/// A bundle around a signed statement, without log entry. `timestamp` is a whole RFC 3161 response.
pub fn of_statement(statement: Vec<u8>, signature: Vec<u8>, by: impl Into<Material>, timestamp: Vec<u8>) -> Bundle {
    let signature = DsseSignature::new(SignatureBytes::new(signature), KeyId::default());
    let envelope = DsseEnvelope::new(PAYLOAD_TYPE, PayloadBytes::new(statement), signature);
    stamped(by.into(), SignatureContent::DsseEnvelope(envelope), timestamp)
}

/// A bundle around a detached signature over a file with this digest, without log entry.
pub fn of_file(digest: &Digest, signature: Vec<u8>, by: impl Into<Material>, timestamp: Vec<u8>) -> Bundle {
    let digest = MessageDigest::new(HashAlgorithm::Sha2256, Sha256Hash::new(*digest.as_bytes()).into());
    let signature = MessageSignature::new(SignatureBytes::new(signature)).with_message_digest(digest);
    stamped(by.into(), SignatureContent::MessageSignature(signature), timestamp)
}

fn stamped(material: Material, content: SignatureContent, timestamp: Vec<u8>) -> Bundle {
    BundleV03::new(material.into(), content).with_rfc3161_timestamp(TimestampToken::new(timestamp)).into_bundle()
}

/// Completes a bundle with its log entry: `leaf` is the canonical body as it stands in the log.
pub fn with_entry(mut bundle: Bundle, leaf: Vec<u8>, proof: &LogProof<'_>) -> Result<Bundle, BundleError> {
    let failed = |source: sigstore_types::Error| BundleError(source.to_string());
    let index = LogIndex::new(proof.index).map_err(failed)?;
    let entry = TlogEntryBuilder::new(
        index,
        LogKeyId::new(proof.log_id.to_vec()),
        KindVersion::HashedRekordV002,
        CanonicalizedBody::new(leaf),
    )
    .with_inclusion_proof(
        index,
        Sha256Hash::new(*proof.root),
        proof.tree_size,
        proof.hashes.iter().map(|hash| Sha256Hash::new(*hash)).collect(),
        CheckpointData::new(proof.checkpoint).map_err(failed)?,
    )
    .build();
    bundle.verification_material.tlog_entries = vec![entry];
    Ok(bundle)
}

/// The bundle as JSON.
pub fn to_json(bundle: &Bundle) -> Result<Vec<u8>, BundleError> {
    bundle.to_json().map(String::into_bytes).map_err(|source| BundleError(source.to_string()))
}
