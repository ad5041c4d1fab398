//! Inclusion and consistency proofs: made as RFC 6962 sections 2.1.1 and 2.1.2 (RFC 9162 sections 2.1.3.1 and
//! 2.1.4.1) define them, checked by the steps of RFC 9162 sections 2.1.3.2 and 2.1.4.2.
//!
//! Both proofs are the same walk: from a complete node up to the root, noting the sibling at each step. An inclusion
//! proof walks from the leaf; a consistency proof walks from the last complete subtree of the smaller tree.

use std::cmp::Ordering;

use super::{
    hash::{EMPTY_ROOT, Hash, node_hash},
    tree::{HashReader, NodeId, RightEdge, frontier},
};

/// Why a proof does not hold, or cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not below the tree's size.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    IndexOutside {
        /// The leaf's index.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The smaller size is not smaller.
    #[error("a tree of {from} leaves is not a prefix of one of {to} leaves")]
    SizesSwapped {
        /// The size that should be smaller.
        from: u64,
        /// The size that should be larger.
        to: u64,
    },
    /// The proof has another number of hashes than it must have.
    #[error("proof has a wrong number of hashes")]
    Length,
    /// The computed root is not the given one.
    #[error("proof leads to another root")]
    Root,
    /// A hash that the proof needs could not be read.
    #[error("a hash that the proof needs is missing")]
    Missing,
}

/// What stands beside the walk at one step.
#[derive(Clone, Copy)]
enum Sibling {
    Complete(NodeId),
    Ragged(u32),
}

/// The levels of a tree of `size` leaves that have a sibling to offer: those below the root's.
const fn height(size: u64) -> u32 {
    u64::BITS - size.saturating_sub(1).leading_zeros()
}

/// The siblings on the way from the complete node `start` to the root of a tree of `size` leaves.
///
/// Where the way is the last node of a level and stands without a partner, it is its own parent: no step.
fn siblings(start: NodeId, size: u64) -> impl Iterator<Item = Sibling> {
    (start.level..height(size)).filter_map(move |level| {
        let complete = size >> level;
        let ragged = size & ((1 << level) - 1) != 0;
        let beside = (start.index >> (level - start.level)) ^ 1;
        match beside.cmp(&complete) {
            Ordering::Less => Some(Sibling::Complete(NodeId { level, index: beside })),
            Ordering::Equal if ragged => Some(Sibling::Ragged(level)),
            Ordering::Equal | Ordering::Greater => None,
        }
    })
}

/// The walk's hashes, given the right edge and a look-up of complete nodes.
fn walk(
    start: NodeId,
    edge: &RightEdge,
    mut node: impl FnMut(NodeId) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    let steps = siblings(start, edge.size());
    // A proof is made for every append. At most one hash a level, and one before them: a single allocation.
    let mut hashes = Vec::with_capacity(steps.size_hint().1.map_or(0, |levels| levels + 1));
    for step in steps {
        let hash = match step {
            Sibling::Complete(id) => node(id),
            Sibling::Ragged(level) => edge.ragged(level),
        };
        hashes.push(hash.ok_or(ProofError::Missing)?);
    }
    Ok(hashes)
}

/// The inclusion proof of leaf `index` under `edge`, with complete nodes from `node`: [`prove_inclusion`] for those who
/// hold the edge and the nodes already.
pub fn inclusion_under(
    index: u64,
    edge: &RightEdge,
    node: impl FnMut(NodeId) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    if index >= edge.size() {
        return Err(ProofError::IndexOutside { index, size: edge.size() });
    }
    walk(NodeId { level: 0, index }, edge, node)
}

/// Reads what a walk needs in one go, and walks. `first` stands before the walk's hashes, if a proof begins with one.
fn read_walk<R: HashReader>(start: NodeId, size: u64, first: Option<NodeId>, reader: &R) -> Result<Vec<Hash>, R::Error>
where
    R::Error: From<ProofError>,
{
    let edge_nodes = frontier(size);
    let complete = siblings(start, size).filter_map(|step| match step {
        Sibling::Complete(id) => Some(id),
        Sibling::Ragged(_) => None,
    });
    let wanted: Vec<NodeId> = edge_nodes.iter().copied().chain(first).chain(complete).collect();
    let hashes = reader.read_hashes(&wanted)?;
    if hashes.len() != wanted.len() {
        return Err(ProofError::Missing.into());
    }
    let (of_edge, rest) = hashes.split_at_checked(edge_nodes.len()).ok_or(ProofError::Missing)?;
    let edge = RightEdge::new(size, of_edge).ok_or(ProofError::Missing)?;
    let mut rest = rest.iter().copied();
    let first = first.and_then(|_| rest.next());
    let mut proof = walk(start, &edge, |_| rest.next())?;
    if let Some(first) = first {
        proof.insert(0, first);
    }
    Ok(proof)
}

