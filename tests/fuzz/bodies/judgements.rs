//! What the judge makes of what statements say.

use std::sync::{Arc, OnceLock};

use countersign::model::{
    digest::Digest,
    evidence::Evidence,
    identity::Identity,
    judge::{Question, judge},
    policy::PolicySet,
    predicate,
    revocation::Revocations,
    statement::Statement,
    verdict::{Decision, LogRef},
    verify::{Signer, Verified},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{MOST_SAID, refused};

const POLICIES: &str = r#"
apiVersion: countersign.dev/v1
identities:
  - {name: ci, issuer: https://countersign.test, subject: spiffe://countersign.test/ci}
policies:
  - name: built
    match: {images: ["**"], environments: [build]}
    require:
      predicates:
        - signers: [ci]
          provenance:
            builders: ["https://builder.example.com/*", "https://github.com/loosebazooka/*/.github/workflows/*@refs/heads/main"]
            sources: ["https://git.example.com/shop/*", "https://github.com/loosebazooka/*"]
  - name: approved
    match: {images: ["**"], environments: [production]}
    require:
      approvals: {approvers: [{name: ci}]}
"#;
const BUILDERS: [&str; 2] =
    ["https://builder.example.com/*", "https://github.com/loosebazooka/*/.github/workflows/*@refs/heads/main"];
const SOURCES: [&str; 2] = ["https://git.example.com/shop/*", "https://github.com/loosebazooka/*"];
const NOW: &str = "2026-11-29T00:00:00Z";

fn policies() -> &'static PolicySet {
    static PARSED: OnceLock<PolicySet> = OnceLock::new();
    PARSED.get_or_init(|| PolicySet::parse(POLICIES).expect("policies"))
}

/// Provenance and approvals, as if a listed signer had signed them: what is allowed names, for whoever reads its JSON, a
/// builder and sources that the policy lists, or is an approval for the place in question that has not run out; and each
/// reason is short.
pub fn provenance(data: &[u8]) -> bool {
    let statement = match Statement::parse(data) {
        Ok(statement) => statement,
        Err(error) => return refused(&error),
    };
    let is_approval = statement.predicate_type() == predicate::APPROVAL;
    let verdict = judged(statement, if is_approval { "production" } else { "build" });
    for reason in &verdict.reasons {
        let said = reason.message.len().max(reason.remedy.len());
        assert!(!reason.message.is_empty() && said <= MOST_SAID, "{said} bytes are said: {reason:?}");
    }
    if verdict.decision != Decision::Allow {
        return false;
    }
    // Fields that are passed over may hold what makes no value.
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return true };
    let said = document.get("predicate").expect("a predicate");
    assert!(if is_approval { approves(said) } else { is_built_well(said) }, "{document}");
    true
}

fn judged(statement: Statement, environment: &str) -> countersign::model::Verdict {
    let now: Timestamp = NOW.parse().expect("a time");
    let image = "registry.example.com/shop/app:1".parse().expect("an image");
    let digest = statement.subjects().first().expect("a subject").digest;
    let signer =
        Identity { subject: "spiffe://countersign.test/ci".to_owned(), issuer: "https://countersign.test".to_owned() };
    let logged = LogRef { origin: "log.example.com".to_owned(), index: 7 };
    let signed_at = Some(now - SignedDuration::from_hours(1));
    let key = Digest::of(b"key");
    let verified = Verified::assume_unsafe(statement, Signer::Identity(signer), key, signed_at, Some(logged));
    let evidence = Evidence { statements: vec![Arc::new(verified)], ..Evidence::new(digest) };
    let question = Question {
        image: Some(&image),
        digest,
        namespace: None,
        environment: Some(environment),
        service: Some("shop"),
        now,
    };
    judge(policies(), &question, &evidence, &Revocations::default()).verdict
}

/// What stands at the end of these names.
fn text<'a>(said: &'a Value, names: &[&str]) -> Option<&'a str> {
    names.iter().try_fold(said, |value, name| value.as_object()?.get(*name))?.as_str()
}

fn is_built_well(said: &Value) -> bool {
    let builder = text(said, &["runDetails", "builder", "id"]).or_else(|| text(said, &["builder", "id"]));
    let parameters = |names: &[&str]| text(said, &[&["buildDefinition", "externalParameters"], names].concat());
    let own = [
        parameters(&["workflow", "repository"]),
        parameters(&["source", "uri"]),
        parameters(&["source"]),
        text(said, &["invocation", "configSource", "uri"]),
    ];
    let mut sources: Vec<&str> = own.into_iter().flatten().collect();
    if sources.is_empty() {
        let resolved = said["buildDefinition"]["resolvedDependencies"].as_array().into_iter().flatten();
        sources.extend(resolved.filter_map(|one| text(one, &["uri"])).filter(|uri| uri.starts_with("git+")));
    }
    builder.is_some_and(|builder| BUILDERS.iter().any(|pattern| fits(pattern, builder)))
        && !sources.is_empty()
        && sources.into_iter().all(is_listed)
}

/// Whether a source is listed, with or without what stands behind one of its `@` and `#`.
fn is_listed(source: &str) -> bool {
    let plain = source.strip_prefix("git+").unwrap_or(source);
    let cut = plain.match_indices(['@', '#']).map(|(at, _)| &plain[..at]);
    cut.chain([plain, source]).any(|text| SOURCES.iter().any(|pattern| fits(pattern, text)))
}

/// A pattern's `*` is anything without a slash.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(before) else { return false };
    let end = rest.find('/').unwrap_or(rest.len());
    (0..=end).filter_map(|at| rest.get(at..)).any(|rest| fits(after, rest))
}

fn approves(said: &Value) -> bool {
    let lasts = said.get("expiresAt").is_none_or(|until| {
        let until = until.as_str().expect("a time is a text");
        // As most write it, the order of times is that of texts.
        let shape = until.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
        let usual = shape.eq(*b"0000-00-00T00:00:00Z");
        let later = |until: Timestamp| until > NOW.parse().expect("a time");
        if usual { until > NOW } else { until.parse().is_ok_and(later) }
    });
    lasts && text(said, &["service"]) == Some("shop") && text(said, &["environment"]) == Some("production")
}
