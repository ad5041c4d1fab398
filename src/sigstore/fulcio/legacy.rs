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

use super::{super::Refusal, Fulcio, NO_STORE, SHORT, parts};
use crate::model::possession::Possession;

const PEM_CHAIN: HeaderValue = HeaderValue::from_static("application/pem-certificate-chain");

pub(super) async fn signing_cert(State(fulcio): State<Fulcio>, request: Request<Body>) -> Result<Response, Refusal> {
    let (token, body) = parts(request).await?;
    let issued = fulcio.certify(token, Possession::from_json_v1(&body)?).await?;
    let headers = [(CONTENT_TYPE, PEM_CHAIN), (CACHE_CONTROL, NO_STORE)];
    Ok((StatusCode::CREATED, headers, issued.chain.concat()).into_response())
}

pub(super) async fn root_cert(State(fulcio): State<Fulcio>) -> Response {
    let chains = fulcio.issuing.trust_bundle();
    ([(CONTENT_TYPE, PEM_CHAIN), (CACHE_CONTROL, SHORT)], chains.concat().concat()).into_response()
}
