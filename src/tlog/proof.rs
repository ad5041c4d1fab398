//! Inclusion and consistency proofs: RFC 6962 section 2.1, checked as RFC 9162 sections 2.1.3.2 and 2.1.4.2 say.
//!
//! Both proofs are the same walk: from a complete node up to the root, noting the sibling at each step. An inclusion
//! proof walks from the leaf; a consistency proof walks from the last complete subtree of the smaller tree.

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

/// The siblings on the way from the complete node (`level`, `index`) to the root of a tree of `size` leaves.
fn siblings(mut level: u32, mut index: u64, size: u64) -> Vec<Sibling> {
    let mut steps = Vec::new();
    while level < 64 && size.saturating_sub(1) >> level > 0 {
        let complete = size >> level;
        let ragged = size & ((1_u64 << level) - 1) != 0;
        let beside = index ^ 1;
        if beside < complete {
            steps.push(Sibling::Complete(NodeId { level, index: beside }));
        } else if beside == complete && ragged {
            steps.push(Sibling::Ragged(level));
        }
        index >>= 1;
        level += 1;
    }
    steps
}

/// The walk's hashes, given the right edge and a look-up of complete nodes.
fn walk(
    start: NodeId,
    edge: &RightEdge,
    mut node: impl FnMut(NodeId) -> Option<Hash>,
) -> Result<Vec<Hash>, ProofError> {
    siblings(start.level, start.index, edge.size())
        .into_iter()
        .map(|step| match step {
            Sibling::Complete(id) => node(id),
            Sibling::Ragged(level) => edge.ragged(level),
        })
        .map(|hash| hash.ok_or(ProofError::Missing))
        .collect()
}

/// The inclusion proof of leaf `index` under `edge`, with complete nodes from `node`.
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

fn read_walk<R: HashReader>(start: NodeId, size: u64, first: Option<NodeId>, reader: &R) -> Result<Vec<Hash>, R::Error>
where
    R::Error: From<ProofError>,
{
    let edge_nodes = frontier(size);
    let complete: Vec<NodeId> = siblings(start.level, start.index, size)
        .into_iter()
        .filter_map(|step| match step {
            Sibling::Complete(id) => Some(id),
            Sibling::Ragged(_) => None,
        })
        .collect();
    let wanted: Vec<NodeId> = edge_nodes.iter().chain(&first).chain(&complete).copied().collect();
    let hashes = reader.read_hashes(&wanted)?;
    let (of_edge, rest) = hashes.split_at_checked(edge_nodes.len()).ok_or(ProofError::Missing)?;
    let edge = RightEdge::new(size, of_edge).ok_or(ProofError::Missing)?;
    let mut rest = rest.iter().copied();
    let mut proof: Vec<Hash> = first.iter().filter_map(|_| rest.next()).collect();
    proof.extend(walk(start, &edge, |_| rest.next())?);
    Ok(proof)
}

/// Proves that leaf `index` is in the tree of the first `size` leaves.
pub fn prove_inclusion<R: HashReader>(index: u64, size: u64, reader: &R) -> Result<Vec<Hash>, R::Error>
where
    R::Error: From<ProofError>,
{
    if index >= size {
        return Err(ProofError::IndexOutside { index, size }.into());
    }
    read_walk(NodeId { level: 0, index }, size, None, reader)
}

/// Checks that the leaf with hash `leaf` is at `index` in the tree of `size` leaves with root `root`.
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexOutside { index, size });
    }
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
    match (last == 0, hash == *root) {
        (true, true) => Ok(()),
        (true, false) => Err(ProofError::Root),
        (false, _) => Err(ProofError::Length),
    }
}

/// Proves that the tree of `from` leaves is a prefix of the tree of `to` leaves. Empty when `from` is 0 or `to`.
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
        let expected = if from == 0 { &EMPTY_ROOT } else { to_root };
        return match (proof.is_empty(), from_root == expected) {
            (true, true) => Ok(()),
            (true, false) => Err(ProofError::Root),
            (false, _) => Err(ProofError::Length),
        };
    }
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
    match (last == 0, old == *from_root && new == *to_root) {
        (true, true) => Ok(()),
        (true, false) => Err(ProofError::Root),
        (false, _) => Err(ProofError::Length),
    }
}
