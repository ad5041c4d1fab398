//! `countersign key`: managed keys of the running service.

use std::process::ExitCode;

use serde_json::{Value, json};
use tonic::{Response, Status};

use super::{
    Global, Output, client,
    place::{line, refused, time},
    print,
};
use crate::{
    grpc::v1::{self, key_service_client::KeyServiceClient},
    model::KeyName,
};

/// Managed keys: the service holds them, and `sign --key NAME` signs with them. Changing one needs the role admin; who may
/// sign with one is said by `keys` of a rule in [identity.rules].
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  countersign key create release
  countersign sign --key release --bundle tool.sigstore.json ./tool
  countersign key show release --pem > release.pub
  countersign verify --bundle tool.sigstore.json --trusted-root trusted_root.json --key release.pub ./tool")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a key: ECDSA on P-256.
    Create {
        /// Its name: a-z, 0-9, - and _.
        name: KeyName,
    },
    /// List all keys.
    List,
    /// Show a key with its versions.
    Show {
        /// Its name.
        name: KeyName,
        /// Print the public key (PEM) alone: of the version that signs, or of --version.
        #[arg(long)]
        pem: bool,
        /// The version, from 1. Default: the newest.
        #[arg(long, value_name = "N", requires = "pem")]
        version: Option<u32>,
    },
    /// Make a new version, which signs from now on. What older ones signed stays valid.
    Rotate(Named),
    /// Let a key sign nothing for now.
    Disable(Named),
    /// Let a disabled key sign again.
    Enable(Named),
    /// Let a key sign nothing any more, for good, and void what it signs (or signed) at or after --since.
    Revoke {
        /// Its name.
        name: KeyName,
        /// Why; kept in the log.
        #[arg(long)]
        reason: String,
        /// From when its signatures count no more (RFC 3339). Default: now.
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Its name.
    name: KeyName,
    /// Why; kept in the log.
    #[arg(long, default_value = "")]
    reason: String,
}

type Changed = Result<Response<v1::KeyChangeResponse>, Status>;

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut keys = KeyServiceClient::new(client::connect(global).await?);
    match args.what {
        What::Create { name } => {
            changed(global, keys.create_key(v1::CreateKeyRequest { name: name.to_string() }).await)
        }
        What::Rotate(Named { name, reason }) => {
            changed(global, keys.rotate_key(v1::RotateKeyRequest { name: name.to_string(), reason }).await)
        }
        What::Disable(Named { name, reason }) => {
            changed(global, keys.disable_key(v1::DisableKeyRequest { name: name.to_string(), reason }).await)
        }
        What::Enable(Named { name, reason }) => {
            changed(global, keys.enable_key(v1::EnableKeyRequest { name: name.to_string(), reason }).await)
        }
        What::Revoke { name, reason, since } => {
            let since = since.unwrap_or_default();
            changed(global, keys.revoke_key(v1::RevokeKeyRequest { name: name.to_string(), reason, since }).await)
        }
        What::List => match keys.list_keys(v1::ListKeysRequest {}).await {
            Ok(answer) => list(global, &answer.into_inner().keys),
            Err(status) => refused(status),
        },
        What::Show { name, pem, version } => match keys.get_key(v1::GetKeyRequest { name: name.to_string() }).await {
            Ok(answer) => show(global, &answer.into_inner().key.unwrap_or_default(), pem, version),
            Err(status) => refused(status),
        },
    }
}

fn changed(global: &Global, answer: Changed) -> anyhow::Result<ExitCode> {
    let answer = match answer {
        Ok(answer) => answer.into_inner(),
        Err(status) => return refused(status),
    };
    let key = answer.key.unwrap_or_default();
    match global.output {
        Output::Json => {
            let mut document = as_json(&key);
            if let Some(fields) = document.as_object_mut() {
                fields.insert("entry".to_owned(), answer.entry.as_ref().map_or(Value::Null, entry));
                fields.insert("revocations".to_owned(), answer.revocations.iter().map(entry).collect());
            }
            print(&format!("{document:#}\n"))?;
        }
        Output::Text => {
            let mut out = text(&key);
            match &answer.entry {
                Some(entry) => out += &format!("  recorded  {}#{}\n", entry.origin, entry.index),
                None => out += "  it was so already\n",
            }
            for entry in &answer.revocations {
                out += &format!("  revoked   {}#{}\n", entry.origin, entry.index);
            }
            print(&out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(global: &Global, keys: &[v1::ManagedKey]) -> anyhow::Result<ExitCode> {
    match global.output {
        Output::Json => print(&format!("{:#}\n", keys.iter().map(as_json).collect::<Value>()))?,
        Output::Text if keys.is_empty() => print("no managed keys; make one with `countersign key create NAME`\n")?,
        Output::Text => print(&keys.iter().map(text).collect::<String>())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &Global, key: &v1::ManagedKey, pem: bool, version: Option<u32>) -> anyhow::Result<ExitCode> {
    if !pem {
        return list(global, std::slice::from_ref(key));
    }
    let wanted = key.versions.iter().rfind(|known| version.is_none_or(|version| version == known.number));
    let Some(wanted) = wanted else {
        anyhow::bail!("the key {} has no version {}", line(&key.name), version.unwrap_or_default());
    };
    print(&wanted.public_key)?;
    Ok(ExitCode::SUCCESS)
}

fn text(key: &v1::ManagedKey) -> String {
    let yours = if key.yours { ", you may sign with it" } else { "" };
    let mut out = format!("{}  {}{yours}\n", line(&key.name), line(&key.state));
    for version in key.versions.iter().rev() {
        out += &format!("  version {}  {}  made {}\n", version.number, line(&version.key), line(&version.made_at));
    }
    out
}

fn as_json(key: &v1::ManagedKey) -> Value {
    let version = |version: &v1::ManagedKeyVersion| json!({"number": version.number, "madeAt": version.made_at, "key": version.key, "publicKey": version.public_key});
    json!({
        "name": key.name, "state": key.state, "yours": key.yours,
        "versions": key.versions.iter().map(version).collect::<Vec<_>>(),
    })
}

fn entry(entry: &v1::LogRef) -> Value {
    json!({"origin": entry.origin, "index": entry.index})
}
