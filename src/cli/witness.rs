//! `countersign witness`: makes a witness, runs it, and holds checkpoints against a witness policy.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf, absolute},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
};

use super::{Global, Output, init::KekArgs, print};
use crate::{
    keys::{Cosigner, Kek, KekSource},
    server::{Bounds, Certificates, Listener, Middleware, ServerTls, logging, plain},
    telemetry::Metrics,
    tlog::{LogKey, Policy, policy, witness::MOST_REQUEST},
    witness::{Witness, face},
};

/// Connections and requests under way; a witness is asked by a few logs.
const CONNECTIONS: usize = 1_024;
const UNDER_WAY: usize = 256;

/// Runs a witness: cosigns checkpoints of the logs named with --log (C2SP tlog-witness), and never two that contradict
/// each other. Make it with `countersign witness init`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:
  countersign witness init --data /var/lib/witness --name witness.example.com/w1 \\
    --kek-file /etc/witness/kek --generate-kek
  countersign witness --data /var/lib/witness --kek-file /etc/witness/kek --listen 127.0.0.1:7380 \\
    --log sign.example.com+cf119915+AbfK…
  countersign witness --data /var/lib/witness --kek-file /etc/witness/kek --listen 0.0.0.0:443 \\
    --tls-cert /etc/witness/tls.pem --tls-key /etc/witness/tls.key --log sign.example.com+cf119915+AbfK…
  countersign witness check --policy witnesses checkpoint

POST /add-checkpoint is answered with cosignatures; GET /<hex SHA-256 of the origin>/checkpoint shows the last one.
Keep the directory on a disk that keeps what it synced, and never restore an old copy of it: make a new witness instead."
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes a witness: its keys (Ed25519 and ML-DSA-44) and its empty memory.
    #[command(
        after_help = "Example:\n  countersign witness init --data /var/lib/witness --name witness.example.com/w1 \\\n    \
                      --kek-file /etc/witness/kek --generate-kek"
    )]
    Init(Init),
    /// Holds a checkpoint against a witness policy (C2SP tlog-policy): 0 accepted, 1 not, 2 could not tell.
    #[command(
        after_help = "Example:\n  curl -s https://sign.example.com/checkpoint | countersign witness check --policy witnesses -"
    )]
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Directory that `countersign witness init` made.
    // Optional in the type alone: the subcommands have no use for it.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Where the key-encryption key comes from.
    #[command(flatten)]
    kek: KekArgs,
    /// Address to listen on. Without TLS only a loopback address.
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Option<SocketAddr>,
    /// Verifier key of a log to watch, `origin+id+key`, as in `countersign log status`. Repeat for more.
    #[arg(long = "log", value_name = "VKEY", required = true, value_parser = log_key)]
    logs: Vec<LogKey>,
    /// PEM certificate chain, leaf first.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM private key of the leaf.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Directory to make; it must not exist yet, or be empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The witness's name: a URL without scheme, such as `witness.example.com/w1`. It can never change.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the key-encryption key comes from.
    #[command(flatten)]
    kek: KekArgs,
    /// Make a new random key-encryption key and write it to the file that --kek-file names.
    #[arg(long, requires = "kek_file", conflicts_with_all = ["kek_env", "kek_credential"])]
    generate_kek: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The policy: logs, witnesses, groups and the quorum.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The signed checkpoint; - for standard input.
    #[arg(value_name = "FILE")]
    checkpoint: PathBuf,
}

fn log_key(vkey: &str) -> Result<LogKey, String> {
    LogKey::parse(vkey).map_err(|source| format!("{source}; a log's key is Ed25519 (0x01) or ML-DSA-44 (0x06)"))
}

/// Runs the command.
///
/// # Errors
/// Says what could not be made, opened or read.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match (args.command, args.serve) {
        (Some(Command::Init(args)), _) => init(&args, global),
        (Some(Command::Check(args)), _) => check(&args, global).or_else(|error| {
            eprintln!("countersign: {error:#}");
            Ok(ExitCode::from(2))
        }),
        (None, args) => serve(args).await,
    }
}

