//! `SigningService`: the build door.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tonic::{Code, Extensions, Request, Response, Status, Streaming};

use super::{
    auth::{authorize, spend},
    convert, status, v1,
};
use crate::{
    keys::{KeyError, KeyRefusal},
    log::LogError,
    model::{Caller, Digest, Identity, ImageRef, KeyName, Role, Statement, StatementError, Subject, limits, predicate},
    signing::{Content, Signed, Signing, SigningError},
};

/// Statements of one stream that are being signed at the same time.
const STREAM_WIDTH: usize = 32;
/// How long attaching one bundle to its image may take.
const ATTACH_TIME: Duration = Duration::from_secs(20);

/// Takes so many signatures out of what an identity may have; the error is how long it must wait.
pub type Allow = Arc<dyn Fn(&Identity, u32) -> Result<(), Duration> + Send + Sync>;

/// The face of [`Signing`].
#[derive(Clone)]
pub struct SigningFace {
    /// The service.
    pub signing: Signing,
    /// Whether an identity may have so many signatures more.
    pub allow: Allow,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

impl fmt::Debug for SigningFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningFace").field("signing", &self.signing).finish_non_exhaustive()
    }
}

/// Who asked, and for which managed key.
struct Signer {
    caller: Caller,
    key: Option<KeyName>,
}

/// One thing to be signed, and where its bundle goes.
struct Job {
    content: Content,
    predicate_type: String,
    attach_to: Vec<(ImageRef, Digest)>,
}

impl SigningFace {
    /// The tonic service, with message limits.
    pub fn into_server(self) -> v1::signing_service_server::SigningServiceServer<Self> {
        v1::signing_service_server::SigningServiceServer::new(self).max_decoding_message_size(limits::GRPC_MESSAGE)
    }

    /// Takes these signatures out of what the caller may have.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn take(&self, caller: &Caller, jobs: &[Job]) -> Result<(), Status> {
        let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        (self.allow)(&caller.identity, count).map_err(status::too_many)
    }

    /// A token that counts once is good for one call, whatever the call signs and with which key.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn spend(&self, extensions: &Extensions) -> Result<(), Status> {
        spend(extensions, (self.clock)())
    }

    /// Signs with the managed key of this name, or with a key made for the call.
    async fn run(
        &self,
        jobs: Vec<Job>,
        key: Option<KeyName>,
        caller: &Caller,
    ) -> Result<Vec<v1::SignedBundle>, Status> {
        let now = (self.clock)();
        let contents = jobs.iter().map(|job| job.content.clone()).collect();
        let signed = match &key {
            None => self.signing.sign_for(contents, caller, now).await,
            Some(key) => self.signing.sign_with(contents, key, caller, now).await,
        };
        let by: Arc<Signer> = Arc::new(Signer { caller: caller.clone(), key });
        let finish: Vec<_> = jobs
            .into_iter()
            .zip(signed.map_err(|error| refusal(&error))?)
            .map(|(job, signed)| self.clone().finish(job, signed, Arc::clone(&by), now))
            .collect();
        Ok(futures_util::stream::iter(finish).buffered(8).collect().await)
    }

    async fn finish(self, job: Job, signed: Signed, by: Arc<Signer>, now: Timestamp) -> v1::SignedBundle {
        tracing::info!(
            target: "audit", action = "sign", caller = %by.caller.identity,
            key = by.key.as_ref().map(KeyName::as_str), predicate_type = %job.predicate_type, entry = %signed.entry, "signed"
        );
        let (mut attached, mut attach_error) = (String::new(), String::new());
        for (image, digest) in &job.attach_to {
            let deadline = Instant::now() + ATTACH_TIME;
            match self.signing.attach(&image.name, digest, &signed.bundle, &job.predicate_type, now, deadline).await {
                Ok(manifest) => attached = manifest.to_string(),
                Err(error) => {
                    tracing::warn!(image = %image, %error, "bundle was not attached");
                    attach_error = format!("{image}: {error}");
                }
            }
        }
        v1::SignedBundle { bundle: signed.bundle.into(), entry: Some(signed.entry.into()), attached, attach_error }
    }
}

