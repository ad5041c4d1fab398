//! What the operator door's commands share: `SERVICE@ENVIRONMENT`, text that is safe to print, refusals, and how a
//! record is reported.

use std::{fmt, process::ExitCode, str::FromStr};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use tonic::{Code, Status};

use super::{EXIT_USAGE, Global, Output, client, print};
use crate::{
    grpc::v1,
    model::deployment::{NameError, check_name},
};

/// A service in an environment, as two flags.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Flags {
    /// The service.
    #[arg(long, value_parser = name)]
    pub service: String,
    /// The environment.
    #[arg(long, value_parser = name)]
    pub environment: String,
}

/// A service in an environment, as one argument.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The service.
    pub service: String,
    /// The environment.
    pub environment: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.service, self.environment)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (service, environment) =
            text.split_once('@').ok_or("write SERVICE@ENVIRONMENT, as in shop@production".to_owned())?;
        let part = |what: &str, text: &str| name(text).map_err(|error| format!("the {what} {error}"));
        Ok(Self { service: part("service", service)?, environment: part("environment", environment)? })
    }
}

fn name(text: &str) -> Result<String, NameError> {
    check_name(text).map(|()| text.to_owned())
}

/// An RFC 3339 time, as the service takes it.
pub(super) fn time(text: &str) -> Result<String, String> {
    let time = text.parse::<Timestamp>();
    time.map(|time| time.to_string()).map_err(|_source| "write an RFC 3339 time, as in 2026-01-31T12:00:00Z".to_owned())
}

/// Text from elsewhere on one line, without characters that move the cursor or turn the direction of writing.
pub(super) fn line(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    };
    text.chars().map(plain).collect()
}

/// A call that was refused: wrong usage when the service does not take the arguments, a failure otherwise.
pub(super) fn refused(status: Status) -> anyhow::Result<ExitCode> {
    let is_usage = status.code() == Code::InvalidArgument;
    let error = client::explain(status);
    if is_usage {
        eprintln!("countersign: {}", line(&format!("{error:#}")));
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    Err(error)
}

/// Says where something was recorded.
pub(super) fn recorded(global: &Global, what: &str, entry: Option<v1::LogRef>) -> anyhow::Result<ExitCode> {
    let entry = entry.context("the service answered without a log entry")?;
    match global.output {
        Output::Json => {
            print(&format!("{}\n", json!({"recorded": what, "origin": entry.origin, "index": entry.index})))?;
        }
        Output::Text => print(&format!("recorded {what}\n  log  {}#{}\n", entry.origin, entry.index))?,
    }
    Ok(ExitCode::SUCCESS)
}
