//! `LogService`: reads of the transparency log. Translates and delegates.

use std::pin::Pin;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    convert, status,
    v1::{self, log_service_server::LogService, log_service_server::LogServiceServer, search_request::By},
};
use crate::{
    log::{Log, LogError, View},
    model::{Identity, Role, limits},
};

/// Who may read.
const READERS: [Role; 4] = [Role::Auditor, Role::Operator, Role::Builder, Role::Verifier];
/// Entries in one page unless asked otherwise, and at most.
const PAGE: usize = 100;
const MOST_PAGE: usize = 1_000;
/// Entries read ahead of a watcher.
const AHEAD: usize = 32;

/// The face of the log.
#[derive(Debug, Clone)]
pub struct LogFace {
    /// The log that is read.
    pub log: Log,
}

impl LogFace {
    /// As a tonic service.
    pub fn into_server(self) -> LogServiceServer<Self> {
        LogServiceServer::new(self).max_encoding_message_size(limits::GRPC_MESSAGE + limits::LEAF + 4096)
    }

    /// Runs a read off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, Status> {
        let log = self.log.clone();
        let done = tokio::task::spawn_blocking(move || work(&log)).await;
        done.map_err(|source| status::internal(&source))?.map_err(|error| refusal(&error))
    }
}

/// The status of a log's error.
pub(super) fn refusal(error: &LogError) -> Status {
    match error {
        LogError::NotFound => status::not_found("the log has no such entry or size"),
        LogError::Proof(source) => status::invalid("size", source),
        LogError::Invalid(problem) => status::invalid("entry", problem),
        LogError::NoPayload(_) => status::not_found(&error.to_string()),
        LogError::Full | LogError::Closed | LogError::DiskFull(_) => status::unavailable(
            &error.to_string(),
            if matches!(error, LogError::DiskFull(_)) { "DISK_FULL" } else { "LOG_BUSY" },
            error.retry_after().unwrap_or(std::time::Duration::from_secs(1)),
        ),
        LogError::Unwitnessed(_) => status::unavailable(
            &error.to_string(),
            "LOG_UNWITNESSED",
            error.retry_after().unwrap_or(std::time::Duration::from_secs(1)),
        ),
        _ => status::internal(error),
    }
}

fn receipt(receipt: crate::log::Receipt) -> v1::Receipt {
    v1::Receipt {
        index: receipt.index,
        tree_size: receipt.tree_size,
        root: receipt.root.to_vec().into(),
        proof: receipt.proof.iter().map(|hash| hash.to_vec().into()).collect(),
        checkpoint: receipt.checkpoint.to_string(),
    }
}

