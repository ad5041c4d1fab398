//! How old something may be: `90s`, `30m`, `24h`, `7d`, `2w`.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};

use crate::model::limits;

const MOST_S: i64 = 20 * 366 * 86_400;

/// A greatest age, in whole seconds; more than zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(i64);

/// The text is not an [`Age`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an age; write a number above zero and s, m, h, d or w, as in 24h or 7d (20 years at most)")]
pub struct AgeError(String);

impl Age {
    /// Whether something of time `at` still counts at `now`. A time further in the future than
    /// [`limits::CLOCK_SKEW_S`] does not.
    pub fn covers(self, at: Timestamp, now: Timestamp) -> bool {
        let age = now.duration_since(at);
        age <= SignedDuration::from_secs(self.0) && age >= SignedDuration::from_secs(-limits::CLOCK_SKEW_S)
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let bad = || AgeError(text.chars().take(64).collect());
        let unit = text.chars().last().ok_or_else(bad)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(bad()),
        };
        let digits = text.strip_suffix(unit).ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad());
        }
        let count: i64 = digits.parse().map_err(|_source| bad())?;
        let total = count.checked_mul(seconds).filter(|total| (1..=MOST_S).contains(total)).ok_or_else(bad)?;
        Ok(Self(total))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(7 * 86_400, "w"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
        let (size, unit) = units.into_iter().find(|(size, _)| self.0 % size == 0).unwrap_or((1, "s"));
        write!(f, "{}{unit}", self.0 / size)
    }
}
