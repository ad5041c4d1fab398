//! The command line: one file per command, thin over the gRPC client or the layers below.
//!
//! Exit codes: 0 yes or done, 1 no or failed, 2 could not tell, 64 wrong usage.

pub mod admit;
pub mod approve;
pub mod attest;
pub mod bench;
mod bench_loads;
mod bench_log;
pub mod client;
pub mod copy;
pub mod deployment;
pub mod doctor;
pub mod health;
pub mod init;
pub mod key;
pub mod log;
mod log_admin;
mod log_mirror;
mod place;
pub mod policy;
pub mod revoke;
pub mod rollback;
pub mod serve;
pub mod sign;
pub mod subject;
pub mod trust;
pub mod verify;
pub mod witness;

use std::{ffi::OsString, fmt, path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, Subcommand};

/// Wrong usage, as in `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For machines: one JSON document.
    Json,
}

/// Text that must not be printed: a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the wire alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.trim().to_owned()))
    }
}

/// Flags of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Text for people or JSON for machines.
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub output: Output,
    /// The service to ask. Plain http:// is accepted for loopback addresses alone.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "COUNTERSIGN_SERVER",
        default_value = "https://127.0.0.1:8443"
    )]
    pub server: String,
    /// PEM certificates of the authority that vouches for the service. Default: the system's.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// OIDC token to call with. Others on the machine can see it in the process list: prefer --token-file.
    #[arg(long, global = true, value_name = "TOKEN", env = "COUNTERSIGN_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// File that holds the OIDC token; read anew for every command.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM client certificate (mutual TLS), leaf first.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CLIENT_CERT")]
    pub client_cert: Option<PathBuf>,
    /// PEM private key of the client certificate.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// Configuration of the service, for the commands that read it. Default: countersign.toml in the data directory.
    #[arg(long, global = true, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Signs what was built, remembers it in a transparency log, and answers at the gate.
///
/// Exit codes: 0 yes or done, 1 no or failed, 2 could not tell, 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, propagate_version = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a data directory: log, keys, certificate authority.
    Init(init::Args),
    /// Run the service.
    Serve(serve::Args),
    /// Sign files or images.
    Sign(sign::Args),
    /// Sign a statement about files or images: provenance, SBOM, scan, test result.
    Attest(attest::Args),
    /// Verify a bundle offline, or an image.
    Verify(verify::Args),
    /// Copy an image with all its evidence to another registry.
    Copy(copy::Args),
    /// Read and audit the transparency log.
    Log(log::Args),
    /// Ask whether manifests would be admitted.
    Admit(admit::Args),
    /// Ask whether going back is safe.
    Rollback(rollback::Args),
    /// Record and list deployments.
    Deployment(deployment::Args),
    /// Report whether a deployed digest is healthy.
    Health(health::Args),
    /// Approve a digest for a service and environment.
    Approve(approve::Args),
    /// Take back an artifact, a key or an identity.
    Revoke(revoke::Args),
    /// Managed keys: make, show, rotate, disable, revoke.
    Key(key::Args),
    /// Test policies.
    Policy(policy::Args),
    /// Trust material: trusted root, rotation of keys, TUF repository, client certificates.
    Trust(trust::Args),
    /// Be a witness of other logs, or hold a checkpoint against a witness policy.
    Witness(witness::Args),
    /// Look at the installation and say what is wrong.
    Doctor(doctor::Args),
    /// Measure a running service (used by scripts/bench).
    #[command(hide = true)]
    Bench(bench::Args),
}

/// Parses the arguments and runs one command.
///
/// # Errors
/// What the command failed with; usage errors are printed here and answered with 64.
pub async fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return Ok(usage(&error)),
    };
    dispatch(cli.command, &cli.global).await
}

/// Help and version are answers (0), everything else is wrong usage (64).
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if printed.is_ok() && !error.use_stderr() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
}

async fn dispatch(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => Box::pin(init::run(args, global)).await,
        Command::Serve(args) => Box::pin(serve::run(args, global)).await,
        Command::Sign(args) => Box::pin(sign::run(args, global)).await,
        Command::Attest(args) => Box::pin(attest::run(args, global)).await,
        Command::Verify(args) => Box::pin(verify::run(args, global)).await,
        Command::Copy(args) => Box::pin(copy::run(args, global)).await,
        Command::Log(args) => Box::pin(log::run(args, global)).await,
        Command::Admit(args) => Box::pin(admit::run(args, global)).await,
        Command::Rollback(args) => Box::pin(rollback::run(args, global)).await,
        Command::Deployment(args) => Box::pin(deployment::run(args, global)).await,
        Command::Health(args) => Box::pin(health::run(args, global)).await,
        Command::Approve(args) => Box::pin(approve::run(args, global)).await,
        Command::Revoke(args) => Box::pin(revoke::run(args, global)).await,
        Command::Key(args) => Box::pin(key::run(args, global)).await,
        Command::Policy(args) => Box::pin(policy::run(args, global)).await,
        Command::Trust(args) => Box::pin(trust::run(args, global)).await,
        Command::Witness(args) => Box::pin(witness::run(args, global)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, global)).await,
        Command::Bench(args) => Box::pin(bench::run(args, global)).await,
    }
}

/// Writes to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
