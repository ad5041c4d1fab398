//! Vulnerability scans, and what going back would bring in or take away.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{predicate, verdict::LogRef, verify::Verified};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The scanner did not say, or not in a way that we read.
    Unrated,
    /// Negligible or low.
    Low,
    /// Medium or moderate.
    Medium,
    /// High or important.
    High,
    /// Critical.
    Critical,
}

impl Level {
    /// Reads a name or a CVSS base score.
    fn read(score: &Value) -> Self {
        let number = score.as_f64().or_else(|| score.as_str().and_then(|text| text.trim().parse().ok()));
        match number {
            Some(number) if number >= 9.0 => return Self::Critical,
            Some(number) if number >= 7.0 => return Self::High,
            Some(number) if number >= 4.0 => return Self::Medium,
            Some(number) if number >= 0.0 => return Self::Low,
            _ => {}
        }
        match score.as_str().unwrap_or_default().to_ascii_lowercase().as_str() {
            "critical" => Self::Critical,
            "high" | "important" => Self::High,
            "medium" | "moderate" => Self::Medium,
            "low" | "negligible" | "minimal" | "none" => Self::Low,
            _ => Self::Unrated,
        }
    }
}

/// One finding of a scan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The highest level that the scanner gives it.
    pub level: Level,
    /// The advisory's id.
    pub id: String,
}

/// A scan of one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// When it finished; no later than it was signed.
    pub finished: Timestamp,
    /// How new its database was.
    pub database: Timestamp,
    /// What it found, by id.
    pub findings: Vec<Finding>,
    /// Where it is logged.
    pub at: Option<LogRef>,
}

impl Scan {
    /// The newest scan among proven statements.
    pub fn newest<'a>(statements: impl IntoIterator<Item = &'a Verified>) -> Option<Self> {
        statements.into_iter().filter_map(Self::read).max_by_key(|scan| (scan.finished, scan.at.clone()))
    }

    /// Reads one; `None` when it is no scan.
    fn read(verified: &Verified) -> Option<Self> {
        let statement = verified.statement();
        if statement.predicate_type() != predicate::VULNS {
            return None;
        }
        let (finished, database, findings) = Self::parse(statement.predicate())?;
        let signed_at = verified.signed_at().unwrap_or(finished);
        Some(Self { finished: finished.min(signed_at), database, findings, at: verified.log().cloned() })
    }

    /// End of the scan, age of its database and findings of a `vulns/v0.2` predicate.
    pub fn parse(predicate: &Value) -> Option<(Timestamp, Timestamp, Vec<Finding>)> {
        let time = |pointer: &str| predicate.pointer(pointer)?.as_str()?.parse::<Timestamp>().ok();
        let finished = time("/metadata/scanFinishedOn")?;
        let database = time("/scanner/db/lastUpdate")?;
        let mut findings: Vec<Finding> = predicate
            .pointer("/scanner/result")?
            .as_array()?
            .iter()
            .filter_map(|result| {
                let id = result.get("id")?.as_str()?.to_owned();
                let severity = result.get("severity").and_then(Value::as_array);
                let scores = severity.into_iter().flatten().filter_map(|severity| severity.get("score"));
                Some(Finding { level: scores.map(Level::read).max().unwrap_or(Level::Unrated), id })
            })
            .collect();
        findings.sort_by(|a, b| (&a.id, b.level).cmp(&(&b.id, a.level)));
        findings.dedup_by(|a, b| a.id == b.id);
        Some((finished, database, findings))
    }

    /// As of when the scan speaks: the older of its end and its database.
    pub fn as_of(&self) -> Timestamp {
        self.finished.min(self.database)
    }

    fn has(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id == id)
    }
}

/// What going back changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Findings that the target has and what runs now has not, worst first.
    pub introduced: Vec<Finding>,
    /// Findings that what runs now has and the target has not, worst first.
    pub removed: Vec<Finding>,
    /// Findings that both have, worst first.
    pub kept: Vec<Finding>,
}

impl Delta {
    /// From what runs now to the target.
    pub fn between(running: &Scan, target: &Scan) -> Self {
        let worst_first = |mut findings: Vec<Finding>| {
            findings.sort_by(|a, b| (b.level, &a.id).cmp(&(a.level, &b.id)));
            findings
        };
        let (kept, introduced) = target.findings.iter().cloned().partition(|finding| running.has(&finding.id));
        let removed = running.findings.iter().filter(|finding| !target.has(&finding.id)).cloned().collect();
        Self { introduced: worst_first(introduced), removed: worst_first(removed), kept: worst_first(kept) }
    }
}
