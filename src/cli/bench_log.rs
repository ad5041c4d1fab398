//! The loads of `countersign bench log`: a log that already holds entries, callers from one to thousands, leaves of
//! several sizes; and what a large log costs: time to open, memory, bytes on disk, bytes written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Context as _;
use jiff::Timestamp;

use super::{
    bench::{Args, Measured, drive},
    bench_loads::{Scratch, half, saturation},
};
use crate::{
    keys::{Kek, Keyring},
    log::{Draft, Log, Options},
};

/// Entries appended at once while filling, and how many such requests are under way.
const FILL_AT_ONCE: u64 = 1_000;
const FILL_AHEAD: usize = 4;

/// A leaf of `size` bytes, different for every number. It has no payload: what is measured is the log.
fn draft(salt: i128, number: u64, size: usize) -> Draft {
    let mut leaf = format!("{{\"bench\":\"{salt}-{number}\",\"pad\":\"").into_bytes();
    leaf.resize(size.saturating_sub(2).max(leaf.len()), b'x');
    leaf.extend_from_slice(b"\"}");
    Draft { leaf, payload: Vec::new() }
}

fn open(path: &Path, keyring: &Keyring) -> anyhow::Result<Log> {
    let key = keyring.log_key();
    let public = key.public_key();
    Ok(Log::open(path, public, move |message| key.sign(message), Options::default())?)
}

/// Appends `entries` leaves of `size` bytes, as fast as the log takes them.
async fn append_many(log: &Log, entries: u64, size: usize) -> anyhow::Result<()> {
    let salt = Timestamp::now().as_nanosecond();
    let starts: Vec<u64> = (0..entries).step_by(usize::try_from(FILL_AT_ONCE)?).collect();
    for ahead in starts.chunks(FILL_AHEAD) {
        let requests = ahead.iter().map(|start| {
            let numbers = *start..entries.min(start + FILL_AT_ONCE);
            log.append(numbers.map(|number| draft(salt, number, size)).collect())
        });
        futures_util::future::try_join_all(requests).await?;
    }
    Ok(())
}

/// Fills the log of a stopped service.
pub(super) async fn fill(args: &Args) -> anyhow::Result<Measured> {
    let data = args.data.as_ref().context("name the stopped service's directory with --data")?;
    let kek = Kek::from_file(args.kek_file.as_ref().context("name the key-encryption key with --kek-file")?)?;
    let log = open(&data.join("log"), &Keyring::open(data, &kek)?)?;
    let started = Instant::now();
    append_many(&log, args.entries, *args.sizes.last().context("no --sizes")?).await?;
    log.close();
    let facts = vec![
        ("entries in the log".to_owned(), of(log.size())),
        ("seconds to fill".to_owned(), started.elapsed().as_secs_f64()),
    ];
    Ok(Measured { runs: Vec::new(), facts })
}

/// Opens the log of a stopped service, in a process that has done nothing else.
pub(super) fn weigh(args: &Args) -> anyhow::Result<Measured> {
    let data = args.data.as_ref().context("name the stopped service's directory with --data")?;
    let kek = Kek::from_file(args.kek_file.as_ref().context("name the key-encryption key with --kek-file")?)?;
    let keyring = Keyring::open(data, &kek)?;
    let before = resident_kib().unwrap_or(0);
    let started = Instant::now();
    let log = open(&data.join("log"), &keyring)?;
    let opened = started.elapsed().as_secs_f64();
    log.receipt(log.size() / 2)?;
    let memory = resident_kib().unwrap_or(0);
    log.close();
    let facts = vec![
        ("milliseconds to open".to_owned(), opened * 1_000.0),
        ("MiB of memory before opening".to_owned(), of(before) / 1024.0),
        ("MiB of memory after opening".to_owned(), of(memory) / 1024.0),
    ];
    Ok(Measured { runs: Vec::new(), facts })
}

