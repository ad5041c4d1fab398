//! `countersign sign`: files and images to bundles.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use serde_json::json;

use super::{Global, Output, client, print, subject::Subject};
use crate::{
    grpc::v1::{self, signing_service_client::SigningServiceClient},
    model::KeyName,
};

/// Signs files, digests or images; each signature is timestamped and logged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign sign --bundle tool.sigstore.json ./tool
  countersign sign --attach registry.example.com/shop/app:v1@sha256:…
  countersign sign --key release --bundle tool.sigstore.json ./tool")]
pub struct Args {
    /// Files, sha256:… digests, or image references with a digest.
    #[arg(required = true, value_name = "FILE|DIGEST|IMAGE")]
    pub subjects: Vec<String>,
    /// Sign with this managed key. Default: a key made for this call, certified for the caller.
    #[arg(long, value_name = "NAME")]
    pub key: Option<KeyName>,
    /// Attach each bundle to its image in the registry.
    #[arg(long)]
    pub attach: bool,
    /// Write the bundle to this file (one subject alone). Default: FILE.sigstore.json beside a file.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    if args.bundle.is_some() && args.subjects.len() > 1 {
        bail!("--bundle names one file: sign one subject at a time, or leave it out");
    }
    let mut client = SigningServiceClient::new(client::connect(global).await?);
    let mut all_attached = true;
    for text in &args.subjects {
        let subject = Subject::parse(text)?;
        let kind = match subject {
            Subject::File { .. } => v1::ArtifactKind::File,
            Subject::Digest(_) | Subject::Image { .. } => v1::ArtifactKind::Image,
        };
        let request = v1::SignRequest {
            subjects: vec![v1::Subject { name: subject.name(), digest: subject.digest().to_string() }],
            kind: kind.into(),
            attach: args.attach,
            key: args.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        };
        let signed = client.sign(request).await.map_err(client::explain)?.into_inner().bundles.pop();
        let signed = signed.context("the service answered without a bundle")?;
        let path = match (&args.bundle, &subject) {
            (Some(path), _) => Some(path.clone()),
            (None, Subject::File { name, .. }) => Some(PathBuf::from(format!("{name}.sigstore.json"))),
            _ => None,
        };
        all_attached &= report(global, text, &subject, &signed, path)?;
    }
    Ok(if all_attached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the bundle and says what was done; false when attaching failed.
pub(super) fn report(
    global: &Global,
    text: &str,
    subject: &Subject,
    signed: &v1::SignedBundle,
    path: Option<PathBuf>,
) -> anyhow::Result<bool> {
    if let Some(path) = &path {
        std::fs::write(path, &signed.bundle).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let entry = signed.entry.clone().unwrap_or_default();
    match global.output {
        Output::Json => print(&format!(
            "{}\n",
            json!({
                "subject": text,
                "digest": subject.digest(),
                "entry": { "origin": entry.origin, "index": entry.index },
                "bundle_file": path,
                "bundle": serde_json::from_slice::<serde_json::Value>(&signed.bundle)?,
                "attached": signed.attached,
                "attach_error": signed.attach_error,
            })
        ))?,
        Output::Text => {
            let mut out =
                format!("signed {text}\n  digest  {}\n  log     {}#{}\n", subject.digest(), entry.origin, entry.index);
            if let Some(path) = &path {
                out += &format!("  bundle  {}\n", path.display());
            }
            if !signed.attached.is_empty() {
                out += &format!("  attached as {}\n", signed.attached);
            }
            if !signed.attach_error.is_empty() {
                out += &format!(
                    "  NOT attached: {}\n  The signature is logged and valid; run the command again with --attach when the registry answers.\n",
                    signed.attach_error
                );
            }
            print(&out)?;
        }
    }
    Ok(signed.attach_error.is_empty())
}
