//! `countersign trust status`.

use std::io::Write as _;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    cli::{Global, Output, client},
    grpc::v1::{
        GetStatusRequest, GetStatusResponse, KeyGeneration, TufDocument, trust_service_client::TrustServiceClient,
    },
};

/// Shows it.
pub(super) async fn run(global: &Global) -> anyhow::Result<()> {
    let mut service = TrustServiceClient::new(client::connect(global).await?);
    let status = service.get_status(GetStatusRequest {}).await.map_err(client::explain)?.into_inner();
    let mut out = std::io::stdout();
    if global.output == Output::Json {
        writeln!(out, "{:#}", document(&status)?)?;
        return Ok(());
    }
    out.write_all(text(&status)?.as_bytes())?;
    Ok(())
}

fn time(at: Option<prost_types::Timestamp>) -> anyhow::Result<Option<Timestamp>> {
    Ok(at.map(|at| Timestamp::new(at.seconds, at.nanos)).transpose()?)
}

fn given(at: Option<prost_types::Timestamp>) -> anyhow::Result<Timestamp> {
    time(at)?.context("the service sent no time")
}

fn document(status: &GetStatusResponse) -> anyhow::Result<Value> {
    let (mut expiries, mut generations, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    for expiry in &status.expiries {
        expiries.push(json!({ "name": expiry.name, "notAfter": given(expiry.not_after)? }));
    }
    for one in &status.generations {
        generations.push(json!({
            "kind": one.kind, "number": one.number, "signsFrom": given(one.signs_from)?,
            "validFrom": given(one.valid_from)?, "validUntil": time(one.valid_until)?, "notAfter": time(one.not_after)?,
            "root": (one.root > 0).then_some(one.root), "origin": (!one.origin.is_empty()).then_some(&one.origin),
        }));
    }
    let tuf = status.tuf.clone().unwrap_or_default();
    for TufDocument { name, version, expires } in &tuf.documents {
        documents.push(json!({ "name": name, "version": version, "expires": given(*expires)? }));
    }
    Ok(json!({
        "origin": status.origin, "logId": hex::encode(&status.log_id),
        "logPublicKey": hex::encode(&status.log_public_key), "trustedRootDigest": status.trusted_root_digest,
        "expiries": expiries, "generations": generations,
        "tuf": { "documents": documents, "rootKeyHere": tuf.root_key_here }, "warnings": status.warnings,
        "now": given(status.now)?,
    }))
}

fn text(status: &GetStatusResponse) -> anyhow::Result<String> {
    let now = given(status.now)?;
    let mut lines = vec![
        format!("origin        {}", status.origin),
        format!("log id        {}", hex::encode(&status.log_id)),
        format!("log key       {} (Ed25519)", hex::encode(&status.log_public_key)),
        format!("trusted root  {}", status.trusted_root_digest),
        "\nkeys".to_owned(),
    ];
    for (at, one) in status.generations.iter().enumerate() {
        let next = status.generations.get(at.saturating_add(1)).filter(|next| next.kind == one.kind);
        lines.push(generation(one, next, now)?);
    }
    let tuf = status.tuf.clone().unwrap_or_default();
    let place = if tuf.root_key_here { "in the data directory" } else { "kept offline" };
    lines.push(format!("\nTUF repository; its root key is {place}"));
    for TufDocument { name, version, expires } in &tuf.documents {
        lines.push(format!("  {name:<12}version {version:<12}{}", end(given(*expires)?, now)));
    }
    lines.push("\nexpiries".to_owned());
    for expiry in &status.expiries {
        lines.push(format!("  {:<14}{}", expiry.name, end(given(expiry.not_after)?, now)));
    }
    lines.extend(status.warnings.iter().map(|warning| format!("\nwarning: {warning}")));
    Ok(lines.join("\n") + "\n")
}

/// One line: what it is, whether it signs, and its window.
fn generation(one: &KeyGeneration, next: Option<&KeyGeneration>, now: Timestamp) -> anyhow::Result<String> {
    let signs_from = given(one.signs_from)?;
    let replaced = next.map(|next| given(next.signs_from)).transpose()?.is_some_and(|from| from <= now);
    let state = if signs_from > now {
        format!("signs from {signs_from} on")
    } else if replaced {
        match time(one.valid_until)? {
            Some(until) => format!("trusted for what it signed until {until}"),
            None => "trusted for what it signed".to_owned(),
        }
    } else {
        "signs".to_owned()
    };
    let root = if one.root > 1 { format!(", under root {}", one.root) } else { String::new() };
    let origin = if one.origin.is_empty() { String::new() } else { format!(" {}", one.origin) };
    let name = format!("{} {}{origin}", one.kind, one.number);
    Ok(format!("  {name:<12}  {state}{root}"))
}

fn end(at: Timestamp, now: Timestamp) -> String {
    let days = at.duration_since(now).as_hours() / 24;
    if at <= now { format!("EXPIRED at {at}") } else { format!("expires {at}, in {days} days") }
}
