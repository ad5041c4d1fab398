//! Vulnerabilities: what going back would bring in or take away, by the limits and ages of the policies.
//!
//! The limits are those of every policy that speaks about the target, read by the judge ([`Demand`]). Where the judge
//! looks at one image, going back has two to compare, so three things differ from a plain verdict:
//!
//! - a finding over a limit that *what runs now* has as well is a warning: going back is no worse in that. Admission
//!   does not compare, so under an enforced policy it refuses the target all the same, and that is said beside it;
//! - a finding over a limit that what runs now is not known to have blocks, also where the policy only warns: a
//!   vulnerability must not come back by a rollback that nobody looked at;
//! - where a policy asks for a scan (in mode `enforce` or `warn`) and there is none that is young enough, nothing is
//!   known, and the answer is `Unknown`. So taking a bad scan away cannot make a yes.
//!
//! Where no policy asks for a scan, findings and missing scans are shown and decide nothing.

use serde::{Deserialize, Serialize};

use super::{Check, Facts, Judged, Severity, checks::check, checks::of_reason};
use crate::model::{
    judge::Demand,
    policy::{Finding, Mode, Scan},
    verdict::{Code, Decision, LogRef},
};

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
            findings.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
            findings
        };
        let (kept, introduced) = target.findings.iter().cloned().partition(|finding| running.has(&finding.id));
        let removed = running.findings.iter().filter(|finding| !target.has(&finding.id)).cloned().collect();
        Self { introduced: worst_first(introduced), removed: worst_first(removed), kept: worst_first(kept) }
    }
}

/// What is to be said about vulnerabilities.
pub(super) fn scans(facts: &Facts, judged: &Judged, delta: Option<&Delta>) -> Vec<Check> {
    if judged.demands.is_empty() {
        return unasked(facts, delta);
    }
    judged.demands.iter().flat_map(|demand| limits(demand).into_iter().chain(standing(demand))).collect()
}

/// Findings over a limit: new ones, and those that run already.
fn limits(demand: &Demand) -> Vec<Check> {
    let policy = &demand.policy;
    let before = demand.before.as_ref();
    let (kept, new): (Vec<&Finding>, Vec<&Finding>) =
        demand.over.iter().partition(|finding| before.is_some_and(|before| before.has(&finding.id)));
    let evidence = || places(demand.scan.as_ref().into_iter().chain(before));
    let mut checks = Vec::new();
    if !new.is_empty() {
        let severity = if demand.mode == Mode::Audit { Severity::Warning } else { Severity::Blocker };
        let compared = if before.is_some() { "" } else { ", and no scan shows that what runs now has the same" };
        let message = format!("going back brings in {}, over the limit of policy {policy}{compared}", listed(&new));
        checks.push(
            check(Code::VulnerabilityReintroduced, severity, message)
                .rests_on(evidence())
                .remedy("choose a revision without them, roll forward, or let the policy ignore them for a time")
                .overridable(crate::model::identity::Role::Operator),
        );
    }
    if !kept.is_empty() {
        let message = format!("it has {}, over the limit of policy {policy}, as what runs now has", listed(&kept));
        let found = check(Code::VulnerabilityLimit, Severity::Warning, message).rests_on(evidence());
        checks.push(match demand.mode {
            Mode::Enforce => found.remedy("to go back all the same, let the policy ignore them for a time (`ignore`)"),
            Mode::Warn | Mode::Audit => found,
        });
    }
    checks
}

/// Everything but the limits: whether there is a scan that counts, and whether it is young enough.
fn standing(demand: &Demand) -> impl Iterator<Item = Check> {
    let is_asked = demand.mode != Mode::Audit;
    let is_revoked = |code: Code| matches!(code, Code::KeyRevoked | Code::IdentityRevoked);
    demand.said.iter().filter_map(move |(decision, reason)| {
        let unknown = || of_reason(reason, if is_asked { Severity::Blocker } else { Severity::Info });
        Some(match decision {
            Decision::Allow => check(Code::ScanStale, Severity::Passed, reason.message.clone())
                .rests_on(reason.evidence.iter().cloned()),
            Decision::Deny if reason.code == Code::VulnerabilityLimit => return None,
            Decision::Deny if is_revoked(reason.code) && demand.mode == Mode::Enforce => unknown(),
            Decision::Deny | Decision::Unknown if is_asked => unknown().could_not_run(),
            Decision::Deny | Decision::Unknown => unknown(),
        })
    })
}

/// No policy asks: what is known is shown.
fn unasked(facts: &Facts, delta: Option<&Delta>) -> Vec<Check> {
    let Some(scan) = &facts.target.scan else {
        return vec![check(Code::ScanStale, Severity::Info, "no scan of it is known, and no policy asks for one")];
    };
    // Without anything to compare with, all of it counts as new.
    let new: Vec<&Finding> =
        delta.map_or_else(|| scan.findings.iter().collect(), |delta| delta.introduced.iter().collect());
    let evidence = places([scan].into_iter().chain(&facts.running_scan));
    let code = Code::VulnerabilityReintroduced;
    if new.is_empty() {
        return vec![check(code, Severity::Passed, "going back brings in no findings").rests_on(evidence)];
    }
    let compared = if delta.is_some() { "" } else { ", or what runs now has the same: it has no scan to compare with" };
    let message = format!("going back brings in {}{compared}; no policy limits findings", listed(&new));
    vec![
        check(code, Severity::Warning, message)
            .rests_on(evidence)
            .remedy("see whether you can live with them until you roll forward"),
    ]
}

fn places<'a>(scans: impl IntoIterator<Item = &'a Scan>) -> impl Iterator<Item = LogRef> {
    scans.into_iter().filter_map(|scan| scan.at.clone())
}

/// `CVE-1 (critical), CVE-2 (high) and 3 more`.
fn listed(findings: &[&Finding]) -> String {
    const SHOWN: usize = 3;
    let mut sorted: Vec<&&Finding> = findings.iter().collect();
    sorted.sort_by(|a, b| (b.severity, &a.id).cmp(&(a.severity, &b.id)));
    let shown: Vec<String> =
        sorted.iter().take(SHOWN).map(|finding| format!("{} ({})", finding.id, finding.severity)).collect();
    match findings.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
