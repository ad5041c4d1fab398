//! Tree arithmetic against a ten-line model and a foreign crate; C2SP vectors; malleability.

use countersign::tlog::{
    Checkpoint, Delta, Hash, HashReader, NodeId, Note, NoteError, ProofError, TilePath, VerifierKey, check_consistency,
    check_inclusion, leaf_hash, node_hash, prove_consistency, prove_inclusion, root_of, tile,
};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

/// RFC 6962 section 2.1, word for word.
fn model_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&model_root(left), &model_root(right))
        }
    }
}

struct Model(Vec<Hash>);

impl HashReader for Model {
    type Error = ProofError;

    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, ProofError> {
        let range = |node: &NodeId| (node.index << node.level) as usize..((node.index + 1) << node.level) as usize;
        nodes.iter().map(|node| self.0.get(range(node)).map(model_root).ok_or(ProofError::Missing)).collect()
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

#[test]
fn roots_and_all_proofs_agree_with_the_model() {
    let all = Model(leaves(80));
    for size in 0..=80_u64 {
        let root = model_root(&all.0[..size as usize]);
        assert_eq!(root_of(size, &all).unwrap(), root);
        for index in 0..size {
            let proof = prove_inclusion(index, size, &all).unwrap();
            check_inclusion(&all.0[index as usize], index, size, &proof, &root).unwrap();
        }
        for from in 0..=size {
            let proof = prove_consistency(from, size, &all).unwrap();
            check_consistency(from, &model_root(&all.0[..from as usize]), size, &root, &proof).unwrap();
        }
    }
    assert_eq!(prove_inclusion(5, 5, &all), Err(ProofError::IndexOutside { index: 5, size: 5 }));
    assert_eq!(prove_consistency(6, 5, &all), Err(ProofError::SizesSwapped { from: 6, to: 5 }));
}

#[test]
fn a_foreign_crate_makes_the_same_proofs() {
    let mut foreign = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let all = Model(leaves(150));
    for size in 1..=150_u64 {
        foreign.push((size - 1).to_be_bytes().to_vec());
        assert_eq!(foreign.root().as_bytes().as_slice(), root_of(size, &all).unwrap());
        for index in [0, size / 3, size / 2, size - 1] {
            let ours = prove_inclusion(index, size, &all).unwrap();
            assert_eq!(foreign.prove_inclusion(index as usize).as_bytes(), ours.as_flattened());
        }
        for from in [1, size / 2, size - 1].into_iter().filter(|from| (1..size).contains(from)) {
            let ours = prove_consistency(from, size, &all).unwrap();
            assert_eq!(foreign.prove_consistency((size - from) as usize).as_bytes(), ours.as_flattened());
        }
    }
}

proptest! {
    #[test]
    fn appending_in_any_batches_gives_the_one_shot_tree(batches in prop::collection::vec(1_u64..70, 1..8)) {
        let total = batches.iter().sum::<u64>();
        let all = Model(leaves(total));
        let (mut size, mut frontier) = (0, Vec::new());
        for batch in batches {
            let new = &all.0[size as usize..(size + batch) as usize];
            let delta = Delta::append(size, &frontier, new).unwrap();
            let root = model_root(&all.0[..(size + batch) as usize]);
            prop_assert_eq!(delta.edge().root(), root);
            for index in size..size + batch {
                let proof = countersign::tlog::proof::inclusion_under(index, delta.edge(), |node| delta.node(node)).unwrap();
                prop_assert_eq!(&proof, &prove_inclusion(index, size + batch, &all).unwrap());
            }
            (size, frontier) = (size + batch, delta.frontier());
        }
        prop_assert!(Delta::append(size, &[], &[[0; 32]]).is_none() || size == 0);
    }

    #[test]
    fn a_changed_proof_proves_nothing(size in 2_u64..300, at in any::<prop::sample::Index>(), byte in 0_usize..32, bit in 0_u32..8) {
        let all = Model(leaves(size));
        let index = at.index(size as usize) as u64;
        let root = root_of(size, &all).unwrap();
        let proof = prove_inclusion(index, size, &all).unwrap();
        let leaf = all.0[index as usize];
        for step in 0..proof.len() {
            let mut changed = proof.clone();
            changed[step][byte] ^= 1 << bit;
            prop_assert_eq!(check_inclusion(&leaf, index, size, &changed, &root), Err(ProofError::Root));
        }
        prop_assert!(check_inclusion(&leaf, index, size, &proof[1..], &root).is_err());
        prop_assert!(check_inclusion(&leaf, index, size, &[proof.clone(), vec![[0; 32]]].concat(), &root).is_err());
        prop_assert!(check_inclusion(&leaf, index ^ 1, size, &proof, &root).is_err());
        let from_root = root_of(index, &all).unwrap();
        let proof = prove_consistency(index, size, &all).unwrap();
        for step in 0..proof.len() {
            let mut changed = proof.clone();
            changed[step][byte] ^= 1 << bit;
            prop_assert_eq!(check_consistency(index, &from_root, size, &root, &changed), Err(ProofError::Root));
        }
    }

    #[test]
    fn tile_paths_print_and_parse(level in 0_u8..64, index in any::<u64>(), width in 1_u16..=256, entries: bool) {
        let path = if entries { TilePath::Entries { index, width } } else { TilePath::Hashes { level, index, width } };
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }
}

#[test]
fn tile_paths_are_those_of_the_specification() {
    let path = TilePath::Hashes { level: 0, index: 1_234_067, width: 256 };
    assert_eq!(path.to_string(), "tile/0/x001/x234/067");
    assert_eq!(TilePath::Entries { index: 0, width: 3 }.to_string(), "tile/entries/000.p/3");
    for bad in [
        "tile/0/67",
        "tile/0/x000/067",
        "tile/0/001/067",
        "tile/64/000",
        "tile/00/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/07",
        "tile/0/x001",
        "tile/0/+01",
        "tile/entries",
        "tile/-1/000",
        "checkpoint",
        "",
        "tile/0/000/",
        "tile/0/x18446744073709551616/000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(bad.parse::<TilePath>().is_err(), "{bad}");
    }
    assert_eq!(tile::width_in(70_000, 0, 273), 112);
    assert_eq!(tile::width_in(70_000, 1, 1), 17);
    assert_eq!(tile::width_in(70_000, 2, 0), 1);
    assert_eq!(tile::width_in(70_000, 3, 0), 0);
}

#[test]
fn keys_are_those_of_the_specification() {
    let vector = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let key = VerifierKey::parse(vector).unwrap();
    assert_eq!(key.vkey(), vector);
    for bad in [
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/fo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a",
    ] {
        assert_eq!(VerifierKey::parse(bad), Err(NoteError::Key), "{bad}");
    }
    assert_eq!(VerifierKey::parse("+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"), Err(NoteError::Name));
    // The log id of Rekor v2 is SHA-256(name || 0x0A || 0x01 || key); sigstore.md section 3.
    let mut formula = b"example.com/foo\n\x01".to_vec();
    formula.extend_from_slice(key.public());
    assert_eq!(key.hash().as_slice(), Sha256::digest(formula).as_slice());
    assert_eq!(VerifierKey::new("a b", [0; 32]), Err(NoteError::Name));
}

#[test]
fn every_changed_byte_of_a_checkpoint_is_refused() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = VerifierKey::new("log.example", pair.public_key().as_ref().try_into().unwrap()).unwrap();
    let checkpoint = Checkpoint { origin: "log.example".to_owned(), size: 42, root: [9; 32] };
    let note = checkpoint.sign(&key, |message| pair.sign(message).as_ref().try_into().unwrap()).unwrap();
    assert_eq!(Checkpoint::verify(&note, &key).unwrap(), checkpoint);
    assert_eq!(Note::parse(&note).unwrap().to_string(), note);
    for at in 0..note.len() {
        for bit in 0..7 {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Checkpoint::verify(&changed, &key).is_err(), "byte {at} bit {bit}: {changed:?}");
            }
        }
    }
    let other = VerifierKey::new("log.example", [3; 32]).unwrap();
    assert!(Checkpoint::verify(&note, &other).is_err());
    // A signature of an unknown key beside ours is ignored.
    let more = format!("{note}\u{2014} witness.example AAAAAAAA\n");
    assert_eq!(Checkpoint::verify(&more, &key).unwrap(), checkpoint);
    for text in ["log.example\n042\nAA==\n", "log.example\n1\n", "log.example\n1\nAAAA\nmore\n", "", "\n1\nAAAA\n"] {
        assert!(Checkpoint::parse(text).is_err(), "{text:?}");
    }
}
