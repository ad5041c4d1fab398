//! Logs: notes, checkpoints, tiles, proofs and receipts; what witnesses are asked; policies over them.

use countersign::tlog::{
    checkpoint::Checkpoint,
    cosignature::{CosignerKey, LogKey},
    hash::{EMPTY_ROOT, Hash, leaf_hash},
    note::{Note, VerifierKey},
    policy::Policy,
    proof::{ProofError, check_consistency, check_inclusion},
    receipt::Receipt,
    tile::{self, TilePath},
    witness::{self, AddCheckpoint},
};
use sha2::{Digest as _, Sha256};

use super::text;

/// A published key, and the one text in the world that is known to be signed by it.
const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_S: &str = "If you think cryptography is the answer to your problem,\n\
                       then you don't know what your problem is.\n";
/// The key of the golden checkpoints, and the sizes that it signed.
const LOG: &str = "log.example+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
const SIGNED: [u64; 4] = [0, 1, 257, 300];

fn key(vkey: &str) -> VerifierKey {
    VerifierKey::parse(vkey).expect("a key")
}

/// C2SP `signed-note`: what parses prints back, and nobody forges a signature.
pub fn note(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Ok(note) = Note::parse(text) else { return false };
    assert_eq!(note.to_string(), text);
    if let Ok(signed) = note.verify(&key(PETER)) {
        assert_eq!(signed, PETER_S);
    }
    true
}

/// C2SP `tlog-checkpoint`: what parses prints back, signed or not, and nobody forges one.
pub fn checkpoint(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.text(), text);
        return true;
    }
    let Ok(note) = Note::parse(text) else { return false };
    let Ok(claimed) = Checkpoint::parse(note.text_unsafe()) else { return false };
    assert_eq!(claimed.text(), note.text_unsafe());
    if let Ok(verified) = Checkpoint::verify(text, &key(LOG)) {
        assert!(SIGNED.contains(&verified.size) && verified == claimed, "{verified:?}");
    }
    true
}

/// C2SP `tlog-tiles`: a path that parses prints back, and names something that a log may have.
pub fn tile_path(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Ok(path) = text.parse::<TilePath>() else { return false };
    assert_eq!(path.to_string(), text);
    let (level, width) = match path {
        TilePath::Hashes { level, width, .. } => (level, width),
        TilePath::Entries { width, .. } => (0, width),
    };
    assert!(level < 64 && (1..=256).contains(&width), "{path:?}");
    true
}

/// C2SP `tlog-tiles`: the first byte is the bundle's width less one; a bundle that parses is written again the same.
pub fn entry_bundle(data: &[u8]) -> bool {
    let Some((width, bundle)) = data.split_first() else { return false };
    let width = u16::from(*width) + 1;
    let Ok(entries) = tile::parse_entries(bundle, width) else { return false };
    assert_eq!(entries.len(), usize::from(width));
    let mut again = Vec::new();
    for entry in entries {
        tile::push_entry(&mut again, entry).expect("an entry that was read can be written");
    }
    assert_eq!(again, bundle);
    true
}

/// C2SP `tlog-proof`: a receipt that parses prints back, and proves of `entry 137` no more than the log's own receipt.
pub fn receipt(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Ok(receipt) = text.parse::<Receipt>() else { return false };
    assert_eq!(receipt.to_string(), text);
    if let Ok(included) = receipt.verify(&leaf_hash(b"entry 137"), &key(LOG)) {
        assert_eq!((included.index(), included.checkpoint().size), (137, 300));
    }
    true
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The largest power of two smaller than `size`.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The root that a path leads to, by the definition of `PATH` in RFC 6962 section 2.1.1 read backwards.
fn root_of_path(leaf: &Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    if size == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (beside, path) = path.split_last()?;
    let k = split(size);
    if index < k {
        Some(node(&root_of_path(leaf, index, k, path)?, beside))
    } else {
        Some(node(beside, &root_of_path(leaf, index - k, size - k, path)?))
    }
}

/// The roots that a consistency proof leads to, by the definition of `SUBPROOF` in RFC 6962 section 2.1.2 read backwards.
fn roots_of_proof(whole: Option<&Hash>, from: u64, to: u64, proof: &[Hash]) -> Option<(Hash, Hash)> {
    if from == to {
        return match (whole, proof) {
            (Some(root), []) | (None, [root]) => Some((*root, *root)),
            _ => None,
        };
    }
    let (beside, proof) = proof.split_last()?;
    let k = split(to);
    if from <= k {
        let (old, new) = roots_of_proof(whole, from, k, proof)?;
        Some((old, node(&new, beside)))
    } else {
        let (old, new) = roots_of_proof(None, from - k, to - k, proof)?;
        Some((node(beside, &old), node(beside, &new)))
    }
}

fn inverted(hash: &Hash) -> Hash {
    hash.map(|byte| !byte)
}

/// RFC 9162 sections 2.1.3.2 and 2.1.4.2: both checks say yes to what the recursive definitions say yes to, and to
/// nothing else.
///
/// The input: a byte whose lowest bit chooses inclusion or consistency and whose others shift the sizes down; index or
/// smaller size, and size, as big-endian u64; a leaf hash or the smaller root; the proof.
pub fn proof(data: &[u8]) -> bool {
    let Some((kind, data)) = data.split_first() else { return false };
    let Some((place, data)) = data.split_first_chunk() else { return false };
    let Some((size, data)) = data.split_first_chunk() else { return false };
    let Some((first, data)) = data.split_first_chunk::<32>() else { return false };
    let down = u32::from(kind >> 1) % 64;
    let (place, size) = (u64::from_be_bytes(*place) >> down, u64::from_be_bytes(*size) >> down);
    let proof = data.as_chunks::<32>().0;
    if kind & 1 == 0 { inclusion(first, place, size, proof) } else { consistency(first, place, size, proof) }
}

fn inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash]) -> bool {
    let root = if index < size { root_of_path(leaf, index, size, proof) } else { None };
    let Some(root) = root else {
        assert!(check_inclusion(leaf, index, size, proof, leaf).is_err());
        return false;
    };
    assert_eq!(check_inclusion(leaf, index, size, proof, &root), Ok(()));
    assert_eq!(check_inclusion(leaf, index, size, proof, &inverted(&root)), Err(ProofError::Root));
    true
}

