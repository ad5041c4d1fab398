//! Breaking the glass: admitting against the verdict, by name, with a reason, never silently.
//!
//! **Before the object is admitted** (design §6): the audit line, then an entry in the log with reason, identity and
//! expiry, signed by the service (the person is known to the API server, not to us), and only then the answer. Looking
//! images up leaves time for it (`look_up_by`), so that a registry that never answers, the commonest reason to break the
//! glass, does not use up what the record needs.
//!
//! **When the log cannot write.** The glass still breaks. Breaking it is for emergencies, a full disk under the log is
//! one, and a gate that needs its own log in order to open locks the cluster out together with it: *always possible* is
//! the older promise. *Never silent* is kept by everything else: the audit line names user, reason, namespace, images
//! and expiry before the log is asked; a second one, an error, says that there is no entry and why; the answer warns the
//! user, and its audit annotation says the same in the API server's own trail; and
//! `countersign_break_glass_total{event="not-recorded"}` is there to be alerted on. A queue that is full is asked again
//! while there is time, and a record that has begun is finished after the answer if it comes late.
//!
//! **Grants.** A person annotates a Deployment; its pods are then made by a controller whom nobody named. So whoever may
//! break the glass leaves a *grant*: the same images may follow in the same namespace until it expires. The same person
//! with the same reason for the same images adds no entry while a recorded grant stands, and does not prolong it: a
//! controller that applies the object again and again does not fill the log. Grants live in memory, in the process that
//! gave them: after a restart the person repeats the annotation, and the log gets another entry.
//!
//! A dry run and the mutating phase say what would be: they record nothing and leave no grant.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::json;

use super::{Judged, Review, User, settings::BreakGlassSettings};
use crate::model::{Digest, LogRef, Statement, StatementError, Subject, limits, object::annotation, predicate};

/// The annotation; its value is the reason.
pub const ANNOTATION: &str = "countersign.dev/break-glass";
/// Grants kept at a time, as a count.
const MOST: usize = 4_096;
/// The most time that look-ups leave for the record.
const RESERVE: Duration = Duration::from_secs(2);

/// Whether the log has a broken glass.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recorded {
    /// It was not to be recorded: a dry run, or the object is not final.
    NotYet,
    /// It has, here.
    At(LogRef),
    /// It has not, for this reason.
    Failed(String),
}

/// A glass that was broken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BreakGlass {
    /// Who.
    pub user: String,
    /// Why, in their words.
    pub reason: String,
    /// Where.
    pub namespace: String,
    /// Which images, as written, with their digests where known.
    pub images: Vec<(String, Option<Digest>)>,
    /// Until when the same images may follow.
    pub expires: Timestamp,
    /// Whether the log has it.
    pub recorded: Recorded,
}

impl BreakGlass {
    /// The statement that goes into the log. Its subjects are the images whose digest is known; what was overridden,
    /// the policies by their digest, is one as well, so that there always is a subject.
    pub fn statement(&self, policy: Digest) -> Result<Statement, StatementError> {
        let known = self.images.iter().filter_map(|(name, digest)| Some((name.clone(), (*digest)?)));
        let mut seen = BTreeSet::new();
        let subjects = known
            .filter(|(_, digest)| seen.insert(*digest))
            .map(|(image, digest)| Subject { name: super::without_tag(&image), digest })
            .chain([Subject { name: "policies".to_owned(), digest: policy }])
            .collect();
        let images: Vec<&str> = self.images.iter().map(|(image, _)| image.as_str()).collect();
        let predicate = json!({
            "user": self.user,
            "reason": self.reason,
            "namespace": self.namespace,
            "images": images,
            "expires": self.expires,
        });
        Statement::new(subjects, predicate::BREAK_GLASS, predicate)
    }
}

/// What an annotation came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is none.
    No,
    /// Someone asks who may not.
    NotEntitled,
    /// The reason is longer than allowed.
    TooLong,
    /// Someone asks who may.
    Yes(String),
}

/// Whether the object asks to break the glass, and its user may.
pub(super) fn asked(review: &Review, settings: &BreakGlassSettings) -> Asked {
    let Some(reason) = annotation(&review.object, ANNOTATION).map(str::trim).filter(|reason| !reason.is_empty()) else {
        return Asked::No;
    };
    if !is_entitled(&review.user, settings) {
        Asked::NotEntitled
    } else if reason.len() > limits::TEXT {
        Asked::TooLong
    } else {
        Asked::Yes(reason.to_owned())
    }
}

/// A user without a name is nobody whom a record could name.
fn is_entitled(user: &User, settings: &BreakGlassSettings) -> bool {
    let is_named =
        settings.users.contains(&user.name) || user.groups.iter().any(|group| settings.groups.contains(group));
    is_named && !user.name.is_empty()
}

/// Until when images may be looked up for an answer at `deadline`: a quarter of the time left, at most [`RESERVE`], is
/// for the record of someone who may break the glass.
pub(super) fn look_up_by(asked: &Asked, deadline: Instant) -> Instant {
    if !matches!(asked, Asked::Yes(_)) {
        return deadline;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub(RESERVE.min(left / 4)).unwrap_or(deadline)
}

/// What may follow: namespace and digest, or namespace and image as written where the digest is not known.
type Key = (String, Result<Digest, String>);

/// The grants in force. Owner: this type, behind one lock that is never held across an await.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<BTreeMap<Key, BreakGlass>>);

impl Grants {
    /// Remembers a broken glass.
    pub(super) fn add(&self, grant: &BreakGlass, now: Timestamp) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|_, known| known.expires > now);
        for (image, digest) in &grant.images {
            if grants.len() < MOST {
                grants.insert((grant.namespace.clone(), digest.ok_or_else(|| image.clone())), grant.clone());
            }
        }
    }

    /// The grant that covers an image in a namespace, if one does.
    pub(super) fn covers(&self, namespace: &str, judged: &Judged, now: Timestamp) -> Option<BreakGlass> {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_digest = judged.digest.map(Ok);
        [by_digest, Some(Err(judged.image.clone()))]
            .into_iter()
            .flatten()
            .find_map(|key| grants.get(&(namespace.to_owned(), key)))
            .filter(|grant| grant.expires > now)
            .cloned()
    }

    /// The grants that cover every one of these images, if each is covered; the first speaks for all.
    pub(super) fn cover_all<'a>(
        &self,
        namespace: &str,
        images: impl Iterator<Item = &'a Judged>,
        now: Timestamp,
        fits: impl Fn(&BreakGlass) -> bool,
    ) -> Option<BreakGlass> {
        let all: Option<Vec<BreakGlass>> =
            images.map(|image| self.covers(namespace, image, now).filter(&fits)).collect();
        all?.into_iter().next()
    }
}
