//! Four crates that others wrote, asked the same questions: `ct-merkle`, `sigstore-merkle`, `tlog_tiles`, `signed_note`.
//!
//! Where a peer is known to answer differently, the test says so and why; everywhere else the answers must agree.

use std::{collections::HashMap, panic::catch_unwind};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::tlog::{
    Checkpoint, Hash, Note, TilePath, VerifierKey, check_consistency, check_inclusion, prove_consistency,
    prove_inclusion, root_of, tile,
};
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use proptest::prelude::*;
use sha2::Sha256;
use sigstore_merkle::{hash_children, hash_leaf, verify_consistency_proof, verify_inclusion_proof};
use sigstore_types::Sha256Hash;
use tlog_tiles::{HashReader as _, TileHashReader, TileReader};

use super::{LOG_KEY, log_key, model::Model, sign};

fn sigstore(hash: &Hash) -> Sha256Hash {
    Sha256Hash::new(*hash)
}

fn tlog(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash)
}

/// A tree with one leaf more for each size, as `ct-merkle` grows it.
#[test]
fn ct_merkle_makes_the_same_roots_and_proofs() {
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    let ours = Model::dense(150);
    for size in 1..=150_u64 {
        theirs.push(ours.entry(size - 1));
        assert_eq!(theirs.root().as_bytes().as_slice(), root_of(size, &ours).unwrap());
        for index in [0, size / 3, size / 2, size - 1] {
            let proof = prove_inclusion(index, size, &ours).unwrap();
            assert_eq!(theirs.prove_inclusion(index as usize).as_bytes(), proof.as_flattened());
        }
        for from in [1, size / 2, size - 1].into_iter().filter(|from| (1..size).contains(from)) {
            let proof = prove_consistency(from, size, &ours).unwrap();
            assert_eq!(theirs.prove_consistency((size - from) as usize).as_bytes(), proof.as_flattened());
        }
    }
}

/// What the peers say of an inclusion proof.
fn inclusion_verdicts(entry: &[u8], index: u64, size: u64, proof: &[Hash], root: &Hash) -> [bool; 4] {
    let leaf = hash_leaf(entry);
    let foreign: Vec<Sha256Hash> = proof.iter().map(sigstore).collect();
    let ct = InclusionProof::<Sha256>::from_bytes(proof.as_flattened().to_vec());
    let hashes = proof.iter().map(tlog).collect();
    [
        check_inclusion(leaf.as_bytes(), index, size, proof, root).is_ok(),
        verify_inclusion_proof(&leaf, index, size, &foreign, &sigstore(root)).is_ok(),
        RootHash::<Sha256>::new((*root).into(), size).verify_inclusion(&entry, index, &ct).is_ok(),
        tlog_tiles::check_record(&hashes, size, tlog(root), index, tlog_tiles::record_hash(entry)).is_ok(),
    ]
}

/// What the peers say of a consistency proof between two trees of at least one leaf.
fn consistency_verdicts(from: u64, old: &Hash, to: u64, new: &Hash, proof: &[Hash]) -> [bool; 4] {
    let foreign: Vec<Sha256Hash> = proof.iter().map(sigstore).collect();
    let ct = ConsistencyProof::<Sha256>::try_from_bytes(proof.as_flattened().to_vec()).unwrap();
    let old_ct = RootHash::<Sha256>::new((*old).into(), from);
    let hashes = proof.iter().map(tlog).collect();
    [
        check_consistency(from, old, to, new, proof).is_ok(),
        verify_consistency_proof(from, to, &foreign, &sigstore(old), &sigstore(new)).is_ok(),
        RootHash::<Sha256>::new((*new).into(), to).verify_consistency(&old_ct, &ct).is_ok(),
        tlog_tiles::check_tree(&hashes, to, tlog(new), from, tlog(old)).is_ok(),
    ]
}

/// What may be wrong with a proof.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Nothing,
    Bit(usize, u8),
    Missing(usize),
    More(usize),
    Place(u64),
    Size(u64),
}

impl Wrong {
    fn spoil(self, proof: &mut Vec<Hash>, place: &mut u64, size: &mut u64) {
        match self {
            Self::Nothing => {}
            Self::Bit(at, bit) => {
                let at = at % proof.len().max(1);
                if let Some(hash) = proof.get_mut(at) {
                    hash[usize::from(bit / 8)] ^= 1 << (bit % 8);
                }
            }
            Self::Missing(at) => {
                let at = at % proof.len().max(1);
                proof.drain(at..(at + 1).min(proof.len()));
            }
            Self::More(at) => proof.insert(at % (proof.len() + 1), [7; 32]),
            Self::Place(bits) => *place ^= bits,
            Self::Size(bits) => *size ^= bits,
        }
    }
}

fn wrong() -> impl Strategy<Value = Wrong> {
    let bits = (0_u32..42, any::<bool>()).prop_map(|(bit, two)| 1 << bit | u64::from(two));
    prop_oneof![
        Just(Wrong::Nothing),
        (any::<usize>(), any::<u8>()).prop_map(|(at, bit)| Wrong::Bit(at, bit)),
        any::<usize>().prop_map(Wrong::Missing),
        any::<usize>().prop_map(Wrong::More),
        bits.clone().prop_map(Wrong::Place),
        bits.prop_map(Wrong::Size),
    ]
}

