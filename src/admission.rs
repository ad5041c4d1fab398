//! The cluster door: object -> images -> digests -> evidence -> judge -> verdict and patch (design §6).
//!
//! Not the judge, and not the face: what arrives is a typed [`Review`], what leaves is an [`Outcome`]; how a
//! Kubernetes API server or a shell says it is theirs. Nothing is written for a dry run. What always passes, whatever
//! the judge would say: deletions, scaling, status, an update that brings in no new image, exempt namespaces, kinds
//! without a pod template.

pub mod break_glass;
pub mod parts;
pub mod settings;
pub mod summary;

mod conclude;
mod record;
mod weigh;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use jiff::Timestamp;
use serde_json::Value;

use self::{
    break_glass::{Asked, Grants},
    record::Recorder,
    weigh::{Place, Weighed},
};
pub use self::{
    break_glass::{BreakGlass, Recorded},
    parts::Parts,
    record::{Counters, Recordings},
    settings::{BreakGlassSettings, Class, FailureMode, OnFailure, Settings},
    summary::Summary,
};
pub use crate::model::{
    manifest::Pin,
    object::{ImageUse, Kind, ObjectError},
    review::{Operation, Phase, Review, User},
};
use crate::{
    model::{Decision, Digest, Evidence, ImageRef, Reason, Verdict, object, policy::Mode},
    telemetry::Metrics,
};

/// The name of this door in metrics; the webhook and the call of the API are the same door.
const DOOR: &str = "cluster";

/// Images of one object that are looked up at the same time.
const CONCURRENT_IMAGES: usize = 8;

/// Why an object passed without a judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Passed {
    /// A deletion or a connection brings no image in.
    Operation,
    /// The subresource holds no image.
    Subresource,
    /// The kind has no pod template that we know; the pods that it makes are judged.
    OtherKind,
    /// The namespace is exempt by configuration.
    ExemptNamespace,
    /// A node shows a static pod, which runs already.
    MirrorPod,
    /// The object names no image.
    NoImages,
    /// Every image was there before.
    Unchanged,
}

impl Passed {
    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Subresource => "subresource",
            Self::OtherKind => "other-kind",
            Self::ExemptNamespace => "exempt-namespace",
            Self::MirrorPod => "mirror-pod",
            Self::NoImages => "no-images",
            Self::Unchanged => "unchanged",
        }
    }

    /// One sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Operation => "this operation brings no image in",
            Self::Subresource => "this subresource holds no image",
            Self::OtherKind => "not a kind with a pod template that we know; the pods that it makes are judged",
            Self::ExemptNamespace => "the namespace is exempt by configuration",
            Self::MirrorPod => "the mirror of a static pod, which runs already",
            Self::NoImages => "the object names no image",
            Self::Unchanged => "every image was there before",
        }
    }
}

/// What becomes of an object because of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Admitted by the judge.
    Admit,
    /// Not allowed; admitted all the same, with a warning.
    Warn,
    /// Not allowed; admitted all the same, and recorded only.
    Note,
    /// Refused.
    Refuse,
}

/// One distinct image, judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The image as it is written.
    pub image: String,
    /// Where it is written.
    pub uses: Vec<ImageUse>,
    /// Its digest, if it came to that.
    pub digest: Option<Digest>,
    /// The image with the digest that was judged, if it was not pinned before.
    pub pinned: Option<String>,
    /// What the judge says.
    pub verdict: Verdict,
    /// The mode that applies.
    pub mode: Mode,
    /// What kind of no it is; `None` for a yes.
    pub class: Option<Class>,
    /// What becomes of it.
    pub effect: Effect,
    /// What policies in mode `audit` object to, beside stricter ones; for the audit line alone.
    pub audited: Vec<Reason>,
    /// What was judged, if it came to that.
    pub evidence: Option<Arc<Evidence>>,
}

/// The answer about one object.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether the object is admitted: verdict, mode, failure mode and break-glass together.
    pub allowed: bool,
    /// What the judge says of all images together.
    pub decision: Decision,
    /// The strictest mode that applied.
    pub mode: Mode,
    /// The gravest kind of no among the images.
    pub class: Option<Class>,
    /// Why nothing was judged, if nothing was.
    pub passed: Option<Passed>,
    /// The broken glass that admitted the object, if one did.
    pub break_glass: Option<BreakGlass>,
    /// Each distinct image.
    pub images: Vec<Judged>,
    /// The tags to be pinned.
    pub patch: Vec<Pin>,
    /// What the user should see, one sentence each.
    pub warnings: Vec<String>,
    /// Why the object is refused; empty when it is not.
    pub message: String,
    /// For the audit trail of whoever asked.
    pub audit: BTreeMap<&'static str, String>,
}

/// The cluster door.
#[derive(Debug)]
pub struct Admission {
    parts: Parts,
    settings: Settings,
    metrics: Metrics,
    grants: Grants,
    recorder: Recorder,
}

