//! The log asks its witnesses: C2SP `tlog-witness`, the client's side, and `tlog-policy` for who must answer.
//!
//! Two modes, always chosen by the operator:
//!
//! - *require*: nobody sees a checkpoint that is not cosigned to the quorum, nor a proof or an entry under one. This is a
//!   stage behind the anchor: the publisher hands committed and anchored batches over instead of publishing them, and goes
//!   on. The stage has one *target* at a time, the newest head when it took aim. When the target has its quorum it is
//!   recorded on disk (`witnessed`), published, and everybody whose entries it covers is answered under it: one round of
//!   questions covers all batches that were committed meanwhile. Who waits longer than the timeout is told that the entry
//!   is recorded and not witnessed yet ([`LogError::Unwitnessed`]); the target stays, and asking again with the same leaf
//!   gets the same index. Restart shows the recorded head and aims at what was committed after it.
//! - *attach later*: batches are published at once, and each second the newest head goes to the witnesses. A cosignature
//!   that comes back while that head is still the served one is attached to it.
//!
//! A target changes only when it is met (or, when nothing is required, given up), because a witness that is slower than
//! the log would otherwise never answer about the head that is being asked for. Each witness has a task of its own
//! (`ask`), which takes the newest target when it is free; so one slow witness holds up nobody if the quorum is met
//! without it, and its cosignature is attached when it comes.
//!
//! All of it runs on one thread with a runtime of its own: what the caller's runtime does cannot stop it.

mod ask;
mod record;
mod stage;

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use reqwest::{Url, redirect};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    Log, LogError, Shared,
    opening::partial_tiles,
    sequencer::Ending,
    snapshot::{Head, Snapshot},
    writer::Sealed,
};
use crate::{
    store::Store,
    telemetry::Metrics,
    tlog::{Checkpoint, CosignerKey, Note, NoteError, Policy, VerifierKey, root_of},
};
use record::Record;
use stage::Stage;

/// Batches that may be between the publisher and the stage; beyond it the publisher waits, and the queue fills.
const AHEAD: usize = 64;

/// What a log does without a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Shows nothing and answers nobody.
    Require,
    /// Goes on, and attaches cosignatures when they come.
    AttachLater,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::AttachLater => "attach_later",
        }
    }
}

/// Why a log cannot be witnessed in the way that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the witness policy cannot be used: {0}")]
pub struct WitnessingError(String);

/// A witness that is asked.
#[derive(Debug, Clone)]
struct Asked {
    /// Its position in the policy.
    at: usize,
    name: String,
    key: CosignerKey,
    url: Url,
}

/// How a log is witnessed; clones are the same.
#[derive(Debug, Clone)]
pub struct Witnessing {
    policy: Arc<Policy>,
    asked: Vec<Asked>,
    mode: Mode,
    timeout: Duration,
    client: reqwest::Client,
    metrics: Metrics,
    /// Written by the stage alone.
    latest: Arc<RwLock<Option<Head>>>,
}

fn refuse<T>(problem: impl ToString) -> Result<T, WitnessingError> {
    Err(WitnessingError(problem.to_string()))
}

