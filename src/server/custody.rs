//! Whether the keys that sign can be used: for readiness. A token may be slow, and may hang; one thread asks it at a time
//! and at most once a second, and everybody else is told what it said last, or that it has not answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::keys::Keyring;

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(1);
/// After so long without an answer a token counts as gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last look at the keys.
#[derive(Debug)]
pub(super) struct Watch {
    keyring: Arc<Keyring>,
    last: Mutex<Look>,
}

#[derive(Debug)]
struct Look {
    began: Instant,
    under_way: bool,
    answer: Result<(), String>,
}

impl Watch {
    /// Begins with keys that were just looked at, and were well.
    pub(super) fn new(keyring: Arc<Keyring>) -> Self {
        let last = Look { began: Instant::now(), under_way: false, answer: Ok(()) };
        Self { keyring, last: Mutex::new(last) }
    }

    /// What is wrong with the keys, if anything is; blocks while it asks.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), String> {
        let lock = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut last = lock();
            let age = last.began.elapsed();
            if last.under_way && age > PATIENCE {
                return Err(format!("the token has not answered for {} seconds", age.as_secs()));
            }
            if last.under_way || age < FRESH {
                return last.answer.clone();
            }
            *last = Look { began: Instant::now(), under_way: true, answer: last.answer.clone() };
        }
        let answer = self.keyring.check_custody(now).map_err(|error| error.to_string());
        let mut last = lock();
        last.under_way = false;
        last.answer.clone_from(&answer);
        answer
    }
}
