//! `countersign rollback`: is it safe to go back, here, now?

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    Global, Output, client,
    deployment::{text as revision_text, to_json as revision_json},
    place::split,
    print,
};
use crate::{
    grpc::v1::{self, Safety, rollback_service_client::RollbackServiceClient},
    model::Digest,
};

/// Asks whether going back is safe. Nothing is rolled back.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check the best earlier revision, or the one given. Exit code: 0 safe, 1 unsafe, 2 could not tell.
    #[command(after_help = "Example:
  countersign rollback check shop@production --to sha256:…")]
    Check(Check),
    /// List the revisions that ran there before.
    Targets {
        /// SERVICE@ENVIRONMENT.
        place: String,
    },
}

#[derive(Debug, clap::Args)]
struct Check {
    /// SERVICE@ENVIRONMENT.
    place: String,
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
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check(args) => check(args, global).await,
        Command::Targets { place } => targets(&place, global).await,
    }
}

async fn check(args: Check, global: &Global) -> anyhow::Result<ExitCode> {
    let (service, environment) = split(&args.place)?;
    let request = v1::CheckRollbackRequest {
        service,
        environment,
        target: args.to.map(|digest| digest.to_string()).unwrap_or_default(),
        fresh: args.fresh,
        dry_run: args.dry_run,
        timeout_ms: 0,
    };
    let client = client::connect(global).await;
    let client = match client {
        Ok(client) => client,
        // Not to reach the judge is not a no.
        Err(error) => {
            print(&format!("UNKNOWN: the service could not be asked: {error:#}\n"))?;
            return Ok(ExitCode::from(2));
        }
    };
    let answer =
        RollbackServiceClient::new(client).check_rollback(request).await.map_err(client::explain)?.into_inner();
    match global.output {
        Output::Json => {
            let readiness: Value = serde_json::from_slice(&answer.readiness).context("the readiness is not JSON")?;
            print(&format!("{readiness}\n"))?;
        }
        Output::Text => print(&screen(&args.place, &answer))?,
    }
    Ok(ExitCode::from(match answer.safety() {
        Safety::Safe => 0,
        Safety::SafeWithWarnings => u8::from(args.strict),
        Safety::Unsafe => 1,
        Safety::Unknown | Safety::Unspecified => 2,
    }))
}

/// The answer for a terminal at 3 a.m.: verdict and reason first, then what blocks, then the rest.
fn screen(place: &str, answer: &v1::CheckRollbackResponse) -> String {
    let verdict = match answer.safety() {
        Safety::Safe => "SAFE",
        Safety::SafeWithWarnings => "SAFE-WITH-WARNINGS",
        Safety::Unsafe => "UNSAFE",
        Safety::Unknown | Safety::Unspecified => "UNKNOWN",
    };
    let mut out = format!("{verdict}  {place}: {}\n", answer.sentence);
    let or = |text: &str, none: &'static str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    out += &format!("  from  {}\n  to    {}\n", or(&answer.from, "nothing"), or(&answer.to, "nothing"));
    if !answer.recommended.is_empty() && answer.recommended != answer.to {
        out += &format!("  recommended  {}\n", answer.recommended);
    }
    if !answer.command.is_empty() {
        out += &format!("  run   {}\n", answer.command);
    }
    for check in &answer.checks {
        out += &format!("  {:<8} {:<26} {}\n", check.severity, check.code, check.message);
        if !check.remedy.is_empty() && check.severity != "passed" {
            out += &format!("{:11}-> {}\n", "", check.remedy);
        }
    }
    for other in &answer.alternatives {
        out += &format!("  other    {}  {}\n", other.digest, other.sentence);
    }
    if let Some(entry) = answer.recorded.first() {
        out += &format!("  recorded as {}#{}\n", entry.origin, entry.index);
    }
    out
}

async fn targets(place: &str, global: &Global) -> anyhow::Result<ExitCode> {
    let (service, environment) = split(place)?;
    let mut client = RollbackServiceClient::new(client::connect(global).await?);
    let request = v1::ListRollbackTargetsRequest { service, environment };
    let targets = client.list_rollback_targets(request).await.map_err(client::explain)?.into_inner().targets;
    match global.output {
        Output::Json => {
            let targets: Vec<_> = targets
                .iter()
                .map(|target| {
                    json!({
                        "revision": target.revision.as_ref().map(revision_json),
                        "obstacles": target.obstacles.iter().map(|check| json!({"code": check.code,
                            "class": check.check_class, "severity": check.severity, "message": check.message,
                            "remedy": check.remedy})).collect::<Vec<_>>(),
                    })
                })
                .collect();
            print(&format!("{}\n", Value::from(targets)))?;
        }
        Output::Text => {
            let mut out = format!("{place}: {} earlier revisions\n", targets.len());
            for target in &targets {
                out += &target.revision.as_ref().map_or_else(String::new, |revision| revision_text(" ", revision));
                for check in &target.obstacles {
                    out += &format!("    {:<8} {}  {}\n", check.severity, check.code, check.message);
                }
            }
            print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
