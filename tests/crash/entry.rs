//! What the clients of the crash programme append: entry `n` of a log's life, always the same bytes.
//!
//! So a ledger is a list of numbers, and whatever stands in the log can be told from its number alone, whether or not
//! it was ever acknowledged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    log::{Draft, View},
    model::{Digest, leaf, predicate},
};

use super::seed::Seed;

/// Subjects that the payloads speak about.
const SUBJECTS: u64 = 5;

/// How an entry looks.
enum Shape {
    Plain { bytes: u64 },
    Signed { subject: Digest, padding: u64 },
}

fn shape(life: u64, n: u64) -> (Shape, Seed) {
    let mut seed = Seed::new(life ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let shape = match seed.below(100) {
        0..60 => Shape::Plain { bytes: 400 },
        60..63 => Shape::Plain { bytes: 20_000 },
        kind => {
            Shape::Signed { subject: subject(life, seed.below(SUBJECTS)), padding: if kind < 90 { 100 } else { 9_000 } }
        }
    };
    (shape, seed)
}

/// Entry `n` of the log's life `life`: small and large leaves, without payload, with a small one, with one in a blob.
pub fn draft(life: u64, n: u64) -> Draft {
    let (shape, mut seed) = shape(life, n);
    match shape {
        Shape::Plain { bytes } => {
            let length = seed.below(bytes) as usize / 2;
            let padding = hex::encode(seed.bytes(length));
            Draft { leaf: format!("entry {n} {padding}").into_bytes(), payload: Vec::new() }
        }
        Shape::Signed { subject, padding } => {
            let digest = STANDARD.encode(subject.as_bytes());
            let length = seed.below(padding) as usize;
            let padding = hex::encode(seed.bytes(length));
            let payload = format!(
                r#"{{"messageSignature":{{"messageDigest":{{"algorithm":"SHA2_256","digest":"{digest}"}},"signature":"AA=="}},"padding":"{padding}"}}"#
            );
            let leaf = leaf::hashedrekord(&subject, &n.to_be_bytes(), b"certificate");
            Draft { leaf, payload: payload.into_bytes() }
        }
    }
}

fn subject(life: u64, number: u64) -> Digest {
    Digest::of(&[life.to_be_bytes(), number.to_be_bytes()].concat())
}

/// The number of the entry with this leaf; `None` for leaves that no client wrote.
pub fn number(leaf: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(leaf).ok()?;
    if let Some(rest) = text.strip_prefix("entry ") {
        return rest.split(' ').next()?.parse().ok();
    }
    let (_, rest) = text.split_once(r#""content":""#)?;
    let (content, _) = rest.split_once('"')?;
    Some(u64::from_be_bytes(STANDARD.decode(content).ok()?.try_into().ok()?))
}

/// The views that entries of this life can be in.
pub fn views(life: u64) -> Vec<View> {
    let digests = (0..SUBJECTS).map(|number| View::Digest(subject(life, number)));
    digests.chain([View::PredicateType(predicate::SIGN.to_owned())]).collect()
}

/// Whether entry `n` is in the view.
pub fn is_in(view: &View, life: u64, n: u64) -> bool {
    match (view, shape(life, n).0) {
        (View::Digest(digest), Shape::Signed { subject, .. }) => *digest == subject,
        (View::PredicateType(_), Shape::Signed { .. }) => true,
        _ => false,
    }
}
