//! `countersign log issued`: the certificates that were issued in somebody's name, from the log.
//!
//! The authority logs a certificate before it hands it out, so the first entry with a certificate records its issuance.
//! Where the service signed, in `sign` and `attest`, that entry is the signature too, and has a payload. Every later entry
//! with it is a signature of its holder. Certificates of other authorities may stand in the log as well, as anybody who
//! may log a signature may log one by such a certificate: they are told apart by the signature on the certificate.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    Service, Which, check,
    check::Doubt,
    connect,
    key::{self, LogKey},
    print, search,
    show::plain,
};
use crate::{
    cli::{Global, client, verify::read_text},
    grpc::v1::{self, trust_service_client::TrustServiceClient},
    log::facts,
    model::{TrustedRoot, certificate},
};

/// Entries that are fetched at the same time.
const WIDTH: usize = 16;
/// Signatures that are named in one line of text.
const NAMED: usize = 8;

/// Lists the certificates that were issued for an identity, with the signatures that were logged by them.
///
/// Each is fetched from the log, found in the signed checkpoint, and held against the authority's key. That none is left
/// out is the service's word: whoever does not take it keeps a mirror (`log mirror`).
///
/// Exit codes: 0 done, or with --fail-if-any: there is none; 1 there is one, or the service contradicts its log; 2 could
/// not tell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign log issued alice@example.com --issuer https://sso.example.com
  countersign log issued https://github.com/example/app/.github/workflows/release.yml@refs/heads/main -o json
  countersign log issued alice@example.com --issuer https://sso.example.com --from 4711 --fail-if-any   # for cron")]
pub(super) struct Args {
    /// The e-mail address, URI or user name (name!domain) in the certificates.
    identity: String,
    /// Only those that this issuer vouched for. Without it every entry of the log is looked at, which takes time.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Only those that were recorded at this index or later.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Exit with 1 if there is one, for a job that watches over an identity.
    #[arg(long)]
    fail_if_any: bool,
    /// List certificates of other authorities too.
    #[arg(long)]
    all: bool,
    /// The trusted root (JSON) whose authorities are ours. Without it they are those that the service names.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: key::Pinned,
}

/// A certificate with its entries, as the service tells it.
#[derive(Debug, Default)]
struct Told {
    certificate: v1::CertificateSummary,
    issuer: String,
    /// The first entry with it.
    index: u64,
    /// Whether that entry is a signature too.
    signed: bool,
    /// The other entries with it.
    signatures: Vec<u64>,
}

