//! What the webhook sees admitted is how we learn what runs where.
//!
//! Recording never delays an answer and never changes it: it runs beside, within a bound; what overflows is counted
//! and left out, as the next admission of the workload records it again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{Outcome, Parts, Review, object};
use crate::release::Deployment;

/// Recordings under way at a time.
const MOST: u32 = 64;

/// What became of recordings, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed to the release service without an error.
    pub recorded: u64,
    /// Failed; the log says why.
    pub failed: u64,
    /// Left out, because too many were under way.
    pub left_out: u64,
}

#[derive(Debug, Default)]
struct Counts {
    recorded: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
}

/// Records beside the answers.
#[derive(Debug)]
pub(super) struct Recorder {
    slots: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl Default for Recorder {
    fn default() -> Self {
        let slots = usize::try_from(MOST).unwrap_or(1);
        Self { slots: Arc::new(Semaphore::new(slots)), counts: Arc::default() }
    }
}

impl Recorder {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            recorded: self.counts.recorded.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            left_out: self.counts.left_out.load(Ordering::Relaxed),
        }
    }

    /// All slots free: nothing is under way.
    pub(super) async fn settle(&self) {
        drop(self.slots.acquire_many(MOST).await);
    }

    /// Records the workload, if this is one, beside the answer.
    pub(super) fn admitted(&self, parts: &Parts, review: &Review, outcome: &Outcome, now: Timestamp) {
        let Some(deployment) = deployment(review, outcome) else { return };
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.counts.left_out.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(service = deployment.service, "deployment not recorded: too many under way");
            return;
        };
        let counts = Arc::clone(&self.counts);
        let service = deployment.service.clone();
        let recording = (parts.record)(deployment, now);
        tokio::spawn(async move {
            match recording.await {
                Ok(_entry) => counts.recorded.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(service, %error, "admitted deployment could not be recorded");
                    counts.failed.fetch_add(1, Ordering::Relaxed)
                }
            };
            drop(slot);
        });
    }
}

/// The deployment that an admitted object is: of a workload or a pod of its own, by its main image.
fn deployment(review: &Review, outcome: &Outcome) -> Option<Deployment> {
    const WORKLOADS: [(&str, &str); 5] = [
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("batch", "CronJob"),
    ];
    let is_workload = WORKLOADS.iter().any(|(group, kind)| review.kind.is(group, kind));
    let is_pod = review.kind.is("", "Pod") && review.subresource.is_empty();
    if !(is_workload || is_pod) || object::is_owned(&review.object) {
        return None;
    }
    let uses = object::images(&review.kind, &review.object).ok()?;
    let main = object::main_image(&review.kind, &review.object, &uses)?;
    let judged = outcome.images.iter().find(|image| image.image == main.image)?;
    Some(Deployment {
        service: object::service(&review.object)?,
        environment: review.environment(),
        digest: judged.digest?,
        image: main.image.clone(),
        status: "admitted".to_owned(),
        deployed_by: review.user.name.clone(),
    })
}
