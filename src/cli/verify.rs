//! `countersign verify`: offline from a bundle and a trusted root, or by asking the service about an image.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Global, Output, client};
use crate::{
    grpc::v1,
    model::{
        Decision, Digest, Evidence, LogRef, Outcome, Reason, Rejection, Revocations, Signer, Source, TrustedRoot,
        Verified,
        evidence::Rejected,
        judge::{Question, judge},
        limits,
        policy::{PolicySet, SignerRule, Text, Who, type_of_alias},
        predicate, verify,
    },
};

/// The exit code of wrong usage.
const USAGE: u8 = 64;
/// The exit code when it could not be told.
const UNKNOWN: u8 = 2;

/// Verify a file, a digest or an image.
///
/// With --bundle everything happens here, offline: signature, certificate, timestamp and log entry are checked
/// against the trusted root, then the signer. Without it, the service is asked about an image or digest, and answers
/// by its policies unless an identity is given.
///
/// Exit codes: 0 verified, 1 not verified, 2 could not tell (a file cannot be read), 64 wrong usage.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  countersign verify --bundle app.sigstore.json --trusted-root trusted_root.json \\\n    \
--certificate-identity ci@example.com --certificate-oidc-issuer https://sso.example.com app.tar.gz"
)]
pub struct Args {
    /// A file, a digest (sha256:…), or, without --bundle, an image reference.
    #[arg(value_name = "FILE_OR_DIGEST_OR_IMAGE")]
    target: String,
    /// The Sigstore bundle (v0.3 JSON).
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// A trusted root (JSON); may be given several times, one of them must verify the bundle.
    #[arg(long, value_name = "FILE")]
    trusted_root: Vec<PathBuf>,
    /// The identity (subject alternative name) that must have signed.
    #[arg(long, value_name = "IDENTITY")]
    certificate_identity: Option<String>,
    /// A regular expression for the identity; it must match the whole of it.
    #[arg(long, value_name = "REGEXP")]
    certificate_identity_regexp: Option<String>,
    /// The issuer that must have vouched for the identity.
    #[arg(long, value_name = "URL")]
    certificate_oidc_issuer: Option<String>,
    /// A regular expression for the issuer; it must match the whole of it.
    #[arg(long, value_name = "REGEXP")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// The public key (PEM file) that must have signed, in place of an identity.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The predicate type that the bundle must carry, a URI or one of sign, slsaprovenance1, spdx, cyclonedx, vulns,
    /// test-result, vsa. Default: an image or file signature.
    #[arg(long, value_name = "TYPE")]
    predicate_type: Option<String>,
    /// Accept any signer. This proves only that somebody known to the trusted root signed it.
    #[arg(long)]
    any_identity_unsafe: bool,
    /// The Kubernetes namespace to judge for, when the service is asked.
    #[arg(long)]
    namespace: Option<String>,
    /// The environment to judge for, when the service is asked.
    #[arg(long)]
    environment: Option<String>,
    /// The service to judge for, when the service is asked.
    #[arg(long)]
    service: Option<String>,
}

/// What was found, as it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    decision: Decision,
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<Proven>,
    reasons: Vec<Reason>,
}

/// The statement that was proven.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Proven {
    predicate_type: String,
    signer: Signer,
    key: Digest,
    entry: Option<LogRef>,
    signed_at: Option<Timestamp>,
    trusted_root: Digest,
}

