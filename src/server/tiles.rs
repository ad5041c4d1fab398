//! The log for strangers, C2SP `tlog-tiles` over HTTP: `/checkpoint`, `/tile/<level>/<index>[.p/<width>]` and
//! `/tile/entries/<index>[.p/<width>]`; the same under `/api/v2`, where Sigstore clients look.
//!
//! - The checkpoint changes and may be cached for `FRESH`. Tiles and bundles never change, so they may be kept for ever;
//!   an answer that something is not there (yet), or that it could not be read, must not be kept at all.
//! - The log is the one whose origin the request's host names, else the present one. Under another name a tile is kept for
//!   `FRESH` too: one day another log may stand there.
//! - Partial tiles are cut from what is there when they are asked for, at every width that a tree of the log has or had,
//!   also when the full tile exists. Empty and future ones do not exist.
//! - Paths count byte by byte: percent-encoding, leading zeros or a trailing slash make another resource, which is not
//!   there. A query string is ignored.
//! - Entry bundles are compressed with gzip for clients that say they take it: leaves repeat most of their certificate, so
//!   256 of them shrink to about three tenths. That costs milliseconds for whoever asks, so `COMPRESSING` bundles are
//!   compressed at a time, and who comes meanwhile gets plain bytes. Hashes do not shrink and go out as they are.
//! - Everybody may read, browsers of any origin too.

use std::{io::Write as _, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::State,
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri,
    header::{
        ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE,
        ETAG, HOST, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::sync::Semaphore;

use crate::{
    log::{Log, LogError, Logs},
    model::Digest,
    tlog::TilePath,
};

const NOTE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// How long what may change may be kept: two seconds.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=2");
/// How long a tile may be kept: for ever, which caches take to be a year.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// What must not be kept.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// What is allowed here.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// Bundles that are compressed at the same time.
const COMPRESSING: usize = 2;

/// What the routes share.
#[derive(Debug, Clone)]
struct Tiles {
    logs: Logs,
    /// Taken by whoever compresses.
    compressors: Arc<Semaphore>,
}

/// The routes.
pub fn router(logs: Logs) -> Router {
    router_with(logs, COMPRESSING)
}

/// The routes, with so many compressors.
pub fn router_with(logs: Logs, compressing: usize) -> Router {
    let routes = Router::new()
        .route("/checkpoint", get(checkpoint).options(preflight).fallback(method))
        .route("/tile/{*path}", get(tile).options(preflight).fallback(method))
        .with_state(Tiles { logs, compressors: Arc::new(Semaphore::new(compressing)) });
    Router::new().nest("/api/v2", routes.clone()).merge(routes).layer(map_response(for_everybody))
}

/// What a path outside of all routes is answered with.
pub fn nothing_here() -> Response {
    for_everybody_now(missing("nothing is here; see c2sp.org/tlog-tiles for /checkpoint and /tile/\n"))
}

async fn for_everybody(response: Response) -> Response {
    for_everybody_now(response)
}

/// The headers of every answer. Whatever does not say how long it may be kept must not be kept.
fn for_everybody_now(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*")),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn method() -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, METHODS)], "the log is only read here; use GET\n").into_response()
}

fn missing(why: &'static str) -> Response {
    (StatusCode::NOT_FOUND, why).into_response()
}

fn failed(why: &'static str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
}

/// The log that a request is for, and whether the request calls it by its name.
fn named(logs: &Logs, headers: &HeaderMap, uri: &Uri) -> (Log, bool) {
    let host = uri.host().or_else(|| headers.get(HOST)?.to_str().ok());
    let named = host.and_then(|host| logs.of(host.split(':').next()?));
    named.map_or_else(|| (logs.present(), false), |log| (log, true))
}

async fn checkpoint(State(Tiles { logs, .. }): State<Tiles>, uri: Uri, headers: HeaderMap) -> Response {
    let (log, _) = named(&logs, &headers, &uri);
    let note = log.head().checkpoint;
    // Of the whole note: another signature of the same tree is another answer.
    let tag = format!("\"{}\"", Digest::of(note.as_bytes()).hex());
    if is_known(&headers, &tag) {
        return not_modified(&tag, FRESH, None);
    }
    answer(&tag, NOTE, FRESH, Vec::new(), note.as_bytes().to_vec())
}

async fn tile(State(Tiles { logs, compressors }): State<Tiles>, uri: Uri, headers: HeaderMap) -> Response {
    let (log, by_name) = named(&logs, &headers, &uri);
    let cache = if by_name { IMMUTABLE } else { FRESH };
    // The path as it was sent: decoding would give one resource many names.
    let Some(path) = uri.path().strip_prefix('/').and_then(|path| path.parse::<TilePath>().ok()) else {
        return missing("not a tile path; see c2sp.org/tlog-tiles\n");
    };
    if !log.has_resource(path) {
        return missing("the log has no such tile\n");
    }
    let is_bundle = matches!(path, TilePath::Entries { .. });
    let vary = is_bundle.then_some((VARY, HeaderValue::from_static("accept-encoding")));
    // What a path of a log names never changes, so both are as good a tag as a hash; each encoding has its own.
    let origin = log.origin().to_owned();
    let (plain, zipped) = (format!("\"{origin}/{path}\""), format!("\"{origin}/{path}+gzip\""));
    if let Some(tag) = [&plain, &zipped].into_iter().find(|tag| is_known(&headers, tag)) {
        return not_modified(tag, cache, vary);
    }
    let body = match tokio::task::spawn_blocking(move || log.resource(path)).await {
        Ok(Ok(body)) => body,
        Ok(Err(LogError::NotFound)) => return missing("the log has no such tile\n"),
        Ok(Err(error)) => {
            tracing::error!(%error, %path, "a tile could not be read");
            return failed("the tile could not be read\n");
        }
        Err(_lost) => return failed("interrupted\n"),
    };
    let vary: Vec<_> = vary.into_iter().collect();
    if is_bundle && takes_gzip(&headers) {
        match compressed(body, &compressors).await {
            Ok(body) => {
                let more = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))].into_iter().chain(vary).collect();
                return answer(&zipped, BYTES, cache, more, body);
            }
            Err(Some(body)) => return answer(&plain, BYTES, cache, vary, body),
            Err(None) => return failed("interrupted\n"),
        }
    }
    answer(&plain, BYTES, cache, vary, body)
}