/// Fills a log, weighs it, and then runs every number of callers with every size of leaf.
pub(super) async fn run(args: &Args) -> anyhow::Result<Measured> {
    let scratch = Scratch::new(&args.out)?;
    let keyring = scratch.keyring()?;
    let path = scratch.0.join("data").join("log");
    let key = keyring.log_key();
    Log::create(&path, keyring.host(), key.public_key(), |message| key.sign(message))?;
    let mut measured = Measured { facts: filled(args, &path, &keyring).await?, runs: Vec::new() };
    measured.facts.extend(weigh_in_process(&scratch)?);
    let log = open(&path, &keyring)?;
    for size in &args.sizes {
        loads(args, &log, *size, &mut measured).await?;
    }
    log.close();
    Ok(measured)
}

async fn loads(args: &Args, log: &Log, size: usize, measured: &mut Measured) -> anyhow::Result<()> {
    for callers in &args.callers {
        let call = |salt: i128| {
            let log = log.clone();
            move |number: u64| {
                let (log, draft) = (log.clone(), draft(salt, number, size));
                async move {
                    log.append(vec![draft]).await?;
                    Ok(())
                }
            }
        };
        let fsyncs = {
            let log = log.clone();
            move || log.stats().fsyncs
        };
        let mut best = drive(&saturation(args, *callers), &fsyncs, call(Timestamp::now().as_nanosecond())).await?;
        let mut at_half = drive(&half(args, &best, *callers), &fsyncs, call(Timestamp::now().as_nanosecond())).await?;
        best.label = format!("{size} B, {}", best.label);
        at_half.label = format!("{size} B, {callers} callers, {}", at_half.label);
        measured.runs.extend([best, at_half]);
    }
    Ok(())
}

/// Fills the log and says what that many entries cost on disk.
async fn filled(args: &Args, path: &Path, keyring: &Keyring) -> anyhow::Result<Vec<(String, f64)>> {
    let size = *args.sizes.last().context("no --sizes")?;
    let log = open(path, keyring)?;
    let (written, started) = (written_bytes(), Instant::now());
    append_many(&log, args.entries, size).await?;
    let seconds = started.elapsed().as_secs_f64();
    log.close();
    drop(log);
    let written = written_bytes().saturating_sub(written);
    let (entries, disk) = (of(args.entries.max(1)), of(bytes_in(path)?));
    Ok(vec![
        (format!("entries before, of {size} B"), of(args.entries)),
        ("seconds to fill, in requests of 1,000".to_owned(), seconds),
        ("bytes on disk for each entry".to_owned(), disk / entries),
        ("bytes written for each byte of leaf".to_owned(), of(written) / (entries * of(u64::try_from(size)?))),
    ])
}

/// [`weigh`] in a process of its own.
fn weigh_in_process(scratch: &Scratch) -> anyhow::Result<Vec<(String, f64)>> {
    let run = |flag: &str, path: PathBuf| [flag.to_owned(), path.display().to_string()];
    let status = Command::new(std::env::current_exe()?)
        .args(["bench", "weigh"])
        .args(run("--data", scratch.0.join("data")))
        .args(run("--kek-file", scratch.0.join("kek")))
        .args(run("--out", scratch.0.clone()))
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "the process that opens the log ended with {status}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(scratch.0.join("weigh.json"))?)?;
    let facts = json.get("facts").cloned().context("it measured nothing")?;
    Ok(serde_json::from_value::<std::collections::BTreeMap<String, f64>>(facts)?.into_iter().collect())
}

#[allow(clippy::as_conversions, clippy::cast_precision_loss, reason = "for people to read")]
const fn of(count: u64) -> f64 {
    count as f64
}

/// The value of a `name: value` line of a file in `/proc`.
fn proc_value(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes that this process sent to the disk so far.
fn written_bytes() -> u64 {
    proc_value("/proc/self/io", "write_bytes").unwrap_or(0)
}

fn resident_kib() -> Option<u64> {
    proc_value("/proc/self/status", "VmRSS")
}

/// Bytes on disk of everything in a directory.
fn bytes_in(path: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut total = 0;
    let mut directories = vec![PathBuf::from(path)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                directories.push(entry.path());
            } else {
                total += metadata.blocks() * 512;
            }
        }
    }
    Ok(total)
}