/// A size to 2^40 with two numbers below it; the tree is sparse.
fn large() -> impl Strategy<Value = (u64, u64, u64)> {
    (0_u32..40, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(bits, size, index, from)| {
        let size = 1 + (size & ((1 << bits) - 1));
        (size, index % size, from % size)
    })
}

proptest! {
    #[test]
    fn all_peers_agree_on_inclusion((size, index, other) in large(), wrong in wrong()) {
        let ours = Model::sparse([index, other]);
        let (mut proof, mut place, mut claimed) = (prove_inclusion(index, size, &ours).unwrap(), index, size);
        wrong.spoil(&mut proof, &mut place, &mut claimed);
        let verdicts = inclusion_verdicts(&ours.entry(index), place, claimed, &proof, &ours.root(0, size));
        prop_assert!(verdicts == [verdicts[0]; 4], "{:?} {:?}", verdicts, (place, claimed, proof.len()));
        prop_assert!(verdicts[0] || !matches!(wrong, Wrong::Nothing));
    }

    #[test]
    fn all_peers_agree_on_consistency((size, from, odd) in large(), wrong in wrong()) {
        let from = from + 1;
        let ours = Model::sparse([odd, from - 1]);
        let (mut proof, mut place, mut claimed) = (prove_consistency(from, size, &ours).unwrap(), from, size);
        wrong.spoil(&mut proof, &mut place, &mut claimed);
        // The empty tree is everyone's own case: ct-merkle and tlog_tiles refuse it, ours and sigstore-merkle know it.
        prop_assume!(place > 0 && claimed > 0);
        let verdicts = consistency_verdicts(place, &ours.root(0, from), claimed, &ours.root(0, size), &proof);
        prop_assert!(verdicts == [verdicts[0]; 4], "{:?} {:?}", verdicts, (place, claimed, proof.len()));
        prop_assert!(verdicts[0] || !matches!(wrong, Wrong::Nothing));
    }

    #[test]
    fn hashes_are_those_of_the_peers(bytes in prop::collection::vec(any::<u8>(), 0..200), left: Hash, right: Hash) {
        let leaf = countersign::tlog::leaf_hash(&bytes);
        prop_assert_eq!(leaf, *hash_leaf(&bytes).as_bytes());
        prop_assert_eq!(leaf, tlog_tiles::record_hash(&bytes).0);
        let node = countersign::tlog::node_hash(&left, &right);
        prop_assert_eq!(node, *hash_children(&sigstore(&left), &sigstore(&right)).as_bytes());
        prop_assert_eq!(node, tlog_tiles::node_hash(tlog(&left), tlog(&right)).0);
    }
}

/// The tiles of a log of `size` entries as a server of ours would hand them out, by the path that was asked for.
struct Served {
    log: Model,
    size: u64,
}

impl Served {
    fn bytes(&self, path: TilePath) -> Option<Vec<u8>> {
        match path {
            TilePath::Hashes { level, index, width } if width <= tile::width_in(self.size, level, index) => {
                let span = 1 << (u32::from(level) * tile::HEIGHT);
                let nodes = (0..u64::from(width)).map(|at| index * 256 + at);
                Some(nodes.flat_map(|node| self.log.root(node * span, span)).collect())
            }
            _ => None,
        }
    }
}

impl TileReader for Served {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // Theirs says the height of the tiles; C2SP paths leave it out.
        let path = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1).parse().unwrap();
        Ok(tiles.iter().map(|tile| self.bytes(path(tile)).expect("a tile that does not exist was asked for")).collect())
    }

    fn save_tiles(&self, _tiles: &[tlog_tiles::Tile], _data: &[Vec<u8>]) {}
}

#[test]
fn a_stranger_s_client_proves_everything_from_our_tiles() {
    for size in [1, 2, 255, 256, 257, 1_000, 65_535, 65_536, 65_537, 70_000, 16_842_753] {
        let served = Served { log: Model::sparse([0, size / 2, size - 1]), size };
        let root = root_of(size, &served.log).unwrap();
        let reader = TileHashReader::new(size, tlog(&root), &served);
        assert_eq!(tlog_tiles::tree_hash(size, &reader).unwrap().0, root, "{size}");
        for index in [0, size / 3, size / 2, size - 1] {
            let theirs = tlog_tiles::prove_record(size, index, &reader).unwrap();
            let ours = prove_inclusion(index, size, &served.log).unwrap();
            assert_eq!(theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours, "{index} of {size}");
        }
        for from in [1, size / 2, size - 1, size].into_iter().filter(|from| *from > 0) {
            let theirs = tlog_tiles::prove_tree(size, from, &reader).unwrap();
            let ours = prove_consistency(from, size, &served.log).unwrap();
            assert_eq!(theirs.iter().map(|hash| hash.0).collect::<Vec<_>>(), ours, "{from} to {size}");
        }
        // The client authenticates every tile: with another root it takes none.
        assert!(TileHashReader::new(size, tlog(&[1; 32]), &served).read_hashes(&[0]).is_err());
    }
}