/// The body in gzip; as it was when enough others are being compressed; `None` when the worker was lost.
async fn compressed(body: Vec<u8>, compressors: &Arc<Semaphore>) -> Result<Vec<u8>, Option<Vec<u8>>> {
    let Ok(permit) = Arc::clone(compressors).try_acquire_owned() else { return Err(Some(body)) };
    let work = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
        encoder.write_all(&body).and_then(|()| encoder.finish()).map_err(|_source| Some(body))
    });
    work.await.unwrap_or(Err(None))
}

fn answer(
    tag: &str,
    kind: HeaderValue,
    cache: HeaderValue,
    more: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.extend([(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)]);
    headers.extend(HeaderValue::from_str(tag).ok().map(|tag| (ETAG, tag)));
    headers.extend(more);
    response
}

fn not_modified(tag: &str, cache: HeaderValue, vary: Option<(HeaderName, HeaderValue)>) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    let headers = response.headers_mut();
    headers.extend([(CACHE_CONTROL, cache)]);
    headers.extend(HeaderValue::from_str(tag).ok().map(|tag| (ETAG, tag)));
    headers.extend(vary);
    response
}

/// Whether the client says that it has what `tag` names.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Whether the client takes gzip (RFC 9110 section 12.5.3): it names it, or anything, with a weight above zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let weight = |offer: &str| -> Option<(String, f32)> {
        let mut parts = offer.split(';');
        let name = parts.next()?.trim().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.trim().strip_prefix("q=")?.trim().parse().ok());
        Some((name, weight.unwrap_or(1.0)))
    };
    let offers: Vec<_> = offers.flat_map(|list| list.split(',')).filter_map(weight).collect();
    let of = |name: &str| offers.iter().find(|(offer, _)| offer == name).map(|(_, weight)| *weight);
    of("gzip").or_else(|| of("x-gzip")).or_else(|| of("*")).is_some_and(|weight| weight > 0.0)
}
