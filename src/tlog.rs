//! Transparency log text and arithmetic: RFC 6962 trees, and the C2SP formats `tlog-tiles`, `signed-note`,
//! `tlog-checkpoint`, `tlog-proof`, `tlog-cosignature`, `tlog-policy` and `tlog-witness`.
//!
//! Pure: nothing here reads, writes or waits. Proof code computes which hashes it needs and asks a [`HashReader`] for
//! all of them at once. What is *not* here: where hashes are stored (`store`), and who may append (`log`).
//!
//! ```text
//! hash        RFC 6962 2.1; RFC 9162 2.1.1       leaves and nodes, with domain separation
//! tree        RFC 6962 2.1                       complete nodes, the ragged right edge, appends
//! proof       RFC 6962 2.1.1, 2.1.2;             inclusion and consistency, made and checked
//!             RFC 9162 2.1.3, 2.1.4
//! tile        c2sp.org/tlog-tiles                tiles, entry bundles and their paths
//! note        c2sp.org/signed-note               text with signature lines
//! checkpoint  c2sp.org/tlog-checkpoint           origin, size and root, as a note
//! receipt     c2sp.org/tlog-proof                entry index, inclusion proof and checkpoint in one file
//! ```
//!
//! Every parser is bounded, and what it accepts prints back to the same bytes; so there is one text for each value, and
//! nothing rides along unseen.

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
