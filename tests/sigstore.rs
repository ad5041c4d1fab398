//! The faces for stock Sigstore clients, over HTTP and gRPC, as bare clients see them.

use std::fs;

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        KeyPair as _, RSA_PKCS1_SHA256,
    },
};
use countersign::model::Scheme;

use crate::daemon::Daemon;

mod allowance;
mod garbage;
mod rekor;
mod timestamp;

/// A service with more configuration, and an HTTP client that trusts it.
pub struct House {
    pub daemon: Daemon,
    pub http: reqwest::Client,
}

impl House {
    pub fn new(extra: &str) -> Self {
        let mut daemon = Daemon::init(None, extra);
        daemon.start();
        let authority = reqwest::Certificate::from_pem(&fs::read(daemon.ca()).unwrap()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
        Self { daemon, http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.daemon.public)
    }

    pub async fn post(&self, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.http.post(self.url(path)).header("content-type", kind).body(body).send().await.unwrap()
    }

    pub async fn size(&self) -> u64 {
        let note = self.http.get(self.url("/checkpoint")).send().await.unwrap().text().await.unwrap();
        note.lines().nth(1).unwrap().parse().unwrap()
    }
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Somebody with a key.
pub struct Holder {
    pub scheme: Scheme,
    pub spki: Vec<u8>,
    pair: Pair,
}

impl Holder {
    pub fn new(scheme: Scheme) -> Self {
        let rsa = |size| Pair::Rsa(RsaKeyPair::generate(size).unwrap());
        let pair = match scheme {
            Scheme::P256Sha256 => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap()),
            Scheme::P384Sha384 => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap()),
            Scheme::P521Sha512 => Pair::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_ASN1_SIGNING).unwrap()),
            Scheme::Rsa2048Sha256 => rsa(KeySize::Rsa2048),
            Scheme::Rsa3072Sha256 => rsa(KeySize::Rsa3072),
            Scheme::Rsa4096Sha256 => rsa(KeySize::Rsa4096),
        };
        let spki = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        };
        Self { scheme, spki, pair }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
        }
    }
}
