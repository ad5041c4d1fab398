//! The shape of an RFC 6962 section 2.1 tree: complete nodes, the ragged right edge, and what an append adds.
//!
//! Not here: which nodes a proof needs and how it is checked (`proof`), nor where hashes are stored ([`HashReader`]).
//!
//! A *complete* node (level `l`, index `i`) covers the leaves `i << l .. (i + 1) << l` and never changes. In a tree of
//! `n` leaves each level has `n >> l` complete nodes and at most one *ragged* node, to their right, which covers what
//! is left over. All proofs and roots follow from complete nodes; the ragged ones follow from the frontier, the last
//! complete node of each level whose bit is set in `n`.

use super::hash::{EMPTY_ROOT, Hash, node_hash};

/// The number of levels that a tree of `u64` leaves can have.
const LEVELS: u32 = 64;

/// A complete node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Height above the leaves, 0 to 63.
    pub level: u32,
    /// Position among the nodes of its level, from the left.
    pub index: u64,
}

/// Where the hashes of complete nodes come from.
pub trait HashReader {
    /// Why a hash could not be read.
    type Error;

    /// The hashes of `nodes`, in their order; exactly as many.
    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, Self::Error>;
}

/// The frontier of a tree of `size` leaves, from low to high: one complete node for each bit set in `size`.
pub fn frontier(size: u64) -> Vec<NodeId> {
    (0..LEVELS)
        .filter(|level| size >> level & 1 == 1)
        .map(|level| NodeId { level, index: (size >> level) - 1 })
        .collect()
}

/// The ragged right edge of one tree size, computed from its frontier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RightEdge {
    size: u64,
    /// For each bit set in `size`, from low to high: what that frontier node and all to its right hash to.
    edges: Vec<Hash>,
}

impl RightEdge {
    /// Computes the edge of a tree of `size` leaves from the hashes of [`frontier`]`(size)`.
    ///
    /// Returns `None` if there are not exactly as many hashes as the frontier has nodes.
    pub fn new(size: u64, hashes: &[Hash]) -> Option<Self> {
        if u64::try_from(hashes.len()).ok()? != u64::from(size.count_ones()) {
            return None;
        }
        let mut edges: Vec<Hash> = Vec::with_capacity(hashes.len());
        for node in hashes {
            edges.push(edges.last().map_or(*node, |right| node_hash(node, right)));
        }
        Some(Self { size, edges })
    }

    /// The number of leaves.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree's root.
    pub fn root(&self) -> Hash {
        self.edges.last().copied().unwrap_or(EMPTY_ROOT)
    }

    /// The ragged node of `level`: what covers the leaves to the right of the level's complete nodes; `None` if there
    /// are none. Above the topmost complete node that is the root.
    pub fn ragged(&self, level: u32) -> Option<Hash> {
        let beneath = self.size & 1_u64.checked_shl(level).map_or(u64::MAX, |bit| bit - 1);
        let highest = beneath.count_ones().checked_sub(1)?;
        self.edges.get(usize::try_from(highest).ok()?).copied()
    }
}

/// What an append of leaves adds to a tree: every complete node that is new, and beside them the old frontier, which
/// is all that a proof of a new leaf can need.
#[derive(Debug, Clone)]
pub struct Delta {
    old: u64,
    edge: RightEdge,
    /// By level: the index of the first node held, and the nodes from there on without gap.
    levels: Vec<(u64, Vec<Hash>)>,
}

impl Delta {
    /// Appends `leaves` (leaf hashes) to a tree of `old` leaves whose frontier has the hashes `frontier`, low to high.
    ///
    /// Returns `None` if `frontier` does not fit `old` or the tree would be too large.
    pub fn append(old: u64, frontier: &[Hash], leaves: &[Hash]) -> Option<Self> {
        let size = old.checked_add(u64::try_from(leaves.len()).ok()?)?;
        let mut old_nodes = frontier.iter().copied();
        let mut levels: Vec<(u64, Vec<Hash>)> = Vec::new();
        let mut added = leaves.to_vec();
        let mut new_frontier = Vec::new();
        for level in 0..LEVELS - size.leading_zeros() {
            let held_before = old >> level & 1 == 1;
            let mut nodes = Vec::with_capacity(added.len() + 1);
            if held_before {
                nodes.push(old_nodes.next()?);
            }
            nodes.append(&mut added);
            added = nodes.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
            if size >> level & 1 == 1 {
                new_frontier.push(*nodes.last()?);
            }
            levels.push(((old >> level) - u64::from(held_before), nodes));
        }
        if old_nodes.next().is_some() {
            return None;
        }
        Some(Self { old, edge: RightEdge::new(size, &new_frontier)?, levels })
    }

    /// The tree's size before.
    pub const fn old_size(&self) -> u64 {
        self.old
    }

    /// The right edge after.
    pub const fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// The hashes of the new frontier, low to high.
    pub fn frontier(&self) -> Vec<Hash> {
        frontier(self.edge.size()).into_iter().filter_map(|node| self.node(node)).collect()
    }

    /// A complete node, if it is new or of the old frontier.
    pub fn node(&self, node: NodeId) -> Option<Hash> {
        let (first, nodes) = self.levels.get(usize::try_from(node.level).ok()?)?;
        nodes.get(usize::try_from(node.index.checked_sub(*first)?).ok()?).copied()
    }

    /// The complete nodes that are new at `level`.
    pub fn new_nodes(&self, level: u32) -> &[Hash] {
        let skip = usize::from(self.old.checked_shr(level).unwrap_or(0) & 1 == 1);
        usize::try_from(level)
            .ok()
            .and_then(|level| self.levels.get(level))
            .and_then(|(_, nodes)| nodes.get(skip..))
            .unwrap_or_default()
    }
}
