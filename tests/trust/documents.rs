//! TUF documents: the canonical form, key ids, and what is refused.

use std::collections::BTreeMap;

use countersign::model::tuf::{self, Key, Kind, Metadata, MetadataError, canonical};
use serde_json::{Value, json};

use crate::keys::now;

/// Made with `openssl ecparam -genkey -name prime256v1`, and its id with `securesystemslib` 1.6.0 (`SSlibKey.from_crypto`).
const PEM: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFDbRiJrmXjvtacG0D1JKEgkkPyik
WHXBUZuUQIgPOzB3EOcmDqqEDuJeXd6ADrL8Pz/+r9J+Q4ENcco1fYMGcA==
-----END PUBLIC KEY-----
";
const ID: &str = "d0548ad5c570813618aba7a78d4c8fe82a5af56922d5e0355b70d22d81201711";

fn key() -> Key {
    let (_, spki) = der::pem::decode_vec(PEM.as_bytes()).unwrap();
    Key::from_spki(&spki).unwrap()
}

#[test]
fn the_canonical_form_is_that_of_the_open_laptop_project() {
    let value: Value =
        serde_json::from_str(r#"{"b":[1,true,null,-7,{}],"a":"x\"\\\n\u00e9\u0001","":[],"B":false}"#).unwrap();
    let written = canonical(&value).unwrap();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        "{\"\":[],\"B\":false,\"a\":\"x\\\"\\\\\né\u{1}\",\"b\":[1,true,null,-7,{}]}"
    );
    for number in ["1.0", "1e3", "-0.5", "18446744073709551616"] {
        let value = json!({ "n": serde_json::from_str::<Value>(number).unwrap() });
        assert!(matches!(canonical(&value), Err(MetadataError::Number(_))), "{number}");
    }
}

#[test]
fn key_ids_are_those_of_other_implementations() {
    assert_eq!(key().id(), ID);
    let ed25519 = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &[7; 32]].concat();
    assert!(matches!(Key::from_spki(&ed25519), Err(MetadataError::Key(_))));
    let p384 = crate::issuing::Key::new(countersign::model::Scheme::P384Sha384).spki;
    assert!(matches!(Key::from_spki(&p384), Err(MetadataError::Curve)));
}

/// Documents that no signature makes good are told from others by what is wrong with them.
#[test]
fn what_is_no_metadata_is_refused_by_name() {
    let body = tuf::targets(3, Kind::Targets.expires(now()).unwrap(), &BTreeMap::from([("a", &b"b"[..])]));
    let good = Metadata::new(body, vec![("id".to_owned(), vec![1])]).unwrap();
    assert_eq!((good.kind(), good.version()), (Kind::Targets, 3));
    assert_eq!(Metadata::parse(good.bytes()).unwrap(), good);
    let document: Value = serde_json::from_slice(good.bytes()).unwrap();
    for (at, with, because) in [
        ("/signed/_type", json!("mirrors"), "none of the four roles"),
        ("/signed/spec_version", json!("2.0"), "another version"),
        ("/signed/version", json!(0), "positive number"),
        ("/signed/version", json!("3"), "positive number"),
        ("/signed/expires", json!("tomorrow"), "not a time"),
        ("/signatures", json!({}), "no signatures"),
        ("/signatures/0/sig", json!("xyz"), "hexadecimal"),
        ("/signed", Value::Null, "none of the four roles"),
    ] {
        let mut changed = document.clone();
        *changed.pointer_mut(at).unwrap() = with;
        let refused = Metadata::parse(changed.to_string().as_bytes()).unwrap_err();
        assert!(refused.to_string().contains(because), "{at}: {refused}");
    }
    assert!(Metadata::parse(b"{").is_err() && Metadata::parse(&vec![b' '; 1024 * 1024 + 1]).is_err());
}