impl Witnessing {
    /// The witnesses of `policy` for the log that signs with the Ed25519 key `log`.
    ///
    /// `timeout` is for one question, and for whoever waits for a quorum. `ca` are further certificate authorities, PEM.
    ///
    /// # Errors
    /// A policy that lists logs without this one, or witnesses that cannot meet the quorum because they have no URL.
    pub fn new(
        policy: Policy,
        log: &[u8; 32],
        mode: Mode,
        timeout: Duration,
        ca: Option<&[u8]>,
        metrics: Metrics,
    ) -> Result<Self, WitnessingError> {
        if !policy.logs().is_empty() && policy.logs().iter().all(|listed| listed.key.public() != log) {
            return refuse(
                "it lists logs, and not this one; add a `log` line with the key of `countersign log status`",
            );
        }
        let mut asked = Vec::new();
        let mut reachable = vec![false; policy.witnesses().len()];
        for ((at, witness), reachable) in policy.witnesses().iter().enumerate().zip(&mut reachable) {
            if let Some(url) = &witness.url {
                let url = submission(url).map_err(|problem| WitnessingError(format!("{}: {problem}", witness.name)))?;
                asked.push(Asked { at, name: witness.name.clone(), key: witness.key.clone(), url });
                *reachable = true;
            }
        }
        if asked.is_empty() {
            return refuse("it gives no witness a URL; write `witness NAME VKEY URL`");
        }
        if mode == Mode::Require && policy.is_met(&vec![false; reachable.len()]) {
            return refuse("its quorum is none, which requires nobody; name a quorum, or set mode = \"attach_later\"");
        }
        if !policy.is_met(&reachable) {
            return refuse(format!("the witnesses with a URL cannot meet the quorum {}", policy.quorum()));
        }
        let client = client(ca, timeout).map_err(WitnessingError)?;
        let policy = Arc::new(policy);
        Ok(Self { policy, asked, mode, timeout, client, metrics, latest: Arc::default() })
    }

    /// The newest checkpoint that met the quorum since the log was opened, with its cosignatures.
    pub fn latest(&self) -> Option<Head> {
        self.latest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_latest(&self, head: Head) {
        *self.latest.write().unwrap_or_else(PoisonError::into_inner) = Some(head);
    }

    /// Which witnesses cosigned `note`, by their positions.
    fn cosigned(&self, note: &Note) -> Result<Vec<bool>, NoteError> {
        let verify = |key: &CosignerKey| match key.verify(note) {
            Ok(_time) => Ok(true),
            Err(NoteError::Unsigned(_)) => Ok(false),
            Err(error) => Err(error),
        };
        self.policy.witnesses().iter().map(|witness| verify(&witness.key)).collect()
    }
}

/// The URL of `add-checkpoint` under a submission prefix.
fn submission(prefix: &str) -> Result<Url, String> {
    let url = Url::parse(&format!("{}/add-checkpoint", prefix.trim_end_matches('/')));
    let url = url.map_err(|source| format!("{prefix:?} is not a URL: {source}"))?;
    if !["http", "https"].contains(&url.scheme()) || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{prefix:?} is not a submission prefix, as in https://witness.example.com/w1"));
    }
    Ok(url)
}

/// Trusts the system's certificate authorities and those of `ca`; on a system that has none, nobody over TLS.
fn client(ca: Option<&[u8]>, timeout: Duration) -> Result<reqwest::Client, String> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(timeout)
    };
    let Some(pem) = ca else {
        let systems = builder().build().or_else(|_none| builder().tls_certs_only([]).build());
        return systems.map_err(|error| format!("no HTTP client can be made: {error}"));
    };
    let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| format!("ca_file: {error}"))?;
    if certificates.is_empty() {
        return Err("ca_file: it holds no certificate".to_owned());
    }
    builder().tls_certs_merge(certificates).build().map_err(|error| format!("ca_file: {error}"))
}

/// The publisher's end of the stage. The stage ends when it is dropped.
pub(super) struct Handle {
    batches: mpsc::Sender<Vec<Sealed>>,
    requires: bool,
}

impl Handle {
    /// Whether batches are handed over, to be published and answered by the stage.
    pub(super) const fn requires(&self) -> bool {
        self.requires
    }

    /// Hands batches over. Gives them back if the stage is gone. Waits for room: not for async threads.
    pub(super) fn hand_over(&self, batches: Vec<Sealed>) -> Result<(), Vec<Sealed>> {
        self.batches.blocking_send(batches).map_err(|lost| lost.0)
    }
}