impl Admission {
    /// Over the parts behind it; what is decided is counted in `metrics`.
    pub fn new(parts: Parts, settings: Settings, metrics: Metrics) -> Self {
        Self { parts, settings, metrics, grants: Grants::default(), recorder: Recorder::default() }
    }

    /// What was recorded, failed and was left out.
    pub fn recordings(&self) -> Recordings {
        self.recorder.recordings()
    }

    /// Waits until what was admitted so far is recorded; for draining.
    pub async fn settle(&self) {
        self.recorder.settle().await;
    }

    /// Answers one question within the deadline. Always answers.
    pub async fn review(&self, review: &Review, now: Timestamp, deadline: Instant) -> Outcome {
        let began = Instant::now();
        let outcome = self.decide(review, now, deadline).await;
        self.audit(review, &outcome);
        let (reason, effect) = (conclude::weightiest(&outcome), conclude::effect(&outcome));
        self.metrics.decided(DOOR, outcome.decision.as_str(), &reason, effect);
        self.metrics.took(DOOR, began.elapsed().as_secs_f64());
        if outcome.allowed && !review.dry_run && review.phase.records() {
            self.recorder.admitted(&self.parts, review, &outcome, now);
        }
        outcome
    }

    async fn decide(&self, review: &Review, now: Timestamp, deadline: Instant) -> Outcome {
        if let Some(passed) = self.passes(review) {
            return self.pass(passed);
        }
        let uses = match object::images(&review.kind, &review.object) {
            Ok(uses) if uses.is_empty() => return self.pass(Passed::NoImages),
            Ok(uses) => uses,
            Err(error) => return self.unreadable(&error),
        };
        let uses = if review.operation == Operation::Update { brought_in(review, uses) } else { uses };
        if uses.is_empty() {
            return self.pass(Passed::Unchanged);
        }
        let place = Place::of(review);
        let asked = break_glass::asked(review, &self.settings.break_glass);
        let images = self.weigh_all(&place, uses, now, break_glass::look_up_by(&asked, deadline)).await;
        let outcome = self.conclude(images, place.pins);
        if outcome.allowed { outcome } else { self.break_glass(outcome, review, asked, now, deadline).await }
    }

    fn passes(&self, review: &Review) -> Option<Passed> {
        let is_node = review.user.name.starts_with("system:node:")
            && review.user.groups.iter().any(|group| group == "system:nodes");
        if matches!(review.operation, Operation::Delete | Operation::Connect) {
            Some(Passed::Operation)
        } else if matches!(review.subresource.as_str(), "status" | "scale") {
            Some(Passed::Subresource)
        } else if review.kind.pod_spec().is_none() {
            Some(Passed::OtherKind)
        } else if self.settings.exempt_namespaces.contains(&review.namespace()) {
            Some(Passed::ExemptNamespace)
        } else if is_node && review.kind.is("", "Pod") && object::is_mirror(&review.object) {
            Some(Passed::MirrorPod)
        } else {
            None
        }
    }

    /// Each distinct reference once, however often and however differently spelled it is written.
    async fn weigh_all(&self, place: &Place, uses: Vec<ImageUse>, now: Timestamp, deadline: Instant) -> Vec<Judged> {
        let mut spelled: Vec<(String, Vec<ImageUse>)> = Vec::new();
        for one in uses {
            match spelled.iter_mut().find(|(image, _)| *image == one.image) {
                Some((_, uses)) => uses.push(one),
                None => spelled.push((one.image.clone(), vec![one])),
            }
        }
        let references: BTreeMap<String, Result<ImageRef, String>> = spelled
            .iter()
            .map(|(image, _)| {
                (image.clone(), image.parse().map_err(|error: crate::model::image::ImageRefError| error.to_string()))
            })
            .collect();
        let distinct: BTreeSet<&ImageRef> =
            references.values().filter_map(|reference| reference.as_ref().ok()).collect();
        let lookups: Vec<BoxFuture<'_, (ImageRef, Weighed)>> = distinct
            .into_iter()
            .map(|image| {
                weigh::weigh(&self.parts, place, image, now, deadline).map(|weighed| (image.clone(), weighed)).boxed()
            })
            .collect();
        let weighed: BTreeMap<ImageRef, Weighed> =
            stream::iter(lookups).buffer_unordered(CONCURRENT_IMAGES).collect().await;
        spelled
            .into_iter()
            .filter_map(|(image, uses)| {
                let found = match references.get(&image)? {
                    Ok(reference) => weighed.get(reference)?.clone(),
                    Err(problem) => weigh::malformed(problem),
                };
                Some(self.judged(image, uses, found))
            })
            .collect()
    }

