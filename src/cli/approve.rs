//! `countersign approve`: a digest for a service and environment.

use std::process::ExitCode;

use super::{
    Global, client,
    place::{Place, recorded},
};
use crate::{
    grpc::v1::{self, release_service_client::ReleaseServiceClient},
    model::Digest,
};

/// Approves a digest; policies may ask for it. Approve at deploy time, so that a later rollback waits for nobody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  countersign approve --service shop --environment production sha256:… --comment 'reviewed in CR-17'")]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// The digest.
    digest: Digest,
    /// Why.
    #[arg(long, default_value = "")]
    comment: String,
    /// Until when it counts (RFC 3339). Default: for ever.
    #[arg(long, default_value = "")]
    expires: String,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let request = v1::ApproveRequest {
        service: args.place.service,
        environment: args.place.environment,
        digest: args.digest.to_string(),
        comment: args.comment,
        expires: args.expires,
    };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let answer = client.approve(request).await.map_err(client::explain)?.into_inner();
    recorded(global, "the approval", answer.entry)
}