fn init(args: &Init, global: &Global) -> anyhow::Result<ExitCode> {
    let data = absolute(&args.data).with_context(|| format!("cannot use {}", args.data.display()))?;
    match std::fs::read_dir(&data) {
        Ok(mut entries) => ensure!(
            entries.next().is_none(),
            "{} is not empty, and init never writes over anything; choose another --data, or remove it if an earlier init \
             did not finish",
            data.display()
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot use {}", data.display())),
    }
    let source = args.kek.source()?;
    let kek = match &source {
        KekSource::File(file) if file.starts_with(&data) => bail!(
            "the key-encryption key must not lie in the directory that it protects; choose a --kek-file outside {}",
            data.display()
        ),
        KekSource::File(file) if args.generate_kek => Kek::generate_to_file(file)?,
        _ => source.load()?,
    };
    Cosigner::create(&data, &kek, &args.name, Timestamp::now())?;
    Witness::create(&data)?;
    let cosigner = Cosigner::open(&data, &kek)?;
    let [ed25519, ml_dsa_44] = cosigner.keys().each_ref().map(crate::tlog::CosignerKey::vkey);
    let text = format!("{ed25519}\n{ml_dsa_44}\n");
    let path = data.join("vkeys");
    let written = std::fs::File::create_new(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    match global.output {
        Output::Json => {
            let made = json!({"data": data, "name": args.name, "kek": source.to_string(), "ed25519": ed25519,
                "mlDsa44": ml_dsa_44});
            print(&format!("{made:#}\n"))?;
        }
        Output::Text => print(&format!(
            "Made the witness {name} in {data}:\n  keys  {data}/keys, sealed with the key-encryption key from {source}\n  \
             vkeys {data}/vkeys: Ed25519 and ML-DSA-44, either stands for the witness\n\nFor the policy of logs and \
             verifiers (one of the two keys):\n  witness w1 {ed25519} https://HOST\n\nNext:\n  countersign witness --data \
             {data} … --listen 127.0.0.1:7380 --log VKEY\n",
            name = args.name,
            data = data.display(),
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Serve) -> anyhow::Result<ExitCode> {
    let (Some(data), Some(listen)) = (&args.data, args.listen) else {
        bail!("say which directory and which logs: `countersign witness --help` has examples")
    };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => {
            let files = Certificates::Files { chain: chain.clone(), key: key.clone() };
            Some(Arc::new(ServerTls::new(files, &[])?))
        }
        _ if listen.ip().is_loopback() => None,
        _ => bail!("{listen} is not a loopback address, and there is no TLS; give --tls-cert and --tls-key"),
    };
    let kek = args.kek.source()?.load().context("the key-encryption key cannot be had")?;
    let witness = Arc::new(Witness::open(data, Cosigner::open(data, &kek)?, args.logs)?);
    logging::start();
    let bounds = Bounds {
        connections: CONNECTIONS,
        header_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(25),
    };
    let listener = Listener::bind("witness", listen, tls.clone(), bounds).await.map_err(|error| {
        anyhow!("cannot listen on {listen}: {}; free it, or give another --listen", error.root_cause())
    })?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    eprintln!("listening: witness {scheme}://{}", listener.address());
    for (origin, size) in witness.sizes() {
        tracing::info!(witness = witness.cosigner().name(), origin, size, "watching");
    }
    let middleware = Middleware {
        door: "witness",
        metrics: Metrics::new(),
        authenticate: None,
        body: MOST_REQUEST,
        under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        refuse: plain,
        clock: Timestamp::now,
    };
    let router = middleware.wrap(face::router(witness, Timestamp::now));
    let (stop, stopped) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    if let Some(tls) = tls {
        tokio::spawn(tls.watch(Duration::from_secs(10), Timestamp::now, stopped.clone()));
    }
    let served = tokio::spawn(listener.serve(router, stopped));
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot listen for SIGINT")?,
    }
    stop.send_replace(true);
    served.await?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Check, global: &Global) -> anyhow::Result<ExitCode> {
    let policy = Policy::parse(&read(&args.policy)?).with_context(|| format!("in {}", args.policy.display()))?;
    let note = read(&args.checkpoint)?;
    let (value, text, code) = match policy.check(&note) {
        Ok(witnessed) => {
            let checkpoint = witnessed.checkpoint();
            let by: Vec<_> =
                witnessed.cosigned().iter().map(|(name, time)| json!({"witness": name, "time": time})).collect();
            let names: Vec<&str> = witnessed.cosigned().iter().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            let text = format!(
                "ACCEPTED: {} of {} entries meets the quorum {}, cosigned by {names}\n",
                checkpoint.origin,
                checkpoint.size,
                policy.quorum()
            );
            let value = json!({"accepted": true, "origin": checkpoint.origin, "size": checkpoint.size,
                "root": hex::encode(checkpoint.root), "quorum": policy.quorum(), "cosigned": by});
            (value, text, ExitCode::SUCCESS)
        }
        Err(denial) => {
            let value = json!({"accepted": false, "reason": denial.to_string()});
            (value, format!("NOT ACCEPTED: {denial}\n"), ExitCode::from(1))
        }
    };
    match global.output {
        Output::Json => print(&format!("{value:#}\n"))?,
        Output::Text => print(&text)?,
    }
    Ok(code)
}

/// Reads a text of bounded length, from standard input for `-`.
fn read(path: &Path) -> anyhow::Result<String> {
    let limit = u64::try_from(policy::MOST_BYTES)?;
    let file: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(text.len() <= policy::MOST_BYTES, "{} is longer than {limit} bytes", path.display());
    Ok(text)
}
