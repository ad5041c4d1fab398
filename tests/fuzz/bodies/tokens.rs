//! Tokens, and the keys that verify them.

use std::sync::Once;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use countersign::model::{
    key_set::{KeySet, Lookup},
    limits,
    token::{TokenError, Unverified},
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::{refused, text};

/// A set with the key that signed the golden token, and that token.
const SET: &str = include_str!("../../golden/model/key_set/ed25519.json");
const TOKEN: &str = include_str!("../../golden/model/token/ed25519");

/// The algorithms that are accepted, as headers name them.
const ALGORITHMS: [&str; 7] = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

fn provide() {
    static ONCE: Once = Once::new();
    // Whoever was first chose the same.
    ONCE.call_once(|| {
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    });
}

fn golden_key(set: &KeySet) -> Option<DecodingKey> {
    match set.find(Some("golden"), Algorithm::EdDSA) {
        Lookup::Found(key) => Some(key.clone()),
        _ => None,
    }
}

/// RFC 7515, 7519, 8725: what is read is as its header says, by an algorithm of the list; nothing of a token is in an
/// error; and only the golden token verifies.
pub fn token(data: &[u8]) -> bool {
    provide();
    let Some(text) = text(data) else { return false };
    let token = match Unverified::parse(text) {
        Ok(token) => token,
        Err(error) => return refused(&error),
    };
    assert!(text.len() <= limits::TOKEN);
    let parts: Vec<&str> = text.split('.').collect();
    let header = URL_SAFE_NO_PAD.decode(parts[0]).expect("base64");
    let header: Value = serde_json::from_slice(&header).expect("a header is JSON");
    assert!(parts.len() == 3 && ALGORITHMS.contains(&header["alg"].as_str().expect("an algorithm")), "{header}");
    assert_eq!(token.kid.as_deref(), header["kid"].as_str());
    assert!(token.kid.as_ref().is_none_or(|kid| kid.len() <= limits::NAME));
    let issuer = token.issuer().map(str::to_owned);
    let key = golden_key(&KeySet::parse(SET.as_bytes()).expect("a set")).expect("the golden key");
    if token.algorithm != Algorithm::EdDSA {
        return true;
    }
    match token.verify(&key) {
        Ok(claims) => {
            assert_eq!(
                text.rsplit_once('.').map(|(signed, _)| signed),
                TOKEN.rsplit_once('.').map(|(signed, _)| signed)
            );
            assert_eq!(claims.get("iss").and_then(Value::as_str), issuer.as_deref());
        }
        Err(error) => assert_eq!(error, TokenError::Signature),
    }
    true
}

/// RFC 7517: however its JSON is written, a set has the same keys; it is within the limits; and the golden token verifies
/// only with a set that has the golden key.
pub fn key_set(data: &[u8]) -> bool {
    provide();
    let set = match KeySet::parse(data) {
        Ok(set) => set,
        Err(error) => return refused(&error),
    };
    assert!(data.len() <= limits::JWKS);
    let document: Value = serde_json::from_slice(data).expect("a set is JSON");
    let keys = document["keys"].as_array().expect("a list of keys");
    assert!((1..=limits::JWKS_KEYS).contains(&keys.len()));
    let again = KeySet::parse(document.to_string().as_bytes()).expect("a set");
    assert_eq!(format!("{again:?}"), format!("{set:?}"));
    let Some(key) = golden_key(&set) else { return true };
    let verified = Unverified::parse(TOKEN).expect("a token").verify(&key).is_ok();
    let golden: Value = serde_json::from_str(SET).expect("JSON");
    let has = |key: &Value| key["kid"] == "golden" && key["x"] == golden["keys"][0]["x"];
    assert!(!verified || keys.iter().any(has), "{document}");
    assert!(verified || document != golden, "the golden key verifies");
    true
}