    async fn break_glass(
        &self,
        outcome: Outcome,
        review: &Review,
        asked: Asked,
        now: Timestamp,
        deadline: Instant,
    ) -> Outcome {
        let namespace = review.namespace();
        let refused = || outcome.images.iter().filter(|image| image.effect == Effect::Refuse);
        let is_final = !review.dry_run && review.phase.records();
        let Asked::Yes(reason) = asked else {
            return match self.grants.cover_all(&namespace, refused(), now, |_grant| true) {
                Some(glass) => self.followed(outcome, glass, is_final),
                None => conclude::without_glass(outcome, &asked),
            };
        };
        let stands = |grant: &BreakGlass| {
            grant.user == review.user.name && grant.reason == reason && matches!(grant.recorded, Recorded::At(_))
        };
        if let Some(glass) = self.grants.cover_all(&namespace, refused(), now, stands) {
            return self.followed(outcome, glass, is_final);
        }
        let mut glass = BreakGlass {
            user: review.user.name.clone(),
            reason,
            images: refused().map(|image| (image.image.clone(), image.digest)).collect(),
            namespace,
            expires: now.checked_add(self.settings.break_glass.lasts()).unwrap_or(now),
            recorded: Recorded::NotYet,
        };
        if is_final {
            glass.recorded = self.record_glass(&glass, now, deadline).await;
            self.grants.add(&glass, now);
        }
        conclude::with_glass(outcome, glass)
    }

    /// Admitted by a glass that was broken before.
    fn followed(&self, outcome: Outcome, glass: BreakGlass, is_final: bool) -> Outcome {
        if is_final {
            self.metrics.glass("followed");
        }
        conclude::with_glass(outcome, glass)
    }

    /// The audit line first, then the log: the glass breaks even when the log is what is broken.
    async fn record_glass(&self, glass: &BreakGlass, now: Timestamp, deadline: Instant) -> Recorded {
        tracing::warn!(
            target: "audit",
            action = "break-glass",
            user = glass.user,
            reason = glass.reason,
            namespace = glass.namespace,
            images = ?glass.images,
            expires = %glass.expires,
            "the glass was broken"
        );
        match self.recorder.glass(&self.parts, glass, now, deadline).await {
            Ok(entry) => {
                self.metrics.glass("recorded");
                tracing::info!(target: "audit", action = "break-glass", user = glass.user, %entry, "recorded");
                Recorded::At(entry)
            }
            Err(problem) => {
                self.metrics.glass("not-recorded");
                tracing::error!(
                    target: "audit",
                    action = "break-glass",
                    user = glass.user,
                    problem,
                    "the broken glass is NOT in the log; the object is admitted all the same"
                );
                Recorded::Failed(problem)
            }
        }
    }

    fn audit(&self, review: &Review, outcome: &Outcome) {
        let images: Vec<String> = outcome.images.iter().map(conclude::audit_image).collect();
        let audited: Vec<String> = outcome.images.iter().flat_map(conclude::audited).collect();
        tracing::info!(
            target: "audit",
            action = "admission",
            uid = review.uid,
            phase = ?review.phase,
            operation = ?review.operation,
            kind = %review.kind,
            namespace = review.namespace(),
            name = object_name(&review.object),
            user = review.user.name,
            dry_run = review.dry_run,
            allowed = outcome.allowed,
            decision = %outcome.decision,
            class = outcome.class.map(Class::as_str),
            passed = outcome.passed.map(Passed::sentence),
            break_glass = outcome.break_glass.is_some(),
            images = ?images,
            audited = (!audited.is_empty()).then(|| format!("{audited:?}")),
            policy = %self.parts.policy,
            "admission"
        );
    }
}

/// The images that an update must answer for: none, if it brings in none that the object did not have. Of a pod, which
/// runs already, those that are new (a debugger must get in beside an image that was revoked since); of a template,
/// all, as all of them will start again.
fn brought_in(review: &Review, uses: Vec<ImageUse>) -> Vec<ImageUse> {
    let before = object::images(&review.kind, &review.old_object).unwrap_or_default();
    let before: BTreeSet<&str> = before.iter().map(|one| one.image.as_str()).collect();
    let is_new = |one: &ImageUse| !before.contains(one.image.as_str());
    let is_running = review.kind.is("", "Pod");
    if uses.iter().any(is_new) {
        uses.into_iter().filter(|one| !is_running || is_new(one)).collect()
    } else {
        Vec::new()
    }
}

/// `registry/repository` of an image as it is written; empty when it is no reference. The name of a subject in our own
/// records: what is signed *under a tag* is found by the tag, and must not be buried under them.
fn without_tag(image: &str) -> String {
    image.parse().map(|image: ImageRef| image.name.to_string()).unwrap_or_default()
}

fn object_name(object: &Value) -> &str {
    let field = |name| object.pointer(name).and_then(Value::as_str);
    field("/metadata/name").or_else(|| field("/metadata/generateName")).unwrap_or_default()
}
