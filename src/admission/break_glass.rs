//! Breaking the glass: admitting against the verdict, by name, with a reason, never silently.
//!
//! A person annotates a Deployment; its pods are then made by a controller whom nobody named. So whoever may break
//! the glass leaves a *grant*: the same images may follow in the same namespace until it expires. Grants live in
//! memory, in the process that gave them: after a restart the person repeats the annotation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde_json::json;

use super::{Judged, Review, User, object::annotation, settings::BreakGlassSettings};
use crate::model::{Digest, Statement, StatementError, Subject, limits};

/// The annotation; its value is the reason.
pub const ANNOTATION: &str = "countersign.dev/break-glass";
/// The predicate type of the statement that records a broken glass (ours).
pub const PREDICATE_TYPE: &str = "https://countersign.dev/attestation/break-glass/v0.1";
/// Grants kept at a time, as a count.
const MOST: usize = 4_096;

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
}

impl BreakGlass {
    /// The statement that goes into the log. Its subjects are the images whose digest is known; what was overridden,
    /// the policies by their digest, is one as well, so that there always is a subject.
    pub fn statement(&self, policy: Digest) -> Result<Statement, StatementError> {
        let known = self.images.iter().filter_map(|(name, digest)| Some((name.clone(), (*digest)?)));
        let mut seen = BTreeSet::new();
        let subjects = known
            .chain([("policies".to_owned(), policy)])
            .filter(|(_, digest)| seen.insert(*digest))
            .map(|(name, digest)| Subject { name, digest })
            .collect();
        let images: Vec<&str> = self.images.iter().map(|(image, _)| image.as_str()).collect();
        let predicate = json!({
            "user": self.user,
            "reason": self.reason,
            "namespace": self.namespace,
            "images": images,
            "expires": self.expires,
        });
        Statement::new(subjects, PREDICATE_TYPE, predicate)
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

fn is_entitled(user: &User, settings: &BreakGlassSettings) -> bool {
    settings.users.contains(&user.name) || user.groups.iter().any(|group| settings.groups.contains(group))
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
}
