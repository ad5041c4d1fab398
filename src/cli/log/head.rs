//! `countersign log status`: the newest signed checkpoint.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{Which, check, connect, key, print};
use crate::{cli::Global, tlog::VerifierKey};

/// Prints the newest signed checkpoint, after verifying its signature.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log status
  countersign log status -o json | jq -r .verifierKey > log.vkey    # pin it: --key log.vkey
  countersign log status -o json | jq -r .checkpoint > seen.txt      # for log proof --from-checkpoint")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: key::Pinned,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut log = connect(global, &args.which).await?;
    let head = check::head(&mut log).await?;
    let pinned = args.key.read()?;
    let key = key::LogKey {
        pinned: pinned.is_some(),
        key: match pinned {
            Some(key) => key,
            None => VerifierKey::parse(&head.verifier_key).context("the service names a key that is none")?,
        },
    };
    let checkpoint = key.verify(&head.checkpoint).map_err(|why| anyhow!(why))?;
    if let Some(caution) = key.caution() {
        writeln!(io::stderr(), "note: {caution}")?;
    }
    let value = json!({ "origin": checkpoint.origin, "size": checkpoint.size, "root": hex::encode(checkpoint.root),
        "checkpoint": head.checkpoint, "verifierKey": key.key.vkey(), "keyPinned": key.pinned,
        "successor": Some(&head.successor).filter(|origin| !origin.is_empty()), "origins": head.origins });
    let mut text = format!("{}\nverifier key: {}", head.checkpoint.trim_end(), key.key.vkey());
    if !head.successor.is_empty() {
        text += &format!("\nfrozen; its successor is {}", head.successor);
    }
    if head.origins.len() > 1 {
        text += &format!("\nall logs of this instance: {}", head.origins.join(", "));
    }
    print(global, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}
