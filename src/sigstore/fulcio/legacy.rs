//! Version 1: what clients from before version 2 call. A token only in the header; answers in PEM.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, Request, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::Deserialize;

use super::{
    super::{Refusal, json::Base64},
    Fulcio, NO_STORE, SHORT, json, parts,
};
use crate::issuing::{EncodedKey, Possession};

const PEM_CHAIN: HeaderValue = HeaderValue::from_static("application/pem-certificate-chain");

/// The older `CreateSigningCertificateRequest`. Whatever the identity is, the proof is called an e-mail address.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CertificateRequest {
    #[serde(alias = "public_key")]
    public_key: Option<PublicKey>,
    #[serde(alias = "signed_email_address")]
    signed_email_address: Option<Base64>,
    #[serde(alias = "certificate_signing_request")]
    certificate_signing_request: Option<Base64>,
}

#[derive(Deserialize)]
struct PublicKey {
    /// DER or PEM.
    content: Option<Base64>,
}

pub(super) async fn signing_cert(State(fulcio): State<Fulcio>, request: Request<Body>) -> Result<Response, Refusal> {
    let (token, body) = parts(request).await?;
    let issued = fulcio.certify(token, possession(json::parse(&body)?)?).await?;
    let headers = [(CONTENT_TYPE, PEM_CHAIN), (CACHE_CONTROL, NO_STORE)];
    Ok((StatusCode::CREATED, headers, issued.chain.concat()).into_response())
}

pub(super) async fn root_cert(State(fulcio): State<Fulcio>) -> Result<Response, Refusal> {
    let chains = fulcio.issuing.trust_bundle()?;
    Ok(([(CONTENT_TYPE, PEM_CHAIN), (CACHE_CONTROL, SHORT)], chains.concat().concat()).into_response())
}

fn possession(request: CertificateRequest) -> Result<Possession, Refusal> {
    let csr = request.certificate_signing_request.map(|csr| csr.0).filter(|csr| !csr.is_empty());
    if let Some(csr) = csr {
        return Ok(Possession::Request(csr));
    }
    let key = request.public_key.and_then(|key| key.content).map(|content| content.0).unwrap_or_default();
    if key.is_empty() {
        return Err(Refusal::invalid(
            "neither publicKey.content nor certificateSigningRequest is given; send one of them",
        ));
    }
    let key = match String::from_utf8(key) {
        Ok(text) if text.trim_start().starts_with("-----BEGIN") => EncodedKey::Pem(text),
        Ok(text) => EncodedKey::Der(text.into_bytes()),
        Err(binary) => EncodedKey::Der(binary.into_bytes()),
    };
    let signature = request.signed_email_address.map(|proof| proof.0).unwrap_or_default();
    Ok(Possession::Proof { key, signature })
}
