//! Rekor v2: a client's own signature into the log, and the log's read side over gRPC.
//!
//! `POST /api/v2/log/entries` answers 201 with the entry, its inclusion proof and a checkpoint, once the entry is durable:
//! in milliseconds, as every batch of the log has a checkpoint of its own. Where we differ from upstream: the same entry
//! again is answered with its old index (upstream: 409, which clients cannot handle), and `dsseRequestV002`, which older
//! clients send, is recorded as the hashedrekord of the envelope's pre-authentication encoding, which is what newer ones
//! send themselves. As upstream, an Ed25519 key signs by Ed25519ph: an entry holds a digest, so the pure form could not be
//! verified from it.
//!
//! The read side over HTTP is the log's own (`server::tiles`).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tonic::{Request, Status};

use super::{
    Refusal,
    limits::{Limiter, address},
    proto::{
        dev::sigstore::{
            common::v1::LogId,
            rekor::{
                v1::{Checkpoint, InclusionProof, KindVersion, TransparencyLogEntry},
                v2::{
                    CreateEntryRequest, EntryBundleRequest, TileRequest,
                    rekor_server::{Rekor, RekorServer},
                },
            },
        },
        google::api::HttpBody,
    },
};
use crate::{
    log::Log,
    model::{limits, submission::Submission},
    recording::{Recorded, Recording},
    tlog::TilePath,
};

mod request;

/// The face.
#[derive(Debug, Clone)]
pub struct RekorFace {
    recording: Recording,
    limiter: Arc<Limiter>,
}

impl RekorFace {
    /// Records by `recording`, for each address as often as `limiter` allows.
    pub fn new(recording: Recording, limiter: Arc<Limiter>) -> Self {
        Self { recording, limiter }
    }

    /// Its HTTP routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/api/v2/log/entries", post(create))
            .layer(DefaultBodyLimit::max(limits::ENTRY_REQUEST))
            .with_state(self)
    }

    /// Its gRPC service.
    pub fn into_server(self) -> RekorServer<Self> {
        RekorServer::new(self).max_decoding_message_size(limits::ENTRY_REQUEST)
    }

    /// Takes one request out of the allowance of an address, before anything of the request is looked at.
    fn allow(&self, from: Option<IpAddr>) -> Result<(), Refusal> {
        from.map_or(Ok(()), |from| self.limiter.take(&address(from), Instant::now())).map_err(Refusal::too_many)
    }

    async fn record(&self, submission: Submission) -> Result<Recorded, Refusal> {
        Ok(self.recording.record(&submission).await?)
    }

    /// The resource of the present log at this path.
    async fn resource(&self, path: String) -> Result<HttpBody, Refusal> {
        let unknown = || Refusal::not_found(format!("the log has no {path}; see c2sp.org/tlog-tiles for such names"));
        let path = path.parse::<TilePath>().map_err(|_source| unknown())?;
        let log = self.recording.logs().present();
        if !log.has_resource(path) {
            return Err(unknown());
        }
        let read = tokio::task::spawn_blocking(move || log.resource(path)).await;
        let bytes = read.map_err(|lost| Refusal::internal(&lost))??;
        Ok(body("application/octet-stream", bytes))
    }
}

fn body(kind: &str, bytes: Vec<u8>) -> HttpBody {
    HttpBody { content_type: kind.to_owned(), data: bytes.into(), extensions: Vec::new() }
}

async fn create(
    State(face): State<RekorFace>,
    from: Option<Extension<ConnectInfo<SocketAddr>>>,
    body: Bytes,
) -> Response {
    let from = from.map(|Extension(ConnectInfo(address))| address.ip());
    let recorded = async {
        face.allow(from)?;
        face.record(Submission::from_json(&body)?).await
    };
    match recorded.await {
        Ok(recorded) => {
            (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], as_json(&recorded).to_string()).into_response()
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// `TransparencyLogEntry` as protobuf's JSON mapping has it, with the fields that are empty: 64-bit numbers are strings.
fn as_json(Recorded { log, leaf, receipt }: &Recorded) -> Value {
    json!({
        "logIndex": receipt.index.to_string(),
        "logId": { "keyId": STANDARD.encode(log.log_id()) },
        "kindVersion": { "kind": KIND, "version": VERSION },
        "integratedTime": "0",
        "inclusionPromise": null,
        "inclusionProof": {
            "logIndex": receipt.index.to_string(),
            "rootHash": STANDARD.encode(receipt.root),
            "treeSize": receipt.tree_size.to_string(),
            "hashes": receipt.proof.iter().map(|hash| STANDARD.encode(hash)).collect::<Vec<_>>(),
            "checkpoint": { "envelope": receipt.checkpoint.as_ref() },
        },
        "canonicalizedBody": STANDARD.encode(leaf),
    })
}

const KIND: &str = "hashedrekord";
const VERSION: &str = "0.0.2";

fn as_message(Recorded { log, leaf, receipt }: Recorded) -> Result<TransparencyLogEntry, Refusal> {
    let number = |number: u64| i64::try_from(number).map_err(|source| Refusal::internal(&source));
    Ok(TransparencyLogEntry {
        log_index: number(receipt.index)?,
        log_id: Some(LogId { key_id: log.log_id().to_vec().into() }),
        kind_version: Some(KindVersion { kind: KIND.to_owned(), version: VERSION.to_owned() }),
        integrated_time: 0,
        inclusion_promise: None,
        inclusion_proof: Some(InclusionProof {
            log_index: number(receipt.index)?,
            root_hash: receipt.root.to_vec().into(),
            tree_size: number(receipt.tree_size)?,
            hashes: receipt.proof.iter().map(|hash| hash.to_vec().into()).collect(),
            checkpoint: Some(Checkpoint { envelope: receipt.checkpoint.to_string() }),
        }),
        canonicalized_body: leaf.into(),
    })
}

fn sender<T>(request: &Request<T>) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip())
}

#[tonic::async_trait]
impl Rekor for RekorFace {
    async fn create_entry(
        &self,
        request: Request<CreateEntryRequest>,
    ) -> Result<tonic::Response<TransparencyLogEntry>, Status> {
        self.allow(sender(&request))?;
        let recorded = self.record(request::submission(request.into_inner()).map_err(Refusal::from)?).await?;
        Ok(tonic::Response::new(as_message(recorded)?))
    }

    async fn get_tile(&self, request: Request<TileRequest>) -> Result<tonic::Response<HttpBody>, Status> {
        let TileRequest { l, n } = request.into_inner();
        Ok(tonic::Response::new(self.resource(format!("tile/{l}/{n}")).await?))
    }

    async fn get_entry_bundle(
        &self,
        request: Request<EntryBundleRequest>,
    ) -> Result<tonic::Response<HttpBody>, Status> {
        Ok(tonic::Response::new(self.resource(format!("tile/entries/{}", request.into_inner().n)).await?))
    }

    async fn get_checkpoint(&self, _: Request<()>) -> Result<tonic::Response<HttpBody>, Status> {
        let log: Log = self.recording.logs().present();
        let note = log.head().checkpoint.as_bytes().to_vec();
        Ok(tonic::Response::new(body("text/plain; charset=utf-8", note)))
    }
}