/// Both parsers on one path, ours and theirs with its height put in. Theirs panics where it means to refuse an empty tile
/// or a level that no tree has.
fn both_parse(path: &str) -> (Option<TilePath>, Option<tlog_tiles::Tile>) {
    let foreign = path.strip_prefix("tile/").map(|rest| format!("tile/8/{}", rest.replacen("entries/", "data/", 1)));
    let theirs = foreign.and_then(|path| catch_unwind(|| tlog_tiles::Tile::from_path(&path)).ok()?.ok());
    (path.parse().ok(), theirs)
}

proptest! {
    #[test]
    fn tile_paths_are_read_as_tlog_tiles_reads_them(
        level in 0_u8..70, index in any::<u64>(), down in 0_u32..64, width in 0_u16..300, entries: bool, at: prop::sample::Index, byte in "[0-9xp./a+-]",
    ) {
        let index = index >> down;
        let path = if entries { TilePath::Entries { index, width } } else { TilePath::Hashes { level, index, width } };
        let path = path.to_string();
        let mut changed = path.clone();
        let at = at.index(path.len());
        changed.replace_range(at..=at, &byte);
        for path in [path, changed] {
            // `data` is no word of C2SP's.
            prop_assume!(!path.starts_with("tile/data"));
            let (ours, theirs) = both_parse(&path);
            let theirs = theirs.map(|tile| match (tile.is_data(), tile.width() as u16) {
                (true, width) => TilePath::Entries { index: tile.level_index(), width },
                (false, width) => TilePath::Hashes { level: tile.level(), index: tile.level_index(), width },
            });
            prop_assert_eq!(ours, theirs, "{}", path);
        }
    }

    #[test]
    fn checkpoints_are_read_as_tlog_tiles_reads_them(
        size: u64, down in 0_u32..64, root: Hash, at: prop::sample::Index, byte in "[ -~\n]",
    ) {
        let checkpoint = Checkpoint { origin: "log.example/1".to_owned(), size: size >> down, root };
        let text = checkpoint.text();
        let mut changed = text.clone();
        let at = at.index(text.len());
        changed.replace_range(at..=at, &byte);
        for text in [text, changed] {
            let theirs = tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).ok();
            // Extension lines are theirs to read and ours to refuse.
            let theirs = theirs.filter(|theirs| theirs.extension().is_empty());
            let theirs = theirs.map(|theirs| (theirs.origin().to_owned(), theirs.size(), theirs.hash().0));
            let ours = Checkpoint::parse(&text).ok().map(|ours| (ours.origin, ours.size, ours.root));
            prop_assert_eq!(ours, theirs, "{:?}", text);
        }
    }
}

/// What `signed_note` takes for verified, with our log's key.
fn their_text(note: &str) -> Option<Vec<u8>> {
    let verifier = signed_note::StandardVerifier::new(LOG_KEY).unwrap();
    let known = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    let note = signed_note::Note::from_bytes(note.as_bytes()).ok()?;
    note.verify(&known).ok()?;
    Some(note.text().to_vec())
}

fn our_text(note: &str, key: &VerifierKey) -> Option<Vec<u8>> {
    Note::parse(note).ok()?.verify(key).ok().map(|text| text.as_bytes().to_vec())
}

#[test]
fn what_we_sign_verifies_with_signed_note_and_the_other_way_round() {
    let key = log_key();
    for text in ["one line\n", "\n", "two\n\nparagraphs\n", "log.example\n1\nAAAA\n", "\u{2014} dash\n"] {
        let note = Note::sign(text, &key, sign).unwrap().to_string();
        assert_eq!(their_text(&note).as_deref(), Some(text.as_bytes()));
        assert_eq!(our_text(&note, &key).as_deref(), Some(text.as_bytes()));
        let seed: Vec<u8> = [1].into_iter().chain([7; 32]).collect();
        let skey = format!("PRIVATE+KEY+log.example+{}+{}", hex::encode(key.id()), STANDARD.encode(seed));
        let mut theirs = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
        theirs.add_sigs(&[&signed_note::StandardSigner::new(&skey).unwrap()]).unwrap();
        assert_eq!(theirs.to_bytes(), note.as_bytes(), "Ed25519 signatures are deterministic");
    }
}

#[test]
fn notes_with_a_changed_byte_are_read_as_signed_note_reads_them() {
    let key = log_key();
    let note = include_str!("../golden/tlog/checkpoint/300-cosigned");
    let mut verdicts: HashMap<bool, u32> = HashMap::new();
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bytes = note.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            // In names we refuse DEL and its like as well; the format asks for less.
            if changed.contains('\u{7f}') {
                continue;
            }
            let ours = our_text(&changed, &key);
            assert_eq!(ours, their_text(&changed), "byte {at} bit {bit}: {changed:?}");
            *verdicts.entry(ours.is_some()).or_default() += 1;
        }
    }
    // Changes to the witness's line, whose key neither knows, are ignored by both; all others are refused.
    assert!(verdicts[&true] > 100 && verdicts[&false] > 1_000, "{verdicts:?}");
}
