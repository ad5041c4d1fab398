//! There is one text for each value: what a parser accepts prints back to the same bytes, and what was verified does not
//! verify as anything else.

use countersign::tlog::{
    Checkpoint, Hash, Note, ProofError, Receipt, TilePath, VerifierKey, check_consistency, check_inclusion, leaf_hash,
    prove_consistency, prove_inclusion, root_of, tile,
};
use proptest::prelude::*;

use super::{LOG_KEY, log_key, model::Model};

/// A format: a sample, and what its parser and printer make of some bytes.
struct Format {
    name: &'static str,
    sample: Vec<u8>,
    reprint: fn(&[u8]) -> Option<Vec<u8>>,
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn formats() -> Vec<Format> {
    let mut bundle = Vec::new();
    for entry in [b"one".as_slice(), b"", b"three"] {
        tile::push_entry(&mut bundle, entry).unwrap();
    }
    let note: fn(&[u8]) -> _ = |bytes| Note::parse(text(bytes)?).ok().map(|note| note.to_string().into());
    let path: fn(&[u8]) -> _ = |bytes| text(bytes)?.parse::<TilePath>().ok().map(|path| path.to_string().into());
    let checkpoint = Note::parse(include_str!("../golden/tlog/checkpoint/300")).unwrap().text_unsafe().into();
    vec![
        Format { name: "note", sample: include_bytes!("../golden/tlog/checkpoint/300-cosigned").into(), reprint: note },
        Format { name: "poem", sample: include_bytes!("../golden/tlog/note/quasimodo").into(), reprint: note },
        Format {
            name: "checkpoint",
            sample: checkpoint,
            reprint: |bytes| Checkpoint::parse(text(bytes)?).ok().map(|checkpoint| checkpoint.text().into()),
        },
        Format {
            name: "key",
            sample: LOG_KEY.into(),
            reprint: |bytes| VerifierKey::parse(text(bytes)?).ok().map(|key| key.vkey().into()),
        },
        Format { name: "tile path", sample: "tile/0/x001/x234/067".into(), reprint: path },
        Format { name: "partial tile path", sample: "tile/12/x001/000.p/255".into(), reprint: path },
        Format { name: "entries path", sample: "tile/entries/000.p/1".into(), reprint: path },
        Format {
            name: "entry bundle",
            sample: bundle,
            reprint: |bytes| {
                let mut again = Vec::new();
                tile::parse_entries(bytes, 3)
                    .ok()?
                    .into_iter()
                    .try_for_each(|one| tile::push_entry(&mut again, one))?;
                Some(again)
            },
        },
        Format {
            name: "receipt",
            sample: include_bytes!("../golden/tlog/receipt/137-of-300").into(),
            reprint: |bytes| text(bytes)?.parse::<Receipt>().ok().map(|receipt| receipt.to_string().into()),
        },
    ]
}

/// Every text one edit away: each byte changed to each other, each left out, each doubled, some put in, all cut off.
fn edits(sample: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let spliced = move |at: usize, skip: usize, with: &[u8]| [&sample[..at], with, &sample[at + skip..]].concat();
    let changed = (0..sample.len()).flat_map(move |at| (0..=255).map(move |byte| spliced(at, 1, &[byte])));
    let shorter = (0..sample.len()).flat_map(move |at| [spliced(at, 1, b""), sample[..at].to_vec()]);
    let longer = (0..=sample.len()).flat_map(move |at| b"\n\r\t 0=+A/.x\0".map(|byte| spliced(at, 0, &[byte])));
    changed.chain(shorter).chain(longer).filter(move |edited| edited != sample)
}

#[test]
fn what_parses_prints_back() {
    for Format { name, sample, reprint } in formats() {
        assert_eq!(reprint(&sample).as_deref(), Some(sample.as_slice()), "{name}");
        let (mut accepted, mut refused) = (0, 0);
        for edited in edits(&sample) {
            match reprint(&edited) {
                Some(again) if again == edited => accepted += 1,
                Some(again) => panic!(
                    "{name}: {:?} reads as {:?}",
                    String::from_utf8_lossy(&edited),
                    String::from_utf8_lossy(&again)
                ),
                None => refused += 1,
            }
        }
        // A key has its own checksum; all other formats have other values nearby.
        assert!(refused > sample.len() && (accepted > 0) == (name != "key"), "{name}: {accepted}, {refused} refused");
    }
}

/// Each bit of a text turned over, as far as it is still text.
fn flips(sample: &str) -> impl Iterator<Item = String> {
    (0..sample.len() * 8).filter_map(|bit| {
        let mut bytes = sample.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        String::from_utf8(bytes).ok()
    })
}

#[test]
fn a_changed_checkpoint_does_not_verify() {
    let key = log_key();
    let golden = include_str!("../golden/tlog/checkpoint/300");
    for changed in flips(golden) {
        assert!(Checkpoint::verify(&changed, &key).is_err(), "{changed:?}");
    }
    // Beside other signatures the same checkpoint is verified, or none.
    let cosigned = include_str!("../golden/tlog/checkpoint/300-cosigned");
    let verified = Checkpoint::verify(golden, &key).unwrap();
    let outcomes: Vec<bool> = flips(cosigned)
        .map(|changed| Checkpoint::verify(&changed, &key).is_ok_and(|checkpoint| checkpoint == verified))
        .collect();
    for (changed, same) in flips(cosigned).zip(&outcomes) {
        assert_eq!(Checkpoint::verify(&changed, &key).is_ok(), *same, "{changed:?}");
    }
    assert!(outcomes.iter().any(|same| *same) && !outcomes.iter().all(|same| *same));
}

#[test]
fn a_changed_receipt_proves_nothing_else() {
    let (key, leaf) = (log_key(), leaf_hash(b"entry 137"));
    let golden = include_str!("../golden/tlog/receipt/137-of-300");
    let verified = golden.parse::<Receipt>().unwrap().verify(&leaf, &key).unwrap();
    // Extra data and the witness's line are not the log's word; nothing else may change.
    let (head, tail) = (golden.find("index").unwrap(), golden.find("\u{2014} witness").unwrap());
    for (bit, changed) in (0..golden.len() * 8).map(|bit| {
        let mut bytes = golden.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        (bit, bytes)
    }) {
        let Some(receipt) = text(&changed).and_then(|text| text.parse::<Receipt>().ok()) else { continue };
        match receipt.verify(&leaf, &key) {
            Ok(included) => {
                assert_eq!(included, verified);
                assert!(!(head..tail).contains(&(bit / 8)), "byte {} says nothing", bit / 8);
            }
            Err(_) => assert!((head..tail).contains(&(bit / 8)), "byte {} is nobody's word", bit / 8),
        }
    }
}

#[test]
fn a_changed_tile_has_another_root() {
    let log = Model::dense(256);
    let bytes: Vec<u8> = (0..256).flat_map(|index| log.leaf(index)).collect();
    let root = |bytes: &[u8]| tile::node_in(bytes.as_chunks().0, tile::HEIGHT, 0);
    let right = root(&bytes);
    assert_eq!(right, Some(log.root(0, 256)));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert_ne!(root(&changed), right, "byte {at}");
    }
    assert_eq!(root(&bytes[..bytes.len() - 1]), None);
}

