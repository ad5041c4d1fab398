//! `countersign log proof`: that the log includes an entry, or has only grown. Checked before it is printed.

use std::{
    cmp::Ordering,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::json;

use super::{
    Service, Which, check,
    check::Doubt,
    connect, hex_list,
    key::{self, LogKey},
    print,
};
use crate::{
    cli::{Global, verify::read_text},
    tlog::{Checkpoint, Receipt, leaf_hash},
};

/// Proves that the log includes an entry, or, with --from or --from-checkpoint, that it has only grown.
///
/// Both end at the newest signed checkpoint. Exit codes: 0 proven, 1 not so, 2 could not tell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log proof 4711
  countersign log proof 4711 --receipt app.tlog-proof                # for log verify-receipt, or any other verifier
  countersign log proof --from 4000 --to 4711
  countersign log proof --from-checkpoint seen.txt --key log.vkey    # has it kept what you saw then?")]
pub(super) struct Args {
    /// The entry's index.
    #[arg(required_unless_present_any = ["from", "from_checkpoint"], conflicts_with_all = ["from", "from_checkpoint"])]
    index: Option<u64>,
    /// The smaller size of a consistency proof.
    #[arg(long, value_name = "SIZE", conflicts_with = "from_checkpoint")]
    from: Option<u64>,
    /// A file with a checkpoint of this log that was seen earlier; it takes the place of --from.
    #[arg(long, value_name = "FILE")]
    from_checkpoint: Option<PathBuf>,
    /// The larger size; the newest unless given.
    #[arg(long, value_name = "SIZE", conflicts_with = "index")]
    to: Option<u64>,
    /// Write the proof as a receipt (C2SP tlog-proof) for offline use.
    #[arg(long, value_name = "FILE", requires = "index")]
    receipt: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: key::Pinned,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<ExitCode, Doubt> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        writeln!(io::stderr(), "usage: --from {from} is larger than --to {to}")?;
        return Ok(ExitCode::from(crate::cli::EXIT_USAGE));
    }
    let mut log = connect(global, &args.which).await?;
    let key = args.key.or_of(&mut log).await?;
    if let Some(index) = args.index {
        inclusion(&mut log, &key, index, args.receipt.as_deref(), global).await?;
    } else {
        consistency(&mut log, &key, &args, global).await?;
    }
    if let Some(caution) = key.caution() {
        writeln!(io::stderr(), "note: {caution}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn inclusion(
    log: &mut Service,
    key: &LogKey,
    index: u64,
    file: Option<&Path>,
    global: &Global,
) -> Result<(), Doubt> {
    let included = check::entry(log, key, index, false).await?;
    let receipt = included.receipt;
    if let Some(path) = file {
        let proof = check::hashes(&receipt.proof)?;
        let receipt = Receipt::new(index, proof, &receipt.checkpoint).map_err(anyhow::Error::from)?;
        std::fs::write(path, receipt.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        let value =
            json!({ "index": index, "receipt": path, "leafHash": hex::encode(leaf_hash(&included.entry.leaf)) });
        let text = format!("receipt of entry {index} written to {}", path.display());
        print(global, &value, &text)?;
        return Ok(());
    }
    let value = json!({ "index": receipt.index, "treeSize": receipt.tree_size, "root": hex::encode(&receipt.root),
        "proof": hex_list(&receipt.proof), "checkpoint": receipt.checkpoint });
    let text = format!("{}\n\n{}", hex_list(&receipt.proof).join("\n"), receipt.checkpoint.trim_end());
    print(global, &value, &format!("entry {index} is in the tree of {}\n{text}", receipt.tree_size))?;
    Ok(())
}

async fn consistency(log: &mut Service, key: &LogKey, args: &Args, global: &Global) -> Result<(), Doubt> {
    let seen = args.from_checkpoint.as_deref().map(|path| read(path, key)).transpose()?;
    if let Some(seen) = &seen {
        still_there(log, key, seen).await?;
    }
    let from = seen.as_ref().map_or(args.from, |seen| Some(seen.size)).unwrap_or_default();
    let answer = check::consistency(log, from, args.to.unwrap_or_default()).await?;
    // Of the two roots the service told us; only what leads to a signed one is worth printing.
    let newest = key.verify(&answer.checkpoint).map_err(Doubt::No)?;
    let to_root = check::hash(&answer.to_root)?;
    match answer.to_size.cmp(&newest.size) {
        Ordering::Equal => same(&to_root, &newest.root, newest.size)?,
        Ordering::Less => {
            let onward = check::consistency(log, answer.to_size, newest.size).await?;
            same(&check::hash(&onward.from_root)?, &to_root, answer.to_size)?;
            same(&check::hash(&onward.to_root)?, &newest.root, newest.size)?;
        }
        Ordering::Greater => return Err(Doubt::No(format!("the log has signed no more than size {}", newest.size))),
    }
    if let Some(seen) = &seen {
        same(&check::hash(&answer.from_root)?, &seen.root, seen.size)?;
    }
    let value = json!({ "fromSize": answer.from_size, "toSize": answer.to_size,
        "fromRoot": hex::encode(&answer.from_root), "toRoot": hex::encode(&answer.to_root),
        "proof": hex_list(&answer.proof), "checkpoint": answer.checkpoint });
    let sizes = format!("size {} is a prefix of size {}", answer.from_size, answer.to_size);
    let signed = format!("both are prefixes of the signed checkpoint of size {}", newest.size);
    print(global, &value, &format!("{sizes}; {signed}\n{}", hex_list(&answer.proof).join("\n")))?;
    Ok(())
}

/// Whether the log is at least as large as it was once.
async fn still_there(log: &mut Service, key: &LogKey, seen: &Checkpoint) -> Result<(), Doubt> {
    let newest = key.verify(&check::head(log).await?.checkpoint).map_err(Doubt::No)?;
    if newest.size < seen.size {
        return Err(Doubt::No(format!(
            "the log has signed size {} before and shows size {} now: it lost entries, or this is an older copy of it",
            seen.size, newest.size
        )));
    }
    Ok(())
}

/// A checkpoint that was kept: it must be one of this log.
fn read(path: &Path, key: &LogKey) -> Result<Checkpoint, Doubt> {
    let text = read_text(path, "checkpoint")?;
    key.verify(&text)
        .map_err(|why| anyhow::anyhow!(why))
        .with_context(|| path.display().to_string())
        .map_err(Doubt::from)
}

fn same(one: &[u8; 32], other: &[u8; 32], size: u64) -> Result<(), Doubt> {
    if one == other {
        return Ok(());
    }
    Err(Doubt::No(format!(
        "at size {size} the log has the root {} and should have {}: it was rewritten, or shows different logs to \
         different people. Keep both checkpoints and tell the log's operator and its witnesses",
        hex::encode(one),
        hex::encode(other)
    )))
}
