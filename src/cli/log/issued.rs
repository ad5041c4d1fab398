//! `countersign log issued`: the certificates that were issued in somebody's name, from the log.
//!
//! The authority logs a certificate before it hands it out, so the first entry with a certificate records its issuance.
//! Where the service signed, in `sign` and `attest`, that entry is the signature too, and has a payload. Every later entry
//! with it is a signature of its holder. Certificates of other authorities may stand in the log as well, as anybody who
//! may log a signature may log one by such a certificate: they are told apart by the signature on the certificate.
//!
//! All logs of the instance are searched, as a certificate of yesterday may stand in a log that was succeeded since. So where
//! a job left off is a log and an index in it ([`Place`]), and what cannot be said of that place is said loudly: a list that
//! begins in the wrong log is empty, and looks like good news.

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
    logs::{self, Place, Searched},
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
  countersign log issued alice@example.com --issuer https://sso.example.com --from log.example.com:4711 --fail-if-any   # for cron")]
pub(super) struct Args {
    /// The e-mail address, URI or user name (name!domain) in the certificates.
    identity: String,
    /// Only those that this issuer vouched for. Without it every entry of the log is looked at, which takes time.
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// Only those that were recorded at this place or later: an index of this log, or of any later one. The log may be left
    /// out where one alone is searched.
    #[arg(long, value_name = "[HOST:]INDEX", default_value_t = Place::default())]
    from: Place,
    /// Exit with 1 if there is one, for a job that watches over an identity.
    #[arg(long)]
    fail_if_any: bool,
    /// List certificates of other authorities too.
    #[arg(long)]
    all: bool,
    /// The trusted root (JSON) whose authorities are ours. Without it they are those that the service names.
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Search this log alone. Default: all logs of the instance, oldest first.
    #[arg(long, value_name = "HOST")]
    origin: Option<String>,
    #[command(flatten)]
    key: key::Pinned,
}

/// A certificate with its entries, as the service tells it.
#[derive(Debug, Default)]
struct Told {
    certificate: v1::CertificateSummary,
    issuer: String,
    /// The first entry with it: which of the searched logs, and the index in that.
    log: usize,
    index: u64,
    /// Whether that entry is a signature too.
    signed: bool,
    /// The other entries with it, in the order of the logs.
    signatures: Vec<(usize, u64)>,
}

/// A certificate in the log, and whether our authority issued it.
struct Checked {
    told: Told,
    ours: bool,
}

