//! `countersign log watch`: entries as they are recorded.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Service, Which, check, client, connect, search::Filter, show::Shown};
use crate::{
    cli::{Global, Output},
    grpc::v1,
};

/// The longest pause before the service is asked again, in seconds.
const LONGEST_PAUSE_S: u64 = 30;

/// Prints entries as they are recorded: one line, or one JSON object, for each.
///
/// When the service stops or the connection is lost it is asked again, from the next index on, so that nothing is missed
/// or repeated; when another log takes over, that one is watched. When the watch ends it says on standard error where
/// another one has to begin.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log watch
  countersign log watch --identity ci@example.com --issuer https://sso.example.com -o json
  countersign log watch --from 4711 --payload -o json | while read -r entry; do …; done")]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Begin at this index; otherwise with what is recorded from now on.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// End after so many entries.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Put the payload (the Sigstore bundle without log entry) into the JSON objects.
    #[arg(long)]
    payload: bool,
    /// End when the connection does, with exit code 2.
    #[arg(long)]
    no_retry: bool,
    #[command(flatten)]
    which: Which,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let filter = args.filter.clone().message(Timestamp::now())?;
    let mut log = connect(global, &args.which).await?;
    // By name: when another log takes over, this one is watched to its end first.
    let head = check::head(&mut log).await?;
    log.origin = head.origin;
    let mut watch = Watching {
        log,
        filter,
        next: args.from.unwrap_or(head.size),
        left: args.count.unwrap_or(u64::MAX),
        payload: args.payload,
        pause_s: 1,
    };
    tokio::select! {
        code = watch.run(global, args.no_retry) => code,
        // Nothing is left half done: every line was printed whole.
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

struct Watching {
    log: Service,
    filter: Option<v1::EntryFilter>,
    /// Where to go on.
    next: u64,
    /// How many are still wanted.
    left: u64,
    payload: bool,
    pause_s: u64,
}

impl Watching {
    async fn run(&mut self, global: &Global, no_retry: bool) -> anyhow::Result<ExitCode> {
        while let Some(ended) = self.follow(global).await? {
            if let Some(successor) = successor(&ended) {
                writeln!(io::stderr(), "{} is frozen; going on with {successor}", self.log.origin)?;
                (self.log.origin, self.next) = (successor, 0);
                continue;
            }
            let lasting = matches!(
                ended.code(),
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::Unimplemented
            );
            let origin = self.log.origin.clone();
            writeln!(io::stderr(), "{}; resume with --origin {origin} --from {}", client::explain(ended), self.next)?;
            if lasting || no_retry {
                return Ok(ExitCode::from(2));
            }
            tokio::time::sleep(Duration::from_secs(self.pause_s)).await;
            self.pause_s = (self.pause_s * 2).min(LONGEST_PAUSE_S);
            // A token may have been renewed meanwhile. The old connection is good for another attempt too.
            if let Ok(again) = connect(global, &Which { origin: Some(origin) }).await {
                self.log = again;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Follows one stream. `None` when enough was seen, else why it ended.
    async fn follow(&mut self, global: &Global) -> anyhow::Result<Option<Status>> {
        if self.left == 0 {
            return Ok(None);
        }
        let request = v1::WatchRequest {
            from_index: self.next,
            with_payload: self.payload,
            filter: self.filter.clone(),
            origin: self.log.origin.clone(),
        };
        let mut stream = match self.log.client.watch(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(Some(status)),
        };
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Some(Status::unavailable("the service ended the watch"))),
                Err(status) => return Ok(Some(status)),
            };
            self.pause_s = 1;
            if let Some(entry) = &message.entry {
                show(entry, message.summary.unwrap_or_default(), self.payload, global)?;
                self.left -= 1;
            }
            self.next = message.resume_index;
            if self.left == 0 {
                return Ok(None);
            }
        }
    }
}

/// The log that goes on where this one ended, if that is why the watch ended.
fn successor(ended: &Status) -> Option<String> {
    let mut info = ended.get_details_error_info().filter(|info| info.reason == "LOG_FROZEN")?;
    info.metadata.remove("successor")
}

fn show(entry: &v1::LogEntry, summary: v1::EntrySummary, payload: bool, global: &Global) -> io::Result<()> {
    let shown = Shown::told(summary);
    let mut out = io::stdout().lock();
    match global.output {
        Output::Text => writeln!(out, "{}", shown.line())?,
        Output::Json => {
            let mut object = shown.json();
            if payload {
                let payload = serde_json::from_slice(&entry.payload).unwrap_or(Value::Null);
                object.insert("payload".to_owned(), payload);
            }
            writeln!(out, "{}", Value::Object(object))?;
        }
    }
    // Whoever reads the pipe waits for this line, not for the buffer to fill.
    out.flush()
}
