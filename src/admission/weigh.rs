//! One image: reference to digest to evidence to verdict.
//!
//! The order is what makes the cluster door cheap and dependable: a pinned digest that our own log can vouch for is
//! admitted without a word to any registry; a tag costs one question; only what the log does not know costs more. The
//! tag is resolved once, and the digest that was judged is the digest that is pinned.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;

use super::{Judged, Review, parts::Parts, settings::Class};
use crate::{
    evidence::EvidenceError,
    model::{
        Decision, Digest, Evidence, ImageRef, Outcome as SourceOutcome, Reason, Source, Verdict,
        judge::{Judgement, Question},
        object,
        policy::Mode,
        verdict::Code,
    },
    registry::RegistryError,
};

/// Where and for what an image is to run.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) environment: String,
    pub(super) service: Option<String>,
    /// Whether the answer can pin a tag: then what is judged is what will run, the pinned reference.
    pub(super) pins: bool,
}

impl Place {
    pub(super) fn of(review: &Review) -> Self {
        let namespace = review.namespace();
        Self {
            environment: review.environment(),
            service: object::service(&review.object),
            pins: review.phase.pins(),
            namespace,
        }
    }
}

/// What one reference came to.
#[derive(Debug, Clone)]
pub(super) struct Weighed {
    pub(super) digest: Option<Digest>,
    pub(super) verdict: Verdict,
    pub(super) mode: Mode,
    /// What policies in mode `audit` object to, beside stricter ones.
    pub(super) audited: Vec<Reason>,
    /// What was judged, if it came to that.
    pub(super) evidence: Option<Arc<Evidence>>,
}

/// Judges one reference within the deadline. Always answers.
pub(super) async fn weigh(
    parts: &Parts,
    place: &Place,
    image: &ImageRef,
    now: Timestamp,
    deadline: Instant,
) -> Weighed {
    let answer = tokio::time::timeout_at(deadline.into(), weigh_unhurried(parts, place, image, now, deadline)).await;
    answer.unwrap_or_else(|_elapsed| {
        let reason = Reason::new(
            Code::DeadlineExceeded,
            format!("the time allowed ran out while {image} was looked up"),
            "try again; if it stays so, see whether the registry answers, or raise timeoutSeconds of the webhook",
        );
        without_digest(parts, place, image, now, Decision::Unknown, reason)
    })
}

async fn weigh_unhurried(parts: &Parts, place: &Place, image: &ImageRef, now: Timestamp, deadline: Instant) -> Weighed {
    let digest = match image.digest {
        Some(digest) => digest,
        None => match (parts.resolve)(image.clone(), deadline).await {
            Ok(digest) => digest,
            Err(error) => {
                let (decision, reason) = unresolved(image, &error);
                return without_digest(parts, place, image, now, decision, reason);
            }
        },
    };
    match evidence(parts, place, image, digest, now, deadline).await {
        Ok((judgement, evidence)) => {
            let Judgement { verdict, mode, audited } = judgement;
            Weighed { digest: Some(digest), verdict, mode, audited, evidence: Some(Arc::new(evidence)) }
        }
        Err(error) => {
            tracing::error!(%image, %error, "evidence could not be read");
            let reason = Reason::new(
                Code::Other,
                format!("the evidence about {image} could not be read"),
                "the service's log has the cause",
            );
            let weighed = without_digest(parts, place, image, now, Decision::Unknown, reason);
            Weighed { digest: Some(digest), ..weighed }
        }
    }
}

/// Our log first; the registry only when the log alone does not settle it.
async fn evidence(
    parts: &Parts,
    place: &Place,
    image: &ImageRef,
    digest: Digest,
    now: Timestamp,
    deadline: Instant,
) -> Result<(Judgement, Evidence), EvidenceError> {
    let own = (parts.from_log)(digest, image.clone(), now).await?;
    let judgement = ask(parts, place, image, &own, now);
    let is_settled = judgement.verdict.decision == Decision::Allow
        || judgement.verdict.reasons.iter().any(|reason| reason.code == Code::ArtifactRevoked);
    if is_settled {
        return Ok((judgement, own));
    }
    let all = (parts.gather)(digest, image.clone(), now, deadline).await?;
    Ok((ask(parts, place, image, &all, now), all))
}