#[tonic::async_trait]
impl v1::signing_service_server::SigningService for SigningFace {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let caller = authorize(&request, &[Role::Builder])?;
        let (_, extensions, request) = request.into_parts();
        let key = key_of(&request.key)?;
        let jobs = sign_jobs(request)?;
        self.take(&caller, &jobs)?;
        self.spend(&extensions)?;
        Ok(Response::new(v1::SignResponse { bundles: self.run(jobs, key, &caller).await? }))
    }

    async fn attest(&self, request: Request<v1::AttestRequest>) -> Result<Response<v1::AttestResponse>, Status> {
        let caller = authorize(&request, &[Role::Builder])?;
        let (_, extensions, request) = request.into_parts();
        let key = key_of(&request.key)?;
        let jobs = vec![attest_job(request)?];
        self.take(&caller, &jobs)?;
        self.spend(&extensions)?;
        Ok(Response::new(v1::AttestResponse { bundle: self.run(jobs, key, &caller).await?.pop() }))
    }

    async fn attest_batch(
        &self,
        request: Request<v1::AttestBatchRequest>,
    ) -> Result<Response<v1::AttestBatchResponse>, Status> {
        let caller = authorize(&request, &[Role::Builder])?;
        let (_, extensions, v1::AttestBatchRequest { requests }) = request.into_parts();
        if requests.is_empty() || requests.len() > limits::BATCH {
            let problem = format!("{} statements; give 1 to {}", requests.len(), limits::BATCH);
            return Err(status::invalid("requests", &problem));
        }
        let named = requests.first().map(|first| first.key.clone()).unwrap_or_default();
        if requests.iter().any(|request| request.key != named) {
            return Err(status::invalid(
                "requests.key",
                &"a batch is signed by one key; name the same in all requests",
            ));
        }
        let key = key_of(&named)?;
        let jobs: Vec<Job> = requests.into_iter().map(attest_job).collect::<Result<_, _>>()?;
        self.take(&caller, &jobs)?;
        self.spend(&extensions)?;
        Ok(Response::new(v1::AttestBatchResponse { bundles: self.run(jobs, key, &caller).await? }))
    }

    type AttestStreamStream = Pin<Box<dyn Stream<Item = Result<v1::AttestResponse, Status>> + Send>>;

    async fn attest_stream(
        &self,
        request: Request<Streaming<v1::AttestRequest>>,
    ) -> Result<Response<Self::AttestStreamStream>, Status> {
        let caller = authorize(&request, &[Role::Builder])?;
        self.spend(request.extensions())?;
        let face = self.clone();
        let answers = request
            .into_inner()
            .map(move |message| {
                let (face, caller) = (face.clone(), caller.clone());
                async move {
                    let request = message?;
                    let key = key_of(&request.key)?;
                    let jobs = vec![attest_job(request)?];
                    face.take(&caller, &jobs)?;
                    Ok(v1::AttestResponse { bundle: face.run(jobs, key, &caller).await?.pop() })
                }
            })
            .buffered(STREAM_WIDTH);
        // A refusal ends the stream: what comes after it was not signed by this call's promise.
        let until_refused = answers.map_err(Box::new).scan(false, |ended, answer| {
            let answer = (!*ended).then_some(answer);
            *ended |= matches!(answer, Some(Err(_)));
            std::future::ready(answer)
        });
        Ok(Response::new(Box::pin(until_refused.map_err(|status| *status))))
    }
}

/// The managed key that is named; none when the field is empty.
fn key_of(name: &str) -> Result<Option<KeyName>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|source| status::invalid("key", &source))
}

fn sign_jobs(request: v1::SignRequest) -> Result<Vec<Job>, Status> {
    if request.subjects.is_empty() || request.subjects.len() > limits::SUBJECTS {
        let problem = format!("{} subjects; give 1 to {}", request.subjects.len(), limits::SUBJECTS);
        return Err(status::invalid("subjects", &problem));
    }
    let kind = v1::ArtifactKind::try_from(request.kind)
        .map_err(|_unknown| status::invalid("kind", &format!("{} is not an artifact kind", request.kind)))?;
    let subjects = subjects(request.subjects)?;
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = subjects.iter().find(|subject| !seen.insert((subject.name.clone(), subject.digest))) {
        return Err(status::invalid("subjects", &StatementError::DuplicateSubject(twice.digest)));
    }
    subjects
        .into_iter()
        .map(|subject| match kind {
            v1::ArtifactKind::File if request.attach => {
                Err(status::invalid("attach", &"a file has no registry; leave attach off or sign an image"))
            }
            v1::ArtifactKind::File => Ok(Job {
                content: Content::File(subject.digest),
                predicate_type: predicate::SIGN.to_owned(),
                attach_to: Vec::new(),
            }),
            v1::ArtifactKind::Image | v1::ArtifactKind::Unspecified => image_job(subject, request.attach),
        })
        .collect()
}

fn image_job(subject: Subject, attach: bool) -> Result<Job, Status> {
    let image = image_of(&subject, attach)?;
    let name = image.as_ref().map(|image| image.tagged_name().unwrap_or_else(|| image.name.to_string()));
    let subject = Subject { name: name.unwrap_or_default(), digest: subject.digest };
    let attach_to = image.filter(|_| attach).map(|image| (image, subject.digest)).into_iter().collect();
    let statement = Statement::new(vec![subject], predicate::SIGN, serde_json::json!({}))
        .map_err(|source| status::invalid("subjects", &source))?;
    Ok(Job { content: Content::Statement(statement), predicate_type: predicate::SIGN.to_owned(), attach_to })
}

/// The image reference that a subject's name is; none when the name is empty and nothing needs it.
fn image_of(subject: &Subject, needed: bool) -> Result<Option<ImageRef>, Status> {
    if subject.name.is_empty() && !needed {
        return Ok(None);
    }
    let image: ImageRef = subject.name.parse().map_err(|source| status::invalid("subjects.name", &source))?;
    match image.digest {
        Some(other) if other != subject.digest => Err(status::invalid(
            "subjects.name",
            &format!("the name says {other}, the digest says {}; they must be the same", subject.digest),
        )),
        _ => Ok(Some(image)),
    }
}

