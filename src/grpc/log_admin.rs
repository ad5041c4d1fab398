//! `LogAdminService`: backup, erasure, succession. Translates and delegates.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use futures_util::Stream;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use super::{
    auth::authorize,
    log::refusal,
    status,
    v1::{self, backup_response::Part, log_admin_service_server},
};
use crate::{
    log::{Head, Log, LogError, Logs},
    model::{Digest, Role, Statement, Subject, limits, predicate},
    signing::{Signing, SigningError},
};

/// Only whoever holds no other role than this may change the log as a whole.
const ADMIN: [Role; 1] = [Role::Admin];
/// Bytes of a file in one message.
const PIECE: usize = 256 * 1024;
/// Messages read ahead of a client.
const AHEAD: usize = 4;

/// Makes a log of the given origin the present one and freezes the one before; its last head, and the new log.
pub type Succeed = Arc<dyn Fn(&str) -> Result<(Head, Log), SuccessionError> + Send + Sync>;

/// Why no new log took over.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The origin cannot be one.
    #[error("{0}")]
    Origin(String),
    /// Something failed on the way. The log before goes on, unless the chain says that it is frozen.
    #[error("the new log could not be made: {0}")]
    Failed(String),
    /// The new log is there, and the one before could not be frozen.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The face of `LogAdminService`.
#[derive(Clone)]
pub struct LogAdminFace {
    logs: Logs,
    signing: Arc<Signing>,
    succeed: Succeed,
    /// Where a copy stands while it is sent: on the log's own disk, so that it costs no room.
    scratch: PathBuf,
    /// One backup, erasure or succession at a time.
    one: Arc<Semaphore>,
    clock: fn() -> Timestamp,
}

impl std::fmt::Debug for LogAdminFace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogAdminFace").field("logs", &self.logs).finish_non_exhaustive()
    }
}

impl LogAdminFace {
    /// `scratch` is a directory on the log's disk that may be made and removed.
    pub fn new(
        logs: Logs,
        signing: Arc<Signing>,
        succeed: Succeed,
        scratch: PathBuf,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self { logs, signing, succeed, scratch, one: Arc::new(Semaphore::new(1)), clock }
    }

    /// As a tonic service.
    pub fn into_server(self) -> log_admin_service_server::LogAdminServiceServer<Self> {
        log_admin_service_server::LogAdminServiceServer::new(self)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn alone(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Status> {
        Arc::clone(&self.one).try_acquire_owned().map_err(|_busy| {
            let message = "another backup, erasure or freeze is under way";
            status::unavailable(message, "ADMIN_BUSY", std::time::Duration::from_secs(5))
        })
    }
}

/// A path below which everything is removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.0.display(), "the copy that was sent could not be removed");
            }
            _ => {}
        }
    }
}

type Pieces = mpsc::Sender<Result<v1::BackupResponse, Status>>;

/// Copies the log and sends the copy; blocks.
fn send_backup(log: &Log, scratch: &Scratch, pieces: &Pieces) -> Result<(), Status> {
    drop(Scratch(scratch.0.clone())); // What an interrupted one left.
    let head = log.backup(&scratch.0).map_err(|error| refusal(&error))?;
    let io = |error: std::io::Error| status::internal(&error);
    let files = files_of(&scratch.0).map_err(io)?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    let head = v1::BackupHead {
        origin: log.origin().to_owned(),
        size: head.size,
        checkpoint: head.checkpoint.to_string(),
        bytes,
    };
    send(pieces, Part::Head(head))?;
    for (path, _) in files {
        let mut file = File::open(scratch.0.join(&path)).map_err(io)?;
        loop {
            let mut content = Vec::with_capacity(PIECE);
            let most = u64::try_from(PIECE).unwrap_or(u64::MAX);
            let read = file.by_ref().take(most).read_to_end(&mut content).map_err(io)?;
            // An empty file is one empty piece.
            send(pieces, Part::Piece(v1::FilePiece { path: path.clone(), content: content.into() }))?;
            if read < PIECE {
                break;
            }
        }
    }
    Ok(())
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn send(pieces: &Pieces, part: Part) -> Result<(), Status> {
    let gone = |_closed| Status::cancelled("the client went away");
    pieces.blocking_send(Ok(v1::BackupResponse { part: Some(part) })).map_err(gone)
}

/// The files of a copy with their sizes; the anchor last, without which a copy is not whole.
fn files_of(copy: &Path) -> std::io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for (directory, prefix) in [(copy.join("db"), "db/"), (copy.to_owned(), "")] {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                files.push((format!("{prefix}{}", entry.file_name().to_string_lossy()), entry.metadata()?.len()));
            }
        }
    }
    Ok(files)
}

