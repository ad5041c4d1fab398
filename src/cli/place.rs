//! What the operator door's commands share: `SERVICE@ENVIRONMENT`, and how a record is reported.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::{Global, Output, print};
use crate::grpc::v1;

/// A service in an environment, as two flags.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Place {
    /// The service.
    #[arg(long)]
    pub service: String,
    /// The environment.
    #[arg(long)]
    pub environment: String,
}

/// Splits `SERVICE@ENVIRONMENT`.
pub(super) fn split(text: &str) -> anyhow::Result<(String, String)> {
    let (service, environment) =
        text.split_once('@').with_context(|| format!("{text:?}: write SERVICE@ENVIRONMENT, as in shop@production"))?;
    Ok((service.to_owned(), environment.to_owned()))
}

/// Says where something was recorded.
pub(super) fn recorded(global: &Global, what: &str, entry: Option<v1::LogRef>) -> anyhow::Result<ExitCode> {
    let entry = entry.context("the service answered without a log entry")?;
    match global.output {
        Output::Json => {
            print(&format!("{}\n", json!({"recorded": what, "origin": entry.origin, "index": entry.index})))?;
        }
        Output::Text => print(&format!("recorded {what}\n  log  {}#{}\n", entry.origin, entry.index))?,
    }
    Ok(ExitCode::SUCCESS)
}
