//! Facts about one target: from the log first, the registry where that is needed, and a cache with ages between.

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};

use super::Frame;
use crate::{
    evidence::EvidenceService,
    model::{
        Decision, Digest, Evidence, ImageName, ImageRef,
        deployment::Revision,
        limits,
        readiness::{Availability, Fact, Judged, TargetFacts},
        verdict::Code,
    },
    registry::{Registry, RegistryError},
};

/// Answers of registries remembered, as a count.
const PROBES: u64 = 10_000;
const REMEDY: &str = "ask again, or give it more time with --timeout-ms; if the nodes still hold the image, it may start \
                      without the registry";

/// How the registry is to be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// An answer younger than this is not asked for again; `None`: always ask.
    pub within: Option<SignedDuration>,
    /// No later than then.
    pub until: Instant,
}

/// Collects facts.
#[derive(Debug)]
pub(super) struct Collector {
    evidence: Arc<EvidenceService>,
    registry: Registry,
    /// What the registry said, and when. A failure to ask is never kept.
    probes: moka::future::Cache<(ImageName, Digest), (Availability, Timestamp)>,
}

impl Collector {
    pub(super) fn new(evidence: Arc<EvidenceService>, registry: Registry) -> Self {
        Self { evidence, registry, probes: moka::future::Cache::new(PROBES) }
    }

    /// Everything, the registry included.
    pub(super) async fn collect(
        &self,
        frame: &Frame,
        digest: Digest,
        revision: Option<Revision>,
        asking: Asking,
    ) -> TargetFacts {
        let image = image_of(revision.as_ref(), digest);
        let (availability, evidence) = tokio::join!(
            self.availability(image.as_ref(), digest, frame.now, asking),
            self.evidence(frame, digest, revision.as_ref(), image.as_ref(), asking.until),
        );
        facts(frame, digest, image.as_ref(), revision, evidence.as_ref().map_err(String::clone), availability)
    }

    /// What the log alone says.
    pub(super) async fn recorded(&self, frame: &Frame, digest: Digest, revision: Option<Revision>) -> TargetFacts {
        let image = image_of(revision.as_ref(), digest);
        let evidence = self.evidence.from_log(&digest, image.as_ref(), frame.now).await;
        let evidence = evidence.as_ref().map_err(ToString::to_string);
        let unasked = Fact::unknown("the registry was not asked", "");
        facts(frame, digest, image.as_ref(), revision, evidence, unasked)
    }

    /// What our log knows of `digest`.
    pub(super) async fn known_of(&self, digest: &Digest, now: Timestamp) -> Option<Evidence> {
        match self.evidence.from_log(digest, None, now).await {
            Ok(evidence) => Some(evidence),
            // Nothing to compare with: that makes the answer stricter, never kinder.
            Err(error) => {
                tracing::error!(%digest, %error, "evidence about what runs now could not be read");
                None
            }
        }
    }

    /// The log's evidence when that settles everything, and the registry's with it when not.
    async fn evidence(
        &self,
        frame: &Frame,
        digest: Digest,
        revision: Option<&Revision>,
        image: Option<&ImageRef>,
        until: Instant,
    ) -> Result<Evidence, String> {
        let known = self.evidence.from_log(&digest, image, frame.now).await.map_err(|error| error.to_string())?;
        if frame.weighing(revision).judge(image, &known).known().is_none_or(is_settled) {
            return Ok(known);
        }
        let gather = self.evidence.gather(&digest, image, frame.now, until);
        match tokio::time::timeout_at(until.into(), gather).await {
            Ok(gathered) => gathered.map_err(|error| error.to_string()),
            Err(_elapsed) => Err("the registry did not answer in time".to_owned()),
        }
    }

    async fn availability(
        &self,
        image: Option<&ImageRef>,
        digest: Digest,
        now: Timestamp,
        asking: Asking,
    ) -> Fact<Availability> {
        let Some(image) = image else {
            let remedy = "record it with `countersign deployment record --image registry/repository@sha256:…`";
            return Fact::unknown("no record says in which registry it is", remedy);
        };
        let key = (image.name.clone(), digest);
        let known = self.probes.get(&key).await;
        if let (Some((value, as_of)), Some(within)) = (&known, asking.within)
            && is_young(*as_of, now, within)
        {
            return Fact::Known { value: value.clone(), as_of: *as_of };
        }
        match self.probe(&image.name, &digest, asking.until).await {
            Ok(value) => {
                self.probes.insert(key, (value.clone(), now)).await;
                Fact::Known { value, as_of: now }
            }
            Err(error) => Fact::unknown(format!("{error}{}", last_known(known.as_ref())), REMEDY),
        }
    }

    async fn probe(&self, name: &ImageName, digest: &Digest, until: Instant) -> Result<Availability, RegistryError> {
        let probe = self.registry.probe(name, digest, until);
        match tokio::time::timeout_at(until.into(), probe).await {
            Ok(Ok(probe)) => {
                Ok(Availability { platforms: probe.platforms, blobs: probe.blobs, missing: probe.missing })
            }
            Ok(Err(error)) if error.is_definite() => {
                Ok(Availability { platforms: Vec::new(), blobs: 0, missing: vec![format!("manifest {digest}")] })
            }
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(RegistryError::Deadline { registry: name.registry.clone() }),
        }
    }
}

/// Whether the registry's evidence could not change anything.
fn is_settled(judged: &Judged) -> bool {
    let is_met = judged.demands.iter().flat_map(|demand| &demand.said).all(|(said, _)| *said == Decision::Allow);
    let is_revoked = judged.verdict.reasons.iter().any(|reason| reason.code == Code::ArtifactRevoked);
    is_revoked || (is_met && judged.verdict.decision == Decision::Allow)
}

/// A time from a clock that ran ahead is not young for ever.
fn is_young(as_of: Timestamp, now: Timestamp, within: SignedDuration) -> bool {
    let age = now.duration_since(as_of);
    age <= within && age >= SignedDuration::from_secs(-limits::CLOCK_SKEW_S)
}

/// What the registry said when it last answered: too old to count, and good to know.
fn last_known(known: Option<&(Availability, Timestamp)>) -> String {
    match known {
        Some((value, as_of)) if value.missing.is_empty() => format!("; as of {as_of} all of it was there"),
        Some((_, as_of)) => format!("; as of {as_of} some of it was gone"),
        None => String::new(),
    }
}

fn image_of(revision: Option<&Revision>, digest: Digest) -> Option<ImageRef> {
    let image: ImageRef = revision?.image.parse().ok()?;
    Some(image.pinned(digest))
}

fn facts(
    frame: &Frame,
    digest: Digest,
    image: Option<&ImageRef>,
    revision: Option<Revision>,
    evidence: Result<&Evidence, String>,
    availability: Fact<Availability>,
) -> TargetFacts {
    let weighed = revision.clone();
    frame.weighing(weighed.as_ref()).target(digest, image, revision, evidence, availability)
}
