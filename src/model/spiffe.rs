//! SPIFFE IDs, by their specification: `spiffe://<trust domain>/<path>`.

use super::limits;

/// Whether `text` is one, with a path.
pub fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    text.len() <= limits::URI && is_part(domain, false) && path.split('/').all(|segment| is_part(segment, true))
}

/// Whether `part` can be a segment of a path, or, without upper case, a trust domain.
pub fn is_part(part: &str, upper: bool) -> bool {
    !part.is_empty()
        && part != "."
        && part != ".."
        && part.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b) || (upper && b.is_ascii_uppercase())
        })
}
