//! A text made of claims: a claim's path, or a template with paths in braces.
//!
//! `repository_id` is the claim of that name, `kubernetes.io.namespace` a nested one, and
//! `https://git.example.org/{project_path}/-/jobs/{job_id}` a text with two claims in it. Braces stand for nothing else.

use serde_json::Value;

use super::{
    limits,
    token::{Claims, claim},
};

/// Claims in one template, as a count.
const PIECES: usize = 16;

/// A template, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Claim(String),
}

impl Template {
    /// Parses a template. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > limits::URI {
            return Err(format!("is longer than {} characters", limits::URI));
        }
        if text.chars().any(char::is_control) {
            return Err("has control characters".to_owned());
        }
        if !text.contains(['{', '}']) {
            return Ok(Self(vec![Piece::claim(text)?]));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (path, after) = behind.split_once('}').ok_or("has { without }")?;
            pieces.push(Piece::text(before)?);
            pieces.push(Piece::claim(path)?);
            rest = after;
        }
        pieces.push(Piece::text(rest)?);
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        if pieces.iter().filter(|piece| matches!(piece, Piece::Claim(_))).count() > PIECES {
            return Err(format!("has more than {PIECES} claims"));
        }
        Ok(Self(pieces))
    }

    /// The text, or the path of the first claim that is not there.
    pub fn render(&self, claims: &Claims) -> Result<String, &str> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Claim(path) => text.push_str(&value(claims, path).ok_or(path.as_str())?),
            }
        }
        Ok(text)
    }

    /// The path of the template's first claim; empty for one without claims.
    pub fn first_claim(&self) -> &str {
        let mut paths = self.0.iter().filter_map(|piece| match piece {
            Piece::Claim(path) => Some(path.as_str()),
            Piece::Text(_) => None,
        });
        paths.next().unwrap_or_default()
    }
}

impl Piece {
    fn text(text: &str) -> Result<Self, String> {
        if text.contains('}') { Err("has } without {".to_owned()) } else { Ok(Self::Text(text.to_owned())) }
    }

    fn claim(path: &str) -> Result<Self, String> {
        match path {
            "" => Err("names no claim".to_owned()),
            path if path.contains('{') => Err("has { within {".to_owned()),
            path => Ok(Self::Claim(path.to_owned())),
        }
    }
}

/// A claim as text; an empty one counts as missing, and so does one that is no text, number or boolean.
fn value(claims: &Claims, path: &str) -> Option<String> {
    match claim(claims, path)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        value @ (Value::Bool(_) | Value::Number(_)) => Some(value.to_string()),
        _ => None,
    }
}
