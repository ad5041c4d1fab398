//! What the judge answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Yes, no, or could not tell. *Unknown is never dressed up as Deny, nor as Allow.*
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Every requirement holds.
    Allow,
    /// At least one requirement is known not to hold.
    Deny,
    /// None is known not to hold, but at least one could not be decided.
    Unknown,
}

impl Decision {
    /// The exit code of a judgement: 0 yes, 1 no, 2 could not tell.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Allow => 0,
            Self::Deny => 1,
            Self::Unknown => 2,
        }
    }

    /// The lower-case name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Unknown => "unknown",
        }
    }

    /// Both must hold: a no beats a could-not-tell, which beats a yes.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Deny, _) | (_, Self::Deny) => Self::Deny,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Allow, Self::Allow) => Self::Allow,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where in a transparency log a piece of evidence stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogRef {
    /// The log's origin.
    pub origin: String,
    /// The entry's index.
    pub index: u64,
}

impl fmt::Display for LogRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.index)
    }
}

/// Codes of reasons. The same code means the same thing behind every door; documented in the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// A requirement that holds; only in the reasons of `Allow`.
    Satisfied,
    /// Nothing that verifies signs this digest.
    SignatureMissing,
    /// Something claims to sign it, and does not verify.
    SignatureInvalid,
    /// Signed, but by nobody whom the policy names.
    IdentityNotAllowed,
    /// Fewer of the named signers than the threshold.
    ThresholdNotMet,
    /// The tag pointed to another, signed, digest before.
    TagMoved,
    /// The reference has no digest where one is required.
    DigestRequired,
    /// No statement of a required predicate type.
    PredicateMissing,
    /// No SLSA provenance.
    ProvenanceMissing,
    /// Provenance names another builder.
    BuilderNotAllowed,
    /// Provenance names another source.
    SourceNotAllowed,
    /// The newest statement of the kind is older than the policy allows.
    EvidenceStale,
    /// The newest scan has findings over the limit.
    VulnerabilityLimit,
    /// The newest scan's database, or the scan, is older than the policy allows.
    ScanStale,
    /// A test result says failed.
    TestsFailed,
    /// A CEL rule said no.
    RuleFailed,
    /// A CEL rule could not be evaluated.
    RuleError,
    /// The artifact was revoked.
    ArtifactRevoked,
    /// The signing key was revoked for the time of signing.
    KeyRevoked,
    /// The signing identity was revoked for the time of signing.
    IdentityRevoked,
    /// The evidence is not in a trusted log.
    LogInclusionMissing,
    /// No policy speaks about this object.
    NoPolicyMatched,
    /// The registry could not be asked; nothing can be concluded.
    RegistryUnavailable,
    /// The registry does not have what the reference names.
    ImageNotFound,
    /// The trust material cannot be used.
    TrustUnavailable,
    /// The time allowed for the answer ran out.
    DeadlineExceeded,
    /// The object could not be read.
    MalformedObject,
    /// Approvals are missing.
    ApprovalMissing,
    /// This digest never ran in this service and environment.
    NeverLiveHere,
    /// It ran here and was reported unhealthy.
    UnhealthyLastTime,
    /// It ran here, and nobody ever reported its health.
    HealthUnknown,
    /// A manifest, platform or layer is gone from the registry.
    BlobMissing,
    /// Going back brings in findings over the limit that the running digest does not have.
    VulnerabilityReintroduced,
    /// A deployment of this service is under way.
    DeployInProgress,
    /// Admission would refuse the target.
    AdmissionWouldDeny,
    /// Another reason, spelled out in the message.
    Other,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One reason behind a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind.
    pub code: Code,
    /// One sentence for people: what was expected, what was found.
    pub message: String,
    /// The log entries that it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<LogRef>,
    /// What to do about it; empty when there is nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Reason {
    /// A reason without evidence.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), evidence: Vec::new(), remedy: remedy.into() }
    }

    /// The same reason, resting on these log entries.
    #[must_use]
    pub fn with_evidence(mut self, evidence: Vec<LogRef>) -> Self {
        self.evidence = evidence;
        self
    }
}

/// A decision with its reasons.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes, no, or could not tell.
    pub decision: Decision,
    /// Why; for `Allow`, what it rests on.
    pub reasons: Vec<Reason>,
    /// What does not change the decision, but should be seen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Reason>,
    /// Name and digest of each policy that was applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<(String, Digest)>,
}
