//! `countersign policy`: does it parse, and what would it say? Offline; nothing here touches a service.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Global, Output};
use crate::model::{
    Decision, Digest, Evidence, Identity, ImageRef, LogRef, Outcome, Revocation, Revocations, Signer, Source,
    Statement, Subject, Verified,
    judge::{Question, judge},
    limits,
    policy::{Mode, PolicySet, type_of_alias},
    verdict::Code,
};

/// The exit code of a policy or case file that cannot be used.
const USAGE: u8 = 64;

/// Check policies, and ask them about made-up cases.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Parse a policy file and, with --cases, compare its answers with the expected ones.
    ///
    /// Evidence in a case is assumed, not verified. Exit codes: 0 all as expected, 1 not, 64 a file cannot be used.
    #[command(after_help = "Example:\n  countersign policy test -f policy.yaml --cases cases.yaml")]
    Test {
        /// The policy file.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Questions with assumed evidence and the decision that is expected (YAML, one list under `cases`).
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
    },
    /// List the policies of a file: what they match and what they ask for.
    #[command(after_help = "Example:\n  countersign policy show -f policy.yaml")]
    Show {
        /// The policy file.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

/// One question with what is assumed to be known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    image: Option<String>,
    digest: Option<Digest>,
    namespace: Option<String>,
    environment: Option<String>,
    service: Option<String>,
    now: Option<Timestamp>,
    #[serde(default)]
    evidence: Vec<Assumed>,
    #[serde(default)]
    revocations: Vec<Revocation>,
    /// Why the registry could not be read, if it could not.
    registry_unavailable: Option<String>,
    expect: Decision,
    /// A code that must be among the reasons.
    code: Option<Code>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Assumed {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "empty")]
    predicate: Value,
    subject: Option<String>,
    issuer: Option<String>,
    key: Option<Digest>,
    signed_at: Option<Timestamp>,
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What came of a case.
#[derive(Debug, Serialize)]
struct Answer {
    name: String,
    passed: bool,
    expected: Decision,
    decision: Decision,
    mode: Mode,
    codes: Vec<Code>,
    reasons: Vec<String>,
}

/// Runs the command.
#[expect(clippy::unused_async, reason = "every command has the same shape")]
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let outcome = match args.command {
        Command::Test { file, cases } => test(&file, cases.as_deref(), global.output),
        Command::Show { file } => show(&file, global.output),
    };
    outcome.or_else(|error| {
        writeln!(io::stderr(), "{error:#}")?;
        Ok(ExitCode::from(USAGE))
    })
}

fn test(file: &Path, cases: Option<&Path>, output: Output) -> anyhow::Result<ExitCode> {
    let policies = load(file)?;
    let cases = match cases {
        Some(path) => read_cases(path)?,
        None => Vec::new(),
    };
    let now = Timestamp::now();
    let answers = cases
        .iter()
        .map(|case| answer(&policies, case, now).with_context(|| format!("case {:?}", case.name)))
        .collect::<Result<Vec<_>, _>>()?;
    let all = answers.iter().all(|answer| answer.passed);
    let mut out = io::stdout();
    if matches!(output, Output::Json) {
        let report = serde_json::json!({"policy": policies.digest(), "passed": all, "cases": answers});
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "{}: {} policies, {}", file.display(), policies.iter().count(), policies.digest())?;
        let width = answers.iter().map(|answer| answer.name.chars().count()).max().unwrap_or_default();
        for answer in &answers {
            let codes = answer.codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let mark = if answer.passed { "ok  " } else { "FAIL" };
            let (expected, decision) = (answer.expected.as_str(), answer.decision.as_str());
            writeln!(out, "{mark}  {:<width$}  expected {expected:<7}  got {decision:<7}  {codes}", answer.name)?;
            for reason in answer.reasons.iter().filter(|_| !answer.passed) {
                writeln!(out, "      {reason}")?;
            }
        }
    }
    Ok(ExitCode::from(u8::from(!all)))
}

