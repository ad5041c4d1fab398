//! `countersign deployment`: what runs where, told and listed.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::{
    Global, Output, client,
    place::{Place, recorded, split},
    print,
};
use crate::{
    grpc::v1::{self, release_service_client::ReleaseServiceClient},
    model::ImageRef,
};

/// Records and lists deployments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Record that an image was deployed.
    #[command(after_help = "Example:
  countersign deployment record --service shop --environment production --image registry.example.com/shop/app:v1@sha256:…")]
    Record(Record),
    /// List what ran in a service and environment, newest first.
    List {
        /// SERVICE@ENVIRONMENT.
        place: String,
    },
}

#[derive(Debug, clap::Args)]
struct Record {
    #[command(flatten)]
    place: Place,
    /// The image, with its digest.
    #[arg(long)]
    image: String,
    /// `in_progress`, `live`, `failed`, `rolled_back` or another status that the service knows.
    #[arg(long, default_value = "live")]
    status: String,
    /// The version, for people.
    #[arg(long, default_value = "")]
    version: String,
    /// The region.
    #[arg(long, default_value = "")]
    region: String,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Record(args) => record(args, global).await,
        Command::List { place } => list(&place, global).await,
    }
}

async fn record(args: Record, global: &Global) -> anyhow::Result<ExitCode> {
    let image: ImageRef = args.image.parse()?;
    let Some(digest) = image.digest else {
        bail!("{image} has no digest: tags move, so record what runs, {image}@sha256:…");
    };
    let request = v1::RecordDeploymentRequest {
        service: args.place.service,
        environment: args.place.environment,
        digest: digest.to_string(),
        image: args.image,
        status: args.status,
        version: args.version,
        region: args.region,
    };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let answer = client.record_deployment(request).await.map_err(client::explain)?.into_inner();
    recorded(global, "the deployment", answer.entry)
}

async fn list(place: &str, global: &Global) -> anyhow::Result<ExitCode> {
    let (service, environment) = split(place)?;
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let request = v1::ListDeploymentsRequest { service, environment };
    let answer = client.list_deployments(request).await.map_err(client::explain)?.into_inner();
    match global.output {
        Output::Json => {
            let revisions: Vec<_> = answer.revisions.iter().map(to_json).collect();
            print(&format!("{}\n", json!({"running": answer.running, "revisions": revisions})))?;
        }
        Output::Text => {
            let mut out = format!("{place}: {} revisions\n", answer.revisions.len());
            for revision in &answer.revisions {
                let mark = if revision.digest == answer.running { "*" } else { " " };
                out += &text(mark, revision);
            }
            print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One revision in lines for people.
pub(super) fn text(mark: &str, revision: &v1::Revision) -> String {
    let live = if revision.live_since.is_empty() { "never live" } else { revision.live_since.as_str() };
    let health = if revision.health.is_empty() { "health unknown" } else { revision.health.as_str() };
    format!(
        "{mark} {}\n    {}  {}  {}  {live}  {health}\n",
        revision.digest, revision.image, revision.version, revision.status
    )
}

/// One revision for machines.
pub(super) fn to_json(revision: &v1::Revision) -> serde_json::Value {
    json!({
        "digest": revision.digest, "image": revision.image, "version": revision.version, "region": revision.region,
        "by": revision.by, "status": revision.status, "status_since": revision.status_since,
        "live_since": revision.live_since, "health": revision.health, "health_detail": revision.health_detail,
        "entry": revision.entry.as_ref().map(|entry| json!({"origin": entry.origin, "index": entry.index})),
    })
}
