//! Writing to a repository: small blobs and manifests.

use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;

use super::{
    RegistryError,
    transport::{Answer, Call, Transport, pause},
};
use crate::model::{Digest, ImageName, limits};

/// How often a manifest is sent to a registry whose storage is behind, as a count.
const ATTEMPTS: u32 = 5;
/// What a registry says while its storage is behind, or while somebody else uploads a blob that the manifest names
/// (distribution 2.8 on a file system then reads a link that is half written).
const BEHIND: [&str; 4] = ["DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"];

/// A request that writes.
pub(super) fn to(name: &ImageName, method: Method, path: impl Into<String>, deadline: Instant) -> Call<'_> {
    Call::new(name, method, path, deadline).pushing()
}

/// Whether the repository has a blob.
pub(super) async fn has_blob(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    deadline: Instant,
) -> Result<bool, RegistryError> {
    let head = to(name, Method::HEAD, format!("blobs/{digest}"), deadline);
    Ok(http.send(head).await?.status == StatusCode::OK)
}

/// Begins an upload; answers with the address that takes the blob of this digest.
pub(super) async fn begin(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    deadline: Instant,
) -> Result<reqwest::Url, RegistryError> {
    let answer = http.send(to(name, Method::POST, "blobs/uploads/", deadline)).await?;
    if answer.status != StatusCode::ACCEPTED {
        return Err(answer.unexpected(&name.registry, "the start of an upload"));
    }
    session(http, name, digest, &answer)
}

/// The address that the answer to the start of an upload names.
pub(super) fn session(
    http: &Transport,
    name: &ImageName,
    digest: &Digest,
    answer: &Answer,
) -> Result<reqwest::Url, RegistryError> {
    let Some(location) = answer.header("location") else {
        return Err(RegistryError::malformed(&name.registry, "the start of an upload without a location"));
    };
    let mut url = http.follow(name, location)?;
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    Ok(url)
}

/// Pushes a blob that is in memory, unless it is there.
pub(super) async fn blob(
    http: &Transport,
    name: &ImageName,
    bytes: Bytes,
    deadline: Instant,
) -> Result<Digest, RegistryError> {
    let digest = Digest::of(&bytes);
    if has_blob(http, name, &digest, deadline).await? {
        return Ok(digest);
    }
    // A repeated PUT may find its upload session used up by an earlier one whose answer was lost: start again.
    for last in [false, true] {
        let url = begin(http, name, &digest, deadline).await?;
        let put = to(name, Method::PUT, "", deadline).at(url);
        let answer = http.send(put.body("application/octet-stream", bytes.clone())).await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => return Ok(digest),
            StatusCode::NOT_FOUND if !last => {}
            _ => return Err(answer.unexpected(&name.registry, &format!("an upload of blob {digest}"))),
        }
    }
    Err(RegistryError::unavailable(&name.registry, "its upload sessions vanish"))
}

/// Sends a manifest, whose digest and parts are known to be right; `reference` is for the words of a refusal.
pub(super) async fn manifest(
    http: &Transport,
    name: &ImageName,
    reference: &str,
    call: Call<'_>,
) -> Result<Answer, RegistryError> {
    let mut attempt = 1;
    loop {
        let answer = http.send(call.clone()).await?;
        if answer.status == StatusCode::CREATED {
            return Ok(answer);
        }
        let message = message(&answer.body);
        if attempt >= ATTEMPTS || !BEHIND.iter().any(|code| message.starts_with(code)) {
            return Err(answer.unexpected(&name.registry, &format!("the manifest {reference}: {message}")));
        }
        tracing::debug!(%name, reference, attempt, message, "sending the manifest again");
        tokio::time::sleep(pause(attempt)).await;
        attempt += 1;
    }
}

/// The first error code and message of a registry's refusal, cut short.
fn message(body: &[u8]) -> String {
    let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| parsed.pointer(&format!("/errors/0/{field}")).and_then(Value::as_str).unwrap_or_default();
    format!("{} {}", text("code"), text("message")).chars().take(limits::NAME).collect()
}