fn attest_job(request: v1::AttestRequest) -> Result<Job, Status> {
    let statement = match (request.statement.is_empty(), request.predicate.is_empty()) {
        (false, true) if request.subjects.is_empty() && request.predicate_type.is_empty() => {
            Statement::parse(&request.statement).map_err(|source| status::invalid("statement", &source))?
        }
        (true, false) => {
            if request.predicate.len() > limits::STATEMENT {
                return Err(status::invalid("predicate", &StatementError::TooLarge(request.predicate.len())));
            }
            crate::model::json::check_json_depth(&request.predicate, limits::JSON_DEPTH)
                .map_err(|_deep| status::invalid("predicate", &StatementError::TooDeep))?;
            let predicate =
                serde_json::from_slice(&request.predicate).map_err(|source| status::invalid("predicate", &source))?;
            Statement::new(subjects(request.subjects)?, &request.predicate_type, predicate)
                .map_err(|source| status::invalid("predicate", &source))?
        }
        _ => {
            let problem = "give either a whole statement, or subjects with predicate_type and predicate";
            return Err(status::invalid("statement", &problem));
        }
    };
    if predicate::RESERVED.contains(&statement.predicate_type()) {
        let problem = format!(
            "{} is written by the release and rollback services alone; use their calls",
            statement.predicate_type()
        );
        return Err(status::invalid("predicate_type", &problem));
    }
    let attach_to = if request.attach {
        let images = statement.subjects().iter().map(|subject| Ok((image_of(subject, true)?, subject.digest)));
        let images = images.collect::<Result<Vec<_>, Status>>()?;
        images.into_iter().filter_map(|(image, digest)| image.map(|image| (image, digest))).collect()
    } else {
        Vec::new()
    };
    let predicate_type = statement.predicate_type().to_owned();
    Ok(Job { content: Content::Statement(statement), predicate_type, attach_to })
}

fn subjects(subjects: Vec<v1::Subject>) -> Result<Vec<Subject>, Status> {
    subjects
        .into_iter()
        .map(|subject| Ok(Subject { digest: convert::digest("subjects.digest", &subject.digest)?, name: subject.name }))
        .collect()
}

/// The status of something that was not signed.
pub(super) fn refusal(error: &SigningError) -> Status {
    match error {
        SigningError::NotYours { .. } => {
            status::with_info(Code::PermissionDenied, &error.to_string(), "SIGNING_KEY_DENIED", HashMap::new())
        }
        SigningError::Refused(refused) => key_refusal(refused),
        SigningError::Key(KeyError::Token { .. } | KeyError::Pin { .. }) => no_token(error),
        SigningError::Key(out @ KeyError::OutOfLife { .. }) => {
            status::unavailable(&out.to_string(), "CLOCK_OUT_OF_RANGE", Duration::from_secs(30))
        }
        SigningError::Log(unsigned @ LogError::Unsigned) => status::key_unavailable(&unsigned.to_string()),
        SigningError::Log(full @ LogError::Full) => status::unavailable(
            "the log's queue is full; try again",
            "LOG_BUSY",
            full.retry_after().unwrap_or(Duration::from_millis(100)),
        ),
        SigningError::Log(late @ LogError::Unwitnessed(_)) => status::unavailable(
            &late.to_string(),
            "LOG_UNWITNESSED",
            late.retry_after().unwrap_or(Duration::from_secs(1)),
        ),
        SigningError::Log(LogError::Broken(_) | LogError::Closed) => status::unavailable(
            "the log stopped writing after a failure; the service must be restarted",
            "LOG_READ_ONLY",
            Duration::from_secs(30),
        ),
        _ => status::internal(error),
    }
}

/// The status of a managed key that signs nothing, or is not changed.
pub(super) fn key_refusal(refused: &KeyRefusal) -> Status {
    let (code, reason) = match refused {
        KeyRefusal::Unknown(_) => (Code::NotFound, "SIGNING_KEY_UNKNOWN"),
        KeyRefusal::Exists(_) => (Code::AlreadyExists, "SIGNING_KEY_EXISTS"),
        KeyRefusal::Disabled(_) => (Code::FailedPrecondition, "SIGNING_KEY_DISABLED"),
        KeyRefusal::Revoked(_) => (Code::FailedPrecondition, "SIGNING_KEY_REVOKED"),
        KeyRefusal::TooMany(_) => (Code::ResourceExhausted, "SIGNING_KEY_LIMIT"),
        KeyRefusal::Raced => (Code::Aborted, "SIGNING_KEY_RACED"),
        KeyRefusal::Key(KeyError::Token { .. } | KeyError::Pin { .. }) => return no_token(refused),
        KeyRefusal::Key(error) => return status::internal(error),
    };
    status::with_info(code, &refused.to_string(), reason, HashMap::new())
}

/// A key that is on a token which cannot be used now: why is the operator's business, and goes to the service's log.
fn no_token(error: &impl std::error::Error) -> Status {
    let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    tracing::error!(error = cause, "a key cannot be used");
    status::key_unavailable("the key cannot be used now; see the service's log, and try again")
}
