//! Tree arithmetic against a ten-line model, against four foreign crates and against published vectors; the C2SP texts
//! against theirs; and malleability.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::tlog::{Hash, VerifierKey};

mod malleability;
mod model;
mod notes;
mod peers;
mod receipts;
mod tiles;
mod trees;
mod vectors;

/// The log `log.example` of the golden files, whose entries are `entry 0`, `entry 1` and so on. Its key's seed is
/// thirty-two sevens; the files were written by a program in another language that shares no code with this one.
const LOG_KEY: &str = "log.example+891bac2d+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";

fn log_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn log_key() -> VerifierKey {
    let key = VerifierKey::new("log.example", log_pair().public_key().as_ref().try_into().unwrap()).unwrap();
    assert_eq!(key.vkey(), LOG_KEY);
    key
}

/// Signs as the log.
fn sign(message: &[u8]) -> [u8; 64] {
    log_pair().sign(message).as_ref().try_into().unwrap()
}

fn hash_of_hex(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

fn hash_of_base64(text: &str) -> Hash {
    STANDARD.decode(text).unwrap().try_into().unwrap()
}
