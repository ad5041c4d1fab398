//! C2SP `tlog-tiles`: paths, widths, tiles and entry bundles.

use countersign::tlog::{BundleError, Hash, TileError, TilePath, hash::perfect_root, tile};
use proptest::prelude::*;

use super::model::Model;

#[test]
fn paths_are_those_of_the_specification() {
    for (path, text) in [
        (TilePath::Hashes { level: 0, index: 1_234_067, width: 256 }, "tile/0/x001/x234/067"),
        (TilePath::Hashes { level: 1, index: 1, width: 17 }, "tile/1/001.p/17"),
        (TilePath::Hashes { level: 63, index: u64::MAX, width: 1 }, "tile/63/x018/x446/x744/x073/x709/x551/615.p/1"),
        (TilePath::Hashes { level: 0, index: 1_000, width: 256 }, "tile/0/x001/000"),
        (TilePath::Hashes { level: 0, index: 999, width: 256 }, "tile/0/999"),
        (TilePath::Entries { index: 0, width: 3 }, "tile/entries/000.p/3"),
        (TilePath::Entries { index: 273, width: 112 }, "tile/entries/273.p/112"),
    ] {
        assert_eq!(path.to_string(), text);
        assert_eq!(text.parse(), Ok(path));
    }
}

#[test]
fn paths_that_are_not_of_the_form_are_refused() {
    for bad in [
        "",
        "checkpoint",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/entries",
        "tile//000",
        "/tile/0/000",
        "tile/0/67",
        "tile/0/0067",
        "tile/0/x000/067",
        "tile/0/x01/067",
        "tile/0/001/067",
        "tile/0/x001",
        "tile/0/x001/x067",
        "tile/0/X001/067",
        "tile/0/+01",
        "tile/0/000/",
        "tile/0/000 ",
        "tile/64/000",
        "tile/256/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/65537",
        "tile/0/000.p/07",
        "tile/0/000.p/+7",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p/1/",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x18446744073709551616/000",
        "tile/entries/00\u{0660}",
    ] {
        assert_eq!(bad.parse::<TilePath>(), Err(TileError), "{bad}");
    }
}

#[test]
fn widths_are_those_of_the_specification() {
    // Its example: 70,000 leaves are 273 full tiles and one of 112; above them one full and one of 17; above these one
    // of one. 256 leaves are a full tile and, above it, one of one.
    for (size, level, index, width) in [
        (70_000, 0, 0, 256),
        (70_000, 0, 272, 256),
        (70_000, 0, 273, 112),
        (70_000, 0, 274, 0),
        (70_000, 1, 0, 256),
        (70_000, 1, 1, 17),
        (70_000, 1, 2, 0),
        (70_000, 2, 0, 1),
        (70_000, 2, 1, 0),
        (70_000, 3, 0, 0),
        (256, 0, 0, 256),
        (256, 1, 0, 1),
        (255, 1, 0, 0),
        (0, 0, 0, 0),
        (u64::MAX, 7, 0, 255),
        (u64::MAX, 7, 1, 0),
        (u64::MAX, 8, 0, 0),
        (u64::MAX, 63, 0, 0),
        (u64::MAX, 255, 0, 0),
        (u64::MAX, 0, u64::MAX / 256, 255),
        (u64::MAX, 0, u64::MAX / 256 + 1, 0),
        (u64::MAX, 0, u64::MAX, 0),
    ] {
        assert_eq!(tile::width_in(size, level, index), width, "tile {level}/{index} of {size}");
    }
}

proptest! {
    #[test]
    fn paths_print_and_parse(level in 0_u8..64, index: u64, down in 0_u32..64, width in 1_u16..=256, entries: bool) {
        let index = index >> down;
        let path = if entries { TilePath::Entries { index, width } } else { TilePath::Hashes { level, index, width } };
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }

    #[test]
    fn widths_follow_the_formula(size: u64, down in 0_u32..64, level in 0_u8..64, index in 0_u64..1_000) {
        let size = size >> down;
        // floor(s / 256^l) nodes, of which this tile has those from 256 n.
        let nodes = u128::from(size) / 256_u128.checked_pow(u32::from(level)).unwrap_or(u128::MAX);
        let expected = nodes.saturating_sub(256 * u128::from(index)).min(256) as u16;
        prop_assert_eq!(tile::width_in(size, level, index), expected);
    }
}

