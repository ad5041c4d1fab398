//! From a bundle to evidence.
//!
//! [`verify`] is the only way to a [`Verified`]. The cryptographic steps (signature, certificate chain, SCT,
//! timestamp, log inclusion, entry binding, in the order of the Sigstore client specification) are those of
//! `sigstore-verify`, but for the log entries of other keys than P-256, which it does not know (`entry`); binding to the subject, the statement's validity and the typed refusals are ours. Which
//! identities are welcome is not decided here: that is policy.
//!
//! A *message signature* (a detached signature over a file, as `cosign sign-blob` writes it) counts as a statement
//! of type [`predicate::SIGN`] about that file's digest: it says the same. So does a signature in cosign's legacy layout
//! ([`super::legacy`]), whose signed document names the image.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use sigstore_types::{
    Bundle, DerPublicKey, Sha256Hash, SignatureContent,
    bundle::{KindVersion, TransparencyLogEntry, VerificationMaterialContent},
};
use sigstore_verify::{
    Error as SigstoreError, Policy, PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult,
};

mod entry;

use super::{
    certificate,
    digest::Digest,
    identity::Identity,
    json::check_json_depth,
    legacy::{Kind, Legacy},
    limits, predicate,
    public_key::{PublicKey, Scheme},
    statement::{self, Statement, StatementError, Subject},
    trusted_root::TrustedRoot,
    verdict::LogRef,
};

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signer {
    /// A certificate's identity.
    Identity(Identity),
    /// A key, given by whoever asked or shown by the log entry; the digest of its SubjectPublicKeyInfo.
    Key(Digest),
}

/// A statement whose signature, chain, timestamp, log inclusion and subject binding were all checked.
///
/// Only [`verify`], [`verify_legacy`] and [`verify_with_key`] make one, so holding one is the evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    statement: Statement,
    signer: Signer,
    key: Digest,
    signed_at: Option<Timestamp>,
    log: Option<LogRef>,
    bundle: Digest,
    root: Digest,
}

impl Verified {
    /// Makes evidence out of nothing: **no signature, certificate, timestamp, log entry or subject is checked**.
    ///
    /// For tests, and for `countersign policy test`, which asks what a policy would say if this were proven. Never
    /// on a path that a decision about a real artifact takes.
    #[doc(hidden)]
    pub fn assume_unsafe(
        statement: Statement,
        signer: Signer,
        key: Digest,
        signed_at: Option<Timestamp>,
        log: Option<LogRef>,
    ) -> Self {
        let bundle = Digest::of(&statement.to_json());
        Self { statement, signer, key, signed_at, log, bundle, root: Digest::of(b"assumed") }
    }

    /// What was said.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Who said it.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The digest of the public key (SubjectPublicKeyInfo DER) that signed.
    pub fn key(&self) -> Digest {
        self.key
    }

    /// When: the earliest verified time. `None` only for a key's signature without a timestamp.
    pub fn signed_at(&self) -> Option<Timestamp> {
        self.signed_at
    }

    /// Where it is logged, if it is.
    pub fn log(&self) -> Option<&LogRef> {
        self.log.as_ref()
    }

    /// The digest of the bundle's bytes.
    pub fn bundle(&self) -> Digest {
        self.bundle
    }

    /// The digest of the trusted root under which it was proven.
    pub fn root(&self) -> Digest {
        self.root
    }
}

/// Why a bundle is not evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Not a bundle, or over a limit.
    #[error("bundle is malformed: {0}")]
    Malformed(String),
    /// A bundle of a kind that this version cannot verify.
    #[error("bundle is not supported: {0}")]
    Unsupported(String),
    /// The bundle speaks about another artifact.
    #[error("bundle does not speak about this artifact: {0}")]
    Subject(String),
    /// The signature does not verify.
    #[error("signature is invalid: {0}")]
    Signature(String),
    /// The certificate, its chain or its SCT does not verify.
    #[error("certificate is not trusted: {0}")]
    Certificate(String),
    /// The log entry, proof or checkpoint does not verify.
    #[error("log entry does not verify: {0}")]
    Log(String),
    /// The timestamp does not verify, or there is none.
    #[error("timestamp does not verify: {0}")]
    Timestamp(String),
    /// The certificate has no identity or no issuer.
    #[error("certificate names no identity or no issuer")]
    NoIdentity,
    /// The signed statement is not one that we accept.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// A signature in cosign's legacy layout lacks something, or something of it cannot be read; in words.
    #[error("{0}")]
    Legacy(String),
    /// The given key cannot be used.
    #[error("public key cannot be used: {0}")]
    Key(String),
}

