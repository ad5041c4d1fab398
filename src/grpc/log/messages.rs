//! From entries, receipts and what an entry says to their messages.

use prost::Message as _;

use crate::{
    grpc::v1,
    log::{
        self, Log, LogError,
        facts::{self, Facts},
        search::Order,
    },
    model::{
        certificate::{self, Described},
        limits,
    },
};

/// Payload bytes that are read for the summaries of one page.
const READ: usize = 32 * 1024 * 1024;
/// Bytes that the summaries of one page may take: with the rest they stay below what clients accept by default.
const SENT: usize = 2 * 1024 * 1024;

pub(super) fn receipt(receipt: log::Receipt) -> v1::Receipt {
    v1::Receipt {
        index: receipt.index,
        tree_size: receipt.tree_size,
        root: receipt.root.to_vec().into(),
        proof: receipt.proof.iter().map(|hash| hash.to_vec().into()).collect(),
        checkpoint: receipt.checkpoint.to_string(),
    }
}

pub(super) fn entry(entry: log::Entry, with_payload: bool) -> v1::LogEntry {
    let payload = entry.payload.filter(|_| with_payload).unwrap_or_default();
    v1::LogEntry { index: entry.index, leaf: entry.leaf.into(), payload: payload.into() }
}

pub(super) fn summary(entry: &log::Entry) -> v1::EntrySummary {
    let facts = Facts::of(&entry.leaf, entry.payload.as_deref());
    let subject = |subject: &crate::model::Subject| v1::Subject {
        name: subject.name.clone(),
        digest: subject.digest.to_string(),
    };
    v1::EntrySummary {
        index: entry.index,
        time: facts.time.map(|time| time.to_string()).unwrap_or_default(),
        signer: facts.signer.map(|signer| v1::SignerIdentity { subject: signer.subject, issuer: signer.issuer }),
        predicate_type: facts.predicate_type.unwrap_or_default(),
        subjects: facts.subjects.iter().take(limits::SUMMARY_SUBJECTS).map(subject).collect(),
        subject_count: u32::try_from(facts.subjects.len()).unwrap_or(u32::MAX),
        recorded_digest: facts.recorded.map(|digest| digest.to_string()).unwrap_or_default(),
        has_payload: entry.payload.as_ref().is_some_and(|payload| !payload.is_empty()),
        certificate: facts::certificate_in(&entry.leaf)
            .and_then(|der| certificate::describe(&der))
            .map(certificate_summary),
    }
}

fn certificate_summary(described: Described) -> v1::CertificateSummary {
    v1::CertificateSummary {
        serial: described.serial,
        not_before: described.not_before.to_string(),
        not_after: described.not_after.to_string(),
        key: described.key.to_string(),
        fingerprint: described.fingerprint.to_string(),
    }
}

/// Adds the summaries of a page. Where they would take too much, the page ends earlier.
pub(super) fn summarise(log: &Log, page: &mut v1::SearchResponse, order: Order) -> Result<(), LogError> {
    let (mut read, mut sent) = (0, 0);
    for (at, index) in page.indexes.iter().copied().enumerate() {
        if read > READ || sent > SENT {
            page.next_index = Some(if order == Order::OldestFirst { index } else { index.saturating_add(1) });
            page.indexes.truncate(at);
            break;
        }
        let entry = log.entry(index)?;
        read += entry.leaf.len() + entry.payload.as_ref().map_or(0, Vec::len);
        let summary = summary(&entry);
        sent += summary.encoded_len();
        page.summaries.push(summary);
    }
    Ok(())
}
