//! `countersign log backup|restore|erase|freeze`: what copies or changes the log as a whole.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{Global, Output, client, log_mirror::Mirror};
use crate::{
    grpc::v1::{self, backup_response::Part, log_admin_service_client::LogAdminServiceClient},
    log::{
        audit,
        backup::{CatchUp, Directory, Restored, restore},
    },
};

/// The commands below `log` that need the role admin, or a stopped service.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Copy the log while it goes on, and audit the copy. Needs the role admin.
    #[command(after_help = "Example:\n  countersign log backup --out /backup/log-$(date +%F)\n\n\
                            A backup does not open as a log: `countersign log restore` makes one of it.")]
    Backup {
        /// Directory to make.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Do not audit the copy: only its head is checked.
        #[arg(long)]
        quick: bool,
    },
    /// Make a backup, or a log directory that was copied or moved, the log of a stopped service.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Restore),
    /// Erase the payload of an entry, say because it holds personal data. Its leaf and every proof stay. Needs the role
    /// admin.
    #[command(
        after_help = "Example:\n  countersign log erase 1207 --reason 'request 88 under data protection law'\n\n\
                            A Sigstore leaf holds the whole signing certificate, with the signer's name, and cannot be \
                            erased.\nBackups made before still hold the payload."
    )]
    Erase {
        /// The entry's index.
        index: u64,
        /// Why. It is recorded in the log and stays: name no person here.
        #[arg(long)]
        reason: String,
        /// The log, where the instance has more than one. Default: the present one.
        #[arg(long, value_name = "HOST")]
        origin: Option<String>,
    },
    /// Freeze the log at its last checkpoint and go on with a new one under another name, without a pause. Needs the
    /// role admin.
    #[command(after_help = "Example:\n  countersign log freeze --successor log2.example.org\n\n\
                            Before: let the new name lead to this service, and add it to [tls] names. After: clients need \
                            the new trusted root;\nold bundles and receipts stay valid.")]
    Freeze {
        /// The new log's origin: a host name that no earlier log has.
        #[arg(long, value_name = "HOST")]
        successor: String,
    },
}

const RESTORE_EXAMPLES: &str = "\
Examples:
  # a backup, and the newest checkpoint that a witness or a client holds: nothing was recorded after the backup
  countersign log restore --data /var/lib/countersign --backup /backup/log --checkpoint newest.txt
  # the backup is older: the missing entries come from another copy, or from a mirror of the tiles
  countersign log restore --data /var/lib/countersign --backup /backup/log --from /mnt/old-disk/countersign/log
  countersign log restore --data /var/lib/countersign --backup /backup/log --from https://mirror.example.org
  # the whole data directory was moved to another disk while the service was stopped
  countersign log restore --data /var/lib/countersign --nothing-newer-unsafe

Why it asks: a log that goes on from an older copy contradicts what it signed before. Nobody can then tell the two apart,
and every verifier that notices must stop trusting the log.";

/// Arguments of `log restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The data directory. Its service must be stopped.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The backup to take. Default: the log that stands in the data directory.
    #[arg(long, value_name = "DIR")]
    backup: Option<PathBuf>,
    /// The newest signed checkpoint of this log that is known anywhere.
    #[arg(long, value_name = "FILE", group = "how")]
    checkpoint: Option<PathBuf>,
    /// Another copy of the log's directory, or the URL of its tiles, that has what is missing. Tiles have no payloads.
    #[arg(long, value_name = "DIR|URL", group = "how")]
    from: Option<String>,
    /// I know that nothing was recorded after the copy was made. If that is wrong, the log forks.
    #[arg(long, group = "how")]
    nothing_newer_unsafe: bool,
}

/// Runs the command.
pub(super) async fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Backup { out, quick } => backup(&out, quick, global).await,
        Command::Restore(args) => {
            let global = global.clone();
            let runtime = tokio::runtime::Handle::current();
            tokio::task::spawn_blocking(move || restore_log(&args, &global, &runtime)).await?
        }
        Command::Erase { index, reason, origin } => {
            let request = v1::ErasePayloadRequest { origin: origin.unwrap_or_default(), index, reason };
            let mut service = LogAdminServiceClient::new(client::connect(global).await?);
            let entry = service.erase_payload(request).await.map_err(client::explain)?.into_inner().entry;
            super::place::recorded(global, &format!("the erasure of the payload of entry {index}"), entry)
        }
        Command::Freeze { successor } => {
            let request = v1::FreezeRequest { successor: successor.clone() };
            let mut service = LogAdminServiceClient::new(client::connect(global).await?);
            let frozen = service.freeze(request).await.map_err(client::explain)?.into_inner();
            let text = format!(
                "the log is frozen at\n\n{}\n{successor} takes its place\n  verifier key  {}\nGive clients the new \
                 trusted root: countersign trust export",
                frozen.last_checkpoint, frozen.verifier_key
            );
            let value = json!({ "lastCheckpoint": frozen.last_checkpoint, "origin": successor,
                "verifierKey": frozen.verifier_key });
            print(global, &value, &text)
        }
    }
}

