//! A mirror of a log's tiles over HTTP, as a source for a copy that catches up. C2SP `tlog-tiles`.
//!
//! Nothing that it sends is believed: the checkpoint is verified with the log's key, and the entries must give its root.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use tokio::runtime::Handle;

use crate::{
    log::{Draft, LogError, backup::Source},
    model::limits,
    tlog::{
        Checkpoint, Note,
        tile::{self, TilePath, WIDTH},
    },
};

/// How long one document may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the longest entry bundle.
const BUNDLE: usize = WIDTH * (limits::LEAF + 2);

/// A log's tiles at a URL.
pub(super) struct Mirror {
    base: String,
    http: reqwest::Client,
    runtime: Handle,
    /// The size that its checkpoint claims; partial bundles are asked for by it.
    size: u64,
}

impl Mirror {
    /// Reads from `base`; `ca` holds the PEM certificates of a private authority.
    pub(super) fn new(base: &str, ca: Option<&Path>, runtime: Handle) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder().timeout(PATIENCE);
        if let Some(path) = ca {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            http = http.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        Ok(Self { base: base.trim_end_matches('/').to_owned(), http: http.build()?, runtime, size: 0 })
    }

    fn get(&self, path: &str, most: usize) -> Result<Vec<u8>, LogError> {
        let url = format!("{}/{path}", self.base);
        let fetch = async {
            let mut answer = self.http.get(&url).send().await?.error_for_status()?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > most {
                    break;
                }
            }
            Ok::<_, reqwest::Error>(body)
        };
        let body = self.runtime.block_on(fetch).map_err(|error| LogError::Invalid(format!("{url}: {error}")))?;
        if body.len() > most {
            return Err(LogError::Invalid(format!("{url} has more than {most} bytes")));
        }
        Ok(body)
    }

    /// One entry bundle, as wide as the mirror's checkpoint makes it.
    fn bundle(&self, index: u64) -> Result<Vec<Draft>, LogError> {
        let width = tile::width_in(self.size, 0, index);
        let path = TilePath::Entries { index, width }.to_string();
        let bytes = self.get(&path, BUNDLE)?;
        let entries = tile::parse_entries(&bytes, width)
            .map_err(|source| LogError::Invalid(format!("{}/{path}: {source}", self.base)))?;
        Ok(entries.into_iter().map(|leaf| Draft { leaf: leaf.to_vec(), payload: Vec::new() }).collect())
    }
}

impl Source for Mirror {
    fn checkpoint(&mut self) -> Result<String, LogError> {
        let bytes = self.get("checkpoint", 1024 * 1024)?;
        let text = String::from_utf8(bytes).map_err(|source| LogError::Invalid(source.to_string()))?;
        let note = Note::parse(&text).map_err(|source| LogError::Invalid(source.to_string()))?;
        // Only how much is asked for follows from it; whoever restores verifies it.
        self.size = Checkpoint::parse(note.text_unsafe())?.size;
        Ok(text)
    }

    fn entries(&mut self, from: u64, count: u64) -> Result<Vec<Draft>, LogError> {
        let width = u64::try_from(WIDTH).unwrap_or(256);
        let mut entries = Vec::new();
        for index in from / width..=(from + count).saturating_sub(1) / width {
            entries.extend(self.bundle(index)?);
        }
        let skip = usize::try_from(from % width).unwrap_or(usize::MAX);
        let take = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(entries.into_iter().skip(skip).take(take).collect())
    }
}
