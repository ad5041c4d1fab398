//! How long a server wants to be left alone: `Retry-After` (RFC 9110 section 10.2.3).
//!
//! Not here: how much of that is waited.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

/// The time in the value of a `Retry-After` header: seconds, or a date. A date is held against the answer's own `Date`, so
/// no clock is asked; one that is past is no time at all. `None` for what is neither, and for a date beside no other.
pub fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(seconds) = value.parse()
    {
        return Some(Duration::from_secs(seconds));
    }
    let parser = DateTimeParser::new();
    let then = parser.parse_timestamp(value).ok()?;
    let date = parser.parse_timestamp(date?).ok()?;
    Some(Duration::try_from(then.duration_since(date)).unwrap_or_default())
}
