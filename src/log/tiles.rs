//! The log's static resources, C2SP `tlog-tiles`: hash tiles and entry bundles of any width that they had or have.
//!
//! They go out with a promise never to change, and caches keep them for a year, so what was read from disk is checked
//! before: a stored tile against the hash of it in the tile above, a bundle's leaves against the tile below them.

use super::{Log, LogError, snapshot::Reader};
use crate::tlog::{
    Hash, HashReader as _, NodeId, TilePath, leaf_hash,
    tile::{self, HEIGHT, WIDTH},
};

impl Log {
    /// Whether the log has the resource; `false` for widths beyond what is published.
    pub fn has_resource(&self, path: TilePath) -> bool {
        let (level, index, width) = match path {
            TilePath::Hashes { level, index, width } => (level, index, width),
            TilePath::Entries { index, width } => (0, index, width),
        };
        width > 0 && width <= tile::width_in(self.size(), level, index)
    }

    /// The bytes of the hash tile (`level`, `index`) at `width` (256 is full), for `tile/<L>/<N>[.p/<W>]`.
    pub fn tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<u8>, LogError> {
        self.resource(TilePath::Hashes { level, index, width })
    }

    /// The bytes of the entry bundle `index` at `width` (256 is full), for `tile/entries/<N>[.p/<W>]`.
    pub fn entry_bundle(&self, index: u64, width: u16) -> Result<Vec<u8>, LogError> {
        self.resource(TilePath::Entries { index, width })
    }

    /// The bytes of a tile or bundle. Reads the store: call it off the async threads.
    ///
    /// # Errors
    /// [`LogError::NotFound`] for what is not published; [`LogError::Damaged`] when stored bytes contradict the tree.
    pub fn resource(&self, path: TilePath) -> Result<Vec<u8>, LogError> {
        if !self.has_resource(path) {
            return Err(LogError::NotFound);
        }
        let snapshot = self.0.shared.published();
        let reader = snapshot.reader(&self.0.shared.store);
        match path {
            TilePath::Hashes { level, index, width } => {
                let hashes = checked_tile(&reader, level, index)?;
                let hashes = hashes.get(..usize::from(width)).ok_or(LogError::NotFound)?;
                Ok(hashes.as_flattened().to_vec())
            }
            TilePath::Entries { index, width } => {
                let hashes = checked_tile(&reader, 0, index)?;
                let leaves = self.0.shared.store.leaves(index.saturating_mul(256), usize::from(width))?;
                bundle(&leaves, hashes.get(..usize::from(width)).unwrap_or_default())
                    .ok_or_else(|| LogError::Damaged(format!("a leaf of entry bundle {index} is not what was hashed")))
            }
        }
    }
}

/// The tile as wide as it is. Those at the right edge were checked when the log was opened, and are held in memory; a
/// stored one is held against what stands above it, up to the edge.
fn checked_tile(reader: &Reader<'_>, level: u8, index: u64) -> Result<Vec<Hash>, LogError> {
    let wanted = reader.tile(level, index)?;
    let (mut level, mut index, mut hashes) = (level, index, wanted.clone());
    while hashes.len() == WIDTH {
        let above = (u32::from(level) + 1) * HEIGHT;
        let node = NodeId { level: above, index };
        let known = reader.read_hashes(&[node])?;
        if known.first() != tile::node_in(&hashes, HEIGHT, 0).as_ref() {
            return Err(LogError::Damaged(format!("tile {level}/{index} is not what the tile above it says")));
        }
        (level, index) = (level + 1, index / 256);
        hashes = reader.tile(level, index)?;
    }
    Ok(wanted)
}

/// The entry bundle of these leaves, if they have these hashes.
fn bundle(leaves: &[Vec<u8>], hashes: &[Hash]) -> Option<Vec<u8>> {
    if leaves.len() != hashes.len() {
        return None;
    }
    let mut bundle = Vec::with_capacity(leaves.iter().map(|leaf| leaf.len() + 2).sum());
    for (leaf, hash) in leaves.iter().zip(hashes) {
        if leaf_hash(leaf) != *hash {
            return None;
        }
        tile::push_entry(&mut bundle, leaf)?;
    }
    Some(bundle)
}
