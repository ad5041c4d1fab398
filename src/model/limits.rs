//! Every upper bound on what strangers send, in one place. Bytes unless the name says otherwise.

/// One gRPC request message.
pub const GRPC_MESSAGE: usize = 16 * 1024 * 1024;
/// One admission review body (what controller-runtime allows).
pub const ADMISSION_BODY: usize = 7 * 1024 * 1024;
/// One in-toto statement, as JSON.
pub const STATEMENT: usize = 8 * 1024 * 1024;
/// Nesting of JSON in a statement, bundle or review, in levels.
pub const JSON_DEPTH: usize = 64;
/// Subjects of one statement, as a count.
pub const SUBJECTS: usize = 1_024;
/// A subject's or resource's name.
pub const NAME: usize = 512;
/// A predicate type or other URI.
pub const URI: usize = 1_024;
/// One Sigstore bundle.
pub const BUNDLE: usize = 16 * 1024 * 1024;
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
