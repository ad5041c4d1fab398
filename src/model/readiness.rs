//! Whether it is safe to go back: facts in, readiness out.
//!
//! Pure: the rollback service collects [`Facts`], and [`assess`] alone decides, so that the same facts give the same
//! answer, byte for byte, at any time. A fact that could not be had is never a yes and never an accusation: it makes
//! the answer `Unknown`, unless something that is known makes it `Unsafe`. Spec: design §7.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    deployment::Revision,
    digest::Digest,
    identity::Role,
    verdict::{Code, LogRef},
};

mod checks;
mod command;
mod facts;
mod scan;

pub use checks::assess;
pub use facts::{Availability, Fact, Facts, Judged, TargetFacts, Weighing};
pub use scan::Delta;

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Safety {
    /// Every check ran and passed.
    Safe,
    /// Nothing stands against it, but something should be seen.
    SafeWithWarnings,
    /// Nothing is known to stand against it, but a check could not run.
    Unknown,
    /// Something stands against it.
    Unsafe,
}

impl Safety {
    /// 0 yes, 1 no, 2 could not tell. With `strict`, a warning is a no.
    pub const fn exit_code(self, strict: bool) -> u8 {
        match self {
            Self::Safe => 0,
            Self::SafeWithWarnings => {
                if strict {
                    1
                } else {
                    0
                }
            }
            Self::Unsafe => 1,
            Self::Unknown => 2,
        }
    }

    /// The name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "SAFE",
            Self::SafeWithWarnings => "SAFE_WITH_WARNINGS",
            Self::Unknown => "UNKNOWN",
            Self::Unsafe => "UNSAFE",
        }
    }

    /// Whether one may go back.
    pub const fn is_yes(self) -> bool {
        matches!(self, Self::Safe | Self::SafeWithWarnings)
    }
}

impl fmt::Display for Safety {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a check says something, or could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It ran.
    Verdict,
    /// It could not run; nothing may be concluded from it.
    CouldNotRun,
}

impl Class {
    /// The name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::CouldNotRun => "could_not_run",
        }
    }
}

/// How much a check weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It stands in the way.
    Blocker,
    /// It should be seen.
    Warning,
    /// Good to know.
    Info,
    /// Looked at and in order.
    Passed,
}

impl Severity {
    /// The name as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocker => "blocker",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Passed => "passed",
        }
    }
}

/// One thing that was looked at. A passed check carries the code of what it would have found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What kind.
    pub code: Code,
    /// Whether it ran.
    pub class: Class,
    /// How much it weighs.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
    /// The log entries it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<LogRef>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Who may decide to go on all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_role: Option<Role>,
}

/// A revision, short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    /// The digest.
    pub digest: Digest,
    /// The image's name, if known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// The version, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who deployed it last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// When it last went live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_since: Option<Timestamp>,
}

impl From<&Revision> for Short {
    fn from(revision: &Revision) -> Self {
        Self {
            digest: revision.digest,
            image: revision.image.clone(),
            version: revision.version.clone(),
            by: revision.by.clone(),
            live_since: revision.live_since,
        }
    }
}

/// How old a fact is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// Which: `evidence`, `registry`, `health`, `scan`, `scan_database`.
    pub fact: String,
    /// As of when.
    pub as_of: Timestamp,
    /// Seconds from then to the question.
    pub age_seconds: i64,
}

/// Another target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// The revision.
    pub revision: Short,
    /// Whether it is safe.
    pub verdict: Safety,
    /// Why, in one sentence.
    pub sentence: String,
}

/// The answer to "is it safe to go back to this digest here and now?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
    /// When the question was asked.
    pub at: Timestamp,
    /// The answer.
    pub verdict: Safety,
    /// The answer in one sentence.
    pub sentence: String,
    /// What runs now.
    pub from: Option<Short>,
    /// What was asked about.
    pub to: Option<Short>,
    /// What was looked at: blockers first, then what could not run, warnings, the rest.
    pub checks: Vec<Check>,
    /// The newest safe target.
    pub recommended: Option<Short>,
    /// The other targets, newest first.
    pub alternatives: Vec<Alternative>,
    /// Findings that going back brings in and takes away; absent when one side has no scan.
    pub delta: Option<Delta>,
    /// How old each fact is.
    pub freshness: Vec<Freshness>,
    /// The image to run, pinned to the digest that was judged; only when it is safe.
    #[serde(default)]
    pub image: Option<String>,
    /// What to run; only when it is safe, and every object that runs the service was recorded.
    pub command: Option<String>,
    /// The digest of the policies in force.
    pub policy: Digest,
    /// The digest of the trusted root.
    pub trusted_root: Option<Digest>,
    /// The evidence that was judged: where it is logged, and the digest of its bundle.
    #[serde(default)]
    pub inputs: Vec<(LogRef, Digest)>,
}

impl Readiness {
    /// The same readiness, told which targets there are beside its own. `all` is newest first and may hold its own.
    #[must_use]
    pub fn among(mut self, all: &[Self]) -> Self {
        let best = |wanted: Safety| all.iter().find(|other| other.verdict == wanted);
        self.recommended = best(Safety::Safe).or_else(|| best(Safety::SafeWithWarnings)).and_then(|r| r.to.clone());
        let own = self.to.as_ref().map(|to| to.digest);
        self.alternatives = all
            .iter()
            .filter_map(|other| {
                let revision = other.to.clone().filter(|to| Some(to.digest) != own)?;
                Some(Alternative { revision, verdict: other.verdict, sentence: other.sentence.clone() })
            })
            .collect();
        self
    }

    /// Adds a warning after the fact; a plain yes becomes one with warnings.
    pub fn warn(&mut self, warning: Check) {
        if self.verdict == Safety::Safe {
            self.verdict = Safety::SafeWithWarnings;
        }
        self.checks.push(warning);
    }

    /// The best of several, newest first: the newest safe one, else the newest safe with warnings, else the newest
    /// that is unknown, else the newest.
    pub fn best(all: &[Self]) -> Option<&Self> {
        all.iter().min_by_key(|readiness| readiness.verdict)
    }

    /// The answer when there is nothing to go back to; `is_known_place` says whether anything was ever recorded here.
    pub fn without_target(
        (service, environment): (&str, &str),
        now: Timestamp,
        is_known_place: bool,
        running: Option<&Revision>,
        policy: Digest,
    ) -> Self {
        let check = if is_known_place {
            let message = "no earlier revision ran here, so there is nothing to go back to";
            checks::check(Code::NeverLiveHere, Severity::Blocker, message)
                .rests_on(running.map(|running| running.at.clone()))
                .remedy("roll forward, or record what ran here before with `countersign deployment record`")
        } else {
            checks::nothing_recorded(service, environment)
        };
        Self {
            service: service.to_owned(),
            environment: environment.to_owned(),
            at: now,
            verdict: Safety::of(std::slice::from_ref(&check)),
            sentence: check.message.clone(),
            from: running.map(Short::from),
            to: None,
            checks: vec![check],
            recommended: None,
            alternatives: Vec::new(),
            delta: None,
            freshness: Vec::new(),
            image: None,
            command: None,
            policy,
            trusted_root: None,
            inputs: Vec::new(),
        }
    }
}