fn show(file: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let policies = load(file)?;
    let mut out = io::stdout();
    let rows: Vec<_> = policies
        .iter()
        .map(|policy| {
            let scope = &policy.scope.include;
            let list = |globs: &Option<crate::model::policy::Globs>| {
                globs.as_ref().map_or_else(|| "any".to_owned(), crate::model::policy::Globs::list)
            };
            serde_json::json!({
                "name": policy.name,
                "mode": policy.mode,
                "images": list(&scope.images),
                "namespaces": list(&scope.namespaces),
                "environments": list(&scope.environments),
                "services": list(&scope.services),
                "signers": policy.require.signers.as_ref().map_or(0, |signers| signers.threshold),
                "predicates": policy.require.predicates.iter().map(|one| one.types.join(" or ")).collect::<Vec<_>>(),
                "approvals": policy.require.approvals.as_ref().map_or(0, |approvals| approvals.count),
                "rules": policy.require.rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(),
            })
        })
        .collect();
    if matches!(output, Output::Json) {
        let report = serde_json::json!({"digest": policies.digest(), "noMatch": policies.no_match(), "policies": rows});
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}  no match: {}", policies.digest(), serde_json::json!(policies.no_match()))?;
    for row in rows {
        for (field, value) in row.as_object().into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            let indent = if field == "name" { "" } else { "  " };
            writeln!(out, "{indent}{field}: {value}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &Path) -> anyhow::Result<PolicySet> {
    let text = read(file)?;
    PolicySet::parse(&text).with_context(|| file.display().to_string())
}

fn read_cases(path: &Path) -> anyhow::Result<Vec<Case>> {
    let text = read(path)?;
    let options = serde_saphyr::options! { with_snippet: false };
    let cases: Cases =
        serde_saphyr::from_str_with_options(&text, options).with_context(|| path.display().to_string())?;
    anyhow::ensure!(!cases.cases.is_empty(), "{}: no cases; an empty list shows nothing", path.display());
    Ok(cases.cases)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(limits::DOCUMENT).unwrap_or(u64::MAX);
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(limit.saturating_add(1)).read_to_string(&mut text).with_context(|| path.display().to_string())?;
    anyhow::ensure!(text.len() <= limits::DOCUMENT, "{} has more than {} bytes", path.display(), limits::DOCUMENT);
    Ok(text)
}

fn answer(policies: &PolicySet, case: &Case, now: Timestamp) -> anyhow::Result<Answer> {
    let now = case.now.unwrap_or(now);
    let image: Option<ImageRef> = case.image.as_deref().map(str::parse).transpose()?;
    let named = image.as_ref().and_then(|image| image.digest);
    let digest = case.digest.or(named).unwrap_or_else(|| Digest::of(case.name.as_bytes()));
    let mut evidence = Evidence::new(digest);
    for (index, assumed) in case.evidence.iter().enumerate() {
        evidence.statements.push(Arc::new(assume(assumed, digest, u64::try_from(index)?, now)?));
    }
    evidence.sources.push((Source::Log, Outcome::Complete(now)));
    evidence
        .sources
        .extend(case.registry_unavailable.iter().map(|why| (Source::Registry, Outcome::Unavailable(why.clone()))));
    let mut revocations = Revocations::default();
    for revocation in &case.revocations {
        revocations.insert(revocation.clone(), LogRef { origin: "assumed".to_owned(), index: 0 });
    }
    let question = Question {
        image: image.as_ref(),
        digest,
        namespace: case.namespace.as_deref(),
        environment: case.environment.as_deref(),
        service: case.service.as_deref(),
        now,
    };
    let judgement = judge(policies, &question, &evidence, &revocations);
    let verdict = judgement.verdict;
    let codes: Vec<Code> = verdict.reasons.iter().map(|reason| reason.code).collect();
    let passed = verdict.decision == case.expect && case.code.is_none_or(|code| codes.contains(&code));
    Ok(Answer {
        name: case.name.clone(),
        passed,
        expected: case.expect,
        decision: verdict.decision,
        mode: judgement.mode,
        codes,
        reasons: verdict.reasons.into_iter().map(|reason| reason.message).collect(),
    })
}

/// Evidence as the case assumes it; nothing is verified.
fn assume(assumed: &Assumed, digest: Digest, index: u64, now: Timestamp) -> anyhow::Result<Verified> {
    let signer = match (&assumed.subject, &assumed.issuer, assumed.key) {
        (Some(subject), Some(issuer), None) => {
            Signer::Identity(Identity { subject: subject.clone(), issuer: issuer.clone() })
        }
        (None, None, Some(key)) => Signer::Key(key),
        _ => anyhow::bail!("evidence {index} needs subject and issuer, or key"),
    };
    let key = assumed.key.unwrap_or_else(|| Digest::of(format!("{signer:?}").as_bytes()));
    let subject = Subject { name: String::new(), digest };
    let statement = Statement::new(vec![subject], type_of_alias(&assumed.kind), assumed.predicate.clone())
        .with_context(|| format!("evidence {index}"))?;
    let entry = LogRef { origin: "assumed".to_owned(), index };
    Ok(Verified::assume_unsafe(statement, signer, key, Some(assumed.signed_at.unwrap_or(now)), Some(entry)))
}
