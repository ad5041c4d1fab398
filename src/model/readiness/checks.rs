//! The checks, each a function from facts to what it found, and the verdict over them.

use jiff::Timestamp;

use super::{
    Check, Class, Delta, Fact, Facts, Freshness, Judged, Readiness, Safety, Severity, Short,
    command::{command, pinned},
    scan::scans,
};
use crate::model::{
    deployment::{Progress, Status},
    identity::Role,
    policy::Mode,
    verdict::{Code, Decision, LogRef, Reason},
};

/// Decides. The same facts give the same readiness; other targets are not looked at (see [`Readiness::among`]).
pub fn assess(facts: &Facts) -> Readiness {
    let mut checks = history(facts);
    checks.extend(progress(facts));
    checks.extend(revocations(facts));
    checks.extend(judged(facts));
    checks.push(inclusion(facts));
    checks.push(availability(facts));
    let delta = facts.running_scan.as_ref().zip(facts.target.scan.as_ref()).map(|(old, new)| Delta::between(old, new));
    if let Some(judged) = facts.target.judged.known() {
        checks.extend(scans(facts, judged, delta.as_ref()));
    }
    checks.sort_by_key(|check| (rank(check), check.severity));
    let verdict = Safety::of(&checks);
    let to = short(facts);
    let image = verdict.is_yes().then(|| pinned(&to)).flatten();
    Readiness {
        service: facts.service.clone(),
        environment: facts.environment.clone(),
        at: facts.now,
        verdict,
        sentence: sentence(verdict, &checks),
        from: facts.running.as_ref().map(Short::from),
        recommended: None,
        alternatives: Vec::new(),
        delta,
        freshness: freshness(facts),
        command: image.as_deref().and_then(|image| command(facts, image)),
        image,
        to: Some(to),
        checks,
        policy: facts.policy,
        trusted_root: facts.target.root,
        inputs: facts.target.logged.iter().cloned().zip(facts.target.bundles.iter().copied()).collect(),
    }
}

/// Blockers first, then what could not run, warnings, the rest.
const fn rank(check: &Check) -> u8 {
    match (check.class, check.severity) {
        (Class::Verdict, Severity::Blocker) => 0,
        (Class::CouldNotRun, _) => 1,
        (_, Severity::Warning) => 2,
        (_, Severity::Info | Severity::Passed) => 3,
    }
}

impl Safety {
    /// What checks come to: one that stands in the way makes a no, else one that could not run makes it unknown.
    pub fn of(checks: &[Check]) -> Self {
        match checks.iter().map(rank).min() {
            Some(0) => Self::Unsafe,
            // No check at all: nothing is known.
            Some(1) | None => Self::Unknown,
            Some(2) => Self::SafeWithWarnings,
            Some(_) => Self::Safe,
        }
    }
}

fn sentence(verdict: Safety, checks: &[Check]) -> String {
    let at = |wanted: u8| checks.iter().filter(move |check| rank(check) == wanted);
    let told = |wanted: u8| {
        let first = at(wanted).next().map(|check| check.message.clone()).unwrap_or_default();
        match at(wanted).count() {
            0 | 1 => first,
            count => format!("{first} (and {} more)", count - 1),
        }
    };
    match verdict {
        Safety::Safe => "it ran here healthy, policy still accepts it, and all of it is still there".to_owned(),
        Safety::SafeWithWarnings => format!("nothing stands against it, but {}", told(2)),
        Safety::Unknown => format!("could not tell: {}", told(1)),
        Safety::Unsafe => told(0),
    }
}

pub(super) fn check(code: Code, severity: Severity, message: impl Into<String>) -> Check {
    Check {
        code,
        class: Class::Verdict,
        severity,
        message: message.into(),
        evidence: Vec::new(),
        remedy: String::new(),
        override_role: None,
    }
}

impl Check {
    /// A warning from outside the facts, such as that the answer could not be recorded.
    pub fn warning(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        check(code, Severity::Warning, message).remedy(remedy)
    }

