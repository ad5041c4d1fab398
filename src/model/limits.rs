//! Every upper bound on what strangers send, in one place. Bytes unless the name says otherwise.
//!
//! What an error tells of it is bounded too, see [`quoted`].

/// One gRPC request message.
pub const GRPC_MESSAGE: usize = 16 * 1024 * 1024;
/// One admission review body (what controller-runtime allows).
pub const ADMISSION_BODY: usize = 7 * 1024 * 1024;
/// One in-toto statement, as JSON.
pub const STATEMENT: usize = 8 * 1024 * 1024;
/// Nesting of JSON and YAML that others wrote, in levels.
pub const JSON_DEPTH: usize = 64;
/// Subjects of one statement, as a count.
pub const SUBJECTS: usize = 1_024;
/// A subject's or resource's name.
pub const NAME: usize = 512;
/// A predicate type or other URI.
pub const URI: usize = 1_024;
/// One Sigstore bundle.
pub const BUNDLE: usize = 16 * 1024 * 1024;
/// One request to record an entry that a client signed itself (as Rekor v2).
pub const ENTRY_REQUEST: usize = 4 * 1024 * 1024;
/// The certificate in one such request, DER.
pub const ENTRY_CERTIFICATE: usize = 16 * 1024;
/// The signature in one such request: RSA with 4,096 bits has 512.
pub const ENTRY_SIGNATURE: usize = 1_024;
/// One log leaf (C2SP tlog-tiles: 16-bit length).
pub const LEAF: usize = 65_535;
/// Statements in one batch, as a count.
pub const BATCH: usize = 1_024;
/// One manifest or index from a registry.
pub const MANIFEST: usize = 4 * 1024 * 1024;
/// Referrers read for one digest, as a count.
pub const REFERRERS: usize = 64;
/// Pages followed in one referrers listing, as a count.
pub const REFERRER_PAGES: usize = 16;
/// Bundles read for one digest, together.
pub const REFERRER_BYTES: usize = 64 * 1024 * 1024;
/// One payload or annotation of a signature in cosign's legacy layout.
pub const LEGACY: usize = 256 * 1024;
/// Certificates in the chain of a legacy signature, as a count.
pub const LEGACY_CHAIN: usize = 8;
/// Referrers of referrers that are followed when an image is copied, in levels.
pub const REFERRER_DEPTH: usize = 4;
/// Manifests of one image and all its evidence that are copied, as a count.
pub const COPY_MANIFESTS: usize = 2_048;
/// Layers or platforms of one image, as a count.
pub const IMAGE_PARTS: usize = 512;
/// Images named by one workload, as a count.
pub const IMAGES: usize = 256;
/// One OIDC token.
pub const TOKEN: usize = 16 * 1024;
/// One OIDC discovery or JWKS document.
pub const JWKS: usize = 512 * 1024;
/// Keys read from one JWKS, as a count.
pub const JWKS_KEYS: usize = 64;
/// Free text given by a person: a reason, a comment.
pub const TEXT: usize = 4_096;
/// One YAML or TOML document given by an operator.
pub const DOCUMENT: usize = 1024 * 1024;
/// Log entries read as evidence about one digest, newest first, as a count.
pub const EVIDENCE: usize = 256;
/// Policies in force, as a count over all documents.
pub const POLICIES: usize = 256;
/// Entries of one list in a policy, as a count.
pub const POLICY_LIST: usize = 256;
/// One pattern (glob or regular expression) in a policy.
pub const PATTERN: usize = 1_024;
/// A compiled regular expression of a policy.
pub const REGEX: usize = 1024 * 1024;
/// The source of one CEL rule.
pub const RULE: usize = 4_096;
/// Nodes of one parsed CEL rule, as a count; macros count expanded.
pub const RULE_NODES: usize = 1_024;
/// Nesting of one parsed CEL rule, in levels.
pub const RULE_DEPTH: usize = 64;
/// `all`, `exists`, `map` and `filter` inside one another in one CEL rule, in levels.
pub const RULE_LOOPS: usize = 2;
/// Statements handed to one CEL rule, as a count.
pub const RULE_STATEMENTS: usize = 256;
/// JSON values handed to one CEL rule in predicates, as a count.
pub const RULE_VALUES: usize = 20_000;
/// How far a time in evidence may lie in the future before it no longer counts, in seconds.
pub const CLOCK_SKEW_S: i64 = 300;
/// Objects in one manifest, as a count.
pub const OBJECTS: usize = 256;
/// Services and environments in one listing, as a count.
pub const SERVICES: usize = 10_000;
/// Deployment, health and approval records kept of one service and environment, newest first, as a count.
pub const RECORDS: usize = 2_000;
/// Kubernetes objects kept as running one revision, as a count.
pub const WORKLOADS: usize = 16;
/// Items in one answer of the release or rollback service, as a count.
pub const LISTING: usize = 1_000;
/// How far a time given by a caller may lie in the future, in seconds.
pub const FUTURE_SECONDS: i64 = 3_600;
/// Entries in one page of a search of the log, as a count.
pub const SEARCH_PAGE: usize = 1_000;
/// Subjects listed in the summary of a log entry, as a count.
pub const SUMMARY_SUBJECTS: usize = 16;
/// Watches of the log that may be open, as a count.
pub const WATCHERS: usize = 256;
/// Watches of the log that one caller may have open, as a count.
pub const WATCHERS_EACH: usize = 32;
/// Tokens of one issuer with `single_use` that are remembered as used, as a count: some 64 bytes each.
pub const SINGLE_USE_TOKENS: usize = 262_144;
/// One request for a time-stamp, DER.
pub const STAMP_REQUEST: usize = 4_096;
/// The nonce of a request for a time-stamp.
pub const NONCE: usize = 32;
/// One certificate request (PKCS#10), in PEM or DER.
pub const CERTIFICATE_REQUEST: usize = 16 * 1024;
/// The body of one request for a certificate: a token, and a key with proof or a certificate request, in base64 and JSON.
pub const SIGNING_CERT_BODY: usize = 64 * 1024;

/// The beginning of a text that strangers wrote, or that quotes them, as an error may hold it: at most [`NAME`] characters.
pub fn quoted(text: &impl ToString) -> String {
    text.to_string().chars().take(NAME).collect()
}
