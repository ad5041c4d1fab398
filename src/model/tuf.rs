//! Metadata of The Update Framework: the documents, their canonical form, and the arithmetic of their expiry.
//!
//! TUF specification 1.0, the part that Sigstore's clients read: four top-level roles, one key each with threshold 1 (the
//! root's own, and one *online* key for the other three), consistent snapshots, no delegations. Keys are ECDSA on P-256,
//! `ecdsa-sha2-nistp256` with the key in PEM, which `go-tuf`, `python-tuf` and `tuf-js` all take. What is signed is the
//! canonical JSON of the Open Laptop project: sorted names, no spaces, integers alone, and in strings nothing escaped but
//! `"` and `\`.
//!
//! Not here: private keys, files, and when somebody looks at the clock.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{PublicKey, PublicKeyError, Scheme, limits};

/// The version of the specification that the documents name. Clients compare its first number.
const SPECIFICATION: &str = "1.0.31";
const DAY: i64 = 24;

/// Why metadata is refused.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Not TUF metadata.
    #[error("not TUF metadata: {0}")]
    Malformed(&'static str),
    /// A number that the canonical form has no way to write.
    #[error("not TUF metadata: {0} is not an integer")]
    Number(String),
    /// A key that no client would take.
    #[error("TUF key: {0}")]
    Key(#[from] PublicKeyError),
    /// A key on another curve.
    #[error("TUF key: not ECDSA on P-256")]
    Curve,
}

/// One of the four documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Which keys count; signed by the root key, which may be kept elsewhere.
    Root,
    /// Digests of what is handed out.
    Targets,
    /// Which version of the targets goes with which.
    Snapshot,
    /// Which snapshot is the present one; the document that clients ask for first.
    Timestamp,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// As the documents and their file names say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }

    /// How long a document is good that was signed now: ten years, half a year, two months, two weeks.
    ///
    /// Each is signed again when half of that is over, so the service may be down for as long as the other half before
    /// anybody who comes by TUF notices.
    pub const fn life(self) -> SignedDuration {
        SignedDuration::from_hours(match self {
            Self::Root => DAY * 3_652,
            Self::Targets => DAY * 180,
            Self::Snapshot => DAY * 60,
            Self::Timestamp => DAY * 14,
        })
    }

    /// When a document that is signed now will expire, in whole seconds.
    ///
    /// # Errors
    /// A time beyond the year 9999.
    pub fn expires(self, now: Timestamp) -> Result<Timestamp, MetadataError> {
        let end = now.checked_add(self.life()).and_then(|end| Timestamp::from_second(end.as_second()));
        end.map_err(|_source| MetadataError::Malformed("its expiry lies beyond the end of the calendar"))
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A public key of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    pem: String,
    spki: Vec<u8>,
}

impl Key {
    /// A key from its `SubjectPublicKeyInfo`, DER.
    ///
    /// # Errors
    /// [`MetadataError::Key`] or [`MetadataError::Curve`] for what is not ECDSA on P-256.
    pub fn from_spki(spki: &[u8]) -> Result<Self, MetadataError> {
        let key = PublicKey::from_spki(spki)?;
        if key.scheme() != Scheme::P256Sha256 {
            return Err(MetadataError::Curve);
        }
        let pem = der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, spki)
            .map_err(|_source| MetadataError::Malformed("its key cannot be written in PEM"))?;
        let id = hex::encode(Sha256::digest(canonical(&document_of(&pem))?));
        Ok(Self { id, pem, spki: spki.to_vec() })
    }

    /// SHA-256 of the key's canonical form, hexadecimal.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        PublicKey::from_spki(&self.spki).is_ok_and(|key| key.verify(message, signature).is_ok())
    }
}

fn document_of(pem: &str) -> Value {
    json!({ "keytype": "ecdsa", "keyval": { "public": pem }, "scheme": "ecdsa-sha2-nistp256" })
}

/// The body of a root: `online` signs the other three.
pub fn root(version: u64, expires: Timestamp, root: &Key, online: &Key) -> Value {
    let keys: Map<_, _> = [root, online].map(|key| (key.id.clone(), document_of(&key.pem))).into_iter().collect();
    let role = |key: &Key| json!({ "keyids": [key.id], "threshold": 1 });
    let roles: Map<_, _> = Kind::ALL
        .map(|kind| (kind.name().to_owned(), role(if kind == Kind::Root { root } else { online })))
        .into_iter()
        .collect();
    let mut body = head(Kind::Root, version, expires);
    body.extend([
        ("consistent_snapshot".to_owned(), true.into()),
        ("keys".to_owned(), keys.into()),
        ("roles".to_owned(), roles.into()),
    ]);
    body.into()
}

