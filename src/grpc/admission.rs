//! `AdmissionService`: the cluster door for a shell or a pipeline. Every question is a dry run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tonic::{Request, Response, Status};

use super::{
    auth::authorize,
    status,
    v1::{self, admission_service_server::AdmissionService},
};
use crate::{
    admission::{Admission, Judged, Kind, Operation, Outcome, Phase, Review, User},
    model::{Decision, Role, limits, manifest, policy::Mode},
};

/// The time for one answer about all objects of a manifest.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The face.
#[derive(Debug)]
pub struct Face {
    admission: Arc<Admission>,
    clock: fn() -> Timestamp,
}

impl Face {
    /// Over the cluster door, with the time from `clock`.
    pub fn new(admission: Arc<Admission>, clock: fn() -> Timestamp) -> Self {
        Self { admission, clock }
    }
}

#[tonic::async_trait]
impl AdmissionService for Face {
    async fn admit(&self, request: Request<v1::AdmitRequest>) -> Result<Response<v1::AdmitResponse>, Status> {
        let caller = authorize(&request, &[Role::Verifier, Role::Deployer, Role::Operator])?;
        let asked = checked(request.into_inner())?;
        let objects = manifest::parse(&asked.manifest).map_err(|source| status::invalid("manifest", &source))?;
        tracing::info!(target: "audit", action = "admit", caller = %caller.identity, objects = objects.len(), "asked");
        let (now, deadline) = ((self.clock)(), Instant::now() + TIMEOUT);
        let mut answer = v1::AdmitResponse { allowed: true, ..v1::AdmitResponse::default() };
        let mut decision = Decision::Allow;
        for object in objects {
            let review = review(&asked, object);
            let outcome = self.admission.review(&review, now, deadline).await;
            decision = decision.and(outcome.decision);
            answer.allowed &= outcome.allowed;
            answer.objects.push(described(&review, outcome));
        }
        answer.decision = v1::Decision::from(decision).into();
        Ok(Response::new(answer))
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn checked(request: v1::AdmitRequest) -> Result<v1::AdmitRequest, Status> {
    let texts = [("namespace", &request.namespace), ("environment", &request.environment), ("user", &request.user)];
    for (field, text) in texts.into_iter().chain(request.groups.iter().map(|group| ("groups", group))) {
        if text.len() > limits::NAME {
            return Err(status::invalid(field, &format!("longer than {} characters", limits::NAME)));
        }
    }
    if request.groups.len() > limits::SUBJECTS {
        return Err(status::invalid("groups", &format!("more than {}", limits::SUBJECTS)));
    }
    Ok(request)
}

/// What a `kubectl create` of the object would ask.
fn review(asked: &v1::AdmitRequest, object: Value) -> Review {
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).filter(|own| !own.is_empty());
    Review {
        uid: String::new(),
        phase: Phase::Both,
        operation: Operation::Create,
        kind: Kind::of(&object).unwrap_or(Kind { group: String::new(), kind: String::new() }),
        subresource: String::new(),
        namespace: Some(own.unwrap_or(&asked.namespace).to_owned()),
        environment: Some(asked.environment.clone()),
        user: User { name: asked.user.clone(), groups: asked.groups.clone() },
        old_object: Value::Null,
        dry_run: true,
        object,
    }
}

fn described(review: &Review, outcome: Outcome) -> v1::AdmittedObject {
    let text = |pointer| review.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = [text("/metadata/name"), text("/metadata/generateName")].into_iter().find(|name| !name.is_empty());
    let pin = |pin: crate::admission::Pin| v1::ImagePin { pointer: pin.pointer, image: pin.image };
    v1::AdmittedObject {
        api_version: text("/apiVersion"),
        kind: text("/kind"),
        namespace: review.namespace(),
        name: name.unwrap_or_default(),
        decision: v1::Decision::from(outcome.decision).into(),
        allowed: outcome.allowed,
        mode: mode(outcome.mode).to_owned(),
        outcome: outcome.class.map(|class| class.as_str().to_owned()).unwrap_or_default(),
        passed: outcome.passed.map(|passed| passed.sentence().to_owned()).unwrap_or_default(),
        images: outcome.images.into_iter().map(image).collect(),
        pins: outcome.patch.into_iter().map(pin).collect(),
        warnings: outcome.warnings,
        message: outcome.message,
    }
}

fn image(judged: Judged) -> v1::AdmittedImage {
    v1::AdmittedImage {
        image: judged.image,
        pointers: judged.uses.into_iter().map(|one| one.pointer).collect(),
        digest: judged.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        verdict: Some(judged.verdict.into()),
        mode: mode(judged.mode).to_owned(),
    }
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Warn => "warn",
        Mode::Audit => "audit",
    }
}
