//! The answer as statements in the log: our own readiness, and a SLSA verification summary when it was yes or no.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, Rollback};
use crate::model::{
    Digest, LogRef, Statement, StatementError, Subject, limits, predicate,
    readiness::{Check, Readiness, Safety},
    verdict::Code,
};

/// What was recorded last for each place and target: the content without times, when, and where.
type Last = HashMap<(String, String, Digest), (Digest, Timestamp, Vec<LogRef>)>;

/// What was recorded lately, at most [`limits::SERVICES`].
#[derive(Debug, Default)]
pub(super) struct Recorded(Arc<Mutex<Last>>);

impl Rollback {
    /// Records the answer before `deadline`. A log that cannot be written costs a warning, not the answer; what was
    /// begun is finished even when nobody waits any longer.
    pub(super) async fn record(&self, mut readiness: Readiness, now: Timestamp, deadline: Instant) -> Answer {
        let Some(to) = readiness.to.clone() else { return Answer { readiness, recorded: Vec::new() } };
        let key = (readiness.service.clone(), readiness.environment.clone(), to.digest);
        let content = content(&readiness);
        let last = self.recorded.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((known, at, entries)) = last
            && known == content
            && now.duration_since(at) < self.settings.record_again_after
        {
            return Answer { readiness, recorded: entries };
        }
        let signing = Arc::clone(&self.signing);
        let statements = statements(&readiness, &to.image, to.digest, &signing.own_identity().subject);
        let recorded = Arc::clone(&self.recorded.0);
        let write = tokio::spawn(async move {
            let signed = signing
                .attest(statements.map_err(|error| error.to_string())?, signing.own_identity(), now)
                .await
                .map_err(|error| error.to_string())?;
            let entries: Vec<LogRef> = signed.into_iter().map(|signed| signed.entry).collect();
            let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
            if recorded.len() >= limits::SERVICES {
                recorded.clear();
            }
            recorded.insert(key, (content, now, entries.clone()));
            Ok::<_, String>(entries)
        });
        let problem = match tokio::time::timeout_at(deadline.into(), write).await {
            Ok(Ok(Ok(entries))) => return Answer { readiness, recorded: entries },
            Ok(Ok(Err(problem))) => problem,
            Ok(Err(panicked)) => panicked.to_string(),
            Err(_elapsed) => "the log did not answer in time".to_owned(),
        };
        tracing::warn!(problem, "a rollback answer could not be recorded");
        readiness.warn(Check::warning(
            Code::Other,
            format!("this answer could not be recorded: {problem}"),
            "the answer stands; see why the log cannot be written with `countersign doctor`",
        ));
        Answer { readiness, recorded: Vec::new() }
    }
}

/// What the answer says, without its times.
fn content(readiness: &Readiness) -> Digest {
    let checks: Vec<_> =
        readiness.checks.iter().map(|check| (check.code, check.class, check.severity, &check.evidence)).collect();
    let text = json!([
        readiness.verdict,
        checks,
        readiness.from,
        readiness.to,
        readiness.command,
        readiness.policy,
        readiness.trusted_root,
        readiness.delta
    ]);
    Digest::of(text.to_string().as_bytes())
}

/// The statements that record `readiness` about `digest`.
pub fn statements(
    readiness: &Readiness,
    image: &str,
    digest: Digest,
    verifier: &str,
) -> Result<Vec<Statement>, StatementError> {
    let subject = || vec![Subject { name: image.to_owned(), digest }];
    let predicate = serde_json::to_value(readiness).map_err(|source| StatementError::Json(source.to_string()))?;
    let mut statements = vec![Statement::new(subject(), predicate::READINESS, predicate)?];
    if readiness.verdict != Safety::Unknown {
        statements.push(Statement::new(subject(), predicate::VSA, summary(readiness, image, digest, verifier))?);
    }
    Ok(statements)
}

fn summary(readiness: &Readiness, image: &str, digest: Digest, verifier: &str) -> Value {
    let (result, level) =
        if readiness.verdict.is_yes() { ("PASSED", "SLSA_BUILD_LEVEL_UNEVALUATED") } else { ("FAILED", "FAILED") };
    let name = image
        .parse::<crate::model::ImageRef>()
        .map_or_else(|_not_an_image| String::new(), |image| image.name.to_string());
    let resource = if name.is_empty() { digest.to_string() } else { format!("{name}@{digest}") };
    let inputs: Vec<Value> = readiness
        .inputs
        .iter()
        .map(|(at, bundle)| json!({"uri": format!("log:{at}"), "digest": {"sha256": bundle.hex()}}))
        .collect();
    json!({
        "verifier": {"id": verifier},
        "timeVerified": readiness.at,
        "resourceUri": resource,
        "policy": {"uri": "countersign:policies", "digest": {"sha256": readiness.policy.hex()}},
        "inputAttestations": inputs,
        "verificationResult": result,
        "verifiedLevels": [level],
        "slsaVersion": "1.1",
        // By this field the log tells our answers from evidence: see `log::views`.
        predicate::READINESS: {
            "service": readiness.service,
            "environment": readiness.environment,
            "verdict": readiness.verdict,
            "trustedRoot": readiness.trusted_root,
        },
    })
}
