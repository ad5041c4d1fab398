//! `countersign trust`: the public side of the keys, their rotation, the TUF repository, and client certificates for mutual
//! TLS.

mod rotate;
mod status;
mod tuf;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::json;

use super::{Global, Output, client, init::KekArgs};
use crate::{
    grpc::v1::{GetClientTrustConfigRequest, GetTrustedRootRequest, trust_service_client::TrustServiceClient},
    keys::{Keyring, Public},
};

/// Trust material: the trusted root, the clients' configuration, rotation of keys, what expires, client certificates.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands below `trust`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Write the trusted root (Sigstore, v0.1), or with --client-config the whole configuration of a client.
    #[command(after_help = "Example:\n  countersign trust export --client-config --out trust.json\n  \
                            sigstore --trust-config trust.json verify identity --offline …")]
    Export(Export),
    /// Show names, keys with their windows, the TUF repository, and what will expire.
    #[command(after_help = "Example:\n  countersign trust status -o json")]
    Status,
    /// Put a new key in the place of one that signs, without a pause. Old and new signatures verify. Needs the role admin.
    #[command(after_help = rotate::EXAMPLES)]
    Rotate(rotate::Args),
    /// Keep the TUF root key offline, and sign the next root with it.
    #[command(subcommand)]
    Tuf(tuf::Command),
    /// Issue a client certificate for mutual TLS from the local authority: NAME.pem and NAME.key.
    #[command(
        after_help = "Example:\n  countersign trust issue-client spiffe://example.org/build --data /var/lib/countersign \\\n    \
                            --kek-file /etc/countersign/kek --out . --days 30"
    )]
    IssueClient(IssueClient),
}

/// Arguments of `trust export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The trusted root and the signing configuration in one document, which sigstore-python takes.
    #[arg(long)]
    pub client_config: bool,
    /// Where clients will find the instance. Default: what the service is configured with; offline, the host name.
    #[arg(long, value_name = "URL", requires = "client_config")]
    pub base_url: Option<String>,
    /// Read from this data directory instead of asking the service.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// File to write. Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `trust issue-client`.
#[derive(Debug, clap::Args)]
pub struct IssueClient {
    /// SPIFFE ID, such as `spiffe://example.org/build`, or DNS name of the client.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the key-encryption key comes from.
    #[command(flatten)]
    pub kek: KekArgs,
    /// Directory for certificate and key.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How long the certificate is valid, in days.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=825))]
    pub days: u16,
}

/// Runs the command.
///
/// # Errors
/// Says what could not be read, written or asked.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Export(args) => export(args, global).await?,
        Command::Status => status::run(global).await?,
        Command::Rotate(args) => rotate::run(args, global).await?,
        Command::Tuf(command) => tuf::run(command, global).await?,
        Command::IssueClient(args) => issue_client(&args, global)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn export(args: Export, global: &Global) -> anyhow::Result<()> {
    let document = match &args.data {
        Some(data) => offline(data, &args)?.into_bytes(),
        None => ask(&args, global).await?,
    };
    match &args.out {
        Some(path) => fs::write(path, document).with_context(|| format!("cannot write {}", path.display())),
        None => Ok(std::io::stdout().write_all(&document)?),
    }
}

fn offline(data: &Path, args: &Export) -> anyhow::Result<String> {
    let public = Public::open(data)?;
    if !args.client_config {
        return Ok(public.trusted_root());
    }
    let own = format!("https://{}", public.host());
    Ok(public.client_trust_config(args.base_url.as_deref().unwrap_or(&own)))
}

async fn ask(args: &Export, global: &Global) -> anyhow::Result<Vec<u8>> {
    let mut service = TrustServiceClient::new(client::connect(global).await?);
    if args.client_config {
        let base_url = args.base_url.clone().unwrap_or_default();
        let reply = service.get_client_trust_config(GetClientTrustConfigRequest { base_url }).await;
        return Ok(reply.map_err(client::explain)?.into_inner().client_trust_config.to_vec());
    }
    let reply = service.get_trusted_root(GetTrustedRootRequest {}).await;
    Ok(reply.map_err(client::explain)?.into_inner().trusted_root.to_vec())
}

fn issue_client(args: &IssueClient, global: &Global) -> anyhow::Result<()> {
    let kek = args.kek.source()?.load()?;
    let keys = Keyring::open(&args.data, &kek)?;
    let (certificate, key) = keys.issue_client(&args.name, Timestamp::now(), args.days)?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let stem = file_stem(&args.name);
    let (cert_file, key_file) = (args.out.join(format!("{stem}.pem")), args.out.join(format!("{stem}.key")));
    write_new(&key_file, 0o600, key.as_bytes())?;
    write_new(&cert_file, 0o644, certificate.as_bytes())?;
    let mut out = std::io::stdout();
    if global.output == Output::Json {
        writeln!(out, "{:#}", json!({"name": args.name, "cert": cert_file, "key": key_file, "days": args.days}))?;
        return Ok(());
    }
    writeln!(out, "Made {} and {}, valid for {} days.", cert_file.display(), key_file.display(), args.days)?;
    writeln!(out, "Give {} a role by a rule in [identity], then call with:", args.name)?;
    writeln!(
        out,
        "  countersign --client-cert {} --client-key {} --ca-file {} …",
        cert_file.display(),
        key_file.display(),
        args.data.join("keys/tls-ca.pem").display()
    )?;
    Ok(())
}

/// The client's name as a file name: `spiffe://example.org/build` becomes `example.org-build`.
fn file_stem(name: &str) -> String {
    name.trim_start_matches("spiffe://").replace('/', "-")
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
