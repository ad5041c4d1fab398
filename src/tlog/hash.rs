//! RFC 6962 section 2.1 (RFC 9162 section 2.1.1): the hashes of leaves and nodes, with domain separation.
//!
//! A leaf and a node never hash the same bytes, for their first byte differs; without it, a node's children could be
//! passed off as a leaf. The trees are of SHA-256, the one algorithm that the C2SP formats know.

use sha2::{Digest as _, Sha256};

/// A SHA-256 Merkle tree hash.
pub type Hash = [u8; 32];

/// What is hashed before a leaf's bytes.
const LEAF: u8 = 0;
/// What is hashed before a node's two children.
const NODE: u8 = 1;

/// The root of the tree without leaves: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The hash of a leaf: SHA-256 of 0x00 and the leaf's bytes.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([LEAF]).chain_update(leaf).finalize().into()
}

/// The hash of an inner node: SHA-256 of 0x01 and its two children.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    // One array and one call: two blocks go to the compression function at once, without the hasher's buffer between.
    let mut bytes = [NODE; 65];
    let (_, children) = bytes.split_at_mut(1);
    let (first, second) = children.split_at_mut(32);
    first.copy_from_slice(left);
    second.copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The root over a perfect subtree's bottom row; `None` unless `row` is a power of two long.
pub fn perfect_root(row: &[Hash]) -> Option<Hash> {
    /// Halves the row until one hash is left: as deep as the subtree is high.
    fn halve(row: &[Hash]) -> Option<Hash> {
        match row {
            [] => None,
            [hash] => Some(*hash),
            _ => {
                let (left, right) = row.split_at(row.len() / 2);
                Some(node_hash(&halve(left)?, &halve(right)?))
            }
        }
    }
    row.len().is_power_of_two().then(|| halve(row)).flatten()
}
