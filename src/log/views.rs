//! Views: a pure fold from one entry to the rows under which it can be found.
//!
//! A term row is a kind and its parts, each part after its length, so that no term is the beginning of another; the
//! store adds the entry's index. There is one fact row, the entry's time, which the store keeps under the index. What
//! cannot be parsed gives no rows: such an entry is found by its index alone.
//!
//! Rows that follow from the leaf (signer, issuer, recorded digest) stay as long as the log; the others follow from the
//! payload, and go with it when it is erased.
//!
//! **Rebuilding.** Rows hold nothing that the entries do not say, so `countersign log rebuild-views` can make them anew.
//! [`FORMAT`] is stored beside them. A log whose rows are of another format, or half rebuilt, is not opened: its views
//! would say "there is nothing" where there is something, and evidence, revocations and search rest on them. It is not
//! rebuilt on the way either: that takes about a minute for a million entries, a supervisor that waits for readiness would
//! take it for a hang, and an operator who only looked at the new version could not go back to the old one.

use sha2::{Digest as _, Sha256};

use super::{
    Log, LogError,
    facts::{Facts, repository},
};
use crate::{
    model::{Digest, Identity, ImageName},
    store::{
        Store,
        views::{FACT, ViewsState},
    },
};

/// What rows look like. Format 1 knew no issuers, repositories, recorded digests and times, and no state was stored.
pub const FORMAT: u32 = 2;
/// Kind of the fact row that holds the entry's time: seconds since 1970, eight bytes, big-endian.
pub(super) const TIME: u8 = FACT;
/// Longest part that stands in a row as it is, in bytes; a longer one is replaced by its digest.
const LONGEST_PART: usize = 1024;

/// What entries can be found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// Every entry.
    All,
    /// Entries that speak about a digest, or record it as signed.
    Digest(Digest),
    /// Entries that are evidence about a digest for the judge: those that speak about it, without the records of our own
    /// services, of which there may be very many.
    Evidence(Digest),
    /// Entries with a subject of this name, as in `registry/repository:tag`.
    Name(String),
    /// Entries whose certificate names this identity.
    Identity(Identity),
    /// Entries whose certificate names this issuer, whomever it vouched for.
    Issuer(String),
    /// Entries with this predicate type; message signatures count as image signatures.
    PredicateType(String),
    /// Entries with a subject in this repository, whatever the tag.
    Repository(ImageName),
    /// Deployments, health, approvals and readiness of a service in an environment.
    Service {
        /// The service.
        service: String,
        /// The environment.
        environment: String,
    },
}

impl Log {
    /// Indexes of entries in the view, ascending, from `from` on, at most `limit`.
    pub fn find(&self, view: &View, from: u64, limit: usize) -> Result<Vec<u64>, LogError> {
        let size = self.size();
        match prefix(view) {
            None => Ok((from..size).take(limit).collect()),
            Some(prefix) => Ok(self.0.shared.store.rows(&prefix, from, size, limit, false)?),
        }
    }

    /// The newest `limit` indexes of the view, descending, below `before`.
    pub fn newest(&self, view: &View, before: u64, limit: usize) -> Result<Vec<u64>, LogError> {
        let before = before.min(self.size());
        match prefix(view) {
            None => Ok((0..before).rev().take(limit).collect()),
            Some(prefix) => Ok(self.0.shared.store.rows(&prefix, 0, before, limit, true)?),
        }
    }
}

/// The rows of an entry, without its index. The payload is a Sigstore bundle v0.3 without log entries.
pub fn rows(leaf: &[u8], payload: Option<&[u8]>) -> Vec<Vec<u8>> {
    rows_of(&Facts::of(leaf, payload))
}

/// The rows that go with the payload: those that do not follow from the leaf alone.
pub(super) fn rows_of_payload(leaf: &[u8], payload: &[u8]) -> Vec<Vec<u8>> {
    let mut all = rows(leaf, Some(payload));
    let stay = rows(leaf, None);
    all.retain(|row| !stay.contains(row));
    all
}

fn rows_of(facts: &Facts) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = views(facts).iter().filter_map(prefix).collect();
    if let Some(seconds) = facts.time.and_then(|time| u64::try_from(time.as_second()).ok()) {
        rows.push([[TIME].as_slice(), &seconds.to_be_bytes()].concat());
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn views(facts: &Facts) -> Vec<View> {
    let mut views = Vec::new();
    for subject in &facts.subjects {
        views.push(View::Digest(subject.digest));
        if facts.is_evidence {
            views.push(View::Evidence(subject.digest));
        }
        if !subject.name.is_empty() {
            views.push(View::Name(subject.name.clone()));
        }
        views.extend(repository(&subject.name).map(View::Repository));
    }
    views.extend(facts.recorded.map(View::Digest));
    views.extend(facts.predicate_type.clone().map(View::PredicateType));
    if let Some(signer) = &facts.signer {
        views.push(View::Issuer(signer.issuer.clone()));
        views.push(View::Identity(signer.clone()));
    }
    let place = facts.place.clone();
    views.extend(place.map(|(service, environment)| View::Service { service, environment }));
    views
}

/// The row prefix of a view; `None` for [`View::All`], which needs no rows.
pub fn prefix(view: &View) -> Option<Vec<u8>> {
    let (kind, parts): (u8, Vec<&[u8]>) = match view {
        View::All => return None,
        View::Digest(digest) => (1, vec![digest.as_bytes()]),
        View::Evidence(digest) => (6, vec![digest.as_bytes()]),
        View::Name(name) => (2, vec![name.as_bytes()]),
        View::Identity(identity) => (3, vec![identity.issuer.as_bytes(), identity.subject.as_bytes()]),
        View::PredicateType(predicate_type) => (4, vec![predicate_type.as_bytes()]),
        View::Service { service, environment } => (5, vec![environment.as_bytes(), service.as_bytes()]),
        View::Issuer(issuer) => (7, vec![issuer.as_bytes()]),
        View::Repository(name) => (8, vec![name.registry.as_bytes(), name.repository.as_bytes()]),
    };
    let mut row = vec![kind];
    for part in parts {
        match u16::try_from(part.len()) {
            Ok(length) if part.len() <= LONGEST_PART => {
                row.extend_from_slice(&length.to_be_bytes());
                row.extend_from_slice(part);
            }
            _ => {
                row.extend_from_slice(&u16::MAX.to_be_bytes());
                row.extend_from_slice(&Sha256::digest(part));
            }
        }
    }
    Some(row)
}

/// The state of views that hold a row for everything that is there, in this version's format.
pub(super) const COMPLETE: ViewsState = ViewsState::Complete { format: FORMAT };

/// What keeps the views from being used, if anything does.
pub(super) fn problem(store: &Store) -> Result<Option<String>, LogError> {
    Ok(match store.views_state()? {
        Some(Ok(COMPLETE)) => None,
        Some(Ok(ViewsState::Rebuilding { next, .. })) => {
            Some(format!("its views are half rebuilt (up to entry {next})"))
        }
        Some(Ok(ViewsState::Complete { format })) => Some(of_another_format(format)),
        Some(Err(text)) => Some(format!("the state of its views is {text:?}, which this version does not know")),
        None => Some(of_another_format(1)),
    })
}

fn of_another_format(format: u32) -> String {
    format!("its views are of format {format}, and this version needs format {FORMAT}")
}

/// Refuses a log whose views cannot be used.
pub(super) fn check(store: &Store) -> Result<(), LogError> {
    problem(store)?.map_or(Ok(()), |problem| Err(LogError::Views(problem)))
}
