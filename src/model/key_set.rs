//! A JSON Web Key Set (RFC 7517), reduced to the keys that may verify tokens here.
//!
//! Not here: where a set comes from and how long it counts (`identity`).
//!
//! Keys for other uses, of other types, on other curves, and RSA keys under 2048 bits are left out: a set may hold
//! them, they are just not ours to use. `x5u`, `x5c` and the like are never followed.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::limits;

/// The keys of one issuer at one time.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// What looking for a key came to.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The key to verify with.
    Found(&'a DecodingKey),
    /// The key is known and must not be used with this algorithm.
    WrongAlgorithm,
    /// No key has this id.
    Unknown,
    /// The token names no key, and there are several.
    Ambiguous,
}

/// Why a document is not a usable key set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Over [`limits::JWKS`].
    #[error("it has {0} bytes; the limit is {limit}", limit = limits::JWKS)]
    TooLarge(usize),
    /// Not JSON, or without a list of keys.
    #[error("it is not the JSON of a key set: {0}")]
    Malformed(String),
    /// Over [`limits::JWKS_KEYS`].
    #[error("it has {0} keys; the limit is {limit}", limit = limits::JWKS_KEYS)]
    TooMany(usize),
    /// Two keys of one id: which is meant cannot be told.
    #[error("it has two keys with one id")]
    Duplicate,
    /// None of its keys is for us.
    #[error("it has no key that can verify signatures (RSA from 2048 bits, P-256, P-384 or Ed25519)")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct Wire {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct WireKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

const RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];

impl KeySet {
    /// Reads a set, leaving out the keys that are not ours to use.
    ///
    /// # Errors
    /// A [`KeySetError`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > limits::JWKS {
            return Err(KeySetError::TooLarge(json.len()));
        }
        // As text first: serde passes over whatever stands in fields that nobody reads.
        let text = str::from_utf8(json).map_err(|source| KeySetError::Malformed(source.to_string()))?;
        let wire: Wire =
            serde_json::from_str(text).map_err(|source| KeySetError::Malformed(limits::quoted(&source)))?;
        if wire.keys.len() > limits::JWKS_KEYS {
            return Err(KeySetError::TooMany(wire.keys.len()));
        }
        let keys: Vec<Key> = wire
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .filter_map(|key: WireKey| key.usable())
            .collect();
        let duplicate = keys
            .iter()
            .enumerate()
            .any(|(index, key)| key.kid.is_some() && keys.iter().skip(index + 1).any(|other| other.kid == key.kid));
        match (keys.is_empty(), duplicate) {
            (true, _) => Err(KeySetError::NoUsableKey),
            (_, true) => Err(KeySetError::Duplicate),
            (false, false) => Ok(Self(keys)),
        }
    }

    /// The key of this id. A token without an id means the only key there is.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Lookup<'_> {
        let key = match (kid, self.0.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => return Lookup::Ambiguous,
        };
        match key {
            Some(key) if key.algorithms.contains(&algorithm) => Lookup::Found(&key.decoding),
            Some(_) => Lookup::WrongAlgorithm,
            None => Lookup::Unknown,
        }
    }
}

impl WireKey {
    fn usable(self) -> Option<Key> {
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !for_signatures {
            return None;
        }
        let (mut algorithms, decoding) = match self.kty.as_str() {
            "RSA" => (RSA.to_vec(), self.rsa()?),
            "EC" => self.ec()?,
            "OKP" if self.crv.as_deref() == Some("Ed25519") => {
                let x = bytes(self.x.as_deref(), 32)?;
                (vec![Algorithm::EdDSA], DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        if let Some(alg) = &self.alg {
            let alg: Algorithm = if alg == "Ed25519" { Algorithm::EdDSA } else { alg.parse().ok()? };
            algorithms.retain(|candidate| *candidate == alg);
        }
        (!algorithms.is_empty()).then_some(Key { kid: self.kid, algorithms, decoding })
    }

    fn rsa(&self) -> Option<DecodingKey> {
        let n = URL_SAFE_NO_PAD.decode(self.n.as_deref()?).ok()?;
        let e = URL_SAFE_NO_PAD.decode(self.e.as_deref()?).ok()?;
        let n: Vec<u8> = n.into_iter().skip_while(|byte| *byte == 0).collect();
        let top_bits = 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
        let bits = (n.len() - 1) * 8 + top_bits;
        (2048..=8192).contains(&bits).then(|| DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn ec(&self) -> Option<(Vec<Algorithm>, DecodingKey)> {
        let (algorithm, width) = match self.crv.as_deref()? {
            "P-256" => (Algorithm::ES256, 32),
            "P-384" => (Algorithm::ES384, 48),
            _ => return None,
        };
        let mut point = vec![4];
        point.extend(bytes(self.x.as_deref(), width)?);
        point.extend(bytes(self.y.as_deref(), width)?);
        Some((vec![algorithm], DecodingKey::from_ec_der(&point)))
    }
}

fn bytes(text: Option<&str>, width: usize) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text?).ok().filter(|bytes| bytes.len() == width)
}
