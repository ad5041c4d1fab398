//! How long the API server waits for a webhook, from the `?timeout=` that it appends: a duration as Go writes it.
//!
//! Not here: when that ends, and how much of it is ours.

use std::time::Duration;

/// What Kubernetes uses when a webhook names no timeout.
const DEFAULT: Duration = Duration::from_secs(10);
/// The most that Kubernetes allows.
const MOST: Duration = Duration::from_secs(30);
/// Units of Go durations in nanoseconds, longer names first where one ends in another.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
];

/// The timeout is not a Go duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("timeout must be a duration such as 10s, 500ms or 1m, not {0:?}")]
pub struct BadTimeout(String);

/// The timeout in a query string. Without one, or with zero, the default of ten seconds; never more than thirty.
///
/// # Errors
/// [`BadTimeout`].
pub fn timeout_of(query: &str) -> Result<Duration, BadTimeout> {
    let given = query.split('&').find_map(|pair| pair.strip_prefix("timeout="));
    Ok(match given {
        None | Some("") => DEFAULT,
        Some(text) => match parse(text).ok_or_else(|| BadTimeout(text.chars().take(32).collect()))? {
            Duration::ZERO => DEFAULT,
            timeout => timeout.min(MOST),
        },
    })
}

/// Go's `time.ParseDuration`, positive only: `1m30s`, `1.5s`, `0`.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let (mut rest, mut total) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let (_, nanoseconds) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * nanoseconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total / 1e9).ok()
}
