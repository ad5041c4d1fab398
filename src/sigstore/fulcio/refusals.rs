//! What is refused at the certificate authority: each reason by its name.

use tonic::Code;

use super::super::{
    Refusal,
    refusal::{LATER, key},
};
use crate::{identity, issuing::IssuingError, model::certificate_request::CertificateRequestError};

/// No token, neither in the body nor in the header.
pub(super) fn no_token() -> Refusal {
    let message = "no token was sent; send it as credentials.oidcIdentityToken, or as `authorization: Bearer …`";
    Refusal::new(Code::Unauthenticated, identity::Refusal::Missing.reason(), message)
}

/// A method that a path does not have.
pub(super) async fn method() -> Refusal {
    Refusal::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", "this path has another method; see /api/v2 of Fulcio's API")
}

impl From<IssuingError> for Refusal {
    fn from(error: IssuingError) -> Self {
        let reason = match error {
            IssuingError::Log(refused) => return refused.into(),
            IssuingError::Token(refused) => return token(&refused),
            IssuingError::Role(_) => return Self::new(Code::PermissionDenied, "ROLE_MISSING", error.to_string()),
            IssuingError::Key(ref refused) => key(refused),
            IssuingError::Request(ref refused) => request(refused),
            IssuingError::NoChallenge => "PROOF_IMPOSSIBLE",
            IssuingError::Proof { .. } => "PROOF_INVALID",
            IssuingError::Authority(refused) => return refused.into(),
            IssuingError::Interrupted => return Self::internal(&error),
        };
        Self::new(Code::InvalidArgument, reason, error.to_string())
    }
}

fn token(refusal: &identity::Refusal) -> Refusal {
    let message = refusal.to_string();
    match refusal {
        identity::Refusal::IssuerUnavailable { .. } | identity::Refusal::TooManyTokens { .. } => {
            Refusal::unavailable(refusal.reason(), message, LATER)
        }
        identity::Refusal::NoRole { .. } => Refusal::new(Code::PermissionDenied, refusal.reason(), message),
        _ => Refusal::new(Code::Unauthenticated, refusal.reason(), message),
    }
}

const fn request(refused: &CertificateRequestError) -> &'static str {
    match refused {
        CertificateRequestError::TooLarge(_) => "CSR_TOO_LARGE",
        CertificateRequestError::Malformed => "CSR_MALFORMED",
        CertificateRequestError::Key(refused) => key(refused),
        CertificateRequestError::Algorithm(_) | CertificateRequestError::NotPrehashed => "CSR_ALGORITHM",
        CertificateRequestError::Signature => "CSR_SIGNATURE",
    }
}
