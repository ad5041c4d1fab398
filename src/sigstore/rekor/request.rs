//! `CreateEntryRequest`, from JSON and from protobuf, to what the service records.

use serde::Deserialize;

use super::{
    super::{
        json::{Base64, KeyDetails, unknown_scheme},
        proto::dev::sigstore::rekor::v2::{self, create_entry_request::Spec},
    },
    CreateEntryRequest, Refusal, Submission,
};
use crate::{
    model::Scheme,
    recording::{Key, Signed},
};

/// The request as JSON.
#[derive(Debug, Deserialize)]
pub(super) struct CreateEntry {
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
    verifier: Option<Verifier>,
}

#[derive(Debug, Deserialize)]
struct Dsse {
    envelope: Option<Envelope>,
    #[serde(default)]
    verifiers: Vec<Verifier>,
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
struct Verifier {
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

impl CreateEntry {
    /// What is to be recorded.
    pub(super) fn submission(self) -> Result<Submission, Refusal> {
        match (self.hashed_rekord, self.dsse) {
            (Some(request), None) => {
                let signature = request.signature.ok_or_else(|| missing("hashedRekordRequestV002.signature"))?;
                let (key, scheme) = signature.verifier.ok_or_else(|| missing("signature.verifier"))?.key()?;
                hashed(request.digest.0, signature.content.0, key, scheme)
            }
            (None, Some(request)) => {
                let envelope = request.envelope.ok_or_else(|| missing("dsseRequestV002.envelope"))?;
                let signatures = envelope.signatures.into_iter().map(|signature| signature.sig.0).collect();
                let keys = request.verifiers.into_iter().map(Verifier::key).collect::<Result<_, _>>()?;
                enveloped(envelope.payload_type, envelope.payload.0, signatures, keys)
            }
            (None, None) => Err(missing("hashedRekordRequestV002")),
            (Some(_), Some(_)) => {
                Err(Refusal::invalid("hashedRekordRequestV002 and dsseRequestV002 are both there; send one of them"))
            }
        }
    }
}

impl Verifier {
    fn key(self) -> Result<(Key, Scheme), Refusal> {
        let scheme = self.key_details.ok_or_else(|| Refusal::invalid(unknown_scheme()))?.0;
        let raw = |bytes: RawBytes| bytes.raw_bytes.0;
        Ok((one_key(self.certificate.map(raw), self.public_key.map(raw))?, scheme))
    }
}

/// What a protobuf request asks to have recorded.
pub(super) fn submission(request: CreateEntryRequest) -> Result<Submission, Refusal> {
    match request.spec.ok_or_else(|| missing("hashedRekordRequestV002"))? {
        Spec::HashedRekordRequestV002(request) => {
            let signature = request.signature.ok_or_else(|| missing("hashedRekordRequestV002.signature"))?;
            let (key, scheme) = key_of(signature.verifier.ok_or_else(|| missing("signature.verifier"))?)?;
            hashed(request.digest.to_vec(), signature.content.to_vec(), key, scheme)
        }
        Spec::DsseRequestV002(request) => {
            let envelope = request.envelope.ok_or_else(|| missing("dsseRequestV002.envelope"))?;
            let signatures = envelope.signatures.into_iter().map(|signature| signature.sig.to_vec()).collect();
            let keys = request.verifiers.into_iter().map(key_of).collect::<Result<_, _>>()?;
            enveloped(envelope.payload_type, envelope.payload.to_vec(), signatures, keys)
        }
    }
}

fn key_of(verifier: v2::Verifier) -> Result<(Key, Scheme), Refusal> {
    let scheme = Scheme::of_number(verifier.key_details).ok_or_else(|| Refusal::invalid(unknown_scheme()))?;
    let key = match verifier.verifier {
        Some(v2::verifier::Verifier::X509Certificate(sent)) => one_key(Some(sent.raw_bytes.to_vec()), None),
        Some(v2::verifier::Verifier::PublicKey(sent)) => one_key(None, Some(sent.raw_bytes.to_vec())),
        None => one_key(None, None),
    };
    Ok((key?, scheme))
}

fn one_key(certificate: Option<Vec<u8>>, public_key: Option<Vec<u8>>) -> Result<Key, Refusal> {
    match (certificate, public_key) {
        (Some(der), None) => Ok(Key::Certificate(der)),
        (None, Some(der)) => Ok(Key::Public(der)),
        _ => Err(Refusal::invalid("a verifier has either an x509Certificate or a publicKey")),
    }
}

fn hashed(digest: Vec<u8>, signature: Vec<u8>, key: Key, scheme: Scheme) -> Result<Submission, Refusal> {
    if digest.is_empty() {
        return Err(missing("hashedRekordRequestV002.digest"));
    }
    signed(Signed::Digest(digest), signature, key, scheme)
}

fn enveloped(
    kind: String,
    payload: Vec<u8>,
    mut signatures: Vec<Vec<u8>>,
    mut keys: Vec<(Key, Scheme)>,
) -> Result<Submission, Refusal> {
    // A bundle holds one signature, and an entry records one.
    match (signatures.pop(), keys.pop()) {
        (Some(signature), Some((key, scheme))) if signatures.is_empty() && keys.is_empty() => {
            signed(Signed::Envelope { kind, payload }, signature, key, scheme)
        }
        _ => Err(Refusal::invalid("an envelope with exactly one signature and one verifier is wanted")),
    }
}

fn signed(signed: Signed, signature: Vec<u8>, key: Key, scheme: Scheme) -> Result<Submission, Refusal> {
    if signature.is_empty() {
        return Err(missing("the signature's content"));
    }
    Ok(Submission { signed, signature, key, scheme })
}

fn missing(what: &str) -> Refusal {
    Refusal::invalid(format!("{what} is missing"))
}