/// Parses a bundle's JSON within the limits.
pub fn parse_bundle(json: &[u8]) -> Result<Bundle, Rejection> {
    if json.len() > limits::BUNDLE {
        return Err(Rejection::Malformed(format!("{} bytes; the limit is {}", json.len(), limits::BUNDLE)));
    }
    check_json_depth(json, limits::JSON_DEPTH).map_err(|source| Rejection::Malformed(limits::quoted(&source)))?;
    let text = str::from_utf8(json).map_err(|source| Rejection::Malformed(limits::quoted(&source)))?;
    Bundle::from_json(text).map_err(|source| Rejection::Malformed(limits::quoted(&source)))
}

/// Verifies a bundle about `subject`, offline, by what it brings itself: its certificate, or the public key in its log
/// entry. Any identity and any key is accepted: see policy.
///
/// A key proves that whoever holds it signed, as a certificate proves it for an identity; the evidence names the key by
/// its digest, and only a policy that lists this digest makes something of it.
///
/// # Errors
/// The first [`Rejection`], in the order of the Sigstore client specification.
pub fn verify(bundle: &[u8], subject: &Digest, root: &TrustedRoot) -> Result<Verified, Rejection> {
    let parsed = parse_bundle(bundle)?;
    let proof = if matches!(parsed.verification_material.content, VerificationMaterialContent::PublicKey(_)) {
        let key = logged_key(&parsed).ok_or_else(|| {
            Rejection::Unsupported("it is signed by a key that its log entry does not show; give the key".to_owned())
        })?;
        prove_by_key(&parsed, subject, root, key)?
    } else {
        prove(&parsed, subject, root)?
    };
    let statement = said(&parsed, subject)?;
    admit(&parsed, Digest::of(bundle), statement, subject, root, proof)
}

/// Verifies one layer of cosign's legacy layout about `subject`, offline. Any identity is accepted: see policy.
///
/// The log entry may have a promise alone (see [`super::legacy`]); everything else is as for [`verify`].
///
/// # Errors
/// [`Rejection::Legacy`] with what it lacks, [`Rejection::Subject`] when its document names another image, else the
/// first [`Rejection`] as for [`verify`].
pub fn verify_legacy(legacy: &Legacy, subject: &Digest, root: &TrustedRoot) -> Result<Verified, Rejection> {
    let bundle = legacy.bundle()?;
    let (artifact, statement) = match legacy.kind {
        Kind::Signature => {
            let claim = legacy.claim()?;
            if claim.digest != *subject {
                return Err(Rejection::Subject(format!("it was signed for {}, not {subject}", claim.digest)));
            }
            let subject = Subject { name: claim.name, digest: *subject };
            let statement = Statement::new(vec![subject], predicate::SIGN, serde_json::json!({}))?;
            (Digest::of(&legacy.payload), statement)
        }
        Kind::Attestation => (*subject, unverified_statement(&bundle)?),
    };
    let proof = prove(&bundle, &artifact, root)?;
    admit(&bundle, legacy.digest(), statement, subject, root, proof)
}

/// What the verifier proved.
struct Proof {
    result: VerificationResult,
    logged: bool,
    signer: Signer,
    key: Digest,
}

