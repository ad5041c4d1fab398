//! Requests in JSON, as grpc-gateway takes them, and the parts of answers that are more than one field.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        Refusal,
        json::{Base64, decode},
    },
    v2,
};
use crate::issuing::{EncodedKey, Possession};

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
    public_key: Option<PublicKey>,
    #[serde(alias = "proof_of_possession")]
    proof_of_possession: Option<Base64>,
}

/// The algorithm that may stand beside it is passed over: the key says it.
#[derive(Deserialize)]
struct PublicKey {
    content: Option<String>,
}

/// Reads a body: the token, if it is there, and how possession is shown.
pub(super) fn request(body: &[u8]) -> Result<(Option<String>, Possession), Refusal> {
    let request: Body = parse(body)?;
    let token = request.credentials.and_then(|credentials| credentials.oidc_identity_token);
    let csr = request.certificate_signing_request.map(|csr| csr.0);
    let proof = request.public_key_request.map(|proof| {
        let key = proof.public_key.and_then(|key| key.content).unwrap_or_default();
        (key, proof.proof_of_possession.map(|proof| proof.0).unwrap_or_default())
    });
    Ok((token.filter(|token| !token.is_empty()), possession(proof, csr)?))
}

/// One of the two ways to show possession. An empty request is none: some clients send the field they do not use.
pub(super) fn possession(proof: Option<(String, Vec<u8>)>, csr: Option<Vec<u8>>) -> Result<Possession, Refusal> {
    match (proof, csr.filter(|csr| !csr.is_empty())) {
        (None, Some(csr)) => Ok(Possession::Request(csr)),
        (Some((key, signature)), None) => Ok(Possession::Proof { key: key_of(key)?, signature }),
        (Some(_), Some(_)) => {
            Err(Refusal::invalid("both publicKeyRequest and certificateSigningRequest are given; send one of them"))
        }
        (None, None) => {
            Err(Refusal::invalid("neither publicKeyRequest nor certificateSigningRequest is given; send one of them"))
        }
    }
}

/// A key in PEM, or its DER in base64.
fn key_of(content: String) -> Result<EncodedKey, Refusal> {
    if content.is_empty() {
        return Err(Refusal::invalid("publicKeyRequest.publicKey.content is missing; send the key in PEM"));
    }
    match decode(&content) {
        Ok(der) => Ok(EncodedKey::Der(der)),
        Err(_text) => Ok(EncodedKey::Pem(content)),
    }
}

/// Parses a body. What is wrong with it is said without its values, as one of them may be a token.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let what = if error.is_data() { "has a field of the wrong kind" } else { "is not JSON" };
        Refusal::invalid(format!("the body {what} (line {}, column {})", error.line(), error.column()))
    })
}

/// An issuer; what is empty is left out, as in proto3 JSON.
pub(super) fn issuer(issuer: v2::OidcIssuer) -> Value {
    let url = match issuer.issuer {
        Some(v2::oidc_issuer::Issuer::IssuerUrl(url)) => ("issuerUrl", url),
        Some(v2::oidc_issuer::Issuer::WildcardIssuerUrl(url)) => ("wildcardIssuerUrl", url),
        None => ("issuerUrl", String::new()),
    };
    let fields = [
        url,
        ("audience", issuer.audience),
        ("challengeClaim", issuer.challenge_claim),
        ("spiffeTrustDomain", issuer.spiffe_trust_domain),
        ("issuerType", issuer.issuer_type),
        ("subjectDomain", issuer.subject_domain),
    ];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    given.map(|(name, text)| (name.to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into()
}
