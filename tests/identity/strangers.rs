//! Bytes that nobody meant as credentials: refused, without a panic, and without a word of them in the message.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::{
    Authenticator, Credentials, IssuerSettings, Key, Refusal, Settings, Timestamp, json, mutual_tls::a_leaf, written,
};
use crate::daemon::{Daemon, text};
use countersign::identity::peer_identity;

fn refuse(authenticator: &Authenticator, token: String) -> Refusal {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let credentials = Credentials { bearer: Some(token), peer: None };
    runtime.block_on(authenticator.authenticate(credentials, Timestamp::UNIX_EPOCH)).unwrap_err()
}

fn header() -> impl Strategy<Value = String> {
    let alg = prop_oneof![Just("ES256"), Just("RS256"), Just("EdDSA"), Just("none"), Just("HS256"), Just("zebra")];
    let kid = prop_oneof![Just(json!("known")), Just(json!("other")), Just(json!(7)), Just(json!(null))];
    (alg, kid).prop_map(|(alg, kid)| json!({ "alg": alg, "kid": kid }).to_string())
}

proptest! {
    #[test]
    fn strange_tokens(text in "\\PC{0,100}") {
        let authenticator = Authenticator::new(&Settings::default()).unwrap();
        let refusal = refuse(&authenticator, text);
        prop_assert!(matches!(refusal, Refusal::Malformed(_)), "{:?}", refusal);
    }

    #[test]
    fn strange_parts(
        header in prop_oneof![header().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
        claims in prop_oneof![
            Just(br#"{"iss":"https://issuer.example.com"}"#.to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ],
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let jwks = written(&json!({ "keys": [Key::es256("known").jwk()] }).to_string());
        let issuer = IssuerSettings {
            jwks_file: Some(jwks.path().to_owned()),
            ..IssuerSettings::new("https://issuer.example.com")
        };
        let authenticator = Authenticator::new(&Settings { issuers: vec![issuer], ..Settings::default() }).unwrap();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let refusal = refuse(&authenticator, format!("{}.{}.{}", part(&header), part(&claims), part(&signature)));
        prop_assert!(!refusal.to_string().contains("zebra"));
    }

    #[test]
    fn strange_key_sets(bytes in prop::collection::vec(any::<u8>(), 0..60), field in 0_usize..6, text in "\\PC{0,60}") {
        let mut jwk = Key::es256("known").jwk();
        jwk[["kty", "crv", "x", "y", "alg", "use"][field]] = json!(text);
        for document in [bytes, json!({ "keys": [jwk] }).to_string().into_bytes()] {
            let file = written("");
            fs::write(file.path(), document).unwrap();
            let issuer = IssuerSettings {
                jwks_file: Some(file.path().to_owned()),
                ..IssuerSettings::new("https://issuer.example.com")
            };
            let error = Authenticator::new(&Settings { issuers: vec![issuer], ..Settings::default() }).unwrap_err();
            prop_assert!(error.to_string().contains("jwks_file"));
        }
    }

    #[test]
    fn strange_certificates(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
        let mut leaf = a_leaf();
        prop_assert!(peer_identity(&leaf[..cut.index(leaf.len())], "urn:x", Timestamp::now()).is_err());
        let at = at.index(leaf.len());
        leaf[at] ^= 1 << bit;
        // TLS has verified these bytes before, so that a change may go unnoticed here; it must not bring us down.
        if let Ok(identity) = peer_identity(&leaf, "urn:x", Timestamp::now()) {
            prop_assert!(identity.subject.is_ascii());
        }
    }
}

/// A client certificate of somebody else's authority: TLS ends without a word, so the command says what it may be.
#[test]
fn a_certificate_of_another_authority_is_guessed_at() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let elsewhere = Daemon::init(None, "");
    let (certificate, key) = elsewhere.issue("stranger");
    let mut command = daemon.command("builder", &["log", "status"]);
    let said = command.env("COUNTERSIGN_CLIENT_CERT", certificate).env("COUNTERSIGN_CLIENT_KEY", key).output().unwrap();
    assert!(!said.status.success() && text(&said).contains("is the client certificate"), "{}", text(&said));
}
