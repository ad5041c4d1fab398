//! Folds over the log, kept in memory and renewed from where they ended.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde::Deserialize;

use super::ReleaseError;
use crate::{
    log::{Log, LogError, Logs, Position, View},
    model::{
        LogRef, Revocation, Revocations, Statement,
        deployment::{History, Record},
        facts, limits, predicate,
    },
};

/// Indexes read from a view at a time.
const PAGE: usize = 512;

/// A service in an environment.
pub(super) type Place = (String, String);

/// The folds of one instance's logs.
#[derive(Debug)]
pub(super) struct Folds {
    logs: Logs,
    /// Revocations, and the place up to which they are complete.
    revocations: RwLock<(Position, Arc<Revocations>)>,
    /// Places with a deployment and how many records the newest one has before it, and the place up to which they
    /// are complete.
    services: Mutex<(Position, BTreeMap<Place, u64>)>,
    /// Histories that were asked for, at most [`limits::SERVICES`].
    histories: Mutex<HashMap<Place, Kept>>,
}

/// One history with the records behind it, complete up to a place.
#[derive(Debug, Clone, Default)]
struct Kept {
    next: Position,
    records: Arc<Vec<Record>>,
    history: Arc<History>,
}

impl Folds {
    pub(super) fn new(logs: Logs) -> Self {
        Self { logs, revocations: RwLock::default(), services: Mutex::default(), histories: Mutex::default() }
    }

    /// The revocations as of the last renewal.
    pub(super) fn revocations(&self) -> Arc<Revocations> {
        Arc::clone(&self.revocations.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Reads what was revoked since the last renewal, if the log grew. Two threads may do the same work at once; the
    /// one that read further wins.
    pub(super) fn renew_revocations(&self) -> Result<(), ReleaseError> {
        let (next, known) = self.revocations.read().unwrap_or_else(PoisonError::into_inner).clone();
        let end = self.logs.end();
        if end <= next {
            return Ok(());
        }
        let mut renewed = None;
        self.each(&View::PredicateType(predicate::REVOCATION.to_owned()), next, end, |statement, at| {
            match Revocation::deserialize(statement.predicate()) {
                Ok(revocation) => renewed.get_or_insert_with(|| (*known).clone()).insert(revocation, at),
                Err(error) => {
                    let error = limits::quoted(&error);
                    tracing::error!(error, entry = %at, "a revocation in the log cannot be read");
                }
            }
        })?;
        let mut slot = self.revocations.write().unwrap_or_else(PoisonError::into_inner);
        if slot.0 < end {
            *slot = (end, renewed.map_or(known, Arc::new));
        }
        Ok(())
    }

    /// Every place, by name, with a number that is the higher the newer its newest deployment is.
    pub(super) fn services(&self) -> Result<BTreeMap<Place, u64>, ReleaseError> {
        let (next, mut places) = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let end = self.logs.end();
        let mut counted = places.values().max().map_or(0, |newest| newest.saturating_add(1));
        self.each(&View::PredicateType(predicate::DEPLOYMENT.to_owned()), next, end, |statement, at| {
            let Some(Ok(record)) = Record::read(statement, at) else { return };
            let (service, environment) = record.place();
            let place = (service.to_owned(), environment.to_owned());
            if places.len() < limits::SERVICES || places.contains_key(&place) {
                places.insert(place, counted);
                counted = counted.saturating_add(1);
            }
        })?;
        let mut slot = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.0 < end {
            *slot = (end, places.clone());
        }
        Ok(places)
    }

    pub(super) fn history(&self, service: &str, environment: &str) -> Result<Arc<History>, ReleaseError> {
        let place = (service.to_owned(), environment.to_owned());
        let kept =
            self.histories.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned().unwrap_or_default();
        let end = self.logs.end();
        if end <= kept.next {
            return Ok(kept.history);
        }
        let mut fresh = Vec::new();
        let view = View::Service { service: place.0.clone(), environment: place.1.clone() };
        self.each(&view, kept.next, end, |statement, at| match Record::read(statement, at.clone()) {
            Some(Ok(record)) if record.place() == (service, environment) => fresh.push(record),
            Some(Err(error)) => tracing::warn!(%error, entry = %at, "a record in the log cannot be read"),
            Some(Ok(_)) | None => {}
        })?;
        let renewed = if fresh.is_empty() {
            Kept { next: end, ..kept }
        } else {
            let mut records = (*kept.records).clone();
            records.extend(fresh);
            let over = records.len().saturating_sub(limits::RECORDS);
            records.drain(..over);
            let history = Arc::new(History::fold(&records));
            Kept { next: end, records: Arc::new(records), history }
        };
        let history = Arc::clone(&renewed.history);
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        if histories.len() >= limits::SERVICES && !histories.contains_key(&place) {
            histories.clear();
        }
        match histories.get(&place) {
            Some(other) if other.next >= end => {}
            _ => {
                histories.insert(place, renewed);
            }
        }
        Ok(history)
    }

    /// Calls `each` with every statement of a view from one place to below another.
    fn each(
        &self,
        view: &View,
        from: Position,
        to: Position,
        mut each: impl FnMut(&Statement, LogRef),
    ) -> Result<(), ReleaseError> {
        self.logs.each(view, from, to, PAGE, |log, index| {
            if let Some(statement) = statement(log, index)? {
                each(&statement, LogRef { origin: log.origin().to_owned(), index });
            }
            Ok(())
        })
    }
}

/// The statement of an entry of our own log; `None` when its payload is gone or carries none. Nothing is verified: it
/// was when it was written.
fn statement(log: &Log, index: u64) -> Result<Option<Statement>, LogError> {
    Ok(log.entry(index)?.payload.as_deref().and_then(facts::statement_in))
}
