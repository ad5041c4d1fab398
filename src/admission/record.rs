//! What admission leaves in the log: what runs where, what was judged for the first time, and broken glasses.
//!
//! What the webhook sees admitted is how we learn what runs where. Deployments and verification summaries never delay
//! an answer and never change it: they are written beside it, within a bound; what overflows is counted and left out,
//! as the next admission of the workload brings it again. A broken glass is waited for (see
//! [`break_glass`](super::break_glass)). Stopping waits for all that has begun.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::{
    BreakGlass, ImageUse, Judged, Outcome, Parts, Review, Summary,
    summary::{self, Key},
};
use crate::{
    model::{LogRef, deployment::Workload, object},
    release::Deployment,
};

/// Recordings of one kind under way at a time.
const MOST: u32 = 64;
/// Summaries that are remembered as written, as a count; beyond it the log's own evidence is what says so.
const REMEMBERED: usize = 65_536;

/// What became of the recordings of one kind, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handed on without an error.
    pub recorded: u64,
    /// Failed; the log says why.
    pub failed: u64,
    /// Left out, because too many were under way.
    pub left_out: u64,
}

/// What became of all recordings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recordings {
    /// Deployments.
    pub deployments: Counters,
    /// Verification summaries.
    pub summaries: Counters,
}

#[derive(Debug, Default)]
struct Counts {
    recorded: AtomicU64,
    failed: AtomicU64,
    left_out: AtomicU64,
}

/// Recordings of one kind: how many may run, and how they ended.
#[derive(Debug)]
struct Lane {
    what: &'static str,
    slots: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl Lane {
    fn new(what: &'static str) -> Self {
        Self { what, slots: Arc::new(Semaphore::new(usize::try_from(MOST).unwrap_or(1))), counts: Arc::default() }
    }

    fn counters(&self) -> Counters {
        let Counts { recorded, failed, left_out } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters { recorded: read(recorded), failed: read(failed), left_out: read(left_out) }
    }

    /// All slots free: nothing is under way.
    async fn settle(&self) {
        drop(self.slots.acquire_many(MOST).await);
    }

    /// Runs the recording in a task of its own; `None` where too many run.
    fn begin<T: Send + 'static>(
        &self,
        recording: BoxFuture<'static, Result<T, String>>,
    ) -> Option<tokio::task::JoinHandle<Result<T, String>>> {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.counts.left_out.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(what = self.what, "not recorded: too many are under way");
            return None;
        };
        let (counts, what) = (Arc::clone(&self.counts), self.what);
        Some(tokio::spawn(async move {
            let result = recording.await;
            let count = if result.is_ok() { &counts.recorded } else { &counts.failed };
            count.fetch_add(1, Ordering::Relaxed);
            if let Err(problem) = &result {
                tracing::warn!(what, problem, "not recorded");
            }
            drop(slot);
            result
        }))
    }
}

/// Writes beside the answers.
#[derive(Debug)]
pub(super) struct Recorder {
    deployments: Lane,
    summaries: Lane,
    glasses: Lane,
    /// Summaries that the log has, or that are being written. Owner: this type; never held across an await.
    known: Arc<Mutex<HashSet<Key>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            deployments: Lane::new("deployment"),
            summaries: Lane::new("verification summary"),
            glasses: Lane::new("broken glass"),
            known: Arc::default(),
        }
    }
}

impl Recorder {
    pub(super) fn recordings(&self) -> Recordings {
        Recordings { deployments: self.deployments.counters(), summaries: self.summaries.counters() }
    }

    /// Waits until nothing is under way.
    pub(super) async fn settle(&self) {
        for lane in [&self.deployments, &self.summaries, &self.glasses] {
            lane.settle().await;
        }
    }

    /// Records an admitted object beside the answer: the workload, if it is one, and what was judged for the first
    /// time.
    pub(super) fn admitted(&self, parts: &Parts, review: &Review, outcome: &Outcome, now: Timestamp) {
        if let Some(deployment) = deployment(review, outcome) {
            let recording = (parts.record)(deployment, now);
            self.deployments
                .begin(Box::pin(async move { recording.await.map(drop).map_err(|error| error.to_string()) }));
        }
        self.summarise(parts, review, outcome, now);
    }

    /// Almost always there is nothing to do, and a look at what is known is all that it costs.
    fn summarise(&self, parts: &Parts, review: &Review, outcome: &Outcome, now: Timestamp) {
        let (images, keys): (Vec<&Judged>, Vec<Key>) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            let keyed = outcome.images.iter().filter_map(|image| Some((image, summary::key(image, parts.policy)?)));
            keyed.filter(|(_, key)| known.insert(*key)).unzip()
        };
        if images.is_empty() {
            return;
        }
        let (namespace, environment) = (review.namespace(), review.environment());
        let place = (namespace.as_str(), environment.as_str());
        let new = images.into_iter().filter_map(|image| Summary::of(image, parts.policy, place, &parts.own));
        let new: Vec<Summary> = new.collect();
        if new.is_empty() {
            return;
        }
        let forget = {
            let known = Arc::clone(&self.known);
            move || {
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                for key in &keys {
                    known.remove(key);
                }
            }
        };
        let (recording, on_failure) = ((parts.record_summaries)(new, now), forget.clone());
        let begun = self.summaries.begin(Box::pin(async move { recording.await.inspect_err(|_problem| on_failure()) }));
        if begun.is_none() {
            forget();
        }
    }

    /// Records a broken glass before `deadline`. What has begun is finished even when nobody waits any longer.
    pub(super) async fn glass(
        &self,
        parts: &Parts,
        glass: &BreakGlass,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<LogRef, String> {
        let recording = (parts.record_break_glass)(glass.clone(), now);
        let begun = self.glasses.begin(recording).ok_or("too many are being recorded")?;
        match tokio::time::timeout_at(deadline.into(), begun).await {
            Ok(Ok(result)) => result,
            Ok(Err(lost)) => Err(format!("the recording was lost: {lost}")),
            Err(_elapsed) => Err("the log did not answer in time; it may have it later".to_owned()),
        }
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
        workload: workload(review, main),
        deployed_by: review.user.name.clone(),
    })
}

/// The object by its own name, with the container of its main image; `None` while the API server has yet to name it.
fn workload(review: &Review, main: &ImageUse) -> Option<Workload> {
    let name = object::name(&review.object)?;
    Workload::new(&review.namespace(), review.kind.kind.parse().ok()?, name, &main.user).ok()
}
