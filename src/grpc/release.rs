//! `ReleaseService`: deployments, health, approvals and revocations.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    convert, signing, status,
    v1::{self, release_service_server::ReleaseService},
};
use crate::{
    model::{
        Caller, Identity, ImageRef, LogRef, Revocation, Role,
        deployment::{self, Approval, Deployment, Health, Revision, Workload, WorkloadKind, check_name},
        limits,
        revocation::Target,
    },
    release::{Blast, Release, ReleaseError},
};

const READERS: [Role; 4] = [Role::Deployer, Role::Approver, Role::Operator, Role::Auditor];

/// The face.
#[derive(Debug, Clone)]
pub struct ReleaseFace {
    release: Arc<Release>,
    clock: fn() -> Timestamp,
}

impl ReleaseFace {
    /// A face over the service.
    pub fn new(release: Arc<Release>, clock: fn() -> Timestamp) -> Self {
        Self { release, clock }
    }
}

#[tonic::async_trait]
impl ReleaseService for ReleaseFace {
    async fn record_deployment(
        &self,
        request: Request<v1::RecordDeploymentRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        let caller = authorize(&request, &[Role::Deployer])?;
        let deployment = deployment_of(request.into_inner(), &caller)?;
        let entry =
            self.release.record_deployment(&deployment, &caller, (self.clock)()).await.map_err(|e| failed(&e))?;
        Ok(recorded(entry))
    }

    async fn record_health(
        &self,
        request: Request<v1::RecordHealthRequest>,
    ) -> Result<Response<v1::RecordResponse>, Status> {
        let caller = authorize(&request, &[Role::Deployer])?;
        let request = request.into_inner();
        place(&request.service, &request.environment)?;
        text("detail", &request.detail)?;
        let health = Health {
            digest: convert::digest("digest", &request.digest)?,
            service: request.service,
            environment: request.environment,
            healthy: request.healthy,
            detail: request.detail,
            by: caller.identity.to_string(),
        };
        let entry = self.release.record_health(&health, &caller, (self.clock)()).await.map_err(|e| failed(&e))?;
        Ok(recorded(entry))
    }

    async fn approve(&self, request: Request<v1::ApproveRequest>) -> Result<Response<v1::RecordResponse>, Status> {
        let caller = authorize(&request, &[Role::Approver])?;
        let (request, now) = (request.into_inner(), (self.clock)());
        place(&request.service, &request.environment)?;
        text("comment", &request.comment)?;
        let expires = time("expires", &request.expires)?;
        if expires.is_some_and(|expires| expires <= now) {
            return Err(status::invalid("expires", &"must lie in the future"));
        }
        let approval = Approval {
            digest: convert::digest("digest", &request.digest)?,
            service: request.service,
            environment: request.environment,
            comment: request.comment,
            expires,
            by: caller.identity.to_string(),
        };
        let entry = self.release.approve(&approval, &caller, now).await.map_err(|e| failed(&e))?;
        Ok(recorded(entry))
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let caller = authorize(&request, &[Role::Operator])?;
        let (request, now) = (request.into_inner(), (self.clock)());
        let dry_run = request.dry_run;
        let revocation = revocation_of(request, now)?;
        let blast = self.release.blast(&revocation.target, revocation.since, now).await.map_err(|e| failed(&e));
        if dry_run {
            return Ok(Response::new(revoked(blast?, None)));
        }
        let entry = self.release.revoke(&revocation, &caller, now).await.map_err(|e| failed(&e))?;
        Ok(Response::new(revoked(blast.unwrap_or_default(), Some(entry))))
    }