fn consistency(old: &Hash, from: u64, to: u64, proof: &[Hash]) -> bool {
    if from == 0 {
        let holds = check_consistency(0, &EMPTY_ROOT, to, old, proof).is_ok();
        assert_eq!(holds, proof.is_empty() && (to > 0 || *old == EMPTY_ROOT));
        return holds;
    }
    let roots = if from <= to { roots_of_proof(Some(old), from, to, proof) } else { None };
    let Some((old, new)) = roots else {
        assert!(check_consistency(from, old, to, old, proof).is_err());
        return false;
    };
    assert_eq!(check_consistency(from, &old, to, &new, proof), Ok(()));
    assert_eq!(check_consistency(from, &inverted(&old), to, &new, proof), Err(ProofError::Root));
    assert_eq!(check_consistency(from, &old, to, &inverted(&new), proof), Err(ProofError::Root));
    true
}

/// C2SP `signed-note`, `tlog-cosignature`: a key of any kind that parses prints back.
pub fn verifier_key(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let verifier = VerifierKey::parse(text).map(|key| key.vkey());
    let cosigner = CosignerKey::parse(text).map(|key| key.vkey());
    let log = LogKey::parse(text).map(|key| key.vkey());
    // One type byte, so one kind; and a log has one of two.
    assert!(verifier.is_err() || cosigner.is_err());
    assert!(log.is_ok() || verifier.is_err());
    let read: Vec<String> = [verifier, cosigner, log].into_iter().flatten().collect();
    assert!(read.iter().all(|printed| printed == text), "{read:?}");
    !read.is_empty()
}

/// The log of the golden request, and the conflict that a witness answers with.
const ASKING: &str = include_str!("../../golden/witness/mldsa-log.vkey");
const ASKED: &str = include_str!("../../golden/tlog/add_checkpoint/mldsa-log");

/// C2SP `tlog-witness`: a request that parses prints back, and nobody asks in the name of the log for another checkpoint.
/// So does the body of a conflict.
pub fn add_checkpoint(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    if let Some(size) = witness::parse_conflict(text) {
        assert_eq!(witness::print_conflict(size), text);
        return true;
    }
    let Ok(request) = AddCheckpoint::parse(text) else { return false };
    assert_eq!(request.to_string(), text);
    assert!(request.proof.len() <= witness::MOST_PROOF && text.len() <= witness::MOST_REQUEST);
    let keys = [LogKey::parse(ASKING.trim_end()).expect("a key"), LogKey::parse(LOG).expect("a key")];
    if let Ok(opened) = request.open(|_| Some(&keys)) {
        let checkpoint = opened.checkpoint();
        let golden = AddCheckpoint::parse(ASKED).expect("a request");
        let golden = golden.open(|_| Some(&keys)).expect("a request of the log");
        let known = checkpoint == golden.checkpoint()
            || (checkpoint.origin == "log.example" && SIGNED.contains(&checkpoint.size));
        assert!(known && request.old <= checkpoint.size, "{checkpoint:?}");
    }
    true
}

/// C2SP `tlog-policy`: a policy that parses prints as one that says the same, and what it accepts was signed by the log
/// of the golden checkpoints.
pub fn policy(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let Ok(policy) = Policy::parse(text) else { return false };
    assert_eq!(Policy::parse(&policy.to_string()).as_ref(), Ok(&policy));
    let all = vec![true; policy.witnesses().len()];
    assert!(policy.is_met(&all), "a quorum that all witnesses do not meet");
    let checkpoint = include_str!("../../golden/tlog/checkpoint/300-cosigned");
    if let Ok(witnessed) = policy.check(checkpoint) {
        let knows = policy.logs().iter().any(|log| log.key.vkey() == LOG);
        assert!(knows && witnessed.checkpoint().size == 300, "{witnessed:?}");
    }
    true
}
