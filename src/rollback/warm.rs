//! Keeps facts warm, so that the answer is there before the incident.
//!
//! One task visits places one after another and collects what the registry says of their last revisions, as the check
//! does. *Facts are kept, answers are not*: policy, revocations, history and our own log are read anew for every
//! question, so that what was recorded a moment ago counts whatever is warm; a registry's answer counts as long as
//! [`Settings::max_probe_age`] says, and its age is shown. What is done with the outcome here is to notice: a place that
//! loses its last safe revision is told to the log of the service at once, and not when somebody needs it.
//!
//! Bounded: [`Settings::warm_places`] places, those touched last (deployed to, reported on, asked about), each visited
//! more rarely the longer it was left alone, one at a time. Policies are read at the start alone, so a change of
//! policy is a start, which visits every place.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Notify, broadcast::error::RecvError, watch},
    time::{Instant, sleep_until},
};

use super::{Asking, Rollback, Settings};
use crate::{
    model::readiness::{Readiness, Safety},
    release::{Change, ReleaseError},
};

/// How long one visit may take.
const VISIT: Duration = Duration::from_secs(10);
/// The longest pause between two visits of one place.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A place left alone for so many pauses is visited half as often.
const PATIENCE: u32 = 12;
/// How long to wait when there is nothing to visit.
const IDLE: Duration = Duration::from_hours(1);

type Place = (String, String);

/// What is kept warm.
#[derive(Debug)]
pub(super) struct Warm {
    places: Mutex<HashMap<Place, Kept>>,
    /// Somebody made a place due.
    woken: Notify,
    every: Duration,
    most: usize,
}

#[derive(Debug)]
struct Kept {
    /// When something last happened there.
    touched: Instant,
    /// When its facts were last collected.
    visited: Option<Instant>,
    /// What the best of its revisions came to then.
    safety: Option<Safety>,
}

impl Warm {
    pub(super) fn new(settings: &Settings) -> Self {
        let (every, most) = (settings.warm_every, settings.warm_places);
        Self { places: Mutex::default(), woken: Notify::new(), every, most }
    }

    /// Somebody asks about the place: it is of interest from now on.
    pub(super) fn asked(&self, service: &str, environment: &str) {
        self.touch((service.to_owned(), environment.to_owned()), false);
        self.woken.notify_one();
    }

    fn touch(&self, place: Place, is_due: bool) {
        if self.every.is_zero() || self.most == 0 {
            return;
        }
        let now = Instant::now();
        let mut places = self.lock();
        if !places.contains_key(&place) && places.len() >= self.most {
            let oldest = places.iter().min_by_key(|(_place, kept)| kept.touched).map(|(place, _kept)| place.clone());
            oldest.and_then(|oldest| places.remove(&oldest));
        }
        let kept = places.entry(place).or_insert(Kept { touched: now, visited: None, safety: None });
        kept.touched = now;
        if is_due {
            kept.visited = None;
        }
    }

    /// The place that is due first, and when.
    fn next(&self) -> Option<(Place, Instant)> {
        let places = self.lock();
        let due = places.iter().map(|(place, kept)| (place, self.due(kept)));
        due.min_by_key(|(_place, due)| *due).map(|(place, due)| (place.clone(), due))
    }

    fn due(&self, kept: &Kept) -> Instant {
        let Some(visited) = kept.visited else { return kept.touched };
        let left_alone = visited.saturating_duration_since(kept.touched);
        visited + (left_alone / PATIENCE).clamp(self.every, LONGEST_PAUSE.max(self.every))
    }

    fn all_due(&self) {
        self.lock().values_mut().for_each(|kept| kept.visited = None);
    }

    /// Remembers a visit, and says what the one before came to, if there was one and the place is still of interest.
    fn visited(&self, place: &Place, safety: Option<Safety>) -> Option<Safety> {
        let mut places = self.lock();
        let kept = places.get_mut(place)?;
        kept.visited = Some(Instant::now());
        let before = kept.safety;
        kept.safety = safety.or(before);
        before
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Kept>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rollback {
    /// Collects until told to stop; what is under way then is dropped.
    pub async fn keep_warm(&self, clock: fn() -> Timestamp, mut stop: watch::Receiver<bool>) {
        if self.warm.every.is_zero() || self.warm.most == 0 {
            return;
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.visit_for_ever(clock) => {}
        }
    }

    async fn visit_for_ever(&self, clock: fn() -> Timestamp) {
        let mut changes = self.release.changes();
        match self.release.recent_services(self.warm.most).await {
            // The newest last, so that it is touched last.
            Ok(places) => places.into_iter().rev().for_each(|place| self.warm.touch(place, true)),
            Err(error) => tracing::error!(%error, "where something runs could not be read; nothing is kept warm yet"),
        }
        loop {
            let next = self.warm.next();
            let due = next.as_ref().map_or_else(|| Instant::now() + IDLE, |(_place, due)| *due);
            tokio::select! {
                biased;
                change = changes.recv() => self.notice(change).await,
                () = self.warm.woken.notified() => {}
                () = sleep_until(due) => {
                    if let Some((place, _due)) = next {
                        self.visit(&place, clock()).await;
                    }
                }
            }
        }
    }

    async fn notice(&self, change: Result<Change, RecvError>) {
        match change {
            Ok(Change::Place { service, environment }) => self.warm.touch((service, environment), true),
            // Which places it touches, only looking tells.
            Ok(Change::Revocation) | Err(RecvError::Lagged(_)) => self.warm.all_due(),
            // Cannot be: the sender is part of this service.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    async fn visit(&self, place: &Place, now: Timestamp) {
        let within = SignedDuration::try_from(self.warm.every / 2).unwrap_or_default();
        let asking = Asking { within: Some(within), until: std::time::Instant::now() + VISIT };
        let best = self.best(place, asking, now).await;
        if let Err(error) = &best {
            tracing::error!(service = place.0, environment = place.1, %error, "readiness could not be kept warm");
        }
        let best = best.ok().flatten();
        let before = self.warm.visited(place, best.as_ref().map(|best| best.verdict));
        if let (Some(before), Some(best)) = (before, best) {
            tell(before, &best);
        }
    }

    async fn best(&self, place: &Place, asking: Asking, now: Timestamp) -> Result<Option<Readiness>, ReleaseError> {
        let frame = self.frame(&place.0, &place.1, now).await?;
        Ok(Readiness::best(&self.assess(&frame, None, asking).await).cloned())
    }
}

/// Says when there is no safe revision to go back to any longer, and when there is one again.
fn tell(before: Safety, best: &Readiness) {
    let Readiness { service, environment, verdict, sentence, .. } = best;
    match (before.is_yes(), verdict.is_yes()) {
        (true, false) => {
            tracing::warn!(service, environment, %verdict, reason = sentence, "no revision is safe to go back to any longer");
        }
        (false, true) => tracing::info!(service, environment, %verdict, "a revision is safe to go back to again"),
        _ => {}
    }
}