/// The head that may be shown when a log opens, from the record of the last one that met the quorum. `None` if there is
/// no record, or the policy has changed and is not met by it.
pub(super) fn visible(
    config: &Witnessing,
    dir: &Path,
    store: &Store,
    key: &VerifierKey,
    newest: &Snapshot,
) -> Result<Option<Arc<Snapshot>>, LogError> {
    if config.mode != Mode::Require {
        return Ok(None);
    }
    let Some(text) = Record::new(dir).read()? else { return Ok(None) };
    let Checkpoint { size, root, .. } = Checkpoint::verify(&text, key)?;
    let reader = newest.reader(store);
    if size > reader.size {
        return Err(LogError::Lost { found: reader.size, acknowledged: size });
    }
    if root_of(size, &reader)? != root {
        return Err(LogError::Forked(size));
    }
    let damaged = |source: NoteError| LogError::Damaged(format!("its last cosigned checkpoint: {source}"));
    let cosigned = config.cosigned(&Note::parse(&text).map_err(damaged)?).map_err(damaged)?;
    if !config.policy.is_met(&cosigned) {
        tracing::warn!(size, "the last cosigned checkpoint does not meet the witness policy as it is now");
        return Ok(None);
    }
    let head = Head { size, root, checkpoint: text.into() };
    config.set_latest(head.clone());
    Ok(Some(Arc::new(Snapshot { head, partial: partial_tiles(store, size)? })))
}

/// Starts the stage. `newest` is what is on disk; `shown`, what was recorded as cosigned, if anything was.
///
/// # Errors
/// [`LogError::Unwitnessed`] if a quorum is required, nothing can be shown without, and none answered in time. Of a
/// `frozen` log the last head must be shown.
pub(super) fn start(
    config: Witnessing,
    dir: &Path,
    shared: &Arc<Shared>,
    newest: &Arc<Snapshot>,
    shown: Option<Arc<Snapshot>>,
    frozen: bool,
) -> Result<(Handle, JoinHandle<()>), LogError> {
    let (sender, batches) = mpsc::channel(AHEAD);
    let requires = config.mode == Mode::Require;
    let waits = requires && shown.is_none_or(|shown| frozen && shown.head.size < newest.head.size);
    let (ready, is_ready) = sync_channel(1);
    let (record, of_stage, newest) = (Record::new(dir), Arc::clone(shared), Arc::clone(newest));
    let run = move || run(config, record, of_stage, newest, waits.then_some(ready), batches);
    let thread = thread::Builder::new().name("log-witnessing".to_owned()).spawn(run);
    let thread = thread.map_err(|source| LogError::Broken(source.to_string()))?;
    let handle = Handle { batches: sender, requires };
    if waits {
        let answer = is_ready.recv().unwrap_or_else(|_ended| Err("the thread that asks witnesses ended".to_owned()));
        if let Err(problem) = answer {
            drop(handle);
            // Its panic, if any, is in the service's log; the refusal says what matters.
            drop(thread.join());
            return Err(LogError::Unwitnessed(problem));
        }
    }
    Ok((handle, thread))
}

impl Log {
    /// Refuses a closed log whose newest entries wait for a quorum that did not come.
    pub(super) fn check_all_shown(&self) -> Result<(), LogError> {
        let on_disk = self.0.shared.store.last_leaf()?.map_or(0, |last| last.saturating_add(1));
        match self.size() {
            shown if shown < on_disk => {
                Err(LogError::Unwitnessed(format!("{shown} of {on_disk} entries are cosigned")))
            }
            _ => Ok(()),
        }
    }
}

/// Told once whether the first target was met.
type Ready = SyncSender<Result<(), String>>;

fn run(
    config: Witnessing,
    record: Record,
    shared: Arc<Shared>,
    newest: Arc<Snapshot>,
    ready: Option<Ready>,
    batches: mpsc::Receiver<Vec<Sealed>>,
) {
    let requires = config.mode == Mode::Require;
    // Where nothing is required, the log goes on without this thread.
    let _ending = requires.then(|| Ending(&shared));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = format!("witnesses cannot be asked: {error}");
            tracing::error!(problem);
            if requires {
                shared.set_broken(&problem);
            }
            return;
        }
    };
    runtime.block_on(async {
        let stage = Stage::new(config, record, Arc::clone(&shared), newest, ready);
        if requires { stage.require(batches).await } else { stage.attach_later(batches).await }
    });
}
