//! `countersign copy`: an image with all its evidence, from one registry to another.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;

use super::{EXIT_USAGE, Global, Output, place::line, print};
use crate::{
    config::Config,
    model::{Digest, ImageRef},
    registry::{
        Registry, RegistryError,
        copy::{Copied, Found, Meter, Order},
    },
};

/// The exit code when it could not be told.
const UNKNOWN: u8 = 2;
/// Time between two lines of progress.
const TICK: Duration = Duration::from_millis(200);

/// Copy an image with all its evidence to another registry: promotion.
///
/// The image goes over as it is, with every platform (an index without one of them would have another digest, and no
/// signature is about that), then everything that refers to it or to one of its platforms
/// (signatures, provenance, SBOMs, and what refers to those), then cosign's legacy tags, and the tag last: by tag
/// nothing is visible at the destination that lacks its evidence. Digests stay, so signatures stay good. Asked again, it
/// sends only what is missing. The service is not asked, and nothing is verified here: see `countersign verify`.
///
/// Both registries are asked directly, with the credentials of docker's config.json and the registry settings of the
/// configuration.
///
/// Exit codes: 0 all copied, 1 something is definitely missing, 2 could not tell (a registry did not answer), 64 wrong
/// usage. The tag is set in the first case alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign copy registry.example.com/staging/app:v1 registry.example.com/production/app
  countersign copy staging.example.com/app@sha256:… production.example.com/app:v1.2.3
  countersign copy --plain-http localhost:5000 registry.example.com/app:v1 localhost:5000/app:v1 -o json")]
pub struct Args {
    /// The image: a tag (resolved once) or a digest.
    #[arg(value_name = "SRC")]
    source: String,
    /// Where it goes. Without a tag it gets that of SRC; where SRC has a digest alone, no tag is set.
    #[arg(value_name = "DST")]
    target: String,
    /// Copy cosign's legacy tags (.sig, .att, .sbom) too; --include-legacy=false leaves them.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = clap::ArgAction::Set)]
    include_legacy: bool,
    /// Speak plain HTTP to this host (with port, as in the image's name); may be given several times.
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
    /// Time allowed for all of it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,
}

/// What came of it, for machines.
#[derive(Serialize)]
struct Answer<'a> {
    complete: bool,
    source: String,
    target: String,
    digest: Digest,
    tag: Option<&'a str>,
    #[serde(flatten)]
    copied: &'a Copied,
}

/// What was asked for, understood.
struct Wish {
    source: ImageRef,
    target: ImageRef,
    /// The tag that DST names.
    tag: Option<String>,
}

impl Wish {
    fn parse(args: &Args) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<ImageRef>().map_err(|error| format!("{text:?}: {error}"));
        let (source, target) = (parse(&args.source)?, parse(&args.target)?);
        let named = args.target.split('@').next().and_then(|name| name.rsplit('/').next());
        let is_named = named.is_some_and(|name| name.contains(':'));
        let tag = match (is_named, target.digest) {
            (true, _) => target.tag.clone(),
            (false, Some(_)) => None,
            (false, None) => source.tag.clone(),
        };
        if let (Some(wanted), Some(given)) = (target.digest, source.digest)
            && wanted != given
        {
            return Err(format!(
                "DST names the digest {wanted} and SRC {given}: a copy has the digest of what it is of"
            ));
        }
        Ok(Self { source, target, tag })
    }

    fn order(&self, digest: Digest, legacy: bool) -> Order {
        let (from, to) = (self.source.name.clone(), self.target.name.clone());
        Order { from, digest, to, tag: self.tag.clone(), legacy }
    }

    /// Where the image is when all went well.
    fn place(&self, digest: Digest) -> ImageRef {
        ImageRef { name: self.target.name.clone(), tag: self.tag.clone(), digest: Some(digest) }
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let wish = match Wish::parse(&args) {
        Ok(wish) => wish,
        Err(problem) => return usage(&problem),
    };
    let mut settings = Config::load_from_process(global.config.as_deref(), None)?.registry;
    settings.plain_http.extend(args.plain_http.iter().cloned());
    let registry = tokio::task::spawn_blocking(move || Registry::new(settings)).await??;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    let digest = match registry.resolve(&wish.source, deadline).await {
        Ok(digest) => digest,
        Err(error) => return failed(global, &wish, &error),
    };
    if wish.target.digest.is_some_and(|wanted| wanted != digest) {
        return usage(&format!("SRC is {digest} now, and DST names another digest"));
    }
    let (order, meter) = (wish.order(digest, args.include_legacy), Arc::new(Meter::default()));
    let copying = registry.copy(&order, &meter, deadline);
    let outcome = if stderr().is_terminal() { watched(copying, &meter).await } else { copying.await };
    match outcome {
        Ok(copied) => report(global, &wish, digest, &copied),
        Err(error) => failed(global, &wish, &error),
    }
}