fn ask(parts: &Parts, place: &Place, image: &ImageRef, evidence: &Evidence, now: Timestamp) -> Judgement {
    let pinned = place.pins.then(|| image.pinned(evidence.digest));
    let question = Question {
        image: Some(pinned.as_ref().unwrap_or(image)),
        digest: evidence.digest,
        namespace: Some(&place.namespace),
        environment: Some(&place.environment),
        service: place.service.as_deref(),
        now,
    };
    (parts.judge)(&question, evidence)
}

/// What to say of an image that never got as far as evidence. The judge is still asked, with evidence that has a gap:
/// it knows the mode of the policies that speak about the image, and whether any speaks at all. Where none does and
/// that is an allow, the image is not ours to refuse.
fn without_digest(
    parts: &Parts,
    place: &Place,
    image: &ImageRef,
    now: Timestamp,
    decision: Decision,
    reason: Reason,
) -> Weighed {
    let mut evidence = Evidence::new(image.digest.unwrap_or(Digest::from_bytes([0; 32])));
    evidence.sources.push((Source::Registry, SourceOutcome::Unavailable(reason.message.clone())));
    let judgement = ask(parts, place, image, &evidence, now);
    let Judgement { verdict, mode, audited } = judgement;
    let is_nobodys = verdict.decision == Decision::Allow && verdict.policies.is_empty();
    let verdict = if is_nobodys {
        let mut verdict = verdict;
        verdict.warnings.push(reason);
        verdict
    } else {
        Verdict { decision, reasons: vec![reason], warnings: Vec::new(), policies: verdict.policies }
    };
    Weighed { digest: None, verdict, mode, audited, evidence: None }
}

fn unresolved(image: &ImageRef, error: &RegistryError) -> (Decision, Reason) {
    let host = &image.name.registry;
    let (decision, code, remedy) = match error {
        RegistryError::NotFound(_) => {
            (Decision::Deny, Code::ImageNotFound, "push the image first, or correct its name or tag".to_owned())
        }
        RegistryError::Deadline { .. } => (
            Decision::Unknown,
            Code::DeadlineExceeded,
            format!("try again, or pin the image by digest so that {host} need not be asked"),
        ),
        RegistryError::Unauthorized { .. } => {
            (Decision::Unknown, Code::RegistryUnavailable, format!("give the service credentials for {host}"))
        }
        RegistryError::Throttled { .. } | RegistryError::Unavailable { .. } | RegistryError::Malformed { .. } => (
            Decision::Unknown,
            Code::RegistryUnavailable,
            format!("try again when {host} answers, or pin the image by digest so that it need not be asked"),
        ),
    };
    (decision, Reason::new(code, error.to_string(), remedy))
}

/// A reference that is none: a definite no, whatever the policy.
pub(super) fn malformed(problem: &impl ToString) -> Weighed {
    let remedy = "write it as registry/repository:tag or registry/repository@sha256:…";
    let reason = Reason::new(Code::MalformedObject, problem.to_string(), remedy);
    let verdict =
        Verdict { decision: Decision::Deny, reasons: vec![reason], warnings: Vec::new(), policies: Vec::new() };
    Weighed { digest: None, verdict, mode: Mode::Enforce, audited: Vec::new(), evidence: None }
}

/// What kind of no a verdict is; `None` for a yes.
pub(super) fn class(verdict: &Verdict) -> Option<Class> {
    let is_absence = |reason: &Reason| {
        matches!(
            reason.code,
            Code::SignatureMissing | Code::PredicateMissing | Code::ProvenanceMissing | Code::LogInclusionMissing
        )
    };
    match verdict.decision {
        Decision::Allow => None,
        Decision::Unknown => Some(Class::CouldNotTell),
        Decision::Deny if !verdict.reasons.is_empty() && verdict.reasons.iter().all(is_absence) => {
            Some(Class::NoEvidence)
        }
        Decision::Deny => Some(Class::Denied),
    }
}

/// `CODE message` of the reasons of one image, with what to do.
pub(super) fn sentence(judged: &Judged) -> String {
    let reasons: Vec<String> = judged
        .verdict
        .reasons
        .iter()
        .map(|reason| match reason.remedy.as_str() {
            "" => format!("{} {}", reason.code, reason.message),
            remedy => format!("{} {} (to do: {remedy})", reason.code, reason.message),
        })
        .collect();
    format!("image {}: {}", judged.image, reasons.join("; "))
}