/// All proofs that differ from this one in a bit, a hash left out, a hash more or two swapped.
fn spoilt(proof: &[Hash], byte: usize, bit: u32) -> Vec<Vec<Hash>> {
    let mut spoilt = Vec::new();
    for at in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[at][byte] ^= 1 << bit;
        spoilt.push(changed);
        spoilt.push([&proof[..at], &proof[at + 1..]].concat());
        spoilt.push([&proof[..=at], &proof[at..]].concat());
        let mut swapped = proof.to_vec();
        swapped.swap(at, (at + 1) % proof.len());
        spoilt.extend((swapped != proof).then_some(swapped));
    }
    spoilt.push([proof, &[[0; 32]]].concat());
    spoilt.push([&[[0; 32]], proof].concat());
    spoilt
}

proptest! {
    #[test]
    fn a_changed_proof_proves_nothing(
        size in 2_u64..300, at: prop::sample::Index, byte in 0_usize..32, bit in 0_u32..8,
    ) {
        let log = Model::dense(size);
        let index = at.index(size as usize) as u64;
        let root = root_of(size, &log).unwrap();
        let leaf = log.leaf(index);
        let proof = prove_inclusion(index, size, &log).unwrap();
        for spoilt in spoilt(&proof, byte, bit) {
            let expected = if spoilt.len() == proof.len() { ProofError::Root } else { ProofError::Length };
            prop_assert_eq!(check_inclusion(&leaf, index, size, &spoilt, &root), Err(expected));
        }
        for other in (0..size).filter(|other| *other != index) {
            prop_assert!(check_inclusion(&leaf, other, size, &proof, &root).is_err());
        }
        prop_assert_eq!(check_inclusion(&root, index, size, &proof, &root), Err(ProofError::Root));

        let from = index + 1;
        let old = root_of(from, &log).unwrap();
        let proof = prove_consistency(from, size, &log).unwrap();
        for spoilt in spoilt(&proof, byte, bit) {
            let expected = if spoilt.len() == proof.len() { ProofError::Root } else { ProofError::Length };
            prop_assert_eq!(check_consistency(from, &old, size, &root, &spoilt), Err(expected));
        }
        for (old, new) in [(&leaf, &root), (&old, &leaf)].into_iter().filter(|pair| *pair != (&old, &root)) {
            prop_assert!(check_consistency(from, old, size, new, &proof).is_err());
        }
    }
}
