//! A new log takes over while the service runs: log, key, trust, and only then callers. Which logs there are is what the
//! keyring says; the first stands in `<data>/log`, the n-th in `<data>/log-n`.
//!
//! A crash before the keyring was written leaves a directory that nobody knows of, and the next attempt moves it aside.
//! A crash after it leaves two logs of which the older is not frozen: opening freezes it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{Clock, rotation::publish};
use crate::{
    config::Config,
    evidence::EvidenceService,
    grpc::log_admin::{Succeed, SuccessionError},
    keys::{KekSource, KeyError, Keyring, LogKey},
    log::{Log, LogError, Logs, Options, witnessing::Witnessing},
    store::Room,
    tuf::Repository,
};

/// Logs that one instance can have had; a new one is made once in years.
const MOST_LOGS: usize = 10_000;

/// The directory of the log with this number, from 0.
fn directory(data: &Path, number: usize) -> PathBuf {
    if number == 0 { data.join("log") } else { data.join(format!("log-{}", number + 1)) }
}

/// The directories of all logs of a data directory that are there, oldest first.
pub fn directories(data: &Path) -> Vec<PathBuf> {
    (0..MOST_LOGS).map(|number| directory(data, number)).take_while(|path| path.exists()).collect()
}

fn open_log(path: &Path, key: LogKey, room: Room, witness: Option<Witnessing>) -> Result<Log, LogError> {
    let options = Options { room, witness, ..Options::default() };
    Log::open(path, key.public_key(), move |note| key.sign(note), options)
}

/// Opens all logs that the keyring has keys of; the present one with its witnesses.
pub(super) fn open(config: &Config, keyring: &Keyring, witness: Option<Witnessing>) -> anyhow::Result<Logs> {
    let mut logs = Vec::new();
    let (keys, mut witness) = (keyring.log_keys(), witness);
    let last = keys.len().saturating_sub(1);
    for (number, (origin, key)) in keys.into_iter().enumerate() {
        let path = directory(&config.data, number);
        let witness = if number == last { witness.take() } else { None };
        let log = open_log(&path, key, config.log.room(), witness)?;
        anyhow::ensure!(log.origin() == origin, "{} is the log {}, not {origin}", path.display(), log.origin());
        logs.push(log);
    }
    let present = logs.pop().context("the keyring names no log")?;
    for (older, next) in logs.iter().zip(logs.iter().skip(1).chain([&present])) {
        if older.successor().is_none() {
            older.freeze(next.origin())?;
        }
    }
    Ok(Logs::new(logs, present))
}

/// What a succession needs.
pub(super) struct Succession {
    pub(super) data: PathBuf,
    pub(super) kek: KekSource,
    pub(super) room: Room,
    /// Whether nothing may be answered that no witness cosigned.
    pub(super) witnesses_required: bool,
    pub(super) keyring: Arc<Keyring>,
    pub(super) logs: Logs,
    pub(super) evidence: Arc<EvidenceService>,
    pub(super) repository: Arc<Repository>,
    pub(super) clock: Clock,
}

impl From<KeyError> for SuccessionError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Host { .. } => Self::Origin(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> SuccessionError {
    SuccessionError::Failed(error.to_string())
}

impl Succession {
    /// As the administrator's face calls it.
    pub(super) fn into_call(self) -> Succeed {
        Arc::new(move |origin| {
            let next = self.make(origin)?;
            let last = self.logs.succeed(next.clone())?;
            Ok((last, next))
        })
    }

    /// Makes and opens the new log, and lets everyone here trust it, before anything is appended to it.
    fn make(&self, origin: &str) -> Result<Log, SuccessionError> {
        if self.witnesses_required {
            let problem = "witnesses are required, and they do not know the new log's key yet: set [witness] mode to \
                           \"attach_later\", freeze, give the witnesses the new key and the policy file its line, and \
                           require them again";
            return Err(SuccessionError::Failed(problem.to_owned()));
        }
        let path = directory(&self.data, self.keyring.log_keys().len());
        let kek = self.kek.load()?;
        let key = self.keyring.add_log(&self.data, &kek, origin, (self.clock)(), |key| {
            for left in [path.clone(), path.with_extension("making")] {
                if left.exists() {
                    let aside = left.with_extension(format!("unused-{}", (self.clock)().as_second()));
                    fs::rename(&left, aside).map_err(failed)?;
                }
            }
            Log::create(&path, origin, key.public_key(), |note| key.sign(note)).map_err(failed)
        })?;
        let log = open_log(&path, key, self.room, None).map_err(failed)?;
        publish(&self.keyring.public(), &self.data, &self.evidence, &self.repository, (self.clock)());
        Ok(log)
    }
}
