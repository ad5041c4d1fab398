//! `countersign admit`: would these objects be admitted?

use std::{
    io::{Read as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Global, Output, client};
use crate::{
    grpc::v1::{self, admission_service_client::AdmissionServiceClient},
    model::{
        Decision, limits,
        manifest::{self, Pin},
    },
};

/// Ask whether the objects of a manifest would be admitted to a cluster.
///
/// The same policy, evidence and judge as the webhook; nothing is recorded. Exit code 0: all admitted, 1: at least
/// one denied, 2: none denied, but at least one could not be decided.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign admit -f deployment.yaml
  helm template ./chart | countersign admit -f - --namespace shop
  countersign admit -f deployment.yaml --mutate | kubectl apply -f -")]
pub struct Args {
    /// The manifest: YAML documents or JSON; `-` is standard input.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    filename: PathBuf,
    /// The namespace of objects that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The environment of all objects, instead of their label or namespace.
    #[arg(long, default_value = "")]
    environment: String,
    /// The Kubernetes user as whom to ask; decides whether a break-glass annotation would be honoured.
    #[arg(long = "as", value_name = "USER", default_value = "")]
    user: String,
    /// A Kubernetes group as which to ask; may be repeated.
    #[arg(long = "as-group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Print the manifest with tags pinned to the digests that were judged; the verdicts go to standard error.
    #[arg(long)]
    mutate: bool,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let bytes = read(&args)?;
    let mut objects = manifest::parse(&bytes)?;
    let mut service = AdmissionServiceClient::new(client::connect(global).await?);
    let request = v1::AdmitRequest {
        manifest: bytes.into(),
        namespace: args.namespace,
        environment: args.environment,
        user: args.user,
        groups: args.groups,
    };
    let answer = service.admit(request).await.map_err(client::explain)?.into_inner();
    if args.mutate {
        pin(&mut objects, &answer);
        write!(std::io::stdout(), "{}", manifest::write(&objects)?)?;
        write!(std::io::stderr(), "{}", text(&answer))?;
    } else if matches!(global.output, Output::Json) {
        writeln!(std::io::stdout(), "{:#}", to_json(&answer))?;
    } else {
        write!(std::io::stdout(), "{}", text(&answer))?;
    }
    Ok(ExitCode::from(exit_code(&answer)))
}

fn read(args: &Args) -> anyhow::Result<Vec<u8>> {
    let most = u64::try_from(limits::DOCUMENT)?.saturating_add(1);
    let mut bytes = Vec::new();
    if args.filename.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes).context("standard input could not be read")?;
    } else {
        let file = std::fs::File::open(&args.filename)
            .with_context(|| format!("{} could not be opened", args.filename.display()))?;
        file.take(most).read_to_end(&mut bytes).with_context(|| format!("reading {}", args.filename.display()))?;
    }
    Ok(bytes)
}

/// 0: all admitted, 1: one denied, 2: one could not be decided. What would happen decides: an object in mode `warn` is admitted, whatever the judge says of it.
pub fn exit_code(answer: &v1::AdmitResponse) -> u8 {
    let refused = answer.objects.iter().filter(|object| !object.allowed);
    let decisions = refused.map(|object| match object.decision() {
        v1::Decision::Unknown => Decision::Unknown,
        _ => Decision::Deny,
    });
    decisions.fold(Decision::Allow, Decision::and).exit_code()
}

/// Writes the pins of the answer into the objects; both are in the manifest's order.
pub fn pin(objects: &mut [Value], answer: &v1::AdmitResponse) {
    for (object, answered) in objects.iter_mut().zip(&answer.objects) {
        let pins: Vec<Pin> =
            answered.pins.iter().map(|pin| Pin { pointer: pin.pointer.clone(), image: pin.image.clone() }).collect();
        manifest::pin(object, &pins);
    }
}

/// The answer for people: a line an object, a line an image, the reasons below it.
pub fn text(answer: &v1::AdmitResponse) -> String {
    let mut lines = Vec::new();
    for object in &answer.objects {
        let word = match (object.allowed, object.decision()) {
            (true, v1::Decision::Allow) => "ALLOW",
            (true, _) => "ALLOW (not enforced)",
            (false, v1::Decision::Unknown) => "UNKNOWN",
            (false, _) => "DENY",
        };
        let kind = object.kind.to_lowercase();
        let note = if object.passed.is_empty() { String::new() } else { format!("  ({})", object.passed) };
        lines.push(format!("{word:<8} {kind}/{} in {}{note}", object.name, object.namespace));
        for image in &object.images {
            lines.push(format!("         {}", image.image));
            if !image.digest.is_empty() && !image.image.contains('@') {
                lines.push(format!("           is {}", image.digest));
            }
            for reason in image.verdict.iter().flat_map(|verdict| verdict.reasons.iter().chain(&verdict.warnings)) {
                lines.push(format!("           {}: {}", reason.code, reason.message));
                if !reason.remedy.is_empty() {
                    lines.push(format!("             to do: {}", reason.remedy));
                }
            }
        }
        if object.images.is_empty() && !object.message.is_empty() {
            lines.push(format!("         {}", object.message));
        }
    }
    lines.push(String::new());
    // Names and messages come from manifests and registries: no escape sequence reaches the terminal.
    lines.join("\n").chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// The answer for machines.
pub fn to_json(answer: &v1::AdmitResponse) -> Value {
    let objects: Vec<Value> = answer.objects.iter().map(object_json).collect();
    json!({ "decision": decision(answer.decision()), "allowed": answer.allowed, "objects": objects })
}

fn object_json(object: &v1::AdmittedObject) -> Value {
    let images: Vec<Value> = object
        .images
        .iter()
        .map(|image| {
            let verdict = image.verdict.clone().unwrap_or_default();
            json!({
                "image": image.image,
                "digest": image.digest,
                "mode": image.mode,
                "pointers": image.pointers,
                "decision": decision(verdict.decision()),
                "reasons": verdict.reasons.iter().map(reason_json).collect::<Vec<_>>(),
                "warnings": verdict.warnings.iter().map(reason_json).collect::<Vec<_>>(),
                "policies": verdict.policies.iter().map(|policy| json!({ "name": policy.name, "digest": policy.digest })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "apiVersion": object.api_version,
        "kind": object.kind,
        "namespace": object.namespace,
        "name": object.name,
        "decision": decision(object.decision()),
        "allowed": object.allowed,
        "mode": object.mode,
        "outcome": object.outcome,
        "passed": object.passed,
        "images": images,
        "pins": object.pins.iter().map(|pin| json!({ "pointer": pin.pointer, "image": pin.image })).collect::<Vec<_>>(),
        "warnings": object.warnings,
        "message": object.message,
    })
}

fn reason_json(reason: &v1::Reason) -> Value {
    let evidence: Vec<Value> =
        reason.evidence.iter().map(|entry| json!({ "origin": entry.origin, "index": entry.index })).collect();
    json!({ "code": reason.code, "message": reason.message, "remedy": reason.remedy, "evidence": evidence })
}

const fn decision(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Allow => "allow",
        v1::Decision::Deny => "deny",
        v1::Decision::Unknown => "unknown",
        v1::Decision::Unspecified => "",
    }
}
