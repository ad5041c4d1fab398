//! `countersign log`: the head, entries, proofs and look-ups over gRPC; the audit on a data directory.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use super::{Global, Output, client, log_admin};
use crate::{
    grpc::v1::{self, log_service_client::LogServiceClient, search_request::By},
    log::audit,
};

/// Reads and audits the transparency log.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign log search --digest sha256:9f86d0…\n         \
                        countersign log fsck --data /var/lib/countersign")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Prints the newest signed checkpoint.
    Status,
    /// Prints one entry: its leaf, and its payload on request.
    Entry {
        /// The entry's index.
        index: u64,
        /// Print the payload (the Sigstore bundle without log entry) alone.
        #[arg(long)]
        payload: bool,
    },
    /// Prints the inclusion proof of an entry, or with --from the consistency proof between two sizes.
    Proof {
        /// The entry's index.
        #[arg(required_unless_present = "from", conflicts_with = "from")]
        index: Option<u64>,
        /// The smaller size of a consistency proof.
        #[arg(long)]
        from: Option<u64>,
        /// The larger size; the newest unless given.
        #[arg(long, requires = "from")]
        to: Option<u64>,
    },
    /// Finds entries.
    Search(Search),
    #[command(flatten)]
    Admin(log_admin::Command),
    /// Recomputes the whole log from its leaves and compares. The service must be stopped: the log is locked while
    /// it runs.
    Fsck {
        /// The data directory that `countersign init` made.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Search {
    /// Entries about this digest, sha256:<hex>.
    #[arg(long, group = "by")]
    digest: Option<String>,
    /// Entries with a subject of this name, as in registry/repository:tag.
    #[arg(long, group = "by")]
    name: Option<String>,
    /// Entries signed by this identity; needs --issuer.
    #[arg(long, group = "by", requires = "issuer")]
    identity: Option<String>,
    /// The issuer of --identity.
    #[arg(long, requires = "identity")]
    issuer: Option<String>,
    /// Entries with this predicate type.
    #[arg(long, group = "by")]
    predicate_type: Option<String>,
    /// Entries about this service; needs --environment.
    #[arg(long, group = "by", requires = "environment")]
    service: Option<String>,
    /// The environment of --service.
    #[arg(long, requires = "service")]
    environment: Option<String>,
    /// Start at this index.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Newest first.
    #[arg(long)]
    newest: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    if let Command::Fsck { data } = args.command {
        return fsck(data, global).await;
    }
    if let Command::Admin(command) = args.command {
        return log_admin::run(command, global).await;
    }
    let mut log = LogServiceClient::new(client::connect(global).await?);
    match args.command {
        Command::Status => {
            let head = log.get_checkpoint(v1::GetCheckpointRequest {}).await.map_err(client::explain)?.into_inner();
            let value = json!({ "origin": head.origin, "size": head.size, "root": hex::encode(&head.root),
                "checkpoint": head.checkpoint, "verifierKey": head.verifier_key });
            print(global, &value, &format!("{}\nverifier key: {}", head.checkpoint.trim_end(), head.verifier_key))?;
        }
        Command::Entry { index, payload } => {
            let request = v1::GetEntryRequest { index, with_payload: payload };
            let entry = log.get_entry(request).await.map_err(client::explain)?.into_inner().entry.unwrap_or_default();
            let bytes = if payload { entry.payload } else { entry.leaf };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let value = serde_json::from_slice(&bytes).unwrap_or_else(|_not_json| json!(text));
            print(global, &value, &text)?;
        }
        Command::Proof { index: Some(index), .. } => {
            let request = v1::GetInclusionProofRequest { index };
            let answer = log.get_inclusion_proof(request).await.map_err(client::explain)?.into_inner();
            let receipt = answer.receipt.unwrap_or_default();
            let value = json!({ "index": receipt.index, "treeSize": receipt.tree_size,
                "root": hex::encode(&receipt.root), "proof": hex_list(&receipt.proof), "checkpoint": receipt.checkpoint });
            let text = format!("{}\n\n{}", hex_list(&receipt.proof).join("\n"), receipt.checkpoint.trim_end());
            print(global, &value, &format!("entry {} in a tree of {}\n{text}", receipt.index, receipt.tree_size))?;
        }
        Command::Proof { from, to, .. } => {
            let (from_size, to_size) = (from.unwrap_or_default(), to.unwrap_or_default());
            let request = v1::GetConsistencyProofRequest { from_size, to_size };
            let answer = log.get_consistency_proof(request).await.map_err(client::explain)?.into_inner();
            let value = json!({ "fromSize": answer.from_size, "toSize": answer.to_size,
                "fromRoot": hex::encode(&answer.from_root), "toRoot": hex::encode(&answer.to_root),
                "proof": hex_list(&answer.proof), "checkpoint": answer.checkpoint });
            let sizes = format!("size {} is a prefix of size {}", answer.from_size, answer.to_size);
            print(global, &value, &format!("{sizes}\n{}", hex_list(&answer.proof).join("\n")))?;
        }
        Command::Search(search) => {
            let found = log.search(search.request()).await.map_err(client::explain)?.into_inner();
            let value = json!({ "indexes": found.indexes, "completeToSize": found.complete_to_size,
                "nextIndex": found.next_index });
            let lines: Vec<_> = found.indexes.iter().map(u64::to_string).collect();
            let next = found.next_index.map_or_else(String::new, |next| format!("; more with --from {next}"));
            let end = format!("{} entries; complete up to size {}{next}", lines.len(), found.complete_to_size);
            print(global, &value, &lines.into_iter().chain([end]).collect::<Vec<_>>().join("\n"))?;
        }
        Command::Fsck { .. } | Command::Admin(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

impl Search {
    fn request(self) -> v1::SearchRequest {
        let identity = self
            .identity
            .map(|subject| By::Identity(v1::SignerIdentity { subject, issuer: self.issuer.unwrap_or_default() }));
        let service = self.service.map(|service| {
            By::Service(v1::ServiceEnvironment { service, environment: self.environment.unwrap_or_default() })
        });
        let by = self.digest.map(By::Digest).or(self.name.map(By::Name)).or(identity);
        let by = by.or(self.predicate_type.map(By::PredicateType)).or(service);
        v1::SearchRequest { by, from_index: self.from, limit: self.limit, newest_first: self.newest }
    }
}

fn hex_list(hashes: &[impl AsRef<[u8]>]) -> Vec<String> {
    hashes.iter().map(hex::encode).collect()
}

fn print(global: &Global, value: &serde_json::Value, text: &str) -> io::Result<()> {
    match global.output {
        Output::Json => writeln!(io::stdout(), "{value}"),
        Output::Text => writeln!(io::stdout(), "{text}"),
    }
}

/// Audits `<data>/log`: 0 sound, 1 not sound, 2 could not tell.
async fn fsck(data: PathBuf, global: &Global) -> anyhow::Result<ExitCode> {
    let shows_progress = io::stderr().is_terminal();
    let audited = tokio::task::spawn_blocking(move || {
        audit::fsck(&data.join("log"), |done, all| {
            if shows_progress && (done == all || done % (64 * 256) == 0) {
                // Progress that cannot be shown is no reason to stop.
                drop(write!(io::stderr(), "\r{done} of {all} entries"));
            }
        })
    })
    .await?;
    if shows_progress {
        writeln!(io::stderr())?;
    }
    let report = match audited {
        Ok(report) => report,
        Err(error) => {
            writeln!(io::stderr(), "error: {error}")?;
            return Ok(ExitCode::from(2));
        }
    };
    let findings: String = report.findings.iter().map(|finding| format!("- {finding}\n")).collect();
    let sound = if report.is_sound() { "SOUND" } else { "NOT SOUND" };
    let text = format!(
        "{findings}{sound}: {} entries, {} payloads, {} rows; root {} recomputed from leaves",
        report.size, report.payloads, report.rows, report.root
    );
    print(global, &serde_json::to_value(&report)?, &text)?;
    Ok(ExitCode::from(u8::from(!report.is_sound())))
}
