//! `CreateEntryRequest` from protobuf. Its form in JSON is read in [`crate::model::submission`].

use super::{
    super::proto::dev::sigstore::rekor::v2::{self, create_entry_request::Spec},
    CreateEntryRequest,
};
use crate::model::{
    Scheme,
    submission::{Key, Submission, SubmissionError},
};

/// What a request asks to have recorded.
pub(super) fn submission(request: CreateEntryRequest) -> Result<Submission, SubmissionError> {
    match request.spec.ok_or(SubmissionError::Missing("hashedRekordRequestV002"))? {
        Spec::HashedRekordRequestV002(request) => {
            let signature = request.signature.ok_or(SubmissionError::Missing("hashedRekordRequestV002.signature"))?;
            let verifier = signature.verifier.ok_or(SubmissionError::Missing("signature.verifier"))?;
            Submission::of_digest(request.digest.to_vec(), signature.content.to_vec(), key_of(verifier)?)
        }
        Spec::DsseRequestV002(request) => {
            let envelope = request.envelope.ok_or(SubmissionError::Missing("dsseRequestV002.envelope"))?;
            let signatures = envelope.signatures.into_iter().map(|signature| signature.sig.to_vec()).collect();
            let keys = request.verifiers.into_iter().map(key_of).collect::<Result<_, _>>()?;
            Submission::of_envelope(envelope.payload_type, envelope.payload.to_vec(), signatures, keys)
        }
    }
}

fn key_of(verifier: v2::Verifier) -> Result<(Key, Scheme), SubmissionError> {
    let scheme = Scheme::of_number(verifier.key_details).ok_or(SubmissionError::KeyDetails)?;
    let key = match verifier.verifier {
        Some(v2::verifier::Verifier::X509Certificate(sent)) => Key::of(Some(sent.raw_bytes.to_vec()), None),
        Some(v2::verifier::Verifier::PublicKey(sent)) => Key::of(None, Some(sent.raw_bytes.to_vec())),
        None => Key::of(None, None),
    };
    Ok((key?, scheme))
}
