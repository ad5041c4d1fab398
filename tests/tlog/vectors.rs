//! Vectors that others published: Certificate Transparency's tree, the Go checksum database, Sigstore's Rekor, C2SP.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::tlog::{
    Checkpoint, CheckpointError, EMPTY_ROOT, Hash, HashReader, NodeId, Note, NoteError, ProofError, VerifierKey,
    check_consistency, check_inclusion, hash::perfect_root, leaf_hash, prove_consistency, prove_inclusion, root_of,
};

use super::{hash_of_base64, hash_of_hex};

/// The eight leaves of the reference implementation of RFC 6962, and the roots of the trees they grow.
const CT: [(&str, &str); 8] = [
    ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
    ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
    ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
    ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
    ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
    ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
    ("5051525354555657", "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
    ("606162636465666768696a6b6c6d6e6f", "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
];

/// Its nodes, by where they stand in proofs.
const LEAF_1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
const LEAF_4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
const LEAF_6: &str = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f";
const NODE_2_3: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
const NODE_4_5: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
const NODE_6_7: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
const NODE_4_7: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";

/// The leaf hashes of that tree.
struct Ct(Vec<Hash>);

impl Ct {
    fn new() -> Self {
        Self(CT.iter().map(|(leaf, _)| leaf_hash(&hex::decode(leaf).unwrap())).collect())
    }
}

impl HashReader for Ct {
    type Error = ProofError;

    fn read_hashes(&self, nodes: &[NodeId]) -> Result<Vec<Hash>, ProofError> {
        let range = |node: &NodeId| (node.index << node.level) as usize..((node.index + 1) << node.level) as usize;
        nodes.iter().map(|node| perfect_root(&self.0[range(node)]).ok_or(ProofError::Missing)).collect()
    }
}

fn ct_root(size: u64) -> Hash {
    if size == 0 { EMPTY_ROOT } else { hash_of_hex(CT[size as usize - 1].1) }
}

#[test]
fn certificate_transparency_s_roots() {
    assert_eq!(hex::encode(EMPTY_ROOT), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for size in 0..=8 {
        assert_eq!(root_of(size, &Ct::new()).unwrap(), ct_root(size), "{size}");
    }
}

#[test]
fn certificate_transparency_s_inclusion_proofs() {
    let (root_1, root_2, root_4) = (CT[0].1, CT[1].1, CT[3].1);
    for (index, size, proof) in [
        (0, 1, vec![]),
        (0, 8, vec![LEAF_1, NODE_2_3, NODE_4_7]),
        (5, 8, vec![LEAF_4, NODE_6_7, root_4]),
        (2, 3, vec![root_2]),
        (1, 5, vec![root_1, NODE_2_3, LEAF_4]),
    ] {
        let proof: Vec<Hash> = proof.into_iter().map(hash_of_hex).collect();
        let tree = Ct::new();
        assert_eq!(prove_inclusion(index, size, &tree).unwrap(), proof, "{index} of {size}");
        check_inclusion(&tree.0[index as usize], index, size, &proof, &ct_root(size)).unwrap();
    }
}

#[test]
fn certificate_transparency_s_consistency_proofs() {
    let root_4 = CT[3].1;
    for (from, to, proof) in [
        (1, 1, vec![]),
        (1, 8, vec![LEAF_1, NODE_2_3, NODE_4_7]),
        (6, 8, vec![NODE_4_5, NODE_6_7, root_4]),
        (2, 5, vec![NODE_2_3, LEAF_4]),
        (6, 7, vec![NODE_4_5, LEAF_6, root_4]),
    ] {
        let proof: Vec<Hash> = proof.into_iter().map(hash_of_hex).collect();
        assert_eq!(prove_consistency(from, to, &Ct::new()).unwrap(), proof, "{from} to {to}");
        check_consistency(from, &ct_root(from), to, &ct_root(to), &proof).unwrap();
    }
}

#[test]
fn consistency_without_a_proof() {
    let (a, b) = ([1; 32], [2; 32]);
    let (length, root) = (Err(ProofError::Length), Err(ProofError::Root));
    for (from, old, to, new, proof, expected) in [
        // Every tree begins with the empty one.
        (0, EMPTY_ROOT, 1, b, vec![], Ok(())),
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, vec![], Ok(())),
        // The empty tree has one root.
        (0, a, 1, b, vec![], root),
        (0, EMPTY_ROOT, 0, a, vec![], root),
        (0, a, 0, EMPTY_ROOT, vec![], root),
        (0, a, 0, a, vec![], root),
        // A tree is itself.
        (1, a, 1, a, vec![], Ok(())),
        (1, a, 1, b, vec![], root),
        (3, a, 3, b, vec![], root),
        // Nothing is proven by hashes that say nothing.
        (0, EMPTY_ROOT, 0, EMPTY_ROOT, vec![a], length),
        (0, EMPTY_ROOT, 1, b, vec![a], length),
        (1, a, 1, a, vec![a], length),
        // Nor by none.
        (1, a, 2, b, vec![], length),
        (3, a, 4, b, vec![], length),
        (1, a, 0, EMPTY_ROOT, vec![], Err(ProofError::SizesSwapped { from: 1, to: 0 })),
        (2, a, 1, b, vec![], Err(ProofError::SizesSwapped { from: 2, to: 1 })),
    ] {
        assert_eq!(check_consistency(from, &old, to, &new, &proof), expected, "{from} to {to}, {} hashes", proof.len());
    }
}

#[test]
fn go_s_note_of_peter_neumann_is_reproduced() {
    let vkey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let key = VerifierKey::parse(vkey).unwrap();
    assert_eq!(key.vkey(), vkey);
    let golden = include_str!("../golden/tlog/note/peter-neumann");
    let note = Note::parse(golden).unwrap();
    let text = note.verify(&key).unwrap();
    // The signing key that Go's documentation prints beside it: algorithm and seed.
    let skey = STANDARD.decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&skey[1..]).unwrap();
    let signed = Note::sign(text, &key, |message| -> [u8; 64] { pair.sign(message).as_ref().try_into().unwrap() });
    let signed = signed.unwrap();
    assert_eq!(signed.to_string(), golden);
    let other = golden.replace("cryptography", "Cryptography");
    let refused = Err(NoteError::Signature("PeterNeumann".to_owned()));
    assert_eq!(Note::parse(&other).unwrap().verify(&key).map(str::to_owned), refused);
}

#[test]
fn go_s_checksum_database_signed_its_tree() {
    let key = VerifierKey::parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8").unwrap();
    let golden = include_str!("../golden/tlog/note/go-sum-database");
    let note = Note::parse(golden).unwrap();
    let checkpoint = Checkpoint::parse(note.verify(&key).unwrap()).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("go.sum database tree", 20_852_163));
    // Its origin is not its key's name, which we ask for.
    assert_eq!(Checkpoint::verify(golden, &key), Err(CheckpointError::Origin("go.sum database tree".to_owned())));
}

