//! `countersign log`: the head, entries, proofs, look-ups and watches over gRPC; audit and repair on a data directory.
//!
//! What is printed as proven was checked here, with the log's key: pinned by `--key`, else the one that the service
//! names, which says no more than that the service agrees with itself.

mod check;
mod entry;
mod fsck;
mod head;
mod issued;
mod key;
mod logs;
mod proof;
mod rebuild;
mod receipt;
mod search;
mod show;
mod watch;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{Global, Output, client, log_admin};
use crate::{grpc::v1::log_service_client::LogServiceClient, model::limits};
use check::Doubt;

/// A log of the service, and the client to ask about it.
#[derive(Debug, Clone)]
struct Service {
    client: LogServiceClient<client::Service>,
    /// Empty for the present one.
    origin: String,
}

/// Which log is asked.
#[derive(Debug, Clone, clap::Args)]
struct Which {
    /// The log, where the instance has more than one. Default: the present one.
    #[arg(long, value_name = "HOST")]
    origin: Option<String>,
}

/// Reads and audits the transparency log.
///
/// Exit codes of proof, verify-receipt, issued and fsck: 0 it holds, 1 it does not, 2 could not tell. Of the others: 0 done,
/// 1 failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log status
  countersign log search --repository registry.example.com/shop/app --since 24h --newest
  countersign log issued ci@example.com --issuer https://sso.example.com
  countersign log entry 4711
  countersign log proof 4711 --receipt app.tlog-proof
  countersign log verify-receipt app.tlog-proof --bundle app.sigstore.json --key log.vkey
  countersign log watch --identity ci@example.com --issuer https://sso.example.com -o json
  countersign log fsck --data /var/lib/countersign")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the newest signed checkpoint.
    Status(head::Args),
    /// Prints one entry: what it says, who signed it, when, and that the log includes it.
    Entry(entry::Args),
    /// Proves that the log includes an entry, or that it has only grown.
    Proof(proof::Args),
    /// Finds entries by what they say.
    Search(search::Args),
    /// Lists the certificates that were issued for an identity.
    Issued(issued::Args),
    /// Prints entries as they are recorded, one a line, until it is stopped.
    Watch(watch::Args),
    /// Verifies a receipt offline.
    VerifyReceipt(receipt::Args),
    #[command(flatten)]
    Admin(log_admin::Command),
    /// Recomputes the whole log from its leaves and compares. The service must be stopped.
    Fsck(fsck::Args),
    /// Makes the rows by which entries are found anew. The service must be stopped.
    RebuildViews(rebuild::Args),
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Status(args) => head::run(args, global).await,
        Command::Entry(args) => entry::run(args, global).await,
        Command::Proof(args) => judged(proof::run(args, global).await),
        Command::Search(args) => search::run(args, global).await,
        Command::Issued(args) => judged(issued::run(args, global).await),
        Command::Watch(args) => watch::run(args, global).await,
        Command::VerifyReceipt(args) => judged(receipt::run(args, global)),
        Command::Admin(command) => log_admin::run(command, global).await,
        Command::Fsck(args) => judged(fsck::run(args, global).await),
        Command::RebuildViews(args) => rebuild::run(args, global).await,
    }
}

async fn connect(global: &Global, which: &Which) -> anyhow::Result<Service> {
    let client = LogServiceClient::new(client::connect(global).await?);
    let client = client.max_decoding_message_size(limits::GRPC_MESSAGE + limits::LEAF + 64 * 1024);
    Ok(Service { client, origin: which.origin.clone().unwrap_or_default() })
}

/// The exit code of a judgement: what does not hold is 1, and what could not be told is 2.
fn judged(outcome: Result<ExitCode, Doubt>) -> anyhow::Result<ExitCode> {
    match outcome {
        Ok(code) => Ok(code),
        Err(Doubt::No(why)) => {
            writeln!(io::stderr(), "NO: {why}")?;
            Ok(ExitCode::FAILURE)
        }
        Err(Doubt::Unknown(error)) => {
            writeln!(io::stderr(), "could not tell: {error:#}")?;
            Ok(ExitCode::from(2))
        }
    }
}

fn print(global: &Global, value: &serde_json::Value, text: &str) -> io::Result<()> {
    match global.output {
        Output::Json => writeln!(io::stdout(), "{value}"),
        Output::Text => writeln!(io::stdout(), "{text}"),
    }
}

fn hex_list(hashes: &[impl AsRef<[u8]>]) -> Vec<String> {
    hashes.iter().map(hex::encode).collect()
}
