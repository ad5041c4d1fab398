//! `countersign trust tuf`: the TUF root key offline.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use super::write_new;
use crate::{
    cli::{Global, Output, client, init::KekArgs},
    grpc::v1::{GetStatusRequest, PublishTufRootRequest, trust_service_client::TrustServiceClient},
    keys::{TufRoot, bring_tuf_root_back, take_tuf_root_offline},
    model::tuf::{Kind, Metadata, canonical, renewed_root},
};

/// The commands below `trust tuf`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Move the TUF root key out of the data directory, into a file to carry away. The service goes on.
    #[command(after_help = "Example:\n  countersign trust tuf take-root-offline --data /var/lib/countersign \\\n    \
                      --kek-file /etc/countersign/kek --out /media/stick/tuf-root.json\n\n\
                      The file is sealed with the key-encryption key: whoever signs with it needs both. Without it everything \
                      goes on but a new root: one is\nneeded to rotate the online key (`trust rotate tuf`), and once in ten years.")]
    TakeRootOffline {
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where the key-encryption key comes from.
        #[command(flatten)]
        kek: KekArgs,
        /// File to make, outside of the data directory.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Put the TUF root key back into the data directory.
    BringRootBack {
        /// The data directory.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Where the key-encryption key comes from.
        #[command(flatten)]
        kek: KekArgs,
        /// The file that take-root-offline made. It stays where it is.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign the next root with the key in a file: the same keys, for another ten years.
    #[command(after_help = "Examples:\n  # where the service can be reached: fetched, signed, and handed in\n  \
                      countersign trust tuf sign-root --key tuf-root.json --kek-file kek\n  \
                      # where nothing can be reached; then, elsewhere: countersign trust tuf publish-root next.json\n  \
                      countersign trust tuf sign-root --key tuf-root.json --kek-file kek --root root.json --out next.json")]
    SignRoot {
        /// The file that take-root-offline made.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Where the key-encryption key comes from.
        #[command(flatten)]
        kek: KekArgs,
        /// The present root (`/tuf/root.json` of the service). Default: the service is asked for it.
        #[arg(long, value_name = "FILE", requires = "out")]
        root: Option<PathBuf>,
        /// File to make. Default: the service is handed the new root, which needs the role admin.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Hand a root to the service that sign-root made. Needs the role admin.
    PublishRoot {
        /// The new root.
        #[arg(value_name = "FILE")]
        root: PathBuf,
    },
}

/// Runs the command.
pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::TakeRootOffline { data, kek, out } => {
            take_tuf_root_offline(&data, &kek.source()?.load()?, &out)?;
            say(
                global,
                &json!({ "file": out }),
                &format!(
                    "The TUF root key is in {} and no longer in {}. Keep two copies of the file, each away from the \
                     key-encryption key.",
                    out.display(),
                    data.display()
                ),
            )
        }
        Command::BringRootBack { data, kek, key } => {
            bring_tuf_root_back(&data, &kek.source()?.load()?, &key)?;
            let text = format!("The TUF root key is in {} again; the file was left as it is.", data.display());
            say(global, &json!({ "data": data }), &text)
        }
        Command::SignRoot { key, kek, root, out } => {
            let signer = TufRoot::from_file(&key, &kek.source()?.load()?)?;
            let present = match &root {
                Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
                None => ask(global).await?,
            };
            let next = sign(&signer, &present, Timestamp::now())?;
            let Some(out) = out else { return publish(next.bytes(), global).await };
            write_new(&out, 0o644, next.bytes())?;
            let text = format!(
                "Root {} is in {}, good until {}. Hand it in with:\n  countersign trust tuf publish-root {}",
                next.version(),
                out.display(),
                next.expires(),
                out.display()
            );
            say(global, &json!({ "file": out, "version": next.version(), "expires": next.expires() }), &text)
        }
        Command::PublishRoot { root } => publish(&read(&root)?, global).await,
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The root after `present`.
fn sign(signer: &TufRoot, present: &[u8], now: Timestamp) -> anyhow::Result<Metadata> {
    let present = Metadata::parse(present).context("that is not the present root")?;
    let body = renewed_root(&present, Kind::Root.expires(now)?)?;
    let signatures = signer.sign(&canonical(&body)?, &present.keys_of(Kind::Root)?)?;
    let next = Metadata::new(body, signatures)?;
    if let Err(problem) = next.may_follow(&present, now) {
        bail!("the new root would not be accepted: {problem}");
    }
    Ok(next)
}

async fn ask(global: &Global) -> anyhow::Result<Vec<u8>> {
    let mut service = TrustServiceClient::new(client::connect(global).await?);
    let status = service.get_status(GetStatusRequest {}).await.map_err(client::explain)?.into_inner();
    let root = status.tuf.map(|tuf| tuf.root).filter(|root| !root.is_empty());
    Ok(root.context("the service has no TUF root yet; its log says why")?.to_vec())
}

async fn publish(root: &[u8], global: &Global) -> anyhow::Result<()> {
    let mut service = TrustServiceClient::new(client::connect(global).await?);
    let request = PublishTufRootRequest { root: root.to_vec().into() };
    let done = service.publish_tuf_root(request).await.map_err(client::explain)?.into_inner().root;
    let done = done.context("the service did not say which root it took")?;
    let at = done.expires.context("the service sent no time")?;
    let expires = Timestamp::new(at.seconds, at.nanos)?;
    let text = format!("Root {} is served, good until {expires}; clients follow by themselves.", done.version);
    say(global, &json!({ "version": done.version, "expires": expires }), &text)
}

fn say(global: &Global, value: &serde_json::Value, text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match global.output {
        Output::Json => writeln!(out, "{value:#}")?,
        Output::Text => writeln!(out, "{text}")?,
    }
    Ok(())
}
