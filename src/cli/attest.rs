//! `countersign attest`: signed statements about files and images.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};

use super::{Global, client, sign::report, subject::Subject};
use crate::{
    grpc::v1::{self, signing_service_client::SigningServiceClient},
    model::{KeyName, limits, predicate},
};

/// Signs a statement about a file, digest or image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Types: slsaprovenance1, spdx, cyclonedx, vuln, test-result, vsa, or any predicate type URI.

Examples:
  countersign attest --type slsaprovenance1 --predicate provenance.json --attach registry.example.com/shop/app@sha256:…
  countersign attest --type https://example.com/review/v1 --predicate review.json ./tool")]
pub struct Args {
    /// The predicate type: a short name or a URI.
    #[arg(long = "type", value_name = "TYPE")]
    pub predicate_type: String,
    /// File with the predicate, a JSON object.
    #[arg(long, value_name = "FILE")]
    pub predicate: PathBuf,
    /// A file, sha256:… digest, or image reference with a digest.
    #[arg(value_name = "FILE|DIGEST|IMAGE")]
    pub subject: String,
    /// Sign with this managed key. Default: a key made for this call, certified for the caller.
    #[arg(long, value_name = "NAME")]
    pub key: Option<KeyName>,
    /// Attach the bundle to the image in its registry.
    #[arg(long)]
    pub attach: bool,
    /// Write the bundle to this file.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

fn type_of(name: &str) -> anyhow::Result<&str> {
    Ok(match name {
        "slsaprovenance1" | "slsaprovenance" => predicate::SLSA_PROVENANCE,
        "spdx" | "spdxjson" => predicate::SPDX,
        "cyclonedx" => predicate::CYCLONEDX,
        "vuln" | "vulns" => predicate::VULNS,
        "test-result" => predicate::TEST_RESULT,
        "vsa" => predicate::VSA,
        uri if uri.contains(':') => uri,
        other => bail!(
            "{other:?} is no predicate type: give slsaprovenance1, spdx, cyclonedx, vuln, test-result, vsa, or a URI"
        ),
    })
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let predicate_type = type_of(&args.predicate_type)?;
    let size = std::fs::metadata(&args.predicate).map_or(0, |metadata| metadata.len());
    if size > u64::try_from(limits::STATEMENT)? {
        bail!("{} has {size} bytes; the limit is {}", args.predicate.display(), limits::STATEMENT);
    }
    let predicate =
        std::fs::read(&args.predicate).with_context(|| format!("cannot read {}", args.predicate.display()))?;
    let subject = Subject::parse(&args.subject)?;
    let request = v1::AttestRequest {
        subjects: vec![v1::Subject { name: subject.name(), digest: subject.digest().to_string() }],
        predicate_type: predicate_type.to_owned(),
        predicate: predicate.into(),
        attach: args.attach,
        key: args.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..Default::default()
    };
    let mut client = SigningServiceClient::new(client::connect(global).await?);
    let signed = client.attest(request).await.map_err(client::explain)?.into_inner().bundle;
    let signed = signed.context("the service answered without a bundle")?;
    let attached = report(global, &args.subject, &subject, &signed, args.bundle)?;
    Ok(if attached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