    async fn list_deployments(
        &self,
        request: Request<v1::ListDeploymentsRequest>,
    ) -> Result<Response<v1::ListDeploymentsResponse>, Status> {
        authorize(&request, &READERS)?;
        let request = request.into_inner();
        place(&request.service, &request.environment)?;
        let history = self.release.history(&request.service, &request.environment).await.map_err(|e| failed(&e))?;
        Ok(Response::new(v1::ListDeploymentsResponse {
            revisions: history.revisions.iter().take(limits::LISTING).cloned().map(Into::into).collect(),
            running: history.running.map(|digest| digest.to_string()).unwrap_or_default(),
        }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        authorize(&request, &READERS)?;
        let services = self.release.services().await.map_err(|e| failed(&e))?;
        let services = services
            .into_iter()
            .map(|(service, environment)| v1::ServiceEnvironment { service, environment })
            .collect();
        Ok(Response::new(v1::ListServicesResponse { services }))
    }

    async fn list_revocations(
        &self,
        request: Request<v1::ListRevocationsRequest>,
    ) -> Result<Response<v1::ListRevocationsResponse>, Status> {
        authorize(&request, &[Role::Verifier, Role::Operator, Role::Auditor])?;
        let known = self.release.revocations();
        let revocations: Vec<_> =
            known.iter().take(limits::LISTING).map(|(one, at)| revocation_record(one, at)).collect();
        let truncated = known.iter().nth(limits::LISTING).is_some();
        Ok(Response::new(v1::ListRevocationsResponse { revocations, truncated }))
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn deployment_of(request: v1::RecordDeploymentRequest, caller: &Caller) -> Result<Deployment, Status> {
    place(&request.service, &request.environment)?;
    let image: ImageRef = request.image.parse().map_err(|source| status::invalid("image", &source))?;
    let digest = convert::digest("digest", &request.digest)?;
    if image.digest.is_some_and(|pinned| pinned != digest) {
        return Err(status::invalid("image", &"is pinned to another digest than the field digest says"));
    }
    let status = match request.status.as_str() {
        "" => deployment::Status::Live,
        text => text.parse().map_err(|source| status::invalid("status", &source))?,
    };
    Ok(Deployment {
        service: request.service,
        environment: request.environment,
        digest,
        image: request.image,
        status,
        version: optional_name("version", request.version)?,
        region: optional_name("region", request.region)?,
        workload: request.workload.map(workload).transpose()?,
        by: caller.identity.to_string(),
    })
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn workload(wire: v1::Workload) -> Result<Workload, Status> {
    let kind = wire.kind.parse::<WorkloadKind>().map_err(|source| status::invalid("workload.kind", &source))?;
    Workload::new(&wire.namespace, kind, &wire.name, &wire.container)
        .map_err(|(field, source)| status::invalid(&format!("workload.{field}"), &source))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn revocation_of(request: v1::RevokeRequest, now: Timestamp) -> Result<Revocation, Status> {
    use v1::revoke_request::Target as Wire;
    let target = match request.target {
        Some(Wire::Artifact(digest)) => Target::Artifact { digest: convert::digest("artifact", &digest)? },
        Some(Wire::Key(key)) => Target::Key { key: convert::digest("key", &key)? },
        Some(Wire::Identity(v1::SigningIdentity { subject, issuer })) => {
            for (field, value) in [("identity.subject", &subject), ("identity.issuer", &issuer)] {
                if value.is_empty() || value.len() > limits::URI || value.chars().any(char::is_control) {
                    let problem = format!("must have 1 to {} characters, none of them control characters", limits::URI);
                    return Err(status::invalid(field, &problem));
                }
            }
            Target::Identity { identity: Identity { subject, issuer } }
        }
        None => return Err(status::invalid("target", &"name an artifact, a key or an identity")),
    };
    let since = time("since", &request.since)?.unwrap_or(now);
    if since.duration_since(now) > SignedDuration::from_secs(limits::FUTURE_SECONDS) {
        return Err(status::invalid("since", &"must not lie more than an hour in the future"));
    }
    text("reason", &request.reason)?;
    if request.reason.trim().is_empty() {
        return Err(status::invalid("reason", &"say why; it is shown wherever the revocation counts"));
    }
    Ok(Revocation { target, since, reason: request.reason })
}

/// Checks the names of a service and an environment.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn place(service: &str, environment: &str) -> Result<(), Status> {
    check_name(service).map_err(|source| status::invalid("service", &source))?;
    check_name(environment).map_err(|source| status::invalid("environment", &source))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn optional_name(field: &str, name: String) -> Result<Option<String>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    check_name(&name).map_err(|source| status::invalid(field, &source))?;
    Ok(Some(name))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn text(field: &str, text: &str) -> Result<(), Status> {
    if text.len() > limits::TEXT {
        return Err(status::invalid(field, &format!("has {} bytes; the limit is {}", text.len(), limits::TEXT)));
    }
    if text.chars().any(|c| (c.is_control() && c != '\n' && c != '\t') || is_direction(c)) {
        return Err(status::invalid(field, &"holds control characters; write plain text"));
    }
    Ok(())
}

/// Characters that turn the direction of writing, and so can show another text than is there.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn time(field: &str, text: &str) -> Result<Option<Timestamp>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let time = text.parse().map_err(|_source: jiff::Error| {
        status::invalid(field, &"must be an RFC 3339 time, as in 2026-01-31T12:00:00Z")
    })?;
    Ok(Some(time))
}

/// What a failed call becomes.
pub(crate) fn failed(error: &ReleaseError) -> Status {
    match error {
        ReleaseError::Statement(source) => status::invalid("record", source),
        ReleaseError::Signing(error) => signing::refusal(error),
        other => status::internal(other),
    }
}

fn recorded(entry: LogRef) -> Response<v1::RecordResponse> {
    Response::new(v1::RecordResponse { entry: Some(entry.into()) })
}

fn revoked(blast: Blast, entry: Option<LogRef>) -> v1::RevokeResponse {
    let hits = blast.hits.into_iter().map(|hit| v1::RevocationHit {
        service: hit.service,
        environment: hit.environment,
        digest: hit.digest.to_string(),
        running: hit.running,
    });
    v1::RevokeResponse { entry: entry.map(Into::into), hits: hits.collect(), truncated: blast.truncated }
}

fn revocation_record(revocation: &Revocation, at: &LogRef) -> v1::RevocationRecord {
    let (kind, target) = match &revocation.target {
        Target::Artifact { digest } => ("artifact", digest.to_string()),
        Target::Key { key } => ("key", key.to_string()),
        Target::Identity { identity } => ("identity", identity.to_string()),
    };
    v1::RevocationRecord {
        kind: kind.to_owned(),
        target,
        since: revocation.since.to_string(),
        reason: revocation.reason.clone(),
        entry: Some(at.clone().into()),
    }
}

impl From<Revision> for v1::Revision {
    fn from(revision: Revision) -> Self {
        let (health, health_detail) = match revision.health {
            Some(report) if report.healthy => ("healthy", report.detail),
            Some(report) => ("unhealthy", report.detail),
            None => ("unknown", String::new()),
        };
        Self {
            digest: revision.digest.to_string(),
            image: revision.image,
            version: revision.version.unwrap_or_default(),
            region: revision.region.unwrap_or_default(),
            by: revision.by,
            status: revision.status.to_string(),
            status_since: revision.status_since.to_string(),
            live_since: revision.live_since.map(|time| time.to_string()).unwrap_or_default(),
            health: health.to_owned(),
            health_detail,
            entry: Some(revision.at.into()),
            workloads: revision.workloads.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Workload> for v1::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            namespace: workload.namespace().to_owned(),
            kind: workload.kind().to_string(),
            name: workload.name().to_owned(),
            container: workload.container().to_owned(),
        }
    }
}
