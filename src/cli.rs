//! STUB: the shell's owner replaces this file; `Global`, `Output` and `client` keep their shapes.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use std::process::ExitCode;
pub mod admit;
pub mod attest;
pub mod client;
pub mod deployment;
pub mod doctor;
pub mod init;
pub mod log;
pub mod policy;
pub mod revoke;
pub mod rollback;
pub mod serve;
pub mod sign;
pub mod trust;
pub mod verify;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    Text,
    Json,
}
/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Text for people or JSON for machines.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Output,
}
