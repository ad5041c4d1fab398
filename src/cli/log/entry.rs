//! `countersign log entry`: what one entry says, and that the log includes it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use serde_json::{Value, json};

use super::{Which, check, connect, key, print, show::Shown};
use crate::cli::{Global, Output};

/// Prints one entry, after checking that the signed checkpoint includes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log entry 4711
  countersign log entry 4711 --leaf > leaf.json           # the bytes that are hashed
  countersign log entry 4711 --payload > bundle.json      # the Sigstore bundle without log entry")]
pub(super) struct Args {
    /// The entry's index.
    index: u64,
    /// Print the leaf alone, byte by byte as it is hashed.
    #[arg(long, conflicts_with = "payload")]
    leaf: bool,
    /// Print the payload (the Sigstore bundle without log entry) alone.
    #[arg(long)]
    payload: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: key::Pinned,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut log = connect(global, &args.which).await?;
    let key = args.key.or_of(&mut log).await?;
    let included = check::entry(&mut log, &key, args.index, true).await?;
    if let Some(caution) = key.caution() {
        writeln!(io::stderr(), "note: {caution}")?;
    }
    let entry = &included.entry;
    if args.leaf || args.payload {
        let bytes = if args.leaf { &entry.leaf } else { &entry.payload };
        anyhow::ensure!(!bytes.is_empty(), "entry {} has no payload: none was given, or it was erased", args.index);
        match global.output {
            Output::Json => writeln!(io::stdout(), "{}", value(bytes))?,
            Output::Text => io::stdout().write_all(bytes)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let shown = Shown::of(entry);
    let mut json = shown.json();
    json.insert("leaf".to_owned(), value(&entry.leaf));
    json.insert("treeSize".to_owned(), json!(included.receipt.tree_size));
    let proven = format!("  included:        yes, under the signed checkpoint of size {}", included.receipt.tree_size);
    print(global, &Value::Object(json), &format!("{}\n{proven}", shown.text()))?;
    Ok(ExitCode::SUCCESS)
}

/// The bytes as JSON, if they are; else as text.
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_not_json| json!(String::from_utf8_lossy(bytes)))
}
