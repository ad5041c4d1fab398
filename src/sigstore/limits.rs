//! How often one caller may ask: a rate, with a burst on top, by identity or address.
//!
//! The generic cell rate algorithm: for each caller one moment is kept, that at which it would have used up what it may.
//! Whoever is ahead of it by more than the burst is told how long to wait. Callers that were not seen for a while are
//! forgotten, and of very many the least recent ones, so that memory is bounded; a stranger who uses many addresses gets
//! many allowances, which no limit by address prevents.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;
use serde::Deserialize;

/// Callers that are remembered, as a count.
const CALLERS: u64 = 16_384;
/// How long a caller that does not ask is remembered. Its allowance is whole again long before.
const MEMORY: Duration = Duration::from_mins(10);

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Allowance {
    /// Requests a second that a caller may make in the long run. 0: no limit.
    pub per_second: u32,
    /// Requests that it may make at once after a pause.
    pub burst: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { per_second: 200, burst: 1_000 }
    }
}

/// Keeps count of callers.
#[derive(Debug, Clone)]
pub struct Limiter {
    /// Time that one request stands for; none without a limit.
    each: Option<Duration>,
    ahead: Duration,
    callers: Cache<String, Arc<Mutex<Instant>>>,
}

impl Limiter {
    /// A limiter with this allowance for each caller.
    pub fn new(allowance: Allowance) -> Self {
        let each = Duration::from_secs(1).checked_div(allowance.per_second);
        Self {
            each,
            ahead: each.unwrap_or_default().saturating_mul(allowance.burst.max(1)),
            callers: Cache::builder().max_capacity(CALLERS).time_to_idle(MEMORY).build(),
        }
    }

    /// A limiter for all clones of a face.
    pub fn shared(allowance: Allowance) -> Arc<Self> {
        Arc::new(Self::new(allowance))
    }

    /// Takes one request out of a caller's allowance.
    ///
    /// # Errors
    /// How long to wait before the next one is allowed.
    pub fn take(&self, caller: &str, now: Instant) -> Result<(), Duration> {
        self.take_all(caller, 1, now)
    }

    /// Takes so many out of a caller's allowance, all or none. What is more than a burst counts as a whole one: else it
    /// could never be had.
    ///
    /// # Errors
    /// How long to wait before they are allowed.
    pub fn take_all(&self, caller: &str, count: u32, now: Instant) -> Result<(), Duration> {
        let Some(each) = self.each else { return Ok(()) };
        let wanted = each.saturating_mul(count).min(self.ahead);
        let used_up = self.callers.get_with_by_ref(caller, || Arc::new(Mutex::new(now)));
        let mut used_up = used_up.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*used_up).max(now) + wanted;
        match (next - now).checked_sub(self.ahead) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *used_up = next;
                Ok(())
            }
        }
    }
}

/// A caller without an identity, by its address. Of IPv6 the network counts: a host has 2^64 addresses in it.
pub fn address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
