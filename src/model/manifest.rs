//! Kubernetes manifests as people write them: YAML documents or JSON, lists unrolled, and pins written back.

use serde_json::Value;

use super::{json::check_json_depth, limits, object::Kind};

/// Why a manifest could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Over the limit of one document.
    #[error("the manifest has {0} bytes; the limit is {max}", max = limits::DOCUMENT)]
    TooLong(usize),
    /// Neither YAML nor JSON.
    #[error("the manifest is neither YAML nor JSON: {0}")]
    Syntax(String),
    /// Nested too deeply.
    #[error("the manifest is nested more than {} levels deep", limits::JSON_DEPTH)]
    TooDeep,
    /// More objects than one question may have.
    #[error("the manifest has more than {} objects; split it", limits::OBJECTS)]
    TooMany,
    /// A document without `apiVersion` or `kind`.
    #[error("document {0} has no apiVersion or no kind; is it a Kubernetes object?")]
    NotAnObject(usize),
    /// There is nothing to ask about.
    #[error("the manifest has no objects")]
    Empty,
    /// The result could not be written as YAML.
    #[error("the manifest could not be written: {0}")]
    Write(String),
}

/// A tag that becomes tag and digest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pin {
    /// The JSON pointer to the image.
    pub pointer: String,
    /// The image, pinned to the digest that was judged, the name spelled as the user spelled it.
    pub image: String,
}

/// The objects of a manifest, in order; a `List` counts as its items, empty documents are left out.
pub fn parse(bytes: &[u8]) -> Result<Vec<Value>, ManifestError> {
    if bytes.len() > limits::DOCUMENT {
        return Err(ManifestError::TooLong(bytes.len()));
    }
    let mut objects = Vec::new();
    for (index, document) in documents(bytes)?.into_iter().enumerate() {
        if depth(&document, 0) > limits::JSON_DEPTH {
            return Err(ManifestError::TooDeep);
        }
        unroll(document, index + 1, &mut objects)?;
    }
    if objects.is_empty() { Err(ManifestError::Empty) } else { Ok(objects) }
}

fn documents(bytes: &[u8]) -> Result<Vec<Value>, ManifestError> {
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b'{' | b'['));
    if is_json {
        check_json_depth(bytes, limits::JSON_DEPTH).map_err(|_source| ManifestError::TooDeep)?;
        if let Ok(value) = serde_json::from_slice(bytes) {
            return Ok(vec![value]);
        }
    }
    let text = str::from_utf8(bytes).map_err(|source| ManifestError::Syntax(limits::quoted(&source)))?;
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|source| match source {
        serde_saphyr::Error::Budget { breach: serde_saphyr::budget::BudgetBreach::Depth { .. }, .. } => {
            ManifestError::TooDeep
        }
        _ => ManifestError::Syntax(limits::quoted(&source)),
    })
}

fn unroll(document: Value, number: usize, objects: &mut Vec<Value>) -> Result<(), ManifestError> {
    if document.is_null() {
        return Ok(());
    }
    let kind = Kind::of(&document).ok_or(ManifestError::NotAnObject(number))?;
    if kind.kind.ends_with("List")
        && let Some(Value::Array(items)) = document.get("items")
    {
        return items.iter().try_for_each(|item| unroll(item.clone(), number, objects));
    }
    if objects.len() >= limits::OBJECTS {
        return Err(ManifestError::TooMany);
    }
    objects.push(document);
    Ok(())
}

fn depth(value: &Value, above: usize) -> usize {
    let here = above + 1;
    if here > limits::JSON_DEPTH {
        return here;
    }
    match value {
        Value::Array(items) => items.iter().map(|item| depth(item, here)).max().unwrap_or(here),
        Value::Object(fields) => fields.values().map(|item| depth(item, here)).max().unwrap_or(here),
        _ => above,
    }
}

/// Writes pins into the object that they were made for. A pin whose pointer leads nowhere is passed over.
pub fn pin(object: &mut Value, pins: &[Pin]) {
    for pin in pins {
        if let Some(place) = object.pointer_mut(&pin.pointer) {
            *place = Value::String(pin.image.clone());
        }
    }
}

/// The objects as YAML documents.
pub fn write(objects: &[Value]) -> Result<String, ManifestError> {
    serde_saphyr::to_string_multiple(objects).map_err(|source| ManifestError::Write(source.to_string()))
}
