//! STUB: the judge's owner replaces this file; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use crate::model::{
    Digest, Evidence, ImageRef, Revocations, Verdict,
    policy::{Mode, PolicySet},
};
use jiff::Timestamp;
/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    pub image: Option<&'a ImageRef>,
    pub digest: Digest,
    pub namespace: Option<&'a str>,
    pub environment: Option<&'a str>,
    pub service: Option<&'a str>,
    pub now: Timestamp,
}
/// The answer: the verdict of every policy that speaks about the question, joined; and the strictest mode of those.
#[derive(Debug, Clone)]
pub struct Judgement {
    pub verdict: Verdict,
    pub mode: Mode,
}
/// `evidence + policy + now -> verdict`; pure.
pub fn judge(
    policies: &PolicySet,
    question: &Question<'_>,
    evidence: &Evidence,
    revocations: &Revocations,
) -> Judgement {
    unimplemented!()
}
