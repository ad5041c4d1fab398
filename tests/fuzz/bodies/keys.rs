//! Keys, and the documents about them: public keys, URIs of keys on tokens, TUF metadata.

use std::sync::OnceLock;

use countersign::model::{
    key_uri::{KeyUri, SCHEME},
    limits,
    public_key::{PublicKey, Scheme},
    tuf::{self, Key, Kind, Metadata},
};
use serde_json::Value;

use super::refused;

/// A signature over `artifact` by the golden key on P-256.
const SIGNATURE: &str = "304402202d5ee54034fa8a517bfe91c8ad07347194254af1dd77e430fe345065ead2854302204b51\
                         4638a230fa7e14b16a72adbbd4dcfb587e09d0b755fd5fae5095aa55ae34";

/// Public keys: DER and PEM are one key, its scheme has one name and one number, and only the golden key signed.
pub fn public_key(data: &[u8]) -> bool {
    let key = match PublicKey::from_spki(data) {
        Ok(key) => key,
        Err(error) => return refused(&error),
    };
    assert_eq!(key.spki(), data);
    let pem = der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, data).expect("PEM");
    assert_eq!(PublicKey::from_pem(&pem).as_ref(), Ok(&key));
    let scheme = key.scheme();
    assert_eq!(Scheme::of_name(scheme.details()), Some(scheme));
    assert_eq!(Scheme::of_number(scheme.number()), Some(scheme));
    let signed = key.verify(b"artifact", &hex::decode(SIGNATURE).expect("hexadecimal")).is_ok();
    assert_eq!(signed, data == include_bytes!("../../golden/model/public_key/p256.der"));
    true
}

/// PKCS#11 URIs: what parses prints back.
pub fn key_uri(data: &[u8]) -> bool {
    let Some(uri) = KeyUri::parse(data) else { return false };
    assert_eq!(uri.to_string().as_bytes(), data);
    assert!(data.starts_with(SCHEME.as_bytes()));
    true
}

/// The first root of the golden repository, and the one that follows it.
const ROOTS: [&[u8]; 2] =
    [include_bytes!("../../golden/model/tuf/1.root.json"), include_bytes!("../../golden/model/tuf/2.root.json")];
const SIGNED: [&[u8]; 4] = [
    ROOTS[0],
    ROOTS[1],
    include_bytes!("../../golden/model/tuf/1.targets.json"),
    include_bytes!("../../golden/model/tuf/timestamp.json"),
];

/// The golden root, and the keys in it.
fn golden() -> &'static (Metadata, Vec<Key>) {
    static PARSED: OnceLock<(Metadata, Vec<Key>)> = OnceLock::new();
    PARSED.get_or_init(|| {
        let root = Metadata::parse(ROOTS[0]).expect("a root");
        let keys = Kind::ALL.iter().flat_map(|kind| root.keys_of(*kind).expect("keys")).collect();
        (root, keys)
    })
}

/// The part of a document that is signed.
fn signed(document: &[u8]) -> Value {
    serde_json::from_slice::<Value>(document).expect("it was read as JSON")["signed"].take()
}

/// TUF metadata: however its JSON is written, it says the same; its canonical form says no more and no less; its keys are
/// keys; and nobody signs for the golden repository, or makes a root that may follow its own.
pub fn tuf(data: &[u8]) -> bool {
    let read = match Metadata::parse(data) {
        Ok(read) => read,
        Err(error) => return refused(&error),
    };
    assert!(read.version() > 0 && read.bytes() == data && data.len() <= limits::DOCUMENT);
    let document: Value = serde_json::from_slice(data).expect("it was read as JSON");
    let again = Metadata::parse(format!("{document:#}").as_bytes()).expect("the same, written in another way");
    let (root, keys) = golden();
    let keys: Vec<&Key> = keys.iter().collect();
    let says = |read: &Metadata| {
        let ids =
            |kind: &Kind| read.keys_of(*kind).ok().map(|keys| keys.iter().map(|key| key.id().to_owned()).collect());
        let ids: Vec<Option<Vec<String>>> = Kind::ALL.iter().map(ids).collect();
        let to = Kind::ALL.map(|kind| read.points_to(kind));
        (read.kind(), read.version(), read.expires(), ids, to, read.target_files(), read.is_signed_by(&keys))
    };
    assert_eq!(says(&read), says(&again));

    let body = signed(data);
    match tuf::canonical(&body) {
        Ok(canonical) => {
            // Its only difference to JSON is that control characters stand in its strings, and nowhere else.
            let text = String::from_utf8(canonical).expect("text");
            let escape = |c: char| if c < ' ' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
            let json: String = text.chars().map(escape).collect();
            assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), body);
        }
        Err(error) => {
            refused(&error);
            assert!(!read.is_signed_by(&keys));
        }
    }
    let golden = SIGNED.map(signed);
    assert!(!read.is_signed_by(&keys) || golden.contains(&body), "forged");
    let follows = read.may_follow(root, root.expires() - jiff::SignedDuration::from_hours(1)).is_ok();
    assert!(!follows || body == golden[1], "a forged root");
    true
}
