//! Signatures and attestations in the layout of cosign 1 and 2, read as Sigstore bundles where they hold enough.
//!
//! A signature is over a *simple signing* document that names the image's digest; an attestation is a DSSE envelope.
//! Beside them stand, as annotations, the certificate with its chain, the entry of a Rekor v1 log with its *signed entry
//! timestamp* (the log's promise to include the entry, and the time when it said so), and perhaps an RFC 3161 timestamp.
//! That makes a bundle of version 0.1, which asks for such a promise and for no inclusion proof; `sigstore-verify` checks
//! the promise under the log's key, and the certificate at its time. A promise is less than a proof: it shows that the
//! log saw the entry, not that the entry is in the tree.
//!
//! What does not hold enough is refused by name: without certificate (signed by a key, which we are not told), without
//! log entry, or with an entry of a kind that the verifier does not know. Nothing here believes anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::json;
use sigstore_types::{
    Bundle, CanonicalizedBody, DerCertificate, DsseEnvelope, LogIndex, LogKeyId, MediaType, SignatureBytes,
    SignatureContent, SignedTimestamp, TimestampToken,
    bundle::{
        InclusionPromise, KindVersion, LogId, MessageSignature, Rfc3161Timestamp, TimestampVerificationData,
        TransparencyLogEntry, VerificationMaterial, VerificationMaterialContent, X509Certificate,
    },
};

use super::{digest::Digest, json::check_json_depth, limits, verify::Rejection};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";
/// What a simple signing document calls itself.
const DOCUMENT_TYPE: &str = "cosign container image signature";

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A simple signing document, at the tag `.sig`.
    Signature,
    /// A DSSE envelope, at the tag `.att`.
    Attestation,
}

impl Kind {
    /// The media type of such layers.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Signature => "application/vnd.dev.cosign.simplesigning.v1+json",
            Self::Attestation => "application/vnd.dsse.envelope.v1+json",
        }
    }
}

/// One layer as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Legacy {
    /// Signature or attestation.
    pub kind: Kind,
    /// The layer's digest, as written.
    pub layer: String,
    /// The layer's bytes; empty when there is a problem.
    pub payload: Vec<u8>,
    /// The layer's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Why the layer could not be read, as in "legacy signature *whose payload is not in the registry*".
    pub problem: Option<String>,
}

/// The claim of a simple signing document about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The image's digest.
    pub digest: Digest,
    /// The repository under which it was signed; may be empty.
    pub name: String,
}

