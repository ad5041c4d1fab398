//! `countersign log rebuild-views`: the rows by which entries are found, made anew.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;

use super::print;
use crate::{
    cli::Global,
    log::rebuild::{self, Rebuilt},
    server::succession::directories,
};

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(200);

/// Makes the rows by which entries are found anew, from leaves and payloads.
///
/// Needed once after an update that says so, and when fsck finds that the views are wrong. Tree, entries and proofs are
/// not touched. The service must be stopped. When it is interrupted, run it again: it goes on where it stopped; until it
/// is finished the service refuses to start.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign log rebuild-views --data /var/lib/countersign")]
pub(super) struct Args {
    /// The data directory that `countersign init` made.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let directories = directories(&args.data);
    let data = args.data.display();
    anyhow::ensure!(
        !directories.is_empty(),
        "there is no log in {data}; check the path, or make one with `countersign init`"
    );
    let (mut reports, mut texts) = (Vec::new(), Vec::new());
    for directory in directories {
        let started = Instant::now();
        let rebuilt = rebuild(directory).await?;
        texts.push(text(&rebuilt, started.elapsed()));
        reports.push(rebuilt);
    }
    print(global, &json!({ "logs": reports }), &texts.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn rebuild(directory: PathBuf) -> anyhow::Result<Rebuilt> {
    let shows_progress = io::stderr().is_terminal();
    let rebuilt = tokio::task::spawn_blocking(move || {
        let mut shown = Instant::now();
        rebuild::rebuild(&directory, |done, all| {
            if shows_progress && (done == all || shown.elapsed() > TICK) {
                shown = Instant::now();
                // Progress that cannot be shown is no reason to stop.
                drop(write!(io::stderr(), "\r{done} of {all} entries"));
            }
            ControlFlow::Continue(())
        })
    })
    .await
    .context("the rebuild was interrupted; run it again, it goes on where it stopped")?;
    if shows_progress {
        writeln!(io::stderr())?;
    }
    Ok(rebuilt?)
}

fn text(rebuilt: &Rebuilt, took: Duration) -> String {
    let resumed = if rebuilt.from > 0 { format!(", going on from entry {}", rebuilt.from) } else { String::new() };
    let missing = match rebuilt.missing {
        0 => String::new(),
        count => format!("; {count} payloads are MISSING, run `countersign log fsck`"),
    };
    let (origin, entries, rows) = (&rebuilt.origin, rebuilt.entries, rebuilt.rows);
    let seconds = took.as_secs_f64();
    format!("views of {origin} rebuilt: {entries} entries, {rows} rows{resumed}, in {seconds:.1} s{missing}")
}
