//! The crate under test, cut down to its pure parsers and its log arithmetic: the same sources, without RocksDB and all the
//! rest.
//!
//! That they compile here also shows that they need nothing else.

extern crate self as countersign;

pub mod bodies;

#[path = "../../src/model"]
pub mod model {
    pub mod bundle;
    pub mod certificate;
    pub mod certificate_request;
    pub mod challenge;
    pub mod digest;
    pub mod facts;
    pub mod identity;
    pub mod image;
    pub mod json;
    pub mod key_name;
    pub mod key_set;
    pub mod key_uri;
    pub mod leaf;
    pub mod legacy;
    pub mod limits;
    pub mod possession;
    pub mod predicate;
    pub mod public_key;
    pub mod stamp_refusal;
    pub mod stamp_request;
    pub mod statement;
    pub mod submission;
    pub mod token;
    pub mod trusted_root;
    pub mod tuf;
    pub mod verdict;
    pub mod verify;

    // By these names they use each other.
    pub use self::{
        digest::{Digest, DigestError},
        identity::Identity,
        public_key::{PublicKey, PublicKeyError, Scheme},
    };
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
}
