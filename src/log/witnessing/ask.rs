//! Asking one witness, again and again: each has a task that takes the newest goal when it is free.
//!
//! The first question starts from size 0, and the witness's conflict says where it really stands; from then on the size
//! is remembered. A question is asked again after a pause that doubles with each failure, up to [`MOST_PAUSE`]; that, and
//! one question at a time, is the bound on what a failing witness costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Response, StatusCode, header::CONTENT_TYPE};
use tokio::sync::{mpsc, watch};

use super::{Asked, Shared, Snapshot, Witnessing};
use crate::{
    telemetry::{Metrics, with_causes},
    tlog::{
        Note, SignatureLine, prove_consistency,
        witness::{AddCheckpoint, MOST_ANSWER, SIZE_TYPE, parse_conflict},
    },
};

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const MOST_PAUSE: Duration = Duration::from_secs(10);
/// Conflicts that are followed for one goal: one is usual, a second if somebody else asks the same witness.
const CONFLICTS: usize = 4;
/// Bytes of a refusal that are shown.
const SHOWN: usize = 200;

/// What witnesses are asked to cosign.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) snapshot: Arc<Snapshot>,
    /// Its checkpoint, parsed.
    pub(super) note: Note,
}

/// What a task reports.
#[derive(Debug)]
pub(super) enum Event {
    /// The witness at this position cosigned the head of this size, and the line was verified.
    Cosigned { at: usize, size: u64, line: SignatureLine },
    /// The witness at this position did not.
    Failed { at: usize, problem: String },
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("it has cosigned {0} entries of this log, which has fewer: is this an older copy of the log?")]
    Ahead(u64),
    #[error("it answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("its answer cannot be used: {0}")]
    Invalid(String),
    #[error("no consistency proof can be made: {0}")]
    Proof(String),
}

impl Failure {
    /// For the metric: a small closed set.
    fn reason(&self) -> &'static str {
        match self {
            Self::Refused(status, _) if status.is_server_error() => "unavailable",
            Self::Unreachable(_) => "unreachable",
            Self::Ahead(_) => "ahead",
            Self::Refused(..) => "refused",
            Self::Invalid(_) => "invalid",
            Self::Proof(_) => "proof",
        }
    }
}

/// The task of one witness.
pub(super) struct Asking {
    witness: Asked,
    client: reqwest::Client,
    metrics: Metrics,
    shared: Arc<Shared>,
    /// What the witness is believed to have cosigned last.
    known: u64,
}

impl Asking {
    pub(super) fn new(witness: Asked, config: &Witnessing, shared: Arc<Shared>) -> Self {
        Self { witness, client: config.client.clone(), metrics: config.metrics.clone(), shared, known: 0 }
    }

    /// Runs until nobody gives goals any more.
    pub(super) async fn run(mut self, mut goals: watch::Receiver<Option<Arc<Goal>>>, events: mpsc::Sender<Event>) {
        let mut pause = FIRST_PAUSE;
        while goals.changed().await.is_ok() {
            loop {
                let Some(goal) = goals.borrow_and_update().clone() else { break };
                let (at, asked) = (self.witness.at, Instant::now());
                match self.ask(&goal).await {
                    Ok(line) => {
                        let size = goal.snapshot.head.size;
                        self.metrics.cosigned(&self.witness.name, size, asked.elapsed().as_secs_f64());
                        pause = FIRST_PAUSE;
                        if events.send(Event::Cosigned { at, size, line }).await.is_err() {
                            return;
                        }
                        break;
                    }
                    Err(failure) => {
                        self.metrics.witness_failed(&self.witness.name, failure.reason());
                        let (witness, problem) = (&self.witness.name, failure.to_string());
                        tracing::warn!(witness, problem, retry_ms = pause.as_millis(), "a witness did not cosign");
                        if events.send(Event::Failed { at, problem }).await.is_err() {
                            return;
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(MOST_PAUSE);
                    }
                }
            }
        }
    }

    /// Asks until the witness cosigns `goal` or refuses; follows a few conflicts.
    async fn ask(&mut self, goal: &Goal) -> Result<SignatureLine, Failure> {
        let size = goal.snapshot.head.size;
        for _ in 0..CONFLICTS {
            let old = self.known.min(size);
            let proof = prove_consistency(old, size, &goal.snapshot.reader(&self.shared.store))
                .map_err(|source| Failure::Proof(source.to_string()))?;
            let request = AddCheckpoint { old, proof, checkpoint: goal.note.to_string() };
            let sent = self.client.post(self.witness.url.clone()).body(request.to_string()).send().await;
            let response = sent.map_err(|error| Failure::Unreachable(with_causes(&error)))?;
            let status = response.status();
            let is_size =
                response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == SIZE_TYPE.as_bytes());
            let body = read(response).await?;
            match status {
                StatusCode::OK => {
                    let line = self.cosignature(goal, &body)?;
                    self.known = size;
                    return Ok(line);
                }
                StatusCode::CONFLICT if is_size => {
                    let cosigned = parse_conflict(&body);
                    self.known = cosigned.ok_or_else(|| Failure::Invalid("a conflict without a size".to_owned()))?;
                    if self.known > size {
                        return Err(Failure::Ahead(self.known));
                    }
                }
                _ => return Err(Failure::Refused(status, body.chars().take(SHOWN).collect())),
            }
        }
        Err(Failure::Invalid("it names another size each time it is asked".to_owned()))
    }

    /// The line by the witness's key, verified. Lines by other keys are ignored, as the specification demands.
    fn cosignature(&self, goal: &Goal, body: &str) -> Result<SignatureLine, Failure> {
        let key = &self.witness.key;
        let lines = SignatureLine::parse_all(body).map_err(|source| Failure::Invalid(source.to_string()))?;
        let line = lines.into_iter().find(|line| line.is_by(key.name(), key.id()));
        let line = line.ok_or_else(|| Failure::Invalid("no line is by the key in the policy".to_owned()))?;
        match key.verify_line(goal.note.text_unsafe(), &line) {
            Ok(0) => Err(Failure::Invalid("the cosignature has no time".to_owned())),
            Ok(_time) => Ok(line),
            Err(source) => Err(Failure::Invalid(source.to_string())),
        }
    }
}

/// Reads a body up to the limit.
async fn read(mut response: Response) -> Result<String, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Failure::Unreachable(with_causes(&error)))? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_ANSWER {
            return Err(Failure::Invalid(format!("it is longer than {MOST_ANSWER} bytes")));
        }
    }
    String::from_utf8(body).map_err(|_source| Failure::Invalid("it is not text".to_owned()))
}
