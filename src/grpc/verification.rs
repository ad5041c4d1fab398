//! `VerificationService`: what is known of a digest, and whether it is enough.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{auth, convert, status, v1};
use crate::{
    evidence::{EvidenceService, Roots},
    model::{
        Decision, Digest, Evidence, ImageRef, Outcome, Reason, Role, Signer, Source, Verdict, Verified,
        evidence::Rejected,
        judge::{Question, judge},
        limits,
        policy::{PolicySet, SignerRule, Text, Who, type_of_alias},
        predicate,
        verdict::Code,
        verify,
    },
    registry::{Registry, RegistryError},
    release::Release,
    telemetry::Metrics,
};

/// How long one call may take.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The face of `VerificationService`.
#[derive(Debug, Clone)]
pub struct VerificationFace {
    /// Gathers what is known.
    pub evidence: Arc<EvidenceService>,
    /// Resolves tags.
    pub registry: Registry,
    /// The policies in force.
    pub policies: Arc<PolicySet>,
    /// Knows what was revoked.
    pub release: Arc<Release>,
    /// Whom bundles that callers hand in are verified against; one of them suffices.
    pub roots: Roots,
    /// Where decisions are counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// What is to be verified.
struct Subject {
    digest: Digest,
    image: Option<ImageRef>,
}

#[tonic::async_trait]
impl v1::verification_service_server::VerificationService for VerificationFace {
    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Result<Response<v1::VerifyResponse>, Status> {
        let roles = [Role::Verifier, Role::Builder, Role::Deployer, Role::Operator, Role::Auditor];
        let caller = auth::authorize(&request, &roles)?;
        let request = request.into_inner();
        let now = (self.clock)();
        let deadline = Instant::now() + TIME_LIMIT;
        let Some(check) = request.check else {
            return Err(status::invalid("check", &"give policy, or identity"));
        };
        let given = match &check {
            v1::verify_request::Check::Identity(identity) => Some(given_signer(identity)?),
            v1::verify_request::Check::Policy(_) => None,
        };
        let subject = match self.subject(&request.subject, deadline).await? {
            Ok(subject) => subject,
            Err(verdict) => return Ok(Response::new(unresolved(verdict))),
        };
        let evidence = if request.bundle.is_empty() {
            self.gather(&subject, now, deadline).await?
        } else {
            self.given(&subject.digest, request.bundle.to_vec(), now).await?
        };
        let stated = match &check {
            v1::verify_request::Check::Policy(stated) => stated.clone(),
            v1::verify_request::Check::Identity(_) => v1::PolicyCheck::default(),
        };
        let question = Question {
            image: subject.image.as_ref(),
            digest: subject.digest,
            namespace: stated_text("policy.namespace", &stated.namespace)?,
            environment: stated_text("policy.environment", &stated.environment)?,
            service: stated_text("policy.service", &stated.service)?,
            now,
        };
        let policies = given.as_ref().unwrap_or(&self.policies);
        let judgement = judge(policies, &question, &evidence, &self.release.revocations());
        let weightiest = judgement.verdict.reasons.first().map_or(Code::Other, |reason| reason.code);
        self.metrics.decided("verify", judgement.verdict.decision.as_str(), &weightiest.to_string(), "answer");
        tracing::info!(
            target: "audit",
            action = "verify",
            caller = %caller.identity,
            digest = %subject.digest,
            decision = %judgement.verdict.decision,
            mode = ?judgement.mode,
            "verified"
        );
        Ok(Response::new(response(&evidence, judgement.verdict)))
    }
}

impl VerificationFace {
    /// The digest that is meant, or the verdict when the registry does not say.
    async fn subject(&self, text: &str, deadline: Instant) -> Result<Result<Subject, Verdict>, Status> {
        if text.len() > limits::NAME {
            return Err(status::invalid("subject", &format!("is longer than {} characters", limits::NAME)));
        }
        if text.starts_with("sha256:") {
            return Ok(Ok(Subject { digest: convert::digest("subject", text)?, image: None }));
        }
        let image: ImageRef = text.parse().map_err(|source| status::invalid("subject", &source))?;
        Ok(match self.registry.resolve(&image, deadline).await {
            Ok(digest) => Ok(Subject { digest, image: Some(image) }),
            Err(error) => Err(without_digest(&image, &error)),
        })
    }