/// Has a certificate-signed bundle verified over the artifact with this digest.
fn prove(bundle: &Bundle, artifact: &Digest, root: &TrustedRoot) -> Result<Proof, Rejection> {
    let key = bundle.signing_certificate().and_then(|der| PublicKey::from_certificate(der.as_bytes()).ok());
    let policy = VerificationPolicy::any_identity();
    let (result, logged) = examine(bundle, artifact, root, key, &policy, &policy.clone().skip_tlog_unsafe())?;
    let (Some(subject_name), Some(issuer)) = (named(bundle, &result), result.issuer()) else {
        return Err(Rejection::NoIdentity);
    };
    let signer = Signer::Identity(Identity { subject: subject_name, issuer: issuer.to_owned() });
    let key = result.certificate().map(|info| Digest::of(info.public_key.as_bytes())).ok_or(Rejection::NoIdentity)?;
    Ok(Proof { result, logged, signer, key })
}

/// Has a bundle verified, and says whether its entry is in a log. `key` is that of its signer, if we know its kind;
/// `unlogged` is the policy without that last step, which is taken here for entries that the library does not know.
fn examine(
    bundle: &Bundle,
    artifact: &Digest,
    root: &TrustedRoot,
    key: Option<PublicKey>,
    policy: &dyn Policy,
    unlogged: &dyn Policy,
) -> Result<(VerificationResult, bool), Rejection> {
    let verify = |bundle: &Bundle, policy: &dyn Policy| {
        root.verifier().verify(Sha256Hash::new(*artifact.as_bytes()), bundle, policy).map_err(rejection)
    };
    match (key, entry::only(bundle)) {
        (Some(key), _) if matches!(key.scheme(), Scheme::P521Sha512 | Scheme::Ed25519Ph) => {
            Err(Rejection::Unsupported(format!(
                "signatures by {} cannot be verified here; sign with ECDSA on P-256, or with RSA",
                key.scheme().details()
            )))
        }
        (Some(key), Some(entry)) if key.scheme() != Scheme::P256Sha256 => {
            let mut without = bundle.clone();
            without.verification_material.tlog_entries.clear();
            let result = verify(&without, unlogged)?;
            let signed_at = result.verified_timestamps().iter().max().copied();
            let signed_at = signed_at.ok_or_else(|| Rejection::Timestamp("there is none".to_owned()))?;
            entry::check(entry, bundle, artifact, &key, root, signed_at)?;
            Ok((result, true))
        }
        _ => {
            let result = verify(bundle, policy)?;
            let logged = result.tlog_verified();
            Ok((result, logged))
        }
    }
}

/// The subject that the verified certificate names. User names are read here: the library knows addresses and URIs alone.
fn named(bundle: &Bundle, result: &VerificationResult) -> Option<String> {
    let address = result.identity().map(|identity| identity.as_str().to_owned());
    address.or_else(|| Some(certificate::identity_of(bundle.signing_certificate()?.as_bytes())?.subject))
}

/// Verifies a bundle that was signed by the holder of `key` (PEM) about `subject`, offline.
pub fn verify_with_key(bundle: &[u8], subject: &Digest, root: &TrustedRoot, key: &str) -> Result<Verified, Rejection> {
    let parsed = parse_bundle(bundle)?;
    let key = DerPublicKey::from_pem(key).map_err(|source| Rejection::Key(limits::quoted(&source)))?;
    let proof = prove_by_key(&parsed, subject, root, key)?;
    let statement = said(&parsed, subject)?;
    admit(&parsed, Digest::of(bundle), statement, subject, root, proof)
}

/// The key in the log entry of a bundle that is signed by one (Rekor v2): not yet held against anything.
fn logged_key(bundle: &Bundle) -> Option<DerPublicKey> {
    let entry = bundle.verification_material.tlog_entries.first()?;
    let body: serde_json::Value = serde_json::from_slice(entry.canonicalized_body.as_bytes()).ok()?;
    let key = body.pointer("/spec/hashedRekordV002/signature/verifier/publicKey/rawBytes")?.as_str()?;
    Some(DerPublicKey::new(STANDARD.decode(key).ok()?))
}

