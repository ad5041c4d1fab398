//! What the commands check before they print it.

use anyhow::{Context as _, anyhow};
use tonic::{Code, Status};

use super::{Service, client, key::LogKey};
use crate::{
    grpc::v1,
    log::facts,
    tlog::{Hash, check_consistency, check_inclusion, leaf_hash},
};

/// How a check came out, when not well.
#[derive(Debug)]
pub(super) enum Doubt {
    /// It does not hold.
    No(String),
    /// It could not be told.
    Unknown(anyhow::Error),
}

impl From<anyhow::Error> for Doubt {
    fn from(error: anyhow::Error) -> Self {
        Self::Unknown(error)
    }
}

impl From<std::io::Error> for Doubt {
    fn from(error: std::io::Error) -> Self {
        Self::Unknown(error.into())
    }
}

impl From<Doubt> for anyhow::Error {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::No(why) => anyhow!(why),
            Doubt::Unknown(error) => error,
        }
    }
}

/// The service's refusal: that something is not there is an answer, everything else is none.
pub(super) fn refused(status: Status) -> Doubt {
    match status.code() {
        Code::NotFound => Doubt::No(status.message().to_owned()),
        _ => Doubt::Unknown(client::explain(status)),
    }
}

/// The newest checkpoint, not verified.
pub(super) async fn head(service: &mut Service) -> Result<v1::GetCheckpointResponse, Doubt> {
    let request = v1::GetCheckpointRequest { origin: service.origin.clone() };
    Ok(service.client.get_checkpoint(request).await.map_err(refused)?.into_inner())
}

/// An entry that the log includes.
#[derive(Debug)]
pub(super) struct Included {
    pub(super) entry: v1::LogEntry,
    pub(super) receipt: v1::Receipt,
}

/// Fetches an entry and checks that the signed checkpoint includes its leaf, and that its payload, if there is one, is
/// what the leaf records.
pub(super) async fn entry(
    service: &mut Service,
    key: &LogKey,
    index: u64,
    with_payload: bool,
) -> Result<Included, Doubt> {
    let request = v1::GetEntryRequest { index, with_payload, origin: service.origin.clone() };
    let answer = service.client.get_entry(request).await.map_err(refused)?.into_inner();
    let entry = answer.entry.context("the service answered without an entry")?;
    let receipt = answer.receipt.context("the service answered without a receipt")?;
    if entry.index != index || receipt.index != index {
        return Err(Doubt::No(format!("the service answered with another entry than {index}")));
    }
    let checkpoint = key.verify(&receipt.checkpoint).map_err(Doubt::No)?;
    let proof = hashes(&receipt.proof)?;
    check_inclusion(&leaf_hash(&entry.leaf), index, checkpoint.size, &proof, &checkpoint.root)
        .map_err(|source| Doubt::No(format!("the signed checkpoint does not include this entry: {source}")))?;
    let signed = facts::signed_digest(&entry.payload);
    let recorded = facts::recorded_digest(&entry.leaf);
    if signed.is_some() && recorded.is_some() && signed != recorded {
        return Err(Doubt::No(format!("the payload of entry {index} is not the one that its leaf records")));
    }
    Ok(Included { entry, receipt })
}

/// A consistency proof that was checked.
pub(super) async fn consistency(
    service: &mut Service,
    from_size: u64,
    to_size: u64,
) -> Result<v1::GetConsistencyProofResponse, Doubt> {
    let request = v1::GetConsistencyProofRequest { from_size, to_size, origin: service.origin.clone() };
    let answer = service.client.get_consistency_proof(request).await.map_err(refused)?.into_inner();
    if answer.from_size != from_size || (to_size != 0 && answer.to_size != to_size) {
        return Err(Doubt::No("the service answered for other sizes".to_owned()));
    }
    let (from_root, to_root) = (hash(&answer.from_root)?, hash(&answer.to_root)?);
    check_consistency(from_size, &from_root, answer.to_size, &to_root, &hashes(&answer.proof)?).map_err(|source| {
        Doubt::No(format!("size {from_size} is not shown to be a prefix of size {}: {source}", answer.to_size))
    })?;
    Ok(answer)
}

/// A hash from the wire.
pub(super) fn hash(bytes: &[u8]) -> Result<Hash, Doubt> {
    bytes.try_into().map_err(|_length| Doubt::No(format!("the service sent a hash of {} bytes", bytes.len())))
}

pub(super) fn hashes(list: &[impl AsRef<[u8]>]) -> Result<Vec<Hash>, Doubt> {
    list.iter().map(|bytes| hash(bytes.as_ref())).collect()
}
