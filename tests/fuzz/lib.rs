//! The pure part of the crate under test, its parsers and its log arithmetic: the same sources, without RocksDB and all the
//! rest. Each block has the modules of `src/model.rs` or `src/tlog.rs`, and what they give by a shorter name; a test of the
//! main package sees to that.

extern crate self as countersign;

pub mod bodies;

#[path = "../../src/model"]
#[allow(unused_imports, reason = "names that the model gives to the rest of the main package")]
pub mod model {
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
}

#[path = "../../src/tlog"]
pub mod tlog {
    pub mod checkpoint;
    pub mod cosignature;
    pub mod hash;
    pub mod note;
    pub mod policy;
    pub mod proof;
    pub mod receipt;
    pub mod tile;
    pub mod tree;
    pub mod witness;

    pub use checkpoint::{Checkpoint, CheckpointError};
    pub use cosignature::{CosignerKey, LogKey};
    pub use hash::{EMPTY_ROOT, Hash, leaf_hash, node_hash};
    pub use note::{Note, NoteError, SignatureLine, VerifierKey};
    pub use policy::{Policy, PolicyDenial, PolicyError, Witnessed};
    pub use proof::{ProofError, check_consistency, check_inclusion, prove_consistency, prove_inclusion, root_of};
    pub use receipt::{Included, Receipt, ReceiptError};
    pub use tile::{BundleError, TileError, TilePath};
    pub use tree::{Delta, HashReader, NodeId, RightEdge};
}
