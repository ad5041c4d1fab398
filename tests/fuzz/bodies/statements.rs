//! What statements say: records of our own services, revocations, and scans for vulnerabilities.

use std::collections::{BTreeMap, BTreeSet};

use countersign::model::{
    deployment::{History, Record},
    json::check_json_depth,
    limits,
    policy::{Scan, Severity, VulnerabilityLimits},
    predicate,
    readiness::Delta,
    revocation::Revocation,
    statement::Statement,
    verdict::LogRef,
};
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::refused;

/// Records: what is read stands in the statement, is written as one that reads the same, and a history can be told of it.
pub fn record(data: &[u8]) -> bool {
    let statement = match Statement::parse(data) {
        Ok(statement) => statement,
        Err(error) => return refused(&error),
    };
    if statement.predicate_type() == predicate::REVOCATION {
        let Ok(revocation) = Revocation::deserialize(statement.predicate()) else { return false };
        let said = |name: &str| statement.predicate().get(name).and_then(Value::as_str).unwrap_or_default();
        assert_eq!(said("reason"), revocation.reason);
        assert_eq!(said("since").parse::<Timestamp>().ok(), Some(revocation.since));
        let again = serde_json::to_value(&revocation).expect("a revocation can be written");
        assert_eq!(Revocation::deserialize(again).expect("a revocation"), revocation);
        return true;
    }
    let at = LogRef { origin: "log.example.com".to_owned(), index: 7 };
    let record = match Record::read(&statement, at.clone()) {
        None => return false,
        Some(Err(error)) => return refused(&error),
        Some(Ok(record)) => record,
    };
    let (written, digest, said_by, time) = match &record {
        Record::Deployment(it, _, time) => (it.to_statement(*time), it.digest, ("deployedBy", &it.by), time),
        Record::Health(it, _, time) => (it.to_statement(*time), it.digest, ("reportedBy", &it.by), time),
        Record::Approval(it, _, time) => (it.to_statement(*time), it.digest, ("approvedBy", &it.by), time),
    };
    let said = |name: &str| statement.predicate().get(name).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(record.place(), (said("service"), said("environment")));
    assert_eq!(said(said_by.0), said_by.1.as_str());
    assert_eq!(said("recordedAt").parse::<Timestamp>().ok().as_ref(), Some(time));
    assert!(statement.names(&digest));
    match written {
        Ok(written) => assert_eq!(Record::read(&written, at), Some(Ok(record.clone()))),
        Err(error) => _ = refused(&error),
    }
    let history = History::fold([&record, &record]);
    assert!(history.earlier().count() <= 1);
    true
}

/// Scans: each finding once and with a name fit for a terminal, and none that was called critical is less; written again as
/// a careful scanner does, they are the same; no limit is passed over by one.
pub fn scan(data: &[u8]) -> bool {
    if check_json_depth(data, limits::JSON_DEPTH).is_err() {
        return false;
    }
    let Ok(predicate) = serde_json::from_slice::<Value>(data) else { return false };
    let scan = Scan::read(&predicate);
    let names: BTreeSet<&str> = scan.findings.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(names.len(), scan.findings.len());
    let fits = |text: &str, most: usize| text.chars().count() <= most && !text.contains(char::is_control);
    assert!(names.iter().all(|name| fits(name, 128)));
    let results = predicate.pointer("/scanner/result").and_then(Value::as_array).into_iter().flatten();
    let is_critical = |result: &&Value| result.pointer("/severity/0/score").is_some_and(|score| score == "critical");
    for id in results.filter(is_critical).filter_map(|result| result.get("id")?.as_str()).filter(|id| fits(id, 128)) {
        assert!(scan.findings.iter().any(|finding| finding.id == id && finding.severity >= Severity::Critical));
    }
    let result: Vec<Value> = scan
        .findings
        .iter()
        .map(|finding| json!({ "id": finding.id, "severity": [{ "method": "word", "score": finding.severity.to_string() }] }))
        .collect();
    let again = Scan::read(&json!({
        "scanner": { "result": result, "db": { "lastUpdate": scan.database } },
        "metadata": { "scanFinishedOn": scan.finished },
    }));
    assert_eq!(again, scan);
    let none =
        VulnerabilityLimits { most: BTreeMap::from(Severity::ALL.map(|severity| (severity, 0))), ..Default::default() };
    let over = none.over(&scan, Timestamp::UNIX_EPOCH);
    assert_eq!(over.iter().map(|(_, found)| found.len()).sum::<usize>(), scan.findings.len());
    let changed = Delta::between(&Scan::read(&Value::Null), &scan);
    assert_eq!((changed.introduced.len(), changed.kept.len()), (scan.findings.len(), 0));
    !scan.findings.is_empty()
}
