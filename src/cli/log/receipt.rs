//! `countersign log verify-receipt`: a C2SP `tlog-proof` held against an entry and the log's key, without any service.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{check::Doubt, key, print};
use crate::{
    cli::{
        Global,
        verify::{read_bounded, read_text},
    },
    model::{limits, verify::parse_bundle},
    tlog::{Hash, Policy, Receipt, Witnessed, leaf_hash},
};

/// Verifies offline that a receipt proves an entry to be in the log.
///
/// Exit codes: 0 it is in the log, 1 the receipt does not prove it, 2 could not tell (a file cannot be read).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log verify-receipt app.tlog-proof --leaf leaf.json --key log.vkey
  countersign log verify-receipt app.tlog-proof --bundle app.sigstore.json --key log.vkey
  countersign log verify-receipt app.tlog-proof --leaf leaf.json --key log.vkey --witness-policy policy.txt")]
pub(super) struct Args {
    /// The receipt that `log proof --receipt` wrote.
    receipt: PathBuf,
    #[command(flatten)]
    entry: Entry,
    /// The log's verifier key (name+hash+key, as `log status` prints it), or a file that holds it.
    #[arg(long, value_name = "VKEY_OR_FILE", env = "COUNTERSIGN_LOG_KEY")]
    key: String,
    /// A witness policy (C2SP tlog-policy): the checkpoint must be cosigned by its quorum as well. A log that shows
    /// different histories to different people has no such checkpoint of more than one of them.
    #[arg(long, value_name = "FILE")]
    witness_policy: Option<PathBuf>,
}

/// The entry that the receipt should be of.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Entry {
    /// The entry's leaf, byte by byte as `log entry --leaf` prints it.
    #[arg(long, value_name = "FILE")]
    leaf: Option<PathBuf>,
    /// The hash of the leaf, in hex: SHA-256 of a zero byte and the leaf.
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    leaf_hash: Option<Hash>,
    /// A Sigstore bundle; the entry is the one that it carries.
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

fn parse_hash(text: &str) -> Result<Hash, String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_source| "a hash is 64 hexadecimal digits".to_owned())?;
    Ok(hash)
}

pub(super) fn run(args: Args, global: &Global) -> Result<ExitCode, Doubt> {
    let key = key::parse(&args.key)?;
    let policy = args.witness_policy.as_deref().map(read_policy).transpose()?;
    let leaf = args.entry.hash()?;
    let text = read_text(&args.receipt, "receipt")?;
    let receipt: Receipt = text.parse().map_err(|source| no(&source))?;
    let included = receipt.verify(&leaf, &key).map_err(|source| no(&source))?;
    let (index, checkpoint) = (included.index(), included.checkpoint());
    let witnessed = policy.map(|policy| policy.check(&receipt.note().to_string())).transpose();
    let witnessed = witnessed.map_err(|source| no(&source))?;
    let witnesses: Vec<&str> = witnessed.iter().flat_map(Witnessed::cosigned).map(|(name, _)| name.as_str()).collect();
    let value = json!({ "included": true, "origin": checkpoint.origin, "index": index, "treeSize": checkpoint.size,
        "root": hex::encode(checkpoint.root), "leafHash": hex::encode(leaf),
        "witnesses": witnessed.is_some().then_some(&witnesses) });
    let mut text = format!(
        "INCLUDED: entry {index} of {}, under its signed checkpoint of size {}",
        checkpoint.origin, checkpoint.size
    );
    if !witnesses.is_empty() {
        text.push_str(&format!(", cosigned by {}", witnesses.join(", ")));
    }
    print(global, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let text = read_text(path, "witness policy")?;
    Policy::parse(&text).with_context(|| format!("witness policy {}", path.display()))
}

/// The receipt proves nothing, with the reason behind the reason.
fn no(error: &dyn std::error::Error) -> Doubt {
    Doubt::No(error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}")))
}

impl Entry {
    fn hash(&self) -> anyhow::Result<Hash> {
        if let Some(hash) = self.leaf_hash {
            return Ok(hash);
        }
        if let Some(path) = &self.leaf {
            let leaf = read_bounded(path, limits::LEAF).with_context(|| format!("leaf {}", path.display()))?;
            return Ok(leaf_hash(&leaf));
        }
        let path = self.bundle.as_ref().context("give --leaf, --leaf-hash or --bundle")?;
        let in_file = || format!("bundle {}", path.display());
        let bundle = read_bounded(path, limits::BUNDLE).with_context(in_file)?;
        let bundle = parse_bundle(&bundle).with_context(in_file)?;
        let entries = &bundle.verification_material.tlog_entries;
        let entry = entries.first().ok_or_else(|| anyhow!("it has no log entry")).with_context(in_file)?;
        Ok(leaf_hash(entry.canonicalized_body.as_bytes()))
    }
}