pub(super) async fn run(args: Args, global: &Global) -> Result<ExitCode, Doubt> {
    let service = connect(global, &args.which()).await?;
    let mut logs = logs::of(service, args.origin.is_some(), &args.key).await?;
    let from = logs::begin(&args.from, &logs)?;
    let root = Arc::new(trusted_root(args.trusted_root.as_deref(), global).await?);
    let told = told(&mut logs, &args).await?;
    logs::reaches(&logs, from)?;
    let checked: Vec<Checked> = stream::iter(told.into_iter().filter(|told| (told.log, told.index) >= from))
        .map(|told| check_one(&logs, Arc::clone(&root), args.identity.clone(), told))
        .buffered(WIDTH)
        .try_collect()
        .await?;
    for caution in logs.iter().filter_map(|log| log.key.caution()) {
        writeln!(io::stderr(), "note: {caution}")?;
    }
    let foreign = checked.iter().filter(|checked| !checked.ours).count();
    let listed: Vec<_> = checked.into_iter().filter(|checked| checked.ours || args.all).collect();
    report(&listed, &logs, foreign, args.all, global)?;
    Ok(if args.fail_if_any && !listed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Args {
    fn which(&self) -> Which {
        Which { origin: self.origin.clone() }
    }
}

/// All certificates in this name, in the order in which they were recorded. Each log learns up to which size that is all.
async fn told(logs: &mut [Searched], args: &Args) -> anyhow::Result<Vec<Told>> {
    let filter = args.issuer.clone().map(|issuer| v1::EntryFilter {
        identity: Some(v1::SignerIdentity { subject: args.identity.clone(), issuer }),
        ..v1::EntryFilter::default()
    });
    let (mut certificates, mut places) = (Vec::<Told>::new(), HashMap::new());
    // From the beginning of the first log: which entry is the first of a certificate is not known otherwise.
    for (log, searched) in logs.iter_mut().enumerate() {
        let pages = search::pages(&mut searched.service, filter.clone(), None, usize::MAX, false, |summary| {
            let (Some(certificate), Some(signer)) = (summary.certificate, summary.signer) else { return };
            if signer.subject != args.identity || args.issuer.as_ref().is_some_and(|issuer| *issuer != signer.issuer) {
                return;
            }
            let place = *places.entry(certificate.fingerprint.clone()).or_insert(certificates.len());
            match certificates.get_mut(place) {
                Some(told) => told.signatures.push((log, summary.index)),
                None => certificates.push(Told {
                    certificate,
                    issuer: signer.issuer,
                    log,
                    index: summary.index,
                    signed: summary.has_payload,
                    signatures: Vec::new(),
                }),
            }
        });
        searched.complete = pages.await?.complete_to_size;
    }
    Ok(certificates)
}

/// Fetches the first entry of a certificate, and holds what the service told of it against its bytes.
async fn check_one(logs: &[Searched], root: Arc<TrustedRoot>, identity: String, told: Told) -> Result<Checked, Doubt> {
    let log = logs.get(told.log).context("a certificate of a log that was not searched")?;
    let (mut service, key): (Service, LogKey) = (log.service.clone(), log.key.clone());
    let included = check::entry(&mut service, &key, told.index, false).await?;
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

fn report(listed: &[Checked], logs: &[Searched], foreign: usize, all: bool, global: &Global) -> io::Result<()> {
    let certificates: Vec<_> = listed.iter().map(|checked| checked.json(logs)).collect();
    let searched: Vec<_> =
        logs.iter().map(|log| json!({ "origin": log.origin(), "completeToSize": log.complete })).collect();
    let (origin, complete) = logs.last().map(|log| (log.origin(), log.complete)).unwrap_or_default();
    let next = Place { origin: Some(origin.to_owned()), index: complete };
    let value = json!({ "certificates": certificates, "origin": origin, "completeToSize": complete, "logs": searched,
        "next": next.to_string(), "ofOtherAuthorities": foreign });
    let mut lines = Vec::new();
    for (number, log) in logs.iter().enumerate() {
        let mut its = listed.iter().filter(|checked| checked.told.log == number).peekable();
        if logs.len() > 1 && its.peek().is_some() {
            lines.push(format!("{}:", log.origin()));
        }
        lines.extend(its.map(|checked| checked.line(logs)));
    }
    let count = listed.len();
    lines.push(format!("{count} certificates; complete up to size {complete} of {origin}, go on with --from {next}"));
    if foreign > 0 && !all {
        lines.push(format!("{foreign} more in this name are of other authorities; --all lists them"));
    }
    print(global, &value, &lines.join("\n"))
}

impl Checked {
    fn line(&self, logs: &[Searched]) -> String {
        let Told { certificate, log, index, issuer, signed, signatures } = &self.told;
        let whose = if self.ours { "" } else { "  OF ANOTHER AUTHORITY" };
        // Where the service signed, the first entry is a signature too.
        let first = signed.then_some((*log, *index));
        let all: Vec<_> = first
            .into_iter()
            .chain(signatures.iter().copied())
            .map(|(of, index)| if of == *log { index.to_string() } else { place(logs, of, index) })
            .collect();
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

    fn json(&self, logs: &[Searched]) -> Value {
        let Told { certificate, log, index, issuer, signed, signatures } = &self.told;
        let origin = |log: usize| logs.get(log).map(Searched::origin);
        let kind = if *signed { "issuance and signature" } else { "issuance" };
        let first = json!({ "origin": origin(*log), "index": index, "kind": kind });
        let rest = signatures
            .iter()
            .map(|(log, index)| json!({ "origin": origin(*log), "index": index, "kind": "signature" }));
        json!({
            "origin": origin(*log), "index": index, "serial": certificate.serial, "notBefore": certificate.not_before,
            "notAfter": certificate.not_after, "key": certificate.key, "fingerprint": certificate.fingerprint,
            "issuer": issuer, "ofThisAuthority": self.ours,
            "entries": std::iter::once(first).chain(rest).collect::<Vec<_>>(),
        })
    }
}

fn place(logs: &[Searched], log: usize, index: u64) -> String {
    Place { origin: logs.get(log).map(|log| log.origin().to_owned()), index }.to_string()
}