/// The body of a root that is another one with the next version and a later end.
///
/// # Errors
/// [`MetadataError::Malformed`] if that is no root.
pub fn renewed_root(present: &Metadata, expires: Timestamp) -> Result<Value, MetadataError> {
    let mut body = present.body.clone();
    let fields = body.as_object_mut().filter(|_| present.kind == Kind::Root);
    let fields = fields.ok_or(MetadataError::Malformed("it is no root"))?;
    fields.insert("version".to_owned(), present.version.saturating_add(1).into());
    fields.insert("expires".to_owned(), written(expires).into());
    Ok(body)
}

/// The body of the targets: names with their contents.
pub fn targets(version: u64, expires: Timestamp, targets: &BTreeMap<&str, &[u8]>) -> Value {
    let listed: Map<_, _> = targets.iter().map(|(name, content)| ((*name).to_owned(), summary(content))).collect();
    let mut body = head(Kind::Targets, version, expires);
    body.insert("targets".to_owned(), listed.into());
    body.into()
}

/// The body of a snapshot of these targets.
pub fn snapshot(version: u64, expires: Timestamp, targets: &Metadata) -> Value {
    with_meta(head(Kind::Snapshot, version, expires), targets)
}

/// The body of a timestamp of this snapshot.
pub fn timestamp(version: u64, expires: Timestamp, snapshot: &Metadata) -> Value {
    with_meta(head(Kind::Timestamp, version, expires), snapshot)
}

fn head(kind: Kind, version: u64, expires: Timestamp) -> Map<String, Value> {
    let body = json!({
        "_type": kind.name(), "spec_version": SPECIFICATION, "version": version, "expires": written(expires),
    });
    if let Value::Object(body) = body { body } else { Map::new() }
}

fn with_meta(mut body: Map<String, Value>, of: &Metadata) -> Value {
    let mut meta = summary(&of.bytes);
    if let Some(meta) = meta.as_object_mut() {
        meta.insert("version".to_owned(), of.version.into());
    }
    body.insert("meta".to_owned(), json!({ format!("{}.json", of.kind.name()): meta }));
    body.into()
}

fn summary(content: &[u8]) -> Value {
    json!({ "length": content.len(), "hashes": { "sha256": hex::encode(Sha256::digest(content)) } })
}

/// `YYYY-MM-DDTHH:MM:SSZ`: clients take no fractions.
fn written(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// One document with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    kind: Kind,
    version: u64,
    expires: Timestamp,
    body: Value,
    /// By key id.
    signatures: Vec<(String, Vec<u8>)>,
    bytes: Vec<u8>,
}

impl Metadata {
    /// Puts signatures (key id, ASN.1 DER) to a body; they are over its [`canonical`] form.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] if the body is none.
    pub fn new(body: Value, signatures: Vec<(String, Vec<u8>)>) -> Result<Self, MetadataError> {
        let listed: Vec<_> =
            signatures.iter().map(|(id, signature)| json!({ "keyid": id, "sig": hex::encode(signature) })).collect();
        let document = json!({ "signatures": listed, "signed": body });
        Self::parse(format!("{document}\n").as_bytes())
    }

