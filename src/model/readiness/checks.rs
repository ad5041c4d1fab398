//! The checks, each a function from facts to what it found, and the verdict over them.

use jiff::Timestamp;

use super::{Check, Class, Delta, Fact, Facts, Finding, Freshness, Judged, Readiness, Rules, Safety, Severity, Short};
use crate::model::{
    deployment::Status,
    identity::Role,
    policy::Mode,
    verdict::{Code, Decision, LogRef, Reason},
};

/// Decides. The same facts and rules give the same readiness; other targets are not looked at (see
/// [`Readiness::among`]).
pub fn assess(facts: &Facts, rules: &Rules) -> Readiness {
    let mut checks = history(facts);
    checks.extend(progress(facts));
    checks.extend(revocations(facts));
    checks.extend(judged(facts));
    checks.push(inclusion(facts));
    checks.push(availability(facts));
    let delta = facts.running_scan.as_ref().zip(facts.target.scan.as_ref()).map(|(old, new)| Delta::between(old, new));
    checks.extend(scan(facts, rules, delta.as_ref()));
    checks.sort_by_key(|check| (rank(check), check.severity));
    let verdict = verdict(&checks);
    let to = short(facts);
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
        command: verdict.is_yes().then(|| command(facts, &to)).flatten(),
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

fn verdict(checks: &[Check]) -> Safety {
    match checks.iter().map(rank).min() {
        Some(0) => Safety::Unsafe,
        Some(1) => Safety::Unknown,
        Some(2) => Safety::SafeWithWarnings,
        _ => Safety::Safe,
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

fn check(code: Code, severity: Severity, message: impl Into<String>) -> Check {
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

    fn could_not_run(mut self) -> Self {
        self.class = Class::CouldNotRun;
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    fn rests_on(mut self, evidence: impl IntoIterator<Item = LogRef>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    fn overridable(mut self, role: Role) -> Self {
        self.override_role = Some(role);
        self
    }
}

/// It ran here, and it was healthy when it did.
fn history(facts: &Facts) -> Vec<Check> {
    let place = format!("{} in {}", facts.service, facts.environment);
    let Some(revision) = facts.target.revision.as_ref().filter(|revision| revision.live_since.is_some()) else {
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

/// No other deployment is under way.
fn progress(facts: &Facts) -> Vec<Check> {
    let others: Vec<_> = facts.under_way.iter().filter(|progress| progress.digest != facts.target.digest).collect();
    if others.is_empty() {
        return vec![check(Code::DeployInProgress, Severity::Passed, "no other deployment is under way")];
    }
    let found = |progress: &&crate::model::deployment::Progress| {
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

/// Today's policy still accepts it, so admission will.
fn judged(facts: &Facts) -> Vec<Check> {
    let judged = match &facts.target.judged {
        Fact::Known { value, .. } => value,
        Fact::Unknown(why) => {
            let message = format!("policy could not be asked: {why}");
            return vec![
                check(Code::AdmissionWouldDeny, Severity::Blocker, message).could_not_run().remedy("try again"),
            ];
        }
    };
    let mut checks = match judged.verdict.decision {
        Decision::Allow => {
            let evidence = judged.verdict.reasons.iter().flat_map(|reason| reason.evidence.iter().cloned());
            vec![
                check(Code::AdmissionWouldDeny, Severity::Passed, "signature and provenance hold under today's policy")
                    .rests_on(evidence),
            ]
        }
        Decision::Deny => denied(judged),
        Decision::Unknown => {
            judged.verdict.reasons.iter().map(|reason| of_reason(reason, Severity::Blocker, true)).collect()
        }
    };
    if checks.is_empty() {
        checks.push(check(Code::Other, Severity::Blocker, "policy could not decide").could_not_run());
    }
    checks.extend(judged.verdict.warnings.iter().map(|reason| of_reason(reason, Severity::Warning, false)));
    checks
}

/// A no is a blocker where policy is enforced; where it only warns or audits, admission would let it in.
fn denied(judged: &Judged) -> Vec<Check> {
    let enforced = judged.mode == Mode::Enforce;
    let severity = |code: Code| match code {
        Code::ArtifactRevoked => Severity::Blocker,
        _ if enforced => Severity::Blocker,
        _ => Severity::Warning,
    };
    let mut checks: Vec<_> = judged
        .verdict
        .reasons
        .iter()
        .map(|reason| {
            let could_not_run =
                matches!(reason.code, Code::RegistryUnavailable | Code::TrustUnavailable | Code::DeadlineExceeded);
            of_reason(reason, severity(reason.code), could_not_run)
        })
        .collect();
    checks.push(if enforced {
        check(Code::AdmissionWouldDeny, Severity::Blocker, "admission would refuse it under today's policy")
            .remedy("clear the reasons above, or break glass if policy lets you")
            .overridable(Role::Admin)
    } else {
        check(Code::AdmissionWouldDeny, Severity::Warning, "policy says no, but is not enforced here")
    });
    checks
}

fn of_reason(reason: &Reason, severity: Severity, could_not_run: bool) -> Check {
    let found = check(reason.code, severity, reason.message.clone())
        .rests_on(reason.evidence.iter().cloned())
        .remedy(reason.remedy.clone());
    if could_not_run { found.could_not_run() } else { found }
}

/// What is known of it stands in a trusted log.
fn inclusion(facts: &Facts) -> Check {
    match (facts.target.logged.is_empty(), &facts.target.judged) {
        (false, _) => check(Code::LogInclusionMissing, Severity::Passed, "what is said of it stands in a trusted log")
            .rests_on(facts.target.logged.iter().cloned()),
        (true, Fact::Known { value, .. }) if value.verdict.decision != Decision::Unknown => {
            check(Code::LogInclusionMissing, Severity::Blocker, "nothing that is said of it stands in a trusted log")
                .remedy("sign it through the log: `countersign sign`")
                .overridable(Role::Admin)
        }
        (true, _) => {
            check(Code::LogInclusionMissing, Severity::Blocker, "no logged evidence of it is at hand").could_not_run()
        }
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
        Fact::Unknown(why) => check(Code::RegistryUnavailable, Severity::Blocker, why.clone())
            .could_not_run()
            .remedy("try again; if nodes still hold the image, it may start without the registry")
            .overridable(Role::Operator),
    }
}

/// The newest scan is young enough, and going back brings in nothing bad that does not run already.
fn scan(facts: &Facts, rules: &Rules, delta: Option<&Delta>) -> Vec<Check> {
    let mut checks = vec![scan_age(facts, rules)];
    let Some(scan) = &facts.target.scan else { return checks };
    let bad = |findings: &[Finding]| -> Vec<String> {
        findings.iter().filter(|finding| finding.level >= rules.block_at).map(|finding| finding.id.clone()).collect()
    };
    let Some(delta) = delta else {
        let over = bad(&scan.findings);
        if !over.is_empty() {
            let message = format!("it has {}, and what runs now was never scanned for comparison", listed(&over));
            checks.push(
                check(Code::VulnerabilityReintroduced, Severity::Blocker, message)
                    .could_not_run()
                    .rests_on(scan.at.clone())
                    .remedy("scan what runs now and attest the result")
                    .overridable(Role::Operator),
            );
        }
        return checks;
    };
    let evidence: Vec<_> =
        scan.at.iter().chain(facts.running_scan.as_ref().and_then(|scan| scan.at.as_ref())).cloned().collect();
    let (over, kept) = (bad(&delta.introduced), bad(&delta.kept));
    checks.push(if over.is_empty() {
        let message = format!("going back brings in {} findings, none over the limit", delta.introduced.len());
        check(Code::VulnerabilityReintroduced, Severity::Passed, message).rests_on(evidence.clone())
    } else {
        check(
            Code::VulnerabilityReintroduced,
            Severity::Blocker,
            format!("going back brings {} in again", listed(&over)),
        )
        .rests_on(evidence.clone())
        .remedy("choose a revision without them, or roll forward")
        .overridable(Role::Operator)
    });
    if !kept.is_empty() {
        let message = format!("it has {}, as what runs now has", listed(&kept));
        checks.push(check(Code::VulnerabilityLimit, Severity::Warning, message).rests_on(evidence));
    }
    checks
}

fn scan_age(facts: &Facts, rules: &Rules) -> Check {
    let stale = |message: String| {
        let found = check(Code::ScanStale, Severity::Warning, message)
            .remedy("scan it now and attest the result: `countersign attest`");
        if rules.require_scan { found.could_not_run() } else { found }
    };
    match &facts.target.scan {
        None => stale("no scan of it is known".to_owned()),
        Some(scan) if facts.now.duration_since(scan.as_of()) > rules.scan_max_age => {
            stale(format!("its newest scan speaks as of {}, which is too long ago", scan.as_of()))
                .rests_on(scan.at.clone())
        }
        Some(scan) => check(Code::ScanStale, Severity::Passed, "its newest scan is recent").rests_on(scan.at.clone()),
    }
}

fn listed(ids: &[String]) -> String {
    let shown: Vec<&str> = ids.iter().take(3).map(String::as_str).collect();
    match ids.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn freshness(facts: &Facts) -> Vec<Freshness> {
    let target = &facts.target;
    let as_of = |fact: &str, as_of: Timestamp| Freshness {
        fact: fact.to_owned(),
        as_of,
        age_seconds: facts.now.duration_since(as_of).as_secs().max(0),
    };
    let judged = match &target.judged {
        Fact::Known { as_of, .. } => Some(("evidence", *as_of)),
        Fact::Unknown(_) => None,
    };
    let registry = match &target.availability {
        Fact::Known { as_of, .. } => Some(("registry", *as_of)),
        Fact::Unknown(_) => None,
    };
    let health = target.revision.as_ref().and_then(|revision| revision.health.as_ref());
    let scan = target.scan.as_ref();
    [
        judged,
        registry,
        health.map(|report| ("health", report.time)),
        scan.map(|scan| ("scan", scan.finished)),
        scan.map(|scan| ("scan_database", scan.database)),
    ]
    .into_iter()
    .flatten()
    .map(|(fact, time)| as_of(fact, time))
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

/// The container is taken to have the service's name, as the record does not say.
fn command(facts: &Facts, to: &Short) -> Option<String> {
    let image: crate::model::ImageRef = to.image.parse().ok()?;
    let service = facts.service.rsplit('/').next()?;
    Some(format!("kubectl set image deployment/{service} {service}={}@{}", image.name, to.digest))
}