#[test]
fn nodes_inside_a_tile_are_those_of_the_model() {
    let log = Model::dense(256);
    let leaves: Vec<Hash> = (0..256).map(|index| log.leaf(index)).collect();
    for width in [1, 2, 3, 100, 255, 256] {
        for level in 0..=tile::HEIGHT {
            for offset in 0..=256_usize >> level {
                let complete = (offset + 1) << level <= width;
                let expected = complete.then(|| log.root((offset << level) as u64, 1 << level));
                assert_eq!(tile::node_in(&leaves[..width], level, offset), expected, "{level}/{offset} of {width}");
            }
        }
    }
    for (levels, offset) in [(9, 0), (64, 0), (u32::MAX, 0), (0, usize::MAX), (8, usize::MAX / 2)] {
        assert_eq!(tile::node_in(&leaves, levels, offset), None);
    }
    for count in 0..=256 {
        let expected = usize::is_power_of_two(count).then(|| log.root(0, count as u64));
        assert_eq!(perfect_root(&leaves[..count]), expected, "{count}");
    }
}

fn bundle(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bundle = Vec::new();
    for entry in entries {
        tile::push_entry(&mut bundle, entry).unwrap();
    }
    bundle
}

#[test]
fn bundles_are_those_of_the_specification() {
    let entries = [b"first".to_vec(), Vec::new(), vec![7; 300]];
    let bytes = bundle(&entries);
    assert_eq!(bytes[..9], *b"\x00\x05first\x00\x00");
    assert_eq!(bytes[9..11], [1, 44], "lengths are big-endian");
    assert_eq!(tile::parse_entries(&bytes, 3).unwrap(), entries);
    assert_eq!(tile::parse_entries(&bytes, 2), Err(BundleError::Trailing(302)));
    assert_eq!(tile::parse_entries(&bytes, 4), Err(BundleError::Short { at: 3, width: 4 }));
    assert_eq!(tile::parse_entries(&bytes[..9], 3), Err(BundleError::Short { at: 2, width: 3 }));
    assert_eq!(tile::parse_entries(&bytes[..10], 3), Err(BundleError::Short { at: 2, width: 3 }));
    assert_eq!(tile::parse_entries(&bytes[..310], 3), Err(BundleError::Short { at: 2, width: 3 }));
    assert_eq!(tile::parse_entries(&[], 1), Err(BundleError::Short { at: 0, width: 1 }));
    for width in [0, 257, u16::MAX] {
        assert_eq!(tile::parse_entries(&[], width), Err(BundleError::Width(width)));
    }
    let full = bundle(&vec![vec![0; 65_535]; 256]);
    assert_eq!(tile::parse_entries(&full, 256).unwrap().len(), 256);
}

#[test]
fn an_entry_that_is_too_long_is_refused_and_leaves_nothing_behind() {
    let mut bundle = b"before".to_vec();
    assert_eq!(tile::push_entry(&mut bundle, &vec![0; 65_536]), None);
    assert_eq!(bundle, b"before");
}

proptest! {
    #[test]
    fn bundles_of_any_entries_are_read_back(
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..=256), cut: prop::sample::Index,
    ) {
        let bytes = bundle(&entries);
        let width = entries.len() as u16;
        prop_assert_eq!(tile::parse_entries(&bytes, width).unwrap(), entries);
        prop_assert!(tile::parse_entries(&bytes[..cut.index(bytes.len())], width).is_err());
        prop_assert!(tile::parse_entries(&bytes, width - 1).is_err());
        prop_assert!(tile::parse_entries(&bytes, width + 1).is_err());
    }
}
