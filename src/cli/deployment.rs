//! `countersign deployment`: what runs where, told and listed.

use std::process::ExitCode;

use serde_json::json;

use super::{
    Global, Output, client,
    place::{Flags, Place, line, recorded, refused},
    print,
};
use crate::{
    grpc::v1::{self, release_service_client::ReleaseServiceClient},
    model::{
        ImageRef,
        deployment::{Status, Workload, WorkloadKind},
    },
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
    ///
    /// What the admission webhook lets in is recorded without this.
    #[command(after_help = "Examples:
  countersign deployment record --service shop --environment production --image registry.example.com/shop/app:v1@sha256:…
  … --namespace production --workload deployment/shop --container app    # so that a rollback check can print the command")]
    Record(Box<Record>),
    /// List what ran in a service and environment, newest first; without one, every service and environment.
    #[command(after_help = "Example:
  countersign deployment list shop@production")]
    List {
        /// SERVICE@ENVIRONMENT.
        place: Option<Place>,
    },
}

#[derive(Debug, clap::Args)]
struct Record {
    #[command(flatten)]
    place: Flags,
    /// The image, with its digest: registry/repository[:tag]@sha256:….
    #[arg(long, value_parser = pinned)]
    image: Pinned,
    /// `in_progress`, `live`, `failed`, `rolled_back` or `superseded`.
    #[arg(long, default_value = "live")]
    status: Status,
    /// The version, for people.
    #[arg(long, default_value = "")]
    version: String,
    /// The region.
    #[arg(long, default_value = "")]
    region: String,
    /// The namespace of the Kubernetes object that runs it.
    #[arg(long, value_name = "NAME", requires_all = ["workload", "container"])]
    namespace: Option<String>,
    /// The Kubernetes object that runs it: KIND/NAME, as in deployment/shop.
    #[arg(long, value_name = "KIND/NAME", value_parser = object, requires_all = ["namespace", "container"])]
    workload: Option<(WorkloadKind, String)>,
    /// The container in it that runs the image.
    #[arg(long, value_name = "NAME", requires_all = ["namespace", "workload"])]
    container: Option<String>,
}

/// An image reference with its digest, as it was typed and as it was read.
#[derive(Debug, Clone)]
struct Pinned {
    text: String,
    digest: crate::model::Digest,
}

fn pinned(text: &str) -> Result<Pinned, String> {
    let image: ImageRef = text.parse().map_err(|source: crate::model::image::ImageRefError| source.to_string())?;
    let digest = image.digest.ok_or_else(|| {
        format!("it has no digest: tags move, so record what runs, {image}@sha256:… (`kubectl get pod -o jsonpath=…imageID`)")
    })?;
    Ok(Pinned { text: text.to_owned(), digest })
}

fn object(text: &str) -> Result<(WorkloadKind, String), String> {
    let (kind, name) = text.split_once('/').ok_or("write KIND/NAME, as in deployment/shop")?;
    let kind = kind.parse::<WorkloadKind>().map_err(|source| format!("the kind {source}"))?;
    Ok((kind, name.to_owned()))
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Record(args) => record(*args, global).await,
        Command::List { place: Some(place) } => list(&place, global).await,
        Command::List { place: None } => services(global).await,
    }
}

async fn record(args: Record, global: &Global) -> anyhow::Result<ExitCode> {
    let workload = match (&args.namespace, &args.workload, &args.container) {
        (Some(namespace), Some((kind, name)), Some(container)) => {
            match Workload::new(namespace, *kind, name, container) {
                Ok(workload) => Some((&workload).into()),
                Err((field, error)) => {
                    return refused(tonic::Status::invalid_argument(format!("the {field} of the workload {error}")));
                }
            }
        }
        _ => None,
    };
    let request = v1::RecordDeploymentRequest {
        service: args.place.service,
        environment: args.place.environment,
        digest: args.image.digest.to_string(),
        image: args.image.text,
        status: args.status.to_string(),
        version: args.version,
        region: args.region,
        workload,
    };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    match client.record_deployment(request).await {
        Ok(answer) => recorded(global, "the deployment", answer.into_inner().entry),
        Err(status) => refused(status),
    }
}

async fn list(place: &Place, global: &Global) -> anyhow::Result<ExitCode> {
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let (service, environment) = (place.service.clone(), place.environment.clone());
    let answer = match client.list_deployments(v1::ListDeploymentsRequest { service, environment }).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return refused(status),
    };
    match global.output {
        Output::Json => {
            let revisions: Vec<_> = answer.revisions.iter().map(to_json).collect();
            print(&format!("{}\n", json!({"running": answer.running, "revisions": revisions})))?;
        }
        Output::Text if answer.revisions.is_empty() => print(&format!(
            "{place}: nothing was ever recorded here\n  -> what was recorded: countersign deployment list\n"
        ))?,
        Output::Text => {
            let mut out = format!("{place}: {} recorded (* runs now)\n", answer.revisions.len());
            for revision in &answer.revisions {
                let mark = if revision.digest == answer.running { "*" } else { " " };
                out += &text(mark, revision);
            }
            print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn services(global: &Global) -> anyhow::Result<ExitCode> {
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let services = match client.list_services(v1::ListServicesRequest {}).await {
        Ok(answer) => answer.into_inner().services,
        Err(status) => return refused(status),
    };
    match global.output {
        Output::Json => {
            let places: Vec<_> =
                services.iter().map(|one| json!({"service": one.service, "environment": one.environment})).collect();
            print(&format!("{}\n", serde_json::Value::from(places)))?;
        }
        Output::Text if services.is_empty() => {
            print("nothing was ever recorded\n  -> record what runs: countersign deployment record --help\n")?;
        }
        Output::Text => {
            let places = services.iter().map(|one| format!("{}@{}\n", line(&one.service), line(&one.environment)));
            print(&places.collect::<String>())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One revision in lines for people.
pub(super) fn text(mark: &str, revision: &v1::Revision) -> String {
    let mut parts = vec![line(&revision.image)];
    if !revision.version.is_empty() {
        parts.push(line(&revision.version));
    }
    if !revision.region.is_empty() {
        parts.push(line(&revision.region));
    }
    parts.push(revision.status.clone());
    parts.push(match revision.live_since.as_str() {
        "" => "never live".to_owned(),
        since => format!("live {since}"),
    });
    parts.push(match (revision.health.as_str(), revision.health_detail.as_str()) {
        ("" | "unknown", _) => "health unknown".to_owned(),
        (health, "") => health.to_owned(),
        (health, detail) => format!("{health} ({})", line(detail)),
    });
    if !revision.by.is_empty() {
        parts.push(format!("by {}", line(&revision.by)));
    }
    let mut out = format!("{mark} {}\n    {}\n", revision.digest, parts.join("  "));
    for one in &revision.workloads {
        out += &format!("    {} {}/{}, container {}\n", one.kind, one.namespace, one.name, one.container);
    }
    out
}

/// One revision for machines.
pub(super) fn to_json(revision: &v1::Revision) -> serde_json::Value {
    let workloads = revision
        .workloads
        .iter()
        .map(|one| json!({"namespace": one.namespace, "kind": one.kind, "name": one.name, "container": one.container}));
    json!({
        "digest": revision.digest, "image": revision.image, "version": revision.version, "region": revision.region,
        "by": revision.by, "status": revision.status, "status_since": revision.status_since,
        "live_since": revision.live_since, "health": revision.health, "health_detail": revision.health_detail,
        "workloads": workloads.collect::<Vec<_>>(),
        "entry": revision.entry.as_ref().map(|entry| json!({"origin": entry.origin, "index": entry.index})),
    })
}
