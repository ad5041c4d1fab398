//! CEL rules over what the policy's signers said. The variables are described at [`crate::model::policy::Rule`].
//!
//! When a signer was revoked, a rule must hold both with and without what it said: so a revocation takes away what
//! a rule rests on, and does not hide what it objects to.

use std::collections::HashMap;

use cel::Value;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::{
    entries,
    standing::{Case, Finding, newest},
};
use crate::model::{
    Signer, Verified, limits,
    policy::{Rule, SLSA_PROVENANCE_V0_2},
    predicate,
    verdict::Code,
};

pub(super) fn check(case: &Case<'_>) -> Vec<Finding> {
    let require = &case.policy.require;
    if require.rules.is_empty() {
        return Vec::new();
    }
    let digest = case.question.digest;
    let known =
        |one: &&Verified| one.statement().names(&digest) && require.known.iter().any(|signer| signer.signed(one));
    let all: Vec<&Verified> = case.evidence.statements.iter().map(AsRef::as_ref).filter(known).collect();
    let live: Vec<&Verified> = all.iter().copied().filter(|one| case.void(one).is_none()).collect();
    require.rules.iter().map(|rule| decide(case, rule, &all, &live)).collect()
}

fn decide(case: &Case<'_>, rule: &Rule, all: &[&Verified], live: &[&Verified]) -> Finding {
    let void = all.iter().find_map(|one| case.void(one)).filter(|_| rule.reads_evidence());
    let error = |why: String| {
        let message = format!("rule {} could not be evaluated: {why}", rule.name);
        let remedy = "try the rule with countersign policy test; use has(…) before a field that may be absent";
        Finding::Undecided(case.reason(Code::RuleError, message, remedy))
    };
    let answer = match evaluate(case, rule, live) {
        Ok(answer) => answer,
        Err(why) => return error(why),
    };
    let with_void = match void.map(|_| evaluate(case, rule, all)).transpose() {
        Ok(with_void) => with_void,
        Err(why) => return error(why),
    };
    let failed = || {
        let reason =
            case.reason(Code::RuleFailed, format!("rule {}: {}", rule.name, rule.message), rule.remedy.clone());
        if rule.reads_evidence() { reason.with_evidence(entries(live.iter().copied())) } else { reason }
    };
    match (answer, with_void, void) {
        (true, None | Some(true), _) => {
            let reason = case.reason(Code::Satisfied, format!("rule {} holds", rule.name), "");
            Finding::Holds(reason)
        }
        (false, Some(true), Some(void)) => {
            Finding::Missing(case.voided(&format!("what rule {} rests on", rule.name), void))
        }
        // A rule may be false for want of a statement that could not be read.
        (false, _, _) if rule.reads_evidence() => Finding::Missing(failed()),
        _ => Finding::Fails(failed()),
    }
}

fn evaluate(case: &Case<'_>, rule: &Rule, statements: &[&Verified]) -> Result<bool, String> {
    let question = case.question;
    let optional = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    let image = question.image.map_or(Value::Null, |image| {
        object([
            ("name", image.name.to_string().into()),
            ("registry", image.name.registry.clone().into()),
            ("repository", image.name.repository.clone().into()),
            ("tag", optional(image.tag.as_deref())),
            ("digest", question.digest.to_string().into()),
        ])
    });
    let mut variables = vec![
        ("image", image),
        ("digest", question.digest.to_string().into()),
        (
            "request",
            object([
                ("namespace", optional(question.namespace)),
                ("environment", optional(question.environment)),
                ("service", optional(question.service)),
            ]),
        ),
        ("environment", optional(question.environment)),
        ("service", optional(question.service)),
        ("now", time(question.now)?),
    ];
    if rule.reads_evidence() {
        if statements.len() > limits::RULE_STATEMENTS {
            return Err(format!(
                "there are {} statements; a rule sees {} at most",
                statements.len(),
                limits::RULE_STATEMENTS
            ));
        }
        let mut budget = limits::RULE_VALUES;
        let each = statements.iter().map(|one| attestation(one, rule, &mut budget)).collect::<Result<Vec<_>, _>>()?;
        variables.push(("attestations", each.into()));
        let is_provenance = |one: &&Verified| {
            [predicate::SLSA_PROVENANCE, SLSA_PROVENANCE_V0_2].contains(&one.statement().predicate_type())
        };
        let provenance = newest(statements.iter().copied().filter(is_provenance));
        let provenance = provenance.map_or(Ok(Value::Null), |one| attestation(one, rule, &mut budget))?;
        variables.push(("provenance", provenance));
    }
    rule.evaluate(&variables)
}

fn attestation(one: &Verified, rule: &Rule, budget: &mut usize) -> Result<Value, String> {
    let signer = match one.signer() {
        Signer::Identity(identity) => {
            object([("subject", identity.subject.clone().into()), ("issuer", identity.issuer.clone().into())])
        }
        Signer::Key(key) => object([("key", key.to_string().into())]),
    };
    let index = one.log().and_then(|entry| i64::try_from(entry.index).ok()).map_or(Value::Null, Value::Int);
    let mut fields = HashMap::from([
        ("predicateType".to_owned(), one.statement().predicate_type().into()),
        ("signer".to_owned(), signer),
        ("signedAt".to_owned(), one.signed_at().map_or(Ok(Value::Null), time)?),
        ("logIndex".to_owned(), index),
    ]);
    if rule.reads_predicates() {
        fields.insert("predicate".to_owned(), value(one.statement().predicate(), budget)?);
    }
    Ok(Value::Map(fields.into()))
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<HashMap<_, _>>().into())
}

fn time(at: Timestamp) -> Result<Value, String> {
    at.to_string().parse().map(Value::Timestamp).map_err(|_source| format!("{at} is out of range"))
}

/// JSON as CEL sees it: whole numbers are `int` where they fit, so that they can be compared and added.
fn value(json: &Json, budget: &mut usize) -> Result<Value, String> {
    *budget =
        budget.checked_sub(1).ok_or_else(|| format!("the predicates have more than {} values", limits::RULE_VALUES))?;
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => Value::Int(whole),
            (None, Some(whole), _) => Value::UInt(whole),
            (None, None, Some(fraction)) => Value::Float(fraction),
            (None, None, None) => return Err(format!("{number} is not a number that a rule can read")),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(list) => list.iter().map(|one| value(one, budget)).collect::<Result<Vec<_>, _>>()?.into(),
        Json::Object(fields) => Value::Map(
            fields
                .iter()
                .map(|(name, one)| Ok((name.clone(), value(one, budget)?)))
                .collect::<Result<HashMap<_, _>, String>>()?
                .into(),
        ),
    })
}