/// The root of the first `size` leaves.
pub fn root_of<R: HashReader>(size: u64, reader: &R) -> Result<Hash, R::Error>
where
    R::Error: From<ProofError>,
{
    let hashes = reader.read_hashes(&frontier(size))?;
    let edge = RightEdge::new(size, &hashes).ok_or(ProofError::Missing)?;
    Ok(edge.root())
}

/// Proves that leaf `index` is in the tree of the first `size` leaves: `PATH(index, D[size])` of RFC 6962 section 2.1.1,
/// from the leaf's sibling up.
pub fn prove_inclusion<R: HashReader>(index: u64, size: u64, reader: &R) -> Result<Vec<Hash>, R::Error>
where
    R::Error: From<ProofError>,
{
    if index >= size {
        return Err(ProofError::IndexOutside { index, size }.into());
    }
    read_walk(NodeId { level: 0, index }, size, None, reader)
}

/// A proof of the right length whose hashes lead to the right root holds.
const fn verdict(length: bool, root: bool) -> Result<(), ProofError> {
    match (length, root) {
        (true, true) => Ok(()),
        (true, false) => Err(ProofError::Root),
        (false, _) => Err(ProofError::Length),
    }
}

/// Checks that the leaf with hash `leaf` is at `index` in the tree of `size` leaves with root `root`.
///
/// Size and root must come from one verified checkpoint. The size alone proves nothing: a proof may hold for several
/// sizes with the same root.
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutside { index, size });
    }
    // RFC 9162 section 2.1.3.2, where `at` is fn and `last` is sn.
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for step in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(step, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        at >>= 1;
        last >>= 1;
    }
    verdict(last == 0, hash == *root)
}

/// Proves that the tree of `from` leaves is a prefix of the tree of `to` leaves: `PROOF(from, D[to])` of RFC 6962 section
/// 2.1.2.
///
/// Empty when `from` is 0 or `to`: the RFC leaves these out, C2SP `tlog-witness` asks for no hashes then.
pub fn prove_consistency<R: HashReader>(from: u64, to: u64, reader: &R) -> Result<Vec<Hash>, R::Error>
where
    R::Error: From<ProofError>,
{
    if from > to {
        return Err(ProofError::SizesSwapped { from, to }.into());
    }
    if from == 0 || from == to {
        return Ok(Vec::new());
    }
    let level = from.trailing_zeros();
    let last = NodeId { level, index: (from >> level) - 1 };
    read_walk(last, to, (!from.is_power_of_two()).then_some(last), reader)
}

/// Checks that the tree (`from`, `from_root`) is a prefix of the tree (`to`, `to_root`).
///
/// With `from` 0 nothing is said of a larger tree's root, for every tree begins with the empty one; but an empty tree
/// has the one root that it can have, on either side.
pub fn check_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if from > to {
        return Err(ProofError::SizesSwapped { from, to });
    }
    if from == 0 || from == to {
        let empty_is_empty = (from > 0 || *from_root == EMPTY_ROOT) && (to > 0 || *to_root == EMPTY_ROOT);
        let same = from != to || from_root == to_root;
        return verdict(proof.is_empty(), empty_is_empty && same);
    }
    // RFC 9162 section 2.1.4.2, where `at` is fn, `last` is sn, `old` is fr and `new` is sr.
    let mut steps = proof.iter();
    let first = if from.is_power_of_two() { from_root } else { steps.next().ok_or(ProofError::Length)? };
    let shift = (from - 1).trailing_ones();
    let (mut at, mut last) = ((from - 1) >> shift, (to - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for step in steps {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if at & 1 == 1 || at == last {
            old = node_hash(step, &old);
            new = node_hash(step, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, step);
        }
        at >>= 1;
        last >>= 1;
    }
    verdict(last == 0, old == *from_root && new == *to_root)
}