    async fn gather(&self, subject: &Subject, now: Timestamp, deadline: Instant) -> Result<Evidence, Status> {
        let gathered = match &subject.image {
            Some(image) => self.evidence.gather(&subject.digest, Some(image), now, deadline).await,
            None => self.evidence.from_log(&subject.digest, None, now).await,
        };
        gathered.map_err(|error| status::internal(&error))
    }

    /// Evidence from a bundle that the caller handed in, and from nothing else.
    async fn given(&self, digest: &Digest, bundle: Vec<u8>, now: Timestamp) -> Result<Evidence, Status> {
        if bundle.len() > limits::BUNDLE {
            return Err(status::invalid("bundle", &format!("is larger than {} bytes", limits::BUNDLE)));
        }
        let (roots, digest) = (self.roots.all(), *digest);
        let proven = tokio::task::spawn_blocking(move || {
            let mut evidence = Evidence::new(digest);
            evidence.sources.push((Source::Given, Outcome::Complete(now)));
            let mut last = None;
            for root in &roots {
                match verify::verify(&bundle, &digest, root) {
                    Ok(verified) => {
                        evidence.statements.push(Arc::new(verified));
                        return evidence;
                    }
                    Err(rejection) => last = Some(rejection),
                }
            }
            evidence.rejected.extend(last.map(|reason| Rejected {
                source: Source::Given,
                bundle: Digest::of(&bundle),
                reason,
            }));
            evidence
        });
        proven.await.map_err(|error| status::internal(&error))
    }
}

/// A policy that wants exactly the signer of the request.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn given_signer(check: &v1::IdentityCheck) -> Result<PolicySet, Status> {
    let text = |field: &str, exact: &str, pattern: &str| {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Text::of(field, given(exact).as_deref(), given(pattern).as_deref())
            .and_then(|text| text.ok_or_else(|| format!("give {field}, or {field}_regexp")))
            .map_err(|problem| status::invalid(&format!("identity.{field}"), &problem))
    };
    let subject = text("subject", &check.subject, &check.subject_regexp)?;
    let issuer = text("issuer", &check.issuer, &check.issuer_regexp)?;
    let kind = match check.predicate_type.as_str() {
        "" => predicate::SIGN,
        other if other.len() > limits::URI => return Err(status::invalid("identity.predicate_type", &"is too long")),
        other => type_of_alias(other),
    };
    let signer = SignerRule { name: "the given identity".to_owned(), who: Who::Identity { issuer, subject } };
    Ok(PolicySet::of_signer(signer, vec![kind.to_owned()]))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn stated_text<'a>(field: &str, text: &'a str) -> Result<Option<&'a str>, Status> {
    if text.len() > limits::NAME {
        return Err(status::invalid(field, &format!("is longer than {} characters", limits::NAME)));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// What is said when a reference does not lead to a digest.
fn without_digest(image: &ImageRef, error: &RegistryError) -> Verdict {
    let (decision, code, remedy) = if error.is_definite() {
        (Decision::Deny, Code::ImageNotFound, "check the reference, and push the image")
    } else {
        (Decision::Unknown, Code::RegistryUnavailable, "ask again when the registry answers, or name a digest")
    };
    let reason = Reason::new(code, format!("{image} could not be resolved: {error}"), remedy);
    Verdict { decision, reasons: vec![reason], warnings: Vec::new(), policies: Vec::new() }
}

fn unresolved(verdict: Verdict) -> v1::VerifyResponse {
    v1::VerifyResponse { verdict: Some(verdict.into()), ..v1::VerifyResponse::default() }
}

fn response(evidence: &Evidence, verdict: Verdict) -> v1::VerifyResponse {
    v1::VerifyResponse {
        digest: evidence.digest.to_string(),
        verdict: Some(verdict.into()),
        statements: evidence.statements.iter().take(limits::BATCH).map(|one| proven(one)).collect(),
        incomplete: evidence.gap().map(|(_, why)| why.to_owned()).unwrap_or_default(),
    }
}

fn proven(one: &Verified) -> v1::ProvenStatement {
    let (subject, issuer) = match one.signer() {
        Signer::Identity(identity) => (identity.subject.clone(), identity.issuer.clone()),
        Signer::Key(_) => (String::new(), String::new()),
    };
    v1::ProvenStatement {
        predicate_type: one.statement().predicate_type().to_owned(),
        subject,
        issuer,
        key: one.key().to_string(),
        entry: one.log().cloned().map(Into::into),
        signed_at: one.signed_at().map(|at| at.to_string()).unwrap_or_default(),
        bundle: one.bundle().to_string(),
        trusted_root: one.root().to_string(),
    }
}
