//! The logs of an instance that are searched together, and a place in them.
//!
//! Each log but the last must be frozen: then everything in it was seen once it was searched, and where the next search
//! begins is a place in the last one.

use std::{fmt, io, io::Write as _, num::ParseIntError, str::FromStr};

use anyhow::{Context as _, anyhow};

use super::{
    Service, check,
    check::Doubt,
    key::{LogKey, Pinned},
};
use crate::{grpc::v1, tlog::VerifierKey};

/// An index, and the log that it is one of: `log.example.com:4711`. The log may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Option<String>,
    pub(super) index: u64,
}

impl FromStr for Place {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (origin, index) = text.rsplit_once(':').map_or((None, text), |(origin, index)| (Some(origin), index));
        Ok(Self { origin: origin.map(str::to_owned), index: index.parse()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}:{}", self.index),
            None => write!(f, "{}", self.index),
        }
    }
}

/// A log, and how far it was searched.
#[derive(Debug, Clone)]
pub(super) struct Searched {
    /// Never without its origin.
    pub(super) service: Service,
    pub(super) key: LogKey,
    /// Up to this size everything was seen.
    pub(super) complete: u64,
}

impl Searched {
    pub(super) fn origin(&self) -> &str {
        &self.service.origin
    }
}

/// The log that `service` names if it alone is wanted, else all of the instance, oldest first.
pub(super) async fn of(mut service: Service, alone: bool, pinned: &Pinned) -> Result<Vec<Searched>, Doubt> {
    // A log that is not there has no certificates to deny either.
    let asked = check::head(&mut service).await.map_err(|doubt| Doubt::Unknown(doubt.into()))?;
    let all = if asked.origins.is_empty() { vec![asked.origin.clone()] } else { asked.origins.clone() };
    let wanted = if alone { vec![asked.origin.clone()] } else { all.clone() };
    if wanted.len() < all.len() {
        writeln!(
            io::stderr(),
            "note: {} alone is searched; this instance has the logs {}; leave out --origin to search them all",
            asked.origin,
            all.join(", ")
        )?;
    }
    let pinned = pinned.read()?;
    if let (Some(key), true) = (&pinned, wanted.len() > 1)
        && !wanted.iter().any(|origin| origin == key.name())
    {
        let error = anyhow!("--key is that of the log {}, and this instance has {}", key.name(), wanted.join(", "));
        return Err(Doubt::Unknown(error));
    }
    let mut logs = Vec::new();
    for origin in &wanted {
        let mut service = Service { origin: origin.clone(), ..service.clone() };
        let head = check::head(&mut service).await?;
        if logs.len().saturating_add(1) < wanted.len() && head.successor.is_empty() {
            return Err(Doubt::Unknown(anyhow!(
                "the log {origin} is being succeeded and still takes entries; ask again in a moment, and restart the service \
                 if it stays so"
            )));
        }
        let key = key_of(&head, pinned.as_ref().filter(|key| wanted.len() == 1 || key.name() == origin))?;
        logs.push(Searched { service, key, complete: 0 });
    }
    Ok(logs)
}

fn key_of(head: &v1::GetCheckpointResponse, pinned: Option<&VerifierKey>) -> anyhow::Result<LogKey> {
    if let Some(key) = pinned {
        return Ok(LogKey { key: key.clone(), pinned: true });
    }
    let key = VerifierKey::parse(&head.verifier_key).context("the service names a key that is none")?;
    Ok(LogKey { key, pinned: false })
}

/// Where to begin: which of the logs, and the index in it.
pub(super) fn begin(from: &Place, logs: &[Searched]) -> Result<(usize, u64), Doubt> {
    let names = logs.iter().map(Searched::origin).collect::<Vec<_>>().join(", ");
    let index = from.index;
    let Some(origin) = &from.origin else {
        return match logs {
            [_] => Ok((0, index)),
            _ if index == 0 => Ok((0, 0)),
            _ => Err(Doubt::Unknown(anyhow!(
                "--from {index} does not say of which log, and this instance has several, each of which succeeded the one \
                 before: {names}; write the one in which you left off, as in --from {}:{index}, and every later one is \
                 searched from its beginning; to search one alone, give --origin HOST",
                logs.first().map(Searched::origin).unwrap_or_default()
            ))),
        };
    };
    let at = logs.iter().position(|log| log.origin() == origin);
    at.map(|at| (at, index)).ok_or_else(|| {
        Doubt::Unknown(anyhow!("you left off in the log {origin} (--from), which is not among those searched: {names}"))
    })
}

/// Refuses a beginning behind the end of its log: whatever was recorded before it since would be passed over.
pub(super) fn reaches(logs: &[Searched], (at, index): (usize, u64)) -> Result<(), Doubt> {
    let Some(log) = logs.get(at).filter(|log| log.complete < index) else { return Ok(()) };
    let (origin, size) = (log.origin(), log.complete);
    Err(Doubt::Unknown(anyhow!(
        "the log {origin} has {size} entries, fewer than where you left off (--from {index}): another log is probably present \
         since a rotation, or this one was set back; `countersign trust status` names the logs; ask the old one with \
         --origin OLD_HOST --from {index} and the new one with --origin {origin} --from 0, or all with --from OLD_HOST:{index}"
    )))
}
