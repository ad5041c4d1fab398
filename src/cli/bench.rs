//! `countersign bench`: a load generator for the budgets. Hidden: `scripts/bench` starts what it needs and calls it.
//!
//! Open loop: requests are due at fixed times whether or not earlier ones were answered, and latency counts from the
//! time a request was due, so a stall is charged to every request that it delayed. `saturation` runs are closed loops
//! with that many callers.

use std::{
    future::Future,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Serialize;

use super::{Global, bench_loads};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// `Sign` over gRPC.
    Sign,
    /// Durable appends to a log, in process.
    Log,
    /// Not a measurement: fills the log of a stopped service with entries.
    Fill,
    /// Opens the log of a stopped service: time and memory.
    Weigh,
    /// Offline verification of one bundle, in process.
    Verify,
    /// Admission reviews over HTTPS.
    Admission,
    /// Rollback checks over gRPC.
    Rollback,
}

/// Measures one capability and prints a table.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to measure.
    #[arg(value_enum)]
    pub subject: Subject,
    /// How long each load runs, in seconds.
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench")]
    pub out: PathBuf,
    /// The operations listener, for fsync counts.
    #[arg(long)]
    pub operations: Option<String>,
    /// The webhook's URL (`https://localhost:9443`), for admission.
    #[arg(long)]
    pub webhook: Option<String>,
    /// A signed image with its digest, for admission.
    #[arg(long)]
    pub image: Option<String>,
    /// `SERVICE@ENVIRONMENT`, for rollback.
    #[arg(long)]
    pub service: Option<String>,
    /// Entries that the log has before it is measured, or that it is filled with.
    #[arg(long, default_value_t = 1_000_000)]
    pub entries: u64,
    /// Sizes of the leaves for log, in bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [512, 1536])]
    pub sizes: Vec<usize>,
    /// Numbers of callers for log.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256, 4096])]
    pub callers: Vec<usize>,
    /// The data directory of the stopped service to fill.
    #[arg(long, requires = "kek_file")]
    pub data: Option<PathBuf>,
    /// Its key-encryption key.
    #[arg(long)]
    pub kek_file: Option<PathBuf>,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    pub label: String,
    pub throughput_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub fsyncs: u64,
    pub errors: u64,
}

/// What one capability came to.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub runs: Vec<Run>,
    /// Numbers beside the loads, each named with its unit.
    pub facts: Vec<(String, f64)>,
}

impl From<Vec<Run>> for Measured {
    fn from(runs: Vec<Run>) -> Self {
        Self { runs, facts: Vec::new() }
    }
}

/// How hard to push.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub label: String,
    pub callers: usize,
    /// Requests a second; none: as fast as the callers go.
    pub rate: Option<f64>,
    pub time: Duration,
}

/// Runs one load; `call(n)` makes the n-th request.
pub(super) async fn drive<C, F>(load: &Load, fsyncs: impl Fn() -> u64, call: C) -> anyhow::Result<Run>
where
    C: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let (call, next, errors) = (Arc::new(call), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let first_error = Arc::new(Mutex::new(None));
    let (before, started) = (fsyncs(), Instant::now());
    let ended = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..load.callers)
        .map(|_| {
            let (call, next, errors) = (Arc::clone(&call), Arc::clone(&next), Arc::clone(&errors));
            let (ended, first_error, rate, time) = (Arc::clone(&ended), Arc::clone(&first_error), load.rate, load.time);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !ended.load(Ordering::Relaxed) && started.elapsed() < time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = match rate {
                        #[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "a time, not a count")]
                        Some(rate) => started + Duration::from_secs_f64(number as f64 / rate),
                        None => Instant::now(),
                    };
                    if due > started + time {
                        break;
                    }
                    tokio::time::sleep_until(due.into()).await;
                    match call(number).await {
                        Ok(()) => latencies.push(due.elapsed()),
                        Err(error) => {
                            errors.fetch_add(1, Ordering::Relaxed);
                            first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for worker in workers {
        latencies.extend(worker.await.context("a caller was lost")?);
    }
    ended.store(true, Ordering::Relaxed);
    let elapsed = started.elapsed().as_secs_f64();
    if latencies.is_empty() {
        let error = first_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        bail!("no request of {:?} succeeded: {:?}", load.label, error);
    }
    latencies.sort_unstable();
    #[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people to read")]
    let throughput = latencies.len() as f64 / elapsed;
    Ok(Run {
        label: load.label.clone(),
        throughput_per_s: round(throughput),
        p50_ms: percentile(&latencies, 500),
        p99_ms: percentile(&latencies, 990),
        p999_ms: percentile(&latencies, 999),
        fsyncs: fsyncs().saturating_sub(before),
        errors: errors.load(Ordering::Relaxed),
    })
}

fn percentile(sorted: &[Duration], per_mille: usize) -> f64 {
    let at = (sorted.len() * per_mille / 1_000).min(sorted.len().saturating_sub(1));
    round(sorted.get(at).map_or(0.0, Duration::as_secs_f64) * 1_000.0)
}

fn round(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// The machine, in one line.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name").and_then(|rest| rest.split_once(": ")).map(|(_, name)| name.to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let memory = read("/proc/meminfo")
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .nth(1)
        .map_or(0, |kib| kib.parse::<u64>().unwrap_or(0) / 1024 / 1024);
    format!("{cpus} x {model}, {memory} GiB, load generator on the same machine")
}

/// Runs the loads, prints the table and writes the JSON.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let Measured { runs, facts } = bench_loads::run(&args, global).await?;
    let name = format!("{:?}", args.subject).to_lowercase();
    let mut table = format!(
        "{:<28} {:>12} {:>10} {:>10} {:>10} {:>9} {:>7}\n",
        name, "per second", "p50 ms", "p99 ms", "p99.9 ms", "fsyncs", "errors"
    );
    for run in &runs {
        table += &format!(
            "{:<28} {:>12.0} {:>10.3} {:>10.3} {:>10.3} {:>9} {:>7}\n",
            run.label, run.throughput_per_s, run.p50_ms, run.p99_ms, run.p999_ms, run.fsyncs, run.errors
        );
    }
    for (what, value) in &facts {
        table += &format!("{what:<44} {value:>12.1}\n");
    }
    super::print(&table)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let path = args.out.join(format!("{name}.json"));
    let json = serde_json::json!({ "name": name, "machine": machine(), "runs": runs,
        "facts": facts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>() });
    std::fs::write(&path, serde_json::to_vec_pretty(&json)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    super::print(&format!("written to {}\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
