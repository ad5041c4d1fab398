//! The key with which the log's checkpoints are verified: pinned, or the one that the service names.

use std::path::Path;

use anyhow::Context as _;

use super::{Service, check};
use crate::{
    cli::verify::read_text,
    tlog::{Checkpoint, VerifierKey},
};

/// The pinned key, if there is one.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Pinned {
    /// The log's verifier key (name+hash+key, as `log status` prints it), or a file that holds it. Without it the key is
    /// the one that the service names, which proves only that the service agrees with itself.
    #[arg(long, value_name = "VKEY_OR_FILE", env = "COUNTERSIGN_LOG_KEY")]
    key: Option<String>,
}

/// A log's key, and whether the caller brought it.
#[derive(Debug, Clone)]
pub(super) struct LogKey {
    pub(super) key: VerifierKey,
    pub(super) pinned: bool,
}

impl Pinned {
    /// The pinned key.
    pub(super) fn read(&self) -> anyhow::Result<Option<VerifierKey>> {
        self.key.as_deref().map(parse).transpose()
    }

    /// The pinned key, else the one that the service names.
    pub(super) async fn or_of(&self, service: &mut Service) -> anyhow::Result<LogKey> {
        if let Some(key) = self.read()? {
            return Ok(LogKey { key, pinned: true });
        }
        let head = check::head(service).await?;
        let key = VerifierKey::parse(&head.verifier_key).context("the service names a key that is none")?;
        Ok(LogKey { key, pinned: false })
    }
}

/// Parses a verifier key, or reads it from a file.
pub(super) fn parse(text: &str) -> anyhow::Result<VerifierKey> {
    if let Ok(key) = VerifierKey::parse(text.trim()) {
        return Ok(key);
    }
    let path = Path::new(text);
    if !path.exists() {
        anyhow::bail!("--key {text:?} is neither a verifier key (name+hash+key, as `log status` prints it) nor a file");
    }
    let held = read_text(path, "verifier key")?;
    VerifierKey::parse(held.trim()).with_context(|| format!("in {}", path.display()))
}

impl LogKey {
    /// Verifies a checkpoint. The error says what does not hold.
    pub(super) fn verify(&self, note: &str) -> Result<Checkpoint, String> {
        Checkpoint::verify(note, &self.key).map_err(|source| format!("the checkpoint does not verify: {source}"))
    }

    /// What to say about the key on standard error; nothing when it was pinned.
    pub(super) fn caution(&self) -> Option<String> {
        (!self.pinned).then(|| {
            format!("checked with the key that the service itself names; pin it with --key {}", self.key.vkey())
        })
    }
}
