//! Settings of the registry client.

use std::path::PathBuf;

use serde::Deserialize;

/// How registries are spoken to. Every field is optional.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Hosts (with port, as in image references) that are spoken to in plain HTTP. Every other one, loopback
    /// included, gets HTTPS. Applies to redirects and token realms too.
    pub plain_http: Vec<String>,
    /// PEM file with certificate authorities that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Docker's `config.json` with credentials; by default `$DOCKER_CONFIG/config.json`, else
    /// `~/.docker/config.json`. Read again when a token is needed, so it may be replaced at any time. Entries are
    /// keyed by host or by host and repository prefix; `credHelpers` and `credsStore` are asked where there is none.
    pub docker_config: Option<PathBuf>,
    /// Time allowed for a credential program, in milliseconds; then it is ended, and the registry is asked nothing.
    pub credential_program_timeout_ms: u64,
    /// Requests under way to one registry, at most.
    pub concurrency: usize,
    /// Attempts for one request: the first and the repetitions after network errors, 429 and 5xx.
    pub attempts: u32,
    /// Time allowed for making a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Time in which a registry must send something, in milliseconds; then the attempt has failed.
    pub read_timeout_ms: u64,
    /// Failures in a row after which a registry is left alone for a while. Throttling is no failure.
    pub breaker_failures: u32,
    /// How long it is left alone, in milliseconds; then one request tries.
    pub breaker_pause_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            ca_file: None,
            docker_config: None,
            credential_program_timeout_ms: 5_000,
            concurrency: 16,
            attempts: 4,
            connect_timeout_ms: 3_000,
            read_timeout_ms: 10_000,
            breaker_failures: 10,
            breaker_pause_ms: 5_000,
        }
    }
}
