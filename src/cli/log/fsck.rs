//! `countersign log fsck`: the audit of logs that no process has open.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use serde_json::json;

use super::{check::Doubt, print};
use crate::{
    cli::Global,
    log::audit::{self, Report},
    server::succession::directories,
};

/// Recomputes all logs of a data directory from their leaves and compares: tree, tiles, checkpoint, anchor, payloads, views.
///
/// The service must be stopped: the log is locked while it runs. Exit codes: 0 sound, 1 not sound, 2 could not tell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign log fsck --data /var/lib/countersign")]
pub(super) struct Args {
    /// The data directory that `countersign init` made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<ExitCode, Doubt> {
    let directories = directories(&args.data);
    if directories.is_empty() {
        let data = args.data.display();
        return Err(anyhow!("there is no log in {data}; check the path, or make one with `countersign init`").into());
    }
    let (mut reports, mut texts, mut sound) = (Vec::new(), Vec::new(), true);
    for directory in directories {
        let report = audit(directory).await?;
        sound &= report.is_sound();
        texts.push(text(&report));
        reports.push(report);
    }
    print(global, &json!({ "sound": sound, "logs": reports }), &texts.join("\n"))?;
    Ok(ExitCode::from(u8::from(!sound)))
}

async fn audit(directory: PathBuf) -> anyhow::Result<Report> {
    let shows_progress = io::stderr().is_terminal();
    let audited = tokio::task::spawn_blocking(move || {
        audit::fsck(&directory, |done, all| {
            if shows_progress && (done == all || done % (64 * 256) == 0) {
                // Progress that cannot be shown is no reason to stop.
                drop(write!(io::stderr(), "\r{done} of {all} entries"));
            }
        })
    })
    .await
    .context("the audit was interrupted")?;
    if shows_progress {
        writeln!(io::stderr())?;
    }
    Ok(audited?)
}

fn text(report: &Report) -> String {
    let findings: String = report.findings.iter().map(|finding| format!("- {finding}\n")).collect();
    let sound = if report.is_sound() { "SOUND" } else { "NOT SOUND" };
    format!(
        "{findings}{sound}: {}: {} entries, {} payloads, {} rows; root {} recomputed from leaves",
        report.origin, report.size, report.payloads, report.rows, report.root
    )
}
