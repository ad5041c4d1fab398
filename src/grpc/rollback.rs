//! `RollbackService`: is it safe to go back?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    convert,
    release::{failed, place},
    status,
    v1::{self, rollback_service_server::RollbackService},
};
use crate::{
    model::{
        Decision, Role,
        readiness::{Alternative, Check, Class, Freshness, Safety, Severity, Short},
        verdict::Code,
    },
    rollback::{Answer, Question, Rollback},
    telemetry::Metrics,
};

const ASKERS: [Role; 3] = [Role::Operator, Role::Deployer, Role::Auditor];
/// The longest time that a caller may ask for.
const TIMEOUT_MOST: Duration = Duration::from_secs(10);

/// The face.
#[derive(Debug, Clone)]
pub struct RollbackFace {
    rollback: Arc<Rollback>,
    metrics: Metrics,
    clock: fn() -> Timestamp,
}

impl RollbackFace {
    /// A face over the service; what it answers is counted in `metrics`.
    pub fn new(rollback: Arc<Rollback>, metrics: Metrics, clock: fn() -> Timestamp) -> Self {
        Self { rollback, metrics, clock }
    }
}

#[tonic::async_trait]
impl RollbackService for RollbackFace {
    async fn check_rollback(
        &self,
        request: Request<v1::CheckRollbackRequest>,
    ) -> Result<Response<v1::CheckRollbackResponse>, Status> {
        let caller = authorize(&request, &ASKERS)?;
        let request = request.into_inner();
        place(&request.service, &request.environment)?;
        let target = match request.target.as_str() {
            "" => None,
            text => Some(convert::digest("target", text)?),
        };
        let timeout = match request.timeout_ms {
            0 => self.rollback.timeout(),
            wanted => Duration::from_millis(wanted.into()).min(TIMEOUT_MOST),
        };
        let question = Question {
            service: request.service,
            environment: request.environment,
            target,
            fresh: request.fresh,
            record: !request.dry_run && caller.may(&[Role::Operator, Role::Deployer]),
        };
        let began = Instant::now();
        let check = self.rollback.check(&question, (self.clock)(), began + timeout);
        let answer = Box::pin(check).await.map_err(|error| failed(&error))?;
        let (decision, reason) = weightiest(&answer);
        self.metrics.decided("operator", decision.as_str(), &reason.to_string(), "answer");
        self.metrics.took("operator", began.elapsed().as_secs_f64());
        Ok(Response::new(response(answer)?))
    }

    async fn list_rollback_targets(
        &self,
        request: Request<v1::ListRollbackTargetsRequest>,
    ) -> Result<Response<v1::ListRollbackTargetsResponse>, Status> {
        authorize(&request, &ASKERS)?;
        let request = request.into_inner();
        place(&request.service, &request.environment)?;
        let targets = self.rollback.targets(&request.service, &request.environment, (self.clock)());
        let targets = Box::pin(targets).await.map_err(|error| failed(&error))?;
        let targets = targets
            .into_iter()
            .map(|candidate| v1::RollbackTarget {
                revision: Some(candidate.revision.into()),
                obstacles: candidate.obstacles.into_iter().map(Into::into).collect(),
            })
            .collect();
        Ok(Response::new(v1::ListRollbackTargetsResponse { targets }))
    }
}

/// What was answered, and the first thing that stands in the way of a yes.
fn weightiest(answer: &Answer) -> (Decision, Code) {
    let decision = match answer.readiness.verdict {
        Safety::Safe | Safety::SafeWithWarnings => Decision::Allow,
        Safety::Unsafe => Decision::Deny,
        Safety::Unknown => Decision::Unknown,
    };
    let stands = |check: &&Check| match decision {
        Decision::Unknown => check.class == Class::CouldNotRun,
        Decision::Allow | Decision::Deny => check.severity == Severity::Blocker,
    };
    let against = answer.readiness.checks.iter().find(stands);
    (decision, against.map_or(Code::Satisfied, |check| check.code))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn response(answer: Answer) -> Result<v1::CheckRollbackResponse, Status> {
    let json = serde_json::to_vec(&answer.readiness).map_err(|source| status::internal(&source))?;
    let readiness = answer.readiness;
    let digest = |short: Option<Short>| short.map(|short| short.digest.to_string()).unwrap_or_default();
    Ok(v1::CheckRollbackResponse {
        safety: v1::Safety::from(readiness.verdict).into(),
        sentence: readiness.sentence,
        from: digest(readiness.from),
        to: digest(readiness.to),
        checks: readiness.checks.into_iter().map(Into::into).collect(),
        recommended: digest(readiness.recommended),
        alternatives: readiness.alternatives.into_iter().map(Into::into).collect(),
        command: readiness.command.unwrap_or_default(),
        recorded: answer.recorded.into_iter().map(Into::into).collect(),
        readiness: json.into(),
        image: readiness.image.unwrap_or_default(),
        freshness: readiness.freshness.into_iter().map(Into::into).collect(),
    })
}

impl From<Freshness> for v1::Freshness {
    fn from(freshness: Freshness) -> Self {
        Self { fact: freshness.fact, as_of: freshness.as_of.to_string(), age_seconds: freshness.age_seconds }
    }
}

impl From<Safety> for v1::Safety {
    fn from(safety: Safety) -> Self {
        match safety {
            Safety::Safe => Self::Safe,
            Safety::SafeWithWarnings => Self::SafeWithWarnings,
            Safety::Unsafe => Self::Unsafe,
            Safety::Unknown => Self::Unknown,
        }
    }
}

impl From<Check> for v1::RollbackCheck {
    fn from(check: Check) -> Self {
        Self {
            code: check.code.to_string(),
            check_class: check.class.as_str().to_owned(),
            severity: check.severity.as_str().to_owned(),
            message: check.message,
            evidence: check.evidence.into_iter().map(Into::into).collect(),
            remedy: check.remedy,
            override_role: check.override_role.map(|role| role.to_string()).unwrap_or_default(),
        }
    }
}

impl From<Alternative> for v1::RollbackAlternative {
    fn from(alternative: Alternative) -> Self {
        Self {
            digest: alternative.revision.digest.to_string(),
            version: alternative.revision.version.unwrap_or_default(),
            safety: v1::Safety::from(alternative.verdict).into(),
            sentence: alternative.sentence,
        }
    }
}
