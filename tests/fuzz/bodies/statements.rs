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

/// Records: what is read is written as a statement that reads the same, and a history can be told of it.
pub fn record(data: &[u8]) -> bool {
    let statement = match Statement::parse(data) {
        Ok(statement) => statement,
        Err(error) => return refused(&error),
    };
    if statement.predicate_type() == predicate::REVOCATION {
        let Ok(revocation) = Revocation::deserialize(statement.predicate()) else { return false };
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
    let written = match &record {
        Record::Deployment(deployment, _, time) => deployment.to_statement(*time),
        Record::Health(health, _, time) => health.to_statement(*time),
        Record::Approval(approval, _, time) => approval.to_statement(*time),
    };
    match written {
        Ok(written) => assert_eq!(Record::read(&written, at), Some(Ok(record.clone()))),
        Err(error) => _ = refused(&error),
    }
    let history = History::fold([&record, &record]);
    assert!(history.earlier().count() <= limits::RECORDS);
    true
}

/// Scans: each finding once and with a name fit for a terminal; written again as a careful scanner does, they are the same;
/// no limit is passed over by one.
pub fn scan(data: &[u8]) -> bool {
    if check_json_depth(data, limits::JSON_DEPTH).is_err() {
        return false;
    }
    let Ok(predicate) = serde_json::from_slice::<Value>(data) else { return false };
    let scan = Scan::read(&predicate);
    let names: BTreeSet<&str> = scan.findings.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(names.len(), scan.findings.len());
    let fits = |text: &str, most: usize| text.chars().count() <= most && !text.contains(char::is_control);
    assert!(names.iter().all(|name| fits(name, 128)) && fits(&scan.scanner, limits::URI));
    let result: Vec<Value> = scan
        .findings
        .iter()
        .map(|finding| json!({ "id": finding.id, "severity": [{ "method": "word", "score": finding.severity.to_string() }] }))
        .collect();
    let again = Scan::read(&json!({
        "scanner": { "uri": scan.scanner, "result": result, "db": { "lastUpdate": scan.database } },
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
