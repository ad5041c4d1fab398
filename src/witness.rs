//! The witness: cosigns the checkpoints of logs that it was told to watch, and never two that contradict each other.
//!
//! C2SP `tlog-witness`. It keeps one thing of each log, the checkpoint that it cosigned last, and cosigns another only
//! if that one is shown to contain it. What must hold is said in [`tlog::witness`](crate::tlog::witness), where the
//! last checkpoints stand in `state`, how it is asked in [`face`]. It reads no log, and needs no connection to one.
//!
//! **Compare and persist are one step.** Each log has a lock. Under it a request is compared with the checkpoint that was
//! cosigned last, the new one is written and synced, and only then remembered; the answer is given after that. So of
//! two requests that start from the same size one wins, and the other is told the winner's size; and no cosignature
//! leaves that a restart would not know of. Without this, a slow request could put an older checkpoint in the place of a
//! newer one, and the witness could then be led onto another branch.
//!
//! **After a failed write it cosigns nothing more.** Nobody knows then what is on disk; a restart reads it. Requests are
//! answered with 500 until then. What was written and not answered is harmless: the client gets a conflict with that
//! size, and goes on from there.
//!
//! **Never restore an old copy of its directory**: it would forget what it cosigned since. Make a new witness instead,
//! with a new key.

pub mod face;
mod state;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    keys::Cosigner,
    model::limits,
    tlog::{
        EMPTY_ROOT, LogKey,
        witness::{AddCheckpoint, Opened, Refusal},
    },
};
pub use state::StateError;
use state::{Files, Last};

