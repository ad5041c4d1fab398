//! STUB.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use std::process::ExitCode;
use super::Global;
#[derive(Debug, clap::Args)]
pub struct Args {}
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> { unimplemented!() }