/// A certificate in the log, and whether our authority issued it.
struct Checked {
    told: Told,
    ours: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<ExitCode, Doubt> {
    let mut log = connect(global, &args.which).await?;
    let key = args.key.or_of(&mut log).await?;
    let root = Arc::new(trusted_root(args.trusted_root.as_deref(), global).await?);
    let (told, complete) = told(&mut log, &args).await?;
    let checked: Vec<Checked> = stream::iter(told.into_iter().filter(|told| told.index >= args.from))
        .map(|told| check_one(log.clone(), key.clone(), Arc::clone(&root), args.identity.clone(), told))
        .buffered(WIDTH)
        .try_collect()
        .await?;
    if let Some(caution) = key.caution() {
        writeln!(io::stderr(), "note: {caution}")?;
    }
    let foreign = checked.iter().filter(|checked| !checked.ours).count();
    let listed: Vec<_> = checked.into_iter().filter(|checked| checked.ours || args.all).collect();
    report(&listed, foreign, complete, args.all, global)?;
    Ok(if args.fail_if_any && !listed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// All certificates in this name, in the order in which they were recorded, and the size up to which that is all.
async fn told(log: &mut Service, args: &Args) -> anyhow::Result<(Vec<Told>, u64)> {
    let filter = args.issuer.clone().map(|issuer| v1::EntryFilter {
        identity: Some(v1::SignerIdentity { subject: args.identity.clone(), issuer }),
        ..v1::EntryFilter::default()
    });
    let (mut certificates, mut places) = (Vec::<Told>::new(), HashMap::new());
    // From the beginning: which entry is the first of a certificate is not known otherwise.
    let pages = search::pages(log, filter, None, usize::MAX, false, |summary| {
        let (Some(certificate), Some(signer)) = (summary.certificate, summary.signer) else { return };
        if signer.subject != args.identity || args.issuer.as_ref().is_some_and(|issuer| *issuer != signer.issuer) {
            return;
        }
        let place = *places.entry(certificate.fingerprint.clone()).or_insert(certificates.len());
        match certificates.get_mut(place) {
            Some(told) => told.signatures.push(summary.index),
            None => certificates.push(Told {
                certificate,
                issuer: signer.issuer,
                index: summary.index,
                signed: summary.has_payload,
                signatures: Vec::new(),
            }),
        }
    });
    let complete = pages.await?.complete_to_size;
    Ok((certificates, complete))
}

/// Fetches the first entry of a certificate, and holds what the service told of it against its bytes.
async fn check_one(
    mut log: Service,
    key: LogKey,
    root: Arc<TrustedRoot>,
    identity: String,
    told: Told,
) -> Result<Checked, Doubt> {
    let included = check::entry(&mut log, &key, told.index, false).await?;
    let der = facts::certificate_in(&included.entry.leaf);
    let said = der.as_deref().and_then(certificate::describe);
    let (Some(der), Some(said)) = (der, said) else {
        return Err(Doubt::No(format!("entry {} holds no certificate that can be read", told.index)));
    };
    let named = said.identity.as_ref().is_some_and(|named| named.subject == identity && named.issuer == told.issuer);
    if !named || said.fingerprint.to_string() != told.certificate.fingerprint {
        return Err(Doubt::No(format!("entry {} holds another certificate than the service says", told.index)));
    }
    // Everything that is printed is what the certificate says itself.
    let certificate = v1::CertificateSummary {
        serial: said.serial,
        not_before: said.not_before.to_string(),
        not_after: said.not_after.to_string(),
        key: said.key.to_string(),
        ..told.certificate
    };
    let ours = root.authorities().iter().any(|authority| certificate::is_signed_by(&der, authority));
    Ok(Checked { told: Told { certificate, ..told }, ours })
}

async fn trusted_root(file: Option<&Path>, global: &Global) -> anyhow::Result<TrustedRoot> {
    if let Some(path) = file {
        let text = read_text(path, "trusted root")?;
        return TrustedRoot::parse(&text).with_context(|| format!("in {}", path.display()));
    }
    let mut trust = TrustServiceClient::new(client::connect(global).await?);
    let reply = trust.get_trusted_root(v1::GetTrustedRootRequest {}).await.map_err(client::explain)?.into_inner();
    let text = str::from_utf8(&reply.trusted_root).context("the service's trusted root is not text")?;
    TrustedRoot::parse(text).context("the service's trusted root")
}

fn report(listed: &[Checked], foreign: usize, complete: u64, all: bool, global: &Global) -> io::Result<()> {
    let certificates: Vec<_> = listed.iter().map(Checked::json).collect();
    let value = json!({ "certificates": certificates, "completeToSize": complete, "ofOtherAuthorities": foreign });
    let mut lines: Vec<_> = listed.iter().map(Checked::line).collect();
    let count = listed.len();
    lines.push(format!("{count} certificates; complete up to size {complete}, go on with --from {complete}"));
    if foreign > 0 && !all {
        lines.push(format!("{foreign} more in this name are of other authorities; --all lists them"));
    }
    print(global, &value, &lines.join("\n"))
}

impl Checked {
    fn line(&self) -> String {
        let Told { certificate, index, issuer, signed, signatures } = &self.told;
        let whose = if self.ours { "" } else { "  OF ANOTHER AUTHORITY" };
        // Where the service signed, the first entry is a signature too.
        let all: Vec<_> = signed.then_some(index).into_iter().chain(signatures).map(u64::to_string).collect();
        let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let used = match all.len() {
            0 => "no signatures".to_owned(),
            count if count > NAMED => format!("signatures {named} and {} more", count - NAMED),
            _ => format!("signatures {named}"),
        };
        plain(&format!(
            "{index:>8}  {} to {}  serial {}  key {}  issuer {issuer}  {used}{whose}",
            certificate.not_before, certificate.not_after, certificate.serial, certificate.key
        ))
    }

    fn json(&self) -> Value {
        let Told { certificate, index, issuer, signed, signatures } = &self.told;
        let kind = if *signed { "issuance and signature" } else { "issuance" };
        let first = json!({ "index": index, "kind": kind });
        let rest = signatures.iter().map(|index| json!({ "index": index, "kind": "signature" }));
        json!({
            "index": index, "serial": certificate.serial, "notBefore": certificate.not_before,
            "notAfter": certificate.not_after, "key": certificate.key, "fingerprint": certificate.fingerprint,
            "issuer": issuer, "ofThisAuthority": self.ours,
            "entries": std::iter::once(first).chain(rest).collect::<Vec<_>>(),
        })
    }
}