/// Why a request was not answered with a cosignature.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// The request cannot be granted.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The state could not be kept, now or before.
    #[error("the witness could not keep its state, and cosigns nothing until it is restarted")]
    Broken(#[source] Option<StateError>),
    /// The clock stands before the last cosignature.
    #[error("the clock of the witness is {0} s behind its last cosignature; set it right")]
    Clock(u64),
    /// The keys could not do their work.
    #[error("the checkpoint could not be cosigned: {0}")]
    Cosign(#[from] crate::tlog::NoteError),
}

/// A log that is watched.
struct Watched {
    keys: Vec<LogKey>,
    /// The name of its file: hexadecimal SHA-256 of its origin.
    id: String,
    /// Whoever holds the lock is the only one to compare, write and remember.
    last: Mutex<Option<Last>>,
}

/// A witness, with its keys and state open.
pub struct Witness {
    cosigner: Cosigner,
    /// By origin.
    logs: BTreeMap<String, Watched>,
    files: Files,
    /// Set after a failed write, never taken back.
    broken: AtomicBool,
}

impl Witness {
    /// Opens the state in `dir`, which must be a witness's directory, for the logs with these keys.
    ///
    /// Several keys of one origin are one log, for the time in which it changes its key.
    ///
    /// # Errors
    /// The first file that cannot be used. Nothing is made, except a log's first file later.
    pub fn open(dir: &Path, cosigner: Cosigner, logs: Vec<LogKey>) -> Result<Self, StateError> {
        let files = Files::open(dir)?;
        let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
        for key in logs {
            let origin = key.origin().to_owned();
            if let Some(log) = watched.get_mut(&origin) {
                log.keys.push(key);
                continue;
            }
            let id = hex::encode(Sha256::digest(&origin));
            let last = Mutex::new(files.read(&id, &origin, &cosigner)?);
            watched.insert(origin, Watched { keys: vec![key], id, last });
        }
        Ok(Self { cosigner, logs: watched, files, broken: AtomicBool::new(false) })
    }

    /// Makes the empty state of a new witness in `dir`.
    pub fn create(dir: &Path) -> Result<(), StateError> {
        Files::create(dir)
    }

    /// The witness's keys.
    pub const fn cosigner(&self) -> &Cosigner {
        &self.cosigner
    }

    /// The origins that are watched, with the size that was cosigned last.
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let size = |log: &Watched| lock(&log.last).as_ref().map_or(0, |last| last.size);
        self.logs.iter().map(|(origin, log)| (origin.clone(), size(log))).collect()
    }

    /// Answers `add-checkpoint`: the cosignature lines. Blocks until the new state is on disk.
    ///
    /// # Errors
    /// [`WitnessError::Refused`] leaves everything as it was.
    pub fn add_checkpoint(&self, body: &str, now: Timestamp) -> Result<String, WitnessError> {
        let request = AddCheckpoint::parse(body)?;
        let opened = request.open(|origin| self.logs.get(origin).map(|log| log.keys.as_slice()))?;
        let origin = opened.checkpoint().origin.clone();
        let log = self.logs.get(&origin).ok_or_else(|| Refusal::UnknownLog(origin.clone()))?;
        let mut last = lock(&log.last);
        if self.broken.load(Ordering::SeqCst) {
            return Err(WitnessError::Broken(None));
        }
        let seen = last.as_ref().map_or((0, &EMPTY_ROOT), |last| (last.size, &last.root));
        opened.check_growth(seen).inspect_err(|refusal| report(refusal, &opened, last.as_ref()))?;
        let time = next_time(last.as_ref(), now)?;
        let lines = self.cosigner.cosign(opened.note().text_unsafe(), time)?;
        let mut note = opened.note().clone();
        let mut answer = String::new();
        for line in lines {
            answer.push_str(&format!("{line}\n"));
            note.add(line)?;
        }
        let checkpoint = opened.checkpoint();
        let new = Last { size: checkpoint.size, root: checkpoint.root, time, note: note.to_string().into() };
        self.files.write(&log.id, &new.note).map_err(|source| {
            self.broken.store(true, Ordering::SeqCst);
            tracing::error!(error = %source, "the witness could not keep its state: it cosigns nothing until it is restarted");
            WitnessError::Broken(Some(source))
        })?;
        tracing::info!(origin, size = new.size, "cosigned");
        *last = Some(new);
        Ok(answer)
    }

    /// The last cosigned checkpoint of the log whose origin has this hexadecimal SHA-256, if there is one.
    pub fn checkpoint(&self, id: &str) -> Option<Arc<str>> {
        let log = self.logs.values().find(|log| log.id == id)?;
        lock(&log.last).as_ref().map(|last| Arc::clone(&last.note))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness")
            .field("name", &self.cosigner.name())
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

/// A panic elsewhere leaves nothing half done under the lock: state is remembered in one assignment.
fn lock(last: &Mutex<Option<Last>>) -> std::sync::MutexGuard<'_, Option<Last>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time to sign: now, and not before the last one. A clock that is a little behind is waited out so.
fn next_time(last: Option<&Last>, now: Timestamp) -> Result<u64, WitnessError> {
    let now = u64::try_from(now.as_second()).unwrap_or(0).max(1);
    let last = last.map_or(0, |last| last.time);
    match last.saturating_sub(now) {
        behind if behind > limits::CLOCK_SKEW_S.unsigned_abs() => Err(WitnessError::Clock(behind)),
        _ => Ok(now.max(last)),
    }
}

/// Puts what may prove a log's misbehaviour into the service's log: both checkpoints, each signed by the log.
fn report(refusal: &Refusal, opened: &Opened, last: Option<&Last>) {
    if let (Refusal::Inconsistent(problem), Some(last)) = (refusal, last) {
        let fork = opened.checkpoint().size == last.size && opened.checkpoint().root != last.root;
        let (refused, cosigned) = (opened.note().to_string(), &*last.note);
        if fork {
            tracing::error!(refused, cosigned, "SPLIT VIEW: the log signed two checkpoints of one size");
        } else {
            tracing::warn!(%problem, refused, cosigned, "a signed checkpoint was not shown to be consistent");
        }
    }
}
