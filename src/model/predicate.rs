//! Predicate types that the program knows by name, and what each must contain.
//!
//! A type that is not listed is *custom*: any JSON object passes.

use serde_json::Value;

/// An image signature, as cosign 3 writes it.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
/// SLSA build provenance, version 1.
pub const SLSA_PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// SLSA verification summary (VSA).
pub const VSA: &str = "https://slsa.dev/verification_summary/v1";
/// SPDX document; newer writers append `/v2.3` or `/v3`.
pub const SPDX: &str = "https://spdx.dev/Document";
/// CycloneDX BOM; newer writers append `/v1.4` and later.
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";
/// Vulnerability scan result.
pub const VULNS: &str = "https://in-toto.io/attestation/vulns/v0.2";
/// Test result.
pub const TEST_RESULT: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// A deployment of a digest to a service and environment (ours).
pub const DEPLOYMENT: &str = "https://countersign.dev/attestation/deployment/v0.1";
/// A health report of a deployed digest (ours).
pub const HEALTH: &str = "https://countersign.dev/attestation/health/v0.1";
/// An approval (ours).
pub const APPROVAL: &str = "https://countersign.dev/attestation/approval/v0.1";
/// A revocation of an artifact, a key or an identity (ours).
pub const REVOCATION: &str = "https://countersign.dev/attestation/revocation/v0.1";
/// The answer of a rollback check (ours).
pub const READINESS: &str = "https://countersign.dev/attestation/rollback-readiness/v0.1";
/// An object that was admitted against the verdict (ours).
pub const BREAK_GLASS: &str = "https://countersign.dev/attestation/break-glass/v0.1";

/// The erasure of a log entry's payload (ours).
pub const ERASURE: &str = "https://countersign.dev/attestation/erasure/v0.1";

/// What was done to a managed key (ours).
pub const MANAGED_KEY: &str = "https://countersign.dev/attestation/managed-key/v0.1";

/// Types that only our own services write, each behind a role of its own: a builder's attestation of such a type would
/// be a forged record.
pub const RESERVED: [&str; 8] =
    [DEPLOYMENT, HEALTH, APPROVAL, REVOCATION, READINESS, ERASURE, BREAK_GLASS, MANAGED_KEY];

/// Whether `actual` is the wanted type: equal, or a version below it (`https://cyclonedx.org/bom/v1.5`) for the two
/// SBOM families whose writers append versions.
pub fn matches(wanted: &str, actual: &str) -> bool {
    if wanted == actual {
        return true;
    }
    [SPDX, CYCLONEDX].contains(&wanted) && actual.strip_prefix(wanted).is_some_and(|rest| rest.starts_with("/v"))
}

/// What a predicate of a known type lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("predicate of type {predicate_type} needs {path} to be {wanted}")]
pub struct PredicateError {
    /// The predicate type.
    pub predicate_type: String,
    /// JSON path inside the predicate, dots between the names.
    pub path: &'static str,
    /// What should stand there.
    pub wanted: &'static str,
}

#[derive(Clone, Copy)]
enum Wanted {
    Text,
    Time,
    Object,
    List,
    OneOf(&'static [&'static str], &'static str),
}

impl Wanted {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::Time => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
            Self::OneOf(allowed, _) => value.as_str().is_some_and(|text| allowed.contains(&text)),
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a non-empty string",
            Self::Time => "an RFC 3339 time",
            Self::Object => "an object",
            Self::List => "a list",
            Self::OneOf(_, text) => text,
        }
    }
}

const PASSED_FAILED: Wanted = Wanted::OneOf(&["PASSED", "FAILED"], "PASSED or FAILED");
const TEST_OUTCOME: Wanted = Wanted::OneOf(&["PASSED", "WARNED", "FAILED"], "PASSED, WARNED or FAILED");

fn shape(predicate_type: &str) -> &'static [(&'static str, Wanted)] {
    match predicate_type {
        SLSA_PROVENANCE => &[
            ("buildDefinition.buildType", Wanted::Text),
            ("buildDefinition.externalParameters", Wanted::Object),
            ("runDetails.builder.id", Wanted::Text),
        ],
        VSA => &[
            ("verifier.id", Wanted::Text),
            ("timeVerified", Wanted::Time),
            ("resourceUri", Wanted::Text),
            ("policy.uri", Wanted::Text),
            ("verificationResult", PASSED_FAILED),
            ("verifiedLevels", Wanted::List),
        ],
        VULNS => &[
            ("scanner.uri", Wanted::Text),
            ("scanner.db.lastUpdate", Wanted::Time),
            ("scanner.result", Wanted::List),
            ("metadata.scanFinishedOn", Wanted::Time),
        ],
        TEST_RESULT => &[("result", TEST_OUTCOME), ("configuration", Wanted::List)],
        DEPLOYMENT | APPROVAL => &[("service", Wanted::Text), ("environment", Wanted::Text)],
        HEALTH => {
            &[("service", Wanted::Text), ("environment", Wanted::Text), ("healthy", Wanted::OneOf(&[], "a boolean"))]
        }
        REVOCATION => &[
            ("kind", Wanted::OneOf(&["artifact", "key", "identity"], "artifact, key or identity")),
            ("since", Wanted::Time),
            ("reason", Wanted::Text),
        ],
        MANAGED_KEY => &[("name", Wanted::Text), ("event", Wanted::Text), ("by", Wanted::Text)],
        ERASURE => &[("origin", Wanted::Text), ("reason", Wanted::Text)],
        BREAK_GLASS => &[("user", Wanted::Text), ("reason", Wanted::Text), ("expires", Wanted::Time)],
        READINESS => &[("service", Wanted::Text), ("environment", Wanted::Text), ("verdict", Wanted::Text)],
        other if matches(SPDX, other) => &[("spdxVersion", Wanted::Text)],
        other if matches(CYCLONEDX, other) => {
            &[("bomFormat", Wanted::OneOf(&["CycloneDX"], "\"CycloneDX\"")), ("specVersion", Wanted::Text)]
        }
        _ => &[],
    }
}

/// Checks a predicate against the shape of its type. Unknown types only need to be a JSON object; SPDX 3 documents
/// (JSON-LD) carry `@context` in place of `spdxVersion`.
pub fn validate(predicate_type: &str, predicate: &Value) -> Result<(), PredicateError> {
    let lacking = |path, wanted| PredicateError { predicate_type: predicate_type.to_owned(), path, wanted };
    if !predicate.is_object() {
        return Err(lacking("predicate", "an object"));
    }
    if matches(SPDX, predicate_type) && predicate.get("@context").is_some() {
        return Ok(());
    }
    for (path, wanted) in shape(predicate_type) {
        let value = path.split('.').try_fold(predicate, |value, name| value.get(name));
        let holds = match (predicate_type, *path) {
            (HEALTH, "healthy") => value.is_some_and(Value::is_boolean),
            _ => value.is_some_and(|value| wanted.holds(value)),
        };
        if !holds {
            return Err(lacking(path, wanted.describe()));
        }
    }
    Ok(())
}