    /// Reads a document. Nothing is verified: see [`Self::is_signed_by`].
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] says what is missing.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        let malformed = MetadataError::Malformed;
        if bytes.len() > limits::DOCUMENT {
            return Err(malformed("it has more than a mebibyte"));
        }
        let document: Value = serde_json::from_slice(bytes).map_err(|_source| malformed("it is not JSON"))?;
        let body = document.get("signed").ok_or(malformed("it has no part `signed`"))?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let kind = text("_type").and_then(Kind::of_name).ok_or(malformed("its type is none of the four roles"))?;
        if !text("spec_version").is_some_and(|version| version.starts_with("1.")) {
            return Err(malformed("it is of another version of the specification"));
        }
        let version = body.get("version").and_then(Value::as_u64).filter(|version| *version > 0);
        let expires = text("expires").and_then(|text| text.parse().ok());
        let mut signatures = Vec::new();
        let listed = document.get("signatures").and_then(Value::as_array);
        for one in listed.ok_or(malformed("it has no signatures"))? {
            let text = |name: &str| one.get(name).and_then(Value::as_str);
            let signature = text("sig").and_then(|text| hex::decode(text).ok());
            let pair = text("keyid").map(ToOwned::to_owned).zip(signature);
            signatures.push(pair.ok_or(malformed("a signature is not key id and hexadecimal"))?);
        }
        Ok(Self {
            kind,
            version: version.ok_or(malformed("its version is not a positive number"))?,
            expires: expires.ok_or(malformed("its expiry is not a time"))?,
            body: body.clone(),
            signatures,
            bytes: bytes.to_vec(),
        })
    }

    /// Which document it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its version, from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Until when clients take it.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The document, as it is served.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is time to sign it again: half of its life is over.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.expires.duration_since(now) < self.kind.life() / 2
    }

    /// Whether one of these keys signed it.
    pub fn is_signed_by(&self, keys: &[&Key]) -> bool {
        let Ok(message) = canonical(&self.body) else { return false };
        self.signatures
            .iter()
            .any(|(id, signature)| keys.iter().any(|key| key.id == *id && key.verifies(&message, signature)))
    }

    /// The keys that a root names for a document.
    ///
    /// # Errors
    /// [`MetadataError::Malformed`] if this is no root, or names a key that it does not have.
    pub fn keys_of(&self, kind: Kind) -> Result<Vec<Key>, MetadataError> {
        let malformed = MetadataError::Malformed;
        let ids = self.body.pointer(&format!("/roles/{}/keyids", kind.name())).and_then(Value::as_array);
        let key = |id: &Value| {
            let pem = self.body.get("keys")?.get(id.as_str()?)?.pointer("/keyval/public")?.as_str()?;
            PublicKey::from_pem(pem).ok().and_then(|key| Key::from_spki(key.spki()).ok())
        };
        let keys: Option<Vec<Key>> = ids.ok_or(malformed("it names no keys for a role"))?.iter().map(key).collect();
        keys.ok_or(malformed("it names a key that it does not have"))
    }

    /// The version of the document that this one points to: of a timestamp its snapshot, of a snapshot its targets.
    pub fn points_to(&self, kind: Kind) -> Option<u64> {
        self.body.get("meta")?.get(format!("{}.json", kind.name()))?.get("version")?.as_u64()
    }

    /// Whether these are the targets that it lists, no more and no less.
    pub fn lists(&self, targets: &BTreeMap<&str, &[u8]>) -> bool {
        let listed = self.body.get("targets").and_then(Value::as_object);
        listed.is_some_and(|listed| {
            listed.len() == targets.len()
                && targets.iter().all(|(name, content)| listed.get(*name) == Some(&summary(content)))
        })
    }

    /// The files of the targets that it lists, `<sha256>.<name>`.
    pub fn target_files(&self) -> Vec<String> {
        let listed = self.body.get("targets").and_then(Value::as_object);
        let file =
            |(name, target): (&String, &Value)| Some(format!("{}.{name}", target.pointer("/hashes/sha256")?.as_str()?));
        listed.into_iter().flatten().filter_map(file).collect()
    }

    /// Whether this root may follow `present`: the next version, good for longer, signed by the present root key, and
    /// otherwise the same.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn may_follow(&self, present: &Self, now: Timestamp) -> Result<(), &'static str> {
        if self.kind != Kind::Root {
            return Err("it is no root");
        }
        if self.version != present.version.saturating_add(1) {
            return Err("its version is not the one after that of the present root; sign the present root once more");
        }
        if self.expires <= present.expires || self.expires <= now {
            return Err("it does not expire later than the present root");
        }
        let same = renewed_root(present, self.expires).is_ok_and(|wanted| wanted == self.body);
        if !same {
            return Err("it names other keys than the present root");
        }
        let keys = present.keys_of(Kind::Root).map_err(|_source| "the present root names no keys")?;
        if !self.is_signed_by(&keys.iter().collect::<Vec<_>>()) {
            return Err("it is not signed by the root key");
        }
        Ok(())
    }
}

/// The canonical form of a document: what is signed and hashed.
///
/// # Errors
/// [`MetadataError::Number`] for a number that is not an integer.
pub fn canonical(value: &Value) -> Result<Vec<u8>, MetadataError> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out.into_bytes())
}

fn write(value: &Value, out: &mut String) -> Result<(), MetadataError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) if number.is_i64() || number.is_u64() => out.push_str(&number.to_string()),
        Value::Number(number) => return Err(MetadataError::Number(number.to_string())),
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (at, (name, field)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_text(name, out);
                out.push(':');
                write(field, out)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
