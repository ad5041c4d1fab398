//! What each fuzz target asks of the parsers of strangers' bytes, and of the checks of signatures and proofs.
//!
//! The targets in `fuzz_targets/` run these on what a fuzzer finds; `tests/fuzzing.rs` runs them on random and on mutated
//! inputs, with every run of the tests. Each returns whether the input was accepted, and panics if what it promises does
//! not hold.

use std::fmt::Display;

use countersign::model::limits;

mod callers;
mod cluster;
mod evidence;
mod judgements;
mod keys;
mod operators;
mod registries;
mod requests;
mod statements;
mod tlog;
mod tokens;

pub use callers::*;
pub use cluster::*;
pub use evidence::*;
pub use judgements::*;
pub use keys::*;
pub use operators::*;
pub use registries::*;
pub use requests::*;
pub use statements::*;
pub use tlog::*;
pub use tokens::*;

/// A target's name and what it runs.
pub type Body = (&'static str, fn(&[u8]) -> bool);

/// All targets. The seeds of each are the files of `tests/golden/tlog/<name>/` or `tests/golden/model/<name>/`.
pub const BODIES: [Body; 45] = [
    ("note", note),
    ("checkpoint", checkpoint),
    ("tile_path", tile_path),
    ("entry_bundle", entry_bundle),
    ("proof", proof),
    ("receipt", receipt),
    ("verifier_key", verifier_key),
    ("add_checkpoint", add_checkpoint),
    ("policy", policy),
    ("certificate_request", certificate_request),
    ("entry_request", entry_request),
    ("possession", possession),
    ("possession_v1", possession_v1),
    ("stamp_request", stamp_request),
    ("stamp_request_json", stamp_request_json),
    ("legacy", legacy),
    ("bundle", bundle),
    ("statement", statement),
    ("certificate", certificate),
    ("trusted_root", trusted_root),
    ("image", image),
    ("challenge", challenge),
    ("public_key", public_key),
    ("tuf", tuf),
    ("key_uri", key_uri),
    ("token", token),
    ("key_set", key_set),
    ("discovery", discovery),
    ("peer", peer),
    ("facts", facts),
    ("image_manifest", image_manifest),
    ("referrers", referrers),
    ("wait", wait),
    ("token_reply", token_reply),
    ("docker_config", docker_config),
    ("manifest", manifest),
    ("review", review),
    ("timeout", timeout),
    ("policy_set", policy_set),
    ("rule", rule),
    ("template", template),
    ("encryption_key", encryption_key),
    ("record", record),
    ("scan", scan),
    ("provenance", provenance),
];

/// The longest text of an error: one that quotes what was sent quotes [`limits::NAME`] characters at most, each of four
/// bytes or of some more where it is escaped.
const MOST_SAID: usize = 10 * limits::NAME + 1_024;

fn text(data: &[u8]) -> Option<&str> {
    str::from_utf8(data).ok()
}

/// The first line, and what is behind it; nothing where there is one line alone.
fn lines(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    at.map_or((data, &[]), |at| (&data[..at], &data[at + 1..]))
}

/// The input was not accepted, and what is said of it is short: it goes into answers, records and logs.
fn refused(error: &impl Display) -> bool {
    let said = error.to_string();
    assert!(!said.is_empty() && said.len() <= MOST_SAID, "{} bytes are said: {said}", said.len());
    false
}
