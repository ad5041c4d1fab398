//! Keys of other people's signatures: known answers, and each kind of key against the signatures of all others.

use countersign::model::{PublicKey, PublicKeyError, Scheme};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha512};

use crate::holder::Holder;

/// DER before the 32 bytes of an Ed25519 key (RFC 8410 section 4).
const ED25519: &str = "302a300506032b6570032100";

fn ed25519(key: &str) -> Result<PublicKey, PublicKeyError> {
    PublicKey::from_spki(&hex::decode(format!("{ED25519}{key}")).unwrap())
}

/// RFC 8032 section 7.3.
#[test]
fn ed25519ph_as_the_rfc_has_it() {
    let key = ed25519("ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf").unwrap();
    assert_eq!((key.scheme().details(), key.scheme().number()), ("PKIX_ED25519_PH", 8));
    let signature = hex::decode(
        "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae4131f85042463c2a355a2003d062adf5aaa10b8c61e6360\
         62aaad11c2a26083406",
    )
    .unwrap();
    assert_eq!(key.verify(b"abc", &signature), Ok(()));
    assert_eq!(key.verify_digest(&Sha512::digest(b"abc"), &signature), Ok(()));
    assert_eq!(key.verify(b"abd", &signature), Err(PublicKeyError::Signature));
    let length = PublicKeyError::DigestLength { found: 3, wanted: 64 };
    assert_eq!(key.verify_digest(b"abc", &signature), Err(length));
    for at in 0..signature.len() {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        assert_eq!(key.verify(b"abc", &changed), Err(PublicKeyError::Signature), "byte {at}");
    }
    // The other number of the same residue: S + L, which a lax verifier takes.
    let mut order =
        hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap().into_iter();
    let mut other = signature.clone();
    let mut carry = 0;
    for byte in &mut other[32..] {
        let sum = u16::from(*byte) + u16::from(order.next().unwrap()) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!((carry, key.verify(b"abc", &other)), (0, Err(PublicKeyError::Signature)));
    // Whose commitment is of small order: the holder of the key can make it, and only some verifiers take it.
    let neutral = hex::decode(
        "010000000000000000000000000000000000000000000000000000000000000065c979f10385883aae0bcd1722022f6f733e159937b734\
         8a7e3742286129a90e",
    )
    .unwrap();
    let lax = VerifyingKey::from_bytes(&key.spki()[12..].try_into().unwrap()).unwrap();
    let parsed = Signature::from_slice(&neutral).unwrap();
    lax.verify_prehashed(Sha512::new_with_prefix("abc"), None, &parsed).unwrap();
    assert_eq!(key.verify(b"abc", &neutral), Err(PublicKeyError::Signature));
    for length in [0, 63, 65] {
        let cut: Vec<u8> = signature.iter().chain(&signature).copied().take(length).collect();
        assert_eq!(key.verify(b"abc", &cut), Err(PublicKeyError::Signature), "{length} bytes");
    }
}

/// Under a key of small order one signature is good for many messages.
#[test]
fn an_ed25519_key_that_vouches_for_anything_is_none() {
    let neutral = format!("01{}", "00".repeat(31));
    let signature = hex::decode(format!("{neutral}{}", "00".repeat(32))).unwrap();
    let lax = VerifyingKey::from_bytes(&hex::decode(&neutral).unwrap().try_into().unwrap()).unwrap();
    let signature = Signature::from_slice(&signature).unwrap();
    for message in ["one", "another"] {
        lax.verify_prehashed(Sha512::new_with_prefix(message), None, &signature).unwrap();
    }
    assert_eq!(ed25519(&neutral), Err(PublicKeyError::Malformed));
    // Nor is what is no point at all.
    assert_eq!(ed25519(&format!("02{}", "00".repeat(31))), Err(PublicKeyError::Malformed));
    assert_eq!(ed25519("00"), Err(PublicKeyError::Malformed));
}

#[test]
fn a_signature_verifies_under_its_own_key_alone() {
    let holders = Scheme::ALL.map(Holder::new);
    for signer in &holders {
        let signature = signer.sign(b"artifact");
        for other in &holders {
            let key = PublicKey::from_spki(&other.spki).unwrap();
            assert_eq!(key.scheme(), other.scheme);
            let verified = key.verify(b"artifact", &signature);
            assert_eq!(verified.is_ok(), signer.scheme == other.scheme, "{:?} {:?}", signer.scheme, other.scheme);
            assert_eq!(key.verify(b"artefact", &signature), Err(PublicKeyError::Signature));
        }
    }
    for scheme in Scheme::ALL {
        assert_eq!(
            (Scheme::of_name(scheme.details()), Scheme::of_number(scheme.number())),
            (Some(scheme), Some(scheme))
        );
        assert_eq!(scheme.digest(b"").len(), scheme.hash_length());
    }
}