/// Has a bundle verified by this key over the artifact with this digest.
fn prove_by_key(bundle: &Bundle, signed: &Digest, root: &TrustedRoot, key: DerPublicKey) -> Result<Proof, Rejection> {
    let id = Digest::of(key.as_bytes());
    let known = PublicKey::from_spki(key.as_bytes()).ok();
    let policy = PublicKeyVerificationPolicy::new(key);
    let (result, logged) = examine(bundle, signed, root, known, &policy, &policy.clone().skip_tlog_unsafe())?;
    Ok(Proof { result, logged, signer: Signer::Key(id), key: id })
}

/// What a bundle says about `subject`.
fn said(bundle: &Bundle, subject: &Digest) -> Result<Statement, Rejection> {
    match &bundle.content {
        SignatureContent::MessageSignature(_) => Ok(Statement::new(
            vec![Subject { name: String::new(), digest: *subject }],
            predicate::SIGN,
            serde_json::json!({}),
        )?),
        _ => unverified_statement(bundle),
    }
}

fn admit(
    parsed: &Bundle,
    id: Digest,
    statement: Statement,
    subject: &Digest,
    root: &TrustedRoot,
    proof: Proof,
) -> Result<Verified, Rejection> {
    let Proof { result, logged, signer, key } = proof;
    if !statement.names(subject) {
        return Err(Rejection::Subject(format!("{subject} is not among its subjects")));
    }
    let entry = parsed.verification_material.tlog_entries.first().filter(|_| logged);
    let log = entry.map(|entry| log_ref(entry, root)).transpose()?;
    Ok(Verified {
        statement,
        signer,
        key,
        signed_at: result.verified_timestamps().iter().min().copied(),
        log,
        bundle: id,
        root: root.digest(),
    })
}

/// Where a verified entry stands, from what was proven alone.
///
/// Only the first four bytes of the log's id chose the key, so all of it must be one that we know. Of a Rekor v2
/// entry the outer index was proven, of a v1 entry the proof's (the outer one counts over all shards).
fn log_ref(entry: &TransparencyLogEntry, root: &TrustedRoot) -> Result<LogRef, Rejection> {
    let origin = root
        .origin_of(entry.log_id.key_id.as_bytes())
        .ok_or_else(|| Rejection::Log("its log id is not in the trusted root".to_owned()))?;
    let index = match &entry.inclusion_proof {
        Some(proof) if entry.kind_version != KindVersion::HashedRekordV002 => proof.log_index,
        _ => entry.log_index,
    };
    Ok(LogRef { origin: origin.to_owned(), index: index.get() })
}

/// The statement inside a bundle's envelope, not yet checked for anything: to look things up, never to believe.
pub fn unverified_statement(bundle: &Bundle) -> Result<Statement, Rejection> {
    match &bundle.content {
        SignatureContent::DsseEnvelope(envelope) if envelope.payload_type == statement::PAYLOAD_TYPE => {
            Ok(Statement::parse(envelope.payload.as_bytes())?)
        }
        SignatureContent::DsseEnvelope(envelope) => {
            Err(Rejection::Unsupported(format!("payload type {:?}", limits::quoted(&envelope.payload_type))))
        }
        _ => Err(Rejection::Unsupported("the bundle has no envelope".to_owned())),
    }
}

fn rejection(error: SigstoreError) -> Rejection {
    let text = limits::quoted(&error);
    match error {
        SigstoreError::SignatureInvalid(_) => Rejection::Signature(text),
        SigstoreError::ArtifactMismatch(_) => Rejection::Subject(text),
        SigstoreError::Certificate(_)
        | SigstoreError::IdentityMismatch { .. }
        | SigstoreError::IssuerMismatch { .. } => Rejection::Certificate(text),
        SigstoreError::TransparencyLog(_) => Rejection::Log(text),
        SigstoreError::Timestamp(_) => Rejection::Timestamp(text),
        SigstoreError::UnsupportedBundle(_) | SigstoreError::UnsupportedArtifact(_) => Rejection::Unsupported(text),
        _ => Rejection::Malformed(text),
    }
}
