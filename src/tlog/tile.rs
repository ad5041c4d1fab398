//! C2SP `tlog-tiles`: 256-wide tiles of hashes and entry bundles, and how their paths are written.
//!
//! An entry bundle is what a tile of level 0 was hashed from: its entries, each behind its length. Not here: HTTP, nor
//! where tiles are kept.
//!
//! A tile of level `L` holds 256 nodes of tree level `8 L`. Partial tiles are prefixes of what the full tile will be;
//! their width at level `L` in a tree of `n` leaves is `floor(n / 256^L) mod 256`.

use std::{fmt, str::FromStr};

use super::hash::{Hash, perfect_root};

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: usize = 256;
/// Tree levels that one tile level spans.
pub const HEIGHT: u32 = 8;

/// What a tile path names, without the log's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TilePath {
    /// `tile/<level>/<index>[.p/<width>]`.
    Hashes {
        /// Tile level, 0 to 63.
        level: u8,
        /// Tile index.
        index: u64,
        /// 1 to 256; 256 is the full tile.
        width: u16,
    },
    /// `tile/entries/<index>[.p/<width>]`.
    Entries {
        /// Bundle index.
        index: u64,
        /// 1 to 256; 256 is the full bundle.
        width: u16,
    },
}

/// Why text is not a tile path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a tile path; expected tile/<level or entries>/<x001/x234/067>[.p/<1 to 255>]")]
pub struct TileError;

/// The width of the tile (`level`, `index`) in a tree of `size` leaves: 0 (absent) to 256 (full).
pub fn width_in(size: u64, level: u8, index: u64) -> u16 {
    let nodes = size.checked_shr(u32::from(level) * HEIGHT).unwrap_or(0);
    let start = index.saturating_mul(256);
    u16::try_from(nodes.saturating_sub(start).min(256)).unwrap_or(256)
}

/// Writes an index as `x001/x234/067`.
fn write_index(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let mut divisor = 1;
    while index / divisor >= 1_000 {
        divisor *= 1_000;
    }
    while divisor > 1 {
        write!(f, "x{:03}/", index / divisor % 1_000)?;
        divisor /= 1_000;
    }
    write!(f, "{:03}", index % 1_000)
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, width) = match *self {
            Self::Hashes { level, index, width } => {
                write!(f, "tile/{level}/")?;
                (index, width)
            }
            Self::Entries { index, width } => {
                f.write_str("tile/entries/")?;
                (index, width)
            }
        };
        write_index(f, index)?;
        if width < 256 { write!(f, ".p/{width}") } else { Ok(()) }
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Parses `x001/x234/067`; only the shortest form is accepted.
fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut parts = text.split('/').peekable();
    let mut first = true;
    while let Some(part) = parts.next() {
        let group = match parts.peek() {
            Some(_) => digits(part.strip_prefix('x')?)?,
            None => digits(part)?,
        };
        if first && group == 0 && parts.peek().is_some() {
            return None;
        }
        first = false;
        index = index.checked_mul(1_000)?.checked_add(group)?;
    }
    Some(index)
}

/// Parses a number without sign or leading zeros.
fn parse_plain<T: FromStr>(text: &str) -> Option<T> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let parse = || {
            let (kind, rest) = text.strip_prefix("tile/")?.split_once('/')?;
            let (index, width) = match rest.split_once(".p/") {
                Some((index, width)) => (index, parse_plain::<u16>(width).filter(|width| (1..256).contains(width))?),
                None => (rest, 256),
            };
            let index = parse_index(index)?;
            if kind == "entries" {
                return Some(Self::Entries { index, width });
            }
            let level = parse_plain::<u8>(kind).filter(|level| *level < 64)?;
            Some(Self::Hashes { level, index, width })
        };
        parse().ok_or(TileError)
    }
}

/// The complete node `levels` above the bottom of a tile, at `offset` there; `None` if the tile is not wide enough.
pub fn node_in(tile: &[Hash], levels: u32, offset: usize) -> Option<Hash> {
    let span = 1_usize.checked_shl(levels)?;
    let start = offset.checked_mul(span)?;
    perfect_root(tile.get(start..start.checked_add(span)?)?)
}

/// One record of an entry bundle: 16-bit length, then the entry. `None` if the entry is too long.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Option<()> {
    bundle.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
    bundle.extend_from_slice(entry);
    Some(())
}

/// Why bytes are not an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No bundle has that many entries.
    #[error("an entry bundle has 1 to 256 entries, not {0}")]
    Width(u16),
    /// The bytes end before the entries do.
    #[error("entry bundle ends within entry {at} of {width}")]
    Short {
        /// The entry's place in the bundle, from 0.
        at: u16,
        /// The number of entries that there should be.
        width: u16,
    },
    /// The entries end before the bytes do.
    #[error("entry bundle has {0} bytes after its last entry")]
    Trailing(usize),
}

/// Parses a bundle of exactly `width` entries, as [`push_entry`] writes them.
///
/// Whether they are the log's is another question: their leaf hashes must be those of the tile of level 0 beside it.
pub fn parse_entries(bundle: &[u8], width: u16) -> Result<Vec<&[u8]>, BundleError> {
    if !(1..=256).contains(&width) {
        return Err(BundleError::Width(width));
    }
    let mut entries = Vec::with_capacity(usize::from(width));
    let mut bundle = bundle;
    for at in 0..width {
        let short = BundleError::Short { at, width };
        let (length, rest) = bundle.split_first_chunk().ok_or(short)?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(short)?;
        entries.push(entry);
        bundle = rest;
    }
    if bundle.is_empty() { Ok(entries) } else { Err(BundleError::Trailing(bundle.len())) }
}
