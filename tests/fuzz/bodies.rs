//! What each fuzz target asks of the parsers of strangers' bytes, and of the proof checks.
//!
//! The targets in `fuzz_targets/` run these on what a fuzzer finds; `tests/tlog/fuzzing.rs` runs them on random and on
//! mutated inputs, with every run of the tests. Each returns whether the input was accepted, and panics if what it
//! promises does not hold.

use countersign::{
    model::{certificate_request::CertificateRequest, public_key::PublicKey},
    tlog::{
        checkpoint::Checkpoint,
        hash::{EMPTY_ROOT, Hash, leaf_hash},
        note::{Note, VerifierKey},
        proof::{ProofError, check_consistency, check_inclusion},
        receipt::Receipt,
        tile::{self, TilePath},
    },
};
use sha2::{Digest as _, Sha256};

/// A target's name and what it runs.
pub type Body = (&'static str, fn(&[u8]) -> bool);

/// All targets. The seeds of each are the files of `tests/golden/tlog/<name>/` or `tests/golden/model/<name>/`.
pub const BODIES: [Body; 7] = [
    ("note", note),
    ("checkpoint", checkpoint),
    ("tile_path", tile_path),
    ("entry_bundle", entry_bundle),
    ("proof", proof),
    ("receipt", receipt),
    ("certificate_request", certificate_request),
];

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
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(note) = Note::parse(text) else { return false };
    assert_eq!(note.to_string(), text);
    if let Ok(signed) = note.verify(&key(PETER)) {
        assert_eq!(signed, PETER_S);
    }
    true
}

/// C2SP `tlog-checkpoint`: what parses prints back, signed or not, and nobody forges one.
pub fn checkpoint(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
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
    let Ok(text) = std::str::from_utf8(data) else { return false };
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
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(receipt) = text.parse::<Receipt>() else { return false };
    assert_eq!(receipt.to_string(), text);
    if let Ok(included) = receipt.verify(&leaf_hash(b"entry 137"), &key(LOG)) {
        assert_eq!((included.index(), included.checkpoint().size), (137, 300));
    }
    true
}

/// RFC 2986: a request that is accepted is signed by the key in it, and says no other key.
pub fn certificate_request(data: &[u8]) -> bool {
    let Ok(request) = CertificateRequest::from_der(data) else { return false };
    let key = PublicKey::from_spki(request.key().spki()).expect("a key that was read");
    assert_eq!(key.verify_digest(request.digest(), request.signature()), Ok(()));
    assert!(data.windows(key.spki().len()).any(|part| part == key.spki()));
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
