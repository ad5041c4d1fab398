//! RFC 6962 section 2.1 word for word, with a memory.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt,
};

use countersign::tlog::{Hash, HashReader, NodeId, ProofError};
use sha2::{Digest as _, Sha256};

/// A tree of any size: the leaves in `odd` are all different, the others are all the same.
///
/// A range without odd leaves hashes to the same wherever it is, so that trees of 2^60 leaves are at hand. Shares no code
/// with what it is held against.
pub struct Model {
    odd: BTreeSet<u64>,
    known: RefCell<HashMap<(Option<u64>, u64), Hash>>,
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The largest power of two smaller than `count`.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

impl Model {
    /// Leaves that are all different up to `count`.
    pub fn dense(count: u64) -> Self {
        Self::sparse(0..count)
    }

    /// Leaves that are all the same but for these.
    pub fn sparse(odd: impl IntoIterator<Item = u64>) -> Self {
        Self { odd: odd.into_iter().collect(), known: RefCell::default() }
    }

    /// The bytes of a leaf.
    pub fn entry(&self, index: u64) -> Vec<u8> {
        if self.odd.contains(&index) { format!("entry {index}").into_bytes() } else { b"the same".to_vec() }
    }

    /// The hash of a leaf.
    pub fn leaf(&self, index: u64) -> Hash {
        Sha256::new().chain_update([0]).chain_update(self.entry(index)).finalize().into()
    }

    /// `MTH(D[start:start + count])`.
    pub fn root(&self, start: u64, count: u64) -> Hash {
        if count == 0 {
            return Sha256::digest([]).into();
        }
        let has_odd = self.odd.range(start..=start + (count - 1)).next().is_some();
        let place = (has_odd.then_some(start), count);
        if let Some(known) = self.known.borrow().get(&place) {
            return *known;
        }
        let hash = match count {
            1 => self.leaf(start),
            _ => node(&self.root(start, split(count)), &self.root(start + split(count), count - split(count))),
        };
        self.known.borrow_mut().insert(place, hash);
        hash
    }

    /// `PATH(index, D[start:start + count])`, RFC 6962 section 2.1.1.
    pub fn path(&self, index: u64, start: u64, count: u64) -> Vec<Hash> {
        if count == 1 {
            return Vec::new();
        }
        let k = split(count);
        let (mut path, beside) = if index < k {
            (self.path(index, start, k), self.root(start + k, count - k))
        } else {
            (self.path(index - k, start + k, count - k), self.root(start, k))
        };
        path.push(beside);
        path
    }

    /// `SUBPROOF(from, D[start:start + count], whole)`, RFC 6962 section 2.1.2.
    pub fn subproof(&self, from: u64, start: u64, count: u64, whole: bool) -> Vec<Hash> {
        if from == count {
            return if whole { Vec::new() } else { vec![self.root(start, count)] };
        }
        let k = split(count);
        let (mut proof, beside) = if from <= k {
            (self.subproof(from, start, k, whole), self.root(start + k, count - k))
        } else {
            (self.subproof(from - k, start + k, count - k, false), self.root(start, k))
        };
        proof.push(beside);
        proof
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("odd", &self.odd).finish_non_exhaustive()
    }
}

impl HashReader for Model {
    type Error = ProofError;

    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, ProofError> {
        Ok(nodes.iter().map(|node| self.root(node.index << node.level, 1 << node.level)).collect())
    }
}
