//! `countersign approve`: a digest for a service and environment.

use std::process::ExitCode;

use super::{
    Global, client,
    place::{Flags, recorded, refused, time},
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
    place: Flags,
    /// The digest.
    digest: Digest,
    /// Why.
    #[arg(long, default_value = "")]
    comment: String,
    /// Until when it counts (RFC 3339). Default: for ever.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires: Option<String>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let request = v1::ApproveRequest {
        service: args.place.service,
        environment: args.place.environment,
        digest: args.digest.to_string(),
        comment: args.comment,
        expires: args.expires.unwrap_or_default(),
    };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    match client.approve(request).await {
        Ok(answer) => recorded(global, "the approval", answer.into_inner().entry),
        Err(status) => refused(status),
    }
}
