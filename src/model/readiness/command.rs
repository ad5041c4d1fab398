//! What to run, only when it is safe: always by digest, and only with names that were recorded.

use super::{Facts, Short};
use crate::model::{deployment::Revision, image::ImageRef};

/// The image to run, pinned to the digest that was judged.
pub(super) fn pinned(to: &Short) -> Option<String> {
    let image: ImageRef = to.image.parse().ok()?;
    Some(format!("{}@{}", image.name, to.digest))
}

/// One command for every object that runs the service: those that run it now, else those that ran the target. `None`
/// when none was recorded.
pub(super) fn command(facts: &Facts, pinned: &str) -> Option<String> {
    let revisions = [facts.running.as_ref(), facts.target.revision.as_ref()];
    let known = |revision: &&Revision| !revision.workloads.is_empty();
    let workloads = &revisions.into_iter().flatten().find(known)?.workloads;
    let commands: Vec<String> = workloads.iter().map(|workload| workload.set_image(pinned)).collect();
    Some(commands.join(" && "))
}