fn print(global: &Global, value: &serde_json::Value, text: &str) -> anyhow::Result<ExitCode> {
    match global.output {
        Output::Json => writeln!(io::stdout(), "{value}")?,
        Output::Text => writeln!(io::stdout(), "{text}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a path that the service sends stays inside the copy: a file name, or `db/` and a file name.
fn is_inside(path: &str) -> bool {
    let name = path.strip_prefix("db/").unwrap_or(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

async fn backup(out: &Path, quick: bool, global: &Global) -> anyhow::Result<ExitCode> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut service = LogAdminServiceClient::new(client::connect(global).await?);
    let mut parts = service.backup(v1::BackupRequest {}).await.map_err(client::explain)?.into_inner();
    let make = |path: &Path| {
        fs::DirBuilder::new().mode(0o700).create(path).with_context(|| format!("cannot make {}", path.display()))
    };
    make(out)?;
    make(&out.join("db"))?;
    let (mut head, mut received, mut open): (_, u64, Option<(String, fs::File)>) = (None, 0, None);
    while let Some(message) = parts.message().await.map_err(client::explain)? {
        match message.part.context("the service sent an empty message")? {
            Part::Head(first) => head = Some(first),
            Part::Piece(piece) => {
                if !is_inside(&piece.path) {
                    bail!("the service sent a file named {:?}, which is none of a backup", piece.path);
                }
                if open.as_ref().is_none_or(|(path, _)| *path != piece.path) {
                    finish(open.take())?;
                    open = Some((piece.path.clone(), create(&out.join(&piece.path))?));
                }
                if let Some((_, file)) = &mut open {
                    file.write_all(&piece.content)?;
                }
                received += u64::try_from(piece.content.len())?;
                let all = head.as_ref().map_or(0, |head| head.bytes);
                progress("received", received / 1024, all / 1024, "KiB");
            }
        }
    }
    finish(open)?;
    end_progress();
    let head = head.context("the service sent nothing")?;
    let mut text = format!("{}: {} entries of {}", out.display(), head.size, head.origin);
    if !quick {
        let copied = out.to_owned();
        let audited = tokio::task::spawn_blocking(move || {
            audit::fsck(&copied, |done, all| progress("audited", done, all, "entries"))
        })
        .await?;
        end_progress();
        let report = audited.context("the copy cannot be audited")?;
        if !report.is_sound() {
            bail!("the copy is NOT SOUND: {}", report.findings.join("; "));
        }
        text += &format!(", audited: root {} at {}", report.root, report.size);
    }
    let value = json!({ "backup": out, "origin": head.origin, "size": head.size, "checkpoint": head.checkpoint,
        "bytes": received, "audited": !quick });
    print(global, &value, &text)
}

fn create(path: &Path) -> anyhow::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    created.with_context(|| format!("cannot write {}", path.display()))
}

fn finish(open: Option<(String, fs::File)>) -> anyhow::Result<()> {
    match open {
        Some((path, file)) => file.sync_all().with_context(|| format!("cannot write {path}")),
        None => Ok(()),
    }
}

/// Shows how far long work is, on a terminal.
fn progress(what: &str, done: u64, all: u64, unit: &str) {
    if io::stderr().is_terminal() && (done == all || done.is_multiple_of(1_024)) {
        // Progress that cannot be shown is no reason to stop.
        drop(write!(io::stderr(), "\r{what} {done} of {all} {unit}"));
    }
}

fn end_progress() {
    if io::stderr().is_terminal() {
        drop(writeln!(io::stderr()));
    }
}

fn restore_log(args: &Restore, global: &Global, runtime: &tokio::runtime::Handle) -> anyhow::Result<ExitCode> {
    let dir = args.data.join("log");
    let checkpoint = args.checkpoint.as_ref().map(|path| {
        fs::read_to_string(path).with_context(|| format!("cannot read the checkpoint in {}", path.display()))
    });
    let checkpoint = checkpoint.transpose()?;
    if checkpoint.is_none() && args.from.is_none() && !args.nothing_newer_unsafe {
        bail!(
            "say how the copy catches up: --checkpoint, --from or --nothing-newer-unsafe; see `countersign log restore \
             --help`"
        );
    }
    if let Some(backup) = &args.backup {
        take(backup, &dir)?;
    }
    let restored = if let Some(note) = &checkpoint {
        restore(&dir, CatchUp::Checkpoint(note))
    } else if let Some(from) = &args.from {
        if from.starts_with("https://") || from.starts_with("http://") {
            restore(&dir, CatchUp::Source(&mut Mirror::new(from, global.ca_file.as_deref(), runtime.clone())?))
        } else {
            restore(&dir, CatchUp::Source(&mut Directory::open(Path::new(from))?))
        }
    } else {
        restore(&dir, CatchUp::NothingNewerUnsafe)
    };
    let Restored { head, added } = restored?;
    let text = format!(
        "{} holds {} entries, {added} of them caught up with; the service can be started",
        dir.display(),
        head.size
    );
    print(
        global,
        &json!({ "log": dir, "size": head.size, "added": added, "checkpoint": head.checkpoint.as_ref() }),
        &text,
    )
}

/// Copies a backup to where the log belongs. What is there already is never overwritten.
fn take(backup: &Path, dir: &Path) -> anyhow::Result<()> {
    if dir.exists() {
        bail!("{} exists already; move it away first, and keep it until the restored log runs", dir.display());
    }
    let making = dir.with_extension("restoring");
    if making.exists() {
        fs::remove_dir_all(&making).with_context(|| format!("cannot remove {}", making.display()))?;
    }
    for (from, to) in [(backup.to_owned(), making.clone()), (backup.join("db"), making.join("db"))] {
        use std::os::unix::fs::DirBuilderExt as _;
        fs::DirBuilder::new().mode(0o700).create(&to).with_context(|| format!("cannot make {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("cannot read the backup {}", from.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let target = to.join(entry.file_name());
                fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
                fs::File::open(&target)?.sync_all()?;
            }
        }
        fs::File::open(&to)?.sync_all()?;
    }
    fs::rename(&making, dir).with_context(|| format!("cannot rename {}", making.display()))
}
