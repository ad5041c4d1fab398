//! `countersign revoke`: take back an artifact, a key or an identity.

use std::process::ExitCode;

use serde_json::json;

use super::{
    Global, Output, client,
    place::{line, refused, time},
    print,
};
use crate::{
    grpc::v1::{self, release_service_client::ReleaseServiceClient, revoke_request::Target},
    model::Digest,
};

/// Revokes. An artifact is condemned whoever signed it; what a revoked key or identity signed before --since stays good.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign revoke artifact sha256:… --reason 'leaks customer data'
  countersign revoke identity --subject spiffe://example.com/ci --issuer https://… --since 2026-11-01T00:00:00Z --reason 'token stolen'")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A digest.
    Artifact {
        /// The digest.
        digest: Digest,
        #[command(flatten)]
        how: How,
    },
    /// A public key, by the digest of its SubjectPublicKeyInfo.
    Key {
        /// The key's digest.
        key: Digest,
        #[command(flatten)]
        how: How,
    },
    /// A signing identity.
    Identity {
        /// Its subject, as in the certificate.
        #[arg(long)]
        subject: String,
        /// Its issuer, as in the certificate.
        #[arg(long)]
        issuer: String,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, clap::Args)]
struct How {
    /// Why; kept in the log.
    #[arg(long)]
    reason: String,
    /// From when it counts (RFC 3339). Default: now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only say what it would hit.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let (target, how) = match args.what {
        What::Artifact { digest, how } => (Target::Artifact(digest.to_string()), how),
        What::Key { key, how } => (Target::Key(key.to_string()), how),
        What::Identity { subject, issuer, how } => (Target::Identity(v1::SigningIdentity { subject, issuer }), how),
    };
    let since = how.since.unwrap_or_default();
    let request = v1::RevokeRequest { target: Some(target), since, reason: how.reason, dry_run: how.dry_run };
    let mut client = ReleaseServiceClient::new(client::connect(global).await?);
    let answer = match client.revoke(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => return refused(status),
    };
    match global.output {
        Output::Json => print(&format!(
            "{}\n",
            json!({
                "dry_run": how.dry_run,
                "entry": answer.entry.as_ref().map(|entry| json!({"origin": entry.origin, "index": entry.index})),
                "hits": answer.hits.iter().map(|hit| json!({"service": hit.service, "environment": hit.environment,
                    "digest": hit.digest, "running": hit.running})).collect::<Vec<_>>(),
                "truncated": answer.truncated,
            })
        ))?,
        Output::Text => print(&text(&answer))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &v1::RevokeResponse) -> String {
    let mut out = match &answer.entry {
        Some(entry) => format!("revoked\n  log  {}#{}\n", entry.origin, entry.index),
        None => "nothing was written (--dry-run)\n".to_owned(),
    };
    if answer.hits.is_empty() {
        out += "no revision that was ever live is hit; if you expected one, see whether what you named is right\n";
        return out;
    }
    let more = if answer.truncated { " and more" } else { "" };
    out += &format!("it hits {}{more}:\n", answer.hits.len());
    for hit in &answer.hits {
        let state = if hit.running { "RUNS NOW" } else { "could be gone back to" };
        out += &format!("  {}@{}  {}  {state}\n", line(&hit.service), line(&hit.environment), hit.digest);
    }
    if let Some(hit) = answer.hits.iter().find(|hit| hit.running) {
        let place = format!("{}@{}", line(&hit.service), line(&hit.environment));
        out += &format!("  -> where it runs now, go back or forward: countersign rollback check {place}\n");
    }
    out
}
