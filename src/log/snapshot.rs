//! One published state of the log, and reading hashes under it.
//!
//! Full tiles come from the store; the partial tiles of the right edge are kept here, in memory: they are at most
//! 255 hashes per level, and follow from the last leaves and tiles when the log is opened.

use std::sync::Arc;

use super::LogError;
use crate::{
    store::Store,
    tlog::{
        Hash, HashReader, NodeId,
        tile::{self, HEIGHT, WIDTH},
    },
};

/// The signed head of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The signed checkpoint that says so.
    pub checkpoint: Arc<str>,
}

/// A head with the partial tiles that belong to it. Never changes once made.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) head: Head,
    /// By tile level: the hashes of the partial tile at the right edge.
    pub(super) partial: Vec<Vec<Hash>>,
}

/// Reads hashes of complete nodes of `size` leaves.
pub(super) struct Reader<'a> {
    pub(super) store: &'a Store,
    pub(super) size: u64,
    pub(super) partial: &'a [Vec<Hash>],
}

impl Snapshot {
    pub(super) fn reader<'a>(&'a self, store: &'a Store) -> Reader<'a> {
        Reader { store, size: self.head.size, partial: &self.partial }
    }
}

fn damaged(level: u8, index: u64) -> LogError {
    LogError::Damaged(format!("tile {level}/{index} is missing or short"))
}

impl Reader<'_> {
    /// The tile (`level`, `index`) as wide as it is in this state.
    pub(super) fn tile(&self, level: u8, index: u64) -> Result<Vec<Hash>, LogError> {
        match usize::from(tile::width_in(self.size, level, index)) {
            0 => Err(LogError::NotFound),
            WIDTH => self.store.tile(level, index)?.ok_or_else(|| damaged(level, index)),
            width => {
                let edge = self.partial.get(usize::from(level)).ok_or_else(|| damaged(level, index))?;
                edge.get(..width).map(<[Hash]>::to_vec).ok_or_else(|| damaged(level, index))
            }
        }
    }
}

impl HashReader for Reader<'_> {
    type Error = LogError;

    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, LogError> {
        // One proof asks several times for the same few tiles.
        let mut tiles: Vec<(u8, u64, Vec<Hash>)> = Vec::new();
        let mut hashes = Vec::with_capacity(nodes.len());
        for node in nodes {
            let (level, inside) = (u8::try_from(node.level / HEIGHT).unwrap_or(u8::MAX), node.level % HEIGHT);
            let per_tile = 1_u64 << (HEIGHT - inside);
            let (index, offset) = (node.index / per_tile, usize::try_from(node.index % per_tile).unwrap_or(WIDTH));
            if !tiles.iter().any(|(l, i, _)| (*l, *i) == (level, index)) {
                tiles.push((level, index, self.tile(level, index)?));
            }
            let found = tiles.iter().find(|(l, i, _)| (*l, *i) == (level, index));
            let hash = found.and_then(|(_, _, hashes)| tile::node_in(hashes, inside, offset));
            hashes.push(hash.ok_or_else(|| damaged(level, index))?);
        }
        Ok(hashes)
    }
}