/// Why there is no answer.
enum Stop {
    /// The flags do not go together.
    Usage(String),
    /// Something cannot be read.
    Unreadable(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let outcome = if args.bundle.is_some() {
        offline(&args, global)
    } else {
        match request(&args) {
            Ok(request) => return ask(request, global).await,
            Err(stop) => Err(stop),
        }
    };
    match outcome {
        Ok(code) => Ok(code),
        Err(Stop::Usage(problem)) => {
            writeln!(io::stderr(), "usage: {problem}")?;
            Ok(ExitCode::from(USAGE))
        }
        Err(Stop::Unreadable(error)) => {
            writeln!(io::stderr(), "could not tell: {error:#}")?;
            Ok(ExitCode::from(UNKNOWN))
        }
    }
}

fn offline(args: &Args, global: &Global) -> Result<ExitCode, Stop> {
    let key = args.key.as_deref().map(|path| read_text(path, "public key")).transpose()?;
    let signer = wanted(args, key.as_deref())?;
    if args.trusted_root.is_empty() {
        return Err(Stop::Usage("--bundle needs --trusted-root; countersign trust root writes one".to_owned()));
    }
    let roots = args
        .trusted_root
        .iter()
        .map(|path| {
            let text = read_text(path, "trusted root")?;
            TrustedRoot::parse(&text).with_context(|| format!("trusted root {}", path.display()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let path = args.bundle.as_deref().unwrap_or_else(|| Path::new("-"));
    let bundle = read_bounded(path, limits::BUNDLE).with_context(|| format!("bundle {}", path.display()))?;
    let digest = digest_of(&args.target)?;
    let now = Timestamp::now();
    let proven = prove(&bundle, &digest, &roots, key.as_deref());
    let report = decide(digest, proven, signer, wanted_type(args), &bundle, now);
    print(&report, global.output).map_err(anyhow::Error::from)?;
    Ok(ExitCode::from(report.decision.exit_code()))
}

/// The signer that the flags name; `None` is anyone, on demand only.
fn wanted(args: &Args, key: Option<&str>) -> Result<Option<SignerRule>, Stop> {
    let subject = text(
        "--certificate-identity",
        args.certificate_identity.as_deref(),
        args.certificate_identity_regexp.as_deref(),
    )?;
    let issuer = text(
        "--certificate-oidc-issuer",
        args.certificate_oidc_issuer.as_deref(),
        args.certificate_oidc_issuer_regexp.as_deref(),
    )?;
    let rule = |name: &str, who| Ok(Some(SignerRule { name: name.to_owned(), who }));
    match (subject, issuer, key, args.any_identity_unsafe) {
        (Some(subject), Some(issuer), None, false) => rule("the given identity", Who::Identity { issuer, subject }),
        (None, None, Some(pem), false) => {
            let key = sigstore_types::DerPublicKey::from_pem(pem).context("public key cannot be used")?;
            rule("the given key", Who::Key(Digest::of(key.as_bytes())))
        }
        (None, None, None, true) => Ok(None),
        (None, None, None, false) => Err(Stop::Usage(
            "say who must have signed: --certificate-identity with --certificate-oidc-issuer (or their -regexp \
             forms), or --key; --any-identity-unsafe accepts anyone"
                .to_owned(),
        )),
        (Some(_), None, None, false) => Err(Stop::Usage(
            "--certificate-identity needs --certificate-oidc-issuer: any issuer can vouch for a name".to_owned(),
        )),
        (None, Some(_), None, false) => Err(Stop::Usage(
            "--certificate-oidc-issuer needs --certificate-identity: an issuer vouches for many".to_owned(),
        )),
        _ => Err(Stop::Usage("give one of an identity, --key and --any-identity-unsafe".to_owned())),
    }
}

fn text(flag: &str, exact: Option<&str>, pattern: Option<&str>) -> Result<Option<Text>, Stop> {
    Text::of(flag, exact, pattern).map_err(Stop::Usage)
}

fn wanted_type(args: &Args) -> &str {
    args.predicate_type.as_deref().map_or(predicate::SIGN, type_of_alias)
}

/// The digest itself, or that of the file, read as a stream.
fn digest_of(target: &str) -> Result<Digest, Stop> {
    if target.starts_with("sha256:") {
        return target.parse().map_err(|source| Stop::Usage(format!("{target:?}: {source}")));
    }
    Ok(digest_of_file(Path::new(target)).with_context(|| format!("file {target}"))?)
}

/// The digest of a file, read as a stream.
pub fn digest_of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(Digest::from_bytes(hasher.finalize().into())),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

/// Verifies under the first trusted root that does; else the last rejection.
fn prove(bundle: &[u8], digest: &Digest, roots: &[TrustedRoot], key: Option<&str>) -> Result<Verified, Rejection> {
    let mut last = Rejection::Malformed("no trusted root".to_owned());
    for root in roots {
        let proven = match key {
            Some(key) => verify::verify_with_key(bundle, digest, root, key),
            None => verify::verify(bundle, digest, root),
        };
        match proven {
            Ok(verified) => return Ok(verified),
            Err(rejection) => last = rejection,
        }
    }
    Err(last)
}

/// Puts what was proven before the judge, with the given signer as the only policy.
fn decide(
    digest: Digest,
    proven: Result<Verified, Rejection>,
    signer: Option<SignerRule>,
    kind: &str,
    bundle: &[u8],
    now: Timestamp,
) -> Report {
    let mut evidence = Evidence::new(digest);
    evidence.sources.push((Source::Given, Outcome::Complete(now)));
    let anyone = Text::of("any", None, Some("(?s).*")).ok().flatten();
    let signer = match (signer, &proven, anyone) {
        (Some(signer), _, _) => signer,
        (None, Ok(verified), Some(anyone)) => {
            let who = match verified.signer() {
                Signer::Identity(_) => Who::Identity { issuer: anyone.clone(), subject: anyone },
                Signer::Key(key) => Who::Key(*key),
            };
            SignerRule { name: "anyone".to_owned(), who }
        }
        (None, _, _) => SignerRule { name: "anyone".to_owned(), who: Who::Key(digest) },
    };
    let shown = proven.as_ref().ok().map(|verified| Proven {
        predicate_type: verified.statement().predicate_type().to_owned(),
        signer: verified.signer().clone(),
        key: verified.key(),
        entry: verified.log().cloned(),
        signed_at: verified.signed_at(),
        trusted_root: verified.root(),
    });
    match proven {
        Ok(verified) => evidence.statements.push(Arc::new(verified)),
        Err(reason) => {
            evidence.rejected.push(Rejected { source: Source::Given, bundle: Digest::of(bundle), reason });
        }
    }
    let policies = PolicySet::of_signer(signer, vec![kind.to_owned()]);
    let question = Question { image: None, digest, namespace: None, environment: None, service: None, now };
    let verdict = judge(&policies, &question, &evidence, &Revocations::default()).verdict;
    Report { decision: verdict.decision, digest, proven: shown, reasons: verdict.reasons }
}

fn print(report: &Report, output: Output) -> io::Result<()> {
    let mut out = io::stdout();
    if matches!(output, Output::Json) {
        return writeln!(out, "{}", serde_json::to_string_pretty(report)?);
    }
    let word = if report.decision == Decision::Allow { "Verified" } else { "NOT verified" };
    writeln!(out, "{word}: {}", report.digest)?;
    if let Some(proven) = &report.proven {
        match &proven.signer {
            Signer::Identity(identity) => {
                writeln!(out, "  signer:         {}\n  issuer:         {}", identity.subject, identity.issuer)?;
            }
            Signer::Key(key) => writeln!(out, "  signer:         key {key}")?,
        }
        writeln!(out, "  predicate type: {}", proven.predicate_type)?;
        let entry = proven.entry.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        writeln!(out, "  log entry:      {entry}")?;
        let at = proven.signed_at.map_or_else(|| "no verified time".to_owned(), |at| at.to_string());
        writeln!(out, "  signed at:      {at}")?;
        writeln!(out, "  trusted root:   {}", proven.trusted_root)?;
    }
    if report.decision != Decision::Allow {
        for reason in &report.reasons {
            writeln!(out, "  {}: {}\n    {}", reason.code, reason.message, reason.remedy)?;
        }
    }
    Ok(())
}

/// The same question for the service.
fn request(args: &Args) -> Result<v1::VerifyRequest, Stop> {
    if args.key.is_some() || args.any_identity_unsafe || !args.trusted_root.is_empty() {
        return Err(Stop::Usage("--key, --trusted-root and --any-identity-unsafe go with --bundle".to_owned()));
    }
    let identity = [
        &args.certificate_identity,
        &args.certificate_identity_regexp,
        &args.certificate_oidc_issuer,
        &args.certificate_oidc_issuer_regexp,
    ];
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let check = if identity.iter().any(|flag| flag.is_some()) {
        wanted(args, None)?;
        v1::verify_request::Check::Identity(v1::IdentityCheck {
            subject: given(&args.certificate_identity),
            subject_regexp: given(&args.certificate_identity_regexp),
            issuer: given(&args.certificate_oidc_issuer),
            issuer_regexp: given(&args.certificate_oidc_issuer_regexp),
            predicate_type: given(&args.predicate_type),
        })
    } else if args.predicate_type.is_some() {
        return Err(Stop::Usage("--predicate-type needs an identity".to_owned()));
    } else {
        v1::verify_request::Check::Policy(v1::PolicyCheck {
            namespace: given(&args.namespace),
            environment: given(&args.environment),
            service: given(&args.service),
        })
    };
    Ok(v1::VerifyRequest { subject: args.target.clone(), check: Some(check), ..v1::VerifyRequest::default() })
}

/// Asks the service and prints its answer.
async fn ask(request: v1::VerifyRequest, global: &Global) -> anyhow::Result<ExitCode> {
    let service = client::connect(global).await?;
    let mut client = v1::verification_service_client::VerificationServiceClient::new(service);
    let answer = client.verify(request).await.map_err(client::explain)?.into_inner();
    let verdict = answer.verdict.clone().unwrap_or_default();
    let decision = match verdict.decision() {
        v1::Decision::Allow => Decision::Allow,
        v1::Decision::Deny => Decision::Deny,
        v1::Decision::Unknown | v1::Decision::Unspecified => Decision::Unknown,
    };
    let mut out = io::stdout();
    if matches!(global.output, Output::Json) {
        writeln!(out, "{}", serde_json::to_string_pretty(&as_json(&answer, decision))?)?;
        return Ok(ExitCode::from(decision.exit_code()));
    }
    writeln!(out, "{}: {}", decision.as_str().to_uppercase(), answer.digest)?;
    for reason in &verdict.reasons {
        writeln!(out, "  {}: {}", reason.code, reason.message)?;
        if !reason.remedy.is_empty() {
            writeln!(out, "    {}", reason.remedy)?;
        }
    }
    for warning in &verdict.warnings {
        writeln!(out, "  warning: {}: {}", warning.code, warning.message)?;
    }
    for one in &answer.statements {
        let who = if one.subject.is_empty() { &one.key } else { &one.subject };
        let entry = one.entry.as_ref().map_or_else(String::new, |entry| format!(" {}#{}", entry.origin, entry.index));
        writeln!(out, "  proven: {} by {who} at {}{entry}", one.predicate_type, one.signed_at)?;
    }
    if !answer.incomplete.is_empty() {
        writeln!(out, "  incomplete: {}", answer.incomplete)?;
    }
    Ok(ExitCode::from(decision.exit_code()))
}

fn as_json(answer: &v1::VerifyResponse, decision: Decision) -> serde_json::Value {
    let entry = |entry: &v1::LogRef| serde_json::json!({"origin": entry.origin, "index": entry.index});
    let reason = |reason: &v1::Reason| {
        serde_json::json!({
            "code": reason.code,
            "message": reason.message,
            "evidence": reason.evidence.iter().map(entry).collect::<Vec<_>>(),
            "remedy": reason.remedy,
        })
    };
    let verdict = answer.verdict.clone().unwrap_or_default();
    let statements: Vec<_> = answer
        .statements
        .iter()
        .map(|one| {
            serde_json::json!({
                "predicateType": one.predicate_type,
                "subject": one.subject,
                "issuer": one.issuer,
                "key": one.key,
                "entry": one.entry.as_ref().map(entry),
                "signedAt": one.signed_at,
                "trustedRoot": one.trusted_root,
            })
        })
        .collect();
    serde_json::json!({
        "decision": decision,
        "digest": answer.digest,
        "reasons": verdict.reasons.iter().map(reason).collect::<Vec<_>>(),
        "warnings": verdict.warnings.iter().map(reason).collect::<Vec<_>>(),
        "statements": statements,
        "incomplete": answer.incomplete,
    })
}

/// Reads a text file of at most [`limits::DOCUMENT`] bytes.
pub(crate) fn read_text(path: &Path, what: &str) -> anyhow::Result<String> {
    let bytes = read_bounded(path, limits::DOCUMENT).with_context(|| format!("{what} {}", path.display()))?;
    String::from_utf8(bytes).with_context(|| format!("{what} {} is not text", path.display()))
}

/// Reads a file that may have at most `most` bytes.
pub(crate) fn read_bounded(path: &Path, most: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() <= most, "has more than {most} bytes");
    Ok(bytes)
}
