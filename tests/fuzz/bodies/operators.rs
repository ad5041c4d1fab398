//! What operators write: policies and their rules, templates of claims, key-encryption keys.

use std::collections::BTreeSet;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use countersign::model::{
    digest::Digest,
    evidence::Evidence,
    judge::{Question, judge},
    kek, limits,
    policy::{Check, Globs, Mode, PolicySet, Require, Rule},
    revocation::Revocations,
    template::Template,
    token::Claims,
    verdict::Decision,
};
use serde_json::Value;

use super::{refused, text};

/// Policies: within the limits, each under a name of its own; and nothing that was not signed satisfies one that asks for a
/// signature.
pub fn policy_set(data: &[u8]) -> bool {
    let Some(yaml) = text(data) else { return false };
    let policies = match PolicySet::parse(yaml) {
        Ok(policies) => policies,
        Err(error) => return refused(&error),
    };
    assert_eq!(policies.digest(), Digest::of(data));
    let names: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names.len(), policies.iter().count());
    assert!((1..=limits::POLICIES).contains(&names.len()));
    policies.iter().for_each(|policy| is_bounded(&policy.require));
    let image = "registry.example.com/shop/app:1".parse().expect("an image");
    let question = Question {
        image: Some(&image),
        digest: Digest::of(b"image"),
        namespace: Some("shop"),
        environment: Some("production"),
        service: Some("shop"),
        now: "2026-11-29T00:00:00Z".parse().expect("a time"),
    };
    let asked =
        policies.select(&question).any(|policy| policy.mode == Mode::Enforce && asks_for_a_signature(&policy.require));
    let judgement = judge(&policies, &question, &Evidence::new(question.digest), &Revocations::default());
    assert!(!asked || judgement.verdict.decision == Decision::Deny, "{judgement:?}");
    true
}

fn asks_for_a_signature(require: &Require) -> bool {
    let here = |globs: &Option<Globs>| globs.as_ref().is_none_or(|globs| globs.matches("production"));
    let approved = require.approvals.as_ref().is_some_and(|approvals| here(&approvals.environments));
    require.signers.is_some() || !require.predicates.is_empty() || approved
}

fn is_bounded(require: &Require) {
    if let Some(signers) = &require.signers {
        assert!(signers.threshold >= 1 && !signers.accept.is_empty());
        assert!((1..=limits::POLICY_LIST).contains(&signers.any_of.len()));
    }
    for predicate in &require.predicates {
        assert!(!predicate.types.is_empty() && !predicate.signers.is_empty());
        if let Check::Vsa(vsa) = &predicate.check {
            assert!(!vsa.levels.is_empty());
        }
    }
    if let Some(approvals) = &require.approvals {
        assert!(approvals.count >= 1 && !approvals.approvers.is_empty());
    }
    assert!(require.rules.len() <= limits::POLICY_LIST);
}

/// Rules, where nothing is signed: what compiles answers yes or no, or says in short why it cannot; in brackets it is the same rule, and after `!` the
/// contrary.
pub fn rule(data: &[u8]) -> bool {
    let Some(expression) = text(data) else { return false };
    let rule = match Rule::compile("name", expression, "message", "") {
        Ok(rule) => rule,
        Err(problem) => return refused(&problem),
    };
    let nothing = [("attestations", cel::Value::List(Vec::new().into())), ("provenance", cel::Value::Null)];
    let answer = rule.evaluate(&nothing);
    if let Err(problem) = &answer {
        refused(problem);
    }
    // What stands in more brackets may be over a limit.
    if let Ok(again) = Rule::compile("name", &format!("({expression}\n)"), "message", "") {
        assert_eq!(again.evaluate(&nothing), answer);
        let reads = |rule: &Rule| (rule.reads_predicates(), rule.reads_evidence());
        assert_eq!(reads(&again), reads(&rule));
    }
    if let (Ok(answer), Ok(contrary)) = (answer, Rule::compile("name", &format!("!({expression}\n)"), "message", "")) {
        assert_eq!(contrary.evaluate(&nothing), Ok(!answer));
    }
    true
}

/// Templates: with each claim standing for its own name in braces, the text is what was written.
pub fn template(data: &[u8]) -> bool {
    let Some(text) = text(data) else { return false };
    let template = match Template::parse(text) {
        Ok(template) => template,
        Err(problem) => return refused(&problem),
    };
    let paths: Vec<&str> = if text.contains('{') {
        text.split('{').skip(1).filter_map(|piece| Some(piece.split_once('}')?.0)).collect()
    } else {
        vec![text]
    };
    let claims: Claims = paths.iter().map(|path| ((*path).to_owned(), Value::from(format!("{{{path}}}")))).collect();
    let written = if text.contains('{') { text.to_owned() } else { format!("{{{text}}}") };
    assert_eq!(template.render(&claims), Ok(written));
    assert_eq!(template.first_claim(), paths[0]);
    assert!(template.render(&Claims::new()) == Err(paths[0]), "a claim that is not there");
    true
}

/// Key-encryption keys: in every form that an operator may write, a key is the same.
pub fn encryption_key(data: &[u8]) -> bool {
    let key = match kek::parse(data) {
        Ok(key) => key,
        Err(problem) => return refused(&problem),
    };
    let printable = key.iter().all(|byte| (b' '..=b'~').contains(byte));
    assert_eq!(kek::parse(&*key).is_ok(), !printable, "raw");
    let forms = [
        STANDARD.encode(*key),
        URL_SAFE.encode(*key),
        STANDARD_NO_PAD.encode(*key),
        URL_SAFE_NO_PAD.encode(*key),
        hex::encode(*key),
        hex::encode_upper(*key),
    ];
    for form in forms {
        assert_eq!(kek::parse(format!(" {form}\r\n").as_bytes()).as_ref(), Ok(&key));
    }
    true
}
