//! `countersign health`: whether a deployed digest is well.

use std::process::ExitCode;

use super::{
    Global, client,
    place::{Flags, recorded, refused},
};
use crate::{
    grpc::v1::{self, release_service_client::ReleaseServiceClient},
    model::Digest,
};

/// Reports health.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Report whether a deployed digest is healthy.
    #[command(after_help = "Examples:
  countersign health report --service shop --environment production --digest sha256:… --healthy
  countersign health report --service shop --environment production --digest sha256:… --unhealthy --detail 'checkout fails'")]
    Report(Report),
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("state").required(true)))]
struct Report {
    #[command(flatten)]
    place: Flags,
    /// The digest that runs there.
    #[arg(long)]
    digest: Digest,
    /// It is well.
    #[arg(long, group = "state")]
    healthy: bool,
    /// It is not.
    #[arg(long, group = "state")]
    unhealthy: bool,
    /// What was seen.
    #[arg(long, default_value = "")]
    detail: String,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Command::Report(report) = args.command;
    let request = v1::RecordHealthRequest {
        service: report.place.service,
        environment: report.place.environment,
        digest: report.digest.to_string(),
        healthy: report.healthy && !report.unhealthy,
        detail: report.detail,
    };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    match client.record_health(request).await {
        Ok(answer) => recorded(global, "the health report", answer.into_inner().entry),
        Err(status) => refused(status),
    }
}