fn entry(entry: crate::log::Entry, with_payload: bool) -> v1::LogEntry {
    let payload = entry.payload.filter(|_| with_payload).unwrap_or_default();
    v1::LogEntry { index: entry.index, leaf: entry.leaf.into(), payload: payload.into() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn text(field: &str, value: String, most: usize) -> Result<String, Status> {
    match value.len() {
        0 => Err(status::invalid(field, &"must not be empty")),
        length if length > most => Err(status::invalid(field, &format!("has {length} bytes; the limit is {most}"))),
        _ => Ok(value),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn view(by: Option<By>) -> Result<View, Status> {
    Ok(match by {
        None => View::All,
        Some(By::Digest(digest)) => View::Digest(convert::digest("digest", &digest)?),
        Some(By::Name(name)) => View::Name(text("name", name, limits::NAME)?),
        Some(By::Identity(identity)) => View::Identity(Identity {
            subject: text("identity.subject", identity.subject, limits::URI)?,
            issuer: text("identity.issuer", identity.issuer, limits::URI)?,
        }),
        Some(By::PredicateType(uri)) => View::PredicateType(text("predicate_type", uri, limits::URI)?),
        Some(By::Service(of)) => View::Service {
            service: text("service.service", of.service, limits::NAME)?,
            environment: text("service.environment", of.environment, limits::NAME)?,
        },
    })
}

/// One page of a search.
fn search(log: &Log, view: &View, from: u64, limit: usize, newest_first: bool) -> Result<v1::SearchResponse, LogError> {
    // The size first: what is published while we look may be in the answer, but the answer does not claim it.
    let complete_to_size = log.size();
    let mut indexes = if newest_first {
        let before = if from == 0 { complete_to_size } else { from };
        log.newest(view, before, limit)?
    } else {
        log.find(view, from, limit)?
    };
    indexes.retain(|index| *index < complete_to_size);
    let last = indexes.last().copied().filter(|_| indexes.len() == limit);
    let next_index =
        last.and_then(|last| if newest_first { Some(last).filter(|last| *last > 0) } else { last.checked_add(1) });
    Ok(v1::SearchResponse { indexes, complete_to_size, next_index })
}

#[tonic::async_trait]
impl LogService for LogFace {
    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        authorize(&request, &READERS)?;
        let head = self.log.head();
        Ok(Response::new(v1::GetCheckpointResponse {
            origin: self.log.origin().to_owned(),
            size: head.size,
            root: head.root.to_vec().into(),
            checkpoint: head.checkpoint.to_string(),
            verifier_key: self.log.key().vkey(),
        }))
    }

    async fn get_entry(&self, request: Request<v1::GetEntryRequest>) -> Result<Response<v1::GetEntryResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetEntryRequest { index, with_payload } = request.into_inner();
        let (found, proven) = self.read(move |log| Ok((log.entry(index)?, log.receipt(index)?))).await?;
        Ok(Response::new(v1::GetEntryResponse {
            entry: Some(entry(found, with_payload)),
            receipt: Some(receipt(proven)),
        }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        authorize(&request, &READERS)?;
        let index = request.into_inner().index;
        let proven = self.read(move |log| log.receipt(index)).await?;
        Ok(Response::new(v1::GetInclusionProofResponse { receipt: Some(receipt(proven)) }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetConsistencyProofRequest { from_size, to_size } = request.into_inner();
        let answer = self.read(move |log| {
            let head = log.head();
            let to_size = if to_size == 0 { head.size } else { to_size };
            let proof = log.consistency(from_size, to_size)?;
            Ok(v1::GetConsistencyProofResponse {
                from_size,
                to_size,
                from_root: log.root_at(from_size)?.to_vec().into(),
                to_root: log.root_at(to_size)?.to_vec().into(),
                proof: proof.iter().map(|hash| hash.to_vec().into()).collect(),
                checkpoint: head.checkpoint.to_string(),
            })
        });
        Ok(Response::new(answer.await?))
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::SearchRequest { by, from_index, limit, newest_first } = request.into_inner();
        let view = view(by)?;
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => PAGE,
            limit if limit <= MOST_PAGE => limit,
            _ => return Err(status::invalid("limit", &format!("at most {MOST_PAGE}"))),
        };
        self.read(move |log| search(log, &view, from_index, limit, newest_first)).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        authorize(&request, &READERS)?;
        let v1::WatchRequest { from_index, with_payload } = request.into_inner();
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(follow(self.clone(), from_index, with_payload, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends entries from `next` on until the watcher goes away, the log closes or a read fails.
async fn follow(
    face: LogFace,
    mut next: u64,
    with_payload: bool,
    sender: mpsc::Sender<Result<v1::WatchResponse, Status>>,
) {
    let mut sizes = face.log.watch();
    loop {
        let size = *sizes.borrow_and_update();
        while next < size {
            let index = next;
            let read = face.read(move |log| log.entry(index)).await;
            let failed = read.is_err();
            let message = read.map(|found| v1::WatchResponse { entry: Some(entry(found, with_payload)), size });
            if sender.send(message).await.is_err() || failed {
                return;
            }
            next += 1;
        }
        tokio::select! {
            () = sender.closed() => return,
            changed = sizes.changed() => if changed.is_err() { return },
        }
    }
}
