//! Transparency log text and arithmetic: RFC 6962 trees, and the C2SP formats `tlog-tiles`, `signed-note`,
//! `tlog-checkpoint`, `tlog-cosignature`, `tlog-policy` and `tlog-witness`.
//!
//! Pure: nothing here reads, writes or waits. Proof code computes which hashes it needs and asks a [`HashReader`] for
//! all of them at once. What is *not* here: where hashes are stored (`store`), and who may append (`log`).

pub mod checkpoint;
pub mod cosignature;
pub mod hash;
pub mod note;
pub mod policy;
pub mod proof;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosignature::{CosignerKey, LogKey};
pub use hash::{EMPTY_ROOT, Hash, leaf_hash, node_hash};
pub use note::{Note, NoteError, SignatureLine, VerifierKey};
pub use policy::{Policy, PolicyDenial, PolicyError, Witnessed};
pub use proof::{ProofError, check_consistency, check_inclusion, prove_consistency, prove_inclusion};
pub use tile::{TileError, TilePath};
pub use tree::{Delta, HashReader, NodeId, RightEdge, root_of};