#[test]
fn c2sp_s_examples_are_read() {
    let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    assert_eq!(VerifierKey::parse(vkey).unwrap().vkey(), vkey);
    // A text with a blank line of its own; its key is not published.
    let quasimodo = include_str!("../golden/tlog/note/quasimodo");
    let note = Note::parse(quasimodo).unwrap();
    assert_eq!(note.to_string(), quasimodo);
    assert!(note.text_unsafe().ends_with(":\n\ned \u{e8} subito sera.\n"));
}

#[test]
fn sigstore_s_public_log_holds_what_its_bundle_says() {
    let bundle: serde_json::Value =
        serde_json::from_str(include_str!("../golden/github-provenance.sigstore.json")).unwrap();
    let entry = &bundle["verificationMaterial"]["tlogEntries"][0];
    let proof = &entry["inclusionProof"];
    let number = |name: &str| proof[name].as_str().unwrap().parse::<u64>().unwrap();
    let body = STANDARD.decode(entry["canonicalizedBody"].as_str().unwrap()).unwrap();
    let hashes: Vec<Hash> =
        proof["hashes"].as_array().unwrap().iter().map(|hash| hash_of_base64(hash.as_str().unwrap())).collect();
    let envelope = proof["checkpoint"]["envelope"].as_str().unwrap();
    let note = Note::parse(envelope).unwrap();
    assert_eq!(note.to_string(), envelope);
    let checkpoint = Checkpoint::parse(note.text_unsafe()).unwrap();
    assert_eq!(checkpoint.size, number("treeSize"));
    assert_eq!((checkpoint.size, hashes.len()), (33_786_589, 11));
    let index = number("logIndex");
    check_inclusion(&leaf_hash(&body), index, checkpoint.size, &hashes, &checkpoint.root).unwrap();
    let wrong = check_inclusion(&leaf_hash(&body), index - 1, checkpoint.size, &hashes, &checkpoint.root);
    assert!(wrong.is_err());
}