#[tonic::async_trait]
impl log_admin_service_server::LogAdminService for LogAdminFace {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupResponse, Status>> + Send>>;

    async fn backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let alone = self.alone()?;
        let (log, scratch) = (self.logs.present(), Scratch(self.scratch.clone()));
        tracing::info!(caller = %caller.identity, size = log.size(), "backup");
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(refused) = send_backup(&log, &scratch, &sender) {
                // A client that went away needs no answer.
                drop(sender.blocking_send(Err(refused)));
            }
            drop((scratch, alone));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn erase_payload(
        &self,
        request: Request<v1::ErasePayloadRequest>,
    ) -> Result<Response<v1::ErasePayloadResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let v1::ErasePayloadRequest { origin, index, reason } = request.into_inner();
        if reason.is_empty() || reason.len() > limits::NAME || reason.chars().any(char::is_control) {
            let problem = format!("1 to {} characters without control characters: why it is erased", limits::NAME);
            return Err(status::invalid("reason", &problem));
        }
        let log = if origin.is_empty() { Some(self.logs.present()) } else { self.logs.of(&origin) };
        let log = log.ok_or_else(|| status::not_found("this instance has no log of that origin"))?;
        let _alone = self.alone()?;
        let read = log.clone();
        let entry = tokio::task::spawn_blocking(move || read.entry(index))
            .await
            .map_err(|lost| status::internal(&lost))?
            .map_err(|error| refusal(&error))?;
        if entry.payload.is_none() {
            return Err(refusal(&LogError::NoPayload(index)));
        }
        // Recorded first: an erasure that nobody can account for must not happen.
        let subject = Subject { name: format!("{}#{index}", log.origin()), digest: Digest::of(&entry.leaf) };
        let predicate = json!({ "origin": log.origin(), "index": index, "reason": reason });
        let statement = Statement::new(vec![subject], predicate::ERASURE, predicate)
            .map_err(|source| status::invalid("reason", &source))?;
        let signed = self.signing.attest(vec![statement], &caller.identity, (self.clock)()).await;
        let signed = signed.map_err(|error| match &error {
            SigningError::Log(log) => refusal(log),
            _ => status::internal(&error),
        })?;
        tokio::task::spawn_blocking(move || log.erase(index))
            .await
            .map_err(|lost| status::internal(&lost))?
            .map_err(|error| refusal(&error))?;
        tracing::info!(caller = %caller.identity, index, reason, "payload erased");
        let entry = signed.into_iter().next().map(|signed| signed.entry.into());
        Ok(Response::new(v1::ErasePayloadResponse { entry }))
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Result<Response<v1::FreezeResponse>, Status> {
        let caller = authorize(&request, &ADMIN)?;
        let successor = request.into_inner().successor;
        if successor.is_empty() || successor.len() > limits::NAME {
            return Err(status::invalid("successor", &"the host name of the new log, such as log2.example.org"));
        }
        let _alone = self.alone()?;
        tracing::warn!(caller = %caller.identity, successor, "the log is succeeded by a new one");
        let succeed = Arc::clone(&self.succeed);
        let done = tokio::task::spawn_blocking(move || succeed(&successor)).await;
        let (last, next) = done.map_err(|lost| status::internal(&lost))?.map_err(|error| match &error {
            SuccessionError::Origin(problem) => status::invalid("successor", problem),
            SuccessionError::Failed(_) => {
                status::with_info(Code::FailedPrecondition, &error.to_string(), "SUCCESSION_FAILED", [].into())
            }
            SuccessionError::Log(log) => refusal(log),
        })?;
        Ok(Response::new(v1::FreezeResponse {
            last_checkpoint: last.checkpoint.to_string(),
            verifier_key: next.key().vkey(),
        }))
    }
}
