//! What is kept for each registry host: how many requests run, whether it is left alone, what it answered.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{RegistryError, Settings};
use crate::model::challenge::Challenge;

/// The longest pause that a registry can impose on requests other than the one it throttled.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// One registry host.
#[derive(Debug)]
pub(super) struct Host {
    /// The name in image references.
    pub(super) name: String,
    /// Requests that may run now.
    pub(super) permits: Semaphore,
    failures_allowed: u32,
    pause: Duration,
    /// Owned by the methods below; never held across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures_in_a_row: u32,
    /// Breaker: no requests before this moment.
    closed_until: Option<Instant>,
    /// `Retry-After`: no requests before this moment.
    throttled_until: Option<Instant>,
    /// The last authentication challenge, so that later requests bring a token at once.
    challenge: Option<Challenge>,
    answers: BTreeMap<u16, u64>,
}

/// Whether a request may go out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Go,
    /// The registry asked for a pause of this length.
    Wait(Duration),
}

impl Host {
    pub(super) fn new(name: &str, settings: &Settings) -> Self {
        Self {
            name: name.to_owned(),
            permits: Semaphore::new(settings.concurrency.clamp(1, 1_024)),
            failures_allowed: settings.breaker_failures.max(1),
            pause: Duration::from_millis(settings.breaker_pause_ms),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks breaker and throttle. An open breaker lets one request through after each pause.
    pub(super) fn admit(&self, now: Instant) -> Result<Admission, RegistryError> {
        let mut state = self.state();
        if let Some(until) = state.closed_until {
            if now < until {
                let detail = format!(
                    "it failed {} times in a row; it is asked again in {:?}",
                    state.failures_in_a_row,
                    until.saturating_duration_since(now)
                );
                return Err(RegistryError::unavailable(&self.name, detail));
            }
            state.closed_until = Some(now + self.pause);
        }
        Ok(match state.throttled_until {
            Some(until) if now < until => Admission::Wait(until.saturating_duration_since(now)),
            _ => Admission::Go,
        })
    }

    /// Notes an answer; any definite one closes the breaker again.
    pub(super) fn answered(&self, status: u16) {
        let mut state = self.state();
        *state.answers.entry(status).or_default() += 1;
        if (100..500).contains(&status) {
            state.failures_in_a_row = 0;
            state.closed_until = None;
        }
    }

    /// Notes a request without a usable answer.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures_in_a_row = state.failures_in_a_row.saturating_add(1);
        if state.failures_in_a_row >= self.failures_allowed {
            state.closed_until = Some(now + self.pause);
        }
    }

    /// Counts a request without any answer.
    pub(super) fn unanswered(&self) {
        *self.state().answers.entry(0).or_default() += 1;
    }

    /// Notes a 429 with `Retry-After`, for everybody who asks this registry.
    pub(super) fn throttled(&self, now: Instant, wait: Duration) {
        self.state().throttled_until = Some(now + wait.min(LONGEST_PAUSE));
    }

    pub(super) fn challenge(&self) -> Option<Challenge> {
        self.state().challenge.clone()
    }

    pub(super) fn set_challenge(&self, challenge: &Challenge) {
        self.state().challenge = Some(challenge.clone());
    }

    pub(super) fn answers(&self) -> BTreeMap<u16, u64> {
        self.state().answers.clone()
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.state().closed_until.is_some_and(|until| now < until)
    }
}
