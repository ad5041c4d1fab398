//! The field's nouns and the rules over them.
//!
//! Pure: no I/O, no clock (time is passed in), no async, nothing of tonic, of a client of Kubernetes, or of `RocksDB`. What
//! others wrote is taken apart here, once, into types that are bounded by [`limits`]; so each parser can be fuzzed by itself
//! (`tests/fuzz`).

pub mod bundle;
pub mod certificate;
pub mod certificate_request;
pub mod challenge;
pub mod deployment;
pub mod digest;
pub mod discovery;
pub mod docker_config;
pub mod evidence;
pub mod facts;
pub mod identity;
pub mod image;
pub mod image_manifest;
pub mod json;
pub mod judge;
pub mod kek;
pub mod key_name;
pub mod key_set;
pub mod key_uri;
pub mod leaf;
pub mod legacy;
pub mod limits;
pub mod manifest;
pub mod object;
pub mod peer;
pub mod policy;
pub mod possession;
pub mod predicate;
pub mod public_key;
pub mod readiness;
pub mod referrers;
pub mod retry_after;
pub mod review;
pub mod revocation;
pub mod spiffe;
pub mod stamp_refusal;
pub mod stamp_request;
pub mod statement;
pub mod submission;
pub mod template;
pub mod timeout;
pub mod token;
pub mod token_reply;
pub mod trusted_root;
pub mod tuf;
pub mod verdict;
pub mod verify;

pub use certificate::{Extension, Extensions};
pub use digest::{Digest, DigestError};
pub use evidence::{Evidence, Outcome, Source};
pub use identity::{Caller, Identity, Role};
pub use image::{ImageName, ImageRef};
pub use key_name::{KeyName, KeyNameError};
pub use public_key::{PublicKey, PublicKeyError, Scheme};
pub use revocation::{Revocation, Revocations};
pub use statement::{Statement, StatementError, Subject};
pub use trusted_root::TrustedRoot;
pub use verdict::{Decision, LogRef, Reason, Verdict};
pub use verify::{Rejection, Signer, Verified};
