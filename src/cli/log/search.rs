//! `countersign log search`: entries by what they say.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use jiff::{Span, Timestamp, tz::TimeZone};
use serde_json::json;

use super::{Service, Which, client, connect, print, show::Shown};
use crate::{
    cli::Global,
    grpc::v1,
    model::{limits, policy::type_of_alias},
};

/// What an entry must be; all that is given must hold.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Which entries (all that is given must hold)")]
pub(super) struct Filter {
    /// It speaks about this digest, sha256:<hex>, or records it as signed.
    #[arg(long)]
    digest: Option<String>,
    /// A subject has this name, as in registry/repository:tag.
    #[arg(long)]
    name: Option<String>,
    /// A subject is in this repository, registry/repository, whatever the tag.
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,
    /// Its certificate names this e-mail address or URI; needs --issuer.
    #[arg(long, requires = "issuer")]
    identity: Option<String>,
    /// Its certificate names this issuer; without --identity, whomever it vouched for.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// A URI, or one of sign, slsaprovenance1, spdx, cyclonedx, vulns, test-result, vsa.
    #[arg(long, value_name = "TYPE")]
    predicate_type: Option<String>,
    /// It is a record about this service; needs --environment.
    #[arg(long, requires = "environment")]
    service: Option<String>,
    /// The environment of --service.
    #[arg(long, requires = "service")]
    environment: Option<String>,
    /// Its timestamp is this time or later: RFC 3339, or as long ago as 24h, 7d.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Its timestamp is earlier than this.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Filter {
    /// The message; none when nothing was given. `now` is what `24h` is counted from.
    pub(super) fn message(self, now: Timestamp) -> anyhow::Result<Option<v1::EntryFilter>> {
        let time = |flag: &str, text: Option<String>| {
            text.map(|text| when(&text, now).with_context(|| format!("{flag} {text:?}"))).transpose()
        };
        let (identity, issuer) = match (self.identity, self.issuer) {
            (Some(subject), issuer) => (Some(v1::SignerIdentity { subject, issuer: issuer.unwrap_or_default() }), None),
            (None, issuer) => (None, issuer),
        };
        let service = self
            .service
            .map(|service| v1::ServiceEnvironment { service, environment: self.environment.unwrap_or_default() });
        let filter = v1::EntryFilter {
            digest: self.digest,
            name: self.name,
            identity,
            issuer,
            predicate_type: self.predicate_type.map(|kind| type_of_alias(&kind).to_owned()),
            repository: self.repository,
            service,
            since: time("--since", self.since)?,
            until: time("--until", self.until)?,
        };
        Ok((filter != v1::EntryFilter::default()).then_some(filter))
    }
}

/// A time as RFC 3339, from itself or from how long ago it was.
fn when(text: &str, now: Timestamp) -> anyhow::Result<String> {
    if let Ok(ago) = text.parse::<Span>() {
        let then = now.to_zoned(TimeZone::UTC).checked_sub(ago).context("lies before all time")?;
        return Ok(then.timestamp().to_string());
    }
    let time: Timestamp =
        text.parse().context("is neither a time as in 2026-01-31T12:00:00Z nor as long ago as in 24h")?;
    Ok(time.to_string())
}

/// Finds entries, oldest first, and says up to which size of the log the answer is complete.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log search --digest sha256:9f86d0…
  countersign log search --repository registry.example.com/shop/app --predicate-type sign --since 7d --newest
  countersign log search --identity ci@example.com --issuer https://sso.example.com --limit 1000 -o json")]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Start at this index; with --newest, below it.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Newest first.
    #[arg(long)]
    newest: bool,
    #[command(flatten)]
    which: Which,
}

pub(super) async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let filter = args.filter.message(Timestamp::now())?;
    let mut log = connect(global, &args.which).await?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let found = collect(&mut log, filter, args.from, limit, args.newest).await?;
    let entries: Vec<_> = found.entries.iter().map(Shown::json).collect();
    let value = json!({ "entries": entries, "completeToSize": found.complete_to_size, "nextIndex": found.next,
        "withoutTime": found.without_time });
    let mut lines: Vec<_> = found.entries.iter().map(Shown::line).collect();
    let count = lines.len();
    let next = found.next.map_or_else(String::new, |next| format!("; more with --from {next}"));
    lines.push(format!("{count} entries; complete up to size {}{next}", found.complete_to_size));
    if found.without_time > 0 {
        lines.push(format!(
            "{} more would fit, but their time is not known; search without --since and --until to see them",
            found.without_time
        ));
    }
    print(global, &value, &lines.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// The pages of one search, together.
#[derive(Debug, Default)]
pub(super) struct Found {
    entries: Vec<Shown>,
    pub(super) complete_to_size: u64,
    next: Option<u64>,
    without_time: u64,
}

/// Asks for page after page until `limit` entries are there or there are no more.
async fn collect(
    log: &mut Service,
    filter: Option<v1::EntryFilter>,
    from: Option<u64>,
    limit: usize,
    newest_first: bool,
) -> anyhow::Result<Found> {
    let mut entries = Vec::new();
    let found = pages(log, filter, from, limit, newest_first, |summary| entries.push(Shown::told(summary))).await?;
    Ok(Found { entries, ..found })
}

/// The same, and hands each entry to `each` in place of keeping it.
pub(super) async fn pages(
    log: &mut Service,
    filter: Option<v1::EntryFilter>,
    from: Option<u64>,
    limit: usize,
    newest_first: bool,
    mut each: impl FnMut(v1::EntrySummary),
) -> anyhow::Result<Found> {
    let (mut found, mut count) = (Found { next: from, ..Found::default() }, 0_usize);
    loop {
        let left = limit.saturating_sub(count).min(limits::SEARCH_PAGE);
        let request = v1::SearchRequest {
            filter: filter.clone(),
            from_index: found.next,
            limit: u32::try_from(left).unwrap_or(u32::MAX),
            newest_first,
            with_summaries: true,
            origin: log.origin.clone(),
        };
        let page = log.client.search(request).await.map_err(client::explain)?.into_inner();
        if found.complete_to_size == 0 || !newest_first {
            // Newest first, what was appended since the first page lies before it.
            found.complete_to_size = page.complete_to_size;
        }
        found.without_time = found.without_time.saturating_add(page.without_time);
        count += page.summaries.len();
        page.summaries.into_iter().for_each(&mut each);
        let stuck = page.next_index.is_some() && page.next_index == found.next;
        anyhow::ensure!(!stuck, "the service answers with the same page again and again");
        found.next = page.next_index;
        match found.next {
            Some(next) if count < limit => progress(next)?,
            _ => return Ok(found),
        }
    }
}

/// Says on a terminal how far a long search has come.
fn progress(next: u64) -> io::Result<()> {
    if io::stderr().is_terminal() {
        write!(io::stderr(), "\rat index {next}  \r")?;
    }
    Ok(())
}
