//! `countersign rollback`: is it safe to go back, here, now?

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use super::{
    Global, Output, client,
    deployment::{text as revision_text, to_json as revision_json},
    place::{Place, line, refused},
    print,
};
use crate::{
    grpc::v1::{self, Safety, rollback_service_client::RollbackServiceClient},
    model::{
        Digest,
        readiness::{Check, Class, Readiness, Safety as Answer, Severity, Short},
    },
};

/// What the service is given beyond the time in which it answers, for the way there and back.
const TRAVEL: Duration = Duration::from_secs(2);
/// The longest time that the service takes for an answer.
const LONGEST: Duration = Duration::from_secs(10);

/// Asks whether going back is safe. Nothing is rolled back.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check the best earlier revision, or the one given.
    ///
    /// Exit codes: 0 safe, 1 unsafe, 2 could not tell (also when the service cannot be asked), 64 wrong usage.
    #[command(after_help = "Examples:
  countersign rollback check shop@production
  countersign rollback check shop@production --to sha256:… --fresh
  countersign rollback check shop@production --strict -o json")]
    Check(CheckArgs),
    /// List the revisions that ran there before, newest first, and what stands against each. The registry is not asked.
    #[command(after_help = "Example:
  countersign rollback targets shop@production")]
    Targets {
        /// SERVICE@ENVIRONMENT.
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// SERVICE@ENVIRONMENT.
    place: Place,
    /// The digest to go back to. Default: the best earlier revision.
    #[arg(long, value_name = "DIGEST")]
    to: Option<Digest>,
    /// Ask the registry again, however young its last answer is.
    #[arg(long)]
    fresh: bool,
    /// Count warnings as a no.
    #[arg(long)]
    strict: bool,
    /// Do not record the answer in the log.
    #[arg(long)]
    dry_run: bool,
    /// Time for the answer, in milliseconds, at most 10,000. Default: what the service is set to (1,800).
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    timeout_ms: Option<u32>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check(args, global).await,
        Command::Targets { place } => targets(&place, global).await,
    }
}

async fn check(args: CheckArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let answer = match ask(&args, global).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) if status.code() == Code::InvalidArgument => return refused(status),
        // Not to reach the judge, or not to be let in, is not a no.
        Ok(Err(status)) => return unasked(&args, global, &client::explain(status)),
        Err(error) => return unasked(&args, global, &error),
    };
    match global.output {
        Output::Json => {
            let readiness: Value = serde_json::from_slice(&answer.readiness).context("the readiness is not JSON")?;
            print(&format!("{readiness}\n"))?;
        }
        Output::Text => {
            let readiness: Readiness = serde_json::from_slice(&answer.readiness)
                .context("the answer cannot be read; is the service of the same version?")?;
            print(&screen(&args, &readiness, &answer.recorded))?;
        }
    }
    let verdict = match answer.safety() {
        Safety::Safe => Answer::Safe,
        Safety::SafeWithWarnings => Answer::SafeWithWarnings,
        Safety::Unsafe => Answer::Unsafe,
        Safety::Unknown | Safety::Unspecified => Answer::Unknown,
    };
    Ok(ExitCode::from(verdict.exit_code(args.strict)))
}

async fn ask(args: &CheckArgs, global: &Global) -> anyhow::Result<Result<v1::CheckRollbackResponse, Status>> {
    let mut request = Request::new(v1::CheckRollbackRequest {
        service: args.place.service.clone(),
        environment: args.place.environment.clone(),
        target: args.to.map(|digest| digest.to_string()).unwrap_or_default(),
        fresh: args.fresh,
        dry_run: args.dry_run,
        timeout_ms: args.timeout_ms.unwrap_or_default(),
    });
    let most = args.timeout_ms.map_or(LONGEST, |wanted| Duration::from_millis(wanted.into()));
    request.set_timeout(most + TRAVEL);
    let mut client = RollbackServiceClient::new(client::connect(global).await?);
    Ok(client.check_rollback(request).await.map(tonic::Response::into_inner))
}

/// The answer when there is none.
fn unasked(args: &CheckArgs, global: &Global, error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    let sentence = line(&format!("the service could not be asked: {error:#}"));
    match global.output {
        Output::Json => {
            let CheckArgs { place, .. } = args;
            let answer = json!({"service": place.service, "environment": place.environment,
                "verdict": Answer::Unknown, "sentence": sentence, "checks": []});
            print(&format!("{answer}\n"))?;
        }
        Output::Text => print(&format!("{}  {}: {sentence}\n", word(Answer::Unknown), args.place))?,
    }
    Ok(ExitCode::from(Answer::Unknown.exit_code(args.strict)))
}

const fn word(verdict: Answer) -> &'static str {
    match verdict {
        Answer::Safe => "SAFE",
        Answer::SafeWithWarnings => "SAFE-WITH-WARNINGS",
        Answer::Unsafe => "UNSAFE",
        Answer::Unknown => "UNKNOWN",
    }
}

