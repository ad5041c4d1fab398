//! `countersign doctor`: looks at an installation and says what is wrong.

use std::{
    net::TcpStream, os::unix::fs::PermissionsExt as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration,
};

use jiff::Timestamp;
use serde_json::json;

use super::{Global, Output, print};
use crate::{
    config::Config,
    keys::{Keyring, ManagedKeys, Public},
    model::policy::PolicySet,
    server::ends::Ends,
};

/// Looks at configuration, data directory, keys, what ends, policy and listeners; each line is ok, warn or FAIL with what to
/// do.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory. Default: `data` of the configuration.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

enum State {
    Ok,
    Warn,
    Fail,
}

struct Finding {
    state: State,
    what: &'static str,
    text: String,
}

/// Runs the command.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let findings = match Config::load_from_process(global.config.as_deref(), args.data.as_deref()) {
        Ok(config) => {
            let look = move || examine(&config, Timestamp::now());
            tokio::task::spawn_blocking(look).await?
        }
        Err(error) => vec![Finding { state: State::Fail, what: "configuration", text: error.to_string() }],
    };
    let failed = findings.iter().any(|finding| matches!(finding.state, State::Fail));
    let word = |state: &State| match state {
        State::Ok => "ok",
        State::Warn => "warn",
        State::Fail => "FAIL",
    };
    match global.output {
        Output::Json => {
            let lines: Vec<_> = findings
                .iter()
                .map(|finding| json!({"state": word(&finding.state), "what": finding.what, "text": finding.text}))
                .collect();
            print(&format!("{}\n", serde_json::Value::from(lines)))?;
        }
        Output::Text => {
            for finding in &findings {
                print(&format!("{:<5} {:<16} {}\n", word(&finding.state), finding.what, finding.text))?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn finding<T>(what: &'static str, result: anyhow::Result<T>, good: impl FnOnce(&T) -> String) -> Finding {
    match result {
        Ok(value) => Finding { state: State::Ok, what, text: good(&value) },
        Err(error) => Finding { state: State::Fail, what, text: format!("{error:#}") },
    }
}

/// The managed keys, each asked for where it is.
fn managed(config: &Config) -> anyhow::Result<String> {
    let host = Public::open(&config.data)?.host().to_owned();
    let keys = ManagedKeys::open(&config.data, config.kek_source()?, config.custody()?, &host)?;
    keys.check_custody()?;
    Ok(match keys.list().len() {
        0 => "none".to_owned(),
        count => format!("{count}, and those that sign can be used"),
    })
}

/// What has ended and what soon will, as the running service warns of it; and configured certificates that cannot be used.
fn expiry(config: &Config, keyring: &Arc<Keyring>, now: Timestamp) -> Vec<Finding> {
    let (ends, unusable) = Ends::of_installation(config, Arc::clone(keyring));
    let line = |state, text| Finding { state, what: "expiry", text };
    let unusable = unusable.into_iter().map(|error| Finding {
        state: State::Fail,
        what: "certificates",
        text: format!("{error:#}"),
    });
    let ended = ends.vital(now).into_iter().filter(|(_, end)| *end <= now);
    let ended = ended.map(|(what, end)| line(State::Fail, format!("{what} expired at {end}")));
    let warnings = ends.warnings(now).into_iter().map(|warning| line(State::Warn, warning));
    unusable.chain(ended).chain(warnings).collect()
}

fn examine(config: &Config, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![finding("configuration", Ok(()), |()| "is valid".to_owned())];
    let data = config.data.display();
    findings.push(match std::fs::metadata(&config.data) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => Finding {
            state: State::Warn,
            what: "data directory",
            text: format!("{data} is open to others; chmod 700 {data}"),
        },
        Ok(_) => Finding { state: State::Ok, what: "data directory", text: data.to_string() },
        Err(error) => Finding {
            state: State::Fail,
            what: "data directory",
            text: format!("{data}: {error}; run `countersign init`"),
        },
    });
    let keyring = config
        .kek_source()
        .map_err(anyhow::Error::new)
        .and_then(|source| Ok(source.load()?))
        .and_then(|kek| Ok(Arc::new(Keyring::open_in(&config.data, &kek, config.custody()?)?)));
    if let Ok(keyring) = &keyring {
        findings.extend(expiry(config, keyring, now));
    }
    let keyring = keyring.and_then(|keyring| {
        keyring.check_custody(now)?;
        Ok(keyring)
    });
    findings.push(finding("keys", keyring, |keyring| format!("open, for host {}", keyring.host())));
    findings.push(finding("managed keys", managed(config), ToString::to_string));
    findings.push(match &config.policy.file {
        None => Finding {
            state: State::Warn,
            what: "policy",
            text: "none is configured: nothing will be admitted; set [policy] file".to_owned(),
        },
        Some(path) => {
            let parsed = std::fs::read_to_string(path).map_err(anyhow::Error::new);
            let parsed = parsed.and_then(|yaml| Ok(PolicySet::parse(&yaml)?));
            finding("policy", parsed, |policies| format!("{} ({})", path.display(), policies.digest()))
        }
    });
    for (what, address) in
        [("public", config.listen.public), ("webhook", config.listen.webhook), ("operations", config.listen.operations)]
    {
        findings.push(match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(_) => Finding { state: State::Ok, what, text: format!("{address} answers") },
            Err(error) => {
                Finding { state: State::Warn, what, text: format!("{address}: {error}; is the service running?") }
            }
        });
    }
    findings
}
