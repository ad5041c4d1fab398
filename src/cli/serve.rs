//! `countersign serve`: the service.

use std::{path::PathBuf, process::ExitCode};

use jiff::Timestamp;

use super::Global;
use crate::{config::Config, server};

/// Serves a data directory that `countersign init` made; never makes one. Stops on SIGTERM, after a drain.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  countersign serve --config /var/lib/countersign/countersign.toml")]
pub struct Args {
    /// The data directory. Default: `data` of the configuration.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let config = Config::load_from_process(global.config.as_deref(), args.data.as_deref())?;
    server::logging::start();
    server::Server::run(config, Timestamp::now).await?;
    Ok(ExitCode::SUCCESS)
}
