//! Lists of what refers to a digest: the pages of the referrers API (OCI distribution specification 1.1) and the links
//! between them (RFC 8288).
//!
//! Not here: what a referrer is. The list is unsigned and often wrong, so its manifest decides.

use super::{
    image_manifest::{Descriptor, Document},
    json::{TooDeep, check_json_depth, is_object},
    limits,
};

/// The descriptors on one page; `None` when this is not how a referrers API answers.
///
/// # Errors
/// [`TooDeep`] for JSON over [`limits::JSON_DEPTH`].
pub fn page(body: &[u8]) -> Result<Option<Vec<Descriptor>>, TooDeep> {
    check_json_depth(body, limits::JSON_DEPTH)?;
    let index: Option<Document> = serde_json::from_slice(body).ok().filter(|_| is_object(body));
    Ok(index.and_then(|index| index.manifests))
}

/// The target of the first link in the value of a `Link` header that leads to the next page, as it is written there.
pub fn next(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        // A list may have empty elements (RFC 9110 section 5.6.1.2).
        let link = rest.trim_start_matches([',', ' ', '\t']);
        let (target, behind) = link.strip_prefix('<')?.split_once('>')?;
        let (parameters, others) = split_outside_quotes(behind, ',');
        if is_next(parameters) {
            return Some(target);
        }
        rest = others?;
    }
}

/// Whether the parameters of a link have `next` among the relations of their first `rel`.
fn is_next(parameters: &str) -> bool {
    let mut rest = Some(parameters);
    while let Some(text) = rest {
        let (parameter, others) = split_outside_quotes(text, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let relations = value.trim().trim_matches('"');
            return relations.split_ascii_whitespace().any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        rest = others;
    }
    false
}

/// What stands before the first separator that is not within quotes, and what stands behind it, if there is one.
fn split_outside_quotes(text: &str, separator: char) -> (&str, Option<&str>) {
    let (mut quoted, mut escaped) = (false, false);
    let is_end = |c: char| {
        let plain = !std::mem::take(&mut escaped);
        match c {
            '\\' if plain && quoted => escaped = true,
            '"' if plain => quoted = !quoted,
            _ => {}
        }
        c == separator && !quoted
    };
    text.split_once(is_end).map_or((text, None), |(before, behind)| (before, Some(behind)))
}
