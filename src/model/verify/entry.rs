//! The entry of a Rekor v2 log, held against the bundle that it came with.
//!
//! An entry says something about a signature only if it is about that very signature. So it is not read: what it must
//! say is written from the bundle, and must be the same to the byte, as `sigstore-go` has it. Then the log's checkpoint
//! counts, and the proof that leads from the entry to it. Ours, because `sigstore-verify` knows entries of P-256 keys
//! alone; those, and the entries of Rekor v1, are left to it.
//!
//! Not here: the signature, the certificate and the timestamp.

use jiff::{SignedDuration, Timestamp};
use sigstore_types::{
    Bundle, SignatureContent,
    bundle::{KindVersion, TransparencyLogEntry, VerificationMaterialContent},
};

use super::{
    super::leaf::{self, Verifier},
    Digest, PublicKey, Rejection, TrustedRoot,
};

/// How long after its timestamp a signature may have come into a log that is younger than the timestamp: as long as a
/// certificate lives. For a log that takes another's place between the two.
const LATEST: SignedDuration = SignedDuration::from_mins(10);

/// The one entry of a bundle, if it is of this kind.
pub(super) fn only(bundle: &Bundle) -> Option<&TransparencyLogEntry> {
    match bundle.verification_material.tlog_entries.as_slice() {
        [entry] if entry.kind_version == KindVersion::HashedRekordV002 => Some(entry),
        _ => None,
    }
}

/// Verifies that `entry` is about this bundle's signature over the artifact with this digest, and is in a log that the
/// root knows, and knew at `signed_at`.
///
/// # Errors
/// [`Rejection::Log`], or [`Rejection::Unsupported`] for a file that was signed by another of its digests.
pub(super) fn check(
    entry: &TransparencyLogEntry,
    bundle: &Bundle,
    artifact: &Digest,
    key: &PublicKey,
    root: &TrustedRoot,
    signed_at: Timestamp,
) -> Result<(), Rejection> {
    let expected = expected(bundle, artifact, key)?;
    if entry.canonicalized_body.as_bytes() != expected {
        return Err(wrong("it is about something else than this signature"));
    }
    let proof = entry.inclusion_proof.as_ref().ok_or_else(|| wrong("it has no inclusion proof"))?;
    let checkpoint = proof.checkpoint.checkpoint().ok_or_else(|| wrong("its proof has no checkpoint"))?;
    let id = entry.log_id.key_id.as_bytes();
    let log = root.log(id).ok_or_else(|| wrong("its log id is not in the trusted root"))?;
    if log.began.is_some_and(|began| began > signed_at.saturating_add(LATEST).unwrap_or(Timestamp::MAX)) {
        return Err(wrong("its log is younger than the signature"));
    }
    if checkpoint.origin() != log.origin {
        return Err(wrong("its checkpoint is of another log"));
    }
    let mut lines = checkpoint.signatures().iter().filter(|line| id.starts_with(line.key_id.as_slice()));
    if !lines.any(|line| log.key.verify(checkpoint.signed_data(), &line.signature).is_ok()) {
        return Err(wrong("its checkpoint is not signed by the log"));
    }
    // What the proof says of index, size and root is not signed; of these, what is stands elsewhere.
    sigstore_merkle::verify_inclusion_proof(
        &sigstore_merkle::hash_leaf(&expected),
        entry.log_index.get(),
        checkpoint.tree_size(),
        &proof.hashes,
        checkpoint.root_hash(),
    )
    .map_err(|source| wrong(&format!("its inclusion proof: {source}")))
}

/// What the entry of this bundle says.
fn expected(bundle: &Bundle, artifact: &Digest, key: &PublicKey) -> Result<Vec<u8>, Rejection> {
    let scheme = key.scheme();
    let (digest, signature) = match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) => (scheme.digest(&envelope.pae()), &envelope.signature.sig),
        SignatureContent::MessageSignature(message) if scheme.hash_length() == artifact.as_bytes().len() => {
            (artifact.as_bytes().to_vec(), &message.signature)
        }
        _ => {
            return Err(Rejection::Unsupported(format!(
                "its signature is over the {} of a file, which is known here by its SHA-256; sign with ECDSA on P-256, or \
                 with RSA",
                scheme.hash()
            )));
        }
    };
    let verifier = match &bundle.verification_material.content {
        VerificationMaterialContent::PublicKey(_) => Verifier::Key(key.spki()),
        _ => Verifier::Certificate(bundle.signing_certificate().ok_or(Rejection::NoIdentity)?.as_bytes()),
    };
    Ok(leaf::entry(scheme, &digest, signature.as_bytes(), verifier))
}

fn wrong(what: &str) -> Rejection {
    Rejection::Log(what.to_owned())
}
