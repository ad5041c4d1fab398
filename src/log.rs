//! STUB: the log's owner replaces this file; signatures stay.
#![allow(unused, clippy::all, missing_docs, reason = "stub")]
use std::{path::Path, sync::Arc};
use crate::model::{Digest, Identity};

/// A leaf and its payload, ready to be appended.
#[derive(Debug, Clone)]
pub struct Draft { pub leaf: Vec<u8>, pub payload: Vec<u8> }
/// Where a leaf stands, with proof under a signed checkpoint.
#[derive(Debug, Clone)]
pub struct Receipt { pub index: u64, pub tree_size: u64, pub root: [u8; 32], pub proof: Vec<[u8; 32]>, pub checkpoint: Arc<str> }
#[derive(Debug, Clone)]
pub struct Entry { pub index: u64, pub leaf: Vec<u8>, pub payload: Option<Vec<u8>> }
/// What entries can be found by.
#[derive(Debug, Clone)]
pub enum View { All, Digest(Digest), Name(String), Identity(Identity), PredicateType(String), Service { service: String, environment: String } }
#[derive(Debug, thiserror::Error)]
pub enum LogError { #[error("log is broken: {0}")] Broken(String), #[error("log queue is full")] Full, #[error("no such entry")] NotFound }
#[derive(Debug, Clone)]
pub struct Log;
impl Log {
    pub fn origin(&self) -> &str { unimplemented!() }
    pub fn log_id(&self) -> [u8; 32] { unimplemented!() }
    pub async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Receipt>, LogError> { unimplemented!() }
    pub fn receipt(&self, index: u64) -> Result<Receipt, LogError> { unimplemented!() }
    pub fn entry(&self, index: u64) -> Result<Entry, LogError> { unimplemented!() }
    pub fn size(&self) -> u64 { unimplemented!() }
    /// Indexes of entries in the view, ascending, from `from` on, at most `limit`.
    pub fn find(&self, view: &View, from: u64, limit: usize) -> Result<Vec<u64>, LogError> { unimplemented!() }
    /// The newest `limit` indexes of the view, descending, below `before`.
    pub fn newest(&self, view: &View, before: u64, limit: usize) -> Result<Vec<u64>, LogError> { unimplemented!() }
}
