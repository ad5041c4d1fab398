//! Between the model and the messages.

use tonic::Status;

use super::{status, v1};
use crate::model::{Decision, Digest, LogRef, Reason, Verdict};

/// Parses a digest field.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(crate) fn digest(field: &str, text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|source| status::invalid(field, &source))
}

impl From<Decision> for v1::Decision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Allow => Self::Allow,
            Decision::Deny => Self::Deny,
            Decision::Unknown => Self::Unknown,
        }
    }
}

impl From<LogRef> for v1::LogRef {
    fn from(entry: LogRef) -> Self {
        Self { origin: entry.origin, index: entry.index }
    }
}

impl From<Reason> for v1::Reason {
    fn from(reason: Reason) -> Self {
        Self {
            code: reason.code.to_string(),
            message: reason.message,
            evidence: reason.evidence.into_iter().map(Into::into).collect(),
            remedy: reason.remedy,
        }
    }
}

impl From<Verdict> for v1::Verdict {
    fn from(verdict: Verdict) -> Self {
        Self {
            decision: v1::Decision::from(verdict.decision).into(),
            reasons: verdict.reasons.into_iter().map(Into::into).collect(),
            warnings: verdict.warnings.into_iter().map(Into::into).collect(),
            policies: verdict
                .policies
                .into_iter()
                .map(|(name, digest)| v1::PolicyRef { name, digest: digest.to_string() })
                .collect(),
        }
    }
}
