//! STUB.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use super::Global;
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct Args {}
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    unimplemented!()
}
