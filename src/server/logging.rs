//! Where log lines go: standard error, as text on a terminal and as JSON elsewhere. `RUST_LOG` selects; without it
//! everything from `info` on, and always the target `audit`.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt};

/// What is logged when `RUST_LOG` says nothing.
const DEFAULT: &str = "info,audit=info,h2=warn,hyper=warn,rustls=warn";

/// Starts logging for the whole process; a second call changes nothing.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(DEFAULT));
    let builder = fmt().with_env_filter(filter).with_writer(stderr);
    let started = if stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).with_ansi(false).try_init()
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
