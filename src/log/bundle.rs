//! From a log entry to the bundle that stock clients verify.

use super::{Log, LogError, Receipt};
use crate::model::{bundle, verify};

impl Log {
    /// Completes `unlogged` (a bundle without log entry) with its leaf and receipt; JSON.
    pub fn complete(
        &self,
        unlogged: sigstore_types::Bundle,
        leaf: Vec<u8>,
        receipt: &Receipt,
    ) -> Result<Vec<u8>, LogError> {
        let proof = bundle::LogProof {
            log_id: &self.log_id(),
            index: receipt.index,
            tree_size: receipt.tree_size,
            root: &receipt.root,
            hashes: &receipt.proof,
            checkpoint: &receipt.checkpoint,
        };
        bundle::with_entry(unlogged, leaf, &proof)
            .and_then(|bundle| bundle::to_json(&bundle))
            .map_err(|source| LogError::Bundle(receipt.index, source.to_string()))
    }

    /// The bundle of the entry at `index`, with a fresh proof; JSON. Reads the store: call it off the async threads.
    ///
    /// # Errors
    /// [`LogError::NoPayload`] where the entry has none, or it was erased.
    pub fn bundle(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let entry = self.entry(index)?;
        let payload = entry.payload.filter(|payload| !payload.is_empty()).ok_or(LogError::NoPayload(index))?;
        let unlogged = verify::parse_bundle(&payload).map_err(|source| LogError::Bundle(index, source.to_string()))?;
        self.complete(unlogged, entry.leaf, &self.receipt(index)?)
    }
}