#[derive(Deserialize)]
struct Document {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: Option<DocumentIdentity>,
    image: DocumentImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DocumentIdentity {
    #[serde(default)]
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct DocumentImage {
    docker_manifest_digest: String,
}

/// The annotation with the log entry: what Rekor v1 answered.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RekorBundle {
    signed_entry_timestamp: String,
    payload: RekorPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RekorPayload {
    body: String,
    integrated_time: i64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
struct Stamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    token: String,
}

impl Legacy {
    /// What this is known by: a digest over the layer's bytes and annotations.
    pub fn digest(&self) -> Digest {
        let all =
            json!([self.kind.media_type(), self.layer, Digest::of(&self.payload), self.annotations, self.problem]);
        Digest::of(all.to_string().as_bytes())
    }

    fn refused(&self, why: impl AsRef<str>) -> Rejection {
        let what = match self.kind {
            Kind::Signature => "signature",
            Kind::Attestation => "attestation",
        };
        Rejection::Legacy(format!("legacy {what} {}", limits::quoted(&why.as_ref())))
    }

    fn annotation(&self, name: &str) -> Result<Option<&str>, Rejection> {
        let found = self.annotations.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
        match found {
            Some(text) if text.len() > limits::LEGACY => Err(self.refused(format!(
                "whose annotation {name} has {} bytes (at most {})",
                text.len(),
                limits::LEGACY
            ))),
            found => Ok(found),
        }
    }

    /// JSON of an annotation, within the limits.
    fn parsed<'a, T: Deserialize<'a>>(&self, name: &str, text: &'a str) -> Result<T, Rejection> {
        let wrong = |problem: String| self.refused(format!("whose annotation {name} cannot be read: {problem}"));
        check_json_depth(text.as_bytes(), limits::JSON_DEPTH).map_err(|source| wrong(source.to_string()))?;
        serde_json::from_str(text).map_err(|source| wrong(source.to_string()))
    }

    /// What a signature's document says; nothing in it is proven yet.
    ///
    /// # Errors
    /// [`Rejection::Legacy`] with what cannot be read.
    pub fn claim(&self) -> Result<Claim, Rejection> {
        let wrong = |problem: String| self.refused(format!("whose document cannot be read: {problem}"));
        check_json_depth(&self.payload, limits::JSON_DEPTH).map_err(|source| wrong(source.to_string()))?;
        let document: Document = serde_json::from_slice(&self.payload).map_err(|source| wrong(source.to_string()))?;
        let Critical { identity, image, kind } = document.critical;
        if kind != DOCUMENT_TYPE {
            return Err(wrong(format!("it calls itself {kind:?}")));
        }
        let digest = image.docker_manifest_digest.parse::<Digest>();
        let digest = digest.map_err(|source| wrong(format!("its digest: {source}")))?;
        Ok(Claim { digest, name: identity.map(|identity| identity.docker_reference).unwrap_or_default() })
    }

    /// The bundle that this amounts to.
    ///
    /// # Errors
    /// [`Rejection::Legacy`] with what it lacks.
    pub fn bundle(&self) -> Result<Bundle, Rejection> {
        if let Some(problem) = &self.problem {
            return Err(self.refused(problem));
        }
        let Some(certificate) = self.annotation(CERTIFICATE)? else {
            return Err(self.refused(
                "without a certificate: a key signed it, and registry evidence is verified by certificates alone; sign \
                 again in the current layout",
            ));
        };
        let Some(entry) = self.annotation(ENTRY)? else {
            return Err(self.refused(
                "without a log entry: nothing shows when it was signed, nor that the log saw it; sign again in the \
                 current layout",
            ));
        };
        let content = VerificationMaterialContent::X509CertificateChain { certificates: self.chain(certificate)? };
        let mut material = VerificationMaterial::new(content).with_tlog_entries(vec![self.entry(entry)?]);
        if let Some(stamp) = self.annotation(TIMESTAMP)? {
            let stamp: Stamp = self.parsed(TIMESTAMP, stamp)?;
            let token = TimestampToken::from_base64(&stamp.token)
                .map_err(|source| self.refused(format!("whose timestamp cannot be read: {source}")))?;
            let stamps = TimestampVerificationData::new(vec![Rfc3161Timestamp::new(token)]);
            material = material.with_timestamp_verification_data(stamps);
        }
        Ok(Bundle::new(MediaType::Bundle0_1, material, self.content()?))
    }

    /// The certificate, then the chain without it.
    fn chain(&self, certificate: &str) -> Result<Vec<X509Certificate>, Rejection> {
        let read = |what: &str, pem: &str| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            all.map_err(|source| self.refused(format!("whose {what} is not PEM: {source:?}")))
        };
        let mut all = read("certificate", certificate)?;
        all.truncate(1);
        if all.is_empty() {
            return Err(self.refused("whose certificate is not PEM"));
        }
        if let Some(chain) = self.annotation(CHAIN)? {
            let more = read("chain", chain)?;
            if more.len() > limits::LEGACY_CHAIN {
                return Err(self.refused(format!("whose chain has {} certificates", more.len())));
            }
            all.extend(more);
        }
        Ok(all.iter().map(|der| X509Certificate::new(DerCertificate::from_bytes(der))).collect())
    }

    fn entry(&self, text: &str) -> Result<TransparencyLogEntry, Rejection> {
        let RekorBundle { signed_entry_timestamp, payload } = self.parsed(ENTRY, text)?;
        let wrong = |problem: String| self.refused(format!("whose log entry cannot be read: {problem}"));
        let body = CanonicalizedBody::from_base64(&payload.body).map_err(|source| wrong(source.to_string()))?;
        let promise =
            SignedTimestamp::from_base64(&signed_entry_timestamp).map_err(|source| wrong(source.to_string()))?;
        let id = Digest::from_hex(&payload.log_id).map_err(|source| wrong(format!("its log id: {source}")))?;
        let index = LogIndex::new(payload.log_index).map_err(|source| wrong(source.to_string()))?;
        let time = Timestamp::from_second(payload.integrated_time).map_err(|source| wrong(source.to_string()))?;
        let kind = self.entry_kind(body.as_bytes())?;
        Ok(TransparencyLogEntry::new(index, LogId::new(LogKeyId::from_bytes(id.as_bytes())), kind, body)
            .with_integrated_time(time)
            .with_inclusion_promise(InclusionPromise::new(promise)))
    }

    /// What the entry's body says it is; the verifier holds the body against the rest.
    fn entry_kind(&self, body: &[u8]) -> Result<KindVersion, Rejection> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            kind: String,
            api_version: String,
        }
        let wrong = |problem: String| self.refused(format!("whose log entry cannot be read: {problem}"));
        check_json_depth(body, limits::JSON_DEPTH).map_err(|source| wrong(source.to_string()))?;
        let body: Body = serde_json::from_slice(body).map_err(|source| wrong(source.to_string()))?;
        match (body.kind.as_str(), body.api_version.as_str()) {
            ("hashedrekord", "0.0.1") => Ok(KindVersion::HashedRekordV001),
            ("dsse", "0.0.1") => Ok(KindVersion::DsseV001),
            ("intoto", "0.0.2") => Ok(KindVersion::IntotoV002),
            (kind, version) => {
                let kind = limits::quoted(&format!("{kind} {version}"));
                Err(self.refused(format!("with a log entry of the kind {kind:?}, which cannot be verified")))
            }
        }
    }

    fn content(&self) -> Result<SignatureContent, Rejection> {
        if self.kind == Kind::Attestation {
            let wrong = |problem: String| self.refused(format!("whose envelope cannot be read: {problem}"));
            check_json_depth(&self.payload, limits::JSON_DEPTH).map_err(|source| wrong(source.to_string()))?;
            let envelope: DsseEnvelope =
                serde_json::from_slice(&self.payload).map_err(|source| wrong(source.to_string()))?;
            return Ok(SignatureContent::DsseEnvelope(envelope));
        }
        let Some(signature) = self.annotation(SIGNATURE)? else {
            return Err(self.refused(format!("without the annotation {SIGNATURE}")));
        };
        let signature = SignatureBytes::from_base64(signature)
            .map_err(|source| self.refused(format!("whose signature cannot be read: {source}")))?;
        Ok(SignatureContent::MessageSignature(MessageSignature::new(signature)))
    }
}
