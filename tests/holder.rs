//! Somebody who holds a key of any kind that is accepted, and signs with it.

use std::sync::LazyLock;

use aws_lc_rs::{
    encoding::{AsBigEndian as _, AsDer as _},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    },
};
use countersign::model::Scheme;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};

/// A key as a client holds one.
pub struct Holder {
    pub scheme: Scheme,
    /// Its public side, a `SubjectPublicKeyInfo` in DER.
    pub spki: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(&'static RsaKeyPair),
    Ed25519(SigningKey),
}

impl Holder {
    pub fn new(scheme: Scheme) -> Self {
        // Of RSA one each: making them takes long.
        static RSA_2048: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        static RSA_3072: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa3072).unwrap());
        static RSA_4096: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa4096).unwrap());
        match scheme {
            Scheme::P256Sha256 => Self::ecdsa(scheme, &ECDSA_P256_SHA256_ASN1_SIGNING),
            Scheme::P384Sha384 => Self::ecdsa(scheme, &ECDSA_P384_SHA384_ASN1_SIGNING),
            Scheme::P521Sha512 => Self::ecdsa(scheme, &ECDSA_P521_SHA512_ASN1_SIGNING),
            Scheme::Rsa2048Sha256 => Self::rsa(scheme, &RSA_2048),
            Scheme::Rsa3072Sha256 => Self::rsa(scheme, &RSA_3072),
            Scheme::Rsa4096Sha256 => Self::rsa(scheme, &RSA_4096),
            Scheme::Ed25519Ph => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
                let seed: [u8; 32] = pair.seed().unwrap().as_be_bytes().unwrap().as_ref().try_into().unwrap();
                Self { scheme, spki, pair: Pair::Ed25519(SigningKey::from_bytes(&seed)) }
            }
        }
    }

    pub fn p256() -> Self {
        Self::new(Scheme::P256Sha256)
    }

    fn ecdsa(scheme: Scheme, algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        Self { scheme, spki, pair: Pair::Ecdsa(pair) }
    }

    fn rsa(scheme: Scheme, pair: &'static RsaKeyPair) -> Self {
        let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
        Self { scheme, spki, pair: Pair::Rsa(pair) }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Pair::Ed25519(key) => {
                key.sign_prehashed(Sha512::new_with_prefix(message), None).unwrap().to_bytes().to_vec()
            }
        }
    }

    /// By Ed25519 itself, which is another algorithm than the pre-hashed one.
    pub fn sign_pure(&self, message: &[u8]) -> Vec<u8> {
        use ed25519_dalek::Signer as _;

        let Pair::Ed25519(key) = &self.pair else { panic!("an Ed25519 key is wanted") };
        key.sign(message).to_bytes().to_vec()
    }
}
