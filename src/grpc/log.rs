//! `LogService`: reads of the transparency logs. Translates and delegates.

mod filter;
mod messages;
mod watch;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    status,
    v1::{self, log_service_server::LogService, log_service_server::LogServiceServer},
};
use crate::{
    log::{
        Log, LogError, Logs,
        search::{Filter, Finder, Order},
    },
    model::{Role, limits},
};
use watch::{Watch, Watchers};

/// Who may read.
const READERS: [Role; 4] = [Role::Auditor, Role::Operator, Role::Builder, Role::Verifier];
/// Entries in one page unless asked otherwise.
const PAGE: usize = 100;
/// After so long without a message a watcher is told how far the log was looked at.
const SILENCE: Duration = Duration::from_secs(10);

/// The face of the logs.
#[derive(Debug, Clone)]
pub struct LogFace {
    logs: Logs,
    /// By origin. They remember what they learnt of their log.
    finders: Arc<Mutex<HashMap<String, Finder>>>,
    watchers: Arc<Watchers>,
    stopping: tokio::sync::watch::Receiver<bool>,
    silence: Duration,
}

impl LogFace {
    /// A face over `logs`. Watchers are sent home once `stopping` turns true.
    pub fn new(logs: Logs, stopping: tokio::sync::watch::Receiver<bool>) -> Self {
        Self { logs, finders: Arc::default(), watchers: Arc::default(), stopping, silence: SILENCE }
    }

    /// The same face with another patience before signs of progress are sent.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// As a tonic service.
    pub fn into_server(self) -> LogServiceServer<Self> {
        LogServiceServer::new(self).max_encoding_message_size(limits::GRPC_MESSAGE + limits::LEAF + 16 * 1024)
    }

    /// The log of an origin; empty is the present one.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn log(&self, origin: &str) -> Result<Log, Status> {
        if origin.is_empty() {
            return Ok(self.logs.present());
        }
        self.logs.of(origin).ok_or_else(|| {
            let origins: Vec<_> = self.logs.all().iter().map(|log| log.origin().to_owned()).collect();
            status::not_found(&format!("this instance has no log of that origin; it has {}", origins.join(", ")))
        })
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn finder(&self, origin: &str) -> Result<Finder, Status> {
        let log = self.log(origin)?;
        let mut finders = self.finders.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(finders.entry(log.origin().to_owned()).or_insert_with(|| Finder::new(log)).clone())
    }
}

/// Runs a read off the async threads.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| status::internal(&source))?.map_err(|error| refusal(&error))
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
            error.retry_after().unwrap_or(Duration::from_secs(1)),
        ),
        LogError::Unsigned => status::key_unavailable(&error.to_string()),
        LogError::Unwitnessed(_) => status::unavailable(
            &error.to_string(),
            "LOG_UNWITNESSED",
            error.retry_after().unwrap_or(Duration::from_secs(1)),
        ),
        _ => status::internal(error),
    }
}

/// One page of a search.
fn search(
    finder: &Finder,
    filter: &Filter,
    from: Option<u64>,
    limit: usize,
    order: Order,
    with_summaries: bool,
) -> Result<v1::SearchResponse, LogError> {
    let page = finder.page(filter, from, limit, order)?;
    let mut answer = v1::SearchResponse {
        indexes: page.indexes,
        complete_to_size: page.complete_to_size,
        next_index: page.next,
        without_time: page.without_time,
        summaries: Vec::new(),
    };
    if with_summaries {
        messages::summarise(finder.log(), &mut answer, order)?;
    }
    Ok(answer)
}

/// A consistency proof with the roots that it leads between.
fn consistency(log: &Log, from_size: u64, to_size: u64) -> Result<v1::GetConsistencyProofResponse, LogError> {
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
}

#[tonic::async_trait]
impl LogService for LogFace {
    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        authorize(&request, &READERS)?;
        let log = self.log(&request.into_inner().origin)?;
        let head = log.head();
        Ok(Response::new(v1::GetCheckpointResponse {
            origin: log.origin().to_owned(),
            size: head.size,
            root: head.root.to_vec().into(),
            checkpoint: head.checkpoint.to_string(),
            verifier_key: log.key().vkey(),
            successor: log.successor().unwrap_or_default().to_owned(),
            origins: self.logs.all().iter().map(|log| log.origin().to_owned()).collect(),
        }))
    }

    async fn get_entry(&self, request: Request<v1::GetEntryRequest>) -> Result<Response<v1::GetEntryResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetEntryRequest { index, with_payload, origin } = request.into_inner();
        let log = self.log(&origin)?;
        let (found, proven) = off_thread(move || Ok((log.entry(index)?, log.receipt(index)?))).await?;
        Ok(Response::new(v1::GetEntryResponse {
            summary: Some(messages::summary(&found)),
            entry: Some(messages::entry(found, with_payload)),
            receipt: Some(messages::receipt(proven)),
        }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<v1::GetInclusionProofRequest>,
    ) -> Result<Response<v1::GetInclusionProofResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetInclusionProofRequest { index, origin } = request.into_inner();
        let log = self.log(&origin)?;
        let proven = off_thread(move || log.receipt(index)).await?;
        Ok(Response::new(v1::GetInclusionProofResponse { receipt: Some(messages::receipt(proven)) }))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<v1::GetConsistencyProofRequest>,
    ) -> Result<Response<v1::GetConsistencyProofResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetConsistencyProofRequest { from_size, to_size, origin } = request.into_inner();
        let log = self.log(&origin)?;
        off_thread(move || consistency(&log, from_size, to_size)).await.map(Response::new)
    }

    async fn get_receipt(
        &self,
        request: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::GetReceiptRequest { index, origin } = request.into_inner();
        let log = self.log(&origin)?;
        let (entry, proven) = off_thread(move || Ok((log.entry(index)?, log.receipt(index)?))).await?;
        let receipt = crate::tlog::Receipt::new(index, proven.proof, &proven.checkpoint)
            .map_err(|source| status::internal(&source))?;
        Ok(Response::new(v1::GetReceiptResponse { receipt: receipt.to_string(), leaf: entry.leaf.into() }))
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Result<Response<v1::SearchResponse>, Status> {
        authorize(&request, &READERS)?;
        let v1::SearchRequest { filter, from_index, limit, newest_first, with_summaries, origin } =
            request.into_inner();
        let filter = filter::parse(filter)?;
        let limit = match usize::try_from(limit).unwrap_or(usize::MAX) {
            0 => PAGE,
            limit if limit <= limits::SEARCH_PAGE => limit,
            _ => return Err(status::invalid("limit", &format!("at most {}", limits::SEARCH_PAGE))),
        };
        let order = if newest_first { Order::NewestFirst } else { Order::OldestFirst };
        let finder = self.finder(&origin)?;
        off_thread(move || search(&finder, &filter, from_index, limit, order, with_summaries)).await.map(Response::new)
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = authorize(&request, &READERS)?;
        let v1::WatchRequest { from_index, with_payload, filter, origin } = request.into_inner();
        let (filter, finder) = (filter::parse(filter)?, self.finder(&origin)?);
        let slot = self.watchers.admit(caller.identity)?;
        let watch = Watch::new(self, finder, filter, from_index, with_payload, slot);
        // Pulled, not pushed: the next entry is read when the transport has room for it.
        Ok(Response::new(Box::pin(stream::unfold(watch, Watch::step))))
    }
}
