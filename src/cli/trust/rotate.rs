//! `countersign trust rotate`.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    cli::{Global, Output, client},
    grpc::v1::{
        FreezeRequest, KeyKind, RotateRequest, log_admin_service_client::LogAdminServiceClient,
        trust_service_client::TrustServiceClient,
    },
};

/// Shown below the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  # at once: who verifies has the new trusted root from TUF, or fetches it again
  countersign trust rotate ca
  # announced a day ahead, for verifiers that copy files: whoever fetched in between verifies old and new
  countersign trust rotate tsa --activate-in 1d
  # the root above it too: where its key is gone, or its certificate nears its end
  countersign trust rotate ca --new-root
  # a log's name goes with its key, so a new log under a new name takes over
  countersign trust rotate log --successor log2.example.org";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which key.
    #[arg(value_enum, value_name = "KEY")]
    key: Key,
    /// Make the root above it anew too.
    #[arg(long)]
    new_root: bool,
    /// How long until the new key signs, as in 30m, 12h or 7d; at most 90d. Until then it is only announced.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = seconds)]
    activate_in: i64,
    /// For log: the origin of the new log, a host name that no earlier log has.
    #[arg(long, value_name = "HOST", alias = "origin", required_if_eq("key", "log"))]
    successor: Option<String>,
}

/// What rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Key {
    /// The authority that issues signing certificates.
    Ca,
    /// The key that signs certificate timestamps.
    Sct,
    /// The time-stamp authority.
    Tsa,
    /// The key that signs the log's checkpoints, and with it the log.
    Log,
    /// The online key of the TUF repository.
    Tuf,
}

/// Seconds of a text such as `12h`.
fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a time such as 0s, 30m, 12h or 7d");
    let unit = text.chars().last().and_then(|unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3_600),
        'd' => Some(86_400),
        _ => None,
    });
    let count = text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<i64>().ok());
    count.zip(unit).and_then(|(count, unit)| count.checked_mul(unit)).ok_or_else(wrong)
}

/// Rotates.
pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    let kind = match args.key {
        Key::Ca => KeyKind::Ca,
        Key::Sct => KeyKind::Sct,
        Key::Tsa => KeyKind::Tsa,
        Key::Tuf => KeyKind::Tuf,
        Key::Log => return succeed(args, global).await,
    };
    if args.successor.is_some() {
        bail!("--successor is for a log alone");
    }
    let activate_in = (args.activate_in != 0).then_some(prost_types::Duration { seconds: args.activate_in, nanos: 0 });
    let request = RotateRequest { kind: kind.into(), new_root: args.new_root, activate_in };
    let mut service = TrustServiceClient::new(client::connect(global).await?);
    let done = service.rotate(request).await.map_err(client::explain)?.into_inner();
    let at = done.signs_from.context("the service sent no time")?;
    let signs_from = Timestamp::new(at.seconds, at.nanos)?;
    let name = format!("{:?}", args.key).to_lowercase();
    let mut out = std::io::stdout();
    if global.output == Output::Json {
        let value = json!({ "key": name, "number": done.number, "signsFrom": signs_from,
            "trustedRootDigest": done.trusted_root_digest });
        return Ok(writeln!(out, "{value:#}")?);
    }
    let number = done.number;
    if kind == KeyKind::Tuf {
        writeln!(out, "{name} {number} signs the TUF metadata; clients follow by themselves")?;
        return Ok(());
    }
    writeln!(out, "{name} {number} signs from {signs_from} on; what was signed before stays valid")?;
    writeln!(out, "Clients by TUF have it already. For those with files: countersign trust export")?;
    Ok(())
}

/// A log is succeeded by another one.
async fn succeed(args: Args, global: &Global) -> anyhow::Result<()> {
    if args.new_root || args.activate_in != 0 {
        bail!("a log stands under no root and is succeeded at once: leave out --new-root and --activate-in");
    }
    let successor = args.successor.context("give the new log's host name with --successor")?;
    let mut service = LogAdminServiceClient::new(client::connect(global).await?);
    let request = FreezeRequest { successor: successor.clone() };
    let frozen = service.freeze(request).await.map_err(client::explain)?.into_inner();
    let mut out = std::io::stdout();
    if global.output == Output::Json {
        let value = json!({ "key": "log", "origin": successor, "verifierKey": frozen.verifier_key,
            "lastCheckpoint": frozen.last_checkpoint });
        return Ok(writeln!(out, "{value:#}")?);
    }
    writeln!(out, "{successor} takes the place of the log, which is frozen; both stay trusted")?;
    writeln!(out, "  verifier key  {}", frozen.verifier_key)?;
    Ok(())
}