fn usage(problem: &str) -> anyhow::Result<ExitCode> {
    writeln!(stderr(), "usage: {}", line(problem))?;
    Ok(ExitCode::from(EXIT_USAGE))
}

/// The image itself was not copied.
fn failed(global: &Global, wish: &Wish, error: &RegistryError) -> anyhow::Result<ExitCode> {
    let definite = matches!(error, RegistryError::NotFound(_) | RegistryError::Malformed { .. });
    let why = line(&error.to_string());
    match global.output {
        Output::Json => print(&format!(
            "{}\n",
            json!({"complete": false, "source": wish.source.to_string(), "error": why, "definite": definite})
        ))?,
        Output::Text => {
            let (word, next) = if definite {
                ("NOT copied", "nothing was tagged")
            } else {
                ("could not tell", "nothing was tagged; run it again, and what is there is not sent twice")
            };
            writeln!(stderr(), "{word}: {}: {why}; {next}", wish.source)?;
        }
    }
    Ok(if definite { ExitCode::FAILURE } else { ExitCode::from(UNKNOWN) })
}

/// Shows how far it is while it runs.
async fn watched<T>(work: impl Future<Output = T>, meter: &Meter) -> T {
    let mut work = std::pin::pin!(work);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            outcome = &mut work => {
                drop(write!(stderr(), "\r\x1b[K"));
                return outcome;
            }
            _ = tick.tick() => drop(write!(stderr(), "\r\x1b[K{}", state(meter))),
        }
    }
}

fn state(meter: &Meter) -> String {
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    format!(
        "{} of {} blobs, {} of {}, {} artifacts of evidence",
        read(&meter.blobs_done),
        read(&meter.blobs),
        megabytes(read(&meter.bytes_done)),
        megabytes(read(&meter.bytes)),
        read(&meter.evidence)
    )
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.div_ceil(100_000);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

fn report(global: &Global, wish: &Wish, digest: Digest, copied: &Copied) -> anyhow::Result<ExitCode> {
    match global.output {
        Output::Json => {
            let answer = Answer {
                complete: copied.problems.is_empty(),
                source: wish.source.pinned(digest).to_string(),
                target: wish.place(digest).to_string(),
                digest,
                tag: wish.tag.as_deref(),
                copied,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?;
        }
        Output::Text => print(&text(wish, digest, copied))?,
    }
    Ok(if copied.problems.is_empty() {
        ExitCode::SUCCESS
    } else if copied.problems.iter().any(|problem| problem.definite) {
        ExitCode::FAILURE
    } else {
        ExitCode::from(UNKNOWN)
    })
}

fn text(wish: &Wish, digest: Digest, copied: &Copied) -> String {
    let verb = if copied.problems.is_empty() { "copied" } else { "copied in part" };
    let mut out = format!("{verb} {} to {}\n  digest    {digest}\n", wish.source, wish.target.name);
    out += &format!("  manifests {} sent, {} there before\n", copied.manifests_sent, copied.manifests_present);
    out += &format!(
        "  blobs     {} sent ({}), {} mounted, {} there before\n",
        copied.blobs_sent,
        megabytes(copied.bytes_sent),
        copied.blobs_mounted,
        copied.blobs_present
    );
    if copied.foreign_layers > 0 {
        out += &format!("            {} foreign layers stay where their URLs point\n", copied.foreign_layers);
    }
    for piece in &copied.evidence {
        let found = match piece.found {
            Found::Referrers => "in the referrers API",
            Found::FallbackTag => "at the fallback tag",
            Found::LegacyTag => "legacy tag",
        };
        let (kind, about) = (line(&piece.kind), piece.subject.short());
        out += &format!("  evidence  {} {kind} about {about} ({found})\n", piece.digest.short());
    }
    for gone in &copied.gone {
        out += &format!("  passed    {gone}: listed at the source, and not there\n");
    }
    match (&wish.tag, copied.tagged, copied.tag_before) {
        (Some(tag), true, Some(before)) => out += &format!("  tag       {tag}, which pointed at {before}\n"),
        (Some(tag), true, None) => out += &format!("  tag       {tag}\n"),
        (Some(tag), false, _) => out += &format!("  tag       {tag} NOT set, as something is missing\n"),
        (None, ..) => out += "  tag       none asked for\n",
    }
    for problem in &copied.problems {
        let word = if problem.definite { "NOT copied" } else { "could not tell" };
        out += &format!("{word}: {}: {}\n", line(&problem.what), line(&problem.why));
    }
    out
}
