//! The crate under test, cut down to its pure log arithmetic and the parsers of requests that are pure too: the same
//! sources, without RocksDB and all the rest.
//!
//! That they compile here also shows that they need nothing else.

extern crate self as countersign;

pub mod bodies;

#[path = "../../src/model"]
pub mod model {
    pub mod certificate_request;
    pub mod limits;
    pub mod public_key;
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