/// The answer for a terminal at 3 a.m.: verdict and reason first, then what to run, what blocks, and the rest.
fn screen(args: &CheckArgs, readiness: &Readiness, recorded: &[v1::LogRef]) -> String {
    let mut out = format!("{}  {}: {}\n", word(readiness.verdict), args.place, line(&readiness.sentence));
    out += &format!("  from     {}\n", short(readiness.from.as_ref()));
    out += &format!("  to       {}\n", short(readiness.to.as_ref()));
    let other =
        readiness.recommended.as_ref().filter(|best| readiness.to.as_ref().map(|to| to.digest) != Some(best.digest));
    if let Some(best) = other {
        out += &format!("  better   {}\n", short(Some(best)));
    }
    out += &to_run(args, readiness);
    out += &ages(readiness);
    for check in &readiness.checks {
        out += &format!("  {:<8} {:<26} {}\n", label(check), check.code.to_string(), line(&check.message));
        if !check.remedy.is_empty() && check.severity != Severity::Passed {
            let role = check.override_role.map(|role| format!(" [or by decision of: {role}]")).unwrap_or_default();
            out += &format!("{:11}-> {}{role}\n", "", line(&check.remedy));
        }
    }
    if let Some(delta) = &readiness.delta {
        for (what, findings) in [("comes in", &delta.introduced), ("goes", &delta.removed)] {
            let ids: Vec<_> = findings.iter().map(|one| format!("{} ({})", line(&one.id), one.severity)).collect();
            if !ids.is_empty() {
                out += &format!("  {what:<8} {}\n", ids.join(", "));
            }
        }
    }
    for other in &readiness.alternatives {
        let sentence = line(&other.sentence);
        out +=
            &format!("  other    {}\n           {}: {sentence}\n", short(Some(&other.revision)), word(other.verdict));
    }
    if let Some(entry) = recorded.first() {
        out += &format!("  recorded {}#{}\n", entry.origin, entry.index);
    }
    out
}

/// A check that could not run is no blocker that was found.
const fn label(check: &Check) -> &'static str {
    match check.class {
        Class::CouldNotRun => "unknown",
        Class::Verdict => check.severity.as_str(),
    }
}

fn short(revision: Option<&Short>) -> String {
    let Some(revision) = revision else { return "nothing".to_owned() };
    let mut out = revision.digest.to_string();
    if let Some(version) = &revision.version {
        out += &format!("  {}", line(version));
    }
    if let Some(since) = revision.live_since {
        out += &format!("  live {since}");
    }
    out
}

/// The command, or what is known for writing one: the image by digest.
fn to_run(args: &CheckArgs, readiness: &Readiness) -> String {
    let Some(image) = &readiness.image else { return String::new() };
    let image_line = format!("  image    {}\n", line(image));
    if let Some(command) = &readiness.command {
        return format!("{image_line}  run      {}\n", line(command));
    }
    let Place { service, environment } = &args.place;
    let runs = readiness.from.as_ref().map_or_else(|| line(image), pinned);
    format!(
        "{image_line}  run      no record says which workload runs it: have whatever deploys it set the image above\n\
         {:11}-> for a command next time: countersign deployment record --service {service} --environment \
         {environment} --image {runs} --namespace NAME --workload deployment/NAME --container NAME\n",
        "",
    )
}

/// What runs now, by digest.
fn pinned(revision: &Short) -> String {
    let image = revision.image.parse::<crate::model::ImageRef>();
    image.map_or_else(|_source| "IMAGE@DIGEST".to_owned(), |image| image.pinned(revision.digest).to_string())
}

/// How old the facts are: an answer is as young as the oldest that can change.
fn ages(readiness: &Readiness) -> String {
    let ages: Vec<String> = readiness
        .freshness
        .iter()
        .map(|fact| format!("{} {} old", fact.fact.replace('_', " "), age(fact.age_seconds)))
        .collect();
    if ages.is_empty() { String::new() } else { format!("  facts    {}\n", ages.join(", ")) }
}

fn age(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{} s", seconds.max(0)),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

async fn targets(place: &Place, global: &Global) -> anyhow::Result<ExitCode> {
    let mut client = RollbackServiceClient::new(client::connect(global).await?);
    let (service, environment) = (place.service.clone(), place.environment.clone());
    let targets = match client.list_rollback_targets(v1::ListRollbackTargetsRequest { service, environment }).await {
        Ok(answer) => answer.into_inner().targets,
        Err(status) => return refused(status),
    };
    match global.output {
        Output::Json => {
            let targets: Vec<_> = targets.iter().map(target_json).collect();
            print(&format!("{}\n", Value::from(targets)))?;
        }
        Output::Text if targets.is_empty() => print(&format!(
            "{place}: no earlier revision ran here\n  -> see what was recorded: countersign deployment list {place}; and \
             whether the names are right: countersign deployment list\n"
        ))?,
        Output::Text => {
            let mut out = format!("{place}: {} earlier\n", targets.len());
            for target in &targets {
                out += &target.revision.as_ref().map_or_else(String::new, |revision| revision_text(" ", revision));
                for check in &target.obstacles {
                    let label = if check.check_class == "could_not_run" { "unknown" } else { &check.severity };
                    out += &format!("    {label:<8} {:<26} {}\n", check.code, line(&check.message));
                    if !check.remedy.is_empty() {
                        out += &format!("{:13}-> {}\n", "", line(&check.remedy));
                    }
                }
            }
            out += &format!("The registry was not asked: countersign rollback check {place} [--to DIGEST]\n");
            print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn target_json(target: &v1::RollbackTarget) -> Value {
    let obstacles = target.obstacles.iter().map(|check| {
        json!({"code": check.code, "class": check.check_class, "severity": check.severity, "message": check.message,
            "remedy": check.remedy, "override_role": check.override_role})
    });
    json!({"revision": target.revision.as_ref().map(revision_json), "obstacles": obstacles.collect::<Vec<_>>()})
}