    pub(super) fn could_not_run(mut self) -> Self {
        self.class = Class::CouldNotRun;
        self
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(super) fn rests_on(mut self, evidence: impl IntoIterator<Item = LogRef>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    pub(super) fn overridable(mut self, role: Role) -> Self {
        self.override_role = Some(role);
        self
    }
}

/// It ran here, and it was healthy when it did.
fn history(facts: &Facts) -> Vec<Check> {
    let place = format!("{} in {}", facts.service, facts.environment);
    let Some(revision) = facts.target.revision.as_ref().filter(|revision| revision.live_since.is_some()) else {
        if !facts.is_known_place {
            return vec![nothing_recorded(&facts.service, &facts.environment)];
        }
        let found = check(Code::NeverLiveHere, Severity::Blocker, format!("it never ran as {place}"))
            .remedy("choose a revision from `countersign rollback targets`, or deploy this one as a new release")
            .overridable(Role::Operator);
        return vec![found];
    };
    let mut checks = vec![
        check(Code::NeverLiveHere, Severity::Passed, format!("it ran as {place} before"))
            .rests_on([revision.at.clone()]),
    ];
    if facts.running.as_ref().is_some_and(|running| running.digest == revision.digest) {
        checks.push(check(Code::Other, Severity::Warning, "it is what runs now, so going back to it changes nothing"));
    }
    let unhealthy = |message: String| {
        check(Code::UnhealthyLastTime, Severity::Blocker, message)
            .remedy("choose an older revision, or report it healthy once the cause is known to be gone")
            .overridable(Role::Operator)
    };
    checks.push(match &revision.health {
        _ if revision.status == Status::Failed => {
            unhealthy("its newest deployment here failed".to_owned()).rests_on([revision.at.clone()])
        }
        Some(report) if !report.healthy => {
            let detail = if report.detail.is_empty() { String::new() } else { format!(": {}", report.detail) };
            unhealthy(format!("it was reported unhealthy here on {}{detail}", report.time))
                .rests_on([report.at.clone()])
        }
        Some(report) => check(Code::UnhealthyLastTime, Severity::Passed, "it was reported healthy here")
            .rests_on([report.at.clone()]),
        None => check(
            Code::HealthUnknown,
            Severity::Blocker,
            "nobody reported whether it was healthy when it ran here",
        )
        .could_not_run()
        .remedy(format!(
            "if you know that it was: `countersign health report --service {} --environment {} --digest {} --healthy`",
            facts.service, facts.environment, revision.digest
        ))
        .overridable(Role::Operator),
    });
    if revision.status == Status::RolledBack {
        let found = check(Code::UnhealthyLastTime, Severity::Warning, "it was itself rolled back from before")
            .remedy("ask why before going back to it")
            .rests_on([revision.at.clone()]);
        checks.push(found);
    }
    checks
}

/// Nothing was ever recorded here: more likely a slip of the pen, or nobody records, than a place without a past.
pub(super) fn nothing_recorded(service: &str, environment: &str) -> Check {
    let message = format!("no deployment of {service} in {environment} was ever recorded, so nothing can be said");
    check(Code::NeverLiveHere, Severity::Blocker, message).could_not_run().remedy(
        "see whether the names are right (`countersign deployment list`); record what runs and what ran before with \
         `countersign deployment record`",
    )
}

/// No other deployment is under way.
fn progress(facts: &Facts) -> Vec<Check> {
    let others: Vec<_> = facts.under_way.iter().filter(|progress| progress.digest != facts.target.digest).collect();
    if others.is_empty() {
        return vec![check(Code::DeployInProgress, Severity::Passed, "no other deployment is under way")];
    }
    let found = |progress: &&Progress| {
        let digest = progress.digest.short();
        check(
            Code::DeployInProgress,
            Severity::Blocker,
            format!("a deployment of {digest} by {} is under way since {}", progress.by, progress.since),
        )
        .rests_on([progress.at.clone()])
        .remedy("stop it, or wait for it, and record how it ended with `countersign deployment record`")
        .overridable(Role::Operator)
    };
    others.iter().map(found).collect()
}

/// Neither it nor who signed for it was revoked.
fn revocations(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    match &facts.target.revoked {
        Some((revocation, at)) => checks.push(
            check(
                Code::ArtifactRevoked,
                Severity::Blocker,
                format!("it was revoked as of {}: {}", revocation.since, revocation.reason),
            )
            .rests_on([at.clone()])
            .remedy("choose another revision"),
        ),
        None => checks.push(check(Code::ArtifactRevoked, Severity::Passed, "it was not revoked")),
    }
    for (code, revocation, at) in &facts.target.signers_revoked {
        let what = if *code == Code::KeyRevoked { "key" } else { "identity" };
        let message =
            format!("a {what} that signed for it was revoked as of {}: {}", revocation.since, revocation.reason);
        checks.push(
            check(*code, Severity::Warning, message)
                .rests_on([at.clone()])
                .remedy("have it signed and attested again by a signer that policy names"),
        );
    }
    checks
}

/// Today's policy still accepts it, so admission will. What is to be said of vulnerabilities stands elsewhere
/// ([`scans`]), as two images have to be compared for that.
fn judged(facts: &Facts) -> Vec<Check> {
    let judged = match &facts.target.judged {
        Fact::Known { value, .. } => value,
        Fact::Unknown { why, remedy } => {
            let found = check(Code::AdmissionWouldDeny, Severity::Blocker, why.clone());
            return vec![found.could_not_run().remedy(remedy.clone())];
        }
    };
    let is_said_elsewhere =
        |reason: &&Reason| judged.demands.iter().any(|demand| demand.said.iter().any(|(_, said)| said == *reason));
    let reasons: Vec<&Reason> = judged.verdict.reasons.iter().filter(|one| !is_said_elsewhere(one)).collect();
    let mut checks = match (judged.verdict.decision, judged.mode) {
        (Decision::Allow, _) => {
            let evidence = reasons.iter().flat_map(|reason| reason.evidence.iter().cloned());
            let message = match judged.verdict.policies.as_slice() {
                [] => "no policy speaks about it, and that lets it in",
                _ => "signature and provenance hold under today's policy",
            };
            vec![check(Code::AdmissionWouldDeny, Severity::Passed, message).rests_on(evidence)]
        }
        (Decision::Deny | Decision::Unknown, Mode::Enforce) => refused(judged, &reasons),
        (Decision::Deny | Decision::Unknown, Mode::Warn | Mode::Audit) => not_enforced(&reasons),
    };
    let warnings = judged.verdict.warnings.iter().filter(|one| !is_said_elsewhere(one));
    checks.extend(warnings.map(|reason| of_reason(reason, Severity::Warning)));
    checks
}

/// Admission would not let it in: a no that is known blocks, the rest could not be told.
fn refused(judged: &Judged, reasons: &[&Reason]) -> Vec<Check> {
    let is_no = |reason: &Reason| judged.verdict.decision == Decision::Deny && !is_undecided(reason.code);
    let mut checks: Vec<Check> = reasons
        .iter()
        .map(|reason| {
            let found = of_reason(reason, Severity::Blocker);
            if is_no(reason) { found } else { found.could_not_run() }
        })
        .collect();
    let over_limit = judged.demands.iter().filter(|demand| demand.mode == Mode::Enforce).any(|demand| {
        let known = [Code::VulnerabilityLimit, Code::KeyRevoked, Code::IdentityRevoked];
        demand.said.iter().any(|(decision, reason)| *decision == Decision::Deny && known.contains(&reason.code))
    });
    if over_limit || reasons.iter().any(|reason| is_no(reason)) {
        checks.push(
            check(Code::AdmissionWouldDeny, Severity::Blocker, "admission would refuse it under today's policy")
                .remedy("clear the reasons beside this one, or break the glass if admission is set up to let you")
                .overridable(Role::Admin),
        );
    }
    checks
}

/// What only the judge's `Unknown` is made of, whatever stands beside it.
const fn is_undecided(code: Code) -> bool {
    matches!(
        code,
        Code::RegistryUnavailable
            | Code::TrustUnavailable
            | Code::DeadlineExceeded
            | Code::EvidenceStale
            | Code::ScanStale
            | Code::RuleError
    )
}

/// Where policy only warns or audits, admission lets it in whatever the judge says: not a yes by policy, and no block.
fn not_enforced(reasons: &[&Reason]) -> Vec<Check> {
    let mut checks: Vec<Check> = reasons
        .iter()
        .map(|reason| match reason.code {
            Code::ArtifactRevoked => of_reason(reason, Severity::Blocker),
            _ => of_reason(reason, Severity::Warning),
        })
        .collect();
    if !checks.is_empty() {
        let message = "policy does not accept it, but is not enforced here";
        checks.push(check(Code::AdmissionWouldDeny, Severity::Warning, message));
    }
    checks
}

pub(super) fn of_reason(reason: &Reason, severity: Severity) -> Check {
    check(reason.code, severity, reason.message.clone())
        .rests_on(reason.evidence.iter().cloned())
        .remedy(reason.remedy.clone())
}

/// What is known of it stands in a trusted log.
fn inclusion(facts: &Facts) -> Check {
    let code = Code::LogInclusionMissing;
    if !facts.target.logged.is_empty() {
        return check(code, Severity::Passed, "what is said of it stands in a trusted log")
            .rests_on(facts.target.logged.iter().cloned());
    }
    let missing = "nothing that is said of it stands in a trusted log";
    let remedy = "sign it through the log: `countersign sign`";
    match facts.target.judged.known().map(|judged| &judged.verdict) {
        // No policy wants any evidence of it.
        Some(verdict) if verdict.decision == Decision::Allow && verdict.policies.is_empty() => {
            check(code, Severity::Warning, missing).remedy(remedy)
        }
        Some(verdict) if verdict.decision != Decision::Unknown => {
            check(code, Severity::Blocker, missing).remedy(remedy).overridable(Role::Admin)
        }
        Some(_) | None => check(code, Severity::Blocker, "no logged evidence of it is at hand")
            .could_not_run()
            .remedy("ask again when the registry can be read, or sign it through the log: `countersign sign`"),
    }
}

/// All of it is still in the registry.
fn availability(facts: &Facts) -> Check {
    match &facts.target.availability {
        Fact::Known { value, .. } if value.missing.is_empty() => {
            let platforms = match value.platforms.as_slice() {
                [] => String::new(),
                platforms => format!(" for {}", platforms.join(", ")),
            };
            let message = format!("manifest and all {} blobs are in the registry{platforms}", value.blobs);
            check(Code::BlobMissing, Severity::Passed, message)
        }
        Fact::Known { value, .. } => {
            let first = value.missing.first().map(String::as_str).unwrap_or_default();
            let message = match value.missing.len() {
                1 => format!("{first} is gone from the registry"),
                count => format!("{first} and {} more are gone from the registry", count - 1),
            };
            check(Code::BlobMissing, Severity::Blocker, message)
                .remedy("push the image again from a copy, or choose another revision")
        }
        Fact::Unknown { why, remedy } => check(Code::RegistryUnavailable, Severity::Blocker, why.clone())
            .could_not_run()
            .remedy(remedy.clone())
            .overridable(Role::Operator),
    }
}

fn freshness(facts: &Facts) -> Vec<Freshness> {
    let target = &facts.target;
    let as_of = |fact: &str, as_of: Timestamp| Freshness {
        fact: fact.to_owned(),
        as_of,
        age_seconds: facts.now.duration_since(as_of).as_secs().max(0),
    };
    let health = target.revision.as_ref().and_then(|revision| revision.health.as_ref());
    let scan = target.scan.as_ref();
    [
        ("evidence", target.judged.as_of()),
        ("registry", target.availability.as_of()),
        ("health", health.map(|report| report.time)),
        ("scan", scan.and_then(|scan| scan.finished)),
        ("scan_database", scan.and_then(|scan| scan.database)),
    ]
    .into_iter()
    .filter_map(|(fact, time)| Some(as_of(fact, time?)))
    .collect()
}

fn short(facts: &Facts) -> Short {
    facts.target.revision.as_ref().map_or_else(
        || Short {
            digest: facts.target.digest,
            image: String::new(),
            version: None,
            by: String::new(),
            live_since: None,
        },
        Short::from,
    )
}
