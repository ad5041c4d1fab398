//! What an entry says, for people and for machines.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{grpc::v1, log::facts::Facts, model::Digest};

/// Characters of a subject's digest in a line.
const SHORT: usize = "sha256:".len() + 12;

/// One entry, whether its bytes are here or the service told about it.
#[derive(Debug, Default)]
pub(super) struct Shown {
    index: u64,
    time: String,
    signer: Option<(String, String)>,
    predicate_type: String,
    subjects: Vec<(String, String)>,
    subject_count: usize,
    recorded: String,
    has_payload: bool,
}

impl Shown {
    /// From the entry's own bytes.
    pub(super) fn of(entry: &v1::LogEntry) -> Self {
        let facts = Facts::of(&entry.leaf, Some(&entry.payload));
        Self {
            index: entry.index,
            time: facts.time.as_ref().map(Timestamp::to_string).unwrap_or_default(),
            signer: facts.signer.map(|signer| (signer.subject, signer.issuer)),
            predicate_type: facts.predicate_type.unwrap_or_default(),
            subject_count: facts.subjects.len(),
            subjects: facts.subjects.into_iter().map(|one| (one.name, one.digest.to_string())).collect(),
            recorded: facts.recorded.as_ref().map(Digest::to_string).unwrap_or_default(),
            has_payload: !entry.payload.is_empty(),
        }
    }

    /// From what the service says of it.
    pub(super) fn told(summary: v1::EntrySummary) -> Self {
        Self {
            index: summary.index,
            time: summary.time,
            signer: summary.signer.map(|signer| (signer.subject, signer.issuer)),
            predicate_type: summary.predicate_type,
            subject_count: usize::try_from(summary.subject_count).unwrap_or(usize::MAX),
            subjects: summary.subjects.into_iter().map(|one| (one.name, one.digest)).collect(),
            recorded: summary.recorded_digest,
            has_payload: summary.has_payload,
        }
    }

    /// One line: index, time, predicate type, signer, first subject.
    pub(super) fn line(&self) -> String {
        let time = or(&self.time, "no known time");
        let kind = or(&self.predicate_type, if self.has_payload { "unknown statement" } else { "no payload" });
        let signer = self.signer.as_ref().map_or("a bare key", |(subject, _)| subject);
        let more = self.subject_count.saturating_sub(1);
        let subject = self.subjects.first().map_or_else(
            || self.recorded.clone(),
            |(name, digest)| format!("{name}@{}", digest.get(..SHORT).unwrap_or(digest)),
        );
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        plain(&format!("{:>8}  {time}  {kind}  {signer}  {subject}{more}", self.index))
    }

    /// Several lines: everything.
    pub(super) fn text(&self) -> String {
        let mut lines = vec![format!("entry {}", self.index)];
        match &self.signer {
            Some((subject, issuer)) => {
                lines.push(format!("  signer:          {subject}"));
                lines.push(format!("  issuer:          {issuer}"));
            }
            None => lines.push("  signer:          a bare key, or not readable".to_owned()),
        }
        lines.push(format!("  time:            {}", or(&self.time, "not known (no timestamp)")));
        let missing = if self.has_payload { "not readable" } else { "not known: no payload, or it was erased" };
        lines.push(format!("  predicate type:  {}", or(&self.predicate_type, missing)));
        for (name, digest) in &self.subjects {
            lines.push(format!("  subject:         {digest}  {name}").trim_end().to_owned());
        }
        if self.subject_count > self.subjects.len() {
            lines.push(format!("                   and {} more", self.subject_count - self.subjects.len()));
        }
        lines.push(format!("  recorded digest: {}", or(&self.recorded, "none")));
        lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
    }

    /// For machines: an object, to which more may be added.
    pub(super) fn json(&self) -> Map<String, Value> {
        let signer = self.signer.as_ref().map(|(subject, issuer)| json!({ "subject": subject, "issuer": issuer }));
        let subjects: Vec<_> =
            self.subjects.iter().map(|(name, digest)| json!({ "name": name, "digest": digest })).collect();
        let fields = [
            ("index", json!(self.index)),
            ("time", json!(some(&self.time))),
            ("signer", json!(signer)),
            ("predicateType", json!(some(&self.predicate_type))),
            ("subjects", json!(subjects)),
            ("subjectCount", json!(self.subject_count)),
            ("recordedDigest", json!(some(&self.recorded))),
            ("hasPayload", json!(self.has_payload)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Without characters that would move the cursor: names and identities are written by strangers.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
