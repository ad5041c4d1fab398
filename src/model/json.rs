//! JSON: how deep it is nested, before anything recurses into it; and as clients of protobuf services write it: bytes in base64 of any alphabet, padded or not; enumerations by name or
//! number; names in camel case or snake case (each message lists both). Fields that are not known are ignored, as
//! gateways do, so that newer clients are served.

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};

use super::{limits, public_key::Scheme};

/// Why a body is not the JSON that is wanted; a sentence for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Over [`limits::JSON_DEPTH`].
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
    /// Not JSON, or other fields than are wanted: the first [`limits::NAME`] characters of what serde says.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
static STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
static URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Bytes in base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).map(Self).map_err(|_source| D::Error::custom("bytes must be base64"))
    }
}

/// Decodes base64 in either alphabet, padded or not.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text)
}

/// A scheme by the name or number of its `PublicKeyDetails`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyDetails(pub(super) Scheme);

impl<'de> Deserialize<'de> for KeyDetails {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Name(String),
            Number(i32),
        }
        let scheme = match Form::deserialize(deserializer)? {
            Form::Name(name) => Scheme::of_name(&name),
            Form::Number(number) => Scheme::of_number(number),
        };
        scheme.map(Self).ok_or_else(|| D::Error::custom(unknown_scheme()))
    }
}

/// What is said of a scheme that is not known.
pub(super) fn unknown_scheme() -> String {
    let names: Vec<_> = Scheme::ALL.iter().map(|scheme| scheme.details()).collect();
    format!("keyDetails must be one of {}", names.join(", "))
}

/// JSON is nested deeper than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON is nested too deeply")]
pub struct TooDeep;

/// Scans JSON text for nesting deeper than `most` levels, before any parser recurses into it.
pub fn check_json_depth(bytes: &[u8], most: usize) -> Result<(), TooDeep> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > most {
                    return Err(TooDeep);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Whether JSON text is an object. Of structs serde also reads arrays, by the order of the fields, which nobody means.
pub(super) fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// Reads a request's body.
///
/// # Errors
/// A [`JsonError`] that says where it is not what was wanted.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, JsonError> {
    check_json_depth(body, limits::JSON_DEPTH)?;
    serde_json::from_slice(body).map_err(|source| JsonError::Unreadable(limits::quoted(&source)))
}
